//! Loopback ports for servers under test.
//!
//! Ports lie below the range the kernel hands to outgoing connections, and each is locked by a file
//! for as long as this process lives, so tests that run beside each other never take the same one.
//! Invariant: a port is given out once in a process.

use std::fs::File;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

const LOWEST: u32 = 12_000;
const COUNT: u32 = 20_000;

static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port on 127.0.0.1 that nobody listens on and no other test process will take.
pub fn free_port() -> Result<u16> {
    Ok(free_listener()?.local_addr()?.port())
}

/// A listener on such a port.
pub(crate) fn free_listener() -> Result<TcpListener> {
    let folder = std::env::temp_dir().join("breccia-testkit-ports");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    // Different processes start at different places; the step is prime to the count.
    let start = std::process::id().wrapping_mul(7_919);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(LOWEST + start.wrapping_add(step.wrapping_mul(13)) % COUNT)?;
        let lock = File::create(folder.join(port.to_string()))?;
        if lock.try_lock().is_err() {
            continue;
        }
        let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) else {
            continue;
        };
        LOCKS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(lock);
        return Ok(listener);
    }
    bail!("no free port between {LOWEST} and {}", LOWEST + COUNT)
}
