//! The forms of texts that name things at other places: buckets, accounts, regions, prefixes.
//!
//! Not the names of stores and listeners, which are Breccia's own. Invariant: a text that fits its
//! rule can be sent to the place it names without quoting or cutting it.

use breccia_core::placement_key::{MAX_PREFIX_BYTES, PlacementKey};

/// The form of a text.
pub(crate) struct Rule {
    /// What the reference calls it.
    pub(crate) words: &'static str,
    /// What to write, for a message: "write …".
    pub(crate) form: &'static str,
    /// The same for the JSON schema, which may be laxer.
    pub(crate) pattern: &'static str,
    /// A text that fits, as TOML.
    pub(crate) example: &'static str,
    /// Whether a message may show what was written.
    pub(crate) shown: bool,
    /// Whether a text fits.
    pub(crate) fits: fn(&str) -> bool,
}

/// A bucket that clients name in a request.
pub(crate) static BUCKET: Rule = Rule {
    words: "bucket",
    form: "3 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit, and no IP address",
    pattern: "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    example: "\"mail\"",
    shown: true,
    fits: |text| {
        (3..=63).contains(&text.len())
            && text.bytes().all(|byte| lower(byte) || byte == b'.')
            && ends(text)
            && !text.contains("..")
            && text.parse::<std::net::Ipv4Addr>().is_err()
    },
};

/// A bucket that is already there, wherever it is: old ones have names that no new one may have.
pub(crate) static MEMBER_BUCKET: Rule = Rule {
    words: "bucket",
    form: "1 to 255 letters, digits, '-', '_' and '.', beginning with a letter or digit",
    pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$",
    example: "\"mail\"",
    shown: true,
    fits: |text| {
        text.len() <= 255
            && text
                .bytes()
                .all(|byte| word(byte) || byte == b'.' || byte == b'-')
            && text
                .bytes()
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric())
    },
};

/// A function of a database, as its catalogue names it: in any schema, with any parameters.
pub(crate) static FUNCTION: Rule = Rule {
    words: "function",
    form: "the function's bare name as the server's catalogue has it, without schema, quotes or parentheses",
    pattern: "^[^\\s\"'.();]{1,63}$",
    example: "\"next_page\"",
    shown: true,
    fits: |text| {
        (1..=63).contains(&text.len())
            && !text.contains(|it: char| {
                it.is_whitespace() || it.is_control() || "\"'.();".contains(it)
            })
    },
};

/// An Azure storage account.
pub(crate) static ACCOUNT: Rule = Rule {
    words: "account",
    form: "3 to 24 of a-z and 0-9",
    pattern: "^[a-z0-9]{3,24}$",
    example: "\"account\"",
    shown: true,
    fits: |text| {
        (3..=24).contains(&text.len()) && text.bytes().all(|byte| byte != b'-' && lower(byte))
    },
};

/// An Azure container.
pub(crate) static CONTAINER: Rule = Rule {
    words: "container",
    form: "3 to 63 of a-z, 0-9 and single '-', beginning and ending with a letter or digit, or \"$root\"",
    pattern: "^([a-z0-9][a-z0-9-]{1,61}[a-z0-9]|\\$root)$",
    example: "\"mail\"",
    shown: true,
    fits: |text| {
        let named = (3..=63).contains(&text.len())
            && text.bytes().all(lower)
            && ends(text)
            && !text.contains("--");
        named || text == "$root"
    },
};

/// A region: it becomes a part of a host's name.
pub(crate) static REGION: Rule = Rule {
    words: "region",
    form: "1 to 63 letters, digits, '-' and '_'",
    pattern: "^[A-Za-z0-9_-]{1,63}$",
    example: "\"us-east-1\"",
    shown: true,
    fits: |text| {
        (1..=63).contains(&text.len()) && text.bytes().all(|byte| word(byte) || byte == b'-')
    },
};

/// What stands in front of every key in a bucket.
pub(crate) static KEY_PREFIX: Rule = Rule {
    words: "text, may be empty",
    form: "at most 512 bytes without control characters",
    pattern: "^.{0,512}$",
    example: "\"breccia/\"",
    shown: true,
    fits: |text| text.len() <= 512 && !text.chars().any(char::is_control),
};

