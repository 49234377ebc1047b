//! Who is followed, who is not, and why.

use std::sync::LazyLock;

use super::*;
use crate::mysql::cluster::report::{Galera, Source};

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(seconds: u64) -> Instant {
    *BEGUN + Duration::from_secs(seconds)
}

fn gtids(text: &str) -> Gtids {
    text.parse().expect(text)
}

/// A server that follows nobody; its number in the replication is `id`.
fn primary(id: u32, position: &str) -> Report {
    Report {
        sources: Vec::new(),
        read_only: false,
        position: gtids(position),
        server_id: id,
        identity: format!("uid-{id}"),
        galera: None,
    }
}

/// One that follows the server whose number is `source`.
fn replica(id: u32, source: u32, position: &str) -> Report {
    Report {
        sources: vec![Source {
            address: format!("db{source}:3306"),
            server_id: source,
            applies: true,
            by_gtids: true,
            ..Source::default()
        }],
        ..primary(id, position)
    }
}

fn said_at(asked: u64, report: Report) -> Heard {
    Heard::Said(Answer {
        report,
        at: at(asked),
        run: 1,
    })
}

fn said(report: Report) -> Heard {
    said_at(1, report)
}

fn election() -> Election {
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    Election::new(names, Duration::from_secs(10))
}

fn step(election: &mut Election, heard: &[Heard]) -> View {
    election.step(at(2), heard)
}

fn why(view: &View, server: usize) -> &str {
    let found = view.set_aside.iter().find(|(it, _)| *it == server);
    found.map_or("", |(_, why)| why)
}

#[test]
fn the_one_that_follows_nobody_is_the_primary_and_its_replicas_serve() {
    let mut election = election();
    let heard = [
        said(replica(1, 2, "0-2-9")),
        said(primary(2, "0-2-9")),
        said(replica(3, 2, "0-2-8")),
    ];
    let view = step(&mut election, &heard);
    assert_eq!((view.primary.clone(), view.epoch), (Ok(1), 1));
    assert_eq!(view.first, gtids("0-2-9"));
    // The third is behind where the primary was first seen.
    assert_eq!(view.replicas, [0]);
    let again = step(&mut election, &heard);
    assert_eq!(again, view, "the same news change nothing");
}

#[test]
fn nobody_is_followed_before_all_were_asked() {
    let mut election = election();
    let some = [
        said(primary(1, "0-1-9")),
        said(replica(2, 1, "0-1-9")),
        Heard::Nothing,
    ];
    let view = step(&mut election, &some);
    assert!(view.primary.is_err() && view.replicas.is_empty());
    let [a, b, _] = some;
    let view = step(&mut election, &[a, b, Heard::Gone]);
    assert_eq!((view.primary, view.replicas), (Ok(0), vec![1]));
}

#[test]
fn a_promotion_is_followed_and_who_comes_back_is_fenced() {
    let mut election = election();
    let (b, c) = (said(replica(2, 1, "0-1-9")), said(replica(3, 1, "0-1-9")));
    step(
        &mut election,
        &[said(primary(1, "0-1-9")), b.clone(), c.clone()],
    );
    let view = step(&mut election, &[Heard::Gone, b, c.clone()]);
    assert_eq!(view.primary, Ok(0), "it may be back in a moment");
    assert_eq!(view.replicas, [1, 2]);
    let promoted = said(primary(2, "0-1-9"));
    let view = step(&mut election, &[Heard::Gone, promoted, c]);
    assert_eq!((view.primary.clone(), view.epoch), (Ok(1), 2));
    assert!(view.replicas.is_empty());
    assert!(
        why(&view, 2).contains("db1:3306, which is not the primary"),
        "{view:?}"
    );
    let moved = said(replica(3, 2, "0-2-12"));
    let old = said(primary(1, "0-1-11"));
    let now = said(primary(2, "0-2-12"));
    let view = step(&mut election, &[old.clone(), now.clone(), moved.clone()]);
    assert_eq!((view.primary.clone(), view.epoch), (Ok(1), 2));
    assert_eq!(view.replicas, [2]);
    assert!(why(&view, 0).contains("b has taken its place"), "{view:?}");
    // The one that took its place is lost: the old one lacks what that wrote.
    let view = step(&mut election, &[old, Heard::Gone, moved.clone()]);
    assert_eq!(view.primary, Ok(1));
    // As a replica it is welcome, and may be promoted then.
    let heard = [said(replica(1, 2, "0-2-12")), now, moved];
    let view = step(&mut election, &heard);
    assert_eq!(view.replicas, [0, 2]);
    let back = said(primary(1, "0-2-12"));
    let view = step(&mut election, &[back, Heard::Gone, Heard::Gone]);
    assert_eq!((view.primary, view.epoch), (Ok(0), 3));
}

