//! Keys that a bucket cannot hold under their own name.
//!
//! Invariant: what is not refused here is a name by the service's rules.

use crate::error::BlobError;
use crate::key::Key;
use crate::key_names::{KeyMode, KeyNames};

const CHALLENGE_PREFIX: &str = ".well-known/acme-challenge/";

/// The name of a key.
pub(super) fn name_of(store: &str, names: &KeyNames, key: &Key) -> Result<String, BlobError> {
    let name = names.name_of(key)?;
    let reason = match names.mode() {
        KeyMode::Encoded => None,
        KeyMode::Plain => fault(&name),
    };
    match reason {
        None => Ok(name),
        Some(reason) => Err(BlobError::KeyRefused {
            store: store.to_owned(),
            reason: reason.to_owned(),
        }),
    }
}

fn fault(name: &str) -> Option<&'static str> {
    if name.contains(['\r', '\n']) {
        return Some("it has a line's end in it");
    }
    if name == "." || name == ".." {
        return Some("the service takes it for a path");
    }
    if name.starts_with(CHALLENGE_PREFIX) {
        return Some("it begins with .well-known/acme-challenge/, which the service keeps");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_service_forbids_are_refused_unless_encoded() {
        let check = |key: &str, plain: bool| {
            let key = Key::new(key.as_bytes().to_vec()).expect("a key");
            let held = |mode| name_of("s", &KeyNames::new("s", "", mode), &key).is_ok();
            assert_eq!(held(KeyMode::Plain), plain, "{key}");
            assert!(held(KeyMode::Encoded), "{key}");
        };
        for good in ["a", "a/../b", "...", "\u{1f600}", "\t", ".well-known/x"] {
            check(good, true);
        }
        for bad in [".", "..", "a\nb", "\r", ".well-known/acme-challenge/x"] {
            check(bad, false);
        }
    }
}
