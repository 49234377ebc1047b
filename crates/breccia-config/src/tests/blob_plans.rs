//! What good files with blob stores and S3 listeners become.

use std::path::{Path, PathBuf};
use std::time::Duration;

use breccia_core::PlacementKey;
use breccia_core::hash::HashKind;

use super::{plan, plan_in};
use crate::{
    AzureCredential, GcsCredential, HttpStorePlan, KeyForm, Plan, Protocol, S3Credential, Secret,
    SqlPlan, SqlTlsMode, StorePlan, TlsClientPlan,
};

const SMALLEST: &str = r#"
    [store]
    fs = { type = "fs", path = "blobs" }
    lite = { type = "sqlite", path = "b.sqlite" }
    s3 = { type = "s3", bucket = "mail" }
    az = { type = "azure", account = "acc", container = "mail", sas-token = "?sig=x" }
    gcs = { type = "gcs", bucket = "mail" }
    pg = { type = "postgresql", host = "H", user = "ann" }
    my = { type = "mysql", host = "::1", user = "ann", database = "d" }
    inner = { type = "sharded-blob", stores = ["gcs", "pg", "my"] }
    blobs = { type = "sharded-blob", stores = ["fs", "lite", "s3", "az", "inner"] }
    [listener.l]
    protocol = "s3"
    bind = "127.0.0.1:9100"
    store = "blobs"
    user = [{ name = "ann", access-key = "a", secret-key = "b" }]
"#;

const FULL: &str = r#"
    [store.lite]
    type = "sqlite"
    path = "/var/b/../b.sqlite"
    max-connections = 9
    [store.s3]
    type = "s3"
    bucket = "Old_Bucket"
    endpoint = "https://Garage:3900/"
    region = "garage"
    access-key = "AKIA"
    secret-key = { env = "CACHE_PASSWORD" }
    session-token = "hunter2-token"
    path-style = false
    key-prefix = "mail/"
    keys = "encoded"
    timeout = "9s"
    max-retries = 0
    max-connections = 8
    tls = { ca = "ca.pem", cert = "cert.pem", key = "key.pem", server-name = "g", insecure = false }
    probe-interval = "7s"
    probe-timeout = "6s"
    [store.az]
    type = "azure"
    account = "devstoreaccount1"
    container = "mail"
    access-key = "hunter2-azure"
    endpoint = "http://127.0.0.1:10000/devstoreaccount1"
    [store.gcs]
    type = "gcs"
    bucket = "mail"
    credentials = "key.pem"
    endpoint = "http://127.0.0.1:4443"
    key-prefix = "x"
    [store.open]
    type = "gcs"
    bucket = "open"
    anonymous = true
    [store.pg]
    type = "postgresql"
    host = "db.example"
    port = 5433
    database = "blobs"
    user = "ann"
    password = { env = "CACHE_PASSWORD" }
    tls = { ca = "ca.pem" }
    max-connections = 3
    timeout = "1m"
    table-prefix = "mail_"
    probe-interval = "7s"
    probe-timeout = "6s"
    [store.my]
    type = "mysql"
    socket = "/run/mysqld/mysqld.sock"
    database = "blobs"
    user = "ann"
    [store.blobs]
    type = "sharded-blob"
    stores = ["pg", "s3", "az", "gcs", "open", "lite", "my"]
    hash = "first-byte"
    layout-digest = "0123456789ABCDEF"
    marker = true
    placement-key = "stalwart"
    placement-prefix = "st/"
    upload-expiry = "30d"
    [listener.s3]
    protocol = "s3"
    bind = "0.0.0.0:9100"
    buckets = { mail = "blobs", same = "blobs" }
    tls = { cert = "cert.pem", key = "key.pem" }
    deadline = "2s"
    idle-timeout = "3s"
    write-timeout = "4s"
    max-request-size = "1MiB"
    domain = "s3.example.org"
    region = "eu-1"
    buffer-memory = "1GiB"
    [[listener.s3.user]]
    name = "ann"
    access-key = "AKIA"
    secret-key = { file = "password" }
    [[listener.s3.user]]
    name = "bob"
    access-key = "AKIB"
    secret-key = "hunter2-bob"
    buckets = ["mail"]
    read-only = true