#[test]
fn two_claimants_refuse_writes_until_one_is_gone_or_named() {
    let two = [
        said(primary(1, "0-1-9")),
        said(primary(2, "0-2-9")),
        said(replica(3, 1, "0-1-9")),
    ];
    let view = step(&mut election(), &two);
    assert!(
        view.primary
            .clone()
            .is_err_and(|why| why.contains("a and b all claim")),
        "{view:?}"
    );
    let mut begun = election();
    step(
        &mut begun,
        &[
            said(primary(1, "0-1-9")),
            said(replica(2, 1, "0-1-9")),
            Heard::Gone,
        ],
    );
    let view = step(&mut begun, &two);
    assert!(view.primary.is_err());
    assert_eq!(view.replicas, [2], "reads go on");
    begun.name(Some(1));
    let view = step(&mut begun, &two);
    assert_eq!((view.primary.clone(), view.epoch), (Ok(1), 2));
    assert!(why(&view, 0).contains("b has taken its place"), "{view:?}");
    // The name fences nobody who takes its place later.
    let [_, b, _] = two;
    let view = step(&mut begun, &[said(replica(1, 2, "0-2-9")), b, Heard::Gone]);
    assert_eq!((view.primary, view.replicas), (Ok(1), vec![0]));
    let view = step(
        &mut begun,
        &[said(primary(1, "0-2-9")), Heard::Gone, Heard::Gone],
    );
    assert_eq!(view.primary, Ok(0));
}

#[test]
fn one_that_does_not_answer_once_still_claims() {
    let mut election = election();
    let a = said(primary(1, "0-1-9"));
    step(
        &mut election,
        &[a.clone(), said(replica(2, 1, "0-1-9")), Heard::Gone],
    );
    let quiet = a.unanswered();
    let promoted = said(primary(2, "0-1-9"));
    let view = step(
        &mut election,
        &[quiet.clone(), promoted.clone(), Heard::Gone],
    );
    assert!(view.primary.is_err());
    let view = step(&mut election, &[quiet.unanswered(), promoted, Heard::Gone]);
    assert_eq!(view.primary, Ok(1));
}

#[test]
fn a_primary_that_is_set_read_only_stays_until_another_takes_writes() {
    let mut election = election();
    let b = said(replica(2, 1, "0-1-9"));
    step(
        &mut election,
        &[said(primary(1, "0-1-9")), b.clone(), Heard::Gone],
    );
    let shut = Report {
        read_only: true,
        ..primary(1, "0-1-9")
    };
    let view = step(&mut election, &[said(shut.clone()), b, Heard::Gone]);
    assert_eq!((view.primary, view.epoch, view.shut), (Ok(0), 1, true));
    let view = step(
        &mut election,
        &[said(shut), said(primary(2, "0-1-9")), Heard::Gone],
    );
    assert_eq!((view.primary.clone(), view.epoch), (Ok(1), 2));
    assert!(
        !view.shut && why(&view, 0).contains("read_only is ON"),
        "{view:?}"
    );
}

#[test]
fn a_server_of_another_history_is_never_followed() {
    let mut election = election();
    step(
        &mut election,
        &[
            said(primary(1, "0-1-9,4-1-2")),
            said(replica(2, 1, "0-1-9")),
            Heard::Gone,
        ],
    );
    let empty = said(primary(3, ""));
    let view = step(
        &mut election,
        &[Heard::Gone, said(replica(2, 1, "0-1-9")), empty],
    );
    assert_eq!(view.primary, Ok(0));
    assert!(
        why(&view, 2).contains("another cluster, or is empty"),
        "{view:?}"
    );
}

#[test]
fn a_log_that_lost_its_end_begins_an_epoch() {
    let mut election = election();
    let b = said(replica(2, 1, "0-1-9"));
    step(
        &mut election,
        &[said(primary(1, "0-1-9")), b.clone(), Heard::Gone],
    );
    let view = step(&mut election, &[Heard::Gone, b.clone(), Heard::Gone]);
    assert_eq!(view.epoch, 1);
    let view = step(
        &mut election,
        &[said(primary(1, "0-1-9")), b.clone(), Heard::Gone],
    );
    assert_eq!(view.epoch, 1, "back as it was");
    let view = step(&mut election, &[said(primary(1, "0-1-7")), b, Heard::Gone]);
    assert_eq!((view.epoch, view.first), (2, gtids("0-1-7")));
}

