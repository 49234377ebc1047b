//! The memcached load: 50 connections, each with a full pipeline of `set` or `get` in flight.
//!
//! A connection writes a batch, reads all its replies, and starts over; a batch's time is the latency
//! of each of its requests. Invariant: any reply but the expected one ends the run with an error.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::rig::KEYS;
use super::{Load, Measured};

const CONNECTIONS: u64 = 50;

/// One run.
pub(crate) fn run(port: u16, load: &Load) -> Result<Measured> {
    let set = match load.test {
        "set" => true,
        "get" => false,
        other => bail!("no memcached load is called {other:?}"),
    };
    let depth = u64::from(load.depth);
    let batches = load.requests.div_ceil(CONNECTIONS * depth);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let begun = Instant::now();
    let mut times = LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let keys = Keys {
                    state: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
                    next: None,
                };
                tokio::task::spawn_local(client(port, set, depth, batches, keys))
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        anyhow::Ok(times)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    let requests = (batches * CONNECTIONS * depth) as f64;
    Ok(Measured {
        per_second: requests / seconds,
        p50_ms: at(50),
        p99_ms: at(99),
    })
}

/// Writes every key once.
pub(crate) fn fill(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let keys = Keys {
        state: 0,
        next: Some(0),
    };
    runtime.block_on(client(port, true, 100, u64::from(KEYS) / 100, keys))?;
    Ok(())
}

/// Key numbers, at random or one after another.
struct Keys {
    state: u64,
    next: Option<u64>,
}

impl Keys {
    fn take(&mut self) -> u64 {
        if let Some(next) = &mut self.next {
            *next += 1;
            return (*next - 1) % u64::from(KEYS);
        }
        // xorshift64: a loader needs no better.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % u64::from(KEYS)
    }
}

async fn client(
    port: u16,
    set: bool,
    depth: u64,
    batches: u64,
    mut keys: Keys,
) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    let mut replies = Replies {
        buffer: vec![0; 64 * 1024],
        filled: 0,
    };
    let mut times = Vec::new();
    for _ in 0..batches {
        request.clear();
        for _ in 0..depth {
            let key = keys.take();
            if set {
                request.extend_from_slice(format!("set key:{key:012} 0 0 3\r\nxxx\r\n").as_bytes());
            } else {
                request.extend_from_slice(format!("get key:{key:012}\r\n").as_bytes());
            }
        }
        let begun = Instant::now();
        stream.write_all(&request).await?;
        replies
            .read(&mut stream, if set { depth } else { 3 * depth })
            .await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

struct Replies {
    buffer: Vec<u8>,
    filled: usize,
}

impl Replies {
    /// Reads so many lines, and nothing may be left over.
    async fn read(&mut self, stream: &mut TcpStream, mut lines: u64) -> Result<()> {
        while lines > 0 {
            let room = self
                .buffer
                .get_mut(self.filled..)
                .context("a reply line without an end")?;
            let count = stream.read(room).await?;
            if count == 0 {
                bail!("the connection was closed");
            }
            self.filled += count;
            let bytes = self.buffer.get(..self.filled).unwrap_or_default();
            let mut begin = 0;
            for (end, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                let line = bytes.get(begin..=end).unwrap_or_default();
                if !matches!(line.first(), Some(b'V' | b'x'))
                    && line != b"END\r\n"
                    && line != b"STORED\r\n"
                {
                    bail!("unexpected reply: {}", line.escape_ascii());
                }
                begin = end + 1;
                lines = lines.checked_sub(1).context("more replies than requests")?;
            }
            self.buffer.copy_within(begin..self.filled, 0);
            self.filled -= begin;
        }
        Ok(())
    }
}
