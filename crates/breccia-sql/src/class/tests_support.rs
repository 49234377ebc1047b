//! A small catalogue made by hand, for the tests of this slice of the crate.
//!
//! Not what a server would answer: only the objects the tests name. Invariant: its rows have the
//! shape of the queries' answers.

use super::{Catalogue, CatalogueBuilder, Classifier};
use std::sync::Arc;

/// Name, built in, language, volatility, source.
type FunctionRow<'a> = (&'a str, &'a str, &'a str, &'a str, Option<&'a str>);

const FUNCTIONS: &[FunctionRow<'_>] = &[
    ("lower", "true", "internal", "i", None),
    ("substr", "true", "internal", "i", None),
    ("substring", "true", "internal", "i", None),
    ("count", "true", "internal", "i", None),
    ("sum", "true", "internal", "i", None),
    ("max", "true", "internal", "i", None),
    ("row_number", "true", "internal", "i", None),
    ("now", "true", "internal", "s", None),
    ("random", "true", "internal", "v", None),
    ("system", "true", "internal", "v", None),
    ("clock_timestamp", "true", "internal", "v", None),
    ("generate_series", "true", "internal", "i", None),
    ("unnest", "true", "internal", "i", None),
    ("string_agg", "true", "internal", "i", None),
    ("nextval", "true", "internal", "v", None),
    ("currval", "true", "internal", "v", None),
    ("version", "true", "internal", "s", None),
    ("current_setting", "true", "internal", "s", None),
    ("pg_is_in_recovery", "true", "internal", "v", None),
    ("pg_current_xact_id", "true", "internal", "s", None),
    ("pg_try_advisory_xact_lock", "true", "internal", "v", None),
    ("domain_in", "true", "internal", "s", None),
    ("jsonb_populate_record", "true", "internal", "s", None),
    ("pg_get_viewdef", "true", "internal", "s", None),
    ("pg_relation_size", "true", "internal", "v", None),
    (
        "stable_sum",
        "false",
        "sql",
        "s",
        Some("SELECT sum(total) FROM orders WHERE id = $1"),
    ),
    ("stable_now", "false", "sql", "s", Some("SELECT now()")),
    (
        "two_steps",
        "false",
        "sql",
        "s",
        Some("SELECT 1; SELECT stable_sum(2);"),
    ),
    ("volatile_read", "false", "sql", "v", Some("SELECT 1")),
    (
        "takes_lock",
        "false",
        "sql",
        "s",
        Some("SELECT pg_advisory_lock(1)"),
    ),
    (
        "calls_lock",
        "false",
        "sql",
        "s",
        Some("SELECT takes_lock()"),
    ),
    ("writes", "false", "sql", "s", Some("DELETE FROM orders")),
    (
        "hidden_write",
        "false",
        "sql",
        "s",
        Some("WITH d AS (DELETE FROM orders) SELECT 1"),
    ),
    ("me", "false", "sql", "s", Some("SELECT you()")),
    ("you", "false", "sql", "s", Some("SELECT me()")),
    (
        "procedural",
        "false",
        "plpgsql",
        "s",
        Some("BEGIN EXECUTE 'x'; RETURN 1; END"),
    ),
    (
        "loops",
        "false",
        "plpgsql",
        "s",
        Some(
            "DECLARE n interval(3) := 0; o orders%ROWTYPE; BEGIN FOR i IN 1..10 LOOP \
             SELECT count(*) INTO n FROM orders WHERE id = i; IF (n > 0) THEN RETURN n; END IF; \
             END LOOP; RAISE NOTICE '%', n; RETURN stable_sum(n)::int4; \
             EXCEPTION WHEN others THEN RETURN -1; END",
        ),
    ),
    (
        "loops_now",
        "false",
        "plpgsql",
        "s",
        Some("BEGIN RETURN (SELECT count(*) FROM v_now); END"),
    ),
    (
        "loops_next",
        "false",
        "plpgsql",
        "s",
        Some("BEGIN FOR i IN 1..3 LOOP PERFORM nextval('ids'); END LOOP; RETURN 1; END"),
    ),
    (
        "loops_ids",
        "false",
        "plpgsql",
        "s",
        Some("BEGIN RETURN (SELECT last_value FROM ids); END"),
    ),
    (
        "loops_field",
        "false",
        "plpgsql",
        "s",
        Some("DECLARE o orders; BEGIN RETURN o.field_call; END"),
    ),
    (
        "loops_type",
        "false",
        "plpgsql",
        "s",
        Some("BEGIN RETURN '1'::native; END"),
    ),
    (
        "loops_spelled",
        "false",
        "plpgsql",
        "s",
        Some("DECLARE n decimal(10, 2); BEGIN RETURN n; END"),
    ),
    (
        "loops_operator",
        "false",
        "plpgsql",
        "s",
        Some("BEGIN RETURN 1 === 2; END"),
    ),
    (
        "loops_lock",
        "false",
        "plpgsql",
        "v",
        Some("BEGIN FOR i IN 1..3 LOOP PERFORM pg_advisory_lock(i); END LOOP; END"),
    ),
    (
        "doubted_lock",
        "false",
        "plpgsql",
        "v",
        Some("BEGIN PERFORM e'a'\n'b', pg_advisory_lock(1); END"),
    ),
    (
        "of_the_standard",
        "false",
        "sql",
        "s",
        Some(
            "CREATE OR REPLACE FUNCTION of_the_standard(return int)\n RETURNS int\n LANGUAGE sql\n \
             STABLE\nRETURN (SELECT count(*) FROM orders)",
        ),
    ),
    (
        "atomic",
        "false",
        "sql",
        "s",
        Some(
            "CREATE OR REPLACE FUNCTION atomic(VARIADIC x int[])\n RETURNS int\n LANGUAGE sql\n \
             STABLE\nBEGIN ATOMIC\n SELECT 1;\n SELECT stable_sum(1);\nEND",
        ),
    ),
    (
        "atomic_next",
        "false",
        "sql",
        "s",
        Some(
            "CREATE OR REPLACE FUNCTION atomic_next()\n RETURNS int\n LANGUAGE sql\n \
             STABLE\nBEGIN ATOMIC\n SELECT 1;\n SELECT nextval('ids');\nEND",
        ),
    ),
    (
        "sums",
        "false",
        "sql",
        "i",
        Some("SELECT lower(), stable_sum()"),
    ),
    (
        "sums_badly",
        "false",
        "sql",
        "i",
        Some("SELECT lower(), procedural()"),
    ),
    (
        "procedural_set",
        "false",
        "plpgsql",
        "v",
        Some("BEGIN SET x = 1; END"),
    ),
    (
        "procedural_local",
        "false",
        "plpgsql",
        "v",
        Some("BEGIN SET LOCAL x = 1; END"),
    ),
    (
        "allowed",
        "false",
        "plpgsql",
        "v",
        Some("BEGIN RETURN 1; END"),
    ),
    ("lower_twin", "true", "internal", "i", None),
    (
        "lower_twin",
        "false",
        "plpgsql",
        "i",
        Some("BEGIN EXECUTE 'x'; RETURN 1; END"),
    ),
    (
        "field_call",
        "false",
        "plpgsql",
        "s",
        Some("BEGIN EXECUTE 'x'; RETURN 1; END"),
    ),
    ("similar_to_native", "false", "c", "i", None),
];

