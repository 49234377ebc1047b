//! Upstream logins by `caching_sha2_password` to a server that is scripted here, since MySQL 8 cannot be
//! installed for tests. Source: the protocol's "`caching_sha2_password` information".

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use breccia_core::address::Address;
use breccia_sql::SqlError;
use breccia_sql::mysql::auth::{self, CACHING_SHA2, FAST_OK, FULL, WANTS_KEY};
use breccia_sql::mysql::codec::handshake::{Greeting, Response};
use breccia_sql::mysql::codec::{ErrPacket, OkPacket, capabilities, header, lenenc, write_packet};
use breccia_sql::mysql::upstream::ServerKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::{endpoint, local, login};

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";
const ALL: u64 = capabilities::LONG_PASSWORD
    | capabilities::PROTOCOL_41
    | capabilities::TRANSACTIONS
    | capabilities::SECURE_CONNECTION
    | capabilities::PLUGIN_AUTH
    | capabilities::PLUGIN_AUTH_LENENC
    | capabilities::SESSION_TRACK
    | capabilities::DEPRECATE_EOF;

/// How the scripted server goes on after the proof.
#[derive(Clone, Copy)]
enum Then<'a> {
    Fast,
    /// The full exchange over a private connection.
    Clear,
    /// The full exchange by the key pair in this folder.
    Key(&'a Path),
    /// A key that is none.
    BadKey,
}

struct Peer<S> {
    stream: S,
    sequence: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        write_packet(&mut out, &mut self.sequence, payload);
        Ok(self.stream.write_all(&out).await?)
    }

    async fn read(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await?;
        let head = header(&head).context("a header")?;
        let mut payload = vec![0; head.length];
        self.stream.read_exact(&mut payload).await?;
        self.sequence = head.sequence.wrapping_add(1);
        Ok(payload)
    }

    async fn ok(&mut self, kind: u8) -> Result<()> {
        let ok = OkPacket {
            header: kind,
            affected: 0,
            insert_id: 0,
            status: 2,
            warnings: 0,
            info: b"",
            state: b"",
        };
        let mut payload = Vec::new();
        ok.write(&mut payload, ALL);
        self.send(&payload).await
    }

    async fn refuse(&mut self) -> Result<()> {
        let error = ErrPacket {
            code: 1045,
            sqlstate: *b"28000",
            message: b"Access denied",
        };
        let mut payload = Vec::new();
        error.write(&mut payload, ALL);
        self.send(&payload).await
    }

    async fn serve(mut self, then: Then<'_>) -> Result<Vec<String>> {
        let greeting = Greeting {
            version: "8.0.36".to_owned(),
            connection: 7,
            nonce: NONCE.to_vec(),
            capabilities: ALL,
            collation: 255,
            status: 2,
            plugin: CACHING_SHA2.to_owned(),
        };
        let mut payload = Vec::new();
        greeting.write(&mut payload);
        self.send(&payload).await?;
        let response = Response::parse(&self.read().await?)?;
        ensure!(response.plugin.as_deref() == Some(CACHING_SHA2.as_bytes()));
        if !self.prove(&response, then).await? {
            self.refuse().await?;
            return Ok(Vec::new());
        }
        self.ok(0).await?;
        let mut texts = Vec::new();
        loop {
            let Ok(command) = self.read().await else {
                return Ok(texts);
            };
            let text = String::from_utf8_lossy(&command[1..]).into_owned();
            if text.starts_with("SELECT") {
                self.row(text.split(',').count()).await?;
            } else {
                self.ok(0).await?;
            }
            texts.push(text);
        }
    }

    /// A row of `count` columns with nothing in them.
    async fn row(&mut self, count: usize) -> Result<()> {
        self.send(&[u8::try_from(count)?]).await?;
        for _ in 0..count {
            let mut column = Vec::new();
            for text in ["def", "", "", "", "name", ""] {
                lenenc::write_str(&mut column, text.as_bytes());
            }
            column.extend_from_slice(&[12, 45, 0, 0, 0, 0, 0, 253, 0, 0, 0, 0, 0]);
            self.send(&column).await?;
        }
        self.send(&vec![0; count]).await?;
        self.ok(0xfe).await
    }

    async fn prove(&mut self, response: &Response, then: Then<'_>) -> Result<bool> {
        let expected = auth::caching_sha2(b"secret", NONCE);
        if matches!(then, Then::Fast) {
            self.send(&[1, FAST_OK]).await?;
            return Ok(response.proof == expected);
        }
        self.send(&[1, FULL]).await?;
        let first = self.read().await?;
        let pem = match then {
            Then::Fast | Then::Clear => return Ok(first == b"secret\0"),
            Then::BadKey => {
                b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec()
            }
            Then::Key(folder) => std::fs::read(folder.join("public.pem"))?,
        };
        ensure!(
            first == [WANTS_KEY],
            "something else than the key is asked for: {first:?}"
        );
        self.send(&[&[1], pem.as_slice()].concat()).await?;
        let encrypted = self.read().await?;
        let Then::Key(folder) = then else {
            return Ok(false);
        };
        let mixed = decrypt(folder, &encrypted)?;
        let text: Vec<u8> = mixed
            .iter()
            .zip(NONCE.iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        Ok(text == b"secret\0")
    }
}

