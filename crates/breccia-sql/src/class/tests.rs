//! What each text is, by tables of rows.
//!
//! Not a test against a server. Invariant: every rule of the proof has a row on both sides.

use super::tests_support::{builder, catalogue, classifier};
use super::{Class, Classifier};
use std::sync::Arc;

fn check(rows: &[(&str, Class)]) {
    let classifier = classifier();
    for (sql, expected) in rows {
        for _ in 0..2 {
            assert_eq!(
                classifier.classify(sql.as_bytes(), true).class,
                *expected,
                "{sql}"
            );
        }
    }
}

fn all(expected: &Class, texts: &[&str]) {
    check(
        &texts
            .iter()
            .map(|text| (*text, expected.clone()))
            .collect::<Vec<_>>(),
    );
}

fn primary(reason: &'static str, texts: &[&str]) {
    all(&Class::Primary(reason), texts);
}

#[test]
fn reads_are_proven() {
    all(
        &Class::Read,
        &[
            "select 1",
            "SELECT abalance FROM orders WHERE aid = 17;",
            "select count(*), sum(o.total) from public.orders as o where o.id in (1, 2, 3)",
            "select o.*, u.name from orders o left join users u using (id) order by 1 desc limit 5",
            "values (1, 'a'), (2, 'b')",
            "table orders",
            "TABLE public.orders;",
            "with a as (select * from orders), b as (select * from a) select * from b",
            "with recursive t as (select 1 union all select id from t) select * from t",
            "select 1 union (select 2 intersect select 3) order by 1",
            "explain select * from orders",
            "explain (costs off, format json) select * from orders",
            "explain verbose with a as (select 1) select * from a",
            "select current_user, current_date, current_timestamp(3), localtime",
            "select now(), clock_timestamp(), random()",
            "select case when id > 1 then 'a' else 'b' end from orders",
            "select '1'::int, cast('x' as text), date '2020-01-01', interval '1 day'",
            "select 'ok'::mood, '1'::plain_domain, 'orders'::regclass, '{1}'::int[]",
            "select '1'::checked, '{1}'::plain_domain[], * from indexed",
            "select '(ok,1)'::row, of_the_standard(1), atomic(1)",
            "select * from generate_series(1, 10) g(x), lateral (select x) l",
            "select row_number() over (partition by a order by b) from orders",
            "select sum(x) filter (where x > 1) over w from orders window w as (order by y)",
            "select string_agg(a, ',' order by b) from orders group by grouping sets ((a), ())",
            "select stable_sum(1), two_steps(), allowed(), vec(), loops(), loops_now(), sums(1)",
            "select id <=> 2 from orders",
            "select * from v_orders, v_view, v_now, kept, guarded, pg_class",
            "select array[1,2], array(select id from orders), row(1, 2), (a).b, a[1:2] from orders",
            "select coalesce(a, 1), nullif(a, 2), greatest(1, 2) from orders",
            "select extract(epoch from now()), substring('a' from 1 for 2), a at time zone 'x' from users",
            "select * from orders where a like 'x%' and b not ilike 'y' and c between 1 and 2",
            "select * from orders where exists (select 1 from users) or id = any($1)",
            "select data->>'a' from orders where data @> '{}' and data ? 'k'",
            "select \"ID\" from \"orders\" where größe = 1",
            "select * from größe",
            "select distinct on (a) a from orders offset 3 rows fetch first 5 rows only",
            "(select 1)",
            "select from orders",
            "select $$for update$$, 'nextval(1)', E'it\\'s; delete from orders'",
            "/* breccia */ select 1 -- insert",
            "select max(id)-1, -1, 2*-3 from orders",
            "select 'a'::text collate \"C\", 'b' COLLATE pg_catalog.\"C\"as x, 1 as collate",
            "select 'a' -- x\n 'b', date '2020-01-01'\n'x' from orders order by 1 collate x desc",
            "select * from orders tablesample system (10) repeatable (1)",
        ],
    );
}

