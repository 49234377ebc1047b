//! The testkit's promises on the servers behind the blob slice: each starts, answers, comes back after a
//! kill, and is gone when its value is.
//!
//! Not a test of Breccia. Invariant: needs what `cargo xtask test setup` installs, nothing built.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::process::{runs, wait_until};
use breccia_testkit::{
    Azurite, Fault, FaultyProxy, Garage, GarageOptions, MariaDb, Postgres, PostgresOptions, Rgw,
    S3Server, http_call,
};

fn gone(ids: &[u32], address: &str) -> Result<()> {
    wait_until(Duration::from_secs(5), "the end of its processes", || {
        Ok((!ids.iter().any(|id| runs(*id))).then_some(()))
    })?;
    ensure!(TcpStream::connect(address).is_err(), "{address} answers");
    Ok(())
}

fn keeps_objects(server: &S3Server) -> Result<()> {
    server.create_bucket("one")?;
    server.create_bucket("two")?;
    server
        .call("PUT", "/one/a%20b%2Bc/d", &[], b"content")?
        .success()?;
    let read = server.call("GET", "/one/a%20b%2Bc/d", &[("range", "bytes=1-3")], b"")?;
    assert_eq!((read.status, read.text().as_str()), (206, "ont"));
    let listed = server.call("GET", "/one?list-type=2&prefix=a%20", &[], b"")?;
    assert!(
        listed.text().contains("<Key>a b+c/d</Key>"),
        "{}",
        listed.text()
    );
    assert_eq!(server.call("GET", "/two/a", &[], b"")?.status, 404);
    Ok(())
}

#[test]
fn an_rgw_answers_and_keeps_its_objects_over_a_kill_of_the_gateway() -> Result<()> {
    let mut rgw = Rgw::start()?;
    keeps_objects(rgw.s3())?;
    let conditional = rgw
        .s3()
        .call("PUT", "/one/a%20b%2Bc/d", &[("if-none-match", "*")], b"x")?;
    assert_eq!(conditional.status, 412);
    let other = rgw.create_user("other", "OTHERACCESSKEY", "other-secret")?;
    assert_eq!(other.call("GET", "/one", &[], b"")?.status, 403);
    rgw.kill9();
    ensure!(TcpStream::connect(rgw.s3().address()).is_err());
    rgw.restart_same_port()?;
    let read = rgw.s3().call("GET", "/one/a%20b%2Bc/d", &[], b"")?;
    assert_eq!(read.text(), "content");
    println!("resident: {} MB", rgw.resident_bytes()? / 1_000_000);
    let (ids, address) = (rgw.process_ids(), rgw.s3().address().to_owned());
    drop(rgw);
    gone(&ids, &address)
}

#[test]
fn a_shared_rgw_is_one() -> Result<()> {
    let first = Rgw::shared()?;
    first.s3().create_bucket("shared")?;
    let second = std::thread::spawn(|| Rgw::shared().map(Rgw::port));
    assert_eq!(second.join().expect("no panic")?, first.port());
    Ok(())
}

#[test]
fn a_garage_answers_where_its_program_is_present() -> Result<()> {
    if !Garage::present() {
        println!("no garage program");
        return Ok(());
    }
    let mut garage = Garage::start(GarageOptions { fsync: true })?;
    keeps_objects(garage.s3())?;
    garage.kill9();
    garage.restart_same_port()?;
    let read = garage.s3().call("GET", "/one/a%20b%2Bc/d", &[], b"")?;
    assert_eq!(read.text(), "content");
    println!(
        "resident: {} MB",
        garage.process().resident_bytes()? / 1_000_000
    );
    let (ids, address) = ([garage.process().id()], garage.s3().address().to_owned());
    drop(garage);
    gone(&ids, &address)
}

