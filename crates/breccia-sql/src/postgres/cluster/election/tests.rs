//! Who is followed, and which replicas serve, told from what servers say.

use super::*;

fn said_at(at: Instant, recovery: bool, timeline: u32, position: u64) -> Heard {
    let report = Report {
        recovery,
        timeline: Some(timeline),
        system: 7,
        position: Lsn(position),
        flushed: Lsn(position),
    };
    Heard::Said(Answer { report, at, run: 1 })
}

fn primary(timeline: u32, position: u64) -> Heard {
    said_at(Instant::now(), false, timeline, position)
}

fn replica(timeline: u32, position: u64) -> Heard {
    said_at(Instant::now(), true, timeline, position)
}

fn election() -> Election {
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    Election::new(names, Duration::from_secs(10))
}

/// Steps now.
fn step(election: &mut Election, heard: &[Heard]) -> View {
    election.step(Instant::now(), heard)
}

fn why(view: &View) -> &str {
    view.primary.as_ref().expect_err("there is no primary")
}

#[test]
fn the_one_that_follows_nobody_is_the_primary() {
    let mut election = election();
    let view = step(&mut election, &[replica(1, 9), primary(1, 9), Heard::Gone]);
    assert_eq!(
        (view.primary, view.replicas, view.epoch),
        (Ok(1), vec![0], 1)
    );
    let view = step(&mut election, &[replica(1, 9), Heard::Gone, Heard::Gone]);
    assert_eq!(view.primary, Ok(1), "one that is gone keeps its role");
    let view = step(&mut election, &[replica(1, 9), primary(1, 9), Heard::Gone]);
    assert_eq!(view.epoch, 1, "and begins nothing new when it is back");
}

#[test]
fn nobody_is_followed_before_every_server_was_asked() {
    let check = |third: Heard, expected: Option<usize>| {
        let view = step(&mut election(), &[primary(1, 9), replica(1, 9), third]);
        assert_eq!(view.primary.ok(), expected, "{third:?}");
    };
    check(Heard::Nothing, None);
    check(Heard::Nothing.unanswered(), None);
    check(Heard::Nothing.unanswered().unanswered(), Some(0));
    check(Heard::Gone, Some(0));
    check(primary(1, 9), None);
}

#[test]
fn a_replica_on_a_newer_timeline_fences_an_old_primary_at_the_start() {
    let mut election = election();
    let view = step(&mut election, &[primary(1, 9), Heard::Gone, replica(2, 12)]);
    assert!(why(&view).contains("newer timeline 2"), "{view:?}");
    let all = [primary(1, 9), primary(2, 12), replica(2, 12)];
    let view = step(&mut election, &all);
    assert_eq!(view.primary, Ok(1));
    assert!(view.set_aside[0].1.contains("older timeline 1"));
    // Unless an administrator knows better.
    election.name(Some(0));
    assert_eq!(step(&mut election, &all).primary, Ok(0));
    assert_eq!(step(&mut election, &all).primary, Ok(0), "for good");
}

#[test]
fn another_clusters_timeline_says_nothing() {
    let mut strange = replica(2, 12);
    if let Heard::Said(answer) = &mut strange {
        answer.report.system = 8;
    }
    let view = step(&mut election(), &[primary(1, 9), replica(1, 9), strange]);
    assert_eq!((view.primary, view.replicas), (Ok(0), vec![1]));
    assert!(view.set_aside[0].1.contains("another cluster"));
}

#[test]
fn a_promotion_is_followed_and_the_old_primary_fenced() {
    let mut election = election();
    step(
        &mut election,
        &[primary(1, 9), replica(1, 9), replica(1, 9)],
    );
    let view = step(&mut election, &[Heard::Gone, primary(2, 8), replica(1, 9)]);
    assert_eq!((view.primary, view.epoch, view.first), (Ok(1), 2, Lsn(8)));
    assert!(
        view.replicas.is_empty(),
        "the other one is on the old timeline"
    );
    let view = step(
        &mut election,
        &[primary(1, 9), primary(2, 12), replica(2, 12)],
    );
    assert_eq!((view.primary, view.replicas), (Ok(1), vec![2]));
    assert!(view.set_aside[0].1.contains("older timeline 1"));
}

#[test]
fn two_live_claimants_are_refused_until_one_is_named_or_gone() {
    let mut election = election();
    step(
        &mut election,
        &[primary(1, 9), replica(1, 9), replica(1, 9)],
    );
    let both = [primary(1, 9), primary(2, 9), replica(2, 9)];
    let view = step(&mut election, &both);
    assert!(why(&view).contains("a and b"), "{view:?}");
    election.name(Some(1));
    assert_eq!(step(&mut election, &both).primary, Ok(1));
    election.name(None);
    assert_eq!(
        step(&mut election, &both).primary,
        Ok(1),
        "the old one is fenced now"
    );
}

