//! The routing matrix: statements, and where they must run.
//!
//! Data only. Invariant: whatever writes, locks, or tells one server's state says `Primary`.

/// The server a statement must run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Primary,
    Replica,
}

/// A statement; `{n}` in it is a number of its own in each run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) sql: &'static str,
    pub(super) place: Where,
    /// What runs first in the same session.
    pub(super) before: &'static [&'static str],
    /// Several statements, which only a simple query may have.
    pub(super) simple_only: bool,
    /// Cannot run twice.
    pub(super) once: bool,
    /// May be refused by the server.
    pub(super) may_fail: bool,
}

const fn row(sql: &'static str, place: Where) -> Row {
    Row {
        sql,
        place,
        before: &[],
        simple_only: false,
        once: false,
        may_fail: false,
    }
}

const fn primary(sql: &'static str) -> Row {
    row(sql, Where::Primary)
}

const fn replica(sql: &'static str) -> Row {
    row(sql, Where::Replica)
}

const fn once(sql: &'static str) -> Row {
    Row {
        once: true,
        ..primary(sql)
    }
}

const fn fails(sql: &'static str) -> Row {
    Row {
        may_fail: true,
        ..primary(sql)
    }
}

const fn several(sql: &'static str) -> Row {
    Row {
        simple_only: true,
        ..primary(sql)
    }
}

const fn after(before: &'static [&'static str], row: Row) -> Row {
    Row { before, ..row }
}

/// What the statements work on.
pub(super) const SETUP: &[&str] = &[
    "CREATE TABLE t (id serial PRIMARY KEY, v int, s text)",
    "INSERT INTO t (v, s) SELECT i, i::text FROM generate_series(1, 20) i",
    "CREATE TABLE plain (a int, b text); INSERT INTO plain VALUES (1, 'x'), (2, 'y')",
    "CREATE SEQUENCE ids",
    "CREATE UNLOGGED TABLE fast (a int)",
    "CREATE FUNCTION writes() RETURNS int VOLATILE LANGUAGE sql \
     AS 'INSERT INTO t (v) VALUES (1) RETURNING v'",
    "CREATE FUNCTION quiet() RETURNS int STABLE LANGUAGE sql \
     AS 'SELECT count(*)::int FROM plain'",
    "CREATE FUNCTION pure(a int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + 1'",
    "CREATE FUNCTION locks() RETURNS bool STABLE LANGUAGE sql \
     AS 'SELECT pg_try_advisory_xact_lock(1)'",
    "CREATE FUNCTION locks_plpgsql() RETURNS bool STABLE LANGUAGE plpgsql \
     AS 'BEGIN RETURN pg_try_advisory_xact_lock(1); END'",
    "CREATE FUNCTION lies() RETURNS int IMMUTABLE LANGUAGE plpgsql \
     AS 'BEGIN PERFORM nextval(''ids''); RETURN 1; END'",
    "CREATE FUNCTION volatile_read() RETURNS bigint VOLATILE LANGUAGE sql \
     AS 'SELECT count(*) FROM plain'",
    "CREATE FUNCTION op(a int, b int) RETURNS int STABLE LANGUAGE plpgsql \
     AS 'BEGIN PERFORM nextval(''ids''); RETURN 1; END'",
    "CREATE OPERATOR === (leftarg = int, rightarg = int, function = op)",
    "CREATE PROCEDURE proc() LANGUAGE sql AS 'INSERT INTO t (v) VALUES (5)'",
    "CREATE VIEW v_plain AS SELECT a, upper(b) AS b FROM plain",
    "CREATE VIEW v_over AS SELECT * FROM v_plain WHERE a > 0",
    "CREATE VIEW v_writes AS SELECT writes() AS w",
    "CREATE VIEW v_writes_over AS SELECT * FROM v_writes",
    "CREATE VIEW v_next AS SELECT nextval('ids') AS n FROM plain",
    "CREATE VIEW v_quiet AS SELECT quiet() AS q",
    "CREATE MATERIALIZED VIEW mat AS SELECT * FROM plain",
    "CREATE TABLE ruled (a int)",
    "CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO plain VALUES (9, 'rule')",
    "CREATE TABLE guarded (a int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; \
     ALTER TABLE guarded FORCE ROW LEVEL SECURITY; \
     CREATE POLICY p ON guarded USING (writes() = 1)",
    "CREATE TABLE generated (a int DEFAULT nextval('ids'), b int GENERATED ALWAYS AS (1) STORED)",
    "CREATE TABLE merged (a int PRIMARY KEY, b int); INSERT INTO merged VALUES (1, 1)",
];

