//! Uses a PostgreSQL the way programs do, with two Rust clients: `sql-clients CLIENT PORT DATABASE`.
//!
//! Not a test by itself: the workspace's tests start a gateway and run this. Invariant: "all good" on
//! the last line means that every answer was right.

mod sqlx_pool;
mod tokio_pg;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [client, port, database] = &words[..] else {
        return Err("usage: sql-clients CLIENT PORT DATABASE".into());
    };
    let port = port.parse()?;
    match client.as_str() {
        "tokio-postgres" => tokio_pg::all(port, database).await?,
        "sqlx" => sqlx_pool::all(port, database).await?,
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
