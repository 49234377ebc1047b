//! One client's replies in the order of its requests, whatever order the shards answer in. It
//! holds bytes and knows no protocol.
//!
//! Invariant: a reply reaches `out` only when every earlier one has. A reply that comes first is
//! copied once, straight to `out`; one that comes early is parked without an allocation of its
//! own.

use std::collections::VecDeque;

/// Names one request of one client. Wraps around; a client never has that many in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence(u32);

impl Sequence {
    /// Whether the request came later than another one of the same client.
    pub(crate) fn is_after(self, other: Self) -> bool {
        (1..=u32::MAX / 2).contains(&self.0.wrapping_sub(other.0))
    }
}

/// Replies up to this size are parked inside their slot.
const INLINE: usize = 22;
/// A buffer larger than this is given back once it is empty.
const KEEP_BYTES: usize = 512 * 1024;
/// While more than this waits for the client, no further piece of a large reply is taken.
const PIECES_BYTES: usize = 128 * 1024;
/// The parking area is compacted when it is larger than this and mostly dead.
const COMPACT_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
enum Slot {
    Waiting { muted: bool },
    Inline { length: u8, bytes: [u8; INLINE] },
    Parked { start: usize, length: usize },
}

/// The replies of one client. See the module's page.
#[derive(Debug, Default)]
pub struct ReplyRing {
    out: Vec<u8>,
    written: usize,
    slots: VecDeque<Slot>,
    base: u32,
    parked: Vec<u8>,
    live: usize,
    /// Whether a piece of the next reply is in `out`.
    in_pieces: bool,
}

impl ReplyRing {
    /// Takes a place for the next request's reply. A `muted` reply is dropped when its turn comes.
    pub fn reserve(&mut self, muted: bool) -> Sequence {
        let index = u32::try_from(self.slots.len()).expect("in-flight limits keep rings small");
        self.slots.push_back(Slot::Waiting { muted });
        Sequence(self.base.wrapping_add(index))
    }

    /// Gives the reply to a request. A request that was answered already is left alone.
    pub fn fill(&mut self, sequence: Sequence, reply: &[u8]) {
        let index = sequence.0.wrapping_sub(self.base) as usize;
        let Some(Slot::Waiting { muted }) = self.slots.get(index).copied() else {
            return;
        };
        let reply = if muted { &[] } else { reply };
        if index == 0 {
            self.out.extend_from_slice(reply);
            self.pop();
            self.advance();
            return;
        }
        let slot = self.park(reply);
        if let Some(place) = self.slots.get_mut(index) {
            *place = slot;
        }
    }

    /// Whether a piece of a reply is taken now: every earlier reply has come, and not too many bytes
    /// wait for the client to read them. Pieces of a muted reply are always taken.
    #[must_use]
    pub fn has_room(&self, sequence: Sequence) -> bool {
        match self.slots.front() {
            Some(Slot::Waiting { muted }) if sequence.0 == self.base => *muted || self.is_low(),
            _ => false,
        }
    }

    /// Whether an earlier reply has not come.
    pub(crate) fn is_out_of_turn(&self, sequence: Sequence) -> bool {
        sequence.0 != self.base
    }

    /// Whether few enough bytes wait for the client to read them.
    pub(crate) fn is_low(&self) -> bool {
        self.out.len() - self.written <= PIECES_BYTES
    }

    /// Takes a piece of the reply that comes next.
    pub fn piece(&mut self, sequence: Sequence, bytes: &[u8]) {
        if let Some(Slot::Waiting { muted: false }) = self.slots.front()
            && sequence.0 == self.base
            && !bytes.is_empty()
        {
            self.in_pieces = true;
            self.out.extend_from_slice(bytes);
        }
    }

    /// Whether a piece of this reply was given.
    #[must_use]
    pub fn is_begun(&self, sequence: Sequence) -> bool {
        self.in_pieces && sequence.0 == self.base
    }

