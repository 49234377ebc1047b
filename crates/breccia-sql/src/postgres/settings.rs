//! The settings of a session, and how a connection upstream is brought to them.
//!
//! Not what a setting means: the server judges it. Invariant: a connection is lent only once its
//! settings are its session's, so nobody sees another's.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Names, and values as SQL text; what is not there is at the server's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// See [`Settings::meaning`].
    meaning: Arc<str>,
}

/// What a client may say at the start that is no setting.
const NOT_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

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

    /// The statements that bring a connection with settings `from` to these; empty if none.
    #[must_use]
    pub fn since(&self, from: &Self) -> String {
        let mut sql = String::new();
        let gone = |name: &&String| !self.values.contains_key(*name);
        for name in from.values.keys().filter(gone) {
            sql.push_str("RESET ");
            sql.push_str(&identifier(name));
            sql.push(';');
        }
        for (name, value) in &self.values {
            if from.values.get(name) != Some(value) {
                sql.push_str("SET ");
                sql.push_str(&identifier(name));
                sql.push_str(" TO ");
                sql.push_str(value);
                sql.push(';');
            }
        }
        sql
    }
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
    fn startup_parameters_and_options_become_settings() {
        let settings = startup(&[
            ("user", "u"),
            ("options", "-c geqo=off --work-mem=4MB -csearch_path=a\\ b"),
            ("TimeZone", "UTC"),
        ]);
        let sql = settings.expect("settings").since(&Settings::default());
        let expected = "SET \"geqo\" TO 'off';SET \"search_path\" TO 'a b';\
            SET \"timezone\" TO 'UTC';SET \"work_mem\" TO '4MB';";
        assert_eq!(sql, expected);
        assert!(startup(&[("options", "-d 3")]).is_none());
    }

    #[test]
    fn names_are_one_in_any_case_and_few_change_what_a_statement_means() {
        let mut settings = startup(&[("TimeZone", "UTC")]).expect("settings");
        settings.set("TIMEZONE", Some("'Asia/Tokyo'".to_owned()));
        let sql = settings.since(&Settings::default());
        assert_eq!(sql, "SET \"timezone\" TO 'Asia/Tokyo';");
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
            "RESET \"a\";SET \"c\".\"d\" TO E'it''s \\\\';"
        );
        assert_eq!(to.since(&to), "");
    }
}
