//! Tests of dealing connections to workers and of draining them.
//!
//! Not tests of a protocol: the service answers single bytes. Invariant: every port is chosen by the
//! system.

use std::cell::Cell;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::drain::Phase;
use crate::stream;

/// Answers each byte with itself, `!` with the worker's number, `d` only when the drain has begun.
struct Echo {
    worker: WorkerIndex,
    drain: Drain,
    served: Cell<u32>,
}

impl Service for Echo {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            self.served.set(self.served.get() + 1);
            let mut stream = connection.stream;
            let mut byte = [0; 1];
            loop {
                tokio::select! {
                    read = stream.read(&mut byte) => {
                        if !matches!(read, Ok(1)) {
                            return;
                        }
                    }
                    () = self.drain.draining() => return,
                }
                match byte[0] {
                    b'!' => byte[0] = b'0' + u8::try_from(self.worker.0).expect("few workers"),
                    b'd' => {
                        self.drain.draining().await;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    b'z' => self.drain.closing().await,
                    _ => {}
                }
                if stream.write_all(&byte).await.is_err() {
                    return;
                }
                if self.drain.phase() != Phase::Running {
                    stream::close_gently(&mut stream, Duration::from_secs(1)).await;
                    return;
                }
            }
        })
    }
}

struct Fixture {
    pool: WorkerPool,
    handle: ListenerHandle,
    registry: Registry,
}

fn options(max_clients: usize) -> ListenerOptions {
    ListenerOptions {
        name: "echo".to_owned(),
        tls: None,
        max_clients,
        refusal: b"full\n",
        drain: Drain::new(),
    }
}

fn start(bind: &str, workers: usize, options: ListenerOptions) -> Fixture {
    let drain = Drain::new();
    let registry = Registry::new();
    let shared = drain.clone();
    let options = ListenerOptions {
        drain: drain.clone(),
        ..options
    };
    let pool = WorkerPool::start(workers, drain, move |worker| {
        let echo: Rc<dyn Service> = Rc::new(Echo {
            worker,
            drain: shared.clone(),
            served: Cell::new(0),
        });
        vec![Rc::clone(&echo), echo]
    })
    .expect("workers start");
    let listener = Listener::open(&bind.parse().expect("a bind")).expect("it binds");
    let handle = pool.listen(ListenerIndex(0), listener, options, &registry);
    Fixture {
        pool,
        handle,
        registry,
    }
}

async fn dial(handle: &ListenerHandle) -> Stream {
    let address = handle.bind().to_string().parse().expect("an address");
    stream::connect(&address, None, Duration::from_secs(5))
        .await
        .expect("it connects")
}

async fn ask(stream: &mut Stream, byte: u8) -> u8 {
    stream.write_all(&[byte]).await.expect("it is sent");
    stream.read_u8().await.expect("it is answered")
}

#[tokio::test]
async fn connections_go_to_the_worker_with_the_fewest() {
    let fixture = start("127.0.0.1:0", 2, options(100));
    let mut streams = Vec::new();
    let mut by_worker = [0, 0];
    for _ in 0..6 {
        let mut stream = dial(&fixture.handle).await;
        let worker = ask(&mut stream, b'!').await - b'0';
        by_worker[usize::from(worker)] += 1;
        streams.push((worker, stream));
    }
    assert_eq!(by_worker, [3, 3]);
    streams.retain(|(worker, _)| *worker == 1);
    while fixture.pool.connections() > 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut next = dial(&fixture.handle).await;
    assert_eq!(ask(&mut next, b'!').await, b'0');
}

#[tokio::test]
async fn clients_over_the_limit_are_told_and_counted() {
    let fixture = start("127.0.0.1:0", 1, options(1));
    let mut first = dial(&fixture.handle).await;
    assert_eq!(ask(&mut first, b'a').await, b'a');
    let mut second = dial(&fixture.handle).await;
    let mut told = String::new();
    second.read_to_string(&mut told).await.expect("the refusal");
    assert_eq!(told, "full\n");
    let text = fixture.registry.render();
    let refused = "breccia_connections_refused_total{listener=\"echo\",reason=\"max-clients\"} 1";
    assert!(text.contains(refused), "{text}");
    assert!(
        text.contains("breccia_connections{listener=\"echo\"} 1"),
        "{text}"
    );
    fixture.handle.set_max_clients(2);
    let mut third = dial(&fixture.handle).await;
    assert_eq!(ask(&mut third, b'c').await, b'c');
}

#[tokio::test]
async fn unix_sockets_are_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let bind = format!("unix:{}", folder.path().join("echo.sock").display());
    let fixture = start(&bind, 1, options(10));
    let mut stream = dial(&fixture.handle).await;
    assert_eq!(ask(&mut stream, b'u').await, b'u');
    fixture.pool.drain(Duration::from_secs(1)).await;
    assert!(
        std::fs::read_dir(folder.path())
            .expect("the folder")
            .next()
            .is_none()
    );
}

