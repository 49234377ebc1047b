//! A reply that is passed on before it is whole: how long it is at least, and where it ends.
//!
//! Not the passing itself. Invariant: what is passed on is framed as strictly as what is collected,
//! and of a bulk string nothing is kept here but how many of its bytes still have to come.

use super::{MAX_ELEMENTS, ReplyScanner, WRONG_END, head};
use crate::upstream::Pass;

impl ReplyScanner {
    /// How many bytes the reply has at least that begins with `bytes`, of which
    /// [`Self::scan`] has just said that they are not all. What is out of band is never large.
    #[must_use]
    pub fn at_least(&self, bytes: &[u8]) -> usize {
        if bytes.first() == Some(&b'>') {
            return 0;
        }
        match head(bytes, self.at) {
            Ok(Some(head)) => head.element.next + head.bulk.map_or(0, |length| length + 2),
            _ => bytes.len(),
        }
    }

    /// Goes on with a reply that is passed on. The first time, `bytes` are those of the last
    /// [`Self::scan`]; from then on they begin where the part before ended.
    pub fn pass(&mut self, bytes: &[u8]) -> Pass {
        let mut at = std::mem::take(&mut self.at);
        let mut left = self.left.unwrap_or(1);
        while left > 0 {
            if self.bulk > 0 {
                let rest = bytes.get(at..).unwrap_or_default();
                match self.pass_bulk(rest) {
                    Ok(count) => at += count,
                    Err(why) => return Pass::Wrong(why),
                }
                if self.bulk > 0 {
                    break;
                }
                left -= 1;
                continue;
            }
            match head(bytes, at) {
                Ok(None) => break,
                Ok(Some(head)) => {
                    at = head.element.next;
                    if let Some(length) = head.bulk {
                        self.bulk = length + 2;
                        continue;
                    }
                    left = left - 1 + head.element.children;
                    if left > MAX_ELEMENTS {
                        return Pass::Wrong("a reply with too many elements");
                    }
                }
                Err(why) => return Pass::Wrong(why),
            }
        }
        self.left = Some(left);
        if left == 0 {
            Pass::End(at)
        } else {
            Pass::Part(at)
        }
    }

    /// As many bytes of the present bulk string as there are; its last two must be CR LF.
    fn pass_bulk(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let count = self.bulk.min(bytes.len());
        let data = self.bulk.saturating_sub(2).min(count);
        // What is left of the string's end before these bytes.
        let end: &[u8] = if self.bulk == 1 { b"\n" } else { b"\r\n" };
        if !end.starts_with(bytes.get(data..count).unwrap_or_default()) {
            return Err(WRONG_END);
        }
        self.bulk -= count;
        Ok(count)
    }
}
