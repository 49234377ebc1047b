//! Command lines split as redis-cli splits them: blanks, quotes, escapes.
//!
//! Invariant: a line that redis-cli would refuse is refused here.

use anyhow::{Result, bail, ensure};

/// The words of one line.
pub(crate) fn split(line: &str) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        let mut word = Vec::new();
        match bytes.peek() {
            None => return Ok(words),
            Some(b'"') => {
                bytes.next();
                double_quoted(&mut bytes, &mut word)?;
            }
            Some(b'\'') => {
                bytes.next();
                word.extend(bytes.by_ref().take_while(|byte| *byte != b'\''));
            }
            Some(_) => {
                while let Some(byte) = bytes.next_if(|byte| !byte.is_ascii_whitespace()) {
                    word.push(byte);
                }
            }
        }
        words.push(word);
    }
}

fn double_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<()> {
    loop {
        match bytes.next() {
            None => bail!("an open quote"),
            Some(b'"') => return Ok(()),
            Some(b'\\') => match bytes.next() {
                Some(b'n') => word.push(b'\n'),
                Some(b'r') => word.push(b'\r'),
                Some(b't') => word.push(b'\t'),
                Some(b'x') => {
                    let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                    ensure!(digits.len() == 2, "half an escape");
                    word.push(u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?);
                }
                Some(other) => word.push(other),
                None => bail!("an open escape"),
            },
            Some(other) => word.push(other),
        }
    }
}
