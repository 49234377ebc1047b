//! A connection to a server that is played here.
//!
//! Invariant: as in `super`.

use std::io::{Read, Write};

use breccia_core::address::Address;

use super::*;
use crate::io::DEFAULT_LIMITS;
use crate::resp::codec::reply::{Expected, RespWire};

struct Reader;

impl Recipient for Reader {
    fn deliver(self, _: &[u8]) {}
    fn fail(self, _: &Failure) {}
    fn abandoned(&self) -> bool {
        false
    }
    fn takes_pieces(&mut self) -> bool {
        true
    }
}

#[test]
fn a_retired_connection_that_is_lost_ends() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _asked = stream.read(&mut [0; 100]).unwrap();
        stream.write_all(b"$2000000\r\nbeginning").unwrap();
    });
    let address = Address::tcp("127.0.0.1", port).unwrap();
    let health = EndpointHealth::new("a".into(), address.clone());
    let terms = crate::endpoint::Terms::simple(Place::plain(address), DEFAULT_LIMITS);
    let options = UpstreamOptions {
        name: "a".into(),
        endpoint: Endpoint::new(terms, health),
        greeter: Arc::new(|_| Greeting::default()),
        identity: None,
        through: None,
        fragile: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let upstream = Upstream::<RespWire, Reader>::open(options, None);
        upstream.set_successor(Box::new(|| None));
        let expires = clock::now() + Duration::from_secs(5);
        let write = |out: &mut Vec<u8>| out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        let (shape, patience) = (Expected::One, Patience::Unbounded);
        // The canary, which the server answers with too much, is thrown away in pieces.
        let asked = upstream.enqueue(Reader, shape, expires, patience, write);
        assert!(asked.is_ok());
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if Rc::strong_count(&upstream) == 1 {
                break;
            }
        }
        assert!(upstream.is_retired());
        assert_eq!(Rc::strong_count(&upstream), 1, "its task goes on");
    });
    server.join().unwrap();
}
