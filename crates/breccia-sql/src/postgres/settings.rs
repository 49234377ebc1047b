//! The settings of a session, and how a connection upstream is brought to them.
//!
//! Not what a setting means: the server judges it. Invariant: a connection is lent only once its
//! settings are its session's, so nobody sees another's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::class::names_temp;

/// Names, and values as SQL text; what is not there is at the server's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// See [`Settings::meaning`].
    meaning: Arc<str>,
}

/// What a client may say at the start that is no setting.
const NOT_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

/// Settings by which a server reads the values of others.
const READERS: [&str; 2] = ["client_encoding", "standard_conforming_strings"];
/// Settings that cut short what takes long.
const LIMITS: [&str; 2] = ["statement_timeout", "transaction_timeout"];

/// Settings by which a server reads a statement, or works out a constant of it, when it prepares it.
const READ_BY: [&str; 18] = [
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "client_encoding",
    "datestyle",
    "default_text_search_config",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "search_path",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

impl Settings {
    /// What a client asks for in its first packet. `None` if its `options` hold what cannot be
    /// taken over.
    #[must_use]
    pub fn of_startup(parameters: &[(String, String)]) -> Option<Self> {
        let mut settings = Self::default();
        let of = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted);
        if let Some((_, options)) = of("options") {
            for (name, value) in options_of(options)? {
                settings.set(&name, Some(literal(&value)));
            }
        }
        for (name, value) in parameters {
            if !NOT_SETTINGS.contains(&name.as_str()) && !name.starts_with("_pq_.") {
                settings.set(&name.to_lowercase(), Some(literal(value)));
            }
        }
        Some(settings)
    }

    /// Takes out what is meant for Breccia: the names behind `breccia.`, and the values.
    pub fn take_own(&mut self) -> Vec<(String, String)> {
        let pairs = self.values.iter();
        let own = pairs.filter_map(|(name, value)| {
            let own = name.strip_prefix("breccia.")?;
            Some((own.to_owned(), unliteral(value)))
        });
        let own: Vec<_> = own.collect();
        for (name, _) in &own {
            self.set(&format!("breccia.{name}"), None);
        }
        own
    }

    /// Whether what a session makes under these settings is temporary: it must keep its connection.
    #[must_use]
    pub fn makes_temporary(&self) -> bool {
        let path = self.values.get("search_path");
        path.is_some_and(|path| names_temp(path))
    }

    /// Sets a value (SQL text); `None`: back to what the server has.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        let name = name.to_ascii_lowercase();
        let reads = READ_BY.contains(&name.as_str());
        match value {
            Some(value) => self.values.insert(name, value),
            None => self.values.remove(&name),
        };
        if reads {
            let pairs = READ_BY
                .iter()
                .filter_map(|name| Some((name, self.values.get(*name)?)));
            let pairs = pairs.map(|(name, value)| format!("{name}={value};"));
            self.meaning = pairs.collect::<String>().into();
        }
    }

    /// What these settings make of a statement that is prepared: under settings of the same meaning
    /// it is the same statement.
    #[must_use]
    pub fn meaning(&self) -> &Arc<str> {
        &self.meaning
    }

    /// A copy with one value changed.
    #[must_use]
    pub fn with(&self, name: &str, value: Option<String>) -> Arc<Self> {
        let mut copy = self.clone();
        copy.set(name, value);
        Arc::new(copy)
    }

    /// The value of the setting that has this name in lower case.
    #[must_use]
    pub fn get_lower(&self, name: &str) -> Option<&String> {
        self.values.get(name)
    }

    /// The value of a setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&String> {
        match self.values.get(name) {
            None if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                self.values.get(&name.to_ascii_lowercase())
            }
            found => found,
        }
    }

    /// The names of what is set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Only what stands under one name; all for `None`.
    #[must_use]
    pub fn only(&self, name: Option<&str>) -> Self {
        let wanted = |known: &str| name.is_none_or(|name| name.eq_ignore_ascii_case(known));
        let mut only = Self::default();
        for (name, value) in self.values.iter().filter(|(known, _)| wanted(known)) {
            only.set(name, Some(value.clone()));
        }
        only
    }

    /// The questions that bring a connection with settings `from` to these; none if there is no
    /// difference. Each is read as the one before it has left the connection: the first sees to it
    /// that the others are read as they were written, and not cut short.
    #[must_use]
    pub fn since(&self, from: &Self) -> Vec<String> {
        let names = from.values.keys().chain(self.values.keys());
        let differ = |name: &&String| from.values.get(*name) != self.values.get(*name);
        let names: BTreeSet<&str> = names.filter(differ).map(String::as_str).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let (mut first, mut rest) = (String::new(), String::new());
        let is_first = |name: &str| READERS.contains(&name) || LIMITS.contains(&name);
        for name in LIMITS
            .iter()
            .filter(|name| from.values.contains_key(**name))
        {
            write(&mut first, name, None);
        }
        for name in READERS.iter().filter(|name| names.contains(**name)) {
            write(&mut first, name, self.values.get(*name));
        }
        for name in names.iter().filter(|name| !is_first(name)) {
            write(&mut rest, name, self.values.get(*name));
        }
        for name in LIMITS {
            if let Some(value) = self.values.get(name) {
                write(&mut rest, name, Some(value));
            }
        }
        let questions = [first, rest].into_iter();
        questions.filter(|sql| !sql.is_empty()).collect()
    }

    /// Whether these differ from others in a name that is shown and nothing else.
    #[must_use]
    pub fn differ_in_name(&self, from: &Self) -> bool {
        let names = from.values.keys().chain(self.values.keys());
        let mut differ = names.filter(|name| from.values.get(*name) != self.values.get(*name));
        let limited = LIMITS.iter().any(|name| from.values.contains_key(*name));
        !limited && differ.all(|name| name == "application_name")
    }

    /// Whether all values mean the same however they are read.
    #[must_use]
    pub fn are_plain(&self) -> bool {
        let plain = |value: &String| value.is_ascii() && !value.contains('\\');
        self.values.values().all(plain)
    }
}

