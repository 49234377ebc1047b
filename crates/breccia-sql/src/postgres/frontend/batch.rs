//! What a batch is: the frames up to a Sync, or one query.
//!
//! Pure. Not where it goes yet: that also depends on what the session has seen. Invariant: one
//! statement that is not proven a read takes its whole batch to the primary.

use std::sync::Arc;

use super::names::{Names, Under};
use crate::class::{Class, Verdict};
use crate::postgres::codec::{self, CodecError, Head};

/// A batch larger than this is not looked at whole: it goes to the primary piece by piece. One simple
/// query is, and is bounded by `max-request-size`.
pub(super) const MAX_BATCH: usize = 1 << 20;

/// Names of statements and portals kept of one batch.
const MAX_NAMES: usize = 64;

/// How far the frames of a batch reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// More bytes are needed to tell.
    Unknown,
    /// It is this many bytes long, and ends as a batch does.
    Whole(usize),
    /// It does not end here, but an answer is wanted, or it is too long to wait for its end.
    Part(usize),
    /// The client says goodbye at its beginning.
    Goodbye,
}

/// Looks for the end of the first batch in `bytes`; frames up to `known` were looked at before.
pub(super) fn extent(bytes: &[u8], known: &mut usize) -> Result<Extent, CodecError> {
    loop {
        let rest = bytes.get(*known..).unwrap_or_default();
        let Some(Head { tag, length }) = codec::head(rest)? else {
            return Ok(Extent::Unknown);
        };
        if rest.len() < length {
            // A long text is wanted whole wherever it goes, and its client may be slow to send it:
            // until then it holds no connection.
            let long = bytes.len() >= MAX_BATCH && (tag, *known) != (b'Q', 0);
            return Ok(if long {
                Extent::Part(*known)
            } else {
                Extent::Unknown
            });
        }
        if tag == b'X' {
            return Ok(match *known {
                0 => Extent::Goodbye,
                known => Extent::Part(known),
            });
        }
        *known += length;
        match tag {
            b'Q' | b'S' | b'F' => return Ok(Extent::Whole(*known)),
            b'H' => return Ok(Extent::Part(*known)),
            _ if *known >= MAX_BATCH => return Ok(Extent::Part(*known)),
            _ => {}
        }
    }
}

/// What is known of a batch before it is sent.
#[derive(Debug)]
pub(super) struct Batch {
    /// It is read only; else why it goes to the primary.
    pub(super) reads: Result<(), &'static str>,
    /// The only statement it executes, if it is one.
    pub(super) only: Option<Arc<Verdict>>,
    /// Verdicts of all statements it executes or prepares.
    pub(super) verdicts: Few<Arc<Verdict>>,
    /// How many statements it executes.
    pub(super) executed: usize,
    /// It is one simple query.
    pub(super) simple: bool,
    /// Some of its statements are Breccia's own.
    pub(super) own: bool,
    /// What its statements are is told one by one, as they are sent.
    pub(super) unseen: bool,
}

/// A list whose first place is at hand: most have no second.
#[derive(Debug)]
pub(super) struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
        }
    }
}

impl<T> Few<T> {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.rest)
    }

    fn push(&mut self, item: T) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => self.rest.push(item),
        }
    }
}

/// Few things by name; a later one hides an earlier one. A batch of many statements uses few names.
struct Named<'a, T>(Few<(&'a [u8], T)>);

impl<'a, T> Named<'a, T> {
    fn get(&self, name: &[u8]) -> Option<&T> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }

    /// `false`: there are too many.
    #[must_use]
    fn insert(&mut self, name: &'a [u8], value: T) -> bool {
        if let Some((_, place)) = self.0.iter_mut().find(|(known, _)| *known == name) {
            *place = value;
            return true;
        }
        let fits = self.0.len() < MAX_NAMES;
        if fits {
            self.0.push((name, value));
        }
        fits
    }
}

