//! The admin token as a caller shows it.
//!
//! Not users and not sessions. Invariant: how long a comparison takes tells nothing about how much
//! of a wrong token was right.

/// Whether an `Authorization` header shows the token.
pub(super) fn is_shown(token: &[u8], header: Option<&[u8]>) -> bool {
    let Some((scheme, shown)) = header.and_then(|header| header.split_at_checked(7)) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && is_same(token, shown.trim_ascii())
}

/// Compares every byte, whatever the first ones say. Only the length may show.
fn is_same(token: &[u8], shown: &[u8]) -> bool {
    if token.len() != shown.len() {
        return false;
    }
    let differences = token
        .iter()
        .zip(shown)
        .fold(0_u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_let_in() {
        let check = |header: Option<&str>, expected: bool| {
            assert_eq!(
                is_shown(b"s3cret", header.map(str::as_bytes)),
                expected,
                "{header:?}"
            );
        };
        check(Some("Bearer s3cret"), true);
        check(Some("bearer  s3cret "), true);
        check(Some("Bearer s3creT"), false);
        check(Some("Bearer s3cre"), false);
        check(Some("Bearer s3crets"), false);
        check(Some("Bearer "), false);
        check(Some("Basic s3cret"), false);
        check(Some("s3cret"), false);
        check(Some(""), false);
        check(None, false);
    }
}
