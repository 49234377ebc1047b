//! Reading tables whose names users choose: stores, listeners, commands.
//!
//! Invariant: a name that was written is in the map, even if its table is faulty, so that nothing
//! else reports it as undefined.

use std::collections::BTreeMap;

use toml_edit::{Item, TableLike};

use super::table::start;
use super::{Decoder, Raw, Spot, which};
use crate::fault::ConfigError;
use crate::field::{NameRule, Table};
use crate::value::{Decoded, join, quoted};

impl Decoder<'_> {
    pub(super) fn named(
        &mut self,
        rule: NameRule,
        written: &dyn TableLike,
        spot: Spot<'_>,
        mut read: impl FnMut(&mut Self, &dyn TableLike, Spot<'_>) -> Decoded,
    ) -> BTreeMap<String, Decoded> {
        let mut tables: BTreeMap<String, Decoded> = BTreeMap::new();
        for (name, item) in written.iter() {
            let path = join(spot.path, name);
            let at = start(written, name, item).unwrap_or(spot.at);
            let here = Spot { path: &path, at };
            self.check_name(rule, name, here);
            let decoded = match Raw::of(item) {
                Raw::Table(table) if only_tables(table) => {
                    let meant = table.iter().next().map_or_else(String::new, |(key, _)| {
                        join(spot.path, &format!("{name}.{key}"))
                    });
                    self.fault(here, ConfigError::DottedName { example: meant });
                    Decoded::default()
                }
                Raw::Table(table) => read(self, table, here),
                other => {
                    let (expected, found) = ("a table", other.type_name());
                    let example = format!("[{path}]");
                    self.fault(
                        here,
                        ConfigError::WrongType {
                            expected,
                            found,
                            example,
                        },
                    );
                    Decoded::default()
                }
            };
            let name = match rule {
                NameRule::Store => name.to_owned(),
                NameRule::Command => name.to_ascii_uppercase(),
            };
            if let Some(other) = tables.get(&name) {
                let other = other.path.clone();
                self.fault(here, ConfigError::CommandTwice { other });
            }
            tables.entry(name).or_insert(decoded);
        }
        tables
    }

    fn check_name(&mut self, rule: NameRule, name: &str, spot: Spot<'_>) {
        match rule {
            NameRule::Store if !breccia_core::layout::is_store_name(name) => {
                let most = breccia_core::layout::MAX_NAME_BYTES;
                self.fault(spot, ConfigError::BadName { most });
            }
            NameRule::Command if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) => {
                self.fault(spot, ConfigError::BadCommandName);
            }
            NameRule::Store | NameRule::Command => {}
        }
    }

    /// Reads a table whose `type` says what it holds.
    pub(super) fn typed(
        &mut self,
        variants: &'static [&'static Table],
        later: &[&str],
        written: &dyn TableLike,
        table: Spot<'_>,
    ) -> Decoded {
        let names = || variants.iter().map(|variant| variant.name);
        let unknown = || Decoded {
            path: table.path.to_owned(),
            at: table.at,
            ..Decoded::default()
        };
        let path = join(table.path, "type");
        let Some(item) = written.get("type") else {
            let spot = Spot {
                path: &path,
                at: table.at,
            };
            self.fault(
                spot,
                ConfigError::MissingKey {
                    example: "type = \"redis\"".to_owned(),
                },
            );
            return unknown();
        };
        let spot = Spot {
            path: &path,
            at: start(written, "type", item).unwrap_or(table.at),
        };
        let Some(name) = item.as_str() else {
            let found = Raw::of(item).type_name();
            let example = "\"redis\"".to_owned();
            self.fault(
                spot,
                ConfigError::WrongType {
                    expected: "a string",
                    found,
                    example,
                },
            );
            return unknown();
        };
        if let Some(variant) = variants.iter().find(|variant| variant.name == name) {
            return self.table(variant, written, table, Some("type"));
        }
        let found = quoted(name);
        let error = if later.contains(&name) {
            let known = names().collect::<Vec<_>>().join(", ");
            ConfigError::NotInRelease { found, known }
        } else {
            ConfigError::UnknownChoice {
                found,
                mend: which(name, names(), "type", "types"),
            }
        };
        self.fault(spot, error);
        unknown()
    }
}

/// Whether a table holds tables and nothing else: `[store.a.b]` without `[store.a]`.
fn only_tables(table: &dyn TableLike) -> bool {
    !table.is_empty()
        && table
            .iter()
            .all(|(_, item)| matches!(item, Item::Table(table) if !table.is_dotted()))
}
