//! The lexer against the server's own.
//!
//! The server says where a token ends when it refuses it: behind `SHOW TRANSACTION ISOLATION` nothing
//! but one word is right, so whatever stands there comes back in "syntax error at or near". Each
//! generated text is put there from the end of each token on. Invariant: no text is ever executed.

#![expect(
    clippy::indexing_slicing,
    reason = "positions come from the texts they are used on; a wrong one fails the test"
)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use breccia_sql::class::lexer::{self, Doubt, Kind, Lexer, Quote, Token};
use breccia_testkit::{Postgres, PostgresOptions, SqlClient};

use crate::rig::Dice;

#[path = "lexer_texts.rs"]
mod texts;

/// Texts for each setting of `standard_conforming_strings`.
const TEXTS: u64 = 4_000;
const FRONT: &str = "SHOW TRANSACTION ISOLATION ";
/// What the server may find wrong inside a token whose end is not in question. Such a text is
/// refused as a whole.
const INSIDE: [&str; 12] = [
    "trailing junk after",
    "zero-length delimited identifier",
    "invalid Unicode",
    "unsafe use of",
    "operator too long",
    "invalid byte sequence",
    "invalid hexadecimal",
    "invalid octal",
    "invalid binary",
    "UESCAPE must be followed",
    "unsupported Unicode escape",
    "conversion between",
];

/// What the server finds first.
#[derive(Debug, PartialEq, Eq)]
enum Front {
    /// A token, by its bytes.
    Token { start: usize, end: usize },
    /// Only blanks and comments.
    End,
    /// Something that is no token, and what it says.
    Refused(String),
}

/// The texts of one run and what became of them.
#[derive(Debug, Default)]
struct Tally {
    texts: usize,
    tokens: usize,
    /// Texts the server refuses for what stands inside a token, by what it says.
    inside: BTreeMap<&'static str, usize>,
    /// Texts the lexer doubts, by the doubt and whether the server takes the token.
    doubts: BTreeMap<String, usize>,
}

/// Numbers by a seed that is fixed unless it is given.
pub(crate) fn dice() -> Dice {
    let given = std::env::var("BRECCIA_TEST_SEED").ok();
    let seed = given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_250_117);
    println!("BRECCIA_TEST_SEED={seed}");
    Dice::new(seed)
}

/// The fields of an `ErrorResponse` that matter here.
fn refusal(body: &[u8]) -> (String, Option<usize>) {
    let field = |kind: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find_map(|field| field.strip_prefix(&[kind]));
        found.map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let position = field(b'P').and_then(|position| position.parse().ok());
    (field(b'M').unwrap_or_default(), position)
}

/// The answers to as many simple queries as were sent.
fn answers(client: &mut SqlClient, count: usize) -> Result<Vec<(String, Option<usize>)>> {
    let mut answers = Vec::new();
    let mut last = None;
    while answers.len() < count {
        match client.read_frame()? {
            (b'E', body) => last = Some(refusal(&body)),
            (b'Z', _) => answers.push(last.take().context("the server took it")?),
            (b'N', _) => {}
            (kind, _) => bail!("a frame {:?}", char::from(kind)),
        }
    }
    Ok(answers)
}

/// What the server's answer says about the text behind [`FRONT`].
fn front(text: &str, (message, position): (String, Option<usize>)) -> Result<Front> {
    if message == "syntax error at end of input" {
        return Ok(Front::End);
    }
    let near = message.strip_prefix("syntax error at or near \"");
    let Some(token) = near.and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(Front::Refused(message));
    };
    // It counts characters, from 1.
    let position = position.context("no position")?;
    let whole = format!("{FRONT}{text}");
    let (start, _) = whole.char_indices().nth(position - 1).context("beyond")?;
    let start = start.checked_sub(FRONT.len()).context("in front")?;
    ensure!(text[start..].starts_with(token), "{message} at {position}");
    let end = start + token.len();
    Ok(Front::Token { start, end })
}

/// The lexer's tokens, and why it stopped.
fn read(text: &str, conforming: bool) -> (Vec<Token>, Option<Doubt>) {
    let mut lexer = Lexer::new(text.as_bytes(), conforming);
    let mut tokens = Vec::new();
    loop {
        match lexer.token() {
            Ok(Some(token)) => tokens.extend(as_server(text, token)),
            Ok(None) => return (tokens, None),
            Err(doubt) => return (tokens, Some(doubt)),
        }
    }
}

