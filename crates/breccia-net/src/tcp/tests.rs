//! Bytes of TCP connections on a worker's runtime, each send by itself and all of a turn together.
//!
//! Not of the ring itself. Invariant: a peer sees the same bytes both ways.

use std::future::poll_fn;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;

use super::*;

/// Runs a test twice on a worker's runtime: each send by itself, and all of a turn together.
fn both_ways<F: Future<Output = ()>>(test: impl Fn(bool) -> F) {
    for joined in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .expect("a runtime");
        runtime.block_on(async {
            if joined && let Err(error) = sends::join_here() {
                eprintln!("no io_uring here: {error}");
                return;
            }
            test(joined).await;
            sends::part_here();
        });
    }
}

async fn pair() -> (Tcp, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let near = TcpStream::connect(address).await.expect("a connection");
    let (far, _) = listener.accept().await.expect("its other end");
    near.set_nodelay(true).expect("an option");
    (near.into(), far)
}

/// What a peer must see, byte for byte.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 + at / 251).to_le_bytes()[0])
        .collect()
}

/// Writes small pieces, a turn each, until one has to wait: how many bytes were taken.
async fn fill(near: &mut Tcp, all: &[u8], size: usize) -> usize {
    let mut written = 0;
    loop {
        let piece = all.get(written..written + size).expect("enough of them");
        let once = poll_fn(|context| Poll::Ready(Pin::new(&mut *near).poll_write(context, piece)));
        match once.await {
            Poll::Ready(count) => written += count.expect("written"),
            Poll::Pending => return written,
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn bytes_arrive_in_order_in_whatever_pieces_they_are_written() {
    both_ways(async |_| {
        let (mut near, mut far) = pair().await;
        let all = pattern(3 << 20);
        let expected = all.clone();
        let reader = tokio::task::spawn_local(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.expect("bytes");
            got
        });
        let mut rest = all.as_slice();
        for size in [1, 7, 300, 16 * 1024, 16 * 1024 + 1, 100_000]
            .iter()
            .cycle()
        {
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            near.write_all(piece).await.expect("written");
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        near.shutdown().await.expect("an end");
        assert!(reader.await.expect("a reader") == expected, "other bytes");
    });
}

#[test]
fn what_was_written_leaves_by_itself_and_reads_go_on() {
    both_ways(async |_| {
        let (mut near, mut far) = pair().await;
        for round in 0..50_u8 {
            near.write_all(&[round; 10]).await.expect("written");
            let mut got = [0; 10];
            far.read_exact(&mut got).await.expect("the question");
            assert_eq!(got, [round; 10]);
            far.write_all(&got).await.expect("an answer");
            near.read_exact(&mut got).await.expect("the answer");
        }
    });
}

#[test]
fn the_last_bytes_of_a_connection_that_is_dropped_arrive() {
    both_ways(async |_| {
        let (mut near, mut far) = pair().await;
        near.write_all(b"goodbye").await.expect("written");
        drop(near);
        let mut got = String::new();
        far.read_to_string(&mut got).await.expect("the end");
        assert_eq!(got, "goodbye");
    });
}

#[test]
fn the_last_bytes_arrive_though_the_runtime_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime");
    let (near, far) = runtime.block_on(async {
        let _ = sends::join_here();
        let (mut near, far) = pair().await;
        near.write_all(b"goodbye").await.expect("written");
        sends::part_here();
        (near, far.into_std().expect("a socket"))
    });
    drop((near, runtime));
    far.set_nonblocking(false).expect("a socket that waits");
    let mut got = String::new();
    std::io::Read::read_to_string(&mut &far, &mut got).expect("the end");
    assert_eq!(got, "goodbye");
}

#[test]
fn who_does_not_read_stops_the_writer_and_is_sent_the_rest_later() {
    both_ways(async |_| {
        let (mut near, mut far) = pair().await;
        let all = pattern(64 << 20);
        let written = fill(&mut near, &all, 8000).await;
        let mut got = vec![0; written];
        far.read_exact(&mut got).await.expect("all of it");
        assert!(got == all[..written], "other bytes");
        near.write_all(b"more").await.expect("room again");
        far.read_exact(&mut got[..4]).await.expect("the rest");
        assert_eq!(&got[..4], b"more");
    });
}

#[test]
fn a_writer_whose_peer_is_gone_is_told() {
    both_ways(async |_| {
        let (mut near, far) = pair().await;
        drop(far);
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = near.write_all(b"hello").await {
                break error;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "no error");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}

#[test]
fn many_connections_of_one_turn_all_get_theirs() {
    both_ways(async |_| {
        let mut pairs = Vec::new();
        for _ in 0..200 {
            pairs.push(pair().await);
        }
        let far: Vec<_> = pairs
            .into_iter()
            .enumerate()
            .map(|(number, (mut near, mut far))| {
                tokio::task::spawn_local(async move {
                    let text = format!("number {number:05}");
                    near.write_all(text.as_bytes()).await.expect("written");
                    let mut got = vec![0; text.len()];
                    far.read_exact(&mut got).await.expect("it");
                    assert_eq!(got, text.as_bytes());
                    (near, far)
                })
            })
            .collect();
        for task in far {
            task.await.expect("a task");
        }
    });
}

#[test]
fn a_connection_is_taken_to_another_runtime_with_all_it_has_sent() {
    both_ways(async |_| {
        let (mut near, mut far) = pair().await;
        near.write_all(b"one ").await.expect("written");
        let socket = near.into_std().expect("a socket");
        let mut near = Tcp::from(TcpStream::from_std(socket).expect("registered"));
        near.write_all(b"two").await.expect("written");
        near.shutdown().await.expect("an end");
        let mut got = String::new();
        far.read_to_string(&mut got).await.expect("the end");
        assert_eq!(got, "one two");
    });
}

#[test]
fn a_turn_keeps_few_buffers() {
    both_ways(async |joined| {
        let (mut near, mut far) = pair().await;
        let mut got = vec![0; 16 * 1024];
        near.write_all(&pattern(got.len())).await.expect("written");
        far.read_exact(&mut got).await.expect("it");
        let kept = near.outbox.lock().waiting.capacity();
        assert_eq!(kept, 0, "joined: {joined}");
    });
}

#[test]
fn a_writer_that_waits_goes_on_however_slowly_its_peer_reads() {
    both_ways(async |joined| {
        for chunk in [16 * 1024 + 1, 64 * 1024, 100_000, 256 * 1024 + 777] {
            let (mut near, mut far) = pair().await;
            let all = pattern(16 << 20);
            let expected = all.clone();
            let reader = tokio::task::spawn_local(async move {
                let mut got = Vec::new();
                let mut space = vec![0; 300_000];
                loop {
                    match far.read(&mut space).await.expect("bytes") {
                        0 => break got,
                        count => got.extend_from_slice(&space[..count]),
                    }
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            });
            let writing = async {
                for piece in all.chunks(chunk) {
                    near.write_all(piece).await.expect("written");
                    // And a small one behind it, in the same turn.
                    near.write_all(&[]).await.expect("written");
                }
                near.shutdown().await.expect("an end");
            };
            let done = tokio::time::timeout(Duration::from_secs(30), writing).await;
            assert!(done.is_ok(), "stuck: chunks of {chunk}, joined: {joined}");
            assert!(reader.await.expect("a reader") == expected, "other bytes");
        }
    });
}

#[test]
fn an_end_comes_behind_what_a_full_socket_had_no_room_for() {
    both_ways(async |joined| {
        let (mut near, mut far) = pair().await;
        let all = pattern(64 << 20);
        let written = fill(&mut near, &all, 5000).await;
        let ended = tokio::task::spawn_local(async move {
            near.shutdown().await.expect("an end");
            near
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut got = Vec::new();
        let reading = far.read_to_end(&mut got);
        let read = tokio::time::timeout(Duration::from_secs(30), reading).await;
        assert!(read.is_ok(), "no end came, joined: {joined}");
        assert!(got == all[..written], "other bytes");
        drop(ended.await.expect("it has ended"));
    });
}