    /// Whether the reply that comes next was begun.
    #[must_use]
    pub fn is_in_pieces(&self) -> bool {
        self.in_pieces
    }

    /// The last piece has come.
    pub fn end_pieces(&mut self, sequence: Sequence) {
        if sequence.0 == self.base && !self.slots.is_empty() {
            self.pop();
            self.advance();
        }
    }

    /// Appends a reply made here, behind all earlier ones.
    pub fn answer(&mut self, muted: bool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.slots.is_empty() {
            let before = self.out.len();
            write(&mut self.out);
            if muted {
                self.out.truncate(before);
            }
        } else {
            let mut reply = Vec::new();
            write(&mut reply);
            let sequence = self.reserve(muted);
            self.fill(sequence, &reply);
        }
    }

    /// Appends out-of-band bytes (a push): behind everything asked for so far, so that a message
    /// never overtakes the confirmation of its subscription.
    pub fn push(&mut self, bytes: &[u8]) {
        self.answer(false, |out| out.extend_from_slice(bytes));
    }

    /// The same for a client that is blocked on the one thing it has asked for: it hears at once.
    pub fn push_to_blocked(&mut self, bytes: &[u8]) {
        let waits = matches!(self.slots.front(), Some(Slot::Waiting { .. }));
        if waits && self.slots.len() == 1 && !self.in_pieces {
            self.out.extend_from_slice(bytes);
        } else {
            self.push(bytes);
        }
    }

    fn park(&mut self, reply: &[u8]) -> Slot {
        if let (Ok(length), true) = (u8::try_from(reply.len()), reply.len() <= INLINE) {
            let mut bytes = [0; INLINE];
            for (place, byte) in bytes.iter_mut().zip(reply) {
                *place = *byte;
            }
            return Slot::Inline { length, bytes };
        }
        if self.parked.len() > COMPACT_BYTES && self.live < self.parked.len() / 2 {
            self.compact();
        }
        let start = self.parked.len();
        self.parked.extend_from_slice(reply);
        self.live += reply.len();
        Slot::Parked {
            start,
            length: reply.len(),
        }
    }

    fn compact(&mut self) {
        let old = std::mem::take(&mut self.parked);
        self.parked.reserve(self.live);
        for slot in &mut self.slots {
            if let Slot::Parked { start, length } = slot {
                let moved = self.parked.len();
                self.parked
                    .extend_from_slice(old.get(*start..*start + *length).unwrap_or_default());
                *start = moved;
            }
        }
    }

    fn pop(&mut self) {
        self.in_pieces = false;
        self.slots.pop_front();
        self.base = self.base.wrapping_add(1);
    }

    fn advance(&mut self) {
        while let Some(slot) = self.slots.front().copied() {
            match slot {
                Slot::Waiting { .. } => return,
                Slot::Inline { length, bytes } => {
                    self.out
                        .extend_from_slice(bytes.get(..length.into()).unwrap_or_default());
                }
                Slot::Parked { start, length } => {
                    let reply = self.parked.get(start..start + length).unwrap_or_default();
                    self.out.extend_from_slice(reply);
                    self.live -= length;
                    if self.live == 0 {
                        self.parked.clear();
                        if self.parked.capacity() > KEEP_BYTES {
                            self.parked = Vec::new();
                        }
                    }
                }
            }
            self.pop();
        }
    }

