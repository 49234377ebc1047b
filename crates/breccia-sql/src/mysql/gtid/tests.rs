//! Positions: how they are read, told, compared and joined.

use proptest::prelude::*;

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

fn gtids(text: &str) -> Gtids {
    let text = text.replace('A', A).replace('B', B);
    text.parse().expect(&text)
}

#[test]
fn positions_are_read_and_told() {
    let check = |text: &str, told: &str| {
        let read = gtids(text);
        assert_eq!(read.to_string(), told.replace('A', A).replace('B', B));
        assert_eq!(Gtids::from_token(&read.token()), Ok(read));
    };
    check("", "");
    check("0-1-100", "0-1-100");
    check("7-2-5,0-1-100", "0-1-100,7-2-5");
    check("0-1-5,0-2-9,0-3-7", "0-2-9");
    check("A:1-5", "A:1-5");
    check("A:7:1-5:6:9-9", "A:1-7:9");
    check("B:3,\nA:1-5:4-8", "A:1-8,B:3");
    assert_eq!(gtids("0-1-5").token(), "mariadb:0-1-5");
    assert_eq!(Gtids::from_token(""), Err(GtidError::Form));
}

#[test]
fn what_is_no_position_is_refused() {
    let check = |text: &str, error| assert_eq!(text.parse::<Gtids>(), Err(error), "{text}");
    check("0-1", GtidError::Form);
    check("0-1-2-3", GtidError::Form);
    check("0-1--2", GtidError::Form);
    check("4294967296-1-1", GtidError::Form);
    check("0-1-1,", GtidError::Form);
    check("x:1", GtidError::Form);
    check(&format!("{A}:0"), GtidError::Form);
    check(&format!("{A}:5-4"), GtidError::Form);
    check(&format!("{A}:"), GtidError::Form);
    check(&format!("{A}:tag_1:1-4"), GtidError::Tagged);
    let many: Vec<String> = (0..=MAX_DOMAINS).map(|it| format!("{it}-1-1")).collect();
    check(&many.join(","), GtidError::TooMany);
    let many: Vec<String> = (1..=MAX_INTERVALS + 1)
        .map(|it| (2 * it).to_string())
        .collect();
    check(&format!("{A}:{}", many.join(":")), GtidError::TooMany);
    for token in [
        "0-1-5",
        "mysql:0-1-5",
        "mariadb:A:1",
        "7234567890123456789:3:16/B374D848",
    ] {
        assert_eq!(Gtids::from_token(token), Err(GtidError::Form), "{token}");
    }
}

#[test]
fn a_position_covers_what_lies_behind_it() {
    let check = |own: &str, other: &str, covers: bool| {
        assert_eq!(gtids(own).covers(&gtids(other)), covers, "{own} / {other}");
    };
    check("0-1-5", "", true);
    check("", "0-1-1", false);
    check("0-1-5", "0-2-5", true);
    check("0-1-5", "0-1-6", false);
    check("0-1-5,1-1-5", "1-9-4", true);
    check("0-1-5,1-1-5", "2-1-1", false);
    check("0-1-5", "0-1-5,1-1-1", false);
    check("A:1-5:9", "A:2-4", true);
    check("A:1-5:9", "A:5-9", false);
    check("A:1-5:9", "A:9,B:1", false);
    check("A:1-5,B:1", "A:1-5,B:1", true);
    check("A:1-5", "0-1-1", false);
    check("0-1-5", "A:1", false);
    assert!(!Gtids::Beyond.covers(&Gtids::Beyond) && Gtids::Beyond.covers(&Gtids::default()));
}

#[test]
fn what_was_raised_covers_both() {
    let check = |own: &str, other: &str, both: &str| {
        let mut raised = gtids(own);
        raised.raise(&gtids(other));
        assert_eq!(raised, gtids(both), "{own} + {other}");
    };
    check("", "0-1-1", "0-1-1");
    check("", "A:1-4", "A:1-4");
    check("0-1-5", "0-2-4", "0-1-5");
    check("0-1-5", "0-2-6,3-1-1", "0-2-6,3-1-1");
    check("0-1-5,1-1-5", "1-1-7", "0-1-5,1-1-7");
    check("A:1-4", "A:6-8", "A:1-4:6-8");
    check("A:1-4:6-8", "A:5,B:1", "A:1-8,B:1");
    let mut mixed = gtids("0-1-5");
    mixed.raise(&gtids("A:1"));
    assert_eq!(mixed, Gtids::Beyond);
}

#[test]
fn one_number_is_the_whole_only_where_there_is_one_domain() {
    let check = |own: &str, all: &str, whole: bool| {
        assert_eq!(gtids(own).is_whole_of(&gtids(all)), whole, "{own} / {all}");
    };
    check("0-1-5", "0-1-4", true);
    check("0-1-5", "", true);
    check("0-1-5", "0-1-4,1-1-1", false);
    check("1-1-5", "0-1-4", false);
    check("A:5", "A:1-4", false);
    assert!(gtids("1-1-5").is_among(&gtids("0-1-9,1-9-1")));
    assert!(!gtids("2-1-5").is_among(&gtids("0-1-9,1-9-1")));
    assert!(gtids("B:9").is_among(&gtids("A:1,B:1")) && !gtids("B:9").is_among(&gtids("A:1")));
}