/// The matrix.
pub(super) const ROWS: &[Row] = &[
    // Reads.
    replica("SELECT 1"),
    replica("SELECT * FROM t"),
    replica("select v from t where id = 3"),
    replica("VALUES (1), (2)"),
    replica("TABLE plain"),
    replica("WITH a AS (SELECT * FROM t) SELECT count(*) FROM a"),
    replica("SELECT * FROM v_plain"),
    replica("SELECT * FROM v_over"),
    replica("SELECT * FROM mat"),
    replica("SELECT quiet()"),
    replica("SELECT pure(3)"),
    replica("SELECT * FROM v_quiet"),
    replica("SELECT now(), random() < 2"),
    replica("SELECT count(*), max(v), sum(id) FROM t GROUP BY s ORDER BY 1"),
    replica("SELECT a FROM plain UNION ALL SELECT id FROM t"),
    replica("EXPLAIN SELECT * FROM t"),
    replica("-- in front\nSELECT 1"),
    replica("/* in /* front */ of */ SELECT 1"),
    replica("SELECT 'INSERT INTO t (v) VALUES (1)'"),
    replica("SELECT E'it\\'s; DELETE FROM t; --'"),
    replica("SELECT $tag$ ; DELETE FROM t; $tag$"),
    replica("SELECT 'for update'"),
    replica("SELECT 1 AS \"insert\""),
    // Writes.
    primary("INSERT INTO t (v) VALUES (1)"),
    primary("INSERT INTO t (v) VALUES (1) RETURNING id"),
    primary("UPDATE t SET v = v + 1 WHERE id = 1"),
    primary("DELETE FROM t WHERE id = -1"),
    primary("INSERT INTO merged VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = 3"),
    primary(
        "MERGE INTO merged m USING plain p ON m.a = p.a \
         WHEN MATCHED THEN UPDATE SET b = 7",
    ),
    primary("INSERT INTO ruled VALUES (1)"),
    primary("INSERT INTO generated DEFAULT VALUES"),
    primary("/* in front */ INSERT INTO t (v) VALUES (1)"),
    primary("-- SELECT 1\n INSERT INTO t (v) VALUES (1)"),
    primary("TRUNCATE ruled"),
    primary("WITH a AS (INSERT INTO t (v) VALUES (1) RETURNING v) SELECT * FROM a"),
    primary("WITH a AS (UPDATE t SET v = 1 WHERE id = 1 RETURNING v) SELECT * FROM a"),
    primary("WITH a AS (DELETE FROM t WHERE id = -1 RETURNING v) SELECT * FROM a"),
    primary("WITH b AS (SELECT 1), a AS (/* x */ DELETE FROM t WHERE id = -1 RETURNING v) TABLE a"),
    once("SELECT * INTO made_{n} FROM plain"),
    once("CREATE TABLE made_as_{n} AS SELECT * FROM plain"),
    once("CREATE INDEX ON plain (a)"),
    primary("REFRESH MATERIALIZED VIEW mat"),
    primary("DO $$ BEGIN INSERT INTO t (v) VALUES (1); END $$"),
    primary("DO $$ BEGIN PERFORM 1; END $$"),
    primary("CALL proc()"),
    primary("EXPLAIN ANALYZE INSERT INTO t (v) VALUES (1)"),
    primary("EXPLAIN (ANALYZE, COSTS OFF) SELECT writes()"),
    primary("NOTIFY ch, 'x'"),
    primary("SELECT pg_notify('ch', 'x')"),
    primary("ANALYZE plain"),
    // Locks.
    primary("SELECT * FROM t WHERE id = 1 FOR UPDATE"),
    primary("SELECT * FROM t WHERE id = 1 FOR NO KEY UPDATE SKIP LOCKED"),
    primary("SELECT * FROM t WHERE id = 1 FOR SHARE"),
    primary("SELECT * FROM t WHERE id = 1 FOR KEY SHARE NOWAIT"),
    primary("SELECT * FROM (SELECT * FROM t WHERE id = 1 FOR UPDATE) x"),
    primary("SELECT (SELECT v FROM t WHERE id = 1 FOR SHARE)"),
    primary("WITH a AS (SELECT * FROM t WHERE id = 1 FOR UPDATE) SELECT * FROM a"),
    primary("SELECT pg_advisory_xact_lock(7)"),
    primary("SELECT pg_try_advisory_lock(8)"),
    primary("SELECT pg_advisory_lock(9), pg_advisory_unlock(9)"),
    primary("SELECT locks()"),
    primary("SELECT locks_plpgsql()"),
    // Functions.
    primary("SELECT writes()"),
    primary("SELECT * FROM writes()"),
    primary("SELECT lies()"),
    primary("SELECT volatile_read()"),
    primary("SELECT 1 === 2"),
    primary("SELECT * FROM v_writes"),
    primary("SELECT * FROM v_writes_over"),
    primary("SELECT * FROM v_next"),
    primary("SELECT * FROM guarded"),
    primary("SELECT lo_create(0)"),
    primary("SELECT lo_from_bytea(0, 'x')"),
    // Sequences.
    primary("SELECT nextval('ids')"),
    primary("SELECT pg_catalog.nextval('ids')"),
    primary("SELECT \"nextval\"('public.ids')"),
    primary("SELECT setval('ids', 100)"),
    primary("SELECT (SELECT nextval('ids')) FROM plain"),
    primary("SELECT last_value FROM ids"),
    primary("SELECT * FROM ids"),
    // Refused outside a transaction: `pins.rs`.
    after(
        &["BEGIN", "SELECT nextval('ids')"],
        primary("SELECT currval('ids')"),
    ),
    // One server's state.
    primary("SELECT * FROM fast"),
    primary("SELECT pg_current_xact_id()"),
    primary("SELECT txid_current()"),
    primary("SELECT txid_current_if_assigned()"),
    primary("SELECT txid_current_snapshot()"),
    primary("SELECT pg_is_in_recovery()"),
    primary("SELECT pg_current_wal_lsn()"),
    primary("SELECT inet_server_port()"),
    primary("SELECT pg_backend_pid()"),
    primary("SELECT version()"),
    primary("SELECT current_setting('work_mem')"),
    primary("SELECT pg_postmaster_start_time()"),
    primary("SELECT * FROM pg_stat_activity"),
    primary("SELECT * FROM pg_stat_user_tables"),
    primary("SELECT * FROM pg_stat_replication"),
    primary("SELECT * FROM pg_locks"),
    primary("SELECT * FROM pg_settings"),
    primary("SHOW work_mem"),
    primary("SHOW transaction_read_only"),
    primary("SHOW ALL"),
    replica("SELECT relname FROM pg_class WHERE relname = 't'"),
    replica("SELECT attname FROM pg_catalog.pg_attribute WHERE attnum = 1"),
    primary("SELECT table_name FROM information_schema.tables"),
    // Settings.
    primary("SELECT set_config('work_mem', '5MB', false)"),
    primary("SELECT set_config('work_mem', '5MB', true)"),
    // COPY.
    primary("COPY plain FROM STDIN"),
    primary("COPY plain TO STDOUT"),
    primary("COPY (SELECT 1) TO STDOUT"),
    primary("COPY (INSERT INTO t (v) VALUES (1) RETURNING v) TO STDOUT"),
    // Sessions.
    once("CREATE TEMP TABLE own_{n} (a int)"),
    once("CREATE TEMP TABLE own_as_{n} AS SELECT 1 AS a"),
    after(
        &["CREATE TEMP TABLE own (a int)"],
        primary("SELECT * FROM own"),
    ),
    after(
        &["CREATE TEMP TABLE plain (a int)"],
        primary("SELECT * FROM plain"),
    ),
    after(&["SELECT pg_advisory_lock(11)"], primary("SELECT 1")),
    after(&["LISTEN ch"], primary("SELECT 1")),
    after(&["SET breccia.target = 'primary'"], primary("SELECT 1")),
    after(
        &[
            "SET breccia.target = 'primary'",
            "SET breccia.target = 'auto'",
        ],
        replica("SELECT 1"),
    ),
    after(&["SET work_mem = '5MB'"], replica("SELECT 1")),
    after(
        &["SET search_path = pg_catalog, public"],
        replica("SELECT * FROM plain"),
    ),
    after(
        &["SET standard_conforming_strings = off"],
        primary("SELECT 'it\\'s /*', 1"),
    ),
    after(&["BEGIN READ ONLY", "COMMIT"], replica("SELECT 1")),
    after(
        &["SET client_encoding = 'LATIN1'"],
        primary("INSERT INTO t (v) VALUES (3)"),
    ),
    // Hints.
    primary("/* breccia: primary */ SELECT 1"),
    primary("SELECT 1 /* breccia: primary */"),
    replica("SELECT '/* breccia: primary */'"),
    // Odd texts.
    primary("SELECT U&\"n\\0065xtval\"('ids')"),
    primary("SELECT E'\\'' , nextval('ids'), '--'"),
    primary("SELECT /* /* */ ' */ nextval('ids') --'\n"),
    primary("SELECT $a$'$a$, nextval('ids'), '$a$'"),
    fails("SELEC 1"),
    fails("SELECT nothing_of_this_name()"),
    fails("SELECT * FROM nothing_of_this_name"),
    // Several statements.
    several("SELECT 1; INSERT INTO t (v) VALUES (1)"),
    several("INSERT INTO t (v) VALUES (1); SELECT 1"),
    several("SELECT 1; SELECT nextval('ids')"),
    several("BEGIN; SELECT 1; COMMIT"),
    several("SELECT 1; SELECT 2"),
    several("SET work_mem = '5MB'; SELECT 1"),
];
