//! Tests of TLS handshakes between the two ends of this crate.
//!
//! Not tests of rustls. Invariant: the certificates are those of `tests/pki`, made by its `make.sh`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

fn pki(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/pki")
        .join(file)
}

fn server_options(client_ca: Option<&str>) -> TlsServerOptions {
    TlsServerOptions {
        cert: pki("server.pem"),
        key: pki("server.key"),
        client_ca: client_ca.map(pki),
    }
}

fn trusting() -> TlsClientOptions {
    TlsClientOptions {
        ca: Some(pki("authority.pem")),
        ..TlsClientOptions::default()
    }
}

fn with_certificate(name: &str) -> TlsClientOptions {
    TlsClientOptions {
        cert: Some(pki(&format!("{name}.pem"))),
        key: Some(pki(&format!("{name}.key"))),
        ..trusting()
    }
}

/// One byte there and back; answers whether the server saw a client certificate.
async fn talk(
    server: &TlsServerOptions,
    client: &TlsClientOptions,
    host: &str,
) -> io::Result<bool> {
    let server = TlsServer::new(server).expect("the server's files");
    let client = TlsClient::new(client, host).expect("the client's files");
    let (near, far) = UnixStream::pair()?;
    let serving = async {
        let mut stream = server.handshake(Socket::Unix(far)).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await?;
        Ok(stream.get_ref().1.peer_certificates().is_some())
    };
    let asking = async {
        let mut stream = client.handshake(Socket::Unix(near)).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let (seen, asked) = tokio::join!(serving, asking);
    assert_eq!(asked?, 7);
    seen
}

async fn check(server: &TlsServerOptions, client: &TlsClientOptions, expected: Result<bool, &str>) {
    match (talk(server, client, "localhost").await, expected) {
        (Ok(seen), Ok(expected)) => assert_eq!(seen, expected),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

#[tokio::test]
async fn the_servers_certificate_is_checked_unless_insecure() {
    let server = server_options(None);
    check(&server, &trusting(), Ok(false)).await;
    let stranger = Some(pki("stranger-authority.pem"));
    let mistrusting = TlsClientOptions {
        ca: stranger,
        ..TlsClientOptions::default()
    };
    check(&server, &mistrusting, Err("UnknownIssuer")).await;
    let insecure = TlsClientOptions {
        insecure: true,
        ..mistrusting.clone()
    };
    check(&server, &insecure, Ok(false)).await;
    let named = TlsClientOptions {
        server_name: Some("other.example".to_owned()),
        ..trusting()
    };
    check(&server, &named, Err("not valid for name")).await;
    assert!(
        !talk(&server, &trusting(), "127.0.0.1")
            .await
            .expect("IP addresses are names too")
    );
}

#[tokio::test]
async fn client_certificates_are_demanded_where_client_ca_is_set() {
    let server = server_options(Some("authority.pem"));
    check(&server, &with_certificate("client"), Ok(true)).await;
    check(&server, &trusting(), Err("CertificateRequired")).await;
    check(&server, &with_certificate("stranger"), Err("UnknownCA")).await;
    // Where nobody asks for one, the client's certificate changes nothing.
    check(
        &server_options(None),
        &with_certificate("client"),
        Ok(false),
    )
    .await;
}

#[test]
fn faulty_files_are_named_with_their_option() {
    let check = |options: TlsServerOptions, parts: [&str; 2]| {
        let error = TlsServer::new(&options).expect_err("a fault").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let good = server_options(None);
    let missing = TlsServerOptions {
        cert: pki("nothing.pem"),
        ..good.clone()
    };
    check(
        missing,
        [
            "tls.cert: ",
            "nothing.pem cannot be read (no such file or directory)",
        ],
    );
    let swapped = TlsServerOptions {
        cert: pki("server.key"),
        ..good.clone()
    };
    check(swapped, ["tls.cert: ", "server.key holds no certificate"]);
    let swapped = TlsServerOptions {
        key: pki("server.pem"),
        ..good.clone()
    };
    check(
        swapped,
        ["tls.key: ", "server.pem holds no unencrypted private key"],
    );
    let strange = TlsServerOptions {
        key: pki("client.key"),
        ..good.clone()
    };
    check(
        strange,
        ["tls.cert: ", "server.pem is no certificate of the key in "],
    );
    let strange = TlsServerOptions {
        client_ca: Some(pki("server.key")),
        ..good
    };
    check(strange, ["tls.client-ca: ", "server.key"]);
    let error = TlsClient::new(&trusting(), "not a name")
        .expect_err("a fault")
        .to_string();
    assert!(error.contains("'not a name'"), "{error}");
}
