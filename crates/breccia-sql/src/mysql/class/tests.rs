//! Statements and what they are.
//!
//! Not a server's word for it. Invariant checked: what is called a read is one, and the rest has the
//! reason that an administrator can act on.

use super::*;

pub(super) const TABLES: [[&str; 5]; 12] = [
    ["shop", "orders", "BASE TABLE", "InnoDB", "0"],
    ["shop", "items", "BASE TABLE", "InnoDB", "0"],
    ["shop", "Mixed", "BASE TABLE", "MyISAM", "0"],
    ["shop", "cache", "BASE TABLE", "MEMORY", "0"],
    ["shop", "far", "BASE TABLE", "FEDERATED", "0"],
    ["shop", "numbers", "SEQUENCE", "InnoDB", "0"],
    ["shop", "history", "SYSTEM VERSIONED", "InnoDB", "0"],
    ["shop", "good_view", "VIEW", "", "0"],
    ["shop", "view_of_view", "VIEW", "", "0"],
    ["shop", "bad_view", "VIEW", "", "0"],
    ["shop", "clock_view", "VIEW", "", "0"],
    ["other", "things", "BASE TABLE", "InnoDB", "0"],
];

pub(super) const VIEWS: [[&str; 3]; 4] = [
    ["shop", "bad_view", "select `shop`.`f`(1) AS `f`"],
    [
        "shop",
        "view_of_view",
        "select `g`.`id` AS `id` from `shop`.`good_view` `g`",
    ],
    [
        "shop",
        "good_view",
        "select `shop`.`orders`.`id` AS `id` from `shop`.`orders` where `shop`.`orders`.`id` > 3",
    ],
    ["shop", "clock_view", "select current_timestamp() AS `t`"],
];

pub(super) fn rows<const N: usize>(table: &[[&str; N]]) -> Vec<Row> {
    let row = |row: &[&str; N]| row.iter().map(|it| Some((*it).to_owned())).collect();
    table.iter().map(row).collect()
}

fn catalogue(folds: &str) -> Catalogue {
    let mut tables = rows(&TABLES);
    for row in &mut tables {
        row[4] = Some(folds.to_owned());
    }
    let routines = rows(&[["shop", "f"], ["shop", "crc32"], ["shop", "count_all"]]);
    Catalogue::from_rows(&tables, &rows(&VIEWS), &routines)
}

pub(super) fn classifier() -> Classifier {
    let classifier = Classifier::default();
    classifier.set_catalogue(catalogue("0"));
    classifier
}

pub(super) fn mode() -> Mode {
    Mode {
        legible: true,
        multi_statements: true,
        ..Mode::default()
    }
}

fn short(class: &Class) -> String {
    match class {
        Class::Primary(reason) => (*reason).to_owned(),
        Class::Pin(reason) => format!("pin {reason}"),
        Class::Read => "READ".to_owned(),
        other => format!("{other:?}"),
    }
}

