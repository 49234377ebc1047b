//! The queue under an invented clock: order, the gate, deadlines, tombstones, losses.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

#[derive(Clone, Debug, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

struct Waiter {
    name: &'static str,
    log: Log,
    gone: bool,
}

impl Recipient for Waiter {
    fn deliver(self, reply: &[u8]) {
        let reply = String::from_utf8(reply.to_vec()).unwrap();
        self.log
            .0
            .borrow_mut()
            .push(format!("{}={reply}", self.name));
    }

    fn fail(self, failure: &Failure) {
        let effect = match failure.effect {
            Effect::NotApplied => "not applied",
            Effect::Unknown => "unknown",
        };
        self.log
            .0
            .borrow_mut()
            .push(format!("{}: {effect}", self.name));
    }

    fn abandoned(&self) -> bool {
        self.gone
    }

    fn slow(&self, took: Duration, _: Instant) {
        let took = took.as_millis();
        self.log
            .0
            .borrow_mut()
            .push(format!("{} took {took} ms", self.name));
    }
}

struct Bench {
    queue: Pipeline<Waiter, ()>,
    log: Log,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        let limits = PipelineLimits {
            stall_gate: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
            max_in_flight: 4,
            max_unsent_bytes: 1000,
        };
        let start = Instant::now();
        let mut queue = Pipeline::new(limits);
        queue.heard(start);
        Self {
            queue,
            log: Log::default(),
            start,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn ask(&mut self, ms: u64, name: &'static str) {
        let (expires, log) = (self.at(ms + 1000), self.log.clone());
        let waiter = Waiter {
            name,
            log,
            gone: name.starts_with("gone"),
        };
        let write = |out: &mut Vec<u8>| out.extend_from_slice(name.as_bytes());
        if let Err((waiter, failure)) =
            self.queue
                .enqueue(waiter, (), expires, Patience::Timeout, write)
        {
            waiter.fail(&failure);
        }
    }

    /// Writes at most `most` bytes and says which.
    fn write(&mut self, ms: u64, most: usize) -> String {
        let now = self.at(ms);
        self.queue.prepare(
            now,
            Canary {
                bytes: b"?",
                shape: (),
            },
        );
        let bytes = self.queue.writable(now);
        let bytes = bytes[..bytes.len().min(most)].to_vec();
        self.queue.wrote(bytes.len(), now);
        String::from_utf8(bytes).unwrap()
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.0.borrow_mut())
    }
}

#[test]
fn replies_match_requests_by_order() {
    let mut bench = Bench::new();
    bench.ask(0, "a");
    bench.ask(0, "bb");
    assert_eq!(bench.write(0, 100), "abb");
    assert!(bench.queue.deliver(b"1"));
    assert!(bench.queue.deliver(b"2"));
    assert_eq!(bench.log(), ["a=1", "bb=2"]);
    assert!(!bench.queue.deliver(b"3"), "a reply to no request");
}

#[test]
fn late_replies_are_told_with_their_time() {
    let mut bench = Bench::new();
    bench.ask(0, "a");
    assert_eq!(bench.write(0, 100), "a");
    bench.ask(8, "b");
    assert_eq!(bench.write(8, 100), "b");
    bench.queue.heard(bench.at(12));
    assert!(bench.queue.deliver(b"1"));
    assert!(bench.queue.deliver(b"2"));
    assert_eq!(bench.log(), ["a took 12 ms", "a=1", "b=2"]);
    bench.ask(12, "c");
    assert_eq!(bench.write(12, 100), "c");
    bench.queue.heard(bench.at(21));
    assert!(bench.queue.deliver(b"3"));
    assert_eq!(bench.log(), ["c=3"]);
}

#[test]
fn the_gate_holds_back_all_but_the_request_begun() {
    let mut bench = Bench::new();
    bench.ask(0, "aaaa");
    bench.ask(0, "bbbb");
    bench.ask(0, "cccc");
    assert_eq!(bench.write(0, 6), "aaaabb");
    assert!(!bench.queue.stalled(bench.at(49)));
    assert!(bench.queue.stalled(bench.at(50)));
    assert_eq!(bench.write(60, 1), "b");
    assert_eq!(bench.write(60, 100), "b");
    assert_eq!(bench.write(60, 100), "");
    assert!(bench.queue.deliver(b"1"));
    assert!(bench.queue.stalled(bench.at(60)), "b was begun at 0");
    assert!(bench.queue.deliver(b"2"));
    bench.queue.heard(bench.at(60));
    assert_eq!(bench.write(60, 100), "cccc");
}

#[test]
fn a_reply_before_the_request_is_written_whole_is_refused() {
    let mut bench = Bench::new();
    bench.ask(0, "aaaa");
    assert_eq!(bench.write(0, 2), "aa");
    assert!(!bench.queue.deliver(b"-ERR too big"));
}

#[test]
fn unsent_requests_expire_as_not_applied_and_are_never_written() {
    let mut bench = Bench::new();
    bench.ask(0, "aaaa");
    assert_eq!(bench.write(0, 2), "aa");
    bench.ask(100, "b");
    bench.ask(500, "c");
    bench.ask(500, "gone");
    assert_eq!(bench.queue.expire(bench.at(1100)), 2);
    assert_eq!(bench.log(), ["b: not applied", "gone: not applied"]);
    assert_eq!(
        bench.write(1100, 100),
        "aa",
        "the gate is closed; the request begun is finished"
    );
    assert!(bench.queue.deliver(b"1"));
    bench.queue.heard(bench.at(1200));
    assert_eq!(bench.write(1200, 100), "c");
    assert!(bench.queue.deliver(b"3"));
    assert_eq!(bench.log(), ["aaaa=1", "c=3"]);
}

