//! What the corpus works on: relations, functions and operators, honest ones and others.
//!
//! Data only. Invariant: whatever of this is used by a statement that is called a read in the
//! grammar neither writes, locks nor tells one server's state.

/// Run in order on the primary, each alone.
pub(super) const SETUP: &[&str] = &[
    // Tables.
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE TABLE t (id serial PRIMARY KEY, v int, s text, at timestamptz, j jsonb, a int[], \
     n numeric, m mood, c pair, \"Odd Name\" int)",
    "INSERT INTO t (v, s, at, j, a, n, m, c, \"Odd Name\") SELECT i % 7, 'text ' || i % 11, \
     timestamptz '2024-02-03 04:05:06Z' + i * interval '7 hours', \
     jsonb_build_object('k', i, 'l', array[i, i + 1]), array[i, i % 3], i / 3.0, \
     (array['sad', 'ok', 'happy'])[1 + i % 3]::mood, row(i, 'pair ' || i)::pair, i * i \
     FROM generate_series(1, 24) i",
    "INSERT INTO t (v) VALUES (NULL), (3)",
    "CREATE TABLE plain (a int, b text)",
    "INSERT INTO plain VALUES (1, 'x'), (2, 'y'), (3, NULL), (3, 'it''s')",
    "CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES t (id), amount numeric)",
    "INSERT INTO children SELECT i, 1 + i % 20, i * 1.25 FROM generate_series(1, 30) i",
    "CREATE TABLE parted (a int, b text) PARTITION BY RANGE (a)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (50)",
    "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (50) TO (100)",
    "INSERT INTO parted SELECT i, 'p' || i FROM generate_series(1, 90, 6) i",
    "CREATE TABLE base (a int); CREATE TABLE heir (b int) INHERITS (base)",
    "INSERT INTO base VALUES (1); INSERT INTO heir VALUES (2, 3)",
    "CREATE MATERIALIZED VIEW kept AS SELECT v, count(*) AS c FROM t GROUP BY v",
    "CREATE TABLE \"select\" (\"from\" int, größe text); INSERT INTO \"select\" VALUES (1, 'ß')",
    "CREATE SCHEMA other; CREATE TABLE other.plain (a int, b text)",
    "INSERT INTO other.plain VALUES (7, 'other')",
    // What only the primary tells.
    "CREATE SEQUENCE ids",
    "CREATE UNLOGGED TABLE fast (a int)",
    "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
    "CREATE FOREIGN TABLE far (b text) SERVER files OPTIONS (filename '/etc/hostname')",
    "CREATE TABLE mixed (b text) PARTITION BY LIST (b)",
    "CREATE FOREIGN TABLE mixed_far PARTITION OF mixed DEFAULT SERVER files \
     OPTIONS (filename '/etc/hostname')",
    "CREATE TABLE twin (a int); CREATE UNLOGGED TABLE other.twin (a int)",
    // Functions that write, lock, or tell one server's state.
    "CREATE FUNCTION writes() RETURNS int LANGUAGE sql \
     AS 'INSERT INTO plain VALUES (9, ''w'') RETURNING a'",
    "CREATE FUNCTION calls_writes() RETURNS int LANGUAGE sql STABLE AS 'SELECT writes()'",
    "CREATE FUNCTION calls_calls() RETURNS int LANGUAGE sql STABLE AS 'SELECT calls_writes()'",
    "CREATE FUNCTION locks(x int) RETURNS bool LANGUAGE sql STABLE \
     AS 'SELECT pg_try_advisory_xact_lock(x)'",
    "CREATE FUNCTION lies(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN PERFORM pg_advisory_xact_lock(x); RETURN x; END'",
    "CREATE FUNCTION lies_in_a_loop(x int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN FOR i IN \
     1..2 LOOP PERFORM pg_try_advisory_xact_lock(i); END LOOP; RETURN x; END'",
    "CREATE FUNCTION dynamic(x text) RETURNS int LANGUAGE plpgsql STABLE AS \
     'DECLARE r int; BEGIN EXECUTE ''SELECT '' || x INTO r; RETURN r; END'",
    "CREATE FUNCTION next_one() RETURNS bigint LANGUAGE plpgsql STABLE \
     AS 'BEGIN RETURN nextval(''ids''); END'",
    "CREATE FUNCTION default_next(x bigint DEFAULT nextval('ids')) RETURNS bigint LANGUAGE sql \
     STABLE AS 'SELECT x'",
    "CREATE FUNCTION sets_memory() RETURNS text LANGUAGE sql STABLE SET work_mem = '5MB' \
     AS 'SELECT current_setting(''work_mem'')'",
    "CREATE FUNCTION volatile_read() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM plain'",
    "CREATE FUNCTION reads_fast() RETURNS bigint LANGUAGE sql STABLE \
     AS 'SELECT count(*) FROM fast'",
    "CREATE FUNCTION reads_ids() RETURNS bigint LANGUAGE plpgsql STABLE \
     AS 'BEGIN RETURN (SELECT last_value FROM ids); END'",
    "CREATE FUNCTION twice(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * x'",
    "CREATE FUNCTION twin_of(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x'",
    "CREATE FUNCTION other.twin_of(x text) RETURNS int LANGUAGE plpgsql STABLE \
     AS 'BEGIN PERFORM nextval(''public.ids''); RETURN 1; END'",
    "CREATE FUNCTION field_lies(p pair) RETURNS int LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN 1; END'",
    "CREATE FUNCTION rows_lie(VARIADIC r plain[]) RETURNS int LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN PERFORM pg_advisory_xact_lock(2); RETURN 1; END'",
    "CREATE FUNCTION lies_equal(a int, b int) RETURNS bool LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN PERFORM pg_advisory_xact_lock(3); RETURN a = b; END'",
    "CREATE OPERATOR === (leftarg = int, rightarg = int, function = lies_equal)",
    "CREATE FUNCTION lies_sum(a int, b int) RETURNS int LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN PERFORM pg_advisory_xact_lock(4); RETURN a + b; END'",
    "CREATE AGGREGATE sum_lies (int) (sfunc = lies_sum, stype = int, initcond = '0')",
    "CREATE FUNCTION lies_mood(m mood) RETURNS uuid LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN PERFORM pg_advisory_xact_lock(5); RETURN NULL; END'",
    "CREATE CAST (mood AS uuid) WITH FUNCTION lies_mood(mood)",
    "CREATE PROCEDURE proc() LANGUAGE sql AS 'INSERT INTO plain VALUES (5, ''c'')'",
    // Honest functions.
    "CREATE FUNCTION quiet() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM plain'",
    "CREATE FUNCTION quiet_of(x int) RETURNS bigint LANGUAGE sql STABLE \
     AS 'SELECT count(*) FROM t WHERE v = $1 AND quiet() > 0'",
    "CREATE FUNCTION some_rows(x int) RETURNS TABLE (a int, b text) LANGUAGE sql STABLE \
     AS 'SELECT id, s FROM t WHERE id <= x'",
    "CREATE FUNCTION steps(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'DECLARE r int := 0; \
     BEGIN FOR i IN 1..x LOOP IF i % 2 = 0 THEN r := r + i; ELSIF (i > 90) THEN EXIT; END IF; \
     END LOOP; RETURN r; END'",
    "CREATE FUNCTION asks(x int) RETURNS text LANGUAGE plpgsql STABLE AS 'DECLARE r record; \
     o text; BEGIN SELECT s, v INTO r FROM t WHERE id = x; FOR o IN SELECT b FROM plain LOOP \
     NULL; END LOOP; RETURN coalesce(r.s, ''none'') || steps(x); \
     EXCEPTION WHEN no_data_found THEN RETURN NULL; END'",
    "CREATE FUNCTION returns_rows(x int) RETURNS SETOF plain LANGUAGE plpgsql STABLE \
     AS 'BEGIN RETURN QUERY SELECT * FROM plain WHERE a <= x; RETURN; END'",
    "CREATE FUNCTION add_up(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE \
     AS 'SELECT coalesce(a, 0) + coalesce(b, 0)'",
    "CREATE OPERATOR |+| (leftarg = int, rightarg = int, function = add_up)",
    "CREATE AGGREGATE add_all (int) (sfunc = add_up, stype = int, initcond = '0')",
    "CREATE FUNCTION is_small(x int) RETURNS bool LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN RETURN x < 1000; END'",
    "CREATE DOMAIN small AS int CHECK (VALUE > -1000 AND is_small(VALUE))",
    "CREATE DOMAIN smaller AS small",
    "CREATE FUNCTION of_the_standard(x int) RETURNS bigint LANGUAGE sql STABLE \
     BEGIN ATOMIC SELECT 1; SELECT count(*) + x FROM plain; END",
    "CREATE FUNCTION returns(x int) RETURNS int LANGUAGE sql IMMUTABLE RETURN x + 1",
    "CREATE FUNCTION takes_small(x small) RETURNS int LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN RETURN x; END'",
    "CREATE FUNCTION apart(a float8, b float8) RETURNS float8 LANGUAGE sql IMMUTABLE \
     AS 'SELECT a - b'",
    "CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = apart)",
    "CREATE TABLE spans (r span, e small[]); INSERT INTO spans SELECT span(i, i + 2), array[i, 3] \
     FROM generate_series(1, 20) i",
    "CREATE INDEX ON t ((v + steps(4)))",
    "CREATE STATISTICS t_stat ON (v + steps(3)), s FROM t",
    // Relations whose planning calls what lies.
    "CREATE TABLE index_lies (a int); CREATE INDEX ON index_lies ((a + lies(21)))",
    "CREATE TABLE partial_lies (a int); CREATE INDEX ON partial_lies (a) WHERE a > lies(22)",
    "CREATE TABLE key_lies (a int) PARTITION BY RANGE ((a + lies(23)))",
    "CREATE TABLE key_lies_1 PARTITION OF key_lies FOR VALUES FROM (0) TO (1000)",
    "CREATE TABLE check_lies (a int CHECK (a > lies(24) - 100))",
    "CREATE TABLE heir_of_lies (a int); CREATE TABLE lying_child (CHECK (a > lies(25) - 100)) \
     INHERITS (heir_of_lies)",
    // Views.
    "CREATE VIEW v_plain AS SELECT a, upper(b) AS b FROM plain",
    "CREATE VIEW v_over AS SELECT x.a, x.b, t.s FROM v_plain x LEFT JOIN t ON t.v = x.a",
    "CREATE VIEW v_sums AS SELECT v, sum(n) AS n, count(DISTINCT s) AS c FROM t GROUP BY v",
    "CREATE VIEW v_quiet AS SELECT quiet() AS q, steps(5) AS w, add_all(a) AS r FROM plain",
    "CREATE VIEW v_writes AS SELECT writes() AS w",
    "CREATE VIEW v_writes_over AS SELECT v.w, p.a FROM v_writes v, plain p",
    "CREATE VIEW v_next AS SELECT nextval('ids') AS n",
    "CREATE VIEW v_locks AS SELECT a FROM plain FOR UPDATE",
    "CREATE VIEW v_fast AS SELECT a FROM fast",
    "CREATE VIEW v_lies AS SELECT a FROM plain WHERE a === 1",
    "CREATE VIEW v_settings AS SELECT name FROM pg_settings",
    // Row security.
    "CREATE TABLE guarded (a int, owner text DEFAULT 'app')",
    "INSERT INTO guarded SELECT i, CASE WHEN i % 2 = 0 THEN 'app' ELSE 'no' END \
     FROM generate_series(1, 10) i",
    "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY p ON guarded USING (owner = current_user AND quiet() > 0)",
    "CREATE TABLE guarded_lies (a int); INSERT INTO guarded_lies VALUES (1)",
    "ALTER TABLE guarded_lies ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY p ON guarded_lies USING (pg_try_advisory_xact_lock(a))",
    "CREATE VIEW v_guarded_lies WITH (security_barrier) AS SELECT a FROM guarded_lies",
    // Rules and generated columns.
    "CREATE TABLE generated (a int DEFAULT nextval('ids'), b int GENERATED ALWAYS AS (7) STORED, \
     c int GENERATED ALWAYS AS IDENTITY)",
    "INSERT INTO generated DEFAULT VALUES",
    "CREATE TABLE ruled (a int); \
     CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO plain VALUES (9, 'r')",
    // The role whose rows policies choose.
    "CREATE ROLE app",
    "GRANT USAGE ON SCHEMA public, other TO app",
    "GRANT ALL ON ALL TABLES IN SCHEMA public, other TO app",
    "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app",
    "GRANT pg_read_server_files TO app",
    "ANALYZE",
];

/// A database that lies in a way no statement shows, and a statement that runs into it.
pub(super) struct Liar {
    pub(super) setup: &'static [&'static str],
    pub(super) sql: &'static str,
}