#[test]
fn an_azurite_answers_freezes_and_keeps_its_port() -> Result<()> {
    let mut azurite = Azurite::start()?;
    azurite.create_container("one")?;
    let block = [("x-ms-blob-type", "BlockBlob"), ("x-ms-meta-a", "b")];
    azurite
        .call("PUT", "/one/a%20b/c", &block, b"content")?
        .success()?;
    let read = azurite.call("GET", "/one/a%20b/c", &[("range", "bytes=1-3")], b"")?;
    assert_eq!((read.status, read.text().as_str()), (206, "ont"));
    assert_eq!(read.header("x-ms-meta-a"), Some("b"));
    let listed = azurite.call(
        "GET",
        "/one?restype=container&comp=list&prefix=a%20b",
        &[],
        b"",
    )?;
    assert!(
        listed.text().contains("<Name>a b/c</Name>"),
        "{}",
        listed.text()
    );
    azurite.sigstop()?;
    azurite.sigcont()?;
    println!(
        "resident: {} MB",
        azurite.process().resident_bytes()? / 1_000_000
    );
    azurite.kill9();
    azurite.restart_same_port()?;
    assert_eq!(azurite.call("GET", "/none/a", &[], b"")?.status, 404);
    let (ids, address) = ([azurite.process().id()], azurite.address());
    drop(azurite);
    gone(&ids, &address)
}

#[test]
fn a_postgres_keeps_commits_over_a_kill_and_leaves_nothing() -> Result<()> {
    let mut postgres = Postgres::start(PostgresOptions {
        fsync: true,
        settings: vec![("work_mem".to_owned(), "8MB".to_owned())],
    })?;
    postgres.create_database("blobs")?;
    postgres.query(
        "blobs",
        "CREATE TABLE t AS SELECT 7 AS a, current_setting('work_mem') AS b",
    )?;
    postgres.kill9();
    ensure!(TcpStream::connect(postgres.address()).is_err());
    postgres.restart_same_port()?;
    assert_eq!(postgres.query("blobs", "SELECT * FROM t")?, "7|8MB\n");
    postgres.freeze_all()?;
    postgres.thaw_all()?;
    assert_eq!(postgres.query("blobs", "SHOW fsync")?, "on\n");
    ensure!(postgres.query("blobs", "SELECT wrong").is_err());
    let mut ids = postgres.process().children()?;
    ensure!(ids.len() > 2, "children: {ids:?}");
    let resident = postgres.process().resident_bytes()? / 1_000_000;
    println!("resident: {resident} MB, postmaster only");
    ids.push(postgres.process().id());
    let address = postgres.address();
    postgres.freeze_all()?;
    drop(postgres);
    gone(&ids, &address)
}

#[test]
fn a_mariadb_answers_keeps_its_port_and_leaves_nothing() -> Result<()> {
    let mut mariadb = MariaDb::new()?;
    mariadb.create_database("blobs")?;
    mariadb.query(
        "blobs",
        "CREATE TABLE t (a INT) ENGINE=InnoDB; INSERT INTO t VALUES (7)",
    )?;
    assert_eq!(mariadb.query("blobs", "SELECT a FROM t")?, "7\n");
    let packet = mariadb.query("blobs", "SELECT @@max_allowed_packet")?;
    assert_eq!(packet, "16777216\n");
    mariadb.kill9();
    mariadb.restart_same_port()?;
    ensure!(mariadb.query("blobs", "SHOW TABLES")?.contains('t'));
    println!(
        "resident: {} MB",
        mariadb.process().resident_bytes()? / 1_000_000
    );
    let (ids, address) = ([mariadb.process().id()], mariadb.address());
    drop(mariadb);
    gone(&ids, &address)
}

#[test]
fn a_lost_reply_and_a_broken_upload_leave_what_the_server_saw() -> Result<()> {
    let rgw = Rgw::shared()?;
    rgw.s3().create_bucket("faults")?;
    let proxy = FaultyProxy::start(rgw.s3().address())?;
    let through = S3Server {
        endpoint: format!("http://{}", proxy.address()),
        ..rgw.s3().clone()
    };
    let check = |fault: Fault, name: &str, status: u16| -> Result<()> {
        proxy.set(fault);
        let body = vec![b'x'; 300_000];
        let answer = through.call("PUT", &format!("/faults/{name}"), &[], &body);
        assert!(answer.is_err(), "{fault:?}: {answer:?}");
        let read = rgw
            .s3()
            .call("HEAD", &format!("/faults/{name}"), &[], b"")?;
        assert_eq!(read.status, status, "{fault:?}");
        Ok(())
    };
    // The whole request went through; the client knows nothing.
    check(Fault::CutAfter(0), "reply-lost", 200)?;
    check(Fault::ResetAfter(20), "reply-cut", 200)?;
    check(Fault::CutRequestAfter(100_000), "upload-cut", 404)?;
    proxy.set(Fault::None);
    assert_eq!(
        http_call(&proxy.address(), "GET", "/", &[], b"")?.status,
        200
    );
    Ok(())
}