/// What stands in front of Stalwart's object names.
pub(crate) static PLACEMENT_PREFIX: Rule = Rule {
    words: "text, may be empty",
    form: "at most 512 printable ASCII characters without spaces, '\"' and '\\'",
    pattern: "^[!#-\\[\\]-~]{0,512}$",
    example: "\"mail/\"",
    shown: true,
    fits: PlacementKey::is_prefix,
};
const _: () = assert!(MAX_PREFIX_BYTES == 512, "the rule says so");

/// What the names of tables begin with: unquoted, in every dialect.
pub(crate) static TABLE_PREFIX: Rule = Rule {
    words: "text",
    form: "1 to 32 letters, digits and '_', beginning with a letter or '_'",
    pattern: "^[A-Za-z_][A-Za-z0-9_]{0,31}$",
    example: "\"breccia_\"",
    shown: true,
    fits: |text| {
        text.len() <= 32
            && text.bytes().all(word)
            && text
                .bytes()
                .next()
                .is_some_and(|byte| !byte.is_ascii_digit())
    },
};

/// The public half of an S3 key pair. Not shown: the other half may have been written here.
pub(crate) static ACCESS_KEY: Rule = Rule {
    words: "text",
    form: "1 to 128 printable ASCII characters without spaces, '/', ',' and '='",
    pattern: "^[!-+.0-<>-~-]{1,128}$",
    example: "\"ACCESS-KEY\"",
    shown: false,
    fits: |text| {
        (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"/,=".contains(&byte))
    },
};

/// A name in the DNS.
pub(crate) static DOMAIN: Rule = Rule {
    words: "host name",
    form: "a host name of a-z, 0-9, '-' and '.' without a port, such as \"s3.example.org\"",
    pattern: "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
    example: "\"s3.example.org\"",
    shown: true,
    fits: |text| {
        text.len() <= 253
            && text.parse::<std::net::IpAddr>().is_err()
            && text.split('.').all(|label| {
                (1..=63).contains(&label.len()) && label.bytes().all(lower) && ends(label)
            })
    },
};

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A letter, digit or hyphen of a name in lower case.
fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// Whether both ends are letters or digits.
fn ends(text: &str) -> bool {
    let sound = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    sound(text.bytes().next()) && sound(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_knows_what_fits() {
        let check = |rule: &Rule, good: &[&str], bad: &[&str]| {
            let example = rule.example.trim_matches('"');
            assert!((rule.fits)(example), "{example}");
            for text in good {
                assert!((rule.fits)(text), "{}: {text:?}", rule.words);
            }
            for text in bad {
                assert!(!(rule.fits)(text), "{}: {text:?}", rule.words);
            }
        };
        let long = |length| "x".repeat(length);
        check(
            &FUNCTION,
            &["f", "Größe", "a_b$1", &long(63)],
            &["", "a.b", "f()", "\"f\"", "a b", &long(64)],
        );
        check(
            &BUCKET,
            &["abc", "a.b-c", "1.2.3.4.5", &long(63)],
            &[
                "",
                "ab",
                "Abc",
                "a_b",
                "-ab",
                "ab.",
                "a..b",
                "1.2.3.4",
                "a/b",
                &long(64),
            ],
        );
        check(
            &MEMBER_BUCKET,
            &["a", "Old_Bucket", "a.b", &long(255)],
            &["", "-a", "a/b", "é", &long(256)],
        );
        check(
            &ACCOUNT,
            &["devstoreaccount1"],
            &["", "ab", "a-b", "Abc", &long(25)],
        );
        check(
            &CONTAINER,
            &["abc", "a-b", "$root"],
            &["", "ab", "a--b", "-ab", "a.b", "$web2"],
        );
        check(&REGION, &["garage", "eu_1"], &["", "a.b", "a/b", &long(64)]);
        check(&KEY_PREFIX, &["", "a/é b"], &["a\nb", &long(513)]);
        check(&PLACEMENT_PREFIX, &["", "a/"], &["a b", "\"", "\\", "é"]);
        check(
            &TABLE_PREFIX,
            &["_", "b2_"],
            &["", "2b", "a-b", "a.b", &long(33)],
        );
        check(
            &ACCESS_KEY,
            &["AKIA+123"],
            &["", "a/b", "a,b", "a=b", "a b", &long(129)],
        );
        check(
            &DOMAIN,
            &["localhost", "a-1.b"],
            &[
                "", "a..b", ".a", "a.", "1.2.3.4", "::1", "a:80", "A", "-a.b",
            ],
        );
    }
}
