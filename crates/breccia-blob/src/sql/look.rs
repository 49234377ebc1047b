//! A look into an SQLite file from outside: the markers, and whether there is any object.
//!
//! Not a way to use it. Invariant: nothing is made or written.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};

use super::options::SqlOptions;
use super::sqlite;
use crate::error::BlobError;
use crate::listing::{ListItem, ListPage};
use crate::local::{Contents, Looked, read_only};
use crate::markers::marker_name;

/// What a file that is there shows. Blocks.
pub(crate) fn look(options: &SqlOptions, path: &Path) -> Result<Looked, BlobError> {
    let prefix = &options.table_prefix;
    let looked = read_only::open(path).and_then(|connection| {
        if !has_tables(&connection, prefix)? {
            return Ok(Looked::Nothing);
        }
        contents(&connection, prefix).map(Looked::Store)
    });
    looked.map_err(|error| {
        let effect = breccia_core::error::Effect::NotApplied;
        sqlite::fault(&error).into_error(&options.name, effect)
    })
}

fn has_tables(connection: &Connection, prefix: &str) -> rusqlite::Result<bool> {
    let tables = format!("{prefix}reserved");
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
    let found = connection.query_row(sql, [tables], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

fn contents(connection: &Connection, prefix: &str) -> rusqlite::Result<Contents> {
    let mut contents = Contents::default();
    let all = format!("SELECT name, data FROM {prefix}reserved ORDER BY name");
    let mut statement = connection.prepare(&all)?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    for row in rows {
        let (name, data) = row?;
        let name = String::from_utf8_lossy(&name).into_owned();
        if name.starts_with(&marker_name("")) {
            contents.markers.insert(name, data.into());
        }
    }
    let one = format!("SELECT name FROM {prefix}objects LIMIT 1");
    let first = connection.query_row(&one, [], |row| row.get::<_, Vec<u8>>(0));
    let items = first.optional()?.into_iter();
    contents.first = ListPage {
        items: items
            .map(|name| ListItem::Prefix(Bytes::from(name)))
            .collect(),
        more: false,
    };
    Ok(contents)
}
