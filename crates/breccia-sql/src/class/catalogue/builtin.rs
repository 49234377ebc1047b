//! What is known of PostgreSQL's own functions beyond their volatility.
//!
//! Not a list of all functions: those come from the database. Invariant: a function whose answer
//! depends on which server gives it is denied here, unless its volatility already says so.

/// Denied by the beginning of the name.
const DENIED_PREFIXES: &[&str] = &[
    "binary_upgrade_",
    "brin_",
    "cursor_to_xml",
    "database_to_xml",
    "dblink",
    "gin_clean_",
    "inet_client_",
    "inet_server_",
    // They call the checks of domains inside a row type.
    "json_populate_",
    "jsonb_populate_",
    "lo_",
    "pg_advisory_",
    "pg_available_",
    "pg_backend_",
    "pg_backup_",
    "pg_cancel_",
    "pg_conf_",
    "pg_control_",
    "pg_current_",
    "pg_cursor",
    "pg_event_trigger_",
    "pg_export_",
    "pg_extension_",
    "pg_filenode_",
    "pg_get_backend",
    "pg_get_replication",
    "pg_get_shmem",
    "pg_get_wal",
    "pg_hba_",
    "pg_ident_",
    "pg_input_",
    "pg_last_",
    "pg_listening_",
    "pg_lock",
    "pg_logical",
    "pg_ls_",
    "pg_notif",
    "pg_postmaster_",
    "pg_prepared_",
    "pg_read_",
    "pg_relation_file",
    "pg_replication_",
    "pg_rotate_",
    "pg_settings_",
    "pg_show_",
    "pg_sleep",
    "pg_stat",
    "pg_switch_",
    "pg_tablespace_",
    "pg_terminate_",
    "pg_timezone_",
    "pg_try_advisory_",
    "pg_wal",
    "pg_xact_",
    "query_to_xml",
    "schema_to_xml",
    "table_to_xml",
    "txid_",
];

/// Denied by name.
const DENIED: &[&str] = &[
    "current_setting",
    "currval",
    "icu_unicode_version",
    "lastval",
    "loread",
    "lowrite",
    "mxid_age",
    "nextval",
    "pg_blocking_pids",
    // What one server was built with.
    "pg_config",
    "pg_is_in_backup",
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_is_wal_replay_paused",
    "pg_isolation_test_session_is_blocked",
    "pg_jit_available",
    "pg_my_temp_schema",
    "pg_notify",
    "pg_promote",
    "pg_reload_conf",
    "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value",
    "pg_trigger_depth",
    "set_config",
    "setseed",
    "setval",
    "show_limit",
    "unicode_version",
    "version",
];

/// Volatile, yet as good from one server as from another.
const HARMLESS: &[&str] = &[
    // Nobody can call these two: they stand behind TABLESAMPLE.
    "bernoulli",
    "system",
    "clock_timestamp",
    "gen_random_uuid",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// Extensions whose functions in C or SQL, if not volatile, neither write nor tell one server's state.
const KNOWN_EXTENSIONS: &[&str] = &[
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "postgis",
    "seg",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// Operators that syntax calls without naming them: CASE, IN, BETWEEN, LIKE, USING and others.
pub(super) const BASIC_OPERATORS: &[&str] = &[
    "=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~", "!~",
];

pub(super) fn is_denied(name: &str) -> bool {
    DENIED.contains(&name)
        || DENIED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || (name.starts_with("pg_") && name.ends_with("_size"))
}

/// Input functions reach any type by its number, and so the checks of domains.
pub(super) fn is_input(name: &str) -> bool {
    name.ends_with("_in") || name.ends_with("_recv")
}

pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

pub(super) fn is_known_extension(name: &str) -> bool {
    KNOWN_EXTENSIONS.contains(&name)
}