/// `N'…'` is two tokens to the server.
fn as_server(text: &str, token: Token) -> Vec<Token> {
    let national = text[token.start..].starts_with(['n', 'N']);
    if token.kind != Kind::Text(Quote::Plain) || !national {
        return vec![token];
    }
    let (kind, middle) = (Kind::Word, token.start + 1);
    let word = Token {
        kind,
        end: middle,
        ..token
    };
    let start = middle;
    vec![word, Token { start, ..token }]
}

/// How many tokens are one to the server: a plain literal goes on in the next one behind a line
/// feed, and UESCAPE with its literal belongs to the one before. `None`: they cannot be one.
fn joined(text: &str, tokens: &[Token], end: usize) -> Option<usize> {
    let count = 1 + tokens.iter().position(|token| token.end == end)?;
    let kinds: Vec<_> = tokens[..count].iter().map(|token| token.kind).collect();
    let quoted = |token: &Token| text[token.start..].starts_with('\'');
    let one = match kinds.as_slice() {
        [_] => true,
        [
            Kind::Text(Quote::Unicode) | Kind::UnicodeQuoted,
            Kind::Word,
            Kind::Text(last),
        ] => *last != Quote::Bits,
        _ => all_plain(&tokens[..count]) && tokens[..count].iter().all(quoted),
    };
    one.then_some(count)
}

fn all_plain(tokens: &[Token]) -> bool {
    let plain = Kind::Text(Quote::Plain);
    tokens.iter().all(|token| token.kind == plain)
}

/// What the server says is wrong inside a token.
fn inside(why: &str) -> Option<&'static str> {
    INSIDE.iter().copied().find(|part| why.contains(part))
}

/// Holds the lexer's reading of a text against the server's.
fn compare(client: &mut SqlClient, text: &str, conforming: bool, tally: &mut Tally) -> Result<()> {
    let (tokens, doubt) = read(text, conforming);
    let begins = |number: usize| match number {
        0 => 0,
        number => tokens[number - 1].end,
    };
    for number in 0..=tokens.len() {
        client.query(&format!("{FRONT}{}", &text[begins(number)..]));
    }
    client.flush()?;
    let answers = answers(client, tokens.len() + 1)?;
    tally.texts += 1;
    let mut number = 0;
    for (at, answer) in answers.into_iter().enumerate() {
        if at < number {
            continue;
        }
        let begin = begins(at);
        let found = front(&text[begin..], answer)?;
        let shift = |offset: usize| begin + offset;
        match (tokens.get(at), found) {
            (Some(token), Front::Token { start, end }) => {
                ensure!(token.start == shift(start), "begins at {}", shift(start));
                let count = joined(text, &tokens[at..], shift(end));
                number = at + count.with_context(|| format!("ends at {}", shift(end)))?;
                tally.tokens += 1;
            }
            (_, Front::Refused(why)) if inside(&why).is_some() => {
                *tally.inside.entry(inside(&why).unwrap_or("")).or_default() += 1;
                return Ok(());
            }
            (None, found) => return at_end(&text[begin..], doubt, &found, tally),
            // Behind some tokens the server looks further before it speaks.
            (Some(_), found)
                if doubt.is_some() && (at + 2 >= tokens.len() || all_plain(&tokens[at + 1..])) =>
            {
                return at_end("", doubt, &found, tally);
            }
            (Some(token), found) => bail!("{found:?}, not {token:?}"),
        }
    }
    bail!("a token of the server's goes beyond the end")
}

/// What the server may find where the lexer finds no more tokens.
fn at_end(rest: &str, doubt: Option<Doubt>, found: &Front, tally: &mut Tally) -> Result<()> {
    let Some(doubt) = doubt else {
        ensure!(*found == Front::End, "{found:?}, not the end");
        return Ok(());
    };
    if let Front::Token { start, end: 1.. } = *found
        && rest[start..].to_ascii_lowercase().starts_with("n'")
    {
        // The server's token is the N alone.
        return Ok(());
    }
    let unterminated = matches!(found, Front::Refused(why) if why.starts_with("unterminated"));
    ensure!(
        doubt != Doubt::Unterminated || unterminated,
        "{found:?}, but the lexer says {doubt:?}"
    );
    let taken = if matches!(found, Front::Token { .. }) {
        "taken"
    } else {
        "refused"
    };
    *tally
        .doubts
        .entry(format!("{doubt:?}, {taken} by the server"))
        .or_default() += 1;
    Ok(())
}

