//! A table of the file, read by its description: typed values that know where they stand.
//!
//! Not yet a plan: a value may be absent because it was faulty, and nothing is held against
//! anything else. Invariant: a value has the type its field's kind says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use breccia_core::address::Address;
use breccia_core::hash::HashTag;

use crate::Secret;
use crate::http_url::HttpEndpoint;
use crate::plan::BindPlan;
use crate::url::RedisUrl;

/// One value.
#[derive(Debug)]
pub(crate) enum Value {
    Flag(bool),
    Integer(i64),
    Duration(Duration),
    Size(u64),
    Text(String),
    Choice(&'static str),
    HashTag(HashTag),
    RedisUrl(RedisUrl),
    RedisUrls(Vec<RedisUrl>),
    Endpoint(HttpEndpoint),
    Address(Address),
    Bind(BindPlan),
    SocketAddress(SocketAddr),
    Secret(Secret),
    Path(PathBuf),
    Names(Vec<Name>),
    Buckets(BTreeMap<String, Name>),
    Table(Decoded),
    List(Vec<Decoded>),
    Map(BTreeMap<String, Decoded>),
}

/// The name of a store or a bucket, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) name: String,
    pub(crate) at: usize,
}

/// A table as read.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// The name of its description; empty if its type is unknown.
    pub(crate) kind: &'static str,
    /// Its key path.
    pub(crate) path: String,
    /// Where its header stands.
    pub(crate) at: usize,
    /// What it holds, defaults among it; faulty values are absent.
    pub(crate) values: BTreeMap<&'static str, Entry>,
    /// The keys that were written, faulty ones among them.
    pub(crate) written: BTreeSet<&'static str>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) at: usize,
}

impl Decoded {
    /// The value of a key, as the type wanted; `None` if it is absent or was faulty.
    pub(crate) fn get<'d, T: FromValue<'d>>(&'d self, key: &str) -> Option<T> {
        T::from_value(&self.values.get(key)?.value)
    }

    /// The value of a key that is a choice.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        match self.values.get(key)?.value {
            Value::Choice(chosen) => all.iter().copied().find(|value| name(*value) == chosen),
            _ => None,
        }
    }

    /// Whether the key was written, rightly or wrongly.
    pub(crate) fn given(&self, key: &str) -> bool {
        self.written.contains(key)
    }

    /// Where the key's value stands; the table's header if it does not.
    pub(crate) fn at(&self, key: &str) -> usize {
        self.values.get(key).map_or(self.at, |entry| entry.at)
    }

    /// The path of a key in this table.
    pub(crate) fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

/// A path and one more key, quoted where TOML would quote it.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let key = if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        quoted(key)
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// A text of the file for a message: quoted, escaped, and not longer than a line bears.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// What can be got from a [`Value`].
pub(crate) trait FromValue<'d>: Sized {
    fn from_value(value: &'d Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($kind:ty, $variant:ident, |$inner:ident| $result:expr;)+) => {$(
        impl<'d> FromValue<'d> for $kind {
            fn from_value(value: &'d Value) -> Option<Self> {
                match value {
                    Value::$variant($inner) => $result,
                    _ => None,
                }
            }
        }
    )+};
}

from_value! {
    bool, Flag, |inner| Some(*inner);
    i64, Integer, |inner| Some(*inner);
    u16, Integer, |inner| u16::try_from(*inner).ok();
    i32, Integer, |inner| i32::try_from(*inner).ok();
    u32, Integer, |inner| u32::try_from(*inner).ok();
    usize, Integer, |inner| usize::try_from(*inner).ok();
    u64, Size, |inner| Some(*inner);
    Duration, Duration, |inner| Some(*inner);
    String, Text, |inner| Some(inner.clone());
    &'d str, Text, |inner| Some(inner.as_str());
    HashTag, HashTag, |inner| Some(*inner);
    &'d RedisUrl, RedisUrl, |inner| Some(inner);
    &'d [RedisUrl], RedisUrls, |inner| Some(inner);
    &'d HttpEndpoint, Endpoint, |inner| Some(inner);
    &'d Address, Address, |inner| Some(inner);
    &'d BindPlan, Bind, |inner| Some(inner);
    SocketAddr, SocketAddress, |inner| Some(*inner);
    Secret, Secret, |inner| Some(inner.clone());
    PathBuf, Path, |inner| Some(inner.clone());
    &'d Path, Path, |inner| Some(inner);
    &'d [Name], Names, |inner| Some(inner);
    &'d BTreeMap<String, Name>, Buckets, |inner| Some(inner);
    &'d Decoded, Table, |inner| Some(inner);
    &'d [Decoded], List, |inner| Some(inner);
    &'d BTreeMap<String, Decoded>, Map, |inner| Some(inner);
}
