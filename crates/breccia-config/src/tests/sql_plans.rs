//! What good files with read replicas and SQL listeners become.

use std::time::Duration;

use super::plan;
use crate::{
    Consistency, Plan, PoolMode, Protocol, Secret, SqlListenerPlan, SqlPlan, SqlReadReplicaPlan,
    SqlUserPlan, StorePlan, TransactionRouting,
};

const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

const SMALLEST: &str = r#"
    [store]
    pg-1 = { type = "postgresql", host = "a", monitor-user = "m" }
    pg-2 = { type = "postgresql", host = "b", monitor-user = "m", monitor-password = "p" }
    db = { type = "sql-read-replica", primary = "pg-2", replicas = ["pg-1"] }
    [listener.l]
    protocol = "postgresql"
    bind = "127.0.0.1:5433"
    store = "db"
    user = [{ name = "ann", password = "p" }]
"#;

/// Two composites over the same servers, one of which holds objects too.
const FULL: &str = r#"
    [store.pg-1]
    type = "postgresql"
    socket = "/run/postgresql/.s.PGSQL.5432"
    user = "app"
    password = "p"
    weight = 1000
    [store.pg-2]
    type = "postgresql"
    host = "b"
    database = "questions"
    user = "app"
    [store.pg-3]
    type = "postgresql"
    host = "c"
    user = "app"
    [store.blobs]
    type = "sharded-blob"
    stores = ["pg-3"]
    [store.db]
    type = "sql-read-replica"
    primary = "pg-2"
    replicas = ["pg-3", "pg-1"]
    consistency = "store"
    transactions = "lazy"
    read-functions = ["next_page", "Seen"]
    max-lag = "3s"
    replica-wait = "0s"
    [store.stale]
    type = "sql-read-replica"
    primary = "pg-2"
    replicas = []
    consistency = "eventual"
    [listener.l]
    protocol = "postgresql"
    bind = "0.0.0.0:5433"
    store = "db"
    write-timeout = "1s"
    pool-mode = "session"
    pool-size = 7
    queue-timeout = "1s"
    idle-in-transaction-timeout = "2s"
    transaction-timeout = "3s"
    slow-statement = "250ms"
    max-lifetime = "4s"
    upstream-idle-timeout = "5s"
    auth-query = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1"
    allow-md5 = true
    [[listener.l.user]]
    name = "ann"
    scram-verifier = "VERIFIER"
    upstream-user = "app"
    upstream-password = { env = "CACHE_PASSWORD" }
    [[listener.l.user]]
    name = "bob"
    password = "hunter2"
    upstream-user = "peer"
    [listener.asks]
    protocol = "postgresql"
    bind = "0.0.0.0:5434"
    store = "stale"
    auth-query = "SELECT 1"
    [listener.blobs]
    protocol = "s3"
    bind = "127.0.0.1:9100"
    store = "blobs"
    insecure = true
"#;

fn full() -> Plan {
    plan(&FULL.replace("VERIFIER", VERIFIER))
}

fn server<'p>(plan: &'p Plan, name: &str) -> &'p SqlPlan {
    match &plan.stores[name] {
        StorePlan::Postgresql(server) => server,
        _ => panic!("{name}"),
    }
}

fn read_replica<'p>(plan: &'p Plan, name: &str) -> &'p SqlReadReplicaPlan {
    match &plan.stores[name] {
        StorePlan::SqlReadReplica(plan) => plan,
        _ => panic!("{name}"),
    }
}

#[test]
fn sql_defaults_are_those_of_the_reference() {
    let plan = plan(SMALLEST);
    let wanted = SqlReadReplicaPlan {
        primary: "pg-2".to_owned(),
        replicas: vec!["pg-1".to_owned()],
        consistency: Consistency::Session,
        transactions: TransactionRouting::Primary,
        max_lag: Duration::from_secs(10),
        replica_wait: Duration::from_millis(10),
        read_functions: Vec::new(),
    };
    assert_eq!(*read_replica(&plan, "db"), wanted);
    let server = server(&plan, "pg-1");
    assert_eq!(
        (server.database.as_str(), server.user.as_str()),
        ("postgres", "")
    );
    assert_eq!((server.weight, &server.password), (1, &None));
    assert_eq!(
        (server.monitor_user.as_deref(), &server.monitor_password),
        (Some("m"), &None)
    );

    let listener = &plan.listeners["l"];
    assert_eq!(
        (listener.protocol, listener.store.as_str()),
        (Protocol::Postgresql, "db")
    );
    assert_eq!(listener.write_timeout, Duration::from_secs(30));
    assert_eq!((listener.idle_timeout, &listener.s3), (None, &None));
    let wanted = SqlListenerPlan {
        pool_mode: PoolMode::Transaction,
        pool_size: 20,
        queue_timeout: Duration::from_secs(10),
        idle_in_transaction_timeout: None,
        transaction_timeout: None,
        slow_statement: Duration::from_secs(1),
        max_lifetime: Duration::from_hours(1),
        upstream_idle_timeout: Duration::from_mins(10),
        auth_query: None,
        allow_md5: false,
        local_infile: false,
    };
    assert_eq!(listener.sql, Some(wanted));
    let [user] = listener.users.as_slice() else {
        panic!()
    };
    let wanted = SqlUserPlan {
        scram_verifier: None,
        upstream_user: None,
        upstream_password: None,
    };
    assert_eq!((&user.sql, &user.s3), (&Some(wanted), &None));
    assert_eq!(user.password, Some(Secret::new("p")));
}

