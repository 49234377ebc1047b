//! What a session has set, as its server told it, and how another connection is brought there.
//!
//! Not a parser of SET: servers tell every variable that changed, with its value. Invariant: a
//! connection runs nothing of a session before it is at the session's settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// Variables that a server tells of, and that are no setting of a session: what it did, or what is
/// Breccia's own.
const NO_SETTINGS: [&str; 12] = [
    "error_count",
    "gtid_seq_no",
    "identity",
    "in_transaction",
    "insert_id",
    "last_gtid",
    "last_insert_id",
    "pseudo_thread_id",
    "rand_seed1",
    "rand_seed2",
    "rowcount",
    "warning_count",
];
/// What a replica's connection has for good, whatever the session's is there.
const NOT_ON_REPLICAS: [&str; 3] = ["autocommit", "transaction_read_only", "tx_read_only"];
/// What transactions are like, or how they are logged: no text is read by it, and inside of one it may not
/// be changed.
const OF_TRANSACTIONS: [&str; 12] = [
    "autocommit",
    "binlog_direct_non_transactional_updates",
    "binlog_format",
    "gtid_domain_id",
    "gtid_next",
    "gtid_seq_no",
    "skip_replication",
    "sql_log_bin",
    "transaction_isolation",
    "transaction_read_only",
    "tx_isolation",
    "tx_read_only",
];
/// Variables of which servers tell NULL as an empty text.
const NULL_IS_EMPTY: [&str; 5] = [
    "character_set_results",
    "default_tmp_storage_engine",
    "enforce_storage_engine",
    "innodb_ft_user_stopword_table",
    "innodb_tmpdir",
];
/// Variables with two names, of which servers know one, the other, or both.
const TWO_NAMES: [(&str, &str); 2] = [
    ("transaction_isolation", "tx_isolation"),
    ("transaction_read_only", "tx_read_only"),
];
/// The most variables kept of one session; a server has fewer that can be set.
pub const MAX_VARIABLES: usize = 1024;

/// What a session has set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    variables: BTreeMap<String, String>,
    schema: Option<String>,
    /// Whether autocommit is among them, and on: every statement asks several times.
    autocommit: Option<bool>,
}

/// The other name of a variable.
fn other_name(name: &str) -> Option<&'static str> {
    TWO_NAMES.iter().find_map(|(new, old)| match name {
        _ if name == *new => Some(*old),
        _ if name == *old => Some(*new),
        _ => None,
    })
}

/// Whether a replica's connection has a value of its own of a variable for good, and another one than this.
#[must_use]
pub fn is_own_on_replicas(name: &str, value: &str) -> bool {
    NOT_ON_REPLICAS.contains(&name) && (name, value) != ("autocommit", "ON")
}

/// Whether a server's word of a variable is for the session to keep.
#[must_use]
pub fn is_setting(name: &str) -> bool {
    !NO_SETTINGS.contains(&name)
}

impl Settings {
    /// A variable has this value now.
    pub fn set(&mut self, name: &str, value: &str) {
        if let Some(other) = other_name(name) {
            // What was said last holds, by whatever name.
            self.variables.remove(other);
        }
        if self.variables.len() < MAX_VARIABLES || self.variables.contains_key(name) {
            self.variables.insert(name.to_owned(), value.to_owned());
            if name == "autocommit" {
                self.autocommit = Some(value != "OFF");
            }
        }
        if name == "collation_connection"
            && let Some((charset, _)) = value.split_once('_')
        {
            // A server that is told a collation takes its character set with it, and tells nothing of that.
            self.set("character_set_connection", charset);
        }
    }

    /// Whether autocommit is on, if the session has set it.
    #[must_use]
    pub fn autocommits(&self) -> Option<bool> {
        self.autocommit
    }

    /// The value of a variable, if the session has set it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The value of a variable by whichever of its names the session has set it.
    #[must_use]
    pub fn by_any_name(&self, name: &str) -> Option<&str> {
        let other = || self.get(other_name(name)?);
        self.get(name).or_else(other)
    }

    /// Whether transactions are READ COMMITTED in a session that began with `base`.
    #[must_use]
    pub fn is_read_committed(&self, base: &Self) -> bool {
        let name = "transaction_isolation";
        let level = self.by_any_name(name).or_else(|| base.by_any_name(name));
        level == Some("READ-COMMITTED")
    }

