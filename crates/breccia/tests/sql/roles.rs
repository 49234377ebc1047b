//! Clients that come in upstream as themselves, and a role of Breccia's own beside them.
//!
//! Not one role for all clients, which the other tests have. Invariant: who a client is on a server is
//! what the server says, on the primary and on standbys.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, PostgresCluster, SqlClient, free_port, wait_until};

use crate::pooling::database;
use crate::rig::{Gateway, LIMIT};

/// The verifier that the primary keeps of a role's password.
fn verifier(cluster: &PostgresCluster, role: &str) -> Result<String> {
    let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'");
    Ok(cluster.primary().query("postgres", &sql)?.trim().to_owned())
}

/// Roles with the password of the testkit's clients, and a table of which each sees its own rows.
fn prepare(name: &str) -> Result<std::sync::Arc<PostgresCluster>> {
    let cluster = database(name)?;
    for role in ["ann", "bob", "cat", "dan", "spare"] {
        let role = format!("{name}_{role}");
        let sql = format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT, INSERT ON t TO {role}; \
             GRANT USAGE ON SEQUENCE t_id_seq TO {role}"
        );
        cluster.primary().query(name, &sql)?;
    }
    let sql = format!(
        "CREATE ROLE {name}_eyes LOGIN PASSWORD 'eyes' IN ROLE pg_monitor; \
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON t USING (v = current_user) WITH CHECK (v = current_user)"
    );
    cluster.primary().query(name, &sql)?;
    cluster.wait_caught_up(LIMIT)?;
    Ok(cluster)
}

/// A file whose servers have `keys`, and whose listener has `users`.
fn file(cluster: &PostgresCluster, port: u16, keys: &str, users: &str) -> String {
    let servers = cluster.servers().iter().enumerate();
    let servers = servers.map(|(number, server)| {
        format!(
            "[store.pg{number}]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {}\n{keys}\n",
            server.port()
        )
    });
    servers.collect::<String>()
        + &format!(
            "[store.db]\ntype = \"sql-read-replica\"\nprimary = \"pg0\"\n\
             replicas = [\"pg1\", \"pg2\"]\n[listener.sql]\nprotocol = \"postgresql\"\n\
             bind = \"127.0.0.1:{port}\"\nstore = \"db\"\n{users}"
        )
}

fn user(name: &str, keys: &str) -> String {
    format!("[[listener.sql.user]]\nname = \"{name}\"\n{keys}\n")
}

#[test]
fn without_a_user_of_the_store_each_client_is_itself_everywhere() -> Result<()> {
    let cluster = prepare("themselves")?;
    let port = free_port()?;
    let verifier = |role: &str| -> Result<String> {
        Ok(format!(
            "scram-verifier = \"{}\"",
            verifier(&cluster, role)?
        ))
    };
    let users = [
        user("themselves_ann", "password = \"secret\""),
        user("themselves_bob", &verifier("themselves_bob")?),
        user(
            "kitty",
            "password = \"secret\"\nupstream-user = \"themselves_cat\"\n\
             upstream-password = \"secret\"",
        ),
        // The same password, and another salt than the server's.
        user("themselves_dan", &verifier("themselves_spare")?),
        // For the rig's own look.
        user("breccia", "password = \"secret\""),
    ];
    let keys = "monitor-user = \"themselves_eyes\"\nmonitor-password = \"eyes\"";
    let breccia = Breccia::start(&file(&cluster, port, keys, &users.concat()))?;
    let gateway = Gateway { breccia, port };
    gateway.wait_reads("themselves")?;
    let connect = |name: &str| {
        let parameters = [("database", "themselves")];
        SqlClient::connect_as(port, name, &parameters).with_context(|| name.to_owned())
    };
    for (name, role) in [
        ("themselves_ann", "themselves_ann"),
        ("themselves_bob", "themselves_bob"),
        ("kitty", "themselves_cat"),
    ] {
        let mut client = connect(name)?;
        client.run("INSERT INTO t (own, v) VALUES (1, current_user)")?;
        let other = client.simple("INSERT INTO t (own, v) VALUES (1, 'breccia')")?;
        ensure!(other.code() == "42501", "{other:?}");
        let before = gateway.replica_reads()?;
        wait_until(LIMIT, &format!("{name} to read on a replica"), || {
            for _ in 0..20 {
                let reply = client.run("SELECT v FROM t")?;
                ensure!(reply.rows.len() == 1, "{reply:?}");
                ensure!(reply.value() == Some(role), "{reply:?}");
            }
            Ok((gateway.replica_reads()? > before).then_some(()))
        })?;
    }
    let error = format!(
        "{:#}",
        connect("themselves_dan").map(drop).expect_err("a login")
    );
    for part in [
        "28P01",
        "themselves_dan",
        "take scram-verifier from pg_authid",
    ] {
        ensure!(error.contains(part), "{part}: {error}");
    }
    Ok(())
}