fn openssl(folder: &Path, words: &str, input: &[u8]) -> Result<Vec<u8>> {
    let file = folder.join("input");
    std::fs::write(&file, input)?;
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).current_dir(folder);
    let output = command
        .stdin(std::fs::File::open(file)?)
        .stderr(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!("openssl {words}");
    }
    Ok(output.stdout)
}

fn decrypt(folder: &Path, encrypted: &[u8]) -> Result<Vec<u8>> {
    let how = "pkeyutl -decrypt -inkey private.pem -pkeyopt rsa_padding_mode:oaep";
    openssl(folder, how, encrypted)
}

/// Logs in over TCP; what the server was asked then.
async fn over_tcp(then: Then<'_>, password: &str) -> Result<(Result<(), SqlError>, Vec<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = endpoint(local(listener.local_addr()?.port()));
    let serving = async {
        let (stream, _) = listener.accept().await?;
        Peer {
            stream,
            sequence: 0,
        }
        .serve(then)
        .await
    };
    let login = login("ann", password);
    let opening = async {
        endpoint
            .open(&login)
            .await
            .map(|it| assert_eq!(it.server, ServerKind::MySql))
    };
    let (served, opened) = tokio::join!(serving, opening);
    Ok((opened, served.unwrap_or_default()))
}

#[tokio::test]
async fn the_proof_is_enough_for_a_server_that_remembers() -> Result<()> {
    let (opened, asked) = over_tcp(Then::Fast, "secret").await?;
    opened?;
    assert!(
        asked[0].contains("session_track_gtids = 'OWN_GTID'"),
        "{asked:?}"
    );
    let (opened, _) = over_tcp(Then::Fast, "wrong").await?;
    let error = opened.expect_err("refused");
    assert!(
        matches!(
            error,
            SqlError::Refused {
                errno: Some(1045),
                ..
            }
        ),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn the_password_goes_under_the_servers_key_over_plain_tcp() -> Result<()> {
    let folder = tempfile::tempdir()?;
    openssl(folder.path(), "genrsa -out private.pem 2048", b"")?;
    openssl(
        folder.path(),
        "rsa -in private.pem -pubout -out public.pem",
        b"",
    )?;
    let (opened, _) = over_tcp(Then::Key(folder.path()), "secret").await?;
    opened?;
    let (opened, _) = over_tcp(Then::Key(folder.path()), "wrong").await?;
    let error = opened.expect_err("refused");
    assert!(matches!(error, SqlError::Refused { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_bad_key_is_an_error_with_its_mend() -> Result<()> {
    let (opened, _) = over_tcp(Then::BadKey, "secret").await?;
    let error = opened.expect_err("no key");
    assert!(matches!(error, SqlError::Login { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_password_itself_goes_over_a_unix_socket() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let endpoint = endpoint(Address::Unix(path));
    let serving = async {
        let (stream, _) = listener.accept().await?;
        Peer {
            stream,
            sequence: 0,
        }
        .serve(Then::Clear)
        .await
    };
    let login = login("ann", "secret");
    let opening = async { endpoint.open(&login).await.map(drop) };
    let (served, opened) = tokio::join!(serving, opening);
    opened?;
    assert!(!served?.is_empty());
    Ok(())
}
