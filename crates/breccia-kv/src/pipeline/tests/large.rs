//! Requests that come bit by bit and replies that are passed on in pieces.
//!
//! Invariant: as in `super`.

use super::*;

impl Bench {
    fn begin(&mut self, ms: u64, name: &'static str) {
        let waiter = Waiter {
            name,
            log: self.log.clone(),
            gone: false,
        };
        let (expires, bytes) = (self.at(ms + 1000), name.as_bytes());
        let begun = self
            .queue
            .begin(waiter, (), expires, Patience::Timeout, bytes);
        assert!(begun.is_ok());
    }
}

#[test]
fn a_growing_request_is_written_as_it_comes_and_answered_at_its_end() {
    let mut bench = Bench::new();
    bench.begin(0, "head");
    assert_eq!(bench.write(0, 2), "he");
    bench.queue.grow(b"+body");
    assert_eq!(bench.write(0, 100), "ad+body");
    assert!(!bench.queue.deliver(b"+early"), "it is not whole");
    bench.queue.grow(b"+end");
    bench.queue.end_growing();
    assert!(bench.queue.is_incomplete(), "its end is not written");
    assert_eq!(bench.write(0, 100), "+end");
    assert!(!bench.queue.is_incomplete());
    assert_eq!(bench.queue.takes(), None);
    assert!(bench.queue.deliver(b"1"));
    assert_eq!(
        bench.log(),
        ["head wants more", "head wants more", "head=1"]
    );
}

#[test]
fn a_growing_request_takes_a_bounded_number_of_bytes_however_much_passes() {
    let mut bench = Bench::new();
    bench.begin(0, "head");
    let mut passed = 0;
    for _ in 0..1000 {
        let room = bench.queue.takes().unwrap();
        bench.queue.grow(&vec![b'x'; room.min(64 * 1024)]);
        passed += bench.write(0, 50_000).len();
        assert!(bench.queue.buffer.capacity() <= 1 << 20);
    }
    assert!(passed > 40_000_000);
    assert!(bench.queue.takes() <= Some(256 * 1024));
}

#[test]
fn a_growing_request_is_late_only_while_the_server_takes_nothing() {
    let mut bench = Bench::new();
    bench.begin(0, "head");
    assert_eq!(bench.write(0, 100), "head");
    // The client pauses.
    for ms in (0..60_000).step_by(1000) {
        assert_eq!(bench.queue.expire(bench.at(ms)), 0);
        assert!(!bench.queue.silent_too_long(bench.at(ms)));
    }
    bench.queue.grow(b"more");
    assert_eq!(bench.queue.expire(bench.at(63_000)), 0);
    assert_eq!(bench.write(63_000, 2), "mo");
    assert_eq!(bench.queue.expire(bench.at(67_999)), 0);
    assert!(!bench.queue.silent_too_long(bench.at(67_999)));
    assert_eq!(bench.queue.expire(bench.at(68_000)), 1);
    assert_eq!(
        bench.log(),
        ["head wants more", "head wants more", "head: not applied"]
    );
    assert!(bench.queue.is_incomplete(), "the connection must be closed");
}

#[test]
fn a_growing_request_that_is_lost_or_not_begun_is_not_applied() {
    let mut bench = Bench::new();
    bench.begin(0, "head");
    bench.write(0, 100);
    bench.log();
    bench.queue.fail_all(&Cause::Lost("reset".into()));
    assert_eq!(bench.log(), ["head: not applied"]);
    assert_eq!(bench.queue.takes(), None);

    // Behind a canary that is not answered.
    bench.begin(100, "late");
    assert_eq!(bench.write(100, 100), "?");
    bench.queue.grow(b"more");
    assert_eq!(bench.queue.expire(bench.at(1100)), 1);
    assert_eq!(bench.log(), ["late: not applied"]);
    assert_eq!(bench.queue.takes(), None);
    bench.queue.grow(b"more");
    assert!(!bench.queue.has_unsent());

    let mut bench = Bench::new();
    bench.begin(0, "whole");
    bench.queue.end_growing();
    bench.write(0, 100);
    bench.queue.fail_all(&Cause::Lost("reset".into()));
    assert_eq!(bench.log().last().unwrap(), "whole: unknown");
}

#[test]
fn a_canary_before_a_growing_request_is_answered_as_ever() {
    let mut bench = Bench::new();
    bench.begin(200, "head");
    assert_eq!(bench.write(200, 100), "?");
    bench.queue.grow(b"+body");
    assert!(bench.queue.deliver(b"pong"));
    bench.queue.heard(bench.at(201));
    assert_eq!(bench.write(201, 100), "head+body");
    bench.queue.end_growing();
    assert!(bench.queue.deliver(b"1"));
    assert_eq!(bench.log(), ["head wants more", "head=1"]);
}