    /// How many requests have no reply in `out` yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// How many bytes wait for the client to read them.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.out.len() - self.written + self.live + self.slots.len() * size_of::<Slot>()
    }

    /// The bytes to write next.
    #[must_use]
    pub fn writable(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    /// Records that the first `count` bytes of [`Self::writable`] were written.
    pub fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.out.len() {
            self.written = 0;
            self.out.clear();
            if self.out.capacity() > KEEP_BYTES {
                self.out = Vec::new();
            }
        } else if self.written > COMPACT_BYTES && self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
    }

    /// Gives memory back when nothing is waiting. Called when the client has gone quiet, so that
    /// ten thousand idle clients hold no buffers.
    pub fn shrink(&mut self) {
        if self.out.is_empty() && self.slots.is_empty() {
            self.out = Vec::new();
            self.parked = Vec::new();
            self.slots = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(ring: &ReplyRing) -> String {
        String::from_utf8(ring.writable().to_vec()).unwrap()
    }

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let mut ring = ReplyRing::default();
        let tickets: Vec<_> = (0..6).map(|_| ring.reserve(false)).collect();
        let long = "x".repeat(100);
        for (ticket, reply) in [(3, "3"), (1, long.as_str()), (5, "5"), (4, long.as_str())] {
            ring.fill(tickets[ticket], reply.as_bytes());
            assert_eq!(written(&ring), "");
        }
        ring.fill(tickets[0], b"0");
        assert_eq!(written(&ring), format!("0{long}"));
        ring.answer(false, |out| out.extend_from_slice(b"local"));
        ring.fill(tickets[2], b"2");
        assert_eq!(written(&ring), format!("0{long}23{long}5local"));
        assert_eq!(ring.in_flight(), 0);
        assert_eq!(ring.live, 0);
    }

    #[test]
    fn a_second_reply_to_one_request_changes_nothing() {
        let mut ring = ReplyRing::default();
        let (first, second) = (ring.reserve(false), ring.reserve(false));
        ring.fill(second, b"b");
        ring.fill(second, b"B");
        ring.fill(first, b"a");
        ring.fill(first, b"A");
        assert_eq!(written(&ring), "ab");
    }

    #[test]
    fn a_reply_in_pieces_waits_for_its_turn_and_for_room() {
        let mut ring = ReplyRing::default();
        let (first, large, last) = (
            ring.reserve(false),
            ring.reserve(false),
            ring.reserve(false),
        );
        assert!(!ring.has_room(large), "an earlier reply is missing");
        assert!(ring.is_out_of_turn(large));
        ring.fill(last, b"last");
        ring.fill(first, b"first");
        assert!(ring.has_room(large));
        ring.piece(large, b"");
        assert!(!ring.is_begun(large), "nothing has come");
        ring.piece(large, &vec![b'x'; PIECES_BYTES]);
        assert!(ring.is_begun(large));
        assert!(!ring.has_room(large), "too much waits");
        assert!(!ring.is_out_of_turn(large));
        ring.wrote(5 + PIECES_BYTES);
        assert!(ring.has_room(large));
        ring.piece(large, b"end");
        assert_eq!(written(&ring), "end");
        ring.end_pieces(large);
        assert_eq!(written(&ring), "endlast");
        let muted = ring.reserve(true);
        ring.piece(muted, b"hidden");
        assert!(!ring.is_begun(muted));
        assert!(ring.has_room(muted));
        ring.end_pieces(muted);
        assert_eq!(
            (written(&ring), ring.in_flight()),
            ("endlast".to_owned(), 0)
        );
    }

    #[test]
    fn muted_replies_vanish_in_their_turn() {
        let mut ring = ReplyRing::default();
        let muted = ring.reserve(true);
        ring.answer(false, |out| out.extend_from_slice(b"shown"));
        ring.answer(true, |out| out.extend_from_slice(b"hidden"));
        ring.fill(muted, b"hidden");
        assert_eq!(written(&ring), "shown");
    }

    #[test]
    fn parked_bytes_stay_bounded_while_the_ring_never_empties() {
        let mut ring = ReplyRing::default();
        let reply = vec![b'x'; 1000];
        let mut head = ring.reserve(false);
        for _ in 0..10_000 {
            let next = ring.reserve(false);
            let after = ring.reserve(false);
            ring.fill(next, &reply);
            ring.fill(head, b"h");
            head = after;
            let length = ring.writable().len();
            ring.wrote(length);
        }
        assert!(ring.parked.capacity() <= 4 * COMPACT_BYTES);
    }
}
