//! Command lines: which command, with which words, and memcached's own complaint about a bad one.
//!
//! Invariant: faults are looked for in memcached 1.6.18's order, and `noreply` silences exactly
//! the complaints that come after memcached has noticed it.

use super::MAX_KEY_BYTES;
use super::line::{Form, Line, Words};
use super::meta::{MetaFlags, MetaKey, MetaVerb};
use super::number::{signed_32, unsigned_32, unsigned_64};
use super::request::{ArithmeticVerb, Command, Keys, MetaCommand, RetrievalVerb, StoreVerb};

/// A command line that was understood.
pub(super) struct Parsed<'a> {
    pub(super) command: Command<'a>,
    pub(super) noreply: bool,
    /// Whether the bytes may be forwarded as they are.
    pub(super) plain: bool,
    pub(super) data_length: Option<usize>,
}

/// A command line that was refused.
pub(super) struct Refusal {
    pub(super) reply: &'static str,
    /// The length of the data block to drop, if one follows.
    pub(super) swallow: Option<usize>,
}

impl From<&'static str> for Refusal {
    fn from(reply: &'static str) -> Self {
        Self {
            reply,
            swallow: None,
        }
    }
}

const ERROR: &str = "ERROR";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";

pub(super) fn parse(line: Line<'_>) -> Result<Parsed<'_>, Refusal> {
    let mut words = Words::new(line.text);
    let name = words.next().unwrap_or_default();
    let verb = match name {
        b"get" | b"bget" => Some(RetrievalVerb::Get),
        b"gets" => Some(RetrievalVerb::Gets),
        b"gat" => Some(RetrievalVerb::Gat),
        b"gats" => Some(RetrievalVerb::Gats),
        _ => None,
    };
    if let Some(verb) = verb {
        return retrieval(verb, name, words, line);
    }
    let form = Form::new(line.text);
    let mut parsed = match name {
        b"set" => storage(StoreVerb::Set, &form),
        b"add" => storage(StoreVerb::Add, &form),
        b"replace" => storage(StoreVerb::Replace, &form),
        b"append" => storage(StoreVerb::Append, &form),
        b"prepend" => storage(StoreVerb::Prepend, &form),
        b"cas" => storage(StoreVerb::Cas, &form),
        b"mg" => meta(MetaVerb::Get, &form, words),
        b"ms" => meta(MetaVerb::Set, &form, words),
        b"md" => meta(MetaVerb::Delete, &form, words),
        b"ma" => meta(MetaVerb::Arithmetic, &form, words),
        b"me" => meta_debug(&form),
        b"incr" => arithmetic(ArithmeticVerb::Increment, &form),
        b"decr" => arithmetic(ArithmeticVerb::Decrement, &form),
        b"delete" => delete(&form),
        b"touch" => touch(&form),
        b"flush_all" => flush_all(&form),
        _ => local(&form),
    }?;
    parsed.plain &= line.clean && form.single_spaced;
    Ok(parsed)
}

fn retrieval<'a>(
    verb: RetrievalVerb,
    name: &[u8],
    mut words: Words<'a>,
    line: Line<'a>,
) -> Result<Parsed<'a>, Refusal> {
    let mut length = name.len();
    let mut plain = line.clean;
    let mut exptime = 0;
    if verb.touches() {
        let word = words.next().ok_or(ERROR)?;
        let number = signed_32(word).ok_or(BAD_EXPTIME)?;
        exptime = number.value;
        plain &= number.plain;
        length += 1 + word.len();
    }
    let text = words.rest();
    let mut count = 0;
    let mut too_long = false;
    for key in words {
        count += 1;
        length += 1 + key.len();
        too_long |= key.len() > MAX_KEY_BYTES;
    }
    if count == 0 && !verb.touches() {
        return Err(ERROR.into());
    }
    if too_long {
        return Err(BAD_FORMAT.into());
    }
    plain &= length == line.text.len() && count > 0 && name != b"bget";
    let keys = Keys { text, count };
    let command = Command::Retrieve {
        verb,
        exptime,
        keys,
    };
    Ok(Parsed {
        command,
        noreply: false,
        plain,
        data_length: None,
    })
}

