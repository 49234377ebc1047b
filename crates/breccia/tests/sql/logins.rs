//! Logins by hand: what a stranger can learn, how fast it can guess, and what it is told.
//!
//! Not TLS (`tls.rs`). Invariant: a user that does not exist is treated as one that does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, free_port};

/// How long a read waits: longer than a login may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// A gateway over servers that do not answer; nobody gets further than the proof.
fn gateway(state: &str, listener: &str) -> Result<(Breccia, u16)> {
    let port = free_port()?;
    let (first, second) = (free_port()?, free_port()?);
    let breccia = Breccia::start_unready(&format!(
        "{state}\n[store.a]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {first}\n\
         user = \"ask\"\npassword = \"ask\"\n[store.b]\ntype = \"postgresql\"\n\
         host = \"127.0.0.1\"\nport = {second}\nuser = \"ask\"\npassword = \"ask\"\n\
         [store.db]\ntype = \"sql-read-replica\"\nprimary = \"a\"\nreplicas = [\"b\"]\n\
         [listener.sql]\nprotocol = \"postgresql\"\nbind = \"127.0.0.1:{port}\"\nstore = \"db\"\n\
         {listener}\n[[listener.sql.user]]\nname = \"ann\"\npassword = \"right\"\n"
    ))?;
    Ok((breccia, port))
}

/// One that logs in, frame by frame.
struct Stranger(TcpStream);

impl Stranger {
    fn new(port: u16, user: &str) -> Result<Stranger> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        body.extend(format!("user\0{user}\0database\0d\0\0").as_bytes());
        let mut stranger = Stranger(stream);
        let length = u32::try_from(body.len() + 4)?;
        stranger.0.write_all(&length.to_be_bytes())?;
        stranger.0.write_all(&body)?;
        Ok(stranger)
    }

    fn read(&mut self) -> Result<(char, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).context("read")?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        let mut body = vec![0; length.checked_sub(4).context("a short frame")?];
        self.0.read_exact(&mut body)?;
        Ok((char::from(kind), body))
    }

    fn prove(&mut self, proof: &[u8]) -> Result<()> {
        let length = u32::try_from(proof.len() + 4)?;
        let frame = [b"p", &length.to_be_bytes()[..], proof].concat();
        Ok(self.0.write_all(&frame)?)
    }

    /// Which proof is asked for: 5 is MD5, 10 is SASL.
    fn asked(&mut self) -> Result<u32> {
        let (kind, body) = self.read()?;
        let told = String::from_utf8_lossy(&body);
        ensure!(kind == 'R', "{kind}: {told}");
        let (code, _) = body.split_first_chunk().context("a short R")?;
        Ok(u32::from_be_bytes(*code))
    }

    /// The salt of the SCRAM challenge.
    fn salt(&mut self) -> Result<String> {
        ensure!(self.asked()? == 10, "no SASL");
        let first = b"n,,n=,r=breccia-testkit";
        let length = u32::try_from(first.len())?.to_be_bytes();
        self.prove(&[&b"SCRAM-SHA-256\0"[..], &length, first].concat())?;
        let (kind, body) = self.read()?;
        let told = String::from_utf8_lossy(&body).into_owned();
        ensure!(kind == 'R', "{told}");
        let salt = told.split(',').find_map(|part| part.strip_prefix("s="));
        Ok(salt.context(told.clone())?.to_owned())
    }

    /// The words of the error that comes.
    fn told(&mut self) -> Result<String> {
        loop {
            let (kind, body) = self.read()?;
            if kind == 'E' {
                return Ok(String::from_utf8_lossy(&body).replace('\0', "|"));
            }
        }
    }
}

fn asked(port: u16, user: &str) -> Result<u32> {
    Stranger::new(port, user)?.asked()
}