fn check_in(mode: Mode, table: &[(&str, &str)]) {
    let classifier = classifier();
    let wrong: Vec<_> = table
        .iter()
        .filter_map(|(sql, expected)| {
            let class = short(
                &classifier
                    .classify(sql.as_bytes(), mode, Some("shop"))
                    .class,
            );
            (class != *expected).then(|| format!("{sql}\n    is {class}, not {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn all(sqls: &[&str], expected: &str) {
    let table: Vec<_> = sqls.iter().map(|sql| (*sql, expected)).collect();
    check_in(mode(), &table);
}

#[test]
fn reads() {
    // One statement a line; a test with a real server runs them too.
    let statements: Vec<_> = include_str!("../../../tests/data/mysql_reads.sql")
        .lines()
        .collect();
    assert!(statements.len() > 60);
    all(&statements, "READ");
}

const LOOK_LIKE_READS: &[(&str, &str)] = &[
    ("SELECT * FROM orders FOR UPDATE", "locks"),
    ("SELECT * FROM orders FOR SHARE", "locks"),
    ("SELECT * FROM orders FOR SHARE SKIP LOCKED", "locks"),
    ("SELECT * FROM orders LOCK IN SHARE MODE", "locks"),
    ("SELECT * FROM orders FOR/**/UPDATE NOWAIT", "locks"),
    ("SELECT 1 -- x\n FOR UPDATE", "locks"),
    ("SELECT 1 #x\n FOR UPDATE", "locks"),
    ("SELECT * FROM (SELECT * FROM orders FOR UPDATE) t", "locks"),
    (
        "WITH c AS (SELECT * FROM orders FOR UPDATE) SELECT * FROM c",
        "locks",
    ),
    ("SELECT (SELECT id FROM orders LIMIT 1 FOR UPDATE)", "locks"),
    ("SELECT'a'FOR UPDATE", "locks"),
    ("SELECT .5FOR UPDATE", "unlexed"),
    ("SELECT id INTO OUTFILE '/tmp/x' FROM orders", "into"),
    ("SELECT id FROM orders INTO DUMPFILE '/tmp/x'", "into"),
    ("SELECT id INTO @v FROM orders", "pin user-variable"),
    ("SELECT id FROM orders INTO x", "into"),
    ("SELECT @v", "pin user-variable"),
    ("SELECT @v := 1", "pin user-variable"),
    ("SELECT @`v`, @'w'", "pin user-variable"),
    ("SELECT id FROM orders WHERE id = @x", "pin user-variable"),
    ("SELECT @@global.read_only", "variable"),
    ("SELECT @@read_only", "variable"),
    ("SELECT @@hostname", "variable"),
    ("SELECT @@autocommit", "variable"),
    ("SELECT @@last_insert_id", "variable"),
    (
        "SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */",
        "executable-comment",
    ),
    ("SELECT 1 /*! FOR UPDATE */", "executable-comment"),
    ("SELECT 1 /*M!100100 FOR UPDATE */", "executable-comment"),
    ("/*!40001 SELECT */ 1", "executable-comment"),
    ("/*! */", "executable-comment"),
    ("SELECT /*+ SET_VAR(sql_log_bin = 0) */ 1", "optimizer-hint"),
    ("SELECT GET_LOCK('a', 1)", "pin lock"),
    ("SELECT get_lock ('a', 1)", "pin lock"),
    ("SELECT RELEASE_LOCK('a')", "pin lock"),
    ("SELECT RELEASE_ALL_LOCKS()", "pin lock"),
    ("DO GET_LOCK('a', 1)", "pin lock"),
    ("INSERT INTO orders VALUES (GET_LOCK('a', 1))", "pin lock"),
    ("SELECT SLEEP(1)", "function"),
    ("SELECT BENCHMARK(1, 1)", "function"),
    ("SELECT CONNECTION_ID()", "function"),
    ("SELECT LAST_INSERT_ID()", "function"),
    ("SELECT LAST_INSERT_ID(5)", "function"),
    ("SELECT FOUND_ROWS()", "function"),
    ("SELECT ROW_COUNT()", "function"),
    ("SELECT LOAD_FILE('/etc/passwd')", "function"),
    ("SELECT MASTER_GTID_WAIT('0-1-1')", "function"),
    ("SELECT MASTER_POS_WAIT('a', 1)", "function"),
    ("SELECT WAIT_FOR_EXECUTED_GTID_SET('x')", "function"),
    ("SELECT USER()", "function"),
    ("SELECT CURRENT_USER", "function"),
    ("SELECT NEXTVAL(numbers)", "sequence"),
    ("SELECT NEXT VALUE FOR numbers", "sequence"),
    ("SELECT PREVIOUS VALUE FOR numbers", "pin last-value"),
    ("SELECT DEFAULT(id) FROM orders", "function"),
    ("SELECT f(1)", "function"),
    ("SELECT shop.f(1)", "function"),
    ("SELECT shop . f (1)", "function"),
    ("SELECT `f`(1)", "function"),
    ("SELECT `count`(1)", "function"),
    ("SELECT my_udf(1)", "function"),
    ("SELECT crc32('x')", "function"),
    ("SELECT NAME_CONST('a', 1)", "function"),
    ("SELECT * FROM information_schema.tables", "catalogue"),
    ("SELECT * FROM INFORMATION_SCHEMA.PROCESSLIST", "catalogue"),
    ("SELECT * FROM `mysql`.`user`", "catalogue"),
    ("SELECT * FROM performance_schema.threads", "catalogue"),
    ("SELECT * FROM sys.session", "catalogue"),
    ("SELECT * FROM nothing", "unknown-table"),
    ("SELECT * FROM ORDERS", "unknown-table"),
    ("SELECT * FROM nowhere.orders", "unknown-table"),
    ("SELECT * FROM seq_1_to_10", "unknown-table"),
    ("SELECT * FROM cache", "engine"),
    ("SELECT * FROM orders, far", "engine"),
    ("SELECT * FROM numbers", "sequence"),
    ("SELECT * FROM bad_view", "view"),
    ("SELECT (SELECT id FROM nothing)", "unknown-table"),
    ("SELECT 1 UNION SELECT id FROM cache", "engine"),
    ("WITH cache AS (SELECT 1) SELECT * FROM cache", "engine"),
    ("WITH orders AS (SELECT 1) SELECT * FROM orders", "READ"),
    ("WITH c AS (SELECT 1) DELETE FROM orders", "unproven"),
    ("SELECT * FROM orders PROCEDURE ANALYSE()", "procedure"),
    ("EXPLAIN ANALYZE SELECT 1", "unproven"),
    ("EXPLAIN UPDATE orders SET id = 1", "unproven"),
    ("EXPLAIN FOR CONNECTION 5", "unproven"),
    ("DESCRIBE orders", "unproven"),
    ("SELECT", "unproven"),
    ("SELECT 'a", "unlexed"),
    ("SELECT `a", "unlexed"),
    ("SELECT 1 /* x", "unlexed"),
    ("SELECT 1 \u{a0}FOR UPDATE", "charset"),
    ("SELECT é FROM orders", "charset"),
    ("SELECT `é` FROM orders", "READ"),
    ("SELECT 'é' FROM orders", "READ"),
    ("SELECT * FROM `é`", "charset"),
    ("SELECT 1; SELECT 2", "several"),
    ("SELECT 1; SELECT @a", "pin user-variable"),
    ("SELECT 1; DROP TABLE orders", "several"),
    ("SELECT 1;;", "READ"),
    ("", "Empty"),
    (" ; ", "Empty"),
    ("-- nothing", "Empty"),
    ("{fn now()}", "unproven"),
    ("SELECT {d '2020-01-01'}", "unproven"),
    ("SELECT [id] FROM orders", "unlexed"),
];

#[test]
fn what_looks_like_a_read() {
    check_in(mode(), LOOK_LIKE_READS);
}

const COMMANDS: &[(&str, &str)] = &[
    ("INSERT INTO orders VALUES (1)", "write"),
    ("INSERT INTO orders VALUES (1) RETURNING id", "write"),
    ("REPLACE INTO orders VALUES (1)", "write"),
    ("UPDATE orders SET id = 1", "write"),
    ("UPDATE orders SET id = @x", "pin user-variable"),
    ("DELETE FROM orders", "write"),
    ("DO 1", "write"),
    ("TRUNCATE orders", "write"),
    ("LOAD DATA INFILE 'x' INTO TABLE orders", "write"),
    ("LOAD DATA LOCAL INFILE 'x' INTO TABLE orders", "LoadLocal"),
    (
        "LOAD DATA CONCURRENT LOCAL INFILE 'x' INTO TABLE t",
        "LoadLocal",
    ),
    ("LOAD XML LOCAL INFILE 'x' INTO TABLE orders", "LoadLocal"),
    ("CALL p()", "call"),
    ("CALL p(@x)", "pin user-variable"),
    (
        "BEGIN",
        "Begin { read_only: false, characteristics: false }",
    ),
    (
        "BEGIN WORK",
        "Begin { read_only: false, characteristics: false }",
    ),
    ("BEGIN NOT ATOMIC SELECT 1; END", "pin block"),
    (
        "START TRANSACTION",
        "Begin { read_only: false, characteristics: false }",
    ),
    (
        "START TRANSACTION READ ONLY",
        "Begin { read_only: true, characteristics: false }",
    ),
    (
        "start transaction read write",
        "Begin { read_only: false, characteristics: true }",
    ),
    (
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        "Begin { read_only: true, characteristics: true }",
    ),
    ("START SLAVE", "admin"),
    ("COMMIT", "Commit"),
    ("COMMIT WORK", "Commit"),
    ("COMMIT AND NO CHAIN NO RELEASE", "Commit"),
    ("COMMIT AND CHAIN", "chain"),
    ("COMMIT RELEASE", "release"),
    ("ROLLBACK", "Rollback"),
    ("ROLLBACK TO SAVEPOINT a", "savepoint"),
    ("ROLLBACK WORK TO a", "savepoint"),
    ("ROLLBACK AND CHAIN", "chain"),
    ("SAVEPOINT a", "savepoint"),
    ("RELEASE SAVEPOINT a", "savepoint"),
    ("XA START 'a'", "pin xa"),
    (
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SetTransaction",
    ),
    ("SET SESSION TRANSACTION READ ONLY", "Set"),
    ("SET GLOBAL TRANSACTION READ ONLY", "global"),
    ("SET autocommit = 0", "SetAutocommit(false)"),
    ("SET AUTOCOMMIT=1", "SetAutocommit(true)"),
    ("SET @@autocommit := on", "SetAutocommit(true)"),
    ("SET SESSION autocommit = 'OFF'", "SetAutocommit(false)"),
    ("SET autocommit = 0, sql_mode = ''", "Set"),
    ("SET NAMES utf8mb4", "Set"),
    ("SET NAMES 'utf8' COLLATE 'utf8_bin'", "Set"),
    ("SET CHARACTER SET utf8", "Set"),
    ("SET CHARSET utf8", "Set"),
    ("SET sql_mode = 'ANSI', time_zone = '+00:00'", "Set"),
    (
        "SET sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
        "Set",
    ),
    ("SET @@session.wait_timeout = 5", "Set"),
    ("SET @@global.wait_timeout = 5", "global"),
    ("SET GLOBAL wait_timeout = 5", "global"),
    ("SET time_zone = 'x', GLOBAL wait_timeout = 5", "global"),
    ("SET PERSIST wait_timeout = 5", "global"),
    ("SET @x = 1", "pin user-variable"),
    ("SET time_zone = 'x', @x = 1", "pin user-variable"),
    ("SET insert_id = 5", "pin variable"),
    ("SET timestamp = 5", "pin variable"),
    ("SET SESSION sql_log_bin = 0", "pin variable"),
    ("SET @@session.gtid_next = 'x'", "pin variable"),
    ("SET @@`timestamp` = 1", "pin variable"),
    (
        "SET @@default.key_cache_age_threshold = 200",
        "pin variable",
    ),
    ("/*!50000 SET @@sql_mode = '' */", "pin variable"),
    ("EXECUTE IMMEDIATE 'SET @@sql_mode = 0'", "pin prepare"),
    ("CALL p(@@sql_mode)", "call"),
    ("SET last_insert_id = 7", "pin variable"),
    ("SET sql_mode = GET_LOCK('a', 1)", "pin lock"),
    ("SET PASSWORD = 'x'", "password"),
    ("SET PASSWORD FOR a = 'x'", "password"),
    ("SET ROLE r", "pin role"),
    ("SET DEFAULT ROLE r", "admin"),
    (
        "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
        "pin set-statement",
    ),
    ("USE shop", "Use(\"shop\")"),
    ("USE `a``b`", "Use(\"a`b\")"),
    ("SHOW TABLES", "show"),
    ("SHOW WARNINGS", "ShowWarnings"),
    ("SHOW ERRORS LIMIT 1", "ShowWarnings"),
    ("SHOW COUNT(*) WARNINGS", "ShowWarnings"),
    ("SHOW breccia.token", "OwnShow { name: \"token\" }"),
    ("show BRECCIA.Target;", "OwnShow { name: \"target\" }"),
    ("SHOW breccia.token x", "OwnMisplaced"),
    ("SELECT 1; SHOW breccia.token", "OwnMisplaced"),
    (
        "SET breccia.target = 'primary'",
        "OwnSet { name: \"target\", value: \"primary\" }",
    ),
    (
        "SET SESSION breccia.target = auto",
        "OwnSet { name: \"target\", value: \"auto\" }",
    ),
    ("SET breccia.target", "OwnMisplaced"),
    ("RESET breccia.target", "OwnReset { name: \"target\" }"),
    ("RESET MASTER", "admin"),
    ("KILL 5", "Kill { query: false, id: Some(5) }"),
    ("KILL QUERY 5", "Kill { query: true, id: Some(5) }"),
    (
        "KILL HARD CONNECTION 5",
        "Kill { query: false, id: Some(5) }",
    ),
    ("KILL QUERY ID 5", "Kill { query: true, id: None }"),
    ("KILL USER bob", "Kill { query: false, id: None }"),
    ("CREATE TABLE x (id INT)", "Ddl"),
    ("CREATE TABLE x AS SELECT 1", "Ddl"),
    ("CREATE TEMPORARY TABLE x (id INT)", "pin temp"),
    ("CREATE OR REPLACE TEMPORARY TABLE x (id INT)", "pin temp"),
    ("DROP TEMPORARY TABLE x", "write"),
    ("DROP TABLE x", "Ddl"),
    ("ALTER TABLE x ADD y INT", "Ddl"),
    ("RENAME TABLE x TO y", "Ddl"),
    ("DROP PREPARE s", "pin prepare"),
    (
        "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @a = 1",
        "Ddl",
    ),
    ("CREATE TABLE event AS SELECT GET_LOCK('a', 1)", "pin lock"),
    ("LOCK TABLES x READ", "pin lock-tables"),
    ("UNLOCK TABLES", "lock-tables"),
    ("FLUSH TABLES WITH READ LOCK", "pin lock-tables"),
    ("FLUSH TABLES x FOR EXPORT", "pin lock-tables"),
    ("FLUSH LOGS", "admin"),
    ("HANDLER x OPEN", "pin handler"),
    ("PREPARE s FROM 'SELECT 1'", "pin prepare"),
    ("EXECUTE s", "pin prepare"),
    ("DEALLOCATE PREPARE s", "pin prepare"),
    ("GRANT ALL ON *.* TO a", "admin"),
    ("CHANGE MASTER TO master_host = 'x'", "admin"),
    (
        "GET DIAGNOSTICS CONDITION 1 @a = MESSAGE_TEXT",
        "pin user-variable",
    ),
    ("/*!40101 SET NAMES utf8 */", "executable-comment"),
    ("/*!40014 SET @OLD=@@UNIQUE_CHECKS */", "pin user-variable"),
    ("/*!50003 CREATE*/ TABLE x (id INT)", "Ddl"),
    ("nonsense", "unknown"),
    ("'x'", "unproven"),
];

#[test]
fn commands() {
    check_in(mode(), COMMANDS);
}

#[test]
fn quotes_by_mode() {
    let ansi = Mode {
        ansi_quotes: true,
        ..mode()
    };
    check_in(
        ansi,
        &[
            ("SELECT \"id\" FROM \"orders\"", "READ"),
            ("SELECT \"f\"(1)", "function"),
            ("SELECT \"a\\\" FROM orders", "unproven"),
        ],
    );
    let plain = Mode {
        no_backslash_escapes: true,
        ..mode()
    };
    check_in(
        plain,
        &[
            ("SELECT 'a\\' FOR UPDATE -- '", "locks"),
            ("SELECT 'a\\', 'b'", "READ"),
        ],
    );
    check_in(
        mode(),
        &[
            ("SELECT 'a\\' FOR UPDATE -- '", "READ"),
            ("SELECT 'a\\', 'b'", "unlexed"),
        ],
    );
    let illegible = Mode {
        legible: false,
        ..mode()
    };
    check_in(
        illegible,
        &[
            ("SELECT 'a'", "READ"),
            ("SELECT 'é'", "charset"),
            ("SET NAMES utf8", "Set"),
        ],
    );
}

#[test]
fn flags() {
    let classifier = classifier();
    let of = |sql: &str| classifier.classify(sql.as_bytes(), mode(), Some("shop"));
    assert!(of("SELECT LAST_INSERT_ID()").asks_last_insert_id);
    assert!(of("SELECT @@identity").asks_last_insert_id);
    assert!(of("SELECT LAST_INSERT_ID(4)").may_set_last_insert_id);
    assert!(of("UPDATE orders SET id = LAST_INSERT_ID(id + 1)").may_set_last_insert_id);
    assert!(of("INSERT INTO orders VALUES (1)").may_set_last_insert_id);
    assert!(of("CALL p()").may_set_last_insert_id);
    assert!(!of("UPDATE orders SET id = 1").may_set_last_insert_id);
    assert!(of("SELECT FOUND_ROWS()").asked.rows);
    assert!(of("SELECT @@warning_count").asked.warnings);
    assert!(of("SHOW WARNINGS").asked.warnings && of("SELECT @@`warning_count`").asked.warnings);
    assert!(of("SELECT SQL_CALC_FOUND_ROWS id FROM orders").calculates_found_rows);
    assert!(of("SELECT NOW()").uses_now);
    assert!(of("SELECT * FROM clock_view").uses_now);
    assert!(!of("SELECT * FROM good_view").uses_now);
    assert!(of("/* breccia: primary */ SELECT 1").hint_primary);
    assert!(of("SELECT 1 -- breccia:primary").hint_primary);
    assert!(!of("SELECT 'breccia: primary'").hint_primary);
    assert!(of("SELECT 1; CREATE TABLE x (i INT)").ddl);
    assert!(!of("SELECT 1; SELECT 2").single && of("SELECT 1;").single);
}

#[test]
fn nothing_is_a_read_without_a_catalogue() {
    let classifier = Classifier::default();
    let of = || classifier.classify(b"SELECT 1", mode(), None).class.clone();
    assert_eq!(of(), Class::Primary("no-catalogue"));
    assert!(classifier.set_catalogue_if(catalogue("0"), || true));
    assert_eq!(of(), Class::Read);
    classifier.forget();
    assert_eq!(of(), Class::Primary("no-catalogue"));
    assert!(!classifier.set_catalogue_if(catalogue("0"), || false));
    assert_eq!(of(), Class::Primary("no-catalogue"));
}

#[test]
fn names_compare_as_the_server_says() {
    let classifier = classifier();
    let of = |sql: &str, schema| short(&classifier.classify(sql.as_bytes(), mode(), schema).class);
    assert_eq!(of("SELECT * FROM Mixed", Some("shop")), "READ");
    assert_eq!(of("SELECT * FROM mixed", Some("shop")), "unknown-table");
    assert_eq!(of("SELECT * FROM orders", None), "unknown-table");
    assert_eq!(of("SELECT * FROM orders", Some("other")), "unknown-table");
    assert_eq!(of("SELECT * FROM shop.orders", None), "READ");
    classifier.set_catalogue(catalogue("1"));
    assert_eq!(of("SELECT * FROM mixed, SHOP.ORDERS", Some("Shop")), "READ");
}

#[test]
fn a_program_is_one_statement_where_there_can_be_only_one() {
    let one = Mode {
        multi_statements: false,
        ..mode()
    };
    let sql = "CREATE PROCEDURE p() BEGIN SET @a = 1; SELECT 1; END";
    check_in(one, &[(sql, "Ddl")]);
    check_in(
        mode(),
        &[(
            "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 1; END",
            "several",
        )],
    );
    let verdict = classifier().classify(sql.as_bytes(), mode(), None);
    assert!(verdict.ddl);
}

#[test]
fn deep_and_long_texts_end() {
    let classifier = classifier();
    let of = |sql: String| short(&classifier.classify(sql.as_bytes(), mode(), None).class);
    let nested = format!("SELECT {}1{}", "(".repeat(9_000), ")".repeat(9_000));
    assert_eq!(of(nested), "unproven");
    assert_eq!(of(format!("SELECT 1{}", "+1".repeat(2_900))), "READ");
    assert_eq!(of(format!("SELECT 1{}", "+1".repeat(90_000))), "too-long");
    assert_eq!(
        of(format!("SELECT 1 IN (1{})", ",1".repeat(50_000))),
        "READ"
    );
    assert_eq!(of(format!("SELECT {}1", "NOT ".repeat(2_900))), "unproven");
    assert_eq!(of(format!("SELECT '{}'", "x".repeat(1 << 20))), "long");
}

#[test]
fn texts_alike_are_remembered_and_others_are_not() {
    let classifier = classifier();
    let of = |sql: &str, mode: Mode| classifier.classify(sql.as_bytes(), mode, Some("shop"));
    let first = of("SELECT id FROM orders WHERE id = 17 AND name = 'a'", mode());
    let alike = of(
        "SELECT id  FROM orders WHERE id = 4 AND name = 'b;'",
        mode(),
    );
    assert!(std::sync::Arc::ptr_eq(&first, &alike));
    let hinted = of(
        "SELECT id FROM orders WHERE id = 4 AND name = 'b' /* breccia: primary */",
        mode(),
    );
    assert!(hinted.hint_primary && !alike.hint_primary);
    let other = Mode {
        ansi_quotes: true,
        ..mode()
    };
    assert_eq!(
        of("SELECT \"f\" (1)", mode()).class,
        Class::Primary("unproven")
    );
    assert_eq!(
        of("SELECT \"f\" (1)", other).class,
        Class::Primary("function")
    );
    assert_eq!(
        of("SET autocommit = 1", mode()).class,
        Class::SetAutocommit(true)
    );
    assert_eq!(
        of("SET autocommit = 0", mode()).class,
        Class::SetAutocommit(false)
    );
    assert_eq!(of("SET autocommit = 2", mode()).class, Class::Set);
    assert_eq!(
        of("SET autocommit = 1", mode()).class,
        Class::SetAutocommit(true)
    );
    let kill = |id| Class::Kill {
        query: false,
        id: Some(id),
    };
    assert_eq!(
        (
            of("KILL 5", mode()).class.clone(),
            of("KILL 6", mode()).class.clone()
        ),
        (kill(5), kill(6))
    );
    classifier.forget();
    let sql = "SELECT id FROM orders WHERE id = 17 AND name = 'a'";
    assert_eq!(of(sql, mode()).class, Class::Primary("no-catalogue"));
}

#[test]
#[ignore = "a measurement: run it with --release --ignored"]
fn a_warm_verdict_is_fast() {
    let classifier = classifier();
    let sql = b"SELECT o.id, o.name, o.created, o.state FROM orders o WHERE o.id = 123456 AND o.state = 'open' LIMIT 1";
    let rounds = 1_000_000_u32;
    let began = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(classifier.classify(std::hint::black_box(sql), mode(), Some("shop")));
    }
    println!("{} bytes: {:?} each", sql.len(), began.elapsed() / rounds);
}