#[test]
fn functions_are_asked_about() {
    primary(
        "function",
        &[
            "select nextval('ids')",
            "select NextVal('ids')",
            "select \"nextval\"('ids')",
            "select pg_catalog.nextval('ids')",
            "select * from orders where id = nextval('ids')",
            "select * from orders order by nextval('ids')",
            "select 1 limit nextval('ids')",
            "select unknown_function()",
            "select * from unknown_function()",
            "select volatile_read()",
            "select writes()",
            "select hidden_write()",
            "select me()",
            "select procedural()",
            "select loops_next()",
            "select loops_ids()",
            "select loops_field()",
            "select loops_type()",
            "select loops_spelled()",
            "select loops_operator()",
            "select sums_badly(1)",
            "select atomic_next()",
            "select lower_twin('a')",
            "select default_next()",
            "select resets(1)",
            "select version(), current_setting('x')",
            "select pg_is_in_recovery()",
            "select pg_current_xact_id()",
            "select pg_relation_size('orders')",
            "select pg_try_advisory_xact_lock(1)",
            "select similar_to_native()",
            "select domain_in('1', 'checked'::regclass, 1)",
            "select jsonb_populate_record(o, '{}') from orders o",
            "select set_config('a', 'b', true)",
            "select o.field_call from orders o",
            "select (o).field_call from orders o",
            "select sum(nextval('ids')) over (order by 1) from orders",
            "values (nextval('ids'))",
            "explain select nextval('ids')",
        ],
    );
}

#[test]
fn relations_types_and_operators_are_asked_about() {
    primary(
        "relation",
        &[
            "select * from ids",
            "select * from fast",
            "select * from far",
            "select * from unknown",
            "select * from v_next",
            "select * from v_next2",
            "select * from guarded_bad",
            "select * from pg_locks",
            "select * from twin",
            "select * from parts",
            "select * from indexed_badly",
            "select * from above_indexed_badly",
            "select * from \"Orders\"",
            "table unknown",
            "with unknown as (select * from unknown) select 1",
            "with far as (select 1) select * from public.far",
            "(with a as (select 1) select * from a) union select * from a",
        ],
    );
    primary(
        "type",
        &[
            "select 'x'::native",
            "select 'x'::native_domain",
            "select 'x'::circle_domain",
            "select 'x'::native_row",
            "select cast('x' as unknown)",
            "select '{}'::native[]",
            "select 1::numeric",
            "select 1::numeric(10, 2)",
        ],
    );
    primary(
        "operator",
        &[
            "select 1 === 2",
            "select 1 operator(public.===) 2",
            "select 1 <-> 2",
        ],
    );
}

#[test]
fn writes_and_locks_go_to_the_primary() {
    primary(
        "write",
        &[
            "insert into orders values (1)",
            "INSERT INTO temp VALUES (1)",
            "update orders set a = 1",
            "delete from orders",
            "merge into orders using users on true when matched then delete",
            "truncate orders",
            "with a as (delete from orders returning *) select * from a",
            "with a as (update orders set x = 1 returning *) select * from a",
            "select * from (with a as ( /* x */ delete from orders returning 1) select 1) z",
        ],
    );
    primary(
        "write",
        &["with a as (insert into orders values (1) returning *) select * from a"],
    );
    primary("into", &["select * into other from orders"]);
    primary(
        "locks",
        &[
            "select * from orders for update",
            "select * from orders for no key update skip locked",
            "select * from (select * from orders for share) x",
            "select * from orders FOR/**/KEY SHARE of orders",
            "lock table orders",
        ],
    );
    primary(
        "explain-analyze",
        &[
            "explain analyze select 1",
            "explain (costs, analyze) select 1",
        ],
    );
    primary(
        "explain",
        &[
            "explain insert into orders values (1)",
            "explain (serialize) select 1",
        ],
    );
    primary(
        "unparsed",
        &[
            "select mood 'ok'",
            "select 'a' 'b'",
            "select 'a' /* \n */ 'b'",
            "select 'a' collate \"C\" \"C\" \"C\"",
            "select * from only orders",
            "selec 1",
            "select 'open",
            "select /* open /* */ 1",
            "select 1a",
            "vaccum",
            "select \u{1}",
        ],
    );
}

