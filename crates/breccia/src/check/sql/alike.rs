//! What the servers of one composite should have alike, and whether they take the connections of the
//! listeners over them: for servers of either protocol.
//!
//! Not a setting that is wrong by itself. Invariant: only what both servers tell is compared.

use std::collections::BTreeMap;

use breccia_config::Plan;

use super::Findings;

/// Connections of Breccia's own to a server, at most: its watch, its questions, what ends statements.
const OWN: usize = 5;

/// What a server answers reads by, by name.
pub(super) type Settings = BTreeMap<String, String>;

/// A server and what it answers by.
pub(super) type Named<'a> = (&'a str, &'a Settings);

impl Findings {
    /// Warns of a server that would answer a read otherwise than the primary.
    pub(super) fn weigh_alike(&mut self, (primary, there): Named<'_>, (server, here): Named<'_>) {
        let both = here
            .iter()
            .filter_map(|(name, value)| Some((name, value, there.get(name)?)));
        let unlike: Vec<String> = both
            .filter(|(_, value, other)| value != other)
            .map(|(name, value, other)| format!("{name} ({value:?}, there {other:?})"))
            .collect();
        if !unlike.is_empty() {
            self.warn_once(format!(
                "{server}: it differs from the primary {primary} in {}, so a read there may answer \
                 otherwise than on the primary; give all servers the same, in their configuration",
                unlike.join(", ")
            ));
        }
    }

    /// Warns of a server that takes fewer connections than the listeners over it may open.
    pub(super) fn weigh_connections(&mut self, plan: &Plan, server: &str, most: usize) {
        let over = plan.listeners.iter().filter_map(|(name, listener)| {
            let sql = listener.sql.as_ref()?;
            let leaves = plan.served(listener);
            let is_over = leaves.iter().any(|(it, _)| *it == server);
            is_over.then_some((format!("listener.{name}"), sql.pool_size))
        });
        let (names, sizes): (Vec<String>, Vec<usize>) = over.unzip();
        let sum = sizes.into_iter().fold(0, usize::saturating_add);
        if !names.is_empty() && sum.saturating_add(OWN) > most {
            self.warn_once(format!(
                "{server}: it takes {most} connections of clients (max_connections), and {} may open \
                 {sum} there for one role alone (pool-size), beside up to {OWN} of Breccia's own, so \
                 some would be refused; raise max_connections there, or lower pool-size",
                names.join(" and ")
            ));
        }
    }

    /// A server may be part of several composites.
    fn warn_once(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn only_what_both_tell_and_tell_differently_is_warned_of() {
        let primary = settings(&[("sql_mode", "ANSI"), ("time_zone", "+00:00"), ("old", "1")]);
        let check = |pairs: &[(&str, &str)], parts: &[&str]| {
            let (mut found, here) = (Findings::default(), settings(pairs));
            for _ in 0..2 {
                found.weigh_alike(("a", &primary), ("b", &here));
            }
            let expected = usize::from(!parts.is_empty());
            assert_eq!(found.warnings.len(), expected, "{found:?}");
            for part in parts {
                assert!(found.warnings[0].contains(part), "{part}: {found:?}");
            }
        };
        check(&[("sql_mode", "ANSI"), ("new", "1")], &[]);
        check(
            &[("sql_mode", ""), ("time_zone", "SYSTEM"), ("new", "1")],
            &[
                "b: it differs from the primary a",
                "sql_mode (\"\", there \"ANSI\"), time_zone (\"SYSTEM\", there \"+00:00\")",
            ],
        );
    }

    #[test]
    fn pools_that_a_server_cannot_take_are_warned_of() {
        let text = "[store]\na = { type = \"mysql\", host = \"h\", user = \"u\" }\n\
            b = { type = \"mysql\", host = \"i\", user = \"u\" }\n\
            db = { type = \"sql-read-replica\", primary = \"a\", replicas = [] }\n\
            [listener.one]\nprotocol = \"mysql\"\nbind = \"127.0.0.1:1\"\nstore = \"db\"\n\
            pool-size = 60\n\
            [listener.two]\nprotocol = \"mysql\"\nbind = \"127.0.0.1:2\"\nstore = \"db\"\n\
            pool-size = 35\n";
        let parsed = breccia_config::parse(text, "f", std::path::Path::new("/tmp"), &|_| None);
        let plan = parsed.expect("a plan").0;
        let check = |server: &str, most: usize, warned: bool| {
            let mut found = Findings::default();
            found.weigh_connections(&plan, server, most);
            assert_eq!(!found.warnings.is_empty(), warned, "{found:?}");
            let named = |it: &String| it.contains("listener.one and listener.two may open 95");
            assert!(found.warnings.iter().all(named), "{found:?}");
        };
        check("a", 100, false);
        check("a", 99, true);
        check("b", 1, false);
    }
}
