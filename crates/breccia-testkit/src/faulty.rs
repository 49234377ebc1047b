//! A TCP proxy that misbehaves on demand, to stand between Breccia and a server.
//!
//! Requests pass untouched, but for [`Fault::BlackHole`] and [`Fault::CutRequestAfter`]; the other
//! faults apply to what the server sends back. `CutAfter(0)` loses a whole reply after the server has
//! done what the request asked. Not a proxy for speed: two threads a connection. Invariant: a fault set applies at once to
//! open connections and to new ones.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

/// What the proxy does to bytes on their way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Passes everything.
    #[default]
    None,
    /// Holds each piece back for a while.
    Delay(Duration),
    /// Passes so many bytes a second.
    Throttle(u64),
    /// Passes so many bytes of each connection, counted from now, then resets it (RST).
    ResetAfter(u64),
    /// The same, but closes it in order (FIN).
    CutAfter(u64),
    /// Passes so many bytes of what the client sends on each connection, counted from now, then resets
    /// it on both sides: an upload that breaks halfway.
    CutRequestAfter(u64),
    /// Passes requests and swallows what comes back, and stays open: done, but nobody learns of it.
    SwallowReplies,
    /// Swallows everything in both directions and stays open.
    BlackHole,
    /// Closes new connections at once, keeps old ones.
    Refuse,
}

#[derive(Debug, Default)]
struct Shared {
    fault: Mutex<(Fault, u64)>,
    open: Mutex<Vec<(TcpStream, TcpStream)>>,
    accepted: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    fn fault(&self) -> (Fault, u64) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy on 127.0.0.1 in front of one server.
#[derive(Debug)]
pub struct FaultyProxy {
    port: u16,
    shared: Arc<Shared>,
}

impl FaultyProxy {
    /// Listens on a free port and passes connections to `target` (`host:port`).
    pub fn start(target: &str) -> Result<FaultyProxy> {
        let listener = crate::ports::free_listener().context("the faulty proxy's port")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let (for_thread, target) = (Arc::clone(&shared), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if for_thread.ended.load(Ordering::Relaxed) {
                    return;
                }
                if for_thread.fault().0 == Fault::Refuse {
                    reset(&client);
                    continue;
                }
                for_thread.accepted.fetch_add(1, Ordering::Relaxed);
                // A server that is down looks like a reset.
                match TcpStream::connect(&target) {
                    Ok(server) => drop(join(&for_thread, client, server)),
                    Err(_) => reset(&client),
                }
            }
        });
        Ok(FaultyProxy { port, shared })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sets what happens from now on.
    pub fn set(&self, fault: Fault) {
        let mut current = self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = (fault, current.1 + 1);
    }

    /// Resets every open connection now.
    pub fn reset_all(&self) {
        let mut open = self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (client, server) in open.drain(..) {
            reset(&client);
            // Wakes both threads; the reset goes out when they let go of the socket.
            let _read = client.shutdown(Shutdown::Read);
            let _both = server.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _wake = TcpStream::connect(("127.0.0.1", self.port));
        self.reset_all();
    }
}

/// Makes the coming close a reset.
fn reset(stream: &TcpStream) {
    let _done = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn join(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    shared
        .open
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((client.try_clone()?, server.try_clone()?));
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let forward = Arc::clone(shared);
    std::thread::spawn(move || requests(&forward, from_client, to_server));
    let backward = Arc::clone(shared);
    std::thread::spawn(move || replies(&backward, server, client));
    Ok(())
}

fn requests(shared: &Shared, mut client: TcpStream, mut server: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    let mut budget = Budget::default();
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        let (fault, change) = shared.fault();
        let (passed, cut) = match fault {
            Fault::BlackHole => continue,
            Fault::CutRequestAfter(limit) => budget.spend(bytes, limit, change),
            _ => (bytes, false),
        };
        if server.write_all(passed).is_err() {
            break;
        }
        if cut {
            // Let the part arrive first: a reset discards what is unread.
            std::thread::sleep(Duration::from_millis(2));
            reset(&client);
            reset(&server);
            forget(shared, &client);
            let _wake = server.shutdown(Shutdown::Read);
            let _wake = client.shutdown(Shutdown::Read);
            return;
        }
    }
    let _half = server.shutdown(Shutdown::Write);
}

/// What is left of the bytes that a fault lets through on one connection.
#[derive(Debug, Default)]
struct Budget(Option<(u64, u64)>);

impl Budget {
    /// The part of `bytes` that passes, and whether the connection ends after it. The count begins
    /// anew with each change of the fault.
    fn spend<'a>(&mut self, bytes: &'a [u8], limit: u64, change: u64) -> (&'a [u8], bool) {
        let left = match self.0 {
            Some((left, since)) if since == change => left,
            _ => limit,
        };
        let part = usize::try_from(left).unwrap_or(usize::MAX);
        let passed = bytes.get(..part).unwrap_or(bytes);
        self.0 = Some((left - passed.len() as u64, change));
        (passed, part < bytes.len())
    }
}

fn replies(shared: &Shared, mut server: TcpStream, mut client: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    let mut budget = Budget::default();
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        let (fault, change) = shared.fault();
        let passed = match fault {
            Fault::None | Fault::Refuse | Fault::CutRequestAfter(_) => client.write_all(bytes),
            Fault::BlackHole | Fault::SwallowReplies => Ok(()),
            Fault::Delay(time) => {
                std::thread::sleep(time);
                client.write_all(bytes)
            }
            Fault::Throttle(rate) => throttle(&mut client, bytes, rate),
            Fault::ResetAfter(limit) | Fault::CutAfter(limit) => {
                let (part, cut) = budget.spend(bytes, limit, change);
                let written = client.write_all(part);
                if cut {
                    if matches!(fault, Fault::ResetAfter(_)) {
                        // Let the part arrive first: a reset discards what is unread.
                        std::thread::sleep(Duration::from_millis(2));
                        reset(&client);
                    }
                    break;
                }
                written
            }
        };
        if passed.is_err() {
            break;
        }
    }
    forget(shared, &client);
    let _both = server.shutdown(Shutdown::Both);
    let _read = client.shutdown(Shutdown::Read);
}

/// Drops the kept copies of a connection, so that closing the last one closes it.
fn forget(shared: &Shared, client: &TcpStream) {
    let peer = client.peer_addr().ok();
    let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|(kept, _)| kept.peer_addr().ok() != peer);
}

fn throttle(client: &mut TcpStream, bytes: &[u8], rate: u64) -> std::io::Result<()> {
    let piece = usize::try_from(rate / 50).unwrap_or(1).max(1);
    for part in bytes.chunks(piece) {
        client.write_all(part)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