/// Oid, name, of the system, kind, persistence, row security, definition.
const RELATIONS: &[[Option<&str>; 7]] = &[
    table("1", "orders"),
    table("2", "users"),
    [
        Some("3"),
        Some("ids"),
        Some("false"),
        Some("S"),
        Some("p"),
        Some("false"),
        None,
    ],
    [
        Some("4"),
        Some("fast"),
        Some("false"),
        Some("r"),
        Some("u"),
        Some("false"),
        None,
    ],
    [
        Some("5"),
        Some("far"),
        Some("false"),
        Some("f"),
        Some("p"),
        Some("false"),
        None,
    ],
    view(
        "6",
        "v_orders",
        " SELECT o.id,\n    o.total\n   FROM orders o\n  WHERE o.total > 0;",
    ),
    view("7", "v_view", " SELECT v_orders.id FROM v_orders;"),
    view(
        "8",
        "v_next",
        " SELECT nextval('ids'::regclass) AS nextval;",
    ),
    view("9", "v_next2", " SELECT v_next.nextval FROM v_next;"),
    view("10", "v_now", " SELECT now() AS now;"),
    [
        Some("11"),
        Some("guarded"),
        Some("false"),
        Some("r"),
        Some("p"),
        Some("true"),
        None,
    ],
    [
        Some("12"),
        Some("guarded_bad"),
        Some("false"),
        Some("r"),
        Some("p"),
        Some("true"),
        None,
    ],
    [
        Some("13"),
        Some("pg_class"),
        Some("true"),
        Some("r"),
        Some("p"),
        Some("false"),
        None,
    ],
    [
        Some("14"),
        Some("pg_locks"),
        Some("true"),
        Some("v"),
        Some("p"),
        Some("false"),
        None,
    ],
    table("15", "twin"),
    [
        Some("16"),
        Some("twin"),
        Some("false"),
        Some("r"),
        Some("t"),
        Some("false"),
        None,
    ],
    [
        Some("17"),
        Some("parts"),
        Some("false"),
        Some("p"),
        Some("p"),
        Some("false"),
        None,
    ],
    [
        Some("18"),
        Some("parts_far"),
        Some("false"),
        Some("f"),
        Some("p"),
        Some("false"),
        None,
    ],
    table("19", "select"),
    [
        Some("20"),
        Some("kept"),
        Some("false"),
        Some("m"),
        Some("p"),
        Some("false"),
        None,
    ],
    table("21", "größe"),
    table("22", "indexed"),
    table("23", "indexed_badly"),
    table("24", "above_indexed_badly"),
];

