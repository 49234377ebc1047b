//! Sends over pairs of sockets.
//!
//! Not of TCP. Invariant: where the system allows no ring, nothing is claimed.

use std::io::ErrorKind;

use super::*;

/// A ring, or `None` where this machine allows none: then nobody uses one either.
fn ring(most: u32) -> Option<SendRing> {
    SendRing::new(most)
        .inspect_err(|error| eprintln!("no io_uring here: {error}"))
        .ok()
}

#[test]
fn every_piece_reaches_its_socket_however_many_there_are() {
    let Some(mut ring) = ring(4) else { return };
    let pairs: Vec<_> = (0..11)
        .map(|_| UnixStream::pair().expect("a pair"))
        .collect();
    let texts: Vec<String> = (0..11).map(|number| format!("piece {number}")).collect();
    let pieces: Vec<Piece<'_>> = pairs
        .iter()
        .zip(&texts)
        .map(|((near, _), text)| Piece {
            socket: near.as_fd(),
            bytes: text.as_bytes(),
        })
        .collect();
    for round in 0..3 {
        ring.send(&pieces).expect("a ring that works");
        for (number, ((_, far), text)) in pairs.iter().zip(&texts).enumerate() {
            let sent = ring.outcome(number).expect("an outcome").expect("sent");
            assert_eq!(sent, text.len(), "round {round}");
            let mut got = vec![0; sent];
            (&*far).read_exact(&mut got).expect("the piece");
            assert_eq!(got, text.as_bytes());
        }
    }
    assert!(ring.outcome(11).is_none(), "there was no such piece");
}

#[test]
fn a_full_socket_takes_a_part_and_then_nothing_and_nobody_waits() {
    let Some(mut ring) = ring(4) else { return };
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let bytes: Vec<u8> = (0..8 << 20).map(|at: u32| at.to_le_bytes()[0]).collect();
    let piece = [Piece {
        socket: near.as_fd(),
        bytes: &bytes,
    }];
    ring.send(&piece).expect("a ring that works");
    let part = ring.outcome(0).expect("an outcome").expect("a part");
    assert!((1..bytes.len()).contains(&part), "{part} bytes were taken");
    ring.send(&piece).expect("a ring that works");
    let refused = ring.outcome(0).expect("an outcome").expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    let mut got = vec![0; part];
    far.read_exact(&mut got).expect("the part");
    assert_eq!(got, bytes[..part]);
}

#[test]
fn one_socket_that_is_gone_is_nobody_elses_trouble() {
    let Some(mut ring) = ring(4) else { return };
    let (gone, other) = UnixStream::pair().expect("a pair");
    drop(other);
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let pieces = [gone.as_fd(), near.as_fd()].map(|socket| Piece {
        socket,
        bytes: b"hello",
    });
    ring.send(&pieces).expect("a ring that works");
    let lost = ring.outcome(0).expect("an outcome").expect_err("gone");
    assert_eq!(lost.kind(), ErrorKind::BrokenPipe);
    assert_eq!(ring.outcome(1).expect("an outcome").expect("sent"), 5);
    let mut got = [0; 5];
    far.read_exact(&mut got).expect("the piece");
}