"#;

fn full() -> (Plan, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    std::fs::write(dir.path().join("password"), "from file\n").unwrap();
    let (plan, warnings) = plan_in(FULL, dir.path());
    assert_eq!(warnings, [""; 0]);
    (plan, dir.path().to_owned())
}

/// What all stores that speak HTTP have by default.
fn http_defaults(tls: bool) -> HttpStorePlan {
    HttpStorePlan {
        key_prefix: String::new(),
        keys: KeyForm::Plain,
        timeout: Duration::from_secs(30),
        max_retries: 3,
        max_connections: 64,
        tls: tls.then(TlsClientPlan::default),
        probe_interval: Duration::from_secs(5),
        probe_timeout: Duration::from_secs(2),
    }
}

#[test]
fn object_store_defaults_are_those_of_the_reference() {
    let plan = plan(SMALLEST);
    let StorePlan::S3(s3) = &plan.stores["s3"] else {
        panic!()
    };
    assert_eq!(
        (s3.bucket.as_str(), s3.region.as_str()),
        ("mail", "us-east-1")
    );
    assert_eq!(
        (s3.is_aws, s3.path_style, &s3.credential),
        (true, false, &None)
    );
    assert_eq!(s3.http, http_defaults(true));

    let StorePlan::Azure(azure) = &plan.stores["az"] else {
        panic!()
    };
    let sas = AzureCredential::SasToken(Secret::new("?sig=x"));
    assert_eq!((azure.account.as_str(), &azure.credential), ("acc", &sas));
    assert_eq!(azure.http, http_defaults(true));

    let StorePlan::Gcs(gcs) = &plan.stores["gcs"] else {
        panic!()
    };
    assert_eq!(gcs.credential, GcsCredential::Metadata);
    assert_eq!(gcs.http, http_defaults(true));
}

#[test]
fn local_and_sql_defaults_are_those_of_the_reference() {
    let plan = plan(SMALLEST);
    let StorePlan::Fs(fs) = &plan.stores["fs"] else {
        panic!()
    };
    assert_eq!(fs.path, Path::new("/etc/breccia/blobs"));
    let StorePlan::Sqlite(lite) = &plan.stores["lite"] else {
        panic!()
    };
    assert_eq!(
        (lite.path.as_path(), lite.max_connections),
        (Path::new("/etc/breccia/b.sqlite"), 4)
    );
    let (StorePlan::Postgresql(pg), StorePlan::Mysql(my)) =
        (&plan.stores["pg"], &plan.stores["my"])
    else {
        panic!()
    };
    let check = |sql: &SqlPlan, address: &str, database: &str| {
        assert_eq!(
            (sql.address.to_string().as_str(), sql.database.as_str()),
            (address, database)
        );
        assert_eq!((&sql.password, &sql.tls), (&None, &None));
        assert_eq!(
            (sql.max_connections, sql.timeout),
            (16, Duration::from_secs(30))
        );
        assert_eq!(sql.table_prefix, "breccia_");
        assert_eq!(sql.probe_interval, Duration::from_secs(5));
        assert_eq!(sql.probe_timeout, Duration::from_secs(2));
    };
    // PostgreSQL's own default is the user's name too.
    check(pg, "h:5432", "ann");
    check(my, "[::1]:3306", "d");

    let StorePlan::ShardedBlob(blobs) = &plan.stores["blobs"] else {
        panic!()
    };
    assert_eq!(blobs.stores, ["fs", "lite", "s3", "az", "inner"]);
    assert_eq!((blobs.hash, blobs.hash_tag), (HashKind::Xxh3_64, None));
    assert_eq!(
        (&blobs.placement_key, &blobs.layout_digest),
        (&PlacementKey::Raw, &None)
    );
    assert_eq!(blobs.upload_expiry, Duration::from_hours(7 * 24));
}

