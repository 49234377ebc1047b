//! Calls of all functions the server itself has, and reads of all its tables.
//!
//! Not a choice of functions: whatever has arguments that a sample is known for is called, and the
//! classifier says which of those calls are made. Invariant: no call tells the time.

use anyhow::Result;
use breccia_testkit::SqlClient;

/// Functions, and the types of their arguments.
const FUNCTIONS: &str = "SELECT p.proname, p.proretset, p.provariadic <> 0 AND \
    p.provariadic <> 2276, p.prokind, \
    array_to_string(ARRAY(SELECT t.typname FROM unnest(p.proargtypes) WITH ORDINALITY u (o, n) \
     JOIN pg_type t ON t.oid = u.o ORDER BY n), ' ') \
    FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace ORDER BY p.oid";
const TABLES: &str = "SELECT oid::regclass FROM pg_class \
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') ORDER BY oid";

/// What tells the time, or is random: two servers cannot say the same.
const TIMES: &[&str] = &[
    "clock_timestamp",
    "gen_random_uuid",
    "now",
    "random",
    "statement_timestamp",
    "timeofday",
    "transaction_timestamp",
];

/// How often each function is called, with other samples.
const CALLS: usize = 3;

type Samples = &'static [&'static str];

/// Values, by the names of their types.
const SAMPLES: &[(Samples, Samples)] = &[
    (&["int2"], &["1::int2", "7::int2", "'-3'::int2"]),
    (&["int4"], &["1", "0", "7", "-2"]),
    (
        &["int8"],
        &["1::int8", "12345678901", "-4::int8", "0::int8"],
    ),
    (&["float4"], &["1.5::float4", "0::float4"]),
    (&["float8"], &["1.5::float8", "0::float8", "-2.25::float8"]),
    (&["numeric"], &["1.5", "0::numeric", "123.456", "-7.5"]),
    (&["bool"], &["true", "false"]),
    (&["text"], &["'text'", "'1'", "'public.t'", "'a b c'"]),
    (&["varchar"], &["'vc'::varchar"]),
    (&["bpchar"], &["'bp'::bpchar"]),
    (
        &["name"],
        &["'plain'::name", "'breccia'::name", "'b'::name"],
    ),
    (&["char"], &["'r'::\"char\""]),
    (&["bytea"], &["'\\x0102ff'::bytea", "'abc'::bytea"]),
    (
        &["oid"],
        &[
            "'t'::regclass::oid",
            "'v_plain'::regclass::oid",
            "'quiet'::regproc::oid",
            "'pair'::regtype::oid",
        ],
    ),
    (
        &["regclass"],
        &[
            "'t'::regclass",
            "'ids'::regclass",
            "'t_pkey'::regclass",
            "'v_over'::regclass",
        ],
    ),
    (&["regproc"], &["'quiet'::regproc"]),
    (&["regprocedure"], &["'steps(int)'::regprocedure"]),
    (&["regtype"], &["'mood'::regtype"]),
    (&["date"], &["'2024-02-03'::date", "'2020-12-31'::date"]),
    (&["time"], &["'01:02:03'::time"]),
    (&["timetz"], &["'01:02:03+02'::timetz"]),
    (
        &["timestamp"],
        &[
            "'2024-02-03 04:05:06'::timestamp",
            "'1999-01-08'::timestamp",
        ],
    ),
    (
        &["timestamptz"],
        &[
            "'2024-02-03 04:05:06Z'::timestamptz",
            "'2001-02-03Z'::timestamptz",
        ],
    ),
    (
        &["interval"],
        &["'1 day 2 hours'::interval", "'3 months'::interval"],
    ),
    (
        &["json"],
        &["'{\"a\": [1, 2]}'::json", "'[1, {\"b\": null}]'::json"],
    ),
    (
        &["jsonb"],
        &["'{\"a\": [1, 2]}'::jsonb", "'[1, {\"b\": null}]'::jsonb"],
    ),
    (&["jsonpath"], &["'$.a[*]'::jsonpath"]),
    (&["uuid"], &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid"]),
    (&["inet"], &["'10.1.2.3/8'::inet", "'::1'::inet"]),
    (&["cidr"], &["'10.0.0.0/8'::cidr"]),
    (&["macaddr"], &["'08:00:2b:01:02:03'::macaddr"]),
    (&["macaddr8"], &["'08:00:2b:01:02:03:04:05'::macaddr8"]),
    (&["bit"], &["B'101'", "X'1f'"]),
    (&["varbit"], &["B'101'::varbit"]),
    (&["money"], &["'12.34'::money"]),
    (&["point"], &["'(1,2)'::point"]),
    (&["line"], &["'{1,2,3}'::line"]),
    (&["lseg"], &["'[(0,0),(1,1)]'::lseg"]),
    (&["box"], &["'(0,0),(2,2)'::box"]),
    (&["path"], &["'[(0,0),(1,1),(2,0)]'::path"]),
    (&["polygon"], &["'((0,0),(1,1),(2,0))'::polygon"]),
    (&["circle"], &["'<(1,1),2>'::circle"]),
    (&["tsvector"], &["'a:1 b:2'::tsvector"]),
    (&["tsquery"], &["'a & b'::tsquery"]),
    (&["regconfig"], &["'english'::regconfig"]),
    (&["regdictionary"], &["'english_stem'::regdictionary"]),
    (&["xid"], &["'3'::xid", "'700'::xid"]),
    (&["xid8"], &["'3'::xid8", "'700'::xid8"]),
    (&["cid"], &["'0'::cid"]),
    (&["tid"], &["'(0,1)'::tid"]),
    (&["pg_lsn"], &["'0/1000028'::pg_lsn", "'0/0'::pg_lsn"]),
    (
        &["pg_snapshot", "txid_snapshot"],
        &["'10:20:10,14'::pg_snapshot"],
    ),
    (&["aclitem"], &["'app=r/breccia'::aclitem"]),
    (&["xml"], &["'<a>1</a>'::xml"]),
    (
        &[
            "anyelement",
            "anynonarray",
            "anycompatible",
            "anycompatiblenonarray",
            "any",
        ],
        &["1", "'x'::text", "'b'::name"],
    ),
    (
        &["anyarray", "anycompatiblearray"],
        &["array[3, 1, 2]", "array['x', 'y']", "array['b'::name]"],
    ),
    (&["anyenum"], &["'ok'::mood", "'sad'::mood"]),
    (
        &["anyrange", "anycompatiblerange"],
        &["'[1,5)'::int4range", "'[a,c)'::int4range"],
    ),
    (
        &["anymultirange", "anycompatiblemultirange"],
        &["'{[1,5),[7,9)}'::int4multirange"],
    ),
    (&["int4range"], &["'[1,5)'::int4range"]),
    (&["record"], &["row(1, 'x')"]),
    (&["oidvector"], &["'23 25'::oidvector"]),
    (&["int2vector"], &["'1 2'::int2vector"]),
    (&["refcursor"], &["'c'::refcursor"]),
    (&["_text"], &["'{a,b}'::text[]", "'{0}'::text[]"]),
    (&["_int4"], &["'{1,2}'::int[]"]),
    (&["_int8"], &["'{1,2}'::int8[]"]),
    (&["_int2"], &["'{1,2}'::int2[]"]),
    (&["_float8"], &["'{0.5,0.9}'::float8[]"]),
    (&["_char"], &["'{r}'::\"char\"[]"]),
    (&["_name"], &["'{a}'::name[]"]),
    (&["_oid"], &["'{23}'::oid[]"]),
    (&["_aclitem"], &["'{app=r/breccia}'::aclitem[]"]),
    (&["_numeric"], &["'{1.5,2}'::numeric[]"]),
    (&["_bytea"], &["'{a}'::bytea[]"]),
];

fn samples(type_name: &str) -> Samples {
    let found = SAMPLES.iter().find(|(names, _)| names.contains(&type_name));
    found.map_or(&[], |(_, samples)| samples)
}

/// The arguments of one call; `None` without a sample.
fn arguments(types: &str, variadic: bool, turn: usize) -> Option<String> {
    let types: Vec<&str> = types.split(' ').filter(|name| !name.is_empty()).collect();
    let mut values = Vec::new();
    for (position, name) in types.iter().enumerate() {
        let samples = samples(name);
        let value = samples.get((turn + turn / 2 * position) % samples.len().max(1))?;
        let last = variadic && position + 1 == types.len();
        values.push(format!("{}{value}", if last { "VARIADIC " } else { "" }));
    }
    Some(values.join(", "))
}

/// All statements.
pub(super) fn calls(client: &mut SqlClient) -> Result<Vec<String>> {
    let mut calls = Vec::new();
    for row in client.run(FUNCTIONS)?.rows {
        let [
            Some(name),
            Some(many),
            Some(variadic),
            Some(kind),
            Some(types),
        ] = row.as_slice()
        else {
            continue;
        };
        if TIMES.contains(&name.as_str()) {
            continue;
        }
        let mut before = String::new();
        for turn in 0..CALLS {
            let Some(values) = arguments(types, variadic == "t", turn) else {
                break;
            };
            let sql = match (kind.as_str(), many.as_str()) {
                ("w", _) => format!("SELECT \"{name}\"({values}) OVER ()"),
                (_, "t") => format!("SELECT * FROM \"{name}\"({values})"),
                _ => format!("SELECT \"{name}\"({values})"),
            };
            if sql != before {
                calls.push(sql.clone());
            }
            before = sql;
        }
    }
    for row in client.run(TABLES)?.rows {
        let [Some(name)] = row.as_slice() else {
            continue;
        };
        calls.push(format!("SELECT * FROM {name}"));
    }
    Ok(calls)
}
