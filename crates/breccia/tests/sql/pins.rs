//! What pins a session through others, on real servers; and last values of sequences.
//!
//! One connection to each server serves all sessions, so whatever is left on it shows. Not the rows
//! of each rule (unit tests of the classifier have them). Invariant: nobody meets what another
//! session's statement has left on a connection, however deep it was called.

use anyhow::{Result, ensure};

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT};

const OBJECTS: &str = "
CREATE TABLE plain (id serial PRIMARY KEY, note text);
CREATE TABLE audited (id int);
CREATE FUNCTION sets_tenant() RETURNS void LANGUAGE plpgsql AS
 $$BEGIN PERFORM set_config('my.tenant', '5', false); END$$;
CREATE FUNCTION enters() RETURNS int LANGUAGE plpgsql AS
 $$BEGIN PERFORM sets_tenant(); RETURN 1; END$$;
CREATE FUNCTION audits() RETURNS trigger LANGUAGE plpgsql AS
 $$BEGIN PERFORM sets_tenant(); RETURN NEW; END$$;
CREATE TRIGGER audits BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION audits();
CREATE FUNCTION atomic() RETURNS text LANGUAGE sql BEGIN ATOMIC
 SELECT set_config('my.tenant', '5', false); END;
CREATE VIEW entering AS SELECT enters() AS one;
CREATE VIEW over_entering AS SELECT * FROM entering";

#[test]
fn what_a_statement_calls_in_the_end_pins_its_session() -> Result<()> {
    let cluster = database("pins")?;
    cluster.primary().query("pins", OBJECTS)?;
    cluster.wait_caught_up(LIMIT)?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "pins", extra)?;
    for sql in [
        "SELECT enters()",
        "SELECT atomic()",
        "SELECT * FROM over_entering",
        "INSERT INTO audited VALUES (1)",
        "UPDATE pg_settings SET setting = '5MB' WHERE name = 'work_mem'",
        "SET search_path = 'pg_temp', public",
    ] {
        let mut client = gateway.client("pins")?;
        client.simple(sql)?.good()?;
        let pinned = client.run("SHOW breccia.pinned")?;
        ensure!(pinned.value().is_some_and(|it| !it.is_empty()), "{sql}");
        drop(client);
        let mut other = gateway.client("pins")?;
        let left = other.run("/* breccia: primary */ SELECT current_setting('my.tenant', true)")?;
        ensure!(left.value().is_none_or(str::is_empty), "{sql}: {left:?}");
    }
    let mut plain = gateway.client("pins")?;
    plain.run("INSERT INTO plain (note) VALUES ('a')")?.good()?;
    let pinned = plain.run("SHOW breccia.pinned")?;
    ensure!(
        pinned.value() == Some(""),
        "a plain insert pins: {pinned:?}"
    );
    Ok(())
}

#[test]
fn a_last_value_is_the_sessions_own_or_none() -> Result<()> {
    let cluster = database("last")?;
    cluster
        .primary()
        .query("last", "CREATE TABLE plain (id serial)")?;
    let extra = Extra {
        listener: "pool-size = 2",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "last", extra)?;
    let (mut one, mut two) = (gateway.client("last")?, gateway.client("last")?);
    let insert = "INSERT INTO plain DEFAULT VALUES";
    one.run(insert)?.good()?;
    two.run(insert)?.good()?;
    let refused = one.simple("SELECT lastval()")?;
    ensure!(refused.code() == "55000", "{refused:?}");
    // Whoever asks once asks again: from now on it works.
    let id = one.run("INSERT INTO plain DEFAULT VALUES RETURNING id")?;
    let id = id.value().map(str::to_owned);
    let last = one.run("SELECT lastval()")?;
    ensure!(id.is_some() && last.value() == id.as_deref(), "{last:?}");
    two.run("BEGIN")?.good()?;
    let id = two.run("INSERT INTO plain DEFAULT VALUES RETURNING id")?;
    let id = id.value().map(str::to_owned);
    let last = two.run("SELECT currval('plain_id_seq')")?;
    ensure!(last.value() == id.as_deref(), "{last:?}");
    two.run("COMMIT")?.good()?;
    let refused = two.simple("SELECT currval('plain_id_seq')")?;
    ensure!(refused.code() == "55000", "{refused:?}");
    Ok(())
}

#[test]
fn a_message_that_is_too_long_ends_its_session_alone() -> Result<()> {
    let cluster = database("lengths")?;
    let extra = Extra {
        listener: "max-request-size = \"64KiB\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "lengths", extra)?;
    let long = "x".repeat(100 * 1024);
    let mut other = gateway.client("lengths")?;
    // A parameter may be as long as it likes.
    let length = other.extended("SELECT length($1)", &[&long])?;
    ensure!(length.value() == Some("102400"), "{length:?}");
    let mut client = gateway.client("lengths")?;
    let refused = client.simple(&format!("SELECT '{long}'"));
    let told = refused.as_ref().err().map(ToString::to_string);
    ensure!(told.is_some_and(|it| it.contains("54000")), "{refused:?}");
    other.run("SELECT 1")?;
    Ok(())
}