/// Writes the statement that sets a value, or brings back the server's.
fn write(sql: &mut String, name: &str, value: Option<&String>) {
    sql.push_str(if value.is_some() { "SET " } else { "RESET " });
    sql.push_str(&identifier(name));
    if let Some(value) = value {
        sql.push_str(" TO ");
        sql.push_str(value);
    }
    sql.push(';');
}

/// A name of a setting, each part quoted.
fn identifier(name: &str) -> String {
    let part = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// A string as a literal that means the same whatever `standard_conforming_strings` says.
#[must_use]
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// The string that [`literal`] has made this of.
fn unliteral(literal: &str) -> String {
    let (escaped, quoted) = match literal.strip_prefix('E') {
        Some(quoted) => (true, quoted),
        None => (false, literal),
    };
    let inner = quoted
        .strip_prefix('\'')
        .and_then(|it| it.strip_suffix('\''));
    let text = inner.unwrap_or(quoted).replace("''", "'");
    if escaped {
        text.replace("\\\\", "\\")
    } else {
        text
    }
}

/// `-c name=value` and `--name=value` out of `options`; a backslash keeps the next character.
fn options_of(options: &str) -> Option<Vec<(String, String)>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            space if space.is_ascii_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let pair = match word.as_str() {
            "-c" => words.next()?,
            _ => word
                .strip_prefix("-c")
                .or_else(|| word.strip_prefix("--"))?
                .to_owned(),
        };
        let (name, value) = pair.split_once('=')?;
        settings.push((name.replace('-', "_").to_lowercase(), value.to_owned()));
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(pairs: &[(&str, &str)]) -> Option<Settings> {
        let owned = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        Settings::of_startup(&owned.collect::<Vec<_>>())
    }

    #[test]
    fn what_is_breccias_own_is_taken_out() {
        let pairs = [("breccia.token", "it's \\ \\\\ one"), ("geqo", "off")];
        let mut settings = startup(&pairs).expect("settings");
        settings.set("breccia.target", Some(literal("auto")));
        let own = settings.take_own();
        let wanted = [("target", "auto"), ("token", "it's \\ \\\\ one")];
        assert_eq!(own, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(settings, startup(&[("geqo", "off")]).expect("settings"));
    }

    #[test]
    fn startup_parameters_and_options_become_settings() {
        let settings = startup(&[
            ("user", "u"),
            ("options", "-c geqo=off --work-mem=4MB -csearch_path=a\\ b"),
            ("TimeZone", "UTC"),
        ]);
        let sql = settings.expect("settings").since(&Settings::default());
        let expected = ["SET \"geqo\" TO 'off';SET \"search_path\" TO 'a b';\
            SET \"timezone\" TO 'UTC';SET \"work_mem\" TO '4MB';"];
        assert_eq!(sql, expected);
        assert!(startup(&[("options", "-d 3")]).is_none());
    }

    #[test]
    fn names_are_one_in_any_case_and_few_change_what_a_statement_means() {
        let mut settings = startup(&[("TimeZone", "UTC")]).expect("settings");
        settings.set("TIMEZONE", Some("'Asia/Tokyo'".to_owned()));
        let sql = settings.since(&Settings::default());
        assert_eq!(sql, ["SET \"timezone\" TO 'Asia/Tokyo';"]);
        let meaning = Arc::clone(settings.meaning());
        settings.set("application_name", Some("'a'".to_owned()));
        assert_eq!(*settings.meaning(), meaning);
        settings.set("Search_Path", Some("b".to_owned()));
        assert_ne!(*settings.meaning(), meaning);
        settings.set("search_path", None);
        assert_eq!(*settings.meaning(), meaning);
        settings.set("timezone", None);
        assert_eq!(&**settings.meaning(), "");
    }

    #[test]
    fn only_the_difference_is_sent() {
        let from = startup(&[("a", "1"), ("b", "2")]).expect("settings");
        let to = startup(&[("b", "2"), ("c.d", "it's \\")]).expect("settings");
        assert_eq!(
            to.since(&from),
            ["RESET \"a\";SET \"c\".\"d\" TO E'it''s \\\\';"]
        );
        assert!(to.since(&to).is_empty());
    }

    #[test]
    fn how_values_are_read_is_set_before_them_and_limits_are_off_meanwhile() {
        let check = |from: &[(&str, &str)], to: &[(&str, &str)], expected: &[&str]| {
            let [from, to] = [from, to].map(|pairs| startup(pairs).expect("settings"));
            assert_eq!(to.since(&from), expected);
        };
        let latin = ("client_encoding", "LATIN1");
        let (off, short) = (
            ("standard_conforming_strings", "off"),
            ("statement_timeout", "1"),
        );
        check(
            &[latin, off, short],
            &[("my.p", "x"), ("statement_timeout", "5s")],
            &[
                "RESET \"statement_timeout\";RESET \"client_encoding\";\
                RESET \"standard_conforming_strings\";",
                "SET \"my\".\"p\" TO 'x';SET \"statement_timeout\" TO '5s';",
            ],
        );
        check(
            &[short],
            &[short, latin],
            &[
                "RESET \"statement_timeout\";SET \"client_encoding\" TO 'LATIN1';",
                "SET \"statement_timeout\" TO '1';",
            ],
        );
        check(&[latin, short], &[latin, short], &[]);
        check(&[], &[latin], &["SET \"client_encoding\" TO 'LATIN1';"]);
    }

    #[test]
    fn names_that_are_shown_need_no_wait() {
        let check = |from: &[(&str, &str)], to: &[(&str, &str)], expected: bool| {
            let [from, to] = [from, to].map(|pairs| startup(pairs).expect("settings"));
            assert_eq!(to.differ_in_name(&from), expected);
        };
        let (one, other) = (("application_name", "a"), ("application_name", "b"));
        check(&[one], &[other], true);
        check(&[one], &[], true);
        check(&[one], &[other, ("a", "1")], false);
        let limit = ("statement_timeout", "1");
        check(&[one, limit], &[other, limit], false);
    }
}
