//! What is told of statements that are not proven, for people.
//!
//! Not the verdicts. Invariant: each row names what is unsafe by itself, however deep it stands.

use super::tests_support::builder;
use super::{Class, Classifier};
use std::sync::Arc;

#[test]
fn what_is_not_proven_is_named_down_to_what_is_unsafe_by_itself() {
    let (catalogue, blame) = builder().finish_blaming();
    let catalogue = Arc::new(catalogue);
    let classifier = Classifier::new();
    classifier.set_catalogue(Arc::clone(&catalogue));
    let check = |sql: &str, expected: Option<&str>| {
        let verdict = classifier.classify(sql.as_bytes(), true);
        let Class::Primary(reason) = verdict.class else {
            panic!("{sql}: {:?}", verdict.class);
        };
        let told = blame.because(&catalogue, sql, reason);
        assert_eq!(told.as_deref(), expected, "{sql} ({reason})");
    };
    let own = "is the server's own and may change something or tell of one server alone";
    let nextval = format!("function nextval, which {own}");
    check("SELECT nextval('ids')", Some(&nextval));
    let deep = format!("relation v_next2, which uses relation v_next, which uses {nextval}");
    check("SELECT * FROM v_next2", Some(&deep));
    check(
        "SELECT id FROM orders, ids",
        Some("relation ids, which is a sequence"),
    );
    check(
        "SELECT 1 FROM \"fast\"",
        Some("relation fast, which is unlogged"),
    );
    check(
        "SELECT 1 FROM parts",
        Some("relation parts, which has a child that only the primary can read"),
    );
    check(
        "SELECT * FROM pg_locks",
        Some("relation pg_locks, which shows the server's own state"),
    );
    check(
        "SELECT * FROM orders JOIN gone USING (id)",
        Some("relation gone, of which the database has none"),
    );
    check(
        "SELECT gone(1)",
        Some("function gone, of which the database has none"),
    );
    check(
        "SELECT procedural()",
        Some("function procedural, whose definition is not proven (unparsed)"),
    );
    // Round in a circle, and told only so far.
    let verdict = blame.because(&catalogue, "SELECT me()", "function");
    assert!(
        verdict.is_some_and(|told| told.matches("function").count() < 20),
        "a bounded chain"
    );
    check("INSERT INTO orders VALUES (1)", None);
    check("SELECT 1 FROM orders FOR UPDATE", None);
}