    /// The current schema.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Another schema is current.
    pub fn enter(&mut self, schema: &str) {
        self.schema = (!schema.is_empty()).then(|| schema.to_owned());
    }

    /// These settings without those of transactions, which a statement is not read by.
    #[must_use]
    pub fn of_statements(self: &Arc<Self>) -> Arc<Self> {
        if !OF_TRANSACTIONS
            .iter()
            .any(|it| self.variables.contains_key(*it))
        {
            return Arc::clone(self);
        }
        let mut stripped = (**self).clone();
        stripped
            .variables
            .retain(|name, _| !OF_TRANSACTIONS.contains(&name.as_str()));
        stripped.autocommit = None;
        Arc::new(stripped)
    }

    /// These settings with the transactions of `session`: to change those would end what is open.
    #[must_use]
    pub fn within(&self, session: &Self) -> Self {
        let mut whole = self.clone();
        for name in OF_TRANSACTIONS {
            if let Some(value) = session.get(name) {
                whole.set(name, value);
            }
        }
        whole
    }

    /// Makes two equal copies one, so that they are compared once and not for each statement. The one
    /// at the lower address stays: soon there is one for all.
    pub fn share(here: &mut Arc<Self>, there: &mut Arc<Self>) {
        if Arc::ptr_eq(here, there) || **here != **there {
            return;
        }
        if Arc::as_ptr(here) < Arc::as_ptr(there) {
            *there = Arc::clone(here);
        } else {
            *here = Arc::clone(there);
        }
    }

    /// The names of the variables.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The statement that brings a connection to these settings, which began with `base`, from
    /// `applied`, which began with `their_base`; `None`: it is there. What neither a session nor its
    /// beginning tells is the server's default.
    #[must_use]
    pub fn since(
        &self,
        base: &Self,
        applied: &Self,
        their_base: &Self,
        replica: bool,
    ) -> Option<String> {
        let sets = [self, base, applied, their_base];
        let names: BTreeSet<&str> = sets.iter().flat_map(|it| it.names()).collect();
        let wanted = |name: &str| self.by_any_name(name).or_else(|| base.by_any_name(name));
        let there = |name: &str| {
            let applied = applied.by_any_name(name);
            applied.or_else(|| their_base.by_any_name(name))
        };
        let mut sql = String::new();
        let charset = charset_of_names(wanted);
        if let Some((charset, collation)) = charset
            && OF_NAMES.iter().any(|name| wanted(name) != there(name))
        {
            let _ = write!(sql, "SET NAMES {charset} COLLATE {collation}");
        }
        for name in names {
            let differs = wanted(name) != there(name);
            let by_names = charset.is_some() && OF_NAMES.contains(&name);
            if !differs || by_names || (replica && NOT_ON_REPLICAS.contains(&name)) {
                continue;
            }
            sql.push_str(if sql.is_empty() { "SET " } else { ", " });
            // Writing to a String cannot fail.
            let _ = write!(sql, "SESSION {name} = ");
            match wanted(name) {
                Some(value) => write_value(&mut sql, name, value),
                None => sql.push_str("DEFAULT"),
            }
        }
        (!sql.is_empty()).then_some(sql)
    }
}

/// The variables of `SET NAMES charset COLLATE collation`.
const OF_NAMES: [&str; 4] = [
    "character_set_client",
    "character_set_connection",
    "character_set_results",
    "collation_connection",
];

/// What `SET NAMES` was said with, if all four variables are as that leaves them. The collation is that of
/// results, too, which their columns' metadata tell and no variable does: so it is said again.
fn charset_of_names<'a>(wanted: impl Fn(&str) -> Option<&'a str>) -> Option<(&'a str, &'a str)> {
    let [client, connection, results, collation] = OF_NAMES.map(wanted);
    let (charset, collation) = (client?, collation?);
    let plain = |text: &str| {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !text.is_empty() && text.bytes().all(named)
    };
    let alike = [connection, results].iter().all(|it| *it == Some(charset));
    (alike && plain(charset) && plain(collation)).then_some((charset, collation))
}