#[test]
fn one_question_that_is_not_answered_makes_nobody_gone() {
    let mut election = election();
    let both = [primary(1, 9), primary(1, 9), replica(1, 9)];
    step(&mut election, &both);
    election.name(Some(0));
    assert_eq!(step(&mut election, &both).primary, Ok(0));
    let quiet = both[0].unanswered();
    let view = step(&mut election, &[quiet, both[1], both[2]]);
    assert_eq!(view.primary, Ok(0), "the named one only hesitates");
    let gone = quiet.unanswered();
    assert_eq!(gone, Heard::Gone);
    let view = step(&mut election, &[gone, primary(2, 12), both[2]]);
    assert!(why(&view).contains("a was named"), "nobody else: {view:?}");
    assert_eq!(
        step(&mut election, &both).primary,
        Ok(0),
        "it is back, and not fenced"
    );
    // Nobody is named, and the one that is followed hesitates.
    let mut other = self::election();
    step(&mut other, &[primary(1, 9), replica(1, 9), replica(1, 9)]);
    let view = step(&mut other, &[quiet, primary(2, 9), replica(1, 9)]);
    assert!(why(&view).contains("a and b"), "{view:?}");
    let view = step(&mut other, &[gone, primary(2, 9), replica(1, 9)]);
    assert_eq!(view.primary, Ok(1));
}

#[test]
fn a_name_ends_with_the_need_of_it() {
    let mut election = election();
    let both = [primary(1, 9), primary(1, 9), Heard::Gone];
    step(&mut election, &both);
    election.name(Some(0));
    step(&mut election, &both);
    step(&mut election, &[primary(1, 9), Heard::Gone, Heard::Gone]);
    step(
        &mut election,
        &[primary(1, 12), replica(1, 12), Heard::Gone],
    );
    // It follows the named one: whoever is promoted later is found by itself.
    let view = step(&mut election, &[Heard::Gone, primary(2, 12), Heard::Gone]);
    assert_eq!((view.primary, view.timeline), (Ok(1), 2));
}

#[test]
fn lag_is_the_time_since_the_primary_was_there() {
    let mut election = election();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let one = |seconds, position| said_at(at(seconds), false, 1, position);
    election.step(at(0), &[one(0, 10), Heard::Gone, Heard::Gone]);
    election.step(at(5), &[one(5, 20), Heard::Gone, Heard::Gone]);
    let all = [one(5, 20), replica(1, 10), replica(1, 20)];
    assert_eq!(election.step(at(20), &all).replicas, vec![2]);
    assert_eq!(election.lag(at(20), Lsn(10)), Some(Duration::from_secs(15)));
    assert_eq!(election.lag(at(20), Lsn(20)), Some(Duration::ZERO));
    assert_eq!(election.lag_bytes(Lsn(10)), 10);
}

#[test]
fn a_lag_of_before_the_first_position_is_not_known_and_serves_nobody() {
    let mut election = election();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let all = |seconds| {
        let primary = said_at(at(seconds), false, 1, 100 + seconds);
        [primary, replica(1, 99), replica(1, 100)]
    };
    let view = election.step(start, &all(0));
    assert_eq!((view.replicas, view.set_aside), (vec![2], Vec::new()));
    assert_eq!(election.lag(start, Lsn(99)), None);
    election.step(at(1), &all(1));
    let view = election.step(at(12), &all(1));
    assert!(view.replicas.is_empty(), "2 lags by 11 s, and 1 by more");
    let why = view.set_aside.iter().find(|(server, _)| *server == 1);
    assert!(why.expect("set aside").1.contains("max-lag"));
}

#[test]
fn what_is_remembered_is_longer_than_the_longest_lag_however_many_servers_report() {
    let mut election = election();
    let start = Instant::now();
    for half_second in 0..600 {
        let asked = start + Duration::from_millis(500 * half_second);
        let heard = [
            said_at(asked, false, 1, 1_000 + half_second),
            replica(1, 1_000),
            replica(1, 1_000),
        ];
        // Every server's report has all of them weighed.
        for pause_ms in [0, 100, 200] {
            let view = election.step(asked + Duration::from_millis(pause_ms), &heard);
            let serve = !view.replicas.is_empty();
            // The primary left their position after half a second.
            let lag_ms = (500 * half_second + pause_ms).saturating_sub(500);
            assert_eq!(serve, lag_ms <= 10_000, "{lag_ms}");
        }
    }
    let now = start + Duration::from_mins(5);
    assert!(election.remembered(now) > Duration::from_secs(20));
    assert!(election.history.len() <= HISTORY);
}
