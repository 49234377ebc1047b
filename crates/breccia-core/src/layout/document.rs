//! The layout as a text document: a small, strict subset of TOML.
//!
//! Not here: files. A document comes as text and goes as text.
//!
//! Invariant: what [`write`] makes, [`read`] turns into an equal layout; a text whose fields do not
//! give the digest it states is refused.

use std::collections::BTreeMap;

use super::{CompositeKind, FORMAT, Layout, Role};
use crate::error::CoreError;
use crate::hash::{HashKind, HashTag};
use crate::placement_key::PlacementKey;
use crate::slots::{Epoch, MAX_SHARDS, SlotTable};

/// More slots than any layout of this format has: a first layout has fewer than twice
/// [`crate::slots::MIN_SLOTS`].
const MAX_SLOTS: u64 = 1 << 16;

const HEAD: &str = "\
# A layout of Breccia: where each key of one composite lies. Every gateway in front of these
# shards needs the same digest. Made by Breccia, and checked on loading: do not edit it.
";

pub(super) fn write(layout: &Layout) -> String {
    let tag = layout
        .hash_tag
        .map(|tag| tag.to_string())
        .unwrap_or_default();
    let mut out = String::from(HEAD);
    let mut line = |key: &str, value: String| {
        out.push_str(key);
        out.push_str(" = ");
        out.push_str(&value);
        out.push('\n');
    };
    line("format", FORMAT.to_string());
    line("composite", quoted(&layout.composite));
    line("digest", quoted(&layout.digest()));
    line("epoch", layout.epoch.to_string());
    line("kind", quoted(layout.kind.name()));
    line("role", quoted(layout.role.name()));
    line("hash", quoted(layout.hash.name()));
    line("hash-tag", quoted(&tag));
    line("placement-key", quoted(&layout.placement_key.to_string()));
    line("seed", quoted(&format!("{:016x}", layout.seed)));
    line("slots", layout.slot_count().to_string());
    for (shard, slots) in layout.shards.iter().zip(runs::of_shards(layout)) {
        out.push_str("\n[[shard]]\nname = ");
        out.push_str(&quoted(shard));
        out.push_str("\nslots = ");
        out.push_str(&quoted(&slots));
        out.push('\n');
    }
    out
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

pub(super) fn read(text: &str) -> Result<Layout, CoreError> {
    let sections = sections(text)?;
    let mut sections = sections.into_iter();
    let mut head = sections.next().unwrap_or_default();
    let format = head.number("format")?;
    if format != FORMAT {
        return Err(CoreError::UnknownFormat {
            found: format,
            known: FORMAT,
        });
    }
    let composite = head.text("composite")?;
    let stated = head.text("digest")?;
    let epoch = Epoch::new(head.number("epoch")?);
    let kind = head.named("kind", CompositeKind::from_name)?;
    let role = head.named("role", Role::from_name)?;
    let hash = head.named("hash", |name| name.parse::<HashKind>().ok())?;
    let hash_tag = head.named("hash-tag", |text| match text {
        "" => Some(None),
        tag => tag.parse::<HashTag>().ok().map(Some),
    })?;
    let placement_key = head.named("placement-key", |text| text.parse::<PlacementKey>().ok())?;
    let seed = head.named("seed", |text| {
        read_hex(text).filter(|seed| fits_role(*seed, role))
    })?;
    let slots = head.named_number("slots", |slots| (1..=MAX_SLOTS).contains(&slots))?;
    let end = head.end;
    head.finish()?;
    let (shards, table) = read_shards(sections, slots, end)?;
    let layout = Layout {
        composite,
        kind,
        role,
        hash,
        hash_tag,
        placement_key,
        seed,
        epoch,
        shards,
        table,
        digest: 0,
    };
    let layout = layout.checked()?;
    if layout.digest() == stated {
        return Ok(layout);
    }
    Err(CoreError::DigestMismatch {
        computed: layout.digest(),
        composite: layout.composite,
        stated,
    })
}

/// Outer composites follow the plain rule, which has no seed.
fn fits_role(seed: u64, role: Role) -> bool {
    role == Role::Inner || seed == 0
}

fn read_hex(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn read_shards(
    sections: impl Iterator<Item = Section>,
    slots: u64,
    head_end: usize,
) -> Result<(Vec<String>, SlotTable), CoreError> {
    let count = usize::try_from(slots).unwrap_or(usize::MAX);
    let mut table: Vec<Option<u16>> = vec![None; count];
    let mut shards = Vec::new();
    let mut end = head_end;
    for mut section in sections {
        end = section.end;
        let number = u16::try_from(shards.len()).unwrap_or(u16::MAX);
        if number >= MAX_SHARDS {
            return Err(bad(end, format!("there are more than {MAX_SHARDS} shards")));
        }
        shards.push(section.text("name")?);
        let (line, runs) = section.take_text("slots")?;
        section.finish()?;
        runs::read(&runs, |slot| match table.get_mut(slot) {
            None => Err(format!("slot {slot} is beyond the last one, {}", count - 1)),
            Some(Some(_)) => Err(format!("slot {slot} lies on two shards")),
            Some(free) => {
                *free = Some(number);
                Ok(())
            }
        })
        .map_err(|problem| bad(line, problem))?;
    }
    let homeless = table.iter().position(Option::is_none);
    let table = table
        .into_iter()
        .collect::<Option<Vec<u16>>>()
        .and_then(SlotTable::new);
    let problem = || format!("slot {} lies on no shard", homeless.unwrap_or_default());
    table
        .map(|table| (shards, table))
        .ok_or_else(|| bad(end, problem()))
}

fn bad(line: usize, problem: impl Into<String>) -> CoreError {
    CoreError::BadDocument {
        line,
        problem: problem.into(),
    }
}

/// The keys of the document's head, or of one `[[shard]]`.
#[derive(Default)]
struct Section {
    values: BTreeMap<String, (usize, Value)>,
    /// The last line that belongs to it.
    end: usize,
}

enum Value {
    Number(u64),
    Text(String),
}

impl Section {
    fn take(&mut self, key: &str) -> Result<(usize, Value), CoreError> {
        let end = self.end;
        self.values
            .remove(key)
            .ok_or_else(|| bad(end, format!("`{key}` is missing before here")))
    }

    fn number(&mut self, key: &str) -> Result<u64, CoreError> {
        self.named_number(key, |_| true)
    }

    fn named_number(
        &mut self,
        key: &str,
        fits: impl FnOnce(u64) -> bool,
    ) -> Result<u64, CoreError> {
        match self.take(key)? {
            (_, Value::Number(number)) if fits(number) => Ok(number),
            (line, _) => Err(bad(
                line,
                format!("`{key}` is not a number that can stand here"),
            )),
        }
    }

    fn take_text(&mut self, key: &str) -> Result<(usize, String), CoreError> {
        match self.take(key)? {
            (line, Value::Text(text)) => Ok((line, text)),
            (line, Value::Number(_)) => Err(bad(line, format!("`{key}` is not a quoted text"))),
        }
    }

    fn text(&mut self, key: &str) -> Result<String, CoreError> {
        self.take_text(key).map(|(_, text)| text)
    }

    fn named<T>(&mut self, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, CoreError> {
        let (line, text) = self.take_text(key)?;
        read(&text).ok_or_else(|| {
            bad(
                line,
                format!("this release of Breccia knows no {key} = \"{text}\""),
            )
        })
    }

    fn finish(self) -> Result<(), CoreError> {
        match self.values.into_iter().next() {
            None => Ok(()),
            Some((key, (line, _))) => Err(bad(line, format!("`{key}` does not belong here"))),
        }
    }
}

/// The head, then every `[[shard]]`.
fn sections(text: &str) -> Result<Vec<Section>, CoreError> {
    let mut done = Vec::new();
    let mut current = Section::default();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line == "[[shard]]" {
            done.push(std::mem::take(&mut current));
        } else if !line.is_empty() && !line.starts_with('#') {
            let (key, value) =
                pair(line).ok_or_else(|| bad(number, "this is not `key = value`"))?;
            if current
                .values
                .insert(key.to_owned(), (number, value))
                .is_some()
            {
                return Err(bad(number, format!("`{key}` is set a second time")));
            }
        }
        current.end = number;
    }
    done.push(current);
    Ok(done)
}

fn pair(line: &str) -> Option<(&str, Value)> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let inner = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let value = match inner {
        Some(inner) if inner.contains(['"', '\\']) => return None,
        Some(inner) => Value::Text(inner.to_owned()),
        None if value.bytes().all(|byte| byte.is_ascii_digit()) => {
            Value::Number(value.parse().ok()?)
        }
        None => return None,
    };
    Some((key, value))
}

/// The slots of a shard as text: `0-4095/3 17 20-23` means 0, 3, … 4095, and 17, 20, 21, 22, 23.
mod runs {
    use super::Layout;

    /// The texts of all shards, in their order.
    pub(super) fn of_shards(layout: &Layout) -> Vec<String> {
        let mut held: Vec<Vec<usize>> = vec![Vec::new(); layout.shards.len()];
        for (slot, shard) in layout.table.as_slice().iter().enumerate() {
            if let Some(held) = held.get_mut(usize::from(*shard)) {
                held.push(slot);
            }
        }
        held.iter().map(|slots| write(slots)).collect()
    }

    fn write(mut slots: &[usize]) -> String {
        let mut parts = Vec::new();
        while let [first, rest @ ..] = slots {
            let step = rest.first().map_or(1, |second| second - first);
            let length = 1 + rest
                .iter()
                .scan(*first, |expected, slot| {
                    *expected += step;
                    (*expected == *slot).then_some(())
                })
                .count();
            let last = first + step * (length - 1);
            // Two slots in a row tell of no step.
            let (part, taken) = match (length, step) {
                (1, _) => (format!("{first}"), 1),
                (2, step) if step > 1 => (format!("{first}"), 1),
                (_, 1) => (format!("{first}-{last}"), length),
                _ => (format!("{first}-{last}/{step}"), length),
            };
            parts.push(part);
            slots = slots.get(taken..).unwrap_or_default();
        }
        parts.join(" ")
    }

    /// Calls `hold` with every slot the text names.
    pub(super) fn read(
        text: &str,
        mut hold: impl FnMut(usize) -> Result<(), String>,
    ) -> Result<(), String> {
        for part in text.split_ascii_whitespace() {
            let (first, last, step) =
                run(part).ok_or_else(|| format!("'{part}' is not a run of slots"))?;
            let mut slot = first;
            while slot <= last {
                hold(slot)?;
                slot = slot.checked_add(step).ok_or("a run of slots is too long")?;
            }
        }
        Ok(())
    }

    fn run(part: &str) -> Option<(usize, usize, usize)> {
        let number = |text: &str| -> Option<usize> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step).filter(|step| *step > 0)?),
            None => (part, 1),
        };
        match range.split_once('-') {
            Some((first, last)) => Some((number(first)?, number(last)?, step)),
            None => number(range).map(|slot| (slot, slot, step)),
        }
    }
}
