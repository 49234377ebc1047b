//! Breaker tests: outages of hours, in simulated time.
//!
//! Not here: sockets or sleeping. Invariant: time moves only where a test moves it.

use super::*;
use BreakerEvent::{BytesSeen, ConnectFailed, ProbeFailed, ProbeOk, ProbeStarted};
use BreakerState::{Closed, HalfOpen, Open};

const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// A breaker with a clock of its own.
struct Simulation {
    breaker: Breaker,
    now: Instant,
    start: Instant,
    probes: u32,
}

impl Simulation {
    fn new() -> Self {
        let start = Instant::now();
        let breaker = Breaker::new(BreakerConfig::default(), start);
        Simulation {
            breaker,
            now: start,
            start,
            probes: 0,
        }
    }

    fn step(&mut self, event: BreakerEvent) -> Option<BreakerState> {
        self.breaker.step(self.now, event)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn until_probe(&self) -> Duration {
        self.breaker
            .next_probe_at()
            .saturating_duration_since(self.now)
    }

    /// Waits until the next probe is due and makes it; an unanswered one takes its timeout.
    fn probe(&mut self, result: BreakerEvent) -> Option<BreakerState> {
        self.now = self.now.max(self.breaker.next_probe_at());
        self.probes += 1;
        self.step(ProbeStarted);
        if result == ProbeFailed {
            self.wait(PROBE_TIMEOUT);
        }
        self.step(result)
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

#[test]
fn first_probe_is_due_at_once_and_requests_pass() {
    let simulation = Simulation::new();
    assert!(simulation.breaker.is_up());
    assert_eq!(simulation.until_probe(), Duration::ZERO);
}

#[test]
fn endpoint_that_answers_stays_closed_for_a_day() {
    let mut simulation = Simulation::new();
    while simulation.elapsed() < Duration::from_hours(24) {
        assert_eq!(simulation.probe(ProbeOk), None);
    }
    assert_eq!(simulation.probes, 86_401);
}

#[test]
fn failed_connect_opens_at_once() {
    let mut simulation = Simulation::new();
    simulation.probe(ProbeOk);
    assert_eq!(simulation.step(ConnectFailed), Some(Open));
    assert_eq!(simulation.until_probe(), Duration::from_millis(100));
}

#[test]
fn two_unanswered_probes_open_within_two_seconds_of_the_stall() {
    let mut simulation = Simulation::new();
    simulation.probe(ProbeOk);
    let stalled = simulation.now;
    assert_eq!(simulation.probe(ProbeFailed), None);
    assert_eq!(simulation.until_probe(), Duration::ZERO);
    assert_eq!(simulation.probe(ProbeFailed), Some(Open));
    assert_eq!(simulation.now - stalled, Duration::from_secs(2));
}

#[test]
fn byte_between_two_unanswered_probes_keeps_the_breaker_closed() {
    let mut simulation = Simulation::new();
    for _ in 0..1000 {
        assert_eq!(simulation.probe(ProbeFailed), None);
        assert_eq!(simulation.step(BytesSeen), None);
    }
    assert_eq!(simulation.probe(ProbeFailed), None);
    assert_eq!(simulation.probe(ProbeOk), None);
    assert_eq!(simulation.probe(ProbeFailed), None);
    assert_eq!(simulation.probe(ProbeFailed), Some(Open));
}

#[test]
fn back_off_doubles_up_to_one_second_through_hours_of_outage() {
    let mut simulation = Simulation::new();
    simulation.step(ConnectFailed);
    for wait_ms in [100, 200, 400, 800, 1000, 1000] {
        assert_eq!(simulation.until_probe(), Duration::from_millis(wait_ms));
        assert_eq!(simulation.probe(ConnectFailed), Some(Open));
    }
    while simulation.elapsed() < Duration::from_hours(6) {
        simulation.probe(ConnectFailed);
        assert_eq!(simulation.until_probe(), Duration::from_secs(1));
        assert!(!simulation.breaker.is_up());
    }
    assert!(simulation.probes < 6 * 3600 + 10);
    assert_eq!(simulation.probe(ProbeOk), Some(Closed));
    simulation.step(ConnectFailed);
    assert_eq!(simulation.until_probe(), Duration::from_millis(100));
}

#[test]
fn due_probe_half_opens_and_its_answer_decides() {
    let check = |result: BreakerEvent, state: BreakerState| {
        let mut simulation = Simulation::new();
        simulation.step(ConnectFailed);
        simulation.wait(Duration::from_millis(100));
        assert_eq!(simulation.step(ProbeStarted), Some(HalfOpen));
        assert!(!simulation.breaker.is_up());
        assert_eq!(simulation.step(BytesSeen), None);
        assert_eq!(simulation.step(result), Some(state));
    };
    check(ProbeOk, Closed);
    check(ProbeFailed, Open);
    check(ConnectFailed, Open);
}

#[test]
fn requests_that_meet_the_same_outage_do_not_lengthen_the_back_off() {
    let mut simulation = Simulation::new();
    for _ in 0..64 {
        simulation.step(ConnectFailed);
    }
    assert_eq!(simulation.until_probe(), Duration::from_millis(100));
}

#[test]
fn prober_that_never_says_it_starts_still_backs_off_and_closes() {
    let mut simulation = Simulation::new();
    simulation.step(ConnectFailed);
    for wait_ms in [200, 400, 800, 1000, 1000] {
        simulation.now = simulation.breaker.next_probe_at();
        assert_eq!(simulation.step(ConnectFailed), None);
        assert_eq!(simulation.until_probe(), Duration::from_millis(wait_ms));
    }
    assert_eq!(simulation.step(ProbeOk), Some(Closed));
}

#[test]
fn bytes_after_a_thaw_bring_the_probe_forward() {
    let mut simulation = Simulation::new();
    for _ in 0..8 {
        simulation.probe(ProbeFailed);
    }
    assert_eq!(simulation.until_probe(), Duration::from_secs(1));
    assert_eq!(simulation.step(BytesSeen), None);
    assert_eq!(simulation.until_probe(), Duration::from_millis(100));
    assert_eq!(simulation.probe(ProbeOk), Some(Closed));
}

#[test]
fn steady_bytes_do_not_put_off_or_crowd_the_probes() {
    let mut simulation = Simulation::new();
    simulation.step(ConnectFailed);
    for _ in 0..50 {
        let due = simulation.breaker.next_probe_at();
        while simulation.now < due {
            simulation.step(BytesSeen);
            assert!(simulation.breaker.next_probe_at() <= due);
            simulation.wait(Duration::from_millis(1));
        }
        let before = simulation.now;
        simulation.probe(ProbeFailed);
        assert!(simulation.breaker.next_probe_at() - before >= Duration::from_millis(100));
    }
}

#[test]
fn schedule_goes_on_when_a_probe_never_reports() {
    let mut simulation = Simulation::new();
    simulation.step(ProbeStarted);
    assert_eq!(simulation.until_probe(), Duration::from_secs(1));
}