#[test]
fn a_late_reply_meets_a_tombstone() {
    let mut bench = Bench::new();
    bench.ask(0, "a");
    assert_eq!(bench.write(0, 100), "a");
    assert_eq!(bench.queue.expire(bench.at(4999)), 0);
    assert_eq!(bench.queue.expire(bench.at(5000)), 1);
    assert_eq!(bench.log(), ["a: unknown"]);
    bench.ask(5000, "b");
    assert!(bench.queue.deliver(b"late"));
    bench.queue.heard(bench.at(5000));
    assert_eq!(bench.write(5000, 100), "b");
    assert!(bench.queue.deliver(b"2"));
    assert_eq!(bench.log(), ["b=2"]);
}

#[test]
fn silence_is_measured_from_the_last_byte() {
    let mut bench = Bench::new();
    bench.ask(0, "a");
    bench.ask(0, "b");
    bench.write(0, 100);
    bench.queue.heard(bench.at(3000));
    assert!(bench.queue.deliver(b"1"));
    assert!(!bench.queue.silent_too_long(bench.at(7999)));
    assert!(bench.queue.silent_too_long(bench.at(8000)));
    assert!(bench.queue.deliver(b"2"));
    assert!(
        !bench.queue.silent_too_long(bench.at(90_000)),
        "nothing is owed"
    );
}

#[test]
fn a_lost_connection_leaves_sent_requests_unknown_and_unsent_ones_not_applied() {
    let mut bench = Bench::new();
    bench.ask(0, "a");
    bench.ask(0, "bb");
    bench.ask(0, "c");
    assert_eq!(bench.write(0, 2), "ab");
    bench.queue.fail_all(&Cause::Lost("reset".into()));
    assert_eq!(bench.log(), ["a: unknown", "bb: unknown", "c: not applied"]);
    bench.ask(10, "d");
    assert_eq!(
        bench.write(10, 100),
        "?",
        "a new connection has not been heard"
    );
    assert!(bench.queue.deliver(b"pong"));
    bench.queue.heard(bench.at(10));
    assert_eq!(bench.write(10, 100), "d");
    assert!(bench.queue.deliver(b"4"));
    assert_eq!(bench.log(), ["d=4"]);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c", "d", "e"] {
        bench.ask(0, name);
    }
    assert_eq!(bench.log(), ["e: not applied"]);
    assert_eq!(bench.write(0, 100), "abcd");
}

#[test]
fn a_quiet_connection_is_asked_for_a_sign_of_life_first() {
    let mut bench = Bench::new();
    bench.ask(50, "a");
    assert_eq!(bench.write(50, 100), "?");
    bench.ask(60, "b");
    assert_eq!(
        bench.write(60, 100),
        "",
        "the gate is closed until the canary is answered"
    );
    assert!(bench.queue.deliver(b"pong"));
    bench.queue.heard(bench.at(70));
    assert_eq!(bench.write(70, 100), "ab");
    assert!(bench.queue.deliver(b"1"));
    assert!(bench.queue.deliver(b"2"));
    bench.queue.heard(bench.at(80));
    bench.ask(120, "c");
    assert_eq!(bench.write(120, 100), "c", "heard 40 ms ago");
    assert_eq!(bench.log(), ["a=1", "b=2"]);
}

#[test]
fn requests_behind_an_unanswered_canary_expire_unwritten() {
    let mut bench = Bench::new();
    bench.ask(200, "a");
    assert_eq!(bench.write(200, 100), "?");
    assert_eq!(bench.queue.expire(bench.at(1200)), 1);
    assert_eq!(bench.log(), ["a: not applied"]);
    assert!(bench.queue.silent_too_long(bench.at(5200)));
}

#[test]
fn what_was_not_sent_moves_to_the_next_connection_whole() {
    let check = |written: usize, expected: &[&str], left: &str| {
        let mut bench = Bench::new();
        bench.ask(0, "aaaa");
        bench.ask(0, "bbbb");
        bench.ask(0, "cccc");
        bench.write(0, written);
        assert_eq!(bench.queue.begun().len(), (4 - written % 4) % 4);
        bench.queue.carry_over(&Cause::Lost("moved".into()));
        assert_eq!(bench.log(), expected);
        bench.queue.heard(bench.at(1));
        assert_eq!(bench.write(1, 100), left);
        assert!(bench.queue.deliver(b"1"));
        assert_eq!(bench.log().len(), 1);
    };
    check(0, &[], "aaaabbbbcccc");
    check(2, &["aaaa: unknown"], "bbbbcccc");
    check(4, &["aaaa: unknown"], "bbbbcccc");
    check(7, &["aaaa: unknown", "bbbb: unknown"], "cccc");
}

#[test]
fn only_a_request_that_has_not_left_takes_another_in() {
    let mut bench = Bench::new();
    let widen = |bench: &mut Bench| {
        bench.queue.widen(&(), |waiter, _, bytes, length| {
            assert_eq!(
                bytes.get(bytes.len() - length..),
                Some(&b"b"[..]),
                "{}",
                waiter.name
            );
            bytes.extend_from_slice(b"+");
            true
        })
    };
    assert!(!widen(&mut bench), "nothing is queued");
    bench.ask(0, "a");
    bench.queue.wrote(1, bench.at(0));
    assert!(!widen(&mut bench), "a has left");
    bench.ask(1, "b");
    assert!(widen(&mut bench));
    assert_eq!(bench.queue.writable(bench.at(1)), b"b+");
    bench.queue.wrote(1, bench.at(2));
    assert!(!widen(&mut bench), "b has begun to leave");
    bench.queue.wrote(1, bench.at(2));
    assert!(bench.queue.deliver(b"1") && bench.queue.deliver(b"2"));
    assert!(bench.queue.is_empty());
}