const fn table<'a>(oid: &'a str, name: &'a str) -> [Option<&'a str>; 7] {
    [
        Some(oid),
        Some(name),
        Some("false"),
        Some("r"),
        Some("p"),
        Some("false"),
        None,
    ]
}

const fn view<'a>(oid: &'a str, name: &'a str, text: &'a str) -> [Option<&'a str>; 7] {
    [
        Some(oid),
        Some(name),
        Some("false"),
        Some("v"),
        Some("p"),
        Some("false"),
        Some(text),
    ]
}

const OPERATORS: &str = "= <> < > <= >= ~~ !~~ ~~* !~~* ~ !~ + - * / % || -> ->> @> ? && @@";

/// Name, built in, kind, input, checks, what it is made of.
type TypeRow<'a> = (
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    Option<&'a str>,
    Option<&'a str>,
);

const TYPES: &[TypeRow<'_>] = &[
    ("int4", "true", "b", "int4in", None, None),
    ("int8", "true", "b", "int8in", None, None),
    ("text", "true", "b", "textin", None, None),
    ("date", "true", "b", "date_in", None, None),
    ("timestamptz", "true", "b", "timestamptz_in", None, None),
    ("jsonb", "true", "b", "jsonb_in", None, None),
    ("numeric", "true", "b", "numeric_in", None, None),
    ("interval", "true", "b", "interval_in", None, None),
    ("regclass", "true", "b", "regclassin", None, None),
    ("mood", "false", "e", "enum_in", None, None),
    (
        "checked",
        "false",
        "d",
        "domain_in",
        Some("(VALUE > 0)"),
        None,
    ),
    (
        "plain_domain",
        "false",
        "d",
        "domain_in",
        None,
        Some("checked"),
    ),
    (
        "native_domain",
        "false",
        "d",
        "domain_in",
        None,
        Some("native"),
    ),
    (
        "circle_domain",
        "false",
        "d",
        "domain_in",
        None,
        Some("circle_domain"),
    ),
    (
        "row",
        "false",
        "c",
        "record_in",
        None,
        Some("mood\nchecked"),
    ),
    (
        "native_row",
        "false",
        "c",
        "record_in",
        None,
        Some("mood\nnative"),
    ),
    ("native", "false", "b", "native_in", None, None),
];

/// A builder that has all rows.
pub(super) fn builder() -> CatalogueBuilder {
    let mut builder = CatalogueBuilder::new();
    builder.allow_function("allowed");
    for (name, builtin, language, volatility, source) in FUNCTIONS {
        let field = Some(if *name == "field_call" {
            "true"
        } else {
            "false"
        });
        builder.row(
            0,
            &[
                Some(name),
                Some(builtin),
                Some(language),
                Some(volatility),
                *source,
                Some("true"),
                None,
                None,
                field,
            ],
        );
    }
    odd_functions(&mut builder);
    for relation in RELATIONS {
        builder.row(1, relation);
    }
    builder.row(2, &[Some("17"), Some("18")]);
    builder.row(2, &[Some("24"), Some("23")]);
    builder.row(8, &[Some("22"), Some("loops")]);
    builder.row(8, &[Some("23"), Some("procedural")]);
    builder.row(3, &[Some("11"), Some("(owner = CURRENT_USER)")]);
    builder.row(3, &[Some("12"), Some("takes_lock()")]);
    let (no, yes) = (Some("false"), Some("true"));
    for operator in OPERATORS.split(' ') {
        builder.row(4, &[Some(operator), yes, None]);
    }
    builder.row(4, &[Some("==="), no, Some("procedural")]);
    builder.row(4, &[Some("<=>"), no, Some("stable_sum")]);
    for (name, builtin, kind, input, checks, parts) in TYPES {
        builder.row(
            5,
            &[
                Some(name),
                Some(builtin),
                Some(kind),
                Some(input),
                *checks,
                *parts,
            ],
        );
    }
    builder.row(6, &[Some("e"), Some("procedural"), Some("numeric")]);
    builder
}

/// Functions whose rows say more than their bodies.
fn odd_functions(builder: &mut CatalogueBuilder) {
    let default_next = Some("nextval('ids'::regclass)");
    let (name, source) = (Some("default_next"), Some("SELECT $1"));
    let (no, yes) = (Some("false"), Some("true"));
    builder.row(
        0,
        &[
            name,
            no,
            Some("sql"),
            Some("s"),
            source,
            yes,
            default_next,
            None,
            no,
        ],
    );
    builder.row(
        0,
        &[
            Some("resets"),
            no,
            Some("sql"),
            Some("s"),
            source,
            no,
            None,
            None,
            no,
        ],
    );
    builder.row(
        0,
        &[
            Some("vec"),
            no,
            Some("c"),
            Some("i"),
            None,
            yes,
            None,
            Some("vector"),
            no,
        ],
    );
}

/// The catalogue of those rows.
pub(super) fn catalogue() -> Catalogue {
    builder().finish()
}

/// A classifier that knows it.
pub(super) fn classifier() -> Classifier {
    let classifier = Classifier::new();
    classifier.set_catalogue(Arc::new(catalogue()));
    classifier
}
