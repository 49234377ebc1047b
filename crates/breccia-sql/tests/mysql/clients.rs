//! The server's end of a login against the `mariadb` program, by each way that it speaks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use anyhow::{Context, Result};
use breccia_sql::mysql::auth::server::{CHANCE_BYTES, First, Known, Server, Step};
use breccia_sql::mysql::auth::{CACHING_SHA2, ED25519, NATIVE};
use breccia_sql::mysql::codec::handshake::{Greeting, Response};
use breccia_sql::mysql::codec::{ErrPacket, OkPacket, capabilities, command, header, write_packet};

const OFFERED: u64 = capabilities::LONG_PASSWORD
    | capabilities::PROTOCOL_41
    | capabilities::TRANSACTIONS
    | capabilities::SECURE_CONNECTION
    | capabilities::PLUGIN_AUTH
    | capabilities::PLUGIN_AUTH_LENENC
    | capabilities::CONNECT_ATTRS
    | capabilities::CONNECT_WITH_DB;

struct Peer(TcpStream, u8);

impl Peer {
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        write_packet(&mut out, &mut self.1, payload);
        Ok(self.0.write_all(&out)?)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head)?;
        let head = header(&head).context("a header")?;
        let mut payload = vec![0; head.length];
        self.0.read_exact(&mut payload)?;
        self.1 = head.sequence.wrapping_add(1);
        Ok(payload)
    }

    fn ok(&mut self) -> Result<()> {
        let ok = OkPacket {
            header: 0,
            affected: 0,
            insert_id: 0,
            status: 2,
            warnings: 0,
            info: b"",
            state: b"",
        };
        let mut payload = Vec::new();
        ok.write(&mut payload, OFFERED);
        self.send(&payload)
    }

    /// Serves one client; the way it proved itself by.
    fn serve(&mut self, known: Known, greets: &str) -> Result<Option<&'static str>> {
        let nonce = b"abcdefghijklmnopqrst";
        let greeting = Greeting {
            version: "5.5.5-10.11.6-MariaDB".to_owned(),
            connection: 7,
            nonce: nonce.to_vec(),
            capabilities: OFFERED,
            collation: 45,
            status: 2,
            plugin: greets.to_owned(),
        };
        let mut payload = Vec::new();
        greeting.write(&mut payload);
        self.send(&payload)?;
        let response = Response::parse(&self.read()?)?;
        assert_eq!(response.user, b"ann");
        let first = First {
            method: response.plugin.as_deref(),
            proof: &response.proof,
            nonce,
        };
        let (server, mut step) = Server::start(known, false, &first, &[0xf0; CHANCE_BYTES]);
        if let Step::Ask(payload) = step {
            self.send(&payload)?;
            step = server.answer(&self.read()?);
        }
        let Step::Proved { first, .. } = step else {
            let error = ErrPacket {
                code: 1045,
                sqlstate: *b"28000",
                message: b"no",
            };
            let mut payload = Vec::new();
            error.write(&mut payload, OFFERED);
            self.send(&payload)?;
            return Ok(None);
        };
        if let Some(first) = first {
            self.send(&first)?;
        }
        self.ok()?;
        while self.read()?[0] != command::QUIT {
            self.ok()?;
        }
        Ok(Some(server.method()))
    }
}

/// Runs the program against this end; the way it proved itself by, and whether it went well.
fn mariadb(
    known: Known,
    greets: &'static str,
    words: &[&str],
) -> Result<(Option<&'static str>, bool)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        Peer(stream, 0).serve(known, greets)
    });
    let mut client = Command::new("mariadb");
    client.args([
        "--no-defaults",
        "--protocol=tcp",
        "-h",
        "127.0.0.1",
        "-u",
        "ann",
    ]);
    client.args(["-P", &port, "-e", "DO 1"]).args(words);
    let output = client.output()?;
    let served = serving.join().expect("the server's thread ends")?;
    Ok((served, output.status.success()))
}

#[test]
fn the_mariadb_program_logs_in_by_each_way() -> Result<()> {
    let known = || Known::Password("secret".to_owned());
    let by_signature = "--default-auth=client_ed25519";
    let by_sha2 = "--default-auth=caching_sha2_password";
    for (greets, words, way) in [
        (NATIVE, &["-psecret"][..], NATIVE),
        (CACHING_SHA2, &["-psecret"], CACHING_SHA2),
        (NATIVE, &["-psecret", by_sha2], CACHING_SHA2),
        (NATIVE, &["-psecret", by_signature], ED25519),
        (CACHING_SHA2, &["-psecret", by_signature], ED25519),
        (NATIVE, &["-psecret", "--default-auth=dialog"], NATIVE),
    ] {
        assert_eq!(
            mariadb(known(), greets, words)?,
            (Some(way), true),
            "{greets} {words:?}"
        );
        let wrong = ["-pwrong", words.get(1).unwrap_or(&"-N")];
        assert_eq!(
            mariadb(known(), greets, &wrong)?,
            (None, false),
            "{greets} {wrong:?}"
        );
    }
    for greets in [NATIVE, CACHING_SHA2] {
        let none = || Known::Password(String::new());
        assert_eq!(
            mariadb(none(), greets, &[])?,
            (Some(greets), true),
            "{greets}"
        );
        assert_eq!(
            mariadb(none(), greets, &["-psecret"])?,
            (None, false),
            "{greets}"
        );
        assert_eq!(mariadb(known(), greets, &[])?, (None, false), "{greets}");
        assert_eq!(
            mariadb(Known::Nobody, greets, &["-psecret"])?,
            (None, false),
            "{greets}"
        );
    }
    Ok(())
}