/// What a session may not read behind grows in each domain by itself.
#[test]
fn a_session_keeps_what_it_saw_of_each_domain() {
    use crate::freshness::{Freshness, Home, Need};
    let mut session = Freshness::<Gtids>::default();
    session.follow(1, &gtids("0-1-5"));
    session.stamped(1, &gtids("1-1-3"));
    assert_eq!(session.known(1), Some(&gtids("0-1-5,1-1-3")));
    session.stamped(1, &gtids("0-1-4,1-1-4"));
    assert_eq!(session.known(1), Some(&gtids("0-1-5,1-1-4")));
    assert!(session.is_met_by(&gtids("0-1-6,1-1-4")));
    assert!(!session.is_met_by(&gtids("0-1-6,1-1-3")) && !session.is_met_by(&gtids("0-1-6")));
    let home = Home {
        server: 2,
        run: 7,
        last: std::time::Instant::now(),
        has: gtids("0-1-9,1-1-4"),
    };
    session.used_replica(home.clone());
    assert_eq!(session.known(1), None, "its replica may have shown more");
    // A token from elsewhere that its replica need not have come up to.
    session.import(&gtids("0-1-7"), 1, true);
    assert_eq!(session.need(1, &gtids("0-1-5")), Need::Stamp);
    session.stamped(1, &gtids("0-1-7"));
    session.used_replica(home);
    session.left_home(&gtids("0-1-9,1-1-4,2-1-1"));
    assert_eq!(session.known(1), Some(&gtids("0-1-9,1-1-4,2-1-1")));
    // Under another primary everything begins where that was first seen.
    let floor = gtids("0-2-8,1-1-4");
    let need = Need::Floor {
        floor: floor.clone(),
        home: None,
    };
    assert_eq!(session.need(2, &floor), need);
    session.import(&gtids("9-1-1"), 2, false);
    assert_eq!(session.need(2, &floor), Need::Primary);
}

/// A cursor that was opened on a replica before the session wrote shows what it showed then.
#[test]
fn a_replica_that_is_behind_what_was_seen_elsewhere_is_no_home() {
    use crate::freshness::{Freshness, Home, Need, Question};
    let home = |has: &str| Home {
        server: 2,
        run: 7,
        last: std::time::Instant::now(),
        has: gtids(has),
    };
    let at_home = |session: &Freshness<Gtids>| {
        matches!(
            session.need(1, &gtids("")),
            Need::Floor { home: Some(_), .. }
        )
    };
    let mut session = Freshness::<Gtids>::default();
    session.follow(1, &gtids("0-1-5"));
    session.used_replica(home("0-1-5"));
    assert!(at_home(&session));
    session.used_primary(None);
    session.stamped(1, &gtids("0-1-6"));
    session.used_replica(home("0-1-5"));
    assert_eq!(session.need(1, &gtids("")), Need::Stamp);
    session.stamped(1, &gtids("0-1-8"));
    session.used_replica(home("0-1-8"));
    assert!(at_home(&session));
    // Nor while it is not known yet what was seen on the primary: what was asked before is too old.
    let question = Question {
        server: 0,
        number: 4,
    };
    session.used_primary(Some(question));
    session.used_replica(home("0-1-99"));
    assert_eq!(session.need(1, &gtids("")), Need::Stamp);
    assert_eq!(session.question(), None);
}

/// A few numbers of two servers, some of them missing.
fn some() -> impl Strategy<Value = Gtids> {
    let one = prop::collection::btree_set(1_u64..30, 1..12);
    (one.clone(), one).prop_map(|(first, second)| {
        let list = |numbers: &std::collections::BTreeSet<u64>| {
            let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
            texts.join(":")
        };
        gtids(&format!("A:{},B:{}", list(&first), list(&second)))
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-f:,\\- ]{0,60}|\\PC{0,40}") {
        if let Ok(read) = text.parse::<Gtids>() {
            prop_assert_eq!(read.to_string().parse::<Gtids>(), Ok(read));
        }
    }

    #[test]
    fn the_union_covers_its_parts_and_is_told_like_one(a in some(), b in some()) {
        let mut both = a.clone();
        both.raise(&b);
        prop_assert!(both.covers(&a) && both.covers(&b));
        prop_assert_eq!(both.to_string().parse::<Gtids>(), Ok(both.clone()));
        let mut other = b.clone();
        other.raise(&a);
        prop_assert_eq!(both, other);
        prop_assert_eq!(a.covers(&b) && b.covers(&a), a == b);
    }
}