/// The masked key has the tokens of the text, placeholders for literals.
fn key_keeps_shape(text: &str, conforming: bool) -> Result<Option<String>> {
    let mut key = Vec::new();
    let Ok((tokens, _)) = lexer::tokens(text.as_bytes(), conforming) else {
        return Ok(None);
    };
    lexer::mask(text.as_bytes(), conforming, &mut key)
        .map_err(|doubt| anyhow::anyhow!("the text has tokens, but no key: {doubt:?}"))?;
    let key = String::from_utf8(key)?;
    let (again, _) = match lexer::tokens(key.as_bytes(), true) {
        Ok(again) => again,
        // Of `E'…' $$…$$`, which is no statement, the key is `E's' 's'`.
        Err(Doubt::Continuation) => return Ok(None),
        Err(doubt) => bail!("the key {key:?} is doubted: {doubt:?}"),
    };
    let kinds = |tokens: &[Token], text: &str| -> Vec<Kind> {
        let kind = |token: &Token| match token.kind {
            // Names beyond ASCII are quoted in the key, and `$…$` becomes a plain literal.
            Kind::Quoted => Kind::Word,
            Kind::Text(Quote::Dollar) => Kind::Text(Quote::Plain),
            kind => kind,
        };
        let mut kinds: Vec<Kind> = tokens.iter().map(kind).collect();
        kinds.dedup_by(|a, b| a == b && *a == Kind::Mark(b';'));
        let first = usize::from(kinds.first() == Some(&Kind::Mark(b';')));
        let last = usize::from(kinds.len() > first && kinds.last() == Some(&Kind::Mark(b';')));
        ensure_in(text, tokens);
        kinds[first..kinds.len() - last].to_vec()
    };
    ensure!(
        kinds(&tokens, text) == kinds(&again, &key),
        "the key {key:?} has other tokens"
    );
    Ok(Some(key))
}

/// Tokens are cut between characters.
fn ensure_in(text: &str, tokens: &[Token]) {
    for token in tokens {
        assert!(
            text.get(token.start..token.end).is_some(),
            "{text:?}: {token:?}"
        );
    }
}

/// A server that keeps quiet about what it refuses.
fn server() -> Result<Postgres> {
    let settings = [
        ("log_min_messages", "panic"),
        ("log_min_error_statement", "panic"),
    ];
    Postgres::start(PostgresOptions {
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..PostgresOptions::default()
    })
}

#[test]
fn tokens_end_where_the_server_ends_them() -> Result<()> {
    let server = server()?;
    let mut dice = dice();
    for conforming in [true, false] {
        let mut client = SqlClient::connect(server.port(), "postgres")?;
        if !conforming {
            client.run("SET standard_conforming_strings = off")?;
            client.run("SET escape_string_warning = off")?;
            client.run("SET backslash_quote = on")?;
        }
        let mut tally = Tally::default();
        let mut check = |text: &str| -> Result<()> {
            let context = || format!("standard_conforming_strings {conforming}: {text:?}");
            compare(&mut client, text, conforming, &mut tally).with_context(context)?;
            if let Some(key) = key_keeps_shape(text, conforming).with_context(context)? {
                compare(&mut client, &key, conforming, &mut Tally::default())
                    .with_context(|| format!("the key {key:?} of {text:?}"))?;
            }
            Ok(())
        };
        for text in texts::FIXED {
            check(text)?;
        }
        for _ in 0..TEXTS {
            check(&texts::text(&mut dice))?;
        }
        println!("standard_conforming_strings {conforming}: {tally:#?}");
        let unread: usize = tally.doubts.values().chain(tally.inside.values()).sum();
        ensure!(
            tally.tokens > 5 * tally.texts,
            "texts are too short to tell"
        );
        ensure!(5 * unread < 3 * tally.texts, "too few texts are read whole");
    }
    Ok(())
}
