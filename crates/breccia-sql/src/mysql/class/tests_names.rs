//! What is not proven, by its name; what administrators vouch for; and what runs out of sight.
//!
//! Not which statements are reads. Invariant checked: a name that is told is of what stands in the way.

use super::tests::{TABLES, VIEWS, classifier, mode, rows};
use super::*;

#[test]
fn blame_names_what_is_not_proven() {
    let classifier = classifier();
    let check = |sql: &str, expected: &str| {
        let found = classifier.blame(sql.as_bytes(), mode(), Some("shop"));
        assert_eq!(
            found.as_deref(),
            (!expected.is_empty()).then_some(expected),
            "{sql}"
        );
    };
    let engine = "table shop.cache, whose engine does not hold the same on a replica";
    check("SELECT * FROM orders JOIN cache USING (id)", engine);
    check("SELECT 1; TABLE cache", engine);
    let function = "function f, which is a stored function, which no server holds to what it \
                    declares; if it only reads, name it in read-functions";
    check("SELECT COUNT(*), f(1) FROM orders", function);
    check("CALL f(1); SELECT f(1)", function);
    check(
        "SELECT * FROM bad_view",
        &format!("view shop.bad_view, which uses {function}"),
    );
    check(
        "SELECT SLEEP(1)",
        "function SLEEP, which is not known to only compute",
    );
    check("SELECT nextval(numbers)", "");
    check("SELECT * FROM numbers", "sequence shop.numbers");
    check("SELECT @@hostname", "variable @@hostname");
    check(
        "SELECT * FROM mysql.user",
        "mysql.user, which is the server's own",
    );
    check(
        "SELECT * FROM nowhere",
        "table shop.nowhere, which does not exist, or which the user that Breccia asks as may not see",
    );
    for sql in [
        "SELECT * FROM orders",
        "INSERT INTO orders VALUES (1)",
        "SELECT 'a",
        // Procedures are no functions, and nothing makes reads of these.
        "CALL f()",
        "CALL shop.f(1)",
        "DO f(1)",
        "INSERT INTO orders SELECT f(1)",
    ] {
        check(sql, "");
    }
    let nowhere = classifier.blame(b"SELECT * FROM orders", mode(), None);
    assert!(nowhere.is_some_and(|it| it.contains("none is entered")));
}

#[test]
fn functions_that_are_vouched_for_are_reads_by_every_name() {
    let tables = rows(&TABLES);
    let routines = rows(&[["shop", "F"], ["shop", "g"], ["shop", "count_all"]]);
    let names = ["f", "Count_All", "sleep"].map(str::to_owned);
    let classifier = Classifier::default();
    classifier.set_catalogue(Catalogue::vouching(
        [&tables, &rows(&VIEWS), &routines, &[]],
        &names,
    ));
    let check = |sql: &str, read: bool| {
        let verdict = classifier.classify(sql.as_bytes(), mode(), Some("shop"));
        assert_eq!(
            verdict.class == Class::Read,
            read,
            "{sql}: {:?}",
            verdict.class
        );
        assert!(!read || verdict.uses_now, "{sql}");
    };
    check("SELECT f(1)", true);
    check("SELECT shop.F(id), `count_all`() FROM orders", true);
    check("SELECT `shop`.`f`(1)", true);
    check("SELECT * FROM bad_view", true);
    check("SELECT f(g(1))", false);
    check("SELECT shop.g(1)", false);
    check("SELECT SLEEP(1)", false);
    check("SELECT a.b.f(1)", false);
}

#[test]
fn what_may_run_out_of_sight_is_known_by_names() {
    let routines = rows(&[["shop", "f"], ["shop", "p"]]);
    let catalogue = Catalogue::from_rows(&rows(&TABLES), &rows(&VIEWS), &routines);
    let classifier = Classifier::default();
    classifier.set_catalogue(catalogue.with_triggers(&rows(&[["items"]])));
    let check = |sql: &str, expected: Hidden| {
        let verdict = classifier.classify(sql.as_bytes(), mode(), Some("shop"));
        assert_eq!(verdict.hidden, expected, "{sql}");
    };
    for sql in [
        "SELECT id FROM orders",
        "SELECT id FROM orders FOR UPDATE",
        "SET time_zone = '+00:00'",
        "BEGIN",
        "COMMIT",
        "USE shop",
        "CREATE TABLE a (id int)",
    ] {
        check(sql, Hidden::Nothing);
    }
    for sql in [
        "INSERT INTO orders (id) VALUES (1)",
        "UPDATE orders SET id = UPPER('a')",
        "DELETE FROM orders",
        "SET time_zone = '+00:00'; DELETE FROM orders",
    ] {
        check(sql, Hidden::Triggers);
    }
    for sql in [
        "CALL p()",
        "SELECT f(1)",
        "SELECT * FROM bad_view",
        "SELECT * FROM orders, bad_view FOR UPDATE",
        "SET time_zone = f(1)",
        "INSERT INTO orders (id) VALUES (F(1))",
        "INSERT INTO Items (id) VALUES (1)",
        "UPDATE orders JOIN `items` USING (id) SET orders.id = 1",
        "SELECT 1; CALL p()",
        "DO unknown_function()",
        "SELECT 'open",
    ] {
        check(sql, Hidden::Routines);
    }
}