#[test]
fn other_commands_go_to_the_primary() {
    primary(
        "show",
        &[
            "show all",
            "show search_path",
            "SHOW TRANSACTION ISOLATION LEVEL",
        ],
    );
    primary(
        "copy",
        &["copy orders from stdin", "copy (select 1) to stdout"],
    );
    primary(
        "two-phase",
        &[
            "prepare transaction 'x'",
            "commit prepared 'x'",
            "rollback prepared 'x'",
        ],
    );
    primary(
        "savepoint",
        &[
            "savepoint a",
            "release a",
            "rollback to a",
            "rollback work to savepoint a",
        ],
    );
    primary("chain", &["commit and chain", "rollback and chain"]);
    primary("set-local", &["set local x = 1", "set local time zone 'x'"]);
    primary(
        "set-transaction",
        &[
            "set transaction read only",
            "set transaction_isolation = 'serializable'",
        ],
    );
    primary(
        "do",
        &[
            "do $$begin perform 1; end$$",
            "do $$begin update a set b = 1; end$$",
        ],
    );
    primary(
        "cursor",
        &["declare c cursor for select 1", "fetch c", "close c"],
    );
}

#[test]
fn what_changes_the_session_pins_it() {
    let rows = [
        ("listen a", "listen"),
        ("select U&\"n\\0065xtval\"('ids')", "unicode-name"),
        ("prepare p as select 1", "prepare"),
        ("declare c cursor with hold for select 1", "cursor"),
        ("load 'x'", "load"),
        ("set role x", "role"),
        ("set session authorization x", "role"),
        ("set local_role to x; set role = 'y'", "set"),
        ("reset role", "role"),
        (
            "set session characteristics as transaction read only",
            "characteristics",
        ),
        ("select set_config('a', 'b', false)", "set"),
        ("select set_config('a', 'b', $1)", "set"),
        ("select set_config('a', coalesce('b', true), false)", "set"),
        ("create temp table a (b int)", "temp"),
        ("CREATE TEMPORARY TABLE a AS SELECT 1", "temp"),
        ("create or replace temp view a as select 1", "temp"),
        ("create local temp table a (b int)", "temp"),
        ("select 1 into temp a", "temp"),
        ("select 1 into temporary table a", "temp"),
        ("create table pg_temp.a (b int)", "temp"),
        ("select * from pg_temp_3.a", "temp"),
        ("select pg_advisory_lock(1)", "advisory-lock"),
        ("select \"pg_try_advisory_lock_shared\"(1)", "advisory-lock"),
        (
            "insert into a select pg_try_advisory_lock(1)",
            "advisory-lock",
        ),
        ("select takes_lock()", "advisory-lock"),
        ("insert into a select takes_lock()", "advisory-lock"),
        ("select loops_lock()", "advisory-lock"),
        ("select doubted_lock()", "routine"),
        ("call procedural_set()", "routine"),
        ("select 1; listen a", "listen"),
        ("select 1; set a = 1", "set"),
        ("reset all; select 1", "set"),
        ("select 1; deallocate all", "prepare"),
        (
            "do $$begin perform set_config('a', 'b', false); end$$",
            "do",
        ),
        ("do $$begin execute 'create temp table a ()'; end$$", "do"),
        ("do 'begin set x = 1; end'", "do"),
    ];
    check(&rows.map(|(sql, reason)| (sql, Class::Pin(reason))));
    primary("call", &["call procedural_local()", "call unknown()"]);
}

#[test]
fn transaction_control_is_read() {
    let begin = |read_only, read_committed| Class::Begin {
        read_only,
        read_committed,
    };
    check(&[
        ("begin", begin(false, true)),
        ("BEGIN WORK;", begin(false, true)),
        ("start transaction read only", begin(true, true)),
        (
            "begin isolation level serializable, read only deferrable",
            begin(true, false),
        ),
        (
            "begin transaction isolation level repeatable read",
            begin(false, false),
        ),
        (
            "begin isolation level read committed read write not deferrable",
            begin(false, true),
        ),
        ("begin nonsense", Class::Primary("unparsed")),
        ("commit", Class::Commit),
        ("end work", Class::Commit),
        ("commit and no chain", Class::Commit),
        ("rollback", Class::Rollback),
        ("abort transaction", Class::Rollback),
        ("begin; select 1; commit", Class::Primary("multi")),
        ("select 1; select 2", Class::Primary("multi")),
        ("", Class::Empty),
        (" ; ;; -- x", Class::Empty),
        ("select 1;;", Class::Read),
    ]);
}

