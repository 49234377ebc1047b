//! Texts that are hard to cut into tokens.
//!
//! Not statements: most of them mean nothing. Invariant: no text holds the word LEVEL, which alone
//! could be right where the tests put it, nor a byte 0.

use crate::rig::Dice;

/// Texts that once were, or might be, cut wrongly.
pub(super) const FIXED: &[&str] = &[
    "",
    "select $a$ $$ $a$, $$ $a$ $$",
    "select $a$ $b$ $a$ $b$ $a$",
    "select $$$a$$ 1",
    "select a$1, a$b$c, a$$b$$",
    "select b'1''0'",
    "select x'1f''a' , ' , '",
    "select b'1'\n'0'",
    "select e'a' -- x\n 'b'",
    "select 'a' -- x\n 'b''c' , 'd'",
    "select 'a' /* x */ 'b'",
    "select 'a' 'b'",
    "select n'a''b', N'c' , n 'd'",
    "select u&'a' uescape '!' , U&\"b\" uescape 'x', u & 'c', u&d",
    "select e'\\'' , e'\\\\', e'\\\n', 'a\\' , 'b'",
    "select 1..2, 1.5..2, ..5, 1..., 1.e5, .5e-3, 1e+5",
    "select 1.5.5, 1e, 1e+, 1x, 0x, 0x1F, 0b12, 0o8, 1_000, 1__0, 1_",
    "select 1$$a$$, $1$$b$$, $1a, $1.5, $$",
    "select a<-1, a-->b\n, a@-1, a<--1\n, a*-/*x*/-1, a/ */",
    "select +-+-1, *-+ , <@- , a=>b, a:=b, a::b, a:::b, a::=b",
    "/*/ */ 1 /***/ 2 /* /*/ */ */ 3 /* //* */ */ 4",
    "select \"a\"\"b\", \"\"\"\", \"a'b\", \"\"",
    "select 1 -- a\r2 -- b\n3",
    "select é$1, \"名\", '名', $é$ ' $é$, e'\\é', -- é\n ß",
    "select 'a'::x, x'', b'', e'', '', n'', $$$$",
    "select \u{b} 1",
    "select #1, ?, ??, a?|b, `a`, {a}, \\a",
    "select e'\\u00e9\\U0001F600\\x41\\101' , 'x'",
];

const WORDS: [&str; 30] = [
    "a", "e", "b", "x", "n", "u", "select", "from", "not", "with", "nulls", "between", "é", "名",
    "a$1", "_b", "e1", "nchar", "uescape", "u", "time", "at", "A$", "Σ$x", "between", "e_",
    "format", "without", "is", "null",
];

const BLANKS: [&str; 14] = [
    " ",
    "  ",
    "\n",
    "\r",
    "\t",
    "\u{c}",
    "\n\n ",
    "-- c\n",
    " -- ' \" $$ /*\n",
    "/* ' */",
    "/* /* \" */ $$ */",
    "/**/",
    "--\r",
    "/*/ -- */",
];

/// What literals are filled with.
const PIECES: [&str; 34] = [
    "'", "''", "\"", "\"\"", "\\", "\\\\", "\\'", "$", "$$", "$a$", "$a", "a", "b", "0", "1", " ",
    "\n", "--", "/*", "*/", ";", "é", "名", "E'", "$1", "\\n", "\\101", ",", "(", ")", "::", "x",
    "now", "\\u00e9",
];

/// The first ten are numbers to every release.
const NUMBERS: [&str; 34] = [
    "0", "1", "42", "1.", "1.5", ".5", "1e5", "1.5e-3", "1.e+2", ".5E5", "0x1F", "0b101", "0o17",
    "1_000", "1_", "1.5_0", "1e", "1e+", "1a", "1..2", "1.5..2", "1.5.5", "..1", "1.a", "$1",
    "$23", "$1a", "$1.5", "1$", "0xg", "1e5e", "007", "1.e", "$0",
];