/// Writes a value as SQL that is read alike under every `sql_mode`.
fn write_value(sql: &mut String, name: &str, value: &str) {
    if NULL_IS_EMPTY.contains(&name) && value.is_empty() {
        sql.push_str("NULL");
    } else if is_number(value) {
        sql.push_str(value);
    } else if value.contains('\\') {
        sql.push_str("X'");
        for byte in value.bytes() {
            let _ = write!(sql, "{byte:02X}");
        }
        sql.push('\'');
    } else {
        let _ = write!(sql, "'{}'", value.replace('\'', "''"));
    }
}

fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all(whole) && all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.set(name, value);
        }
        settings
    }

    #[test]
    fn a_connection_is_brought_from_one_session_to_another() {
        let base = settings(&[("sql_mode", "STRICT_ALL_TABLES")]);
        let from = settings(&[("sql_mode", "ANSI"), ("lc_time_names", "de_DE")]);
        let to = settings(&[("time_zone", "+02:00"), ("sql_select_limit", "7")]);
        let sql = to.since(&base, &from, &base, false).expect("they differ");
        assert_eq!(
            sql,
            "SET SESSION lc_time_names = DEFAULT, SESSION sql_mode = 'STRICT_ALL_TABLES', \
             SESSION sql_select_limit = 7, SESSION time_zone = '+02:00'"
        );
        assert_eq!(to.since(&base, &to, &base, false), None);
        let newer = settings(&[("sql_mode", "ANSI")]);
        let sql = to
            .since(&base, &to, &newer, false)
            .expect("made under another default");
        assert_eq!(sql, "SET SESSION sql_mode = 'STRICT_ALL_TABLES'");
    }

    #[test]
    fn what_a_replica_has_for_good_is_left_alone() {
        let to = settings(&[("autocommit", "OFF")]);
        let none = Settings::default();
        assert_eq!(to.since(&none, &none, &none, true), None);
        let sql = to.since(&none, &none, &none, false).expect("they differ");
        assert_eq!(sql, "SET SESSION autocommit = 'OFF'");
    }

    #[test]
    fn what_was_said_last_of_isolation_holds_by_whatever_name() {
        let (old, new) = ("tx_isolation", "transaction_isolation");
        let (committed, repeatable) = ("READ-COMMITTED", "REPEATABLE-READ");
        let check = |base: &[(&str, &str)], session: &[(&str, &str)], expected: bool| {
            let found = settings(session).is_read_committed(&settings(base));
            assert_eq!(found, expected, "{session:?} of {base:?}");
        };
        check(&[(new, committed)], &[], true);
        check(&[(old, committed)], &[], true);
        check(&[(new, repeatable)], &[], false);
        check(&[], &[], false);
        check(&[(new, committed)], &[(old, repeatable)], false);
        check(&[(old, committed)], &[(new, repeatable)], false);
        check(&[(new, repeatable)], &[(old, committed)], true);
        check(
            &[(new, committed)],
            &[(new, committed), (old, repeatable)],
            false,
        );
        check(
            &[(new, committed)],
            &[(old, committed), (new, repeatable)],
            false,
        );
    }

    #[test]
    fn isolation_is_brought_by_whatever_name_it_was_told() {
        let (old, new) = ("tx_isolation", "transaction_isolation");
        let base = settings(&[(new, "READ-COMMITTED")]);
        let wanted = settings(&[(old, "SERIALIZABLE")]);
        let none = Settings::default();
        let sql = wanted
            .since(&base, &none, &base, false)
            .expect("they differ");
        assert!(!sql.contains("READ-COMMITTED"), "{sql}");
        let sql = none
            .since(&base, &wanted, &base, false)
            .expect("they differ");
        assert!(!sql.contains("DEFAULT"), "{sql}");
        assert_eq!(wanted.since(&base, &wanted, &base, false), None);
    }

    #[test]
    fn values_are_written_for_every_mode() {
        let check = |name: &str, value: &str, expected: &str| {
            let mut sql = String::new();
            write_value(&mut sql, name, value);
            assert_eq!(sql, expected, "{name} = {value:?}");
        };
        check("character_set_results", "", "NULL");
        check("max_statement_time", "1.000000", "1.000000");
        check("x", "-5", "-5");
        check("x", "5.", "'5.'");
        check("x", "a'b", "'a''b'");
        check("x", "a\\b", "X'615C62'");
        check("time_zone", "+01:00", "'+01:00'");
    }
}