#[test]
fn what_a_server_without_a_user_lacks_is_said_at_the_start() -> Result<()> {
    let cluster = prepare("lacking")?;
    let ann = user("lacking_ann", "password = \"secret\"");
    let (status, text) = Breccia::refused(&file(&cluster, free_port()?, "", &ann))?;
    ensure!(status.code() == Some(2), "{status}: {text}");
    for part in [
        "store.pg0.monitor-user",
        "add monitor-user",
        "log in to the server as themselves",
    ] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    // What only the servers can tell.
    let check = |keys: &str, users: &str| -> Result<(Option<i32>, String)> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("breccia.toml");
        std::fs::write(&path, file(&cluster, free_port()?, keys, users))?;
        let arguments = ["check", "--connect", "--config", &path.to_string_lossy()];
        let output = Breccia::run(folder.path(), &arguments)?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok((output.status.code(), text))
    };
    let eyes = "monitor-user = \"lacking_eyes\"\nmonitor-password = \"eyes\"";
    let (code, text) = check(eyes, &ann)?;
    ensure!(code == Some(0) && text.contains("pg1"), "{code:?} {text}");
    let (code, text) = check(&eyes.replace("\"eyes\"", "\"closed\""), &ann)?;
    ensure!(
        code == Some(1) && text.contains("lacking_eyes"),
        "{code:?} {text}"
    );
    let stranger = user("nobody", "password = \"secret\"");
    let (code, text) = check(eyes, &(ann + &stranger))?;
    let parts = ["listener.sql.user \"nobody\"", "28P01"];
    ensure!(
        code == Some(1) && parts.iter().all(|it| text.contains(it)),
        "{code:?} {text}"
    );
    ensure!(!text.contains("user \"lacking_ann\""), "{text}");
    let plain = "monitor-user = \"lacking_bob\"\nmonitor-password = \"secret\"";
    let (code, text) = check(plain, &stranger.replace("nobody", "lacking_ann"))?;
    ensure!(
        code == Some(0) && text.contains("GRANT pg_monitor TO \"lacking_bob\""),
        "{text}"
    );
    // Who may read the verifiers of all is for the database to say in which it is asked.
    let question = |column: &str| {
        format!("auth-query = \"SELECT rolname{column} FROM pg_authid WHERE rolname = $1\"\n")
    };
    let (code, text) = check(eyes, &question(", rolpassword"))?;
    let parts = [
        "listener.sql.auth-query",
        "permission denied for table pg_authid",
        "role \"lacking_eyes\" in database \"postgres\"",
    ];
    ensure!(
        code == Some(1) && parts.iter().all(|it| text.contains(it)),
        "{code:?} {text}"
    );
    let grant = "GRANT SELECT ON pg_authid TO lacking_eyes";
    cluster.primary().query("postgres", grant)?;
    cluster.wait_caught_up(LIMIT)?;
    let (code, text) = check(eyes, &question(", rolpassword"))?;
    ensure!(code == Some(0), "{code:?} {text}");
    let (code, text) = check(eyes, &question(""))?;
    ensure!(code == Some(1) && text.contains("it must be two"), "{text}");
    Ok(())
}