#[test]
fn settings_are_read() {
    let set = |name: &str, value: Option<&str>| Class::Set {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let reset = |name: Option<&str>| Class::Reset {
        name: name.map(str::to_owned),
    };
    let deallocate = |name: Option<&str>| Class::Deallocate {
        name: name.map(str::to_owned),
    };
    check(&[
        (
            "SET Search_Path = a, \"B\"",
            set("search_path", Some("a, \"B\"")),
        ),
        (
            "set session work_mem to '4MB'",
            set("work_mem", Some("'4MB'")),
        ),
        ("set a.b to -1", set("a.b", Some("-1"))),
        ("set local.x = 1", set("local.x", Some("1"))),
        ("set x to default", set("x", None)),
        ("set time zone 'UTC'", set("timezone", Some("'UTC'"))),
        ("set time zone local", set("timezone", None)),
        ("set time zone interval '1' hour", Class::Pin("set")),
        ("set names 'utf8'", set("client_encoding", Some("'utf8'"))),
        ("set schema 'a'", set("search_path", Some("'a'"))),
        ("set x from current", Class::Pin("set")),
        (
            "set breccia.token = 'a:1'",
            Class::OwnSet {
                name: "token".into(),
                value: "a:1".into(),
            },
        ),
        (
            "show breccia.token",
            Class::OwnShow {
                name: "token".into(),
            },
        ),
        (
            "Reset \"breccia\".Target",
            Class::OwnReset {
                name: "target".into(),
            },
        ),
        ("set local breccia.target = 'primary'", Class::OwnMisplaced),
        ("select 1; show breccia.token", Class::OwnMisplaced),
        (
            "set breccia.target = 'primary'; create table a (b int)",
            Class::OwnMisplaced,
        ),
        ("reset all", reset(None)),
        ("reset Work_Mem", reset(Some("work_mem"))),
        ("reset time zone", reset(Some("timezone"))),
        ("discard all", Class::DiscardAll),
        ("discard plans", Class::Primary("discard")),
        ("deallocate all", deallocate(None)),
        ("deallocate prepare \"All\"", deallocate(Some("All"))),
        ("deallocate P1", deallocate(Some("p1"))),
        ("create table a (b int)", Class::Ddl),
        ("drop table a", Class::Ddl),
    ]);
}

#[test]
fn the_rest_of_a_verdict() {
    let classifier = classifier();
    let verdict = |sql: &str| classifier.classify(sql.as_bytes(), true);
    assert!(verdict("/* breccia: primary */ select 1").hint_primary);
    assert!(!verdict("select 1").hint_primary);
    assert!(verdict("select 1 --breccia:primary").hint_primary);
    assert!(!verdict("select 'breccia: primary'").hint_primary);
    for sql in [
        "select now()",
        "select 'now'::date",
        "select * from v_now",
        "select stable_now()",
        "select loops_now()",
    ] {
        assert!(verdict(sql).uses_now, "{sql}");
        assert_eq!(verdict(sql).class, Class::Read, "{sql}");
    }
    assert!(!verdict("select 'abc' from orders").uses_now);
    assert!(verdict("select 1; create table a ()").ddl);
    assert!(verdict("select 1 into a").ddl);
    assert!(verdict("do $$begin create table a (); end$$").ddl);
    for sql in [
        "create temp table a ()",
        "create or replace local temporary view a as select 1",
        "select 1 into temp a",
        "select * from pg_temp.a",
    ] {
        let verdict = verdict(sql);
        assert!(
            !verdict.ddl && matches!(verdict.class, Class::Pin("temp")),
            "{sql}"
        );
    }
    for sql in [
        "create table temp (a pg_temp.b)",
        "create table pg_temp.a ()",
        "drop table pg_temp.a, b",
        "create temp table a (); create table b ()",
    ] {
        assert!(verdict(sql).ddl, "{sql}");
    }
    assert!(!verdict("select 1").ddl);
    assert!(verdict("select 1;").single && !verdict("select 1; select 2").single);
}

#[test]
fn before_a_catalogue_nothing_is_a_read() {
    let classifier = Classifier::new();
    let class = |sql: &str| classifier.classify(sql.as_bytes(), true).class.clone();
    assert_eq!(class("select 1"), Class::Primary("catalogue"));
    assert_eq!(
        class("begin"),
        Class::Begin {
            read_only: false,
            read_committed: true
        }
    );
    classifier.set_catalogue(Arc::new(catalogue()));
    assert_eq!(class("select 1"), Class::Read);
    assert_eq!(classifier.remembered(), 1);
    classifier.mark_write(b"select 2");
    assert_eq!(class("select 3"), Class::Primary("refused"));
    classifier.set_catalogue(Arc::new(catalogue()));
    assert_eq!(class("select 3"), Class::Primary("refused"));
}

#[test]
fn doubts_about_the_whole_database_stop_all_reads() {
    let class = |query: usize, row: &[Option<&str>]| {
        let mut builder = builder();
        builder.row(query, row);
        let classifier = Classifier::new();
        classifier.set_catalogue(Arc::new(builder.finish()));
        classifier.classify(b"select 1", true).class.clone()
    };
    assert_eq!(
        class(6, &[Some("i"), Some("procedural"), Some("text")]),
        Class::Primary("cast")
    );
    assert_eq!(
        class(6, &[Some("i"), Some("stable_sum"), Some("text")]),
        Class::Read
    );
    assert_eq!(
        class(4, &[Some("="), Some("false"), Some("procedural")]),
        Class::Primary("operator")
    );
    assert_eq!(
        class(7, &[Some("f"), Some("sql")]),
        Class::Primary("operator-class")
    );
    assert_eq!(class(7, &[Some("loops"), Some("plpgsql")]), Class::Read);
    let domain = |checks| {
        let (name, builtin, kind) = (Some("d"), Some("false"), Some("d"));
        [name, builtin, kind, Some("domain_in"), checks, None]
    };
    assert_eq!(
        class(5, &domain(Some("procedural(VALUE)"))),
        Class::Primary("domain")
    );
    assert_eq!(class(5, &domain(Some("loops(VALUE)"))), Class::Read);
    assert_eq!(class(5, &domain(None)), Class::Read);
    assert_eq!(class(1, &[None]), Class::Primary("catalogue"));
}

#[test]
fn odd_texts_stay_on_the_primary() {
    let classifier = classifier();
    let class = |sql: &[u8], on| classifier.classify(sql, on).class.clone();
    assert_eq!(class(b"select 1", false), Class::Primary("unparsed"));
    assert_eq!(class(b"listen a", false), Class::Pin("listen"));
    assert_eq!(
        class(b"select '\\'; listen a --'", false),
        Class::Primary("unparsed")
    );
    assert_eq!(
        class(b"select '\\'; listen a --'", true),
        Class::Pin("listen")
    );
    assert_eq!(class(b"select '\xff'", true), Class::Primary("unparsed"));
    assert_eq!(class(b"listen \xff", true), Class::Pin("unparsed"));
    assert_eq!(class(b"select \0", true), Class::Primary("unparsed"));
    // A byte that is wrong in one literal says nothing of other texts of its shape.
    assert_eq!(class(b"select 'a'", true), Class::Read);
    assert_eq!(class(b"select '\xff' ", true), Class::Primary("unparsed"));
    assert_eq!(class(b"select 'b'", true), Class::Read);
    assert_eq!(class(b"select 1..2", true), Class::Primary("unparsed"));
    assert_eq!(
        class(b"select e'a'\n'\\'; listen a", true),
        Class::Pin("unparsed")
    );
    let long = format!("select '{}'", "x".repeat(20_000));
    assert_eq!(class(long.as_bytes(), true), Class::Primary("too-long"));
    let long = format!("select '{}'; listen a", "x".repeat(20_000));
    assert_eq!(class(long.as_bytes(), true), Class::Pin("listen"));
    let chain = format!("select 1{}", " + 1".repeat(1_500));
    assert_eq!(class(chain.as_bytes(), true), Class::Read);
    let deep = format!("select {}1{}", "(".repeat(500), ")".repeat(500));
    assert_eq!(class(deep.as_bytes(), true), Class::Primary("unparsed"));
    let unions = format!("select 1{}", " union select 1".repeat(900));
    assert!(matches!(class(unions.as_bytes(), true), Class::Primary(_)));
}