/// Fails with `reply`, or silently if the line asked for no reply.
fn refuse(noreply: bool, reply: &'static str) -> Refusal {
    if noreply { "".into() } else { reply.into() }
}

fn storage<'a>(verb: StoreVerb, form: &Form<'a>) -> Result<Parsed<'a>, Refusal> {
    let words = if verb == StoreVerb::Cas { 6 } else { 5 };
    if form.count() != words && form.count() != words + 1 {
        return Err(ERROR.into());
    }
    let noreply = form.ends_noreply();
    let bad = || refuse(noreply, BAD_FORMAT);
    let key = form.word(1);
    if key.len() > MAX_KEY_BYTES {
        return Err(bad());
    }
    let flags = unsigned_32(form.word(2)).ok_or_else(bad)?;
    let exptime = signed_32(form.word(3)).ok_or_else(bad)?;
    let length = signed_32(form.word(4)).ok_or_else(bad)?;
    let mut plain = flags.plain && exptime.plain && length.plain && form.count() == words;
    let mut cas = 0;
    if verb == StoreVerb::Cas {
        let number = unsigned_64(form.word(5)).ok_or_else(bad)?;
        cas = number.value;
        plain &= number.plain;
    }
    let data_length = data_length(length.value).ok_or_else(bad)?;
    let (flags, exptime) = (flags.value, exptime.value);
    let command = Command::Store {
        verb,
        key,
        flags,
        exptime,
        cas,
    };
    Ok(Parsed {
        command,
        noreply,
        plain,
        data_length: Some(data_length),
    })
}

/// memcached adds the line end's two bytes in 32 bits, and refuses lengths that would overflow.
fn data_length(length: i32) -> Option<usize> {
    if length > i32::MAX - 2 {
        None
    } else {
        usize::try_from(length).ok()
    }
}

fn meta<'a>(verb: MetaVerb, form: &Form<'a>, mut words: Words<'a>) -> Result<Parsed<'a>, Refusal> {
    if form.count() < 2 {
        return Err(ERROR.into());
    }
    if form.word(1).len() > MAX_KEY_BYTES || (verb == MetaVerb::Set && form.count() == 2) {
        return Err(BAD_FORMAT.into());
    }
    if form.count() > 19 {
        return Err(match verb {
            MetaVerb::Get => "CLIENT_ERROR options flags are too long".into(),
            _ => "CLIENT_ERROR options flags too long".into(),
        });
    }
    let mut key = MetaKey {
        text: words.next().unwrap_or_default(),
        decoded: None,
    };
    let mut plain = true;
    let mut length = None;
    if verb == MetaVerb::Set {
        let number = words.next().and_then(signed_32).ok_or(BAD_FORMAT)?;
        plain = number.plain;
        length = Some(data_length(number.value).ok_or(BAD_FORMAT)?);
    }
    let refused = |reply| Refusal {
        reply,
        swallow: length,
    };
    let flags =
        MetaFlags::read(words.rest(), &mut key).map_err(|text| refused(verb.flag_error(text)))?;
    if let Some(text) = flags.misuse(verb) {
        return Err(refused(text));
    }
    plain &= !flags.quiet;
    let command = Command::Meta(MetaCommand { verb, key, flags });
    Ok(Parsed {
        command,
        noreply: false,
        plain,
        data_length: length,
    })
}

fn meta_debug<'a>(form: &Form<'a>) -> Result<Parsed<'a>, Refusal> {
    let text = form.word(1);
    if form.count() < 2 || text.len() > MAX_KEY_BYTES {
        return Err(BAD_FORMAT.into());
    }
    let mut key = MetaKey {
        text,
        decoded: None,
    };
    let mut flags = MetaFlags::default();
    if form.word(2) == b"b" {
        flags = MetaFlags::read(b"b", &mut key).map_err(|_| BAD_FORMAT)?;
    }
    let plain = form.count() == 2 || (flags.base64 && form.count() == 3);
    let command = Command::Meta(MetaCommand {
        verb: MetaVerb::Debug,
        key,
        flags,
    });
    Ok(Parsed {
        command,
        noreply: false,
        plain,
        data_length: None,
    })
}