#[test]
fn every_sql_key_reaches_the_plan() {
    let plan = full();
    let wanted = SqlReadReplicaPlan {
        primary: "pg-2".to_owned(),
        replicas: vec!["pg-3".to_owned(), "pg-1".to_owned()],
        consistency: Consistency::Store,
        transactions: TransactionRouting::Lazy,
        max_lag: Duration::from_secs(3),
        replica_wait: Duration::ZERO,
        read_functions: vec!["next_page".to_owned(), "Seen".to_owned()],
    };
    assert_eq!(*read_replica(&plan, "db"), wanted);
    let stale = read_replica(&plan, "stale");
    assert_eq!(
        (stale.consistency, stale.replicas.len()),
        (Consistency::Eventual, 0)
    );
    assert_eq!(server(&plan, "pg-1").weight, 1000);

    let listener = &plan.listeners["l"];
    assert_eq!(listener.write_timeout, Duration::from_secs(1));
    let wanted = SqlListenerPlan {
        pool_mode: PoolMode::Session,
        pool_size: 7,
        queue_timeout: Duration::from_secs(1),
        idle_in_transaction_timeout: Some(Duration::from_secs(2)),
        transaction_timeout: Some(Duration::from_secs(3)),
        slow_statement: Duration::from_millis(250),
        max_lifetime: Duration::from_secs(4),
        upstream_idle_timeout: Duration::from_secs(5),
        auth_query: Some(
            "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1".to_owned(),
        ),
        allow_md5: true,
        local_infile: false,
    };
    assert_eq!(listener.sql, Some(wanted));
    let [ann, bob] = listener.users.as_slice() else {
        panic!()
    };
    let wanted = SqlUserPlan {
        scram_verifier: Some(Secret::new(VERIFIER)),
        upstream_user: Some("app".to_owned()),
        upstream_password: Some(Secret::new("from-env")),
    };
    assert_eq!((&ann.password, &ann.sql), (&None, &Some(wanted)));
    assert_eq!(bob.password, Some(Secret::new("hunter2")));
    assert_eq!(plan.listeners["blobs"].sql, None);
    let shown = format!("{plan:?} {plan:#?}");
    assert!(!shown.contains("SCRAM-SHA-256$") && !shown.contains("hunter2"));
}

#[test]
fn a_server_of_sql_has_its_questions_asked_in_postgres_and_a_blob_store_its_user_database() {
    let plan = full();
    let check = |name: &str, database: &str, only_sql: bool| {
        assert_eq!(server(&plan, name).database, database, "{name}");
        assert_eq!(plan.is_only_sql(name), only_sql, "{name}");
    };
    check("pg-1", "postgres", true);
    check("pg-2", "questions", true);
    check("pg-3", "app", false);
    assert!(!plan.is_only_sql("db") && !plan.is_only_sql("blobs"));
}

