//! Reading a table of the file by its description.
//!
//! Not the cross-checks: nothing here looks at two tables at once. Invariant: a faulty value is
//! reported once and then absent, so no later check reports it again.

mod scalar;
mod secret;

use std::collections::BTreeMap;

use strsim::damerau_levenshtein;
use toml_edit::{Array, ArrayOfTables, Item, TableLike, Value as TomlValue};

use crate::fault::{ConfigError, Fault, Notice, Place, Warning};
use crate::field::{Default, Field, Kind, NameRule, Need, Table};
use crate::source::Source;
use crate::value::{Decoded, Entry, Name, Value, join, quoted};

/// Where values of the environment come from.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads tables and gathers what is wrong with them.
pub(crate) struct Decoder<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) env: Env<'a>,
    faults: Vec<(usize, Fault)>,
    warnings: Vec<(usize, Warning)>,
}

/// A value as written, or a default.
pub(crate) enum Raw<'t> {
    Text(&'t str),
    Integer(i64),
    Flag(bool),
    Array(&'t Array),
    Table(&'t dyn TableLike),
    Tables(&'t ArrayOfTables),
    Other(&'static str),
}

impl<'t> Raw<'t> {
    fn of(item: &'t Item) -> Self {
        match item {
            Item::None => Self::Other("nothing"),
            Item::Table(table) => Self::Table(table),
            Item::ArrayOfTables(tables) => Self::Tables(tables),
            Item::Value(value) => Self::of_value(value),
        }
    }

    fn of_value(value: &'t TomlValue) -> Self {
        match value {
            TomlValue::String(text) => Self::Text(text.value()),
            TomlValue::Integer(number) => Self::Integer(*number.value()),
            TomlValue::Boolean(flag) => Self::Flag(*flag.value()),
            TomlValue::Array(array) => Self::Array(array),
            TomlValue::InlineTable(table) => Self::Table(table),
            TomlValue::Float(_) => Self::Other("a number with a fraction"),
            TomlValue::Datetime(_) => Self::Other("a date"),
        }
    }

    /// What it is, for a message.
    fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Tables(_) => "a list of tables",
            Self::Other(name) => name,
        }
    }
}

/// A key path and where its value stands.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'s> {
    pub(crate) path: &'s str,
    pub(crate) at: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(source: &'a Source<'a>, env: Env<'a>) -> Self {
        Self { source, env, faults: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn fault(&mut self, spot: Spot<'_>, error: ConfigError) {
        let place = self.source.place(spot.at, spot.path);
        self.fault_at(spot.at, place, error);
    }

    pub(crate) fn fault_at(&mut self, at: usize, place: Place, error: ConfigError) {
        self.faults.push((at, Fault { place, error }));
    }

    pub(crate) fn warn(&mut self, spot: Spot<'_>, notice: Notice) {
        let place = self.source.place(spot.at, spot.path);
        self.warnings.push((spot.at, Warning { place, notice }));
    }

    pub(crate) fn warn_of_file(&mut self, notice: Notice) {
        self.warnings.push((0, Warning { place: self.source.whole(), notice }));
    }

    /// Everything that was found, in the order of the file.
    pub(crate) fn finish(mut self) -> (Vec<Fault>, Vec<Warning>) {
        self.faults.sort_by_key(|(at, _)| *at);
        self.warnings.sort_by_key(|(at, _)| *at);
        (
            self.faults.into_iter().map(|(_, fault)| fault).collect(),
            self.warnings.into_iter().map(|(_, warning)| warning).collect(),
        )
    }

    /// Reads a table; `tag` is a key that somebody else has read.
    pub(crate) fn table(
        &mut self,
        table: &'static Table,
        written: &dyn TableLike,
        spot: Spot<'_>,
        tag: Option<&str>,
    ) -> Decoded {
        let mut values = BTreeMap::new();
        for (key, item) in written.iter() {
            if Some(key) == tag {
                continue;
            }
            let path = join(spot.path, key);
            let at = start(written, key, item).unwrap_or(spot.at);
            match table.field(key) {
                Some(field) => {
                    let here = Spot { path: &path, at };
                    if let Some(value) = self.value(field.kind, &Raw::of(item), here) {
                        values.insert(field.key, Entry { value, at, given: true });
                    }
                }
                None => {
                    let mend = which(key, table.fields.iter().map(|field| field.key), "key", "keys");
                    let at = key_start(written, key).unwrap_or(at);
                    self.fault(Spot { path: &path, at }, ConfigError::UnknownKey { mend });
                }
            }
        }
        for field in table.fields.iter().filter(|field| !written.contains_key(field.key)) {
            if let Some(value) = self.absent(field, spot) {
                values.insert(field.key, Entry { value, at: spot.at, given: false });
            }
        }
        Decoded { kind: table.name, path: spot.path.to_owned(), at: spot.at, values }
    }

    /// What holds for a key that is not there.
    fn absent(&mut self, field: &Field, table: Spot<'_>) -> Option<Value> {
        let path = join(table.path, field.key);
        let spot = Spot { path: &path, at: table.at };
        match field.need {
            Need::Optional => None,
            Need::Required { example } => {
                let example = format!("{} = {example}", field.key);
                self.fault(spot, ConfigError::MissingKey { example });
                None
            }
            Need::Default(default) => {
                let raw = match default {
                    Default::Flag(flag) => Raw::Flag(flag),
                    Default::Integer(number) => Raw::Integer(number),
                    Default::Text(text) => Raw::Text(text),
                };
                self.value(field.kind, &raw, spot)
            }
            Need::Implied => self.value(field.kind, &Raw::Table(&toml_edit::Table::new()), spot),
        }
    }

    fn value(&mut self, kind: Kind, raw: &Raw<'_>, spot: Spot<'_>) -> Option<Value> {
        match (kind, raw) {
            (Kind::Table(table), Raw::Table(written)) => {
                Some(Value::Table(self.table(table, *written, spot, None)))
            }
            (Kind::List(table), Raw::Tables(written)) => {
                let written = written.iter().map(|table| (table as &dyn TableLike, table.span()));
                Some(Value::List(self.list(table, written, spot)))
            }
            (Kind::List(table), Raw::Array(array)) => self.inline_list(table, array, spot),
            (Kind::Named { rule, table }, Raw::Table(written)) => Some(Value::Map(self.named(
                rule,
                *written,
                spot,
                |decoder, written, spot| decoder.table(table, written, spot, None),
            ))),
            (Kind::Typed { rule, variants, later }, Raw::Table(written)) => Some(Value::Map(
                self.named(rule, *written, spot, |decoder, written, spot| {
                    decoder.typed(variants, later, written, spot)
                }),
            )),
            (Kind::StoreNames, Raw::Array(array)) => self.names(array, spot).map(Value::Names),
            (Kind::Secret, raw) => self.secret(raw, spot).map(Value::Secret),
            (kind, raw) => self.scalar(kind, raw, spot),
        }
    }

    pub(crate) fn wrong_type(&mut self, kind: Kind, raw: &Raw<'_>, spot: Spot<'_>) {
        let (expected, found) = (kind.expected(), raw.type_name());
        self.fault(spot, ConfigError::WrongType { expected, found, example: kind.example() });
    }

    fn list<'t>(
        &mut self,
        table: &'static Table,
        written: impl Iterator<Item = (&'t dyn TableLike, Option<std::ops::Range<usize>>)>,
        spot: Spot<'_>,
    ) -> Vec<Decoded> {
        let mut list = Vec::new();
        for (index, (written, span)) in written.enumerate() {
            let path = format!("{}[{index}]", spot.path);
            let at = span.map_or(spot.at, |span| span.start);
            list.push(self.table(table, written, Spot { path: &path, at }, None));
        }
        list
    }

    fn inline_list(
        &mut self,
        table: &'static Table,
        array: &Array,
        spot: Spot<'_>,
    ) -> Option<Value> {
        let mut written = Vec::new();
        for value in array {
            match value {
                TomlValue::InlineTable(table) => {
                    written.push((table as &dyn TableLike, value.span()));
                }
                other => {
                    self.wrong_type(Kind::List(table), &Raw::of_value(other), spot);
                    return None;
                }
            }
        }
        Some(Value::List(self.list(table, written.into_iter(), spot)))
    }

    fn names(&mut self, array: &Array, spot: Spot<'_>) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut sound = true;
        for value in array {
            let at = value.span().map_or(spot.at, |span| span.start);
            if let TomlValue::String(name) = value {
                names.push(Name { name: name.value().clone(), at });
            } else {
                self.wrong_type(Kind::StoreName, &Raw::of_value(value), Spot { at, ..spot });
                sound = false;
            }
        }
        sound.then_some(names)
    }

    fn named(
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
                    self.fault(here, ConfigError::WrongType { expected, found, example });
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
            tables.insert(name, decoded);
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
    fn typed(
        &mut self,
        variants: &'static [&'static Table],
        later: &[&str],
        written: &dyn TableLike,
        table: Spot<'_>,
    ) -> Decoded {
        let names = || variants.iter().map(|variant| variant.name);
        let unknown =
            || Decoded { path: table.path.to_owned(), at: table.at, ..Decoded::default() };
        let path = join(table.path, "type");
        let Some(item) = written.get("type") else {
            let spot = Spot { path: &path, at: table.at };
            self.fault(spot, ConfigError::MissingKey { example: "type = \"redis\"".to_owned() });
            return unknown();
        };
        let spot = Spot { path: &path, at: start(written, "type", item).unwrap_or(table.at) };
        let Some(name) = item.as_str() else {
            self.wrong_type(Kind::Text, &Raw::of(item), spot);
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
            ConfigError::UnknownChoice { found, mend: which(name, names(), "type", "types") }
        };
        self.fault(spot, error);
        unknown()
    }
}

/// Whether a table holds tables and nothing else: `[store.a.b]` without `[store.a]`.
fn only_tables(table: &dyn TableLike) -> bool {
    !table.is_empty()
        && table.iter().all(|(_, item)| matches!(item, Item::Table(table) if !table.is_dotted()))
}

/// Where a key's value starts; the key itself if the value has no place of its own.
fn start(table: &dyn TableLike, key: &str, item: &Item) -> Option<usize> {
    let of_value = match item {
        Item::Value(value) => value.span(),
        Item::Table(table) if !table.is_dotted() && !table.is_implicit() => table.span(),
        _ => None,
    };
    of_value.map(|span| span.start).or_else(|| key_start(table, key))
}

fn key_start(table: &dyn TableLike, key: &str) -> Option<usize> {
    table.key(key)?.span().map(|span| span.start)
}

/// What to write instead of an unknown name: the nearest known one, or a list of all.
pub(crate) fn which<'n>(
    found: &str,
    known: impl Iterator<Item = &'n str>,
    one: &str,
    many: &str,
) -> String {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '.', ' '], "-");
    let wanted = plain(found);
    let known: Vec<_> = known.collect();
    // The distance is quadratic in the length; no known name comes near one as long as this.
    let near = (wanted.len() <= 256)
        .then(|| {
            known
                .iter()
                .map(|name| (damerau_levenshtein(&wanted, &plain(name)), *name))
                .filter(|(distance, name)| *distance <= name.len().div_ceil(3).min(3))
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