/// Looks at whole frames. `judge` tells what a text is.
pub(super) fn look(
    frames: &[u8],
    names: &Names,
    under: Under,
    mut judge: impl FnMut(&[u8]) -> Arc<Verdict>,
) -> Result<Batch, CodecError> {
    let mut batch = Batch {
        reads: Ok(()),
        only: None,
        verdicts: Few::default(),
        executed: 0,
        simple: false,
        own: false,
        unseen: false,
    };
    let mut prepared: Named<'_, Arc<Verdict>> = Named(Few::default());
    let mut portals: Named<'_, Option<Arc<Verdict>>> = Named(Few::default());
    let mut at = 0;
    while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
        let frame = frames.get(at..at + head.length).unwrap_or_default();
        at += head.length;
        let body = codec::body(frame);
        match head.tag {
            b'Q' => {
                batch.simple = true;
                batch.execute(Some(judge(codec::query(body)?)));
            }
            b'P' => {
                let parse = codec::parse(body)?;
                let verdict = judge(parse.sql);
                batch.note(&verdict);
                if !prepared.insert(parse.name, verdict) {
                    return Ok(Batch::unseen("many-names"));
                }
            }
            b'B' => {
                let bind = codec::bind(body)?;
                let known = prepared.get(bind.statement).map(Arc::clone);
                let verdict = known.or_else(|| names.verdict(bind.statement, under, &mut judge));
                if !portals.insert(bind.portal, verdict) {
                    return Ok(Batch::unseen("many-names"));
                }
            }
            b'D' => {
                let (kind, name) = codec::named(b'D', body)?;
                if kind == b'S'
                    && prepared.get(name).is_none()
                    && let Some(verdict) = names.verdict(name, under, &mut judge)
                {
                    batch.note(&verdict);
                }
            }
            b'E' => {
                let (portal, _) = codec::text(body).ok_or(CodecError::Malformed { tag: 'E' })?;
                batch.execute(portals.get(portal).cloned().flatten());
            }
            b'F' => batch.execute(Some(Arc::new(called(body)?))),
            b'd' | b'c' | b'f' => batch.go("copy"),
            _ => {}
        }
    }
    Ok(batch)
}

/// Functions of large objects, by number: those that client libraries call by the protocol's own
/// message. They leave nothing behind in the session.
const LARGE_OBJECTS: [u32; 17] = [
    715, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172, 3457, 3458, 3459, 3460,
];

/// What a function call is, by the body of its frame.
pub(super) fn called(body: &[u8]) -> Result<Verdict, CodecError> {
    let (number, _) = codec::int32(body).ok_or(CodecError::Malformed { tag: 'F' })?;
    let class = if LARGE_OBJECTS.contains(&number) {
        Class::Primary("function-call")
    } else {
        Class::Pin("function-call")
    };
    Ok(Verdict {
        class,
        hint_primary: true,
        ddl: false,
        uses_now: true,
        single: true,
    })
}

impl Batch {
    /// One that is not looked at.
    pub(super) fn unseen(reason: &'static str) -> Self {
        Self {
            reads: Err(reason),
            only: None,
            verdicts: Few::default(),
            executed: 2,
            simple: false,
            own: false,
            unseen: true,
        }
    }

    /// Whether running it twice is as running it once, wherever it must go.
    pub(super) fn only_reads(&self) -> bool {
        let reads = |verdict: &Arc<Verdict>| matches!(verdict.class, Class::Read | Class::Empty);
        matches!(self.reads, Ok(()) | Err("hint"))
            && self.executed == self.verdicts.len()
            && self.verdicts.iter().all(reads)
    }

    pub(super) fn go(&mut self, reason: &'static str) {
        if self.reads.is_ok() {
            self.reads = Err(reason);
        }
    }

    /// A statement is prepared or described here: it goes where it would be executed.
    fn note(&mut self, verdict: &Arc<Verdict>) {
        match &verdict.class {
            Class::Read | Class::Empty if !verdict.hint_primary => {}
            Class::Read | Class::Empty => self.go("hint"),
            Class::Primary(reason) | Class::Pin(reason) => self.go(reason),
            Class::Begin { .. } | Class::Commit | Class::Rollback => self.go("transaction"),
            Class::Set { .. } | Class::Reset { .. } | Class::DiscardAll => self.go("set"),
            Class::Deallocate { .. } => self.go("prepare"),
            Class::Ddl => self.go("ddl"),
            Class::OwnSet { .. }
            | Class::OwnShow { .. }
            | Class::OwnReset { .. }
            | Class::OwnMisplaced => {
                self.own = true;
                self.go("own");
            }
        }
    }

