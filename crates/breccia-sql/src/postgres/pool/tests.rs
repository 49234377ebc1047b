//! Lending and giving back, by several workers at once.
//!
//! Not over real servers: those are in the tests of the binary. Invariant: whoever asks is served
//! while fewer hold a connection than there may be.

use std::net::TcpListener;
use std::sync::{Arc, Barrier};

use breccia_core::address::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use std::thread;
use std::time::Duration;

use breccia_net::clock;
use breccia_net::health::EndpointHealth;

use super::*;
use crate::postgres::codec::message::{self, Status};
use crate::postgres::upstream::{Credential, UpstreamTls};

/// A server that lets everybody in and says no more; its port.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        run(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(async move {
                    let mut scrap = [0; 512];
                    let _ = stream.read(&mut scrap).await;
                    let mut greeting = Vec::new();
                    message::authentication(&mut greeting, 0, &[]);
                    message::backend_key(&mut greeting, 1, 2);
                    message::ready(&mut greeting, Status::Idle);
                    let _ = stream.write_all(&greeting).await;
                    while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
                });
            }
        });
    });
    port
}

fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

fn pool(size: usize, queue_timeout: Duration) -> Arc<Pool> {
    let address = Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: server(),
    };
    let options = PoolOptions {
        size,
        queue_timeout,
        max_lifetime: Duration::from_hours(1),
        idle_timeout: Duration::from_hours(1),
    };
    Arc::new(Pool::new(
        Endpoint {
            name: "pg".to_owned(),
            address: address.clone(),
            tls: UpstreamTls::Off,
            timeout: Duration::from_secs(5),
            own: Vec::new(),
        },
        EndpointHealth::new("pg".to_owned(), address),
        Login {
            role: "app".to_owned(),
            database: "app".to_owned(),
            credential: Credential::None,
            read_only: false,
        },
        PoolLimits::new("sql", &options),
    ))
}

/// A connection that is given back while another worker looks for one is never lost to both.
#[test]
fn a_connection_does_not_lie_idle_while_somebody_waits() {
    let pool = pool(1, Duration::from_secs(3));
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                run(async {
                    for round in 0..60_000 {
                        let lease = pool.lend().await;
                        let lease = lease.unwrap_or_else(|error| panic!("{round}: {error}"));
                        (0..round % 97).for_each(|_| std::hint::spin_loop());
                        lease.give_back();
                        (0..round * 7_919 % 2_003).for_each(|_| std::hint::spin_loop());
                    }
                });
            });
        }
    });
    assert_eq!((pool.counts(), pool.waiting()), ((1, 1), 0));
}

#[test]
fn one_that_no_longer_waits_keeps_nobody_waiting() {
    let pool = pool(1, Duration::from_secs(3));
    run(async {
        let held = pool.lend().await.expect("a connection");
        let waiting = tokio::time::timeout(Duration::from_millis(20), pool.lend());
        assert!(waiting.await.is_err(), "there was none");
        held.give_back();
        let again = tokio::time::timeout(Duration::from_millis(500), pool.lend());
        again.await.expect("in time").expect("it is idle");
    });
}

/// While the server is known to be down, no time is spent on trying, by those who waited neither.
#[test]
fn a_server_that_is_down_keeps_nobody_waiting() {
    let pool = pool(1, Duration::from_secs(30));
    run(async {
        let held = pool.lend().await.expect("a connection");
        let late = async {
            pool.health().connect_failed("connection refused");
            // It is of no use any more.
            drop(held);
        };
        let (waited, ()) = tokio::join!(pool.lend(), late);
        assert!(matches!(waited, Err(SqlError::Down { .. })), "{waited:?}");
        let begun = clock::now();
        let next = pool.lend().await;
        assert!(matches!(next, Err(SqlError::Down { .. })), "{next:?}");
        assert!(clock::now() - begun < Duration::from_millis(500));
        assert_eq!((pool.counts(), pool.waiting()), ((0, 0), 0));
    });
}