#[test]
fn a_server_that_refuses_before_the_end_is_heard_and_given_up() {
    let mut bench = Bench::new();
    bench.begin(0, "head");
    bench.write(0, 100);
    bench.log();
    assert!(!bench.queue.deliver(b"-ERR too long"));
    assert_eq!(bench.log(), ["head=-ERR too long"]);
    bench.queue.fail_all(&Cause::Lost("given up".into()));
    assert!(bench.log().is_empty(), "it was answered");
}

#[test]
fn a_reply_in_pieces_counts_from_its_last_piece_and_others_from_their_own_time() {
    let mut bench = Bench::new();
    bench.ask(0, "p");
    bench.ask(0, "other");
    bench.write(0, 100);
    assert_eq!(bench.queue.take_large(), Taking::Pieces);
    bench.queue.piece(b"1", bench.at(4000));
    assert_eq!(bench.queue.expire(bench.at(4999)), 0);
    assert_eq!(bench.queue.others_since(), Some(bench.at(0)));
    assert_eq!(bench.queue.expire(bench.at(5000)), 1);
    assert_eq!(bench.queue.others_since(), None);
    bench.queue.piece(b"2", bench.at(8000));
    bench.queue.end_pieces(bench.at(8000));
    assert_eq!(bench.log(), ["p<1", "other: unknown", "p<2", "p."]);
    assert!(bench.queue.deliver(b"late"), "for the other");
    assert!(bench.queue.is_empty());
}

#[test]
fn what_a_reader_asked_for_behind_its_reply_counts_from_the_end_of_it() {
    let mut bench = Bench::new();
    for name in ["p", "pa", "other", "pb"] {
        bench.ask(0, name);
    }
    bench.write(0, 100);
    assert_eq!(bench.queue.take_large(), Taking::Pieces);
    assert_eq!(bench.queue.others_since(), Some(bench.at(0)));
    bench.queue.piece(b"1", bench.at(4000));
    assert_eq!(bench.queue.expire(bench.at(5000)), 1);
    assert_eq!(bench.queue.others_since(), None, "its own are no others");
    assert!(bench.queue.has_followers());
    bench.queue.holds_back(bench.at(8000));
    assert_eq!(bench.queue.expire(bench.at(12_999)), 0);
    bench.queue.end_pieces(bench.at(12_999));
    assert_eq!(bench.queue.expire(bench.at(17_998)), 0);
    assert_eq!(bench.queue.expire(bench.at(17_999)), 2);
    let log = ["p<1", "other: unknown", "p.", "pa: unknown", "pb: unknown"];
    assert_eq!(bench.log(), log);
}

#[test]
fn others_are_told_in_time_though_a_reader_s_own_requests_stand_between() {
    let mut bench = Bench::new();
    for name in ["p", "pa", "other"] {
        bench.ask(0, name);
    }
    bench.write(0, 100);
    assert_eq!(bench.queue.take_large(), Taking::Pieces);
    bench.queue.piece(b"1", bench.at(4000));
    bench.queue.end_pieces(bench.at(4000));
    assert_eq!(bench.queue.expire(bench.at(5000)), 1);
    assert_eq!(bench.log(), ["p<1", "p.", "other: unknown"]);
}

#[test]
fn a_reply_that_must_be_whole_may_be_refused() {
    let mut bench = Bench::new();
    bench.ask(0, "whole");
    assert_eq!(bench.queue.take_large(), Taking::Unasked);
    bench.write(0, 100);
    assert_eq!(bench.queue.take_large(), Taking::Whole);
    bench
        .queue
        .refuse_large(&Cause::LargeReply("too large".into()));
    assert_eq!(bench.log(), ["whole: unknown"]);
    bench.queue.piece(b"1", bench.at(0));
    bench.queue.end_pieces(bench.at(0));
    assert!(bench.log().is_empty() && bench.queue.is_empty());
}

#[test]
fn what_was_not_sent_leaves_a_busy_connection_unless_it_would_overtake() {
    let mut bench = Bench::new();
    for name in ["p", "b1", "b2", "c1"] {
        bench.ask(0, name);
    }
    assert_eq!(bench.write(0, 2), "pb");
    let moved = bench.queue.take_unsent();
    let names: Vec<_> = moved.iter().map(|unsent| unsent.bytes.as_slice()).collect();
    assert_eq!(names, [b"c1"]);
    assert_eq!(bench.write(0, 100), "1b2");
    for reply in [b"1", b"2", b"3"] {
        assert!(bench.queue.deliver(reply));
    }
    assert_eq!(bench.log(), ["p=1", "b1=2", "b2=3"]);
}