fn arithmetic<'a>(verb: ArithmeticVerb, form: &Form<'a>) -> Result<Parsed<'a>, Refusal> {
    if form.count() != 3 && form.count() != 4 {
        return Err(ERROR.into());
    }
    let noreply = form.ends_noreply();
    let key = form.word(1);
    if key.len() > MAX_KEY_BYTES {
        return Err(refuse(noreply, BAD_FORMAT));
    }
    let delta = unsigned_64(form.word(2))
        .ok_or_else(|| refuse(noreply, "CLIENT_ERROR invalid numeric delta argument"))?;
    let plain = delta.plain && form.count() == 3;
    let command = Command::Arithmetic {
        verb,
        key,
        delta: delta.value,
    };
    Ok(Parsed {
        command,
        noreply,
        plain,
        data_length: None,
    })
}

fn delete<'a>(form: &Form<'a>) -> Result<Parsed<'a>, Refusal> {
    if form.count() < 2 || form.count() > 4 {
        return Err(ERROR.into());
    }
    let noreply = form.count() > 2 && form.ends_noreply();
    let zero = form.word(2) == b"0";
    let valid = match form.count() {
        2 => true,
        3 => zero || noreply,
        _ => zero && noreply,
    };
    if !valid {
        let usage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
        return Err(refuse(noreply, usage));
    }
    let key = form.word(1);
    if key.len() > MAX_KEY_BYTES {
        return Err(refuse(noreply, BAD_FORMAT));
    }
    let plain = form.count() == 2;
    Ok(Parsed {
        command: Command::Delete { key },
        noreply,
        plain,
        data_length: None,
    })
}

fn touch<'a>(form: &Form<'a>) -> Result<Parsed<'a>, Refusal> {
    if form.count() != 3 && form.count() != 4 {
        return Err(ERROR.into());
    }
    let noreply = form.ends_noreply();
    let key = form.word(1);
    if key.len() > MAX_KEY_BYTES {
        return Err(refuse(noreply, BAD_FORMAT));
    }
    let exptime = signed_32(form.word(2)).ok_or_else(|| refuse(noreply, BAD_EXPTIME))?;
    let plain = exptime.plain && form.count() == 3;
    let command = Command::Touch {
        key,
        exptime: exptime.value,
    };
    Ok(Parsed {
        command,
        noreply,
        plain,
        data_length: None,
    })
}

fn flush_all<'a>(form: &Form<'a>) -> Result<Parsed<'a>, Refusal> {
    if form.count() > 3 {
        return Err(ERROR.into());
    }
    let noreply = form.ends_noreply();
    let mut delay = 0;
    if form.count() != 1 + usize::from(noreply) {
        let number = signed_32(form.word(1)).ok_or_else(|| refuse(noreply, BAD_EXPTIME))?;
        delay = number.value;
    }
    let command = Command::FlushAll { delay };
    Ok(Parsed {
        command,
        noreply,
        plain: false,
        data_length: None,
    })
}

/// Commands that are answered here.
fn local<'a>(form: &Form<'a>) -> Result<Parsed<'a>, Refusal> {
    let count = form.count();
    let mut noreply = false;
    let command = match form.word(0) {
        b"mn" => Command::MetaNoop,
        b"version" => Command::Version,
        b"quit" => Command::Quit,
        b"shutdown" => Command::Shutdown,
        b"stats" => Command::Stats {
            arguments: form.word(1),
        },
        b"verbosity" if count == 2 || count == 3 => {
            noreply = form.ends_noreply();
            unsigned_32(form.word(1)).ok_or_else(|| refuse(noreply, BAD_FORMAT))?;
            Command::Verbosity
        }
        name @ (b"watch" | b"lru" | b"extstore" | b"cache_memlimit") => {
            noreply = form.ends_noreply();
            Command::ServerOnly { name }
        }
        name @ (b"slabs" | b"lru_crawler" | b"refresh_certs") => Command::ServerOnly { name },
        _ => return Err(ERROR.into()),
    };
    Ok(Parsed {
        command,
        noreply,
        plain: false,
        data_length: None,
    })
}
