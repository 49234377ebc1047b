//! Clients of a listener with TLS: those that ask for it, those that begin with it, and those
//! that do without.
//!
//! Not TLS towards the servers (`upstream_tls.rs`). Invariant: whoever is refused here would have
//! been let in but for the one thing that the test names.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Certificates, PostgresCluster, clients_folder, free_port, process};

use crate::rig::{Extra, Gateway, shared};
use crate::secure::{GSS_REQUEST, SSL_REQUEST, TlsClient, Wire, listener_tls, plain, psql};

/// Who may log in everywhere here.
const USER: (&str, &str) = ("breccia", "secret");
const ONE: &str = "SELECT 40 + 2";

/// A gateway with a second listener, with the keys of `tls`; and its port. Who logs in there is the
/// testkit's superuser, or with `open` whoever comes in at all.
fn secured(cluster: &PostgresCluster, tls: &str, open: bool) -> Result<(Gateway, u16)> {
    let port = free_port()?;
    let (name, password) = USER;
    let user = format!("[[listener.secure.user]]\nname = \"{name}\"\npassword = \"{password}\"\n");
    let listener = format!(
        "[listener.secure]\nprotocol = \"postgresql\"\nbind = \"127.0.0.1:{port}\"\n\
         store = \"db\"\n{tls}\n{}",
        if open { "" } else { user.as_str() }
    );
    let extra = Extra {
        composite: &listener,
        ..Extra::default()
    };
    Ok((Gateway::over(cluster, "postgres", extra)?, port))
}

/// What a refused client was told must hold `part`.
fn refused(answer: Result<String, String>, part: &str) -> Result<()> {
    let text = answer.err().context("it was let in")?;
    ensure!(text.contains(part), "{part:?} is not in: {text}");
    Ok(())
}

#[test]
fn psql_comes_in_as_its_sslmode_says() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let cluster = shared()?;
    let (gateway, port) = secured(&cluster, &listener_tls(&files, None), false)?;
    let full = |ca: &Certificates| format!("sslmode=verify-full sslrootcert={}", ca.ca.display());
    let full_as = |host: &str| format!("host={host} hostaddr=127.0.0.1 {}", full(&files));
    for options in [
        "sslmode=prefer".to_owned(),
        "sslmode=require".to_owned(),
        // What libpq reports is that the proof was bound to the channel: SCRAM-SHA-256-PLUS.
        "sslmode=require channel_binding=require".to_owned(),
        "sslmode=require channel_binding=disable".to_owned(),
        full_as("localhost"),
        format!("host=127.0.0.1 {}", full(&files)),
        format!("{} channel_binding=require", full_as("localhost")),
    ] {
        let found = psql(port, USER, &options, ONE);
        ensure!(found.as_deref() == Ok("42"), "{options}: {found:?}");
        let shown = psql(port, USER, &options, "\\conninfo");
        let encrypted = shown.as_ref().is_ok_and(|it| it.contains("SSL connection"));
        ensure!(encrypted, "{options}: {shown:?}");
    }
    let other_name = psql(port, USER, &full_as("other.example"), ONE);
    refused(other_name, "does not match host name")?;
    refused(
        psql(port, USER, &full(&strangers), ONE),
        "certificate verify failed",
    )?;
    let wrong = psql(port, (USER.0, "wrong"), "sslmode=require", ONE);
    refused(wrong, "password authentication failed for user \"breccia\"")?;
    // The other listener has none: it says so, and only who insists leaves.
    ensure!(psql(gateway.port, USER, "sslmode=prefer", ONE).is_ok());
    let insists = psql(gateway.port, USER, "sslmode=require", ONE);
    refused(insists, "server does not support SSL")?;
    let binds = psql(gateway.port, USER, "channel_binding=require", ONE);
    refused(binds, "channel binding required")
}

#[test]
fn proofs_are_bound_to_certificates_of_each_signature_that_has_a_hash() -> Result<()> {
    let cluster = shared()?;
    let ecdsa = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
    for (how, bound) in [
        ("-newkey rsa:2048 -sha384".to_owned(), true),
        (
            "-newkey rsa:2048 -sha512 -sigopt rsa_padding_mode:pss".to_owned(),
            true,
        ),
        (format!("{ecdsa} -sha384"), true),
        ("-newkey ed25519".to_owned(), false),
    ] {
        let files = Certificates::self_signed(&how)?;
        let (_gateway, port) = secured(&cluster, &listener_tls(&files, None), false)?;
        let binding = |word: &str| {
            let ca = files.ca.display();
            let options = format!("sslmode=verify-full sslrootcert={ca} channel_binding={word}");
            psql(port, USER, &options, ONE)
        };
        let found = binding("prefer");
        ensure!(found.as_deref() == Ok("42"), "{how}: {found:?}");
        let found = binding("require");
        if bound {
            ensure!(found.as_deref() == Ok("42"), "{how}: {found:?}");
        } else {
            refused(
                found,
                "channel binding is required, but server did not offer",
            )?;
        }
    }
    Ok(())
}

#[test]
fn no_session_goes_without_tls_where_a_listener_has_it() -> Result<()> {
    let files = Certificates::new()?;
    let cluster = shared()?;
    // Nobody has a password here, so nothing else stands between a client and its session.
    let (gateway, port) = secured(&cluster, &listener_tls(&files, None), true)?;
    let found = psql(port, USER, "sslmode=require", ONE);
    ensure!(found.as_deref() == Ok("42"), "{found:?}");
    let without = psql(port, USER, "sslmode=disable", ONE);
    let told = "FATAL:  this listener takes no connection without TLS";
    refused(without.clone(), told)?;
    refused(without, "sslmode=require")?;
    let mut client = plain(port)?;
    client.begin("breccia")?;
    let text = client.refusal()?;
    ensure!(text.contains("C28000 "), "{text}");
    ensure!(client.has_ended());
    let metric = "breccia_connections_refused_total{listener=\"secure\",reason=\"login\"}";
    ensure!(
        gateway.breccia.metric(metric)? >= 2.0,
        "refusals are counted"
    );
    Ok(())
}

