//! Reading one table: its keys, its defaults, the tables inside it.
//!
//! Not tables whose names users choose. Invariant: every key of the description ends up as a value,
//! as a fault, or as absent because it is optional.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{Array, Item, TableLike, Value as TomlValue};

use super::{Decoder, Raw, Spot, which};
use crate::fault::ConfigError;
use crate::field::{Default, Field, Kind, Need, Table};
use crate::rule;
use crate::value::{Decoded, Entry, Name, Value, join};

/// The name of a bucket that clients use.
const BUCKET: Kind = Kind::Ruled(&rule::BUCKET);

impl Decoder<'_> {
    /// Reads a table; `tag` is a key that somebody else has read.
    pub(crate) fn table(
        &mut self,
        table: &'static Table,
        written: &dyn TableLike,
        spot: Spot<'_>,
        tag: Option<&str>,
    ) -> Decoded {
        let mut values = BTreeMap::new();
        let mut known = BTreeSet::new();
        for (key, item) in written.iter() {
            if Some(key) == tag {
                continue;
            }
            let path = join(spot.path, key);
            let at = start(written, key, item).unwrap_or(spot.at);
            let Some(field) = table.field(key) else {
                let mend = which(
                    key,
                    table.fields.iter().map(|field| field.key),
                    "key",
                    "keys",
                );
                let at = key_start(written, key).unwrap_or(at);
                self.fault(Spot { path: &path, at }, ConfigError::UnknownKey { mend });
                continue;
            };
            known.insert(field.key);
            if let Some(value) = self.value(field.kind, &Raw::of(item), Spot { path: &path, at }) {
                values.insert(field.key, Entry { value, at });
            }
        }
        for field in table
            .fields
            .iter()
            .filter(|field| !known.contains(field.key))
        {
            if let Some(value) = self.absent(field, spot) {
                values.insert(field.key, Entry { value, at: spot.at });
            }
        }
        let path = spot.path.to_owned();
        Decoded {
            kind: table.name,
            path,
            at: spot.at,
            values,
            written: known,
        }
    }

    /// What holds for a key that is not there.
    fn absent(&mut self, field: &Field, table: Spot<'_>) -> Option<Value> {
        let path = join(table.path, field.key);
        let spot = Spot {
            path: &path,
            at: table.at,
        };
        match field.need {
            Need::Optional | Need::Checked { .. } => None,
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
                let written = written
                    .iter()
                    .map(|table| (table as &dyn TableLike, table.span()));
                Some(Value::List(self.list(table, written, spot)))
            }
            (Kind::List(table), Raw::Array(array)) => self.inline_list(table, array, spot),
            (Kind::Named { rule, table }, Raw::Table(written)) => Some(Value::Map(self.named(
                rule,
                *written,
                spot,
                |decoder, written, spot| decoder.table(table, written, spot, None),
            ))),
            (
                Kind::Typed {
                    rule,
                    variants,
                    later,
                },
                Raw::Table(written),
            ) => Some(Value::Map(self.named(
                rule,
                *written,
                spot,
                |decoder, written, spot| decoder.typed(variants, later, written, spot),
            ))),
            (Kind::StoreNames | Kind::ReplicaNames, Raw::Array(array)) => {
                self.names(Kind::StoreName, array, spot).map(Value::Names)
            }
            (Kind::RedisUrls, Raw::Array(array)) => self.urls(array, spot),
            (Kind::BucketNames, Raw::Array(array)) => {
                self.names(BUCKET, array, spot).map(Value::Names)
            }
            (Kind::FunctionNames, Raw::Array(array)) => self
                .names(Kind::Ruled(&rule::FUNCTION), array, spot)
                .map(Value::Names),
            (Kind::Buckets, Raw::Table(written)) => self.buckets(*written, spot),
            (Kind::Secret, raw) => self.secret(raw, spot).map(Value::Secret),
            (kind, raw) => self.scalar(kind, raw, spot),
        }
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

    fn names(&mut self, kind: Kind, array: &Array, spot: Spot<'_>) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut sound = true;
        for value in array {
            let at = value.span().map_or(spot.at, |span| span.start);
            let raw = Raw::of_value(value);
            // A list holds names that no store has, too: they are told with those that are known.
            if let (Kind::StoreName, Raw::Text(name)) = (kind, &raw) {
                let name = (*name).to_owned();
                names.push(Name { name, at });
            } else if let Some(Value::Text(name)) = self.scalar(kind, &raw, Spot { at, ..spot }) {
                names.push(Name { name, at });
            } else {
                sound = false;
            }
        }
        sound.then_some(names)
    }

    fn urls(&mut self, array: &Array, spot: Spot<'_>) -> Option<Value> {
        let mut urls = Vec::new();
        let mut sound = true;
        for value in array {
            let at = value.span().map_or(spot.at, |span| span.start);
            let raw = Raw::of_value(value);
            match self.scalar(Kind::RedisUrl, &raw, Spot { at, ..spot }) {
                Some(Value::RedisUrl(url)) => urls.push(url),
                _ => sound = false,
            }
        }
        if sound && urls.is_empty() {
            self.fault(spot, ConfigError::Empty);
            return None;
        }
        sound.then_some(Value::RedisUrls(urls))
    }

    fn buckets(&mut self, written: &dyn TableLike, spot: Spot<'_>) -> Option<Value> {
        let mut buckets = BTreeMap::new();
        let mut sound = true;
        for (bucket, item) in written.iter() {
            let path = join(spot.path, bucket);
            let key = key_start(written, bucket).unwrap_or(spot.at);
            let at = start(written, bucket, item).unwrap_or(key);
            let named = self.scalar(
                BUCKET,
                &Raw::Text(bucket),
                Spot {
                    path: &path,
                    at: key,
                },
            );
            let store = self.scalar(Kind::StoreName, &Raw::of(item), Spot { path: &path, at });
            match (named, store) {
                (Some(_), Some(Value::Text(name))) => {
                    buckets.insert(bucket.to_owned(), Name { name, at });
                }
                _ => sound = false,
            }
        }
        if written.is_empty() {
            self.fault(spot, ConfigError::Empty);
            return None;
        }
        sound.then_some(Value::Buckets(buckets))
    }
}

/// Where a key's value starts; the key itself if the value has no place of its own.
pub(super) fn start(table: &dyn TableLike, key: &str, item: &Item) -> Option<usize> {
    let of_value = match item {
        Item::Value(value) => value.span(),
        Item::Table(table) if !table.is_dotted() && !table.is_implicit() => table.span(),
        _ => None,
    };
    of_value
        .map(|span| span.start)
        .or_else(|| key_start(table, key))
}

fn key_start(table: &dyn TableLike, key: &str) -> Option<usize> {
    table.key(key)?.span().map(|span| span.start)
}
