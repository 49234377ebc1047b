//! Keys that a container cannot hold under their own name.
//!
//! Invariant: what is not refused here comes back from the service, and from its emulator, unbent.

use crate::error::BlobError;
use crate::key::Key;
use crate::key_names::{KeyMode, KeyNames};

/// The most segments that slashes cut a name into.
const MAX_SEGMENTS: usize = 254;
/// The last character that is one unit of UTF-16: behind it the service's order is not that of bytes.
const LAST_OF_ONE_UNIT: char = '\u{ffff}';

/// The name of a key.
pub(super) fn name_of(store: &str, names: &KeyNames, key: &Key) -> Result<String, BlobError> {
    let name = names.name_of(key)?;
    if names.mode() == KeyMode::Encoded {
        return Ok(name);
    }
    match fault(&name, key.as_str().unwrap_or_default()) {
        None => Ok(name),
        Some(reason) => Err(BlobError::KeyRefused {
            store: store.to_owned(),
            reason: reason.to_owned(),
        }),
    }
}

fn fault(name: &str, key: &str) -> Option<&'static str> {
    if name
        .chars()
        .any(|letter| letter.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&letter))
    {
        return Some("it has a control character in it, which the service's listings cannot tell");
    }
    if name.chars().any(|letter| letter > LAST_OF_ONE_UNIT) {
        return Some("it has a character above U+FFFF, which the service sorts elsewhere");
    }
    if name.contains('\\') {
        return Some("it has a backslash in it, which the service takes for a slash");
    }
    if name.split('/').any(|segment| segment.ends_with('.')) || key.ends_with('.') {
        return Some("a segment of it ends with a dot, which the service drops");
    }
    if name.split('/').count() > MAX_SEGMENTS {
        return Some("it has more than 254 segments");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_the_service_would_bend_are_refused_unless_encoded() {
        let check = |key: &str, plain: bool| {
            let key = Key::new(key.as_bytes().to_vec()).expect("a key");
            let held = |mode| name_of("s", &KeyNames::new("s", "", mode), &key).is_ok();
            assert_eq!(held(KeyMode::Plain), plain, "{key}");
            assert!(held(KeyMode::Encoded), "{key}");
        };
        for good in [
            "a", "a/b", "a//b/", "/a", " ", "%2F", "a?b#c", "\u{e9}", "\u{e000}",
        ] {
            check(good, true);
        }
        for bad in [
            ".",
            "..",
            "a/../b",
            "a.",
            "a./b",
            "a\\b",
            "a\tb",
            "\u{7f}",
            "\u{85}",
            "\u{ffff}",
            "\u{1f600}",
        ] {
            check(bad, false);
        }
        check(&"a/".repeat(253), true);
        check(&"a/".repeat(254), false);
    }
}
