//! What pins a session through others, and what is unknown before the first catalogue.
//!
//! Not a test against a server. Invariant: every way from a statement to what it calls has a row.

use super::tests_support::{builder, catalogue};
use super::{Catalogue, CatalogueBuilder, Class, Classifier};
use std::sync::Arc;

fn function(rows: &mut CatalogueBuilder, name: &str, language: &str, source: Option<&str>) {
    let (no, yes) = (Some("false"), Some("true"));
    let (name, language) = (Some(name), Some(language));
    rows.row(
        0,
        &[name, no, language, Some("v"), source, yes, None, None, no],
    );
}

fn relation(rows: &mut CatalogueBuilder, oid: &str, name: &str, kind: &str, view: Option<&str>) {
    let (oid, name, kind, no) = (Some(oid), Some(name), Some(kind), Some("false"));
    rows.row(1, &[oid, name, no, kind, Some("p"), no, view]);
}

fn pinning() -> Catalogue {
    let mut rows = builder();
    let bodies = [
        (
            "sets_tenant",
            "plpgsql",
            "BEGIN PERFORM set_config('my.tenant', '5', false); END",
        ),
        ("enters", "plpgsql", "BEGIN PERFORM sets_tenant(); END"),
        (
            "atomic",
            "sql",
            "CREATE FUNCTION f() BEGIN ATOMIC SELECT pg_advisory_lock(7); END",
        ),
        ("fills", "sql", "INSERT INTO audited VALUES (1)"),
        ("harmless", "sql", "SELECT 1"),
    ];
    for (name, language, source) in bodies {
        function(&mut rows, name, language, Some(source));
    }
    function(&mut rows, "in_perl", "plperl", None);
    relation(&mut rows, "901", "audited", "r", None);
    let views = [
        ("902", "locking", "SELECT takes_lock()"),
        ("903", "over_locking", "SELECT * FROM locking"),
    ];
    for (oid, name, view) in views {
        relation(&mut rows, oid, name, "v", Some(view));
    }
    rows.row(4, &[Some("@@@@"), Some("false"), Some("enters")]);
    rows.row(9, &[Some("901"), Some("enters")]);
    rows.finish()
}

#[test]
fn a_session_is_pinned_by_what_its_statement_calls_in_the_end() {
    let check = |classifier: &Classifier, sql: &str, pins: bool| {
        let class = &classifier.classify(sql.as_bytes(), true).class;
        assert_eq!(matches!(class, Class::Pin(_)), pins, "{sql}: {class:?}");
    };
    let classifier = Classifier::new();
    for sql in [
        "select enters()",
        "select 1 @@@@ 2",
        "select in_perl()",
        "call atomic()",
        "insert into audited values (1)",
        "select fills()",
        "select * from over_locking",
        "update pg_catalog.pg_settings set setting = 'x' where name = 'search_path'",
        "select isn_weak(true)",
        "set search_path = 'pg_temp', public",
        "set schema 'pg_temp'",
        "set local search_path to 'pg_temp'",
        "select set_config('search_path', 'pg_temp', true)",
    ] {
        classifier.set_catalogue(Arc::new(pinning()));
        check(&classifier, sql, true);
        // What pinned pins on while nobody knows what has changed.
        classifier.forget_catalogue();
        check(&classifier, sql, true);
    }
    classifier.set_catalogue(Arc::new(pinning()));
    for sql in [
        "select harmless()",
        "insert into orders values (1)",
        "select * from pg_settings",
        "select audited from orders where id = 1 for update",
    ] {
        // A name is a relation's wherever it stands: pinned in vain, at worst.
        check(&classifier, sql, sql.contains("audited"));
    }
}

#[test]
fn calls_before_the_first_catalogue_and_last_values_are_told_apart() {
    let check = |classifier: &Classifier, sql: &str, reason| {
        let class = &classifier.classify(sql.as_bytes(), true).class;
        assert_eq!(*class, Class::Primary(reason), "{sql}");
    };
    let classifier = Classifier::new();
    check(&classifier, "select set_tenant(5)", "start");
    check(&classifier, "select 1; select set_tenant(5)", "start");
    check(&classifier, "select a from b", "catalogue");
    classifier.set_catalogue(Arc::new(catalogue()));
    for sql in [
        "select lastval()",
        "select (select currval('ids')) from orders",
        "select lastval(); select 1",
    ] {
        check(&classifier, sql, "last-value");
    }
    check(
        &classifier,
        "insert into a default values; select lastval()",
        "multi",
    );
}
