//! Uses a MySQL or MariaDB server the way programs do, with two Rust clients:
//! `mysql-clients CLIENT PORT DATABASE`. Prints what it sees.
//!
//! Not a test by itself: the workspace's tests run this against a server and through a gateway, and
//! hold the two against each other. Invariant: nothing printed differs from run to run.

mod mysql_pool;
mod sqlx_pool;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Sizes of values at which a value no longer fits one packet, and one of several packets.
const SIZES: [usize; 3] = [(16 << 20) - 1, 16 << 20, 64 << 20];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [client, port, database] = &words[..] else {
        return Err("usage: mysql-clients CLIENT PORT DATABASE".into());
    };
    let url = format!("mysql://breccia:secret@127.0.0.1:{port}/{database}");
    match client.as_str() {
        "mysql-async" => mysql_pool::all(&url).await?,
        "sqlx" => sqlx_pool::all(&url).await?,
        other => return Err(format!("no client {other}").into()),
    }
    println!("all good");
    Ok(())
}

/// Bytes without a pattern that a page of memory could hide.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size).map(|_| next()).collect()
}
