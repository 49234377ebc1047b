//! What somebody who wrote an unknown name may have meant.
//!
//! Invariant: the work is bounded, however long the name and the list.

use strsim::damerau_levenshtein;

use crate::value::quoted;

/// The most known names among which a near one is looked for.
const SUGGESTED_AMONG: usize = 300;

/// Names that others use for what has another name here.
const ALSO: [(&str, &str); 6] = [
    ("mariadb", "mysql"),
    ("percona", "mysql"),
    ("valkey", "redis"),
    ("filesystem", "fs"),
    ("file", "fs"),
    ("minio", "s3"),
];

/// What to write instead of an unknown name: the nearest known one, or a list of all.
pub(crate) fn which<'n>(
    found: &str,
    known: impl Iterator<Item = &'n str>,
    one: &str,
    many: &str,
) -> String {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '.', ' '], "-");
    let also = |name: String| {
        ALSO.iter()
            .find(|(other, _)| *other == name)
            .map(|(_, it)| *it)
    };
    let wanted = plain(found);
    let wanted = also(wanted.clone()).map_or(wanted, str::to_owned);
    let known: Vec<_> = known.collect();
    let near = (wanted.len() <= 64 && known.len() <= SUGGESTED_AMONG)
        .then(|| {
            known
                .iter()
                .filter_map(|name| nearness(&wanted, &plain(name), name))
                .min()
        })
        .flatten();
    match (near, known.as_slice()) {
        (Some((_, name)), _) => format!("did you mean {}?", quoted(name)),
        (None, []) => format!("there is no {one}"),
        (None, [only]) => format!("the only {one} here is {only}"),
        (None, _) if known.len() > 30 => {
            format!("there are {} {many}, none of them near it", known.len())
        }
        (None, _) => format!("the {many} here are {}", known.join(", ")),
    }
}

/// How near a known name is to the one that was written; `None`: too far to be meant.
fn nearness<'n>(wanted: &str, plain: &str, name: &'n str) -> Option<(usize, &'n str)> {
    let begins = wanted.len().min(plain.len()) >= 3
        && (wanted.starts_with(plain) || plain.starts_with(wanted));
    let distance = damerau_levenshtein(wanted, plain);
    let alike = distance <= plain.len().div_ceil(3).min(3) && distance < plain.len();
    (begins || alike).then_some((distance, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_others_use_is_known() {
        let types = ["redis", "mysql", "postgresql"];
        let which = |found| which(found, types.into_iter(), "type", "types");
        assert_eq!(which("mariadb"), "did you mean \"mysql\"?");
        assert_eq!(which("Valkey"), "did you mean \"redis\"?");
        assert_eq!(which("postgres"), "did you mean \"postgresql\"?");
        assert_eq!(which("fs"), "the types here are redis, mysql, postgresql");
    }
}
