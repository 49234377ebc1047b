//! Transactions whose place is open when they begin: `transactions = "lazy"`, and BEGIN READ ONLY.
//!
//! Not transactions of the primary. Invariant: where a statement ran is read from the servers' logs.

use anyhow::{Result, ensure};

use crate::pooling::database;
use crate::positions::{on_replica, prepared, ran_on};
use crate::rig::{Extra, Gateway};

const LAZY: Extra<'static> = Extra {
    top: "",
    server: "",
    composite: "transactions = \"lazy\"\nreplica-wait = \"2s\"",
    listener: "",
};

#[test]
fn a_lazy_transaction_begins_on_a_replica_and_writes_on_the_primary() -> Result<()> {
    let cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", LAZY)?;
    let mut client = gateway.client("p")?;
    for (round, way) in ["simple", "pipelined", "one text"].iter().enumerate() {
        let read = |tag: &str| {
            client.run("BEGIN")?;
            let found = client.run(&format!("SELECT count(*) FROM t /* {tag} */"))?;
            ensure!(found.status == 'T', "the transaction is open");
            if round == 0 {
                client.run("ROLLBACK")?;
            } else {
                client.run("COMMIT")?;
            }
            Ok(())
        };
        on_replica(&cluster, &format!("empty {way}"), read)?;
        client.run("BEGIN")?;
        client.run(&format!("SELECT count(*) FROM t /* early {way} */"))?;
        ensure!(ran_on(&cluster, &format!("early {way}"))? > 0, "{way}");
        let insert = format!("INSERT INTO t (v) VALUES ('{way}')");
        match *way {
            "simple" => {
                client.run(&insert)?;
                let own = format!("SELECT v FROM t WHERE v = '{way}' /* inside {way} */");
                assert_eq!(client.run(&own)?.value(), Some(*way), "its own write");
                assert_eq!(ran_on(&cluster, &format!("inside {way}"))?, 0);
                client.run("COMMIT")?;
            }
            "pipelined" => {
                client.query(&insert).query("COMMIT").flush()?;
                assert_eq!(client.read_reply()?.good()?.tags, ["INSERT 0 1"]);
                let end = client.read_reply()?.good()?;
                assert_eq!(
                    (end.tags.as_slice(), end.status),
                    (&["COMMIT".to_owned()][..], 'I')
                );
            }
            _ => {
                client.run(&format!("{insert}; COMMIT"))?;
            }
        }
        let sql = format!("SELECT v FROM t WHERE v = '{way}'");
        assert_eq!(
            cluster.primary().query("p", &sql)?.trim(),
            *way,
            "on the primary"
        );
        assert_eq!(client.run(&sql)?.value(), Some(*way), "read by its writer");
    }
    Ok(())
}

#[test]
fn statements_that_come_at_once_run_one_behind_the_other() -> Result<()> {
    let cluster = database("lazy_at_once")?;
    let gateway = Gateway::over(&cluster, "lazy_at_once", LAZY)?;
    let mut client = gateway.client("lazy_at_once")?;
    let before = gateway.replica_reads()?;
    for (round, read) in ["SELECT 1", "SELECT generate_series(1, 50000)"]
        .iter()
        .cycle()
        .take(20)
        .enumerate()
    {
        let insert = format!("INSERT INTO t (own) VALUES ({round})");
        // Behind a read that runs, and behind the way to the primary.
        for frames in [&["BEGIN", read, &insert, "COMMIT"][..], &["BEGIN", read]] {
            for sql in frames {
                client.query(sql);
            }
            client.flush()?;
            for sql in frames {
                let reply = client.read_reply()?.good()?;
                let (word, status) = (sql.get(..6).unwrap_or(sql), reply.status);
                let tag = reply.tags.first().is_some_and(|tag| tag.starts_with(word));
                ensure!(tag && reply.tags.len() == 1, "{sql}: {:?}", reply.tags);
                ensure!(
                    status == if *sql == "COMMIT" { 'I' } else { 'T' },
                    "{sql}: {status}"
                );
            }
        }
        client.query(&insert).query("COMMIT").flush()?;
        ensure!(client.read_reply()?.good()?.tags == ["INSERT 0 1"]);
        let end = client.read_reply()?.good()?;
        ensure!(end.tags == ["COMMIT"] && end.status == 'I', "{end:?}");
        let count = format!("SELECT count(*) FROM t WHERE own = {round}");
        let found = cluster.primary().query("lazy_at_once", &count)?;
        ensure!(found.trim() == "2", "{round}: {found}");
    }
    ensure!(
        gateway.replica_reads()? > before + 20.0,
        "its reads are on replicas"
    );
    Ok(())
}

#[test]
fn a_portal_that_is_not_at_its_end_goes_on_behind_whatever_comes_between() -> Result<()> {
    let cluster = database("lazy_portal")?;
    let gateway = Gateway::over(&cluster, "lazy_portal", LAZY)?;
    let mut client = gateway.client("lazy_portal")?;
    client.run("INSERT INTO t (own) SELECT generate_series(1, 20)")?;
    for (begin, between) in [
        ("BEGIN", "UPDATE t SET v = 'x'"),
        ("BEGIN READ ONLY", "SELECT txid_current_snapshot()"),
    ] {
        for name in [&b"p\0"[..], b"\0"] {
            client.run(begin)?;
            client.parse("s", "SELECT own FROM t");
            let bind = [name, b"s\0\0\0\0\0\0\0"].concat();
            client.frame(b'B', &bind);
            client.frame(b'E', &[name, &[0, 0, 0, 10]].concat()).sync();
            let first = client.ask()?.good()?;
            ensure!(
                first.rows.len() == 10 && first.frames.contains('s'),
                "{first:?}"
            );
            // A simple query does away with the unnamed one.
            if name.len() > 1 {
                client.run(between)?;
            }
            client.frame(b'E', &[name, &[0; 4]].concat()).sync();
            let rest = client.ask()?.good()?;
            ensure!(
                rest.rows.len() == 10 && rest.tags == ["SELECT 10"],
                "{rest:?}"
            );
            client.run("COMMIT")?;
            client.close("s").sync().ask()?.good()?;
        }
    }
    Ok(())
}
