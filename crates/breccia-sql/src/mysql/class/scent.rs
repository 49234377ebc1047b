//! Words that bind a session to its connection, in a text that is not understood.
//!
//! Not a lexer: a word in a literal or a comment counts, too, and costs its session no more than its
//! freedom to move. Invariant: what takes a lock of the connection, or opens something there of which no
//! server tells, has one of these words in it, in whatever character set.

use memchr::memchr2_iter;

use super::Asked;
use super::prove::Reason;

/// Words, in lower case and one somewhere behind the other, and why a session keeps its connection.
const SCENTS: [(&[&[u8]], Reason); 6] = [
    (&[b"get_lock"], "lock"),
    (&[b"handler"], "handler"),
    (&[b"backup"], "backup"),
    (&[b"read", b"lock"], "lock-tables"),
    (&[b"for", b"export"], "lock-tables"),
    (&[b"lastval"], "last-value"),
];

/// Why the session of such a text keeps its connection; `None`: it has none of the words.
pub(crate) fn scent(sql: &[u8]) -> Option<Reason> {
    let (_, reason) = SCENTS.iter().find(|(words, _)| has(sql, words))?;
    Some(reason)
}

/// What a text may ask about statements before, for all that its bytes tell.
pub(crate) fn mentioned(sql: &[u8]) -> Asked {
    let says = |word: &[u8]| behind(sql, word).is_some();
    Asked {
        rows: says(b"found_rows"),
        last: says(b"row_count"),
        number: says(b"lastval"),
        warnings: says(b"warning") || says(b"error"),
    }
}

fn has(sql: &[u8], words: &[&[u8]]) -> bool {
    let behind_all = words.iter().try_fold(sql, |rest, word| behind(rest, word));
    behind_all.is_some()
}

/// What follows the first place of a word, in upper or lower case.
fn behind<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let first = *word.first()?;
    let mut places = memchr2_iter(first, first.to_ascii_uppercase(), text);
    let at = places.find(|at| starts(text.get(*at..).unwrap_or_default(), word))?;
    text.get(at + word.len()..)
}

fn starts(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len())
        .is_some_and(|here| here.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_binds_a_session_is_found_wherever_it_stands() {
        for (sql, reason) in [
            (
                &b"/*!80000 x */ FLUSH TABLES WITH READ/**/LOCK"[..],
                Some("lock-tables"),
            ),
            (b"SELECT\xa0Get_Lock('g', 0)", Some("lock")),
            (b"SELECT 1.5x, GET_LOCK('g', 0)", Some("lock")),
            (b"/*!80000 x */ HANDLER t OPEN", Some("handler")),
            (b"/*!80000 x */ backup stage start", Some("backup")),
            (b"flush tables t for  export", Some("lock-tables")),
            (b"INSERT INTO t VALUES (1), (2)", None),
            (b"g G get_loc", None),
            (b"", None),
        ] {
            assert_eq!(scent(sql), reason, "{}", String::from_utf8_lossy(sql));
        }
    }
}