const OPERATORS: [&str; 17] = [
    "+", "-", "*", "/", "<", ">", "=", "~", "!", "@", "#", "%", "^", "&", "|", "`", "?",
];
const MARKS: [&str; 14] = [
    ",", "(", ")", "[", "]", ".", ";", ":", "::", ":=", "..", "=>", "...", ":::",
];
const SOUP: [&str; 40] = [
    "'", "'", "'", "\"", "\"", "$", "$", "$a$", "\\", "\\", "/", "*", "/*", "*/", "-", "--", "\n",
    "\n", " ", " ", "e", "E", "u&", "U&", "b", "X", "N", ".", "0", "1", "_", "a", ";", ":", "é",
    "+", "@", "(", "\r", "?",
];

fn pick<'a>(dice: &mut Dice, from: &[&'a str]) -> &'a str {
    let at = usize::try_from(dice.roll(from.len() as u64)).unwrap_or(0);
    from.get(at).copied().unwrap_or_default()
}

fn filling(dice: &mut Dice) -> String {
    (0..dice.roll(6)).map(|_| pick(dice, &PIECES)).collect()
}

/// A literal or a quoted name that is whole, most of the time.
fn literal(dice: &mut Dice) -> String {
    let filling = filling(dice);
    let even = |text: &str, quote: &str| {
        let plain = text.replace(&quote.repeat(2), quote);
        plain.replace(quote, &quote.repeat(2))
    };
    // A backslash at the end would take the quote along.
    let ended = |text: &str| {
        let odd = text.len() - text.trim_end_matches('\\').len();
        format!("{text}{}", "\\".repeat(odd % 2))
    };
    match dice.roll(32) {
        0..=7 => format!("'{}'", even(&filling, "'")),
        8..=11 => format!("E'{}'", ended(&filling.replace('\'', "\\'"))),
        12 | 13 => format!("e'{}'", ended(&filling.replace('\'', "''"))),
        14 | 15 => format!("N'{}'", even(&filling, "'")),
        16 | 17 => format!(
            "{}'{}'",
            pick(dice, &["b", "X", "B", "x"]),
            filling.replace('\'', "")
        ),
        18 | 19 => format!("u&'{}'", even(&filling, "'").replace('\\', "")),
        20..=22 => format!("\"{}\"", even(&format!("{filling}q"), "\"")),
        23 => format!("U&\"q{}\"", even(&filling, "\"").replace('\\', "")),
        24..=26 => format!("$${}$$", filling.replace("$$", "$")),
        27..=30 => {
            let tag = pick(dice, &["$a$", "$é$", "$_1$", "$a1$", "$A$"]);
            format!("{tag}{}{tag}", filling.replace(tag, "$"))
        }
        // As it comes, which often does not end.
        _ => format!("{}'{filling}'", pick(dice, &["", "E", "n", "b", "U&"])),
    }
}

/// A plain literal that goes on behind a line feed, or seems to.
fn continued(dice: &mut Dice) -> String {
    let start = pick(dice, &["", "", "e", "b", "n", "u&"]);
    let blank: String = (0..=dice.roll(3)).map(|_| pick(dice, &BLANKS)).collect();
    format!(
        "{start}'a'{blank}'{}'",
        pick(dice, &["b", "''", "1", "\\n"])
    )
}

fn operator(dice: &mut Dice) -> String {
    (0..=dice.roll(4)).map(|_| pick(dice, &OPERATORS)).collect()
}

fn piece(dice: &mut Dice) -> String {
    match dice.roll(60) {
        0..=19 => literal(dice),
        20..=29 => pick(dice, &WORDS).to_owned(),
        // A word behind it would spoil the text.
        30..=37 => format!("{} ", pick(dice, &NUMBERS[..10])),
        38 => pick(dice, &NUMBERS).to_owned(),
        39..=47 => operator(dice),
        48..=55 => pick(dice, &MARKS).to_owned(),
        56 => continued(dice),
        _ => pick(dice, &BLANKS).to_owned(),
    }
}

/// A text: pieces with blanks between most of them, or whatever comes.
pub(super) fn text(dice: &mut Dice) -> String {
    if dice.roll(8) == 0 {
        let length = 1 + dice.roll(16);
        return (0..length).map(|_| pick(dice, &SOUP)).collect();
    }
    let mut text = String::new();
    for _ in 0..3 + dice.roll(18) {
        text += &piece(dice);
        if dice.roll(4) > 0 {
            text += pick(dice, &BLANKS);
        }
    }
    text
}