#[test]
fn s3_listener_defaults_are_those_of_the_reference() {
    let plan = plan(SMALLEST);
    let listener = &plan.listeners["l"];
    assert_eq!(
        (listener.protocol, listener.store.as_str()),
        (Protocol::S3, "blobs")
    );
    assert_eq!(listener.stores(), ["blobs"]);
    assert_eq!(listener.write_timeout, Duration::from_secs(30));
    assert_eq!(listener.idle_timeout, Some(Duration::from_mins(2)));
    assert_eq!(
        (listener.deadline, listener.min_body_rate),
        (Duration::from_secs(1), 1024)
    );
    let s3 = listener.s3.as_ref().unwrap();
    assert_eq!((&s3.buckets, &s3.domain), (&None, &None));
    assert_eq!(
        (s3.region.as_str(), s3.buffer_memory),
        ("us-east-1", 128 << 20)
    );
    let [user] = listener.users.as_slice() else {
        panic!()
    };
    let keys = user.s3.as_ref().unwrap();
    assert_eq!((&user.password, &keys.buckets), (&None, &None));
    assert_eq!((keys.access_key.as_str(), keys.read_only), ("a", false));
}

#[test]
fn every_object_store_key_reaches_the_plan() {
    let (plan, dir) = full();
    let StorePlan::S3(s3) = &plan.stores["s3"] else {
        panic!()
    };
    assert_eq!(
        (s3.endpoint.to_string().as_str(), s3.is_aws, s3.path_style),
        ("https://garage:3900", false, false)
    );
    let credential = S3Credential {
        access_key: "AKIA".to_owned(),
        secret_key: Secret::new("from-env"),
        session_token: Some(Secret::new("hunter2-token")),
    };
    assert_eq!(s3.credential, Some(credential));
    let http = HttpStorePlan {
        key_prefix: "mail/".to_owned(),
        keys: KeyForm::Encoded,
        timeout: Duration::from_secs(9),
        max_retries: 0,
        max_connections: 8,
        tls: Some(TlsClientPlan {
            ca: Some(dir.join("ca.pem")),
            cert: Some(dir.join("cert.pem")),
            key: Some(dir.join("key.pem")),
            server_name: Some("g".to_owned()),
            insecure: false,
        }),
        probe_interval: Duration::from_secs(7),
        probe_timeout: Duration::from_secs(6),
    };
    assert_eq!(s3.http, http);

    let StorePlan::Azure(azure) = &plan.stores["az"] else {
        panic!()
    };
    let key = AzureCredential::AccessKey(Secret::new("hunter2-azure"));
    assert_eq!(
        (azure.container.as_str(), &azure.credential),
        ("mail", &key)
    );
    assert_eq!(azure.endpoint.path, "/devstoreaccount1");
    assert_eq!(azure.http, http_defaults(false));

    let credential = |name: &str| match &plan.stores[name] {
        StorePlan::Gcs(gcs) => gcs.credential.clone(),
        _ => panic!(),
    };
    assert_eq!(credential("gcs"), GcsCredential::File(dir.join("key.pem")));
    assert_eq!(credential("open"), GcsCredential::Anonymous);
}

