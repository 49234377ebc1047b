//! The testkit's own promises, on real servers.
//!
//! Not a test of Breccia. Invariant: needs redis-server, memcached and openssl, nothing built.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use breccia_testkit::{
    Certificates, Fault, FaultyProxy, Memcached, Redis, RedisOptions, Reply, RespClient,
};

#[test]
fn a_redis_answers_freezes_thaws_and_keeps_its_port() -> Result<()> {
    let mut redis = Redis::start(RedisOptions {
        append_only: true,
        ..RedisOptions::default()
    })?;
    let mut client = redis.client()?;
    client.expect_ok(&[b"SET", b"a", b"1"])?;
    redis.sigstop()?;
    client.set_patience(Duration::from_millis(100))?;
    assert!(client.words("GET a").is_err());
    redis.sigcont()?;
    redis.kill9();
    assert!(RespClient::connect(&redis.address()).is_err());
    redis.restart_same_port()?;
    assert_eq!(redis.client()?.words("GET a")?, b"$1\r\n1\r\n");
    Ok(())
}

#[test]
fn a_redis_takes_passwords_users_sockets_and_tls() -> Result<()> {
    let redis = Redis::start(RedisOptions {
        password: Some("secret".to_owned()),
        users: vec!["app on >word ~* &* +@all".to_owned()],
        unix_socket: true,
        tls: Some(Certificates::new()?),
        ..RedisOptions::default()
    })?;
    let mut client = RespClient::connect_unix(&redis.socket())?;
    assert!(client.words("PING")?.starts_with(b"-NOAUTH"));
    assert_eq!(client.words("AUTH app word")?, b"+OK\r\n");
    assert_eq!(redis.client()?.words("PING")?, b"+PONG\r\n");
    TcpStream::connect(("127.0.0.1", redis.tls_port().unwrap()))?;
    Ok(())
}

#[test]
fn replies_are_framed_whole() -> Result<()> {
    let redis = Redis::new()?;
    let mut client = redis.client()?;
    client.words("HELLO 3")?;
    client.words("RPUSH l a b")?;
    client.words("HSET h f v")?;
    let replies = client.pipeline(&["LRANGE l 0 -1", "HGETALL h", "GET none", "ZADD z 1.5 m"])?;
    assert_eq!(replies[0], b"*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(replies[1], b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(replies[2], b"_\r\n");
    assert_eq!(client.words("ZSCORE z m")?, b",1.5\r\n");
    assert_eq!(Reply::parse(&replies[0])?.shape(), "array[bulk,bulk]");
    Ok(())
}

#[test]
fn a_memcached_answers_and_keeps_its_port() -> Result<()> {
    let mut memcached = Memcached::new()?;
    let mut client = memcached.client()?;
    assert_eq!(client.call(b"set a 0 0 1\r\n1\r\n")?, b"STORED\r\n");
    assert_eq!(client.call(b"get a b\r\n")?, b"VALUE a 0 1\r\n1\r\nEND\r\n");
    assert_eq!(client.call(b"mg a v\r\n")?, b"VA 1\r\n1\r\n");
    memcached.kill9();
    memcached.restart_same_port()?;
    assert_eq!(memcached.client()?.call(b"get a\r\n")?, b"END\r\n");
    Ok(())
}

/// A server that answers every byte with a hundred.
fn verbose_server() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&[b'x'; 100]).is_ok()
                {
                }
            });
        }
    });
    Ok(port)
}

#[test]
fn a_faulty_proxy_does_as_it_is_told() -> Result<()> {
    let proxy = FaultyProxy::start(&format!("127.0.0.1:{}", verbose_server()?))?;
    let check = |fault: Fault, wanted: Result<usize, std::io::ErrorKind>| -> Result<()> {
        proxy.set(fault);
        let mut stream = TcpStream::connect(proxy.address())?;
        stream.set_read_timeout(Some(Duration::from_millis(400)))?;
        stream.write_all(b"?")?;
        let mut answer = Vec::new();
        let mut piece = [0; 100];
        let outcome = loop {
            match stream.read(&mut piece) {
                Ok(0) => break Ok(answer.len()),
                Ok(count) => answer.extend_from_slice(&piece[..count]),
                Err(_) if answer.len() == 100 => break Ok(100),
                Err(error) => break Err(error.kind()),
            }
        };
        assert_eq!(outcome, wanted, "{fault:?} after {} bytes", answer.len());
        Ok(())
    };
    check(Fault::None, Ok(100))?;
    check(Fault::Delay(Duration::from_millis(50)), Ok(100))?;
    check(Fault::Throttle(1000), Ok(100))?;
    check(Fault::CutAfter(30), Ok(30))?;
    check(
        Fault::ResetAfter(30),
        Err(std::io::ErrorKind::ConnectionReset),
    )?;
    check(Fault::BlackHole, Err(std::io::ErrorKind::WouldBlock))?;
    proxy.set(Fault::None);
    let mut open = TcpStream::connect(proxy.address())?;
    open.write_all(b"?")?;
    open.read_exact(&mut [0; 100])?;
    proxy.reset_all();
    let begun = Instant::now();
    assert!(open.read(&mut [0; 1]).is_err());
    assert!(begun.elapsed() < Duration::from_secs(1));
    Ok(())
}
