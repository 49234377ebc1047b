//! Markers: what a shard carries to say which shard of which layout it is.
//!
//! Not here: reading or writing a shard. Invariant: a marker's first line alone tells two shards,
//! and two layouts, apart.

use std::fmt;

use super::Layout;
use crate::error::CoreError;
use crate::hash::HashKind;

/// What the shards of a layout carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    shard: String,
    layout: Layout,
}

impl Marker {
    /// The marker of one shard. `None` if the layout has no such shard.
    pub fn new(layout: &Layout, shard: &str) -> Option<Self> {
        layout.shard_index(shard)?;
        Some(Self {
            shard: shard.to_owned(),
            layout: layout.clone(),
        })
    }

    /// The shard that carries it.
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// The whole layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The first line with its end: enough to compare by.
    pub fn head(&self) -> String {
        format!(
            "breccia marker: composite \"{}\", shard \"{}\", layout {}\n",
            self.layout.composite(),
            self.shard,
            self.layout.digest()
        )
    }

    /// The text a shard carries.
    pub fn to_text(&self) -> String {
        format!("{}{}", self.head(), self.layout.to_document())
    }

    /// Sixteen hex digits that tell this text from others.
    pub fn digest(&self) -> String {
        digest_of(self.to_text().as_bytes())
    }

    /// Reads what a shard carries.
    pub fn from_text(text: &[u8]) -> Result<Self, CoreError> {
        let bad = |problem: &str| CoreError::Marker {
            problem: problem.to_owned(),
        };
        let text = std::str::from_utf8(text).map_err(|_| bad("it is no text"))?;
        let (line, document) = text
            .split_once('\n')
            .ok_or_else(|| bad("it has no second line"))?;
        let shard = line.split_once("shard \"").map(|(_, rest)| rest);
        let shard = shard.and_then(|rest| rest.split_once('"'));
        let (shard, _) = shard.ok_or_else(|| bad("its first line names no shard"))?;
        let layout = Layout::from_document(document)?;
        let marker =
            Self::new(&layout, shard).ok_or_else(|| bad("its layout has no such shard"))?;
        if marker.head().trim_end() != line {
            return Err(bad("its first line does not fit its layout"));
        }
        Ok(marker)
    }

    /// What to do about a shard that carries `found`, where `recorded` is the digest of what we
    /// know it to have carried, and `watched` says that it carried this marker a moment ago.
    pub fn judge(&self, found: Option<&[u8]>, recorded: Option<&str>, watched: bool) -> Verdict {
        let Some(found) = found else {
            return match recorded {
                Some(_) if !watched => Verdict::Refuse(MarkerFault::Absent),
                _ => Verdict::Write,
            };
        };
        if found == self.to_text().as_bytes() {
            return Verdict::Right;
        }
        if recorded == Some(&*digest_of(found)) {
            // Ours, from before an administrator changed the layout.
            return Verdict::Replace;
        }
        Verdict::Refuse(match Self::from_text(found) {
            Err(error) => MarkerFault::Unreadable(error.to_string()),
            Ok(other) if other.layout == self.layout => MarkerFault::OtherShard(other.shard),
            Ok(other) => MarkerFault::OtherLayout {
                digest: other.layout.digest(),
                epoch: other.layout.epoch().get(),
            },
        })
    }
}

fn digest_of(text: &[u8]) -> String {
    format!("{:016x}", HashKind::Xxh3_64.hash(text))
}

/// What to do about a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It carries the marker.
    Right,
    /// It carries none, and may be given it.
    Write,
    /// It carries an earlier one of ours.
    Replace,
    /// It must not be used.
    Refuse(MarkerFault),
}

/// Why a shard must not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkerFault {
    /// It carried a marker once, and carries none now.
    Absent,
    /// It is another shard of this layout.
    OtherShard(String),
    /// It belongs to another layout.
    OtherLayout {
        /// That one's digest.
        digest: String,
        /// That one's epoch.
        epoch: u64,
    },
    /// It carries something else.
    Unreadable(String),
}

impl fmt::Display for MarkerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it had a marker and has none now"),
            Self::OtherShard(shard) => write!(f, "its marker says that it is shard '{shard}'"),
            Self::OtherLayout { digest, epoch } => {
                write!(
                    f,
                    "its marker is of another layout, {digest} (epoch {epoch})"
                )
            }
            Self::Unreadable(problem) => write!(f, "its marker cannot be read: {problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CompositeKind, LayoutSpec, PlacementKey, Role};
    use super::*;

    fn layout(shards: &[&str]) -> Layout {
        Layout::first(&LayoutSpec {
            composite: "cache".to_owned(),
            kind: CompositeKind::InMemory,
            hash: HashKind::Xxh3_64,
            hash_tag: None,
            placement_key: PlacementKey::Raw,
            role: Role::Outer,
            shards: shards.iter().map(|shard| (*shard).to_owned()).collect(),
        })
        .unwrap()
    }

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let layout = layout(&["a", "b"]);
        let marker = Marker::new(&layout, "b").unwrap();
        assert_eq!(
            Marker::from_text(marker.to_text().as_bytes()).unwrap(),
            marker
        );
        assert_eq!(Marker::new(&layout, "c"), None);
        let check = |from: &str, to: &str, problem: &str| {
            let text = marker.to_text().replacen(from, to, 1);
            let error = Marker::from_text(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        };
        check("shard \"b\"", "shard \"c\"", "no such shard");
        check("shard \"b\"", "b", "names no shard");
        check("composite \"cache\"", "composite \"cash\"", "does not fit");
        check("\nepoch = 1", "\nepoch = 2", "digest");
        assert!(Marker::from_text(b"\xff\n").is_err());
        assert!(Marker::from_text(b"").is_err());
    }

    #[test]
    fn shards_are_used_only_where_their_marker_or_the_record_allows_it() {
        let (ours, theirs) = (layout(&["a", "b"]), layout(&["b", "a"]));
        let marker = Marker::new(&ours, "a").unwrap();
        let text = |layout: &Layout, shard: &str| Marker::new(layout, shard).unwrap().to_text();
        let check = |found: Option<&str>, recorded: Option<&str>, watched: bool, expected| {
            let verdict = marker.judge(found.map(str::as_bytes), recorded, watched);
            assert_eq!(verdict, expected, "{found:?} {recorded:?} {watched}");
        };
        let own = marker.digest();
        check(None, None, false, Verdict::Write);
        check(None, Some(&own), true, Verdict::Write);
        check(
            None,
            Some(&own),
            false,
            Verdict::Refuse(MarkerFault::Absent),
        );
        check(Some(&text(&ours, "a")), None, false, Verdict::Right);
        check(Some(&text(&ours, "a")), Some("old"), false, Verdict::Right);
        let other = Verdict::Refuse(MarkerFault::OtherShard("b".to_owned()));
        check(Some(&text(&ours, "b")), Some(&own), true, other);
        let foreign = text(&theirs, "a");
        let (digest, epoch) = (theirs.digest(), 1);
        let other = Verdict::Refuse(MarkerFault::OtherLayout { digest, epoch });
        check(Some(&foreign), Some(&own), false, other);
        let recorded = digest_of(foreign.as_bytes());
        check(Some(&foreign), Some(&recorded), false, Verdict::Replace);
        assert!(matches!(
            marker.judge(Some(b"junk"), None, false),
            Verdict::Refuse(MarkerFault::Unreadable(_))
        ));
    }
}
