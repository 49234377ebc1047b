//! What a text mentions, whatever it is: looked for in its bytes, comments and literals too.
//!
//! Not what it does. Invariant: a text that does not mention a thing cannot be about it.

/// What a text mentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signs {
    /// `pg_prepared_statement…`: it may show what the connection has prepared, which others did too.
    pub prepared: bool,
    /// `local` or `set_config`: it may change settings until its transaction ends.
    pub loosens: bool,
}

impl Signs {
    /// Looks through a text.
    #[must_use]
    pub fn of(sql: &[u8]) -> Self {
        Self {
            prepared: looks_at_prepared(sql),
            loosens: loosens(sql),
        }
    }
}

fn looks_at_prepared(sql: &[u8]) -> bool {
    const NAME: &[u8] = b"pg_prepared_statement";
    memchr::memchr2_iter(b'p', b'P', sql).any(|at| {
        let part = sql.get(at..at + NAME.len());
        part.is_some_and(|part| part.eq_ignore_ascii_case(NAME))
    })
}

fn loosens(sql: &[u8]) -> bool {
    // Both words hold a letter that few texts hold often.
    memchr::memchr2_iter(b'c', b'C', sql).any(|at| {
        let is = |before: usize, word: &[u8]| {
            let start = at.checked_sub(before);
            let part = start.and_then(|start| sql.get(start..start + word.len()));
            part.is_some_and(|part| part.eq_ignore_ascii_case(word))
        };
        is(2, b"local") || is(4, b"set_config")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_for_a_transaction_is_seen() {
        let check = |sql: &str, expected: bool| {
            assert_eq!(Signs::of(sql.as_bytes()).loosens, expected, "{sql}");
        };
        check("SET LOCAL timezone = 'UTC'", true);
        check("select Set_Config('search_path', 'a', true)", true);
        check("SELECT c, local_c FROM t WHERE cc = 1", true);
        check("SELECT c FROM accounts", false);
        check("c", false);
        check("", false);
    }

    #[test]
    fn what_shows_prepared_statements_is_seen() {
        let check = |sql: &str, expected: bool| {
            assert_eq!(Signs::of(sql.as_bytes()).prepared, expected, "{sql}");
        };
        check("SELECT * FROM pg_prepared_statements", true);
        check("SELECT PG_Prepared_Statement()", true);
        check("SELECT pg_prepare", false);
        check("pp", false);
    }
}