#[test]
fn a_read_replica_is_a_composite_without_a_layout() {
    let plan = full();
    let db = &plan.stores["db"];
    assert!(db.is_composite() && db.is_sql() && !db.has_layout());
    assert!(!db.is_blob() && !db.is_in_memory());
    assert_eq!(
        (db.type_name(), db.location(), db.address()),
        ("sql-read-replica", None, None)
    );
    assert_eq!(db.parts(), ["pg-2", "pg-3", "pg-1"]);
    assert!(db.members().is_empty());
    assert!(plan.stores["blobs"].has_layout() && plan.stores["pg-1"].parts().is_empty());
    // No layout, no role in one: what opens the shards of composites leaves these alone.
    assert!(!plan.is_inner("pg-1") && plan.is_inner("pg-3"));
    let names = |stores: Vec<(&str, &StorePlan)>| -> Vec<String> {
        stores
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    assert_eq!(names(plan.leaves("db")), ["pg-2", "pg-3", "pg-1"]);
    let served = plan.served(&plan.listeners["l"]);
    assert_eq!(names(served), ["pg-2", "pg-3", "pg-1"]);
}

#[test]
fn servers_of_sql_are_no_places_of_blobs() {
    // One server as it is, through a pooler's name, and with objects in it.
    let text = r#"
        a = { type = "postgresql", host = "h", monitor-user = "m" }
        b = { type = "postgresql", host = "h", monitor-user = "m" }
        c = { type = "postgresql", host = "h", user = "postgres" }
        x = { type = "sql-read-replica", primary = "a", replicas = [] }
        y = { type = "sql-read-replica", primary = "b", replicas = [] }
    "#;
    assert_eq!(plan(&format!("[store]\n{text}")).stores.len(), 5);
}

#[test]
fn a_replica_that_was_taken_out_of_its_composite_holds_no_objects() {
    let plan = plan(
        r#"
        [store]
        my-1 = { type = "mysql", host = "a", user = "u", password = "p" }
        my-2 = { type = "mysql", host = "b", user = "u", password = "p" }
        pg = { type = "postgresql", host = "a" }
        db = { type = "sql-read-replica", primary = "my-1", replicas = [] }
        "#,
    );
    for name in ["my-1", "my-2", "pg"] {
        assert!(plan.is_only_sql(name), "{name}");
    }
    assert!(!plan.is_only_sql("db") && !plan.is_only_sql("gone"));
}

#[test]
fn a_mysql_listener_and_its_servers_reach_the_plan() {
    let plan = plan(
        r#"
        [store]
        my-1 = { type = "mysql", host = "a", monitor-user = "m", monitor-password = "hunter2" }
        my-2 = { type = "mysql", socket = "/run/x", monitor-user = "m", weight = 3 }
        all = { type = "mysql", host = "b", user = "u", password = "p" }
        blobs = { type = "mysql", host = "c", user = "u", database = "d" }
        db = { type = "sql-read-replica", primary = "my-1", replicas = ["my-2"] }
        one = { type = "sql-read-replica", primary = "all", replicas = [] }
        objects = { type = "sharded-blob", stores = ["blobs"] }
        [listener.l]
        protocol = "mysql"
        bind = "0.0.0.0:3306"
        store = "db"
        local-infile = true
        pool-size = 7
        [[listener.l.user]]
        name = "ann"
        password = "hunter2"
        upstream-user = "app"
        upstream-password = { env = "CACHE_PASSWORD" }
        # Nobody logs in: everybody is the server's user.
        [listener.open]
        protocol = "mysql"
        bind = "127.0.0.1:3307"
        store = "one"
        "#,
    );
    assert_eq!(plan.spoken("db"), Some(Protocol::Mysql));
    assert_eq!((plan.spoken("my-1"), plan.spoken("objects")), (None, None));
    assert_eq!(full().spoken("db"), Some(Protocol::Postgresql));
    let server = |name: &str| match &plan.stores[name] {
        StorePlan::Mysql(server) => server.clone(),
        _ => panic!("{name}"),
    };
    let check = |name: &str, database: &str, user: &str, weight: u32| {
        let it = server(name);
        assert_eq!((it.database.as_str(), it.user.as_str()), (database, user));
        assert_eq!(
            (it.weight, plan.is_only_sql(name)),
            (weight, name != "blobs")
        );
    };
    check("my-1", "", "", 1);
    check("my-2", "", "", 3);
    check("all", "", "u", 1);
    check("blobs", "d", "u", 1);
    let listener = &plan.listeners["l"];
    assert_eq!(listener.protocol, Protocol::Mysql);
    assert_eq!(listener.max_request_size, 1 << 30);
    let sql = listener.sql.as_ref().unwrap();
    assert!(sql.local_infile && !sql.allow_md5 && sql.auth_query.is_none());
    assert_eq!(sql.pool_size, 7);
    let wanted = SqlUserPlan {
        scram_verifier: None,
        upstream_user: Some("app".to_owned()),
        upstream_password: Some(Secret::new("from-env")),
    };
    assert_eq!(listener.users[0].sql, Some(wanted));
    let open = &plan.listeners["open"];
    assert!(open.users.is_empty() && !open.sql.as_ref().unwrap().local_infile);
}