#[test]
fn every_sql_and_composite_key_reaches_the_plan() {
    let (plan, dir) = full();
    let StorePlan::Postgresql(pg) = &plan.stores["pg"] else {
        panic!()
    };
    assert_eq!(pg.address.to_string(), "db.example:5433");
    assert_eq!((pg.database.as_str(), pg.user.as_str()), ("blobs", "ann"));
    assert_eq!(pg.password, Some(Secret::new("from-env")));
    let tls = pg.tls.as_ref().unwrap();
    assert_eq!(
        (tls.mode, &tls.ca),
        (SqlTlsMode::VerifyFull, &Some(dir.join("ca.pem")))
    );
    assert_eq!(
        (pg.max_connections, pg.timeout),
        (3, Duration::from_mins(1))
    );
    assert_eq!(pg.table_prefix, "mail_");
    assert_eq!(pg.probe_interval, Duration::from_secs(7));
    assert_eq!(pg.probe_timeout, Duration::from_secs(6));

    let StorePlan::ShardedBlob(blobs) = &plan.stores["blobs"] else {
        panic!()
    };
    assert_eq!(blobs.hash, HashKind::FirstByte);
    assert_eq!(blobs.placement_key.to_string(), "stalwart:st/");
    assert_eq!(blobs.layout_digest.as_deref(), Some("0123456789abcdef"));
    assert_eq!(blobs.upload_expiry, Duration::from_hours(30 * 24));
}

#[test]
fn every_s3_listener_key_reaches_the_plan() {
    let (plan, _) = full();
    let listener = &plan.listeners["s3"];
    assert_eq!(
        (listener.store.as_str(), listener.stores()),
        ("", vec!["blobs"])
    );
    assert_eq!(listener.deadline, Duration::from_secs(2));
    assert_eq!(listener.idle_timeout, Some(Duration::from_secs(3)));
    assert_eq!(listener.write_timeout, Duration::from_secs(4));
    assert_eq!(listener.max_request_size, 1 << 20);
    let s3 = listener.s3.as_ref().unwrap();
    let buckets: Vec<_> = s3.buckets.as_ref().unwrap().iter().collect();
    let blobs = "blobs".to_owned();
    assert_eq!(
        buckets,
        [(&"mail".to_owned(), &blobs), (&"same".to_owned(), &blobs)]
    );
    assert_eq!(s3.domain.as_deref(), Some("s3.example.org"));
    assert_eq!((s3.region.as_str(), s3.buffer_memory), ("eu-1", 1 << 30));
    let users: Vec<_> = listener
        .users
        .iter()
        .map(|user| (user.name.as_str(), user.s3.clone().unwrap()))
        .collect();
    let [("ann", ann), ("bob", bob)] = users.as_slice() else {
        panic!()
    };
    assert_eq!(
        (ann.secret_key.expose(), &ann.buckets),
        ("from file", &None)
    );
    assert_eq!(bob.buckets.as_deref(), Some(["mail".to_owned()].as_slice()));
    assert_eq!((ann.read_only, bob.read_only), (false, true));
    let served: Vec<_> = plan
        .served(listener)
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(served, ["pg", "s3", "az", "gcs", "open", "lite", "my"]);
}