#[test]
fn a_user_that_does_not_exist_is_asked_for_md5_as_those_who_do() -> Result<()> {
    let (breccia, port) = gateway("", "allow-md5 = true")?;
    ensure!(asked(port, "ann")? == 5);
    ensure!(asked(port, "nobody")? == 5);
    let mut nobody = Stranger::new(port, "nobody")?;
    nobody.asked()?;
    nobody.prove(b"md500000000000000000000000000000000\0")?;
    let told = nobody.told()?;
    ensure!(told.contains("28P01") && told.contains("nobody"), "{told}");
    drop(breccia);
    // Where some use MD5 and some do not, so do those who do not exist.
    let verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$\
                    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let users = format!(
        "allow-md5 = true\n[[listener.sql.user]]\nname = \"bob\"\nscram-verifier = \"{verifier}\"\n"
    );
    let (_breccia, port) = gateway("", &users)?;
    ensure!((asked(port, "ann")?, asked(port, "bob")?) == (5, 10));
    let names: Vec<String> = (0..40).map(|number| format!("nobody{number}")).collect();
    let all = || -> Result<Vec<u32>> { names.iter().map(|name| asked(port, name)).collect() };
    let first = all()?;
    ensure!(first.contains(&5) && first.contains(&10), "{first:?}");
    ensure!(all()? == first, "they change");
    Ok(())
}

#[test]
fn who_guesses_waits_however_many_connections_it_makes() -> Result<()> {
    let (_breccia, port) = gateway("", "allow-md5 = true")?;
    for user in ["ann", "nobody"] {
        let guess = || -> Result<Duration> {
            let start = Instant::now();
            let mut stranger = Stranger::new(port, user)?;
            stranger.asked()?;
            let waited = start.elapsed();
            stranger.prove(b"md500000000000000000000000000000000\0")?;
            // It does not wait for the answer, as there is none when the password is right.
            std::thread::sleep(Duration::from_millis(150));
            Ok(waited)
        };
        for _ in 0..3 {
            let waited = guess()?;
            ensure!(waited < Duration::from_millis(700), "{user}: {waited:?}");
        }
        let waited = [guess()?, guess()?, guess()?];
        let late = waited.iter().sum::<Duration>();
        ensure!(late > Duration::from_secs(2), "{user}: {waited:?}");
        // Nobody else waits.
        let start = Instant::now();
        asked(port, "carol")?;
        ensure!(start.elapsed() < Duration::from_millis(700));
    }
    // More at once than can be answered in time are turned away.
    let mut all: Vec<Stranger> = (0..40)
        .map(|_| Stranger::new(port, "ann"))
        .collect::<Result<_>>()?;
    let mut refused = 0;
    for stranger in &mut all {
        let (kind, body) = stranger.read()?;
        if kind == 'E' {
            let told = String::from_utf8_lossy(&body).into_owned();
            ensure!(told.contains("53300"), "{told}");
            refused += 1;
        }
    }
    ensure!((15..=40).contains(&refused), "{refused} were refused");
    Ok(())
}

#[test]
fn salts_are_the_same_after_a_start_whoever_exists() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = format!("[state]\ndir = \"{}\"", folder.path().join("s").display());
    let salts = || -> Result<[String; 2]> {
        let (_breccia, port) = gateway(&state, "")?;
        let salt = |user: &str| Stranger::new(port, user)?.salt();
        ensure!(salt("nobody")? == salt("nobody")?, "it changes at once");
        let (ann, nobody) = (salt("ann")?, salt("nobody")?);
        ensure!(ann != nobody, "one salt for all");
        Ok([ann, nobody])
    };
    let first = salts()?;
    ensure!(salts()? == first);
    Ok(())
}

#[test]
fn who_cannot_be_let_in_now_is_told_so() -> Result<()> {
    let listener = "auth-query = \"SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1\"";
    let (_breccia, port) = gateway("", listener)?;
    let told = Stranger::new(port, "nobody")?.told()?;
    ensure!(told.contains("FATAL") && told.contains("57P03"), "{told}");
    // One that says nothing is told that its time is up.
    let mut silent = Stranger::new(port, "ann")?;
    silent.asked()?;
    let told = silent.told()?;
    ensure!(told.contains("FATAL") && told.contains("57014"), "{told}");
    Ok(())
}
