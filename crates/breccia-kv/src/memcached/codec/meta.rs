//! The keys and flags of meta commands. It does not act on them.
//!
//! Invariant: a flag memcached 1.6.18 would refuse is refused here with the same words, except a
//! flag it does not know: newer servers may, so that is recorded and left to the server.

use super::base64;
use super::line::Words;
use super::number::{signed_32, unsigned_32, unsigned_64};

/// Which meta command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVerb {
    /// `mg`
    Get,
    /// `ms`
    Set,
    /// `md`
    Delete,
    /// `ma`
    Arithmetic,
    /// `me`
    Debug,
}

impl MetaVerb {
    /// The command's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "mg",
            Self::Set => "ms",
            Self::Delete => "md",
            Self::Arithmetic => "ma",
            Self::Debug => "me",
        }
    }
}

impl MetaVerb {
    /// The words for faulty flags: some commands do not tell which fault it was.
    pub(in super::super) fn flag_error(self, fault: &'static str) -> &'static str {
        match self {
            Self::Delete | Self::Arithmetic => "CLIENT_ERROR invalid or duplicate flag",
            _ => fault,
        }
    }
}

/// The key of a meta command: as written, and as decoded if it came in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaKey<'a> {
    /// As on the line.
    pub text: &'a [u8],
    /// Decoded, if the `b` flag was given.
    pub decoded: Option<Vec<u8>>,
}

impl MetaKey<'_> {
    /// The key itself: what is stored, hashed and placed.
    pub fn bytes(&self) -> &[u8] {
        self.decoded.as_deref().unwrap_or(self.text)
    }
}

/// The flags of a meta command.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetaFlags<'a> {
    text: &'a [u8],
    /// `q`: the usual answer is not wanted.
    pub quiet: bool,
    /// `b`: the key came in base64.
    pub base64: bool,
    /// `v`: the value is wanted.
    pub value: bool,
    /// `I`: mark as stale.
    pub invalidate: bool,
    /// `M`: the mode's letter.
    pub mode: Option<u8>,
    /// `C`: the CAS token to compare.
    pub cas: Option<u64>,
    /// `T`: time to live.
    pub ttl: Option<i32>,
    /// `N`: make the item on a miss, with this time to live.
    pub vivify: Option<i32>,
    /// `F`: client flags to store.
    pub client_flags: u32,
    /// `D`: by how much to count; 1 if not given.
    pub delta: u64,
    /// `J`: the value of an item made by `N`.
    pub initial: u64,
    /// The first flag memcached 1.6.18 does not know.
    pub unknown: Option<u8>,
}

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
/// memcached's words for a flag it does not know.
pub(in super::super) const INVALID_FLAG: &str = "CLIENT_ERROR invalid flag";

impl<'a> MetaFlags<'a> {
    /// The flags as written, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        Words::new(self.text)
    }

    /// Whether a flag with this letter was given.
    pub fn has(&self, letter: u8) -> bool {
        self.iter().any(|flag| flag.first() == Some(&letter))
    }

    /// Reads the flags in `text`, and the key if they say it is base64.
    pub(super) fn read(text: &'a [u8], key: &mut MetaKey<'a>) -> Result<Self, &'static str> {
        let mut flags = Self {
            text,
            delta: 1,
            ..Self::default()
        };
        let mut fault = None;
        let mut seen = 0_u128;
        for word in Words::new(text) {
            let (letter, argument) = word.split_first().expect("words are not empty");
            if *letter >= 127 || seen & (1 << letter) != 0 {
                return Err(match flags.unknown {
                    None => "CLIENT_ERROR duplicate flag",
                    Some(_) => INVALID_FLAG,
                });
            }
            seen |= 1 << letter;
            if let Some(text) = flags.take(*letter, argument, key) {
                // Only F has no words of its own: an earlier fault's stay.
                if text != BAD_FORMAT || fault.is_none() {
                    fault = Some(text);
                }
            }
        }
        match (fault, flags.unknown) {
            (None, _) => Ok(flags),
            (Some(_), Some(_)) => Err(INVALID_FLAG),
            (Some(text), None) => Err(text),
        }
    }

    /// Notes one flag; the text says what is wrong with it.
    fn take(&mut self, letter: u8, argument: &[u8], key: &mut MetaKey<'a>) -> Option<&'static str> {
        match letter {
            b'b' => {
                self.base64 = true;
                key.decoded = base64::decode(key.text);
                return key
                    .decoded
                    .is_none()
                    .then_some("CLIENT_ERROR error decoding key");
            }
            b'q' => self.quiet = true,
            b'v' => self.value = true,
            b'I' => self.invalidate = true,
            b'k' | b's' | b't' | b'c' | b'f' | b'h' | b'l' | b'u' | b'O' | b'P' | b'L' => {}
            b'M' => match argument {
                [mode] => self.mode = Some(*mode),
                _ => return Some("CLIENT_ERROR incorrect length for M token"),
            },
            b'T' | b'N' | b'R' => {
                let Some(number) = signed_32(argument) else {
                    return Some(BAD_TOKEN);
                };
                match letter {
                    b'T' => self.ttl = Some(number.value),
                    b'N' => self.vivify = Some(number.value),
                    _ => {}
                }
            }
            b'F' => match unsigned_32(argument) {
                Some(number) => self.client_flags = number.value,
                None => return Some(BAD_FORMAT),
            },
            b'C' | b'J' | b'D' => {
                let Some(number) = unsigned_64(argument) else {
                    return Some(match letter {
                        b'C' => BAD_TOKEN,
                        b'J' => "CLIENT_ERROR invalid numeric initial value",
                        _ => "CLIENT_ERROR invalid numeric delta value",
                    });
                };
                match letter {
                    b'C' => self.cas = Some(number.value),
                    b'J' => self.initial = number.value,
                    _ => self.delta = number.value,
                }
            }
            _ => {
                self.unknown.get_or_insert(letter);
            }
        }
        None
    }

    /// What is wrong with the flags for this command beyond their form.
    pub(super) fn misuse(&self, verb: MetaVerb) -> Option<&'static str> {
        let fault = self.misused(verb)?;
        // Of the two, memcached would have seen the unknown flag first.
        Some(match self.unknown {
            Some(_) => verb.flag_error(INVALID_FLAG),
            None => fault,
        })
    }

    fn misused(&self, verb: MetaVerb) -> Option<&'static str> {
        match (verb, self.mode) {
            (MetaVerb::Set, Some(mode)) if !b"EAPRS".contains(&mode) => {
                return Some("CLIENT_ERROR invalid mode for ms M token");
            }
            (MetaVerb::Arithmetic, Some(mode)) if !b"ID+-".contains(&mode) => {
                return Some("CLIENT_ERROR invalid mode for ma M token");
            }
            _ => {}
        }
        // The letter counts, so 32 bytes in all.
        let long = self
            .iter()
            .any(|flag| flag.first() == Some(&b'O') && flag.len() > 32);
        long.then_some("CLIENT_ERROR opaque token too long")
    }
}