    fn execute(&mut self, verdict: Option<Arc<Verdict>>) {
        self.executed += 1;
        let Some(verdict) = verdict else {
            self.go("unknown-portal");
            self.only = None;
            return;
        };
        self.note(&verdict);
        self.only = (self.executed == 1).then(|| Arc::clone(&verdict));
        self.verdicts.push(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::codec::message;

    fn verdict(class: Class) -> Arc<Verdict> {
        Arc::new(Verdict {
            class,
            hint_primary: false,
            ddl: false,
            uses_now: false,
            single: true,
        })
    }

    fn judge(sql: &[u8]) -> Arc<Verdict> {
        verdict(if sql.starts_with(b"SELECT") {
            Class::Read
        } else {
            Class::Primary("write")
        })
    }

    #[test]
    fn a_batch_ends_at_a_sync_or_with_a_query() {
        let mut bytes = Vec::new();
        message::parse(&mut bytes, b"", b"SELECT 1", &[0, 0]);
        let mut known = 0;
        assert_eq!(extent(&bytes, &mut known), Ok(Extent::Unknown));
        message::empty(&mut bytes, b'S');
        let whole = bytes.len();
        message::query(&mut bytes, "SELECT 2");
        assert_eq!(extent(&bytes, &mut known), Ok(Extent::Whole(whole)));
        let mut known = 0;
        assert_eq!(extent(&[b'X', 0, 0, 0, 4], &mut known), Ok(Extent::Goodbye));
        let flush = [b'H', 0, 0, 0, 4];
        assert_eq!(extent(&flush, &mut known), Ok(Extent::Part(5)));
    }

    #[test]
    fn one_write_takes_the_batch_to_the_primary() {
        let check = |texts: &[&str], expected: Result<(), &'static str>| {
            let mut bytes = Vec::new();
            for sql in texts {
                message::parse(&mut bytes, b"", sql.as_bytes(), &[0, 0]);
                bytes.extend_from_slice(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0");
                bytes.extend_from_slice(b"E\0\0\0\x09\0\0\0\0\0");
            }
            message::empty(&mut bytes, b'S');
            let batch =
                look(&bytes, &Names::default(), Under::default(), judge).expect("good frames");
            assert_eq!(
                (batch.reads, batch.executed),
                (expected, texts.len()),
                "{texts:?}"
            );
        };
        check(&["SELECT 1"], Ok(()));
        check(&["SELECT 1", "SELECT 2"], Ok(()));
        check(&["SELECT 1", "INSERT"], Err("write"));
        check(&["INSERT", "SELECT 1"], Err("write"));
    }

    #[test]
    fn a_batch_of_more_names_than_are_kept_is_looked_at_frame_by_frame() {
        let check = |names: usize, unseen: bool| {
            let mut bytes = Vec::new();
            for name in 0..names {
                message::parse(
                    &mut bytes,
                    format!("s{name}").as_bytes(),
                    b"SELECT 1",
                    &[0, 0],
                );
            }
            let batch =
                look(&bytes, &Names::default(), Under::default(), judge).expect("good frames");
            assert_eq!(
                (batch.unseen, batch.reads.is_err()),
                (unseen, unseen),
                "{names}"
            );
        };
        check(MAX_NAMES, false);
        check(MAX_NAMES + 1, true);
    }

    #[test]
    fn a_function_call_pins_unless_it_is_of_a_large_object() {
        let check = |number: u32, expected: Class| {
            let mut bytes = Vec::new();
            message::frame(&mut bytes, b'F', |out| {
                out.extend_from_slice(&number.to_be_bytes());
            });
            let batch =
                look(&bytes, &Names::default(), Under::default(), judge).expect("good frames");
            let only = batch.only.expect("one statement");
            assert_eq!(
                (&only.class, batch.reads),
                (&expected, Err("function-call"))
            );
        };
        check(954, Class::Primary("function-call"));
        check(2078, Class::Pin("function-call"));
    }

    #[test]
    fn a_portal_of_an_earlier_batch_is_not_trusted() {
        let bytes = b"E\0\0\0\x09\0\0\0\0\0";
        let batch = look(bytes, &Names::default(), Under::default(), judge).expect("good frames");
        assert_eq!(batch.reads, Err("unknown-portal"));
    }
}