#[tokio::test]
async fn drain_waits_for_in_flight() {
    let fixture = start("127.0.0.1:0", 2, options(10));
    let (mut idle, mut busy) = (dial(&fixture.handle).await, dial(&fixture.handle).await);
    assert_eq!(ask(&mut idle, b'i').await, b'i');
    busy.write_all(b"d").await.expect("it is sent");
    // Only once both are served are they known to be received.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (drained, answer) =
        tokio::join!(fixture.pool.drain(Duration::from_secs(5)), busy.read_u8());
    assert_eq!(answer.expect("the request in flight is answered"), b'd');
    assert_eq!(drained, Drained { cut: 0 });
    assert!(
        idle.read_u8().await.is_err(),
        "the idle connection is closed"
    );
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut() {
    let fixture = start("127.0.0.1:0", 1, options(10));
    let mut stuck = dial(&fixture.handle).await;
    stuck.write_all(b"z").await.expect("it is sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let drained = fixture.pool.drain(Duration::from_millis(100)).await;
    assert_eq!(drained, Drained { cut: 1 });
}

#[tokio::test]
async fn nobody_is_accepted_after_the_drain_began() {
    let fixture = start("127.0.0.1:0", 1, options(10));
    let bind = fixture.handle.bind().to_string();
    fixture.pool.drain(Duration::from_secs(1)).await;
    let address = bind.parse().expect("an address");
    let refused = stream::connect(&address, None, Duration::from_secs(1)).await;
    assert!(
        matches!(refused, Err(NetError::Connect { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_listener_comes_and_goes_while_others_serve() {
    let fixture = start("127.0.0.1:0", 2, options(10));
    let mut first = dial(&fixture.handle).await;
    assert_eq!(ask(&mut first, b'a').await, b'a');
    let whole = fixture.handle.drain();
    let drain = whole.child();
    let options = ListenerOptions {
        drain: drain.clone(),
        ..options(10)
    };
    let listener = Listener::open(&"127.0.0.1:0".parse().expect("a bind")).expect("it binds");
    let openings = fixture.pool.openings();
    let second = openings.listen(
        ListenerIndex(1),
        listener,
        options.clone(),
        &fixture.registry,
    );
    let second = second.expect("the pool runs");
    let mut guest = dial(&second).await;
    assert_eq!(ask(&mut guest, b'b').await, b'b');
    drain.begin();
    let address = second.bind().to_string().parse().expect("an address");
    let limit = Duration::from_secs(1);
    while stream::connect(&address, None, limit).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ask(&mut first, b'c').await, b'c');
    assert_eq!(
        fixture.pool.drain(Duration::from_secs(5)).await,
        Drained { cut: 0 }
    );
    let listener = Listener::open(&"127.0.0.1:0".parse().expect("a bind")).expect("it binds");
    let late = openings.listen(ListenerIndex(2), listener, options, &Registry::new());
    assert!(late.is_none(), "the pool has ended");
}

#[tokio::test]
async fn tls_is_done_before_the_service_and_a_bad_handshake_is_counted() {
    use crate::tls::{TlsClient, TlsClientOptions, TlsServer, TlsServerOptions};

    let pki = |file: &str| {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/pki")
            .join(file)
    };
    let server = TlsServerOptions {
        cert: pki("server.pem"),
        key: pki("server.key"),
        client_ca: None,
    };
    let tls = Some(TlsServer::new(&server).expect("the server's files"));
    let fixture = start("127.0.0.1:0", 1, ListenerOptions { tls, ..options(10) });
    let address = fixture
        .handle
        .bind()
        .to_string()
        .parse()
        .expect("an address");
    let client = TlsClientOptions {
        ca: Some(pki("authority.pem")),
        ..TlsClientOptions::default()
    };
    let client = TlsClient::new(&client, "127.0.0.1").expect("the client's files");
    let limit = Duration::from_secs(5);
    let mut stream = stream::connect(&address, Some(&client), limit)
        .await
        .expect("TLS");
    assert_eq!(ask(&mut stream, b't').await, b't');
    let mut plain = stream::connect(&address, None, limit).await.expect("TCP");
    plain.write_all(b"PING\r\n").await.expect("it is sent");
    let mut told = Vec::new();
    let _ = plain.read_to_end(&mut told).await;
    let refused = "breccia_connections_refused_total{listener=\"echo\",reason=\"tls\"} 1";
    // Counted by the worker's thread, which may lag behind the close.
    let mut text = fixture.registry.render();
    for _ in 0..500 {
        if text.contains(refused) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        text = fixture.registry.render();
    }
    assert!(text.contains(refused), "{text}");
    fixture.pool.drain(Duration::from_secs(1)).await;
}
