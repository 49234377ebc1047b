//! From a path or a text to a plan, or to everything that is wrong with it.
//!
//! The only file that opens a configuration. Invariant: a plan and a fault never come together.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use toml_edit::Document;

use crate::decode::{Decoder, Env, Spot};
use crate::fault::{ConfigError, Fault, Warning};
use crate::plan::Plan;
use crate::source::{Source, whole_file};
use crate::{assemble, check, tables, units};

/// The largest configuration file, in bytes.
const FILE_MOST: u64 = 4 << 20;

/// The most syntax errors that are told of one file.
const SYNTAX_MOST: usize = 20;

/// A plan and what to know about it, or everything that is wrong.
pub type Checked = Result<(Plan, Vec<Warning>), Vec<Fault>>;

/// Reads and checks a file. `env` looks up environment variables, for secrets.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Checked {
    let name = path.display().to_string();
    let fail = |error| {
        vec![Fault {
            place: whole_file(&name),
            error,
        }]
    };
    let (bytes, mode) = read(path).map_err(|source| fail(ConfigError::Unreadable { source }))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MOST) {
        return Err(fail(ConfigError::TooLarge {
            limit: units::show_size(FILE_MOST),
        }));
    }
    let text = String::from_utf8(bytes).map_err(|_| fail(ConfigError::NotUtf8))?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    let mut source = Source::new(&text, &name, base_dir);
    source.readable_mode = (mode & 0o044 != 0).then_some(mode);
    check_source(&source, env)
}

/// Checks a text as if it were the file `file_name` in `base_dir`. The file's permissions are not
/// known, so literal secrets are not warned of.
pub fn parse(
    text: &str,
    file_name: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Checked {
    check_source(&Source::new(text, file_name, base_dir), env)
}

fn read(path: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    let mut bytes = Vec::new();
    file.take(FILE_MOST + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

fn check_source(source: &Source<'_>, env: Env<'_>) -> Checked {
    let mut decoder = Decoder::new(source, env);
    let document = match Document::parse(source.text) {
        Ok(document) => document,
        Err(error) => {
            syntax(&mut decoder, source, error);
            return Err(decoder.finish().0);
        }
    };
    let file = decoder.table(
        &tables::FILE,
        document.as_table(),
        Spot { path: "", at: 0 },
        None,
    );
    check::check(&mut decoder, &file);
    let (mut faults, warnings) = decoder.finish();
    if !faults.is_empty() {
        return Err(faults);
    }
    assemble::plan(&file)
        .map(|plan| (plan, warnings))
        .ok_or_else(|| {
            faults.push(Fault {
                place: source.whole(),
                error: ConfigError::Incomplete,
            });
            faults
        })
}

/// Reports the first syntax error, and those that remain when the lines it spoils are blanked.
///
/// The parser stops at the first one. Only its message is shown: its own report quotes the line,
/// which may hold a secret.
fn syntax(decoder: &mut Decoder<'_>, source: &Source<'_>, first: toml_edit::TomlError) {
    let mut text = source.text.to_owned();
    let mut error = first;
    let mut spoilt: Vec<usize> = Vec::new();
    let mut found = Vec::new();
    for _ in 0..SYNTAX_MOST {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let lines = spoilt_lines(&text, at);
        // An error right behind a blanked place may be of our own making.
        let own = spoilt
            .iter()
            .any(|end| text.get(*end..lines.start).is_some_and(is_blank));
        if !own {
            found.push((at, error.message().to_owned()));
        }
        spoilt.push(lines.end);
        text = blanked(&text, &lines);
        match Document::parse(text.as_str()) {
            Ok(_) => break,
            Err(next) => error = next,
        }
    }
    // What follows something that is never closed was read as a part of it.
    let unclosed = |message: &str| {
        message.starts_with("unclosed array") || message.starts_with("unclosed inline")
    };
    let last = found
        .iter()
        .filter(|(_, message)| unclosed(message))
        .map(|(at, _)| *at)
        .min();
    found.retain(|(at, _)| last.is_none_or(|last| *at <= last));
    for (at, message) in found {
        decoder.fault_at(at, source.spot(at), ConfigError::Syntax { message });
    }
}

/// The line at an offset; if it is a table's header, the whole table.
fn spoilt_lines(text: &str, at: usize) -> Range<usize> {
    let start = text
        .get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |end| end + 1);
    let rest = text.get(start..).unwrap_or("");
    let length = if rest.trim_start().starts_with('[') {
        rest.find("\n[").map_or(rest.len(), |end| end + 1)
    } else {
        rest.find('\n').unwrap_or(rest.len())
    };
    start..start + length
}

fn is_blank(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#'))
}

/// The text with spaces in the place of some of its lines, so that offsets stay.
fn blanked(text: &str, lines: &Range<usize>) -> String {
    text.char_indices()
        .fold(String::with_capacity(text.len()), |mut out, (offset, c)| {
            if lines.contains(&offset) && c != '\n' {
                out.extend(std::iter::repeat_n(' ', c.len_utf8()));
            } else {
                out.push(c);
            }
            out
        })
}