#[test]
fn client_certificates_are_asked_for_where_the_listener_names_who_signs_them() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let cluster = shared()?;
    let tls = listener_tls(&files, Some(&files));
    let shows = |files: &Certificates| {
        format!(
            "sslmode=require sslcert={} sslkey={}",
            files.client_cert.display(),
            files.client_key.display()
        )
    };
    for open in [true, false] {
        let (_gateway, port) = secured(&cluster, &tls, open)?;
        let found = psql(port, USER, &shows(&files), ONE);
        ensure!(found.as_deref() == Ok("42"), "{found:?}");
        // A certificate does not stand for a password.
        let wrong = psql(port, (USER.0, "wrong"), &shows(&files), ONE);
        if open {
            ensure!(wrong.as_deref() == Ok("42"), "{wrong:?}");
        } else {
            refused(wrong, "password authentication failed")?;
        }
        let none = "sslmode=require sslcert=/nonexistent";
        refused(psql(port, USER, none, ONE), "certificate required")?;
        // An authority of the same name, so it is the signature that does not fit.
        refused(
            psql(port, USER, &shows(&strangers), ONE),
            "alert decrypt error",
        )?;
        refused(psql(port, USER, "sslmode=disable", ONE), "without TLS")?;
    }
    Ok(())
}

#[test]
fn a_client_may_begin_with_tls_if_it_names_the_protocol() -> Result<()> {
    let files = Certificates::new()?;
    let cluster = shared()?;
    let (gateway, port) = secured(&cluster, &listener_tls(&files, None), false)?;
    let mut client = TlsClient::direct(port, &files, &["http/1.1", "postgresql"])?;
    assert_eq!(client.protocol(), Some(&b"postgresql"[..]));
    client.wire().begin("breccia")?;
    let (kind, body) = client.wire().frame()?;
    assert_eq!((kind, body.get(..4)), (b'R', Some(&[0, 0, 0, 10][..])));
    assert_eq!(&body[4..], b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");

    let mut nameless = TlsClient::direct(port, &files, &[])?;
    // Sent at once, as one does that takes the handshake for granted.
    nameless.wire().begin("breccia")?;
    let text = nameless.wire().refusal()?;
    ensure!(text.contains("C08P01 ") && text.contains("ALPN"), "{text}");
    ensure!(nameless.wire().has_ended());
    let Err(error) = TlsClient::direct(port, &files, &["h2"]) else {
        anyhow::bail!("another protocol was let in");
    };
    ensure!(
        format!("{error:#}").contains("NoApplicationProtocol"),
        "{error:#}"
    );
    // To a listener without TLS it is noise.
    ensure!(TlsClient::direct(gateway.port, &files, &["postgresql"]).is_err());
    let metric = "breccia_connections_refused_total{listener=\"sql\",reason=\"tls\"}";
    ensure!(
        gateway.breccia.metric(metric)? >= 1.0,
        "refusals are counted"
    );
    let mut other = plain(gateway.port)?;
    other.begin("breccia")?;
    assert_eq!(other.frame()?.0, b'R', "and harms nobody");
    Ok(())
}

#[test]
fn encryption_is_asked_for_once_and_before_anything_else() -> Result<()> {
    let files = Certificates::new()?;
    let cluster = shared()?;
    let (gateway, port) = secured(&cluster, &listener_tls(&files, None), false)?;
    let inside = |mut client: TlsClient, packet: &[u8]| -> Result<()> {
        client.wire().write_all(packet)?;
        let text = client.wire().refusal()?;
        ensure!(text.contains("C08P01 ") && text.contains("once"), "{text}");
        ensure!(client.wire().has_ended());
        Ok(())
    };
    for packet in [SSL_REQUEST, GSS_REQUEST] {
        inside(TlsClient::direct(port, &files, &["postgresql"])?, &packet)?;
        inside(TlsClient::asked(port, &files)?, &packet)?;
    }
    // Each may be asked for once, in either order, where there is none.
    let mut client = plain(gateway.port)?;
    for packet in [GSS_REQUEST, SSL_REQUEST] {
        client.write_all(&packet)?;
        let mut answer = [0];
        client.read_exact(&mut answer)?;
        assert_eq!(&answer, b"N");
    }
    client.write_all(&SSL_REQUEST)?;
    let text = client.refusal()?;
    ensure!(text.contains("C08P01 "), "{text}");
    // Whatever came in clear behind the question was put there by somebody else.
    let mut client = plain(port)?;
    client.write_all(&[&SSL_REQUEST[..], b"Q\0\0\0\x0dDROP ALL\0"].concat())?;
    let text = client.refusal()?;
    ensure!(
        text.contains("C08P01 ") && text.contains("before the TLS"),
        "{text}"
    );
    ensure!(client.has_ended());
    Ok(())
}

#[test]
fn a_newer_libpq_begins_with_tls_and_cancels_in_clear_and_under_tls() -> Result<()> {
    let files = Certificates::new()?;
    let cluster = shared()?;
    let (_gateway, port) = secured(&cluster, &listener_tls(&files, None), false)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/tls.py");
    let mut command = Command::new("timeout");
    command
        .arg("60")
        .arg(clients_folder().join("sql-python/bin/python"))
        .arg(script)
        .arg(port.to_string())
        .arg(&files.ca);
    let text = process::run(&mut command)?;
    ensure!(text.lines().last() == Some("all good"), "{text}");
    Ok(())
}
