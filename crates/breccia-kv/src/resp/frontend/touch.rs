//! What a request of a cluster touches, read from its bytes; and a shorter wait for one that blocks.
//!
//! Only looked at once a server has refused a request of its client. Invariant: what is not known
//! counts as a write that touches everything.

use std::time::Duration;

use super::super::cluster::slot_of;
use super::super::codec::request::{Request, RequestLimits, RequestParser};
use super::super::commands::{CommandSpec, Flags, find, keys};
use super::super::encode;

/// See the module's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    /// The slot of its keys; `None`: any.
    pub slot: Option<u16>,
    /// Whether it may change something.
    pub writes: bool,
    /// Whether its reply is made by code on the server, which may say what it likes.
    pub runs_code: bool,
}

impl Touch {
    pub(super) const UNKNOWN: Self = Self {
        slot: None,
        writes: true,
        runs_code: true,
    };

    pub(super) fn of(frame: &[u8]) -> Self {
        with_request(frame, |request| Some(Self::of_request(request))).unwrap_or(Self::UNKNOWN)
    }

    fn of_request(request: Request<'_>) -> Self {
        let Some(spec) = find(request.argument(0)) else {
            return Self::UNKNOWN;
        };
        let mut found = Vec::new();
        let slot = match keys(spec, &request, &mut found) {
            Ok(()) => found.first().map(|index| slot_of(request.argument(*index))),
            Err(_) => None,
        };
        Self {
            slot,
            writes: !spec.flags.contains(Flags::READONLY),
            runs_code: runs_code(spec),
        }
    }

    /// Whether the order of the two can be seen.
    pub(super) fn meets(self, other: Self) -> bool {
        let same = self.slot.is_none() || other.slot.is_none() || self.slot == other.slot;
        same && (self.writes || other.writes)
    }
}

/// Whether the reply to a command is made by code that users bring.
pub(super) fn runs_code(spec: &CommandSpec) -> bool {
    spec.name.starts_with("eval") || spec.name.starts_with("fcall")
}

/// A request that blocks, for `waited` less than it asks; `None`: it asks for ever, or it is not
/// known where it says how long.
pub(super) fn shortened(frame: &[u8], waited: Duration) -> Option<Vec<u8>> {
    with_request(frame, |request| {
        let name = find(request.argument(0))?.name;
        let (index, in_ms) = match name {
            "blmpop" | "bzmpop" => (1, false),
            "xread" | "xreadgroup" => {
                let mut words = request.arguments();
                (
                    words.position(|word| word.eq_ignore_ascii_case(b"block"))? + 1,
                    true,
                )
            }
            "blpop" | "brpop" | "blmove" | "brpoplpush" | "bzpopmin" | "bzpopmax" => {
                (request.len().checked_sub(1)?, false)
            }
            _ => return None,
        };
        let text = std::str::from_utf8(request.arguments().nth(index)?).ok()?;
        let asked: f64 = text.parse().ok()?;
        let asked = if in_ms { asked / 1000.0 } else { asked };
        if !(asked.is_finite() && asked > 0.0) {
            return None;
        }
        // None left would mean for ever.
        let left = (asked - waited.as_secs_f64()).max(0.001);
        let left = if in_ms {
            format!("{:.0}", (left * 1000.0).ceil())
        } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // Old servers take whole seconds only.
            format!("{:.0}", left.ceil())
        } else {
            format!("{left:.3}")
        };
        let mut shorter = Vec::with_capacity(frame.len() + left.len());
        encode::array(&mut shorter, request.len());
        for place in 0..request.len() {
            if place == index {
                encode::bulk(&mut shorter, left.as_bytes());
            } else {
                shorter.extend_from_slice(request.encoded(place));
            }
        }
        Some(shorter)
    })
}

fn with_request<T>(frame: &[u8], look: impl FnOnce(Request<'_>) -> Option<T>) -> Option<T> {
    let limits = RequestLimits {
        max_request_size: usize::MAX,
        max_arguments: usize::MAX,
    };
    let mut parser = RequestParser::default();
    let length = parser.parse(frame, &limits).ok()??;
    look(parser.request(frame, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(words: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut frame = Vec::new();
        encode::request(&mut frame, &words);
        frame
    }

    #[test]
    fn a_request_touches_the_slot_of_its_keys() {
        let check = |words: &str, slot: Option<u16>, writes: bool, runs_code: bool| {
            let wanted = Touch {
                slot,
                writes,
                runs_code,
            };
            assert_eq!(Touch::of(&frame(words)), wanted, "{words}");
        };
        check("GET foo", Some(12_182), false, false);
        check("MSET {foo}a 1 {foo}b 2", Some(12_182), true, false);
        check("EVAL x 1 foo", Some(12_182), true, true);
        check("fcall f 1 foo", Some(12_182), true, true);
        check("EVALSHA_RO x 0", None, false, true);
        check("MOD.SET foo", None, true, true);
        check("DBSIZE", None, false, false);
        assert_eq!(Touch::of(b"*1\r\n$4\r\nPI"), Touch::UNKNOWN);
    }

    #[test]
    fn a_client_blocks_no_longer_than_it_asked() {
        let check = |words: &str, wanted: Option<&str>| {
            let shorter = shortened(&frame(words), Duration::from_millis(1500));
            assert_eq!(shorter, wanted.map(frame), "{words}");
        };
        check("BLPOP l 5.0", Some("BLPOP l 3.500"));
        check("BLPOP l 5", Some("BLPOP l 4"));
        check("BLPOP l 1", Some("BLPOP l 1"));
        check("BLPOP l 1.2", Some("BLPOP l 0.001"));
        check("BLPOP l 0", None);
        check("BLMPOP 5.5 1 l LEFT", Some("BLMPOP 4.000 1 l LEFT"));
        check(
            "XREAD BLOCK 2000 STREAMS s $",
            Some("XREAD BLOCK 500 STREAMS s $"),
        );
        check("WAIT 1 5", None);
    }
}
