//! One client's requests that a server has refused, in the client's order, until they are sent again.
//!
//! Not who sends them. Invariant: a request is not sent again once a later one has been answered whose
//! order to it can be seen, nor before an earlier one that still waits.

use std::collections::BTreeMap;
use std::time::Instant;

use super::touch::Touch;
use crate::front::ring::Sequence;

/// A request that waits, `T`, and what is known of it.
pub(super) struct Waiting<T> {
    pub request: T,
    pub sequence: Sequence,
    /// `None`: its order to others cannot be seen anyway.
    pub touch: Option<Touch>,
    /// Its pause ends then.
    pub due: Instant,
    /// It must be on its way by then.
    pub expires: Instant,
    /// Whether it goes alone: its server may refuse it once more.
    pub alone: bool,
}

/// See the module's page.
pub(super) struct Line<T> {
    waiting: Vec<Waiting<T>>,
    /// The last request that was answered since the first was refused, by what it touched.
    answered: BTreeMap<(Option<u16>, bool), Sequence>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            answered: BTreeMap::new(),
        }
    }
}

impl<T> Line<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a request to its place.
    pub(super) fn insert(&mut self, waiting: Waiting<T>) {
        let later = |other: &Waiting<T>| other.sequence.is_after(waiting.sequence);
        let place = self.waiting.iter().rposition(|other| !later(other));
        self.waiting.insert(place.map_or(0, |it| it + 1), waiting);
    }

    /// All that wait, in order.
    pub(super) fn take(&mut self) -> Vec<Waiting<T>> {
        std::mem::take(&mut self.waiting)
    }

    /// Takes those that cannot wait any longer.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Waiting<T>> {
        self.waiting
            .extract_if(.., |it| it.expires <= now)
            .collect()
    }

    /// When the line must be looked at again, if nothing else happens.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let times = self.waiting.iter().map(|it| {
            let due = Some(it.due).filter(|due| *due > now);
            due.map_or(it.expires, |due| due.min(it.expires))
        });
        times.min()
    }

    /// A server has answered a request, or perhaps applied it.
    pub(super) fn note_answered(&mut self, sequence: Sequence, touch: Touch) {
        let last = self
            .answered
            .entry((touch.slot, touch.writes))
            .or_insert(sequence);
        if sequence.is_after(*last) {
            *last = sequence;
        }
    }

    /// Whether a later request has been answered, so that this one would come out of order.
    pub(super) fn is_overtaken(&self, waiting: &Waiting<T>) -> bool {
        let Some(touch) = waiting.touch else {
            return false;
        };
        self.answered.iter().any(|((slot, writes), sequence)| {
            let other = Touch {
                slot: *slot,
                writes: *writes,
                runs_code: false,
            };
            sequence.is_after(waiting.sequence) && touch.meets(other)
        })
    }
}

/// What has been seen of a line while it is gone through once, in order.
pub(super) struct Pass<D> {
    held: Vec<Touch>,
    sent: Vec<(Touch, D, bool)>,
}

impl<D: PartialEq + Copy> Pass<D> {
    pub(super) fn new() -> Self {
        Self {
            held: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Whether a request must wait for an earlier one before it goes to `destination`. Those that go
    /// the same way keep their order, unless the first may be refused again.
    pub(super) fn holds<T>(&self, waiting: &Waiting<T>, destination: D) -> bool {
        let Some(touch) = waiting.touch else {
            return false;
        };
        let apart = |(other, way, alone): &(Touch, D, bool)| {
            (*alone || *way != destination) && other.meets(touch)
        };
        self.is_behind(waiting) || self.sent.iter().any(apart)
    }

    /// Whether an earlier request waits whose order to this one can be seen.
    pub(super) fn is_behind<T>(&self, waiting: &Waiting<T>) -> bool {
        let behind = |touch: Touch| self.held.iter().any(|other| other.meets(touch));
        waiting.touch.is_some_and(behind)
    }

    pub(super) fn hold<T>(&mut self, waiting: &Waiting<T>) {
        self.held.extend(waiting.touch);
    }

    pub(super) fn sent(&mut self, touch: Option<Touch>, destination: D, alone: bool) {
        self.sent.extend(touch.map(|it| (it, destination, alone)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use breccia_net::clock;

    use super::*;
    use crate::front::ring::ReplyRing;

    fn touch(slot: u16, writes: bool) -> Touch {
        Touch {
            slot: Some(slot),
            writes,
            runs_code: false,
        }
    }

    fn waiting(sequence: Sequence, touch: Touch, alone: bool) -> Waiting<()> {
        let now = clock::now();
        Waiting {
            request: (),
            sequence,
            touch: Some(touch),
            due: now,
            expires: now + Duration::from_secs(1),
            alone,
        }
    }

    fn sequences<const N: usize>() -> [Sequence; N] {
        let mut ring = ReplyRing::default();
        std::array::from_fn(|_| ring.reserve(false))
    }

    #[test]
    fn requests_wait_in_the_order_of_their_client() {
        let all: [Sequence; 5] = sequences();
        let mut line = Line::default();
        for place in [3, 0, 4, 2, 1] {
            line.insert(waiting(all[place], touch(1, true), false));
        }
        let order: Vec<Sequence> = line.take().iter().map(|it| it.sequence).collect();
        assert_eq!(order, all);
        assert!(line.is_empty());
    }

    #[test]
    fn a_request_is_overtaken_by_a_later_answer_whose_order_can_be_seen() {
        let all: [Sequence; 3] = sequences();
        let check = |answered: (usize, Touch), wanted: bool, mine: Touch| {
            let mut line = Line::default();
            line.note_answered(all[answered.0], answered.1);
            let overtaken = line.is_overtaken(&waiting(all[1], mine, true));
            assert_eq!(overtaken, wanted, "{answered:?} {mine:?}");
        };
        check((2, touch(1, true)), true, touch(1, true));
        check((2, touch(1, true)), true, touch(1, false));
        check((2, touch(1, false)), true, touch(1, true));
        check((2, touch(1, false)), false, touch(1, false));
        check((2, touch(2, true)), false, touch(1, true));
        check((0, touch(1, true)), false, touch(1, true));
        let any = Touch {
            slot: None,
            ..touch(0, true)
        };
        check((2, any), true, touch(1, false));
    }

    #[test]
    fn what_may_be_refused_again_goes_alone_and_ways_are_not_mixed() {
        let all: [Sequence; 2] = sequences();
        let check = |first: (Touch, bool), way: u8, second: Touch, wanted: bool| {
            let mut pass = Pass::new();
            pass.sent(Some(first.0), 1, first.1);
            let held = pass.holds(&waiting(all[1], second, false), way);
            assert_eq!(held, wanted, "{first:?} {way} {second:?}");
        };
        check((touch(1, true), false), 1, touch(1, true), false);
        check((touch(1, true), true), 1, touch(1, true), true);
        check((touch(1, true), false), 2, touch(1, true), true);
        check((touch(1, true), true), 2, touch(2, true), false);
        check((touch(1, false), true), 2, touch(1, false), false);
    }
}
