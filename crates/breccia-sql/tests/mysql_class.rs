//! What is classed as a read, tried on a real server that lets nothing be written; and the catalogue,
//! as it is read from a real primary.
//!
//! Invariant: needs `MariaDB` and nothing built.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use breccia_core::address::Address;
use breccia_net::health::{EndpointHealth, ProbeConfig};
use breccia_net::metrics::Registry;
use breccia_sql::SqlError;
use breccia_sql::mysql::class::{Catalogue, Class, Classifier, Mode, QUERIES};
use breccia_sql::mysql::cluster::{Cluster, ClusterOptions, Consistency, ServerOptions};
use breccia_sql::mysql::monitor;
use breccia_sql::mysql::upstream::{Credential, Endpoint, Login, Upstream, UpstreamTls};
use breccia_testkit::{MariaDb, MariaDbCluster, MariaDbClusterOptions, MariaDbOptions};

const PATIENCE: Duration = Duration::from_secs(10);
const MODE: Mode = Mode {
    ansi_quotes: false,
    no_backslash_escapes: false,
    pipes_as_concat: false,
    legible: true,
    ignore_space: false,
    multi_statements: true,
};

/// `ER_OPTION_PREVENTS_STATEMENT` and `ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION`: it would have written.
const WRITES: [u16; 2] = [1290, 1792];

const SCHEMA: &str = "CREATE DATABASE shop; USE shop; \
    CREATE TABLE orders (id INT PRIMARY KEY, name VARCHAR(50), data JSON, created DATETIME, \
    lock_ INT, `for` INT, `lock` INT, INDEX a (name), INDEX b (id), FULLTEXT (name)); \
    CREATE TABLE items (id INT, name VARCHAR(50), order_id INT); \
    CREATE TABLE history (id INT) WITH SYSTEM VERSIONING; \
    CREATE TABLE cache (id INT) ENGINE=MEMORY; \
    CREATE TABLE log (id INT); \
    CREATE SEQUENCE numbers; \
    CREATE DATABASE other; CREATE TABLE other.things (id INT); \
    CREATE FUNCTION f(a INT) RETURNS INT BEGIN INSERT INTO shop.log VALUES (a); RETURN a; END; \
    ";

const VIEWS: &str = "CREATE VIEW good_view AS SELECT id FROM orders WHERE id > 3; \
    CREATE VIEW view_of_view AS SELECT g.id FROM good_view g JOIN items i ON i.id = g.id; \
    CREATE VIEW clock_view AS SELECT NOW() AS t; \
    CREATE VIEW bad_view AS SELECT f(1) AS f; \
    CREATE VIEW bad_of_bad AS SELECT * FROM bad_view; \
    CREATE VIEW engine_view AS SELECT * FROM cache; \
    INSERT INTO orders (id, name) VALUES (1, 'a'), (5, 'b'); \
    CREATE USER reader; GRANT SELECT, EXECUTE, INSERT, SHOW VIEW ON *.* TO reader; \
    GRANT FILE ON *.* TO reader; SET GLOBAL read_only = ON";

fn endpoint(server: &MariaDb) -> Endpoint {
    Endpoint {
        name: "my".to_owned(),
        address: Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: server.port(),
        },
        tls: UpstreamTls::Off,
        health: None,
        timeout: Duration::from_secs(5),
        own: Vec::new(),
    }
}

fn login(user: &str, credential: Credential) -> Login {
    Login {
        user: user.to_owned(),
        credential,
        capabilities: 0,
        collation: 45,
        with_schema: false,
        read_only: false,
    }
}

/// A server with the schema above, where nobody but an administrator may write.
fn server() -> Result<MariaDb> {
    let server = MariaDb::start(MariaDbOptions {
        arguments: vec!["--log-bin=log".to_owned(), "--server-id=1".to_owned()],
        ..MariaDbOptions::default()
    })?;
    let (tables, function) = SCHEMA.split_once("CREATE FUNCTION").context("a function")?;
    server.query("mysql", tables)?;
    let function = format!("DELIMITER //\nCREATE FUNCTION{function}//\nDELIMITER ;\n{VIEWS}");
    server.query("shop", "SET GLOBAL log_bin_trust_function_creators = 1")?;
    server.query("shop", &function)?;
    Ok(server)
}

async fn classifier(endpoint: &Endpoint, upstream: &mut Upstream) -> Result<Classifier> {
    let [tables, views, routines] = QUERIES;
    let tables = endpoint.ask(upstream, tables).await?;
    let views = endpoint.ask(upstream, views).await?;
    let routines = endpoint.ask(upstream, routines).await?;
    let classifier = Classifier::default();
    classifier.set_catalogue(Catalogue::from_rows(&tables, &views, &routines));
    Ok(classifier)
}