#[test]
fn replicas_of_replicas_serve_and_those_of_strangers_do_not() {
    let view = step(
        &mut election(),
        &[
            said(primary(1, "0-1-9")),
            said(replica(2, 1, "0-1-9")),
            said(replica(3, 2, "0-1-9")),
        ],
    );
    assert_eq!(view.replicas, [1, 2]);
    let mut lonely = replica(3, 0, "");
    if let Some(source) = lonely.sources.first_mut() {
        source.trouble = "error connecting".to_owned();
    }
    let heard = [
        said(primary(1, "0-1-9")),
        said(replica(2, 7, "0-1-9")),
        said(lonely),
    ];
    let view = step(&mut election(), &heard);
    assert!(view.replicas.is_empty());
    assert!(
        why(&view, 1).contains("replicates from db7:3306"),
        "{view:?}"
    );
    assert!(
        why(&view, 2).contains("has not reached its source db0:3306"),
        "{view:?}"
    );
    // Each of two waits for the other.
    let ring = [
        said(primary(1, "0-1-9")),
        said(replica(2, 3, "")),
        said(replica(3, 2, "")),
    ];
    assert!(step(&mut election(), &ring).replicas.is_empty());
}

#[test]
fn one_server_under_two_names_is_used_once() {
    let same = primary(1, "0-1-9");
    let view = step(
        &mut election(),
        &[said(same.clone()), said(same), said(replica(3, 1, "0-1-9"))],
    );
    assert_eq!(
        (view.primary.clone(), view.replicas.clone()),
        (Ok(0), vec![2])
    );
    assert!(why(&view, 1).contains("the same server as a"), "{view:?}");
}

#[test]
fn a_replica_that_is_late_or_unknown_serves_nobody() {
    let mut election = election();
    let later = |election: &mut Election, now: u64, position: &str, applied: &str| {
        let heard = [
            said_at(now, primary(1, position)),
            said_at(now, replica(2, 1, applied)),
            Heard::Gone,
        ];
        election.step(at(now), &heard)
    };
    assert_eq!(later(&mut election, 10, "0-1-10", "0-1-9").replicas, [0; 0]);
    assert_eq!(later(&mut election, 12, "0-1-12", "0-1-10").replicas, [1]);
    assert_eq!(election.lag(at(12), &gtids("0-1-10")), Some(Duration::ZERO));
    assert_eq!(later(&mut election, 15, "0-1-15", "0-1-11").replicas, [1]);
    assert_eq!(
        election.lag(at(15), &gtids("0-1-11")),
        Some(Duration::from_secs(3))
    );
    let view = later(&mut election, 23, "0-1-15", "0-1-11");
    assert!(why(&view, 1).contains("more than max-lag"), "{view:?}");
    assert_eq!(later(&mut election, 24, "0-1-15", "0-1-15").replicas, [1]);
    // A primary without a binary log tells no position.
    let mut blind = Election::new(
        vec!["a".to_owned(), "b".to_owned()],
        Duration::from_secs(10),
    );
    let nowhere = Report {
        position: Gtids::Beyond,
        ..primary(1, "")
    };
    let heard = [said(nowhere), said(replica(2, 1, "0-1-9"))];
    let view = blind.step(at(1), &heard);
    assert_eq!(
        (view.primary.clone(), view.replicas.clone()),
        (Ok(0), vec![])
    );
    assert!(why(&view, 1).contains("needs log_bin"), "{view:?}");
    assert_eq!(blind.step(at(2), &heard).epoch, 1);
}

#[test]
fn a_replica_that_tells_not_what_it_receives_serves_nobody() {
    let mut election = election();
    let mut without = replica(3, 1, "0-1-9");
    if let Some(source) = without.sources.first_mut() {
        source.by_gtids = false;
    }
    let heard = [
        said(primary(1, "0-1-9")),
        said(replica(2, 1, "0-1-9")),
        said(without),
    ];
    let view = step(&mut election, &heard);
    assert_eq!(view.replicas, [1]);
    assert!(why(&view, 2).contains("MASTER_USE_GTID = slave_pos"));
}

#[test]
fn members_of_a_galera_cluster_do_not_rival_each_other() {
    let member = |id: u32, ready: bool| {
        said(Report {
            galera: Some(Galera {
                cluster: "g".to_owned(),
                ready,
            }),
            ..primary(id, "0-1-9")
        })
    };
    let mut election = election();
    let view = step(
        &mut election,
        &[member(1, true), member(2, true), member(3, true)],
    );
    assert_eq!((view.primary.clone(), view.epoch), (Ok(0), 1));
    assert!(
        why(&view, 1).contains("another member of its Galera cluster"),
        "{view:?}"
    );
    let view = step(
        &mut election,
        &[member(1, false), member(2, true), member(3, true)],
    );
    assert_eq!((view.primary.clone(), view.epoch), (Ok(1), 2));
    assert!(why(&view, 0).contains("wsrep_ready is OFF"), "{view:?}");
    let view = step(
        &mut election,
        &[member(1, true), member(2, true), member(3, true)],
    );
    assert_eq!(
        (view.primary, view.epoch),
        (Ok(1), 2),
        "it goes on where it is"
    );
}