#[test]
fn locations_tell_places_apart_and_show_no_secret() {
    let check = |plan: &Plan, name: &str, location: &str, address: Option<&str>| {
        let store = &plan.stores[name];
        assert_eq!(store.location().as_deref(), Some(location));
        let found = store.address().map(ToString::to_string);
        assert_eq!(found.as_deref(), address, "{name}");
        assert!(store.is_blob() && !store.is_in_memory() && !store.is_composite());
    };
    let small = plan(SMALLEST);
    let at =
        |name: &str, location: &str, address: Option<&str>| check(&small, name, location, address);
    at("fs", "fs:/etc/breccia/blobs", None);
    at("lite", "sqlite:/etc/breccia/b.sqlite", None);
    let host = "s3.us-east-1.amazonaws.com";
    at(
        "s3",
        &format!("s3:https://{host}/mail"),
        Some(&format!("{host}:443")),
    );
    let host = "acc.blob.core.windows.net";
    at(
        "az",
        &format!("azure:https://{host}/mail"),
        Some(&format!("{host}:443")),
    );
    let host = "storage.googleapis.com";
    at(
        "gcs",
        &format!("gcs:https://{host}/mail"),
        Some(&format!("{host}:443")),
    );
    at("pg", "postgresql:h:5432/ann/breccia_", Some("h:5432"));
    at("my", "mysql:[::1]:3306/d/breccia_", Some("[::1]:3306"));

    let (full, _) = full();
    let at =
        |name: &str, location: &str, address: Option<&str>| check(&full, name, location, address);
    at("lite", "sqlite:/var/b.sqlite", None);
    at(
        "s3",
        "s3:https://garage:3900/Old_Bucket/mail/",
        Some("garage:3900"),
    );
    at(
        "az",
        "azure:http://127.0.0.1:10000/devstoreaccount1/mail",
        Some("127.0.0.1:10000"),
    );
    at(
        "gcs",
        "gcs:http://127.0.0.1:4443/mail/x",
        Some("127.0.0.1:4443"),
    );
    let socket = "unix:/run/mysqld/mysqld.sock";
    at(
        "my",
        &format!("mysql:{socket}/blobs/breccia_"),
        Some(socket),
    );

    let blobs = &full.stores["blobs"];
    assert!(blobs.is_composite() && blobs.is_blob());
    assert_eq!((blobs.location(), blobs.address()), (None, None));
    let shown = format!("{full:?} {full:#?}");
    assert!(!shown.contains("from-env") && !shown.contains("hunter2"));
}

#[test]
fn aws_in_china_has_a_domain_of_its_own() {
    let check = |region: &str, wanted: &str| {
        let text = format!(
            "[store.a]\ntype = \"s3\"\nbucket = \"b\"\nregion = \"{region}\"\nkey-prefix = \"p\""
        );
        let location = plan(&text).stores["a"].location();
        assert_eq!(location.as_deref(), Some(wanted));
    };
    check("eu-west-1", "s3:https://s3.eu-west-1.amazonaws.com/b/p");
    check(
        "cn-north-1",
        "s3:https://s3.cn-north-1.amazonaws.com.cn/b/p",
    );
}

#[test]
fn an_endpoint_of_ones_own_makes_path_style_the_default() {
    let check = |keys: &str, wanted: bool| {
        let text = format!("[store.a]\ntype = \"s3\"\nbucket = \"b\"\n{keys}");
        let plan = plan(&text);
        let StorePlan::S3(s3) = &plan.stores["a"] else {
            panic!()
        };
        assert_eq!(s3.path_style, wanted, "{keys}");
    };
    check("", false);
    check("path-style = true", true);
    check("endpoint = \"http://h\"", true);
    check("endpoint = \"http://h\"\npath-style = false", false);
}

#[test]
fn places_that_only_look_alike_are_two() {
    let text = r#"
        a = { type = "fs", path = "x" }
        b = { type = "fs", path = "xy" }
        c = { type = "sqlite", path = "z/b" }
        d = { type = "sqlite", path = "z/c" }
        e = { type = "s3", bucket = "b", key-prefix = "a/" }
        f = { type = "s3", bucket = "b", key-prefix = "b/" }
        g = { type = "s3", bucket = "b", region = "eu-1" }
        h = { type = "gcs", bucket = "b" }
        i = { type = "postgresql", host = "h", user = "u", table-prefix = "a_" }
        j = { type = "postgresql", host = "h", user = "u", table-prefix = "b_" }
        k = { type = "postgresql", host = "h", user = "u", port = 1 }
        l = { type = "azure", account = "one", container = "mail", sas-token = "x" }
        m = { type = "azure", account = "two", container = "mail", sas-token = "x" }
        databases = { type = "sharded-blob", stores = ["i", "j", "k"] }
    "#;
    let plan = plan(&format!("[store]\n{text}"));
    let mut locations: Vec<_> = plan
        .stores
        .values()
        .filter_map(StorePlan::location)
        .collect();
    locations.sort();
    locations.dedup();
    assert_eq!(locations.len(), 13);
}