/// Texts that must not be reads, made of one that is.
fn spoilt(sql: &str) -> Vec<String> {
    vec![
        format!("{sql}\n FOR UPDATE"),
        format!("{sql}\n LOCK IN SHARE MODE"),
        format!("{sql}\n INTO OUTFILE '/tmp/none'"),
        format!("{sql}\n INTO @a"),
        format!("{sql}\n; DELETE FROM orders"),
        format!("{sql}\n /*! FOR UPDATE */"),
        format!("SELECT f(2) FROM ({sql}\n) spoilt"),
        format!("SELECT shop.f(2) UNION ALL {sql}"),
        format!("WITH w AS ({sql}\n) SELECT nextval(numbers)"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_classed_as_a_read_writes_nothing() -> Result<()> {
    let server = server()?;
    let endpoint = endpoint(&server);
    let password = Credential::Password(server.password().to_owned());
    let mut own = endpoint.open(&login(server.user(), password)).await?;
    let classifier = classifier(&endpoint, &mut own).await?;
    let class = |sql: &str| {
        classifier
            .classify(sql.as_bytes(), MODE, Some("shop"))
            .class
            .clone()
    };
    for view in ["bad_view", "bad_of_bad", "engine_view"] {
        assert_eq!(
            class(&format!("SELECT * FROM {view}")),
            Class::Primary("view")
        );
    }
    let state = "SELECT @@GLOBAL.gtid_binlog_pos, (SELECT COUNT(*) FROM shop.log)";
    let before = endpoint.ask(&mut own, state).await?;
    let mut reader = endpoint.open(&login("reader", Credential::None)).await?;
    endpoint.enter(&mut reader, "shop").await?;
    let (mut ran, mut failed) = (0, Vec::new());
    for sql in include_str!("data/mysql_reads.sql").lines() {
        assert_eq!(class(sql), Class::Read, "{sql}");
        for spoilt in spoilt(sql) {
            assert_ne!(class(&spoilt), Class::Read, "{spoilt}");
        }
        for sql in [
            sql.to_owned(),
            format!("EXPLAIN {sql}"),
            format!("SELECT 1 FROM ({sql}\n) d"),
        ] {
            if class(&sql) != Class::Read {
                continue;
            }
            endpoint
                .run(&mut reader, "START TRANSACTION READ ONLY")
                .await?;
            match endpoint.ask(&mut reader, &sql).await {
                Ok(_) => ran += 1,
                Err(SqlError::Question { errno, text, .. }) => {
                    assert!(
                        !errno.is_some_and(|it| WRITES.contains(&it)),
                        "{sql}: {text}"
                    );
                    failed.push(format!("{sql}: {text}"));
                }
                Err(error) => return Err(error.into()),
            }
            endpoint.run(&mut reader, "ROLLBACK").await?;
        }
    }
    println!(
        "{ran} ran, {} were refused:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(ran > 120, "{ran} ran; {failed:#?}");
    assert_eq!(
        endpoint.ask(&mut own, state).await?,
        before,
        "something was written"
    );
    Ok(())
}

fn watched(servers: &MariaDbCluster) -> Arc<Cluster> {
    let options = ClusterOptions {
        name: "db".to_owned(),
        consistency: Consistency::Session,
        max_lag: Duration::from_secs(5),
        replica_wait: Duration::from_millis(10),
        lazy: false,
        read_functions: Vec::new(),
    };
    let one = |server: &MariaDb| {
        let endpoint = endpoint(server);
        let password = Credential::Password(server.password().to_owned());
        ServerOptions {
            health: EndpointHealth::new(endpoint.name.clone(), endpoint.address.clone()),
            endpoint,
            client_login: None,
            own_login: Some((server.user().to_owned(), password)),
            weight: 1,
        }
    };
    let registry = Registry::new();
    let all = servers.servers().iter().map(one).collect();
    let cluster = Arc::new(Cluster::new(options, all, &registry));
    let probes = ProbeConfig {
        interval: Duration::from_millis(200),
        timeout: Duration::from_millis(500),
    };
    tokio::spawn(monitor::watch(Arc::clone(&cluster), probes, registry));
    cluster
}

async fn until_class(cluster: &Cluster, sql: &str, expected: &Class) -> Result<()> {
    let begun = Instant::now();
    loop {
        let verdict = cluster
            .schemas
            .classifier
            .classify(sql.as_bytes(), MODE, Some("t"));
        if verdict.class == *expected {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            anyhow::bail!("{sql} is still {:?}", verdict.class);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_are_read_and_read_again() -> Result<()> {
    let servers = MariaDbCluster::start(&MariaDbClusterOptions {
        replicas: 1,
        ..MariaDbClusterOptions::default()
    })?;
    servers.query(0, "CREATE DATABASE t; CREATE TABLE t.a (a INT)")?;
    let cluster = watched(&servers);
    until_class(&cluster, "SELECT * FROM a", &Class::Read).await?;
    let floor = cluster.catalogue_floor();
    servers.query(
        0,
        "CREATE TABLE t.b (a INT); ALTER TABLE t.a ENGINE = MEMORY",
    )?;
    cluster.ddl_seen();
    let begun = Instant::now();
    until_class(&cluster, "SELECT * FROM b", &Class::Read).await?;
    println!("read again after {:?}", begun.elapsed());
    until_class(&cluster, "SELECT * FROM a", &Class::Primary("engine")).await?;
    assert_ne!(
        cluster.catalogue_floor(),
        floor,
        "a replica must have come to the change"
    );
    // One whose end is not heard is seen by a later look.
    cluster.ddl_doubted();
    until_class(&cluster, "SELECT * FROM b", &Class::Read).await?;
    servers.query(
        0,
        "DROP TABLE t.b; CREATE VIEW t.b AS SELECT UUID_SHORT() AS x",
    )?;
    until_class(&cluster, "SELECT * FROM b", &Class::Primary("view")).await?;
    Ok(())
}