const LOCKS: &str = "CREATE FUNCTION lies(x int) RETURNS bool LANGUAGE plpgsql IMMUTABLE \
                     AS 'BEGIN PERFORM pg_advisory_xact_lock(x); RETURN true; END'";

/// Each takes an advisory lock although every word of the statement is honest.
pub(super) const LIARS: &[Liar] = &[
    Liar {
        setup: &[
            LOCKS,
            "CREATE DOMAIN checked AS int CHECK (lies(VALUE))",
            "CREATE FUNCTION honest() RETURNS checked LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
        ],
        sql: "SELECT honest()",
    },
    Liar {
        setup: &[
            LOCKS,
            "CREATE DOMAIN checked AS int CHECK (lies(VALUE))",
            "CREATE FUNCTION honest(x checked) RETURNS int LANGUAGE plpgsql STABLE \
             AS 'BEGIN RETURN 1; END'",
        ],
        sql: "SELECT honest(2)",
    },
    Liar {
        setup: &[
            "CREATE DOMAIN checked AS int CHECK (pg_try_advisory_xact_lock(VALUE))",
            "CREATE TABLE d (a checked[])",
            "INSERT INTO d VALUES ('{1}')",
        ],
        sql: "SELECT * FROM d WHERE a = '{88}'",
    },
    Liar {
        setup: &[
            "CREATE DOMAIN checked AS int CHECK (pg_try_advisory_xact_lock(VALUE))",
            "CREATE TYPE pair AS (a checked, b int)",
            "CREATE TABLE d (p pair)",
            "INSERT INTO d VALUES (NULL)",
        ],
        sql: "SELECT coalesce(p, '(1,2)') FROM d",
    },
    Liar {
        setup: &[
            "CREATE FUNCTION apart(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE \
             AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN a - b; END'",
            "CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = apart)",
            "CREATE TABLE d (r span)",
            "INSERT INTO d SELECT span(i, i + 2) FROM generate_series(1, 100) i",
            "ANALYZE d",
        ],
        sql: "SELECT count(*) FROM d WHERE r && '[3,5)'",
    },
    Liar {
        setup: &[
            "CREATE TABLE d (a int, b int)",
            "INSERT INTO d VALUES (1, 2)",
            "CREATE FUNCTION as_int(d) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.a'",
            "CREATE CAST (d AS int) WITH FUNCTION as_int(d) AS IMPLICIT",
            "CREATE FUNCTION f(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE \
             AS 'BEGIN PERFORM pg_advisory_xact_lock(x); RETURN 1; END'",
        ],
        sql: "SELECT d.f FROM d",
    },
    Liar {
        setup: &[
            "CREATE FUNCTION same(a int, b int) RETURNS bool LANGUAGE plpgsql IMMUTABLE \
             AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN a = b; END'",
            "CREATE FUNCTION differ(a int, b int) RETURNS bool LANGUAGE plpgsql IMMUTABLE \
             AS 'BEGIN RETURN a <> b; END'",
            "CREATE OPERATOR === (leftarg = int, rightarg = int, function = same, negator = <<>>)",
            "CREATE OPERATOR <<>> (leftarg = int, rightarg = int, function = differ, \
             negator = ===)",
            "CREATE TABLE d (a int)",
            "INSERT INTO d VALUES (1)",
        ],
        sql: "SELECT * FROM d WHERE NOT (a <<>> 1)",
    },
    Liar {
        setup: &[
            LOCKS,
            "CREATE TABLE d (a int CHECK (lies(7)))",
            "INSERT INTO d VALUES (1)",
        ],
        sql: "SELECT * FROM (SELECT * FROM d UNION ALL SELECT * FROM d) x WHERE a = 1",
    },
    Liar {
        setup: &[
            LOCKS,
            "CREATE TABLE d (a int)",
            "CREATE STATISTICS s ON (a + lies(8)::int), a FROM d",
            "INSERT INTO d VALUES (1)",
        ],
        sql: "SELECT * FROM d WHERE a = 1",
    },
    Liar {
        setup: &[
            LOCKS,
            "CREATE TABLE d (a int) PARTITION BY RANGE ((a + lies(9)::int))",
            "CREATE TABLE e PARTITION OF d FOR VALUES FROM (0) TO (1000)",
        ],
        sql: "SELECT * FROM d WHERE a = 1",
    },
    Liar {
        setup: &[
            "CREATE TYPE mood AS ENUM ('sad', 'ok')",
            "CREATE FUNCTION as_text(mood) RETURNS text LANGUAGE plpgsql IMMUTABLE \
             AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN 1; END'",
            "CREATE CAST (mood AS text) WITH FUNCTION as_text(mood) AS IMPLICIT",
            "CREATE TABLE d (m mood)",
            "INSERT INTO d VALUES ('ok')",
        ],
        sql: "SELECT lower(m) FROM d",
    },
    Liar {
        setup: &[
            "CREATE TYPE mood AS ENUM ('sad', 'ok')",
            "CREATE FUNCTION same(a mood, b mood) RETURNS bool LANGUAGE plpgsql IMMUTABLE \
             AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN a::text = b::text; END'",
            "CREATE OPERATOR = (leftarg = mood, rightarg = mood, function = same)",
            "CREATE TABLE d (m mood)",
            "INSERT INTO d VALUES ('ok')",
        ],
        sql: "SELECT m IN ('ok', 'sad') FROM d",
    },
    Liar {
        setup: &[
            "CREATE TYPE pair AS (a int, b int)",
            "CREATE FUNCTION compare(a pair, b pair) RETURNS int LANGUAGE plpgsql IMMUTABLE \
             AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN a.a - b.a; END'",
            "CREATE FUNCTION before(a pair, b pair) RETURNS bool LANGUAGE sql IMMUTABLE \
             AS 'SELECT a.a < b.a'",
            "CREATE OPERATOR <<< (leftarg = pair, rightarg = pair, function = before)",
            "CREATE FUNCTION same(a pair, b pair) RETURNS bool LANGUAGE sql IMMUTABLE \
             AS 'SELECT a.a = b.a'",
            "CREATE OPERATOR >>> (leftarg = pair, rightarg = pair, function = same)",
            "CREATE OPERATOR CLASS pairs DEFAULT FOR TYPE pair USING btree \
             AS OPERATOR 1 <<<, OPERATOR 3 >>>, FUNCTION 1 compare(pair, pair)",
            "CREATE TABLE d (p pair)",
            "INSERT INTO d VALUES ('(1,2)'), ('(0,2)')",
        ],
        sql: "SELECT * FROM d ORDER BY p",
    },
];

