//! Transactions whose place is open when they begin: `transactions = "lazy"`, and BEGIN READ ONLY.
//!
//! Not transactions of the primary. Invariant: where a statement ran is read from the servers' logs.

use anyhow::{Result, ensure};

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