/// What bodies in PL/pgSQL work on; `{f}` is a function that takes a lock, or one that does not.
pub(super) const BODIES_SETUP: &[&str] = &[
    "CREATE FUNCTION lies(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN PERFORM pg_advisory_xact_lock(x); RETURN x; END'",
    "CREATE FUNCTION honest(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN x; END'",
    "CREATE TABLE d (a int, b text)",
    "INSERT INTO d VALUES (1, 'x'), (2, 'y')",
    "CREATE VIEW v_lies AS SELECT lies(a) AS a FROM d; CREATE VIEW v_honest AS SELECT honest(a) AS a FROM d",
    "CREATE FUNCTION f_lies(r d) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lies(r.a); END'",
    "CREATE FUNCTION f_honest(r d) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1; END'",
    "CREATE FUNCTION o_lies(a int, b int) RETURNS int LANGUAGE plpgsql IMMUTABLE \
     AS 'BEGIN RETURN lies(a); END'",
    "CREATE OPERATOR === (leftarg = int, rightarg = int, function = o_lies)",
];

/// Bodies that are honest or not, as `{f}` is.
pub(super) const BODIES: &[&str] = &[
    "BEGIN RETURN {f}(1); END",
    "begin return\t{f} /* ( */ (1); end;",
    "BEGIN RETURN \"{f}\"(1); END",
    "BEGIN RETURN public . {f} (1); END",
    "DECLARE x int := {f}(1); BEGIN RETURN x; END",
    "DECLARE x CONSTANT int DEFAULT {f}(1); BEGIN RETURN x; END",
    "DECLARE x int; BEGIN x := {f}(1); RETURN x; END",
    "DECLARE x int; BEGIN x = {f}(1); RETURN x; END",
    "DECLARE x int[]; BEGIN x[{f}(1)] := 3; RETURN x[1]; END",
    "BEGIN IF {f}(1) > 0 THEN RETURN 1; END IF; RETURN 2; END",
    "BEGIN IF (false) THEN NULL; ELSIF {f}(1) = 1 THEN RETURN 1; END IF; RETURN 2; END",
    "BEGIN CASE {f}(1) WHEN 1 THEN RETURN 1; ELSE RETURN 2; END CASE; END",
    "BEGIN CASE WHEN {f}(1) = 1 THEN RETURN 1; ELSE RETURN 2; END CASE; END",
    "BEGIN FOR i IN 1..{f}(2) LOOP NULL; END LOOP; RETURN 1; END",
    "BEGIN FOR i IN REVERSE {f}(3)..1 BY 2 LOOP NULL; END LOOP; RETURN 1; END",
    "BEGIN <<outer_loop>> WHILE {f}(1) < 0 LOOP EXIT outer_loop; END LOOP; RETURN 1; END",
    "BEGIN LOOP EXIT WHEN {f}(1) = 1; END LOOP; RETURN 1; END",
    "DECLARE r record; BEGIN FOR r IN SELECT {f}(a) FROM d LOOP NULL; END LOOP; RETURN 1; END",
    "DECLARE x int; BEGIN FOREACH x IN ARRAY array[{f}(1), 2] LOOP NULL; END LOOP; RETURN 1; END",
    "DECLARE c CURSOR FOR SELECT {f}(a) FROM d; x int; \
     BEGIN OPEN c; FETCH c INTO x; CLOSE c; RETURN x; END",
    "DECLARE c refcursor; x int; \
     BEGIN OPEN c FOR SELECT {f}(1); FETCH c INTO x; CLOSE c; RETURN x; END",
    "BEGIN PERFORM {f}(a) FROM d; RETURN 1; END",
    "DECLARE x int; BEGIN SELECT {f}(a) INTO STRICT x FROM d WHERE a = 1; RETURN x; END",
    "DECLARE x d%ROWTYPE; y d.a%TYPE; BEGIN SELECT * INTO x FROM d; RETURN {f}(x.a); END",
    "BEGIN RAISE DEBUG 'x %', {f}(1); RETURN 1; END",
    "BEGIN RAISE DEBUG USING MESSAGE = {f}(1)::text; RETURN 1; END",
    "BEGIN ASSERT {f}(1) = 1, 'no'; RETURN 1; END",
    "BEGIN RETURN 1 / 0; EXCEPTION WHEN division_by_zero THEN RETURN {f}(1); END",
    "BEGIN BEGIN PERFORM {f}(1); EXCEPTION WHEN OTHERS THEN NULL; END; RETURN 1; END",
    "BEGIN RETURN (WITH x AS (SELECT {f}(1) AS n) SELECT n FROM x); END",
    "BEGIN RETURN CASE WHEN EXISTS (SELECT 1 FROM d WHERE {f}(a) = 1) THEN 1 ELSE 2 END; END",
    "BEGIN RETURN coalesce(NULL, {f}(1)); END",
    "BEGIN RETURN array_length(ARRAY(SELECT {f}(a) FROM d), 1); END",
    "BEGIN RETURN (SELECT sum(a) FROM v_{f}); END",
    "BEGIN RETURN (SELECT d.f_{f} FROM d LIMIT 1); END",
    "BEGIN RETURN '1'::int + {f}(1) -- it's {f}(2)\n; END",
    "#variable_conflict use_column\nBEGIN RETURN {f}(1); END",
];

/// Bodies that lie in ways of their own.
pub(super) const LYING_BODIES: &[&str] = &[
    "BEGIN RETURN 1 === 2; END",
    "BEGIN RETURN 1 OPERATOR(public.===) 2; END",
    "DECLARE x int; BEGIN EXECUTE 'SELECT lies(1)' INTO x; RETURN x; END",
    "DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT li' || 'es(1)' LOOP NULL; END LOOP; RETURN 1; END",
    "DECLARE c refcursor; x int; \
     BEGIN OPEN c FOR EXECUTE 'SELECT lies(1)'; FETCH c INTO x; CLOSE c; RETURN x; END",
    "BEGIN RETURN U&\"l\\0069es\"(1); END",
    "BEGIN PERFORM pg_catalog.pg_try_advisory_xact_lock(1); RETURN 1; END",
    "BEGIN PERFORM query_to_xml('SELECT lies(1)', true, true, ''); RETURN 1; END",
];
