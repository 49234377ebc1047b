//! `breccia explain`: where a key lies, or a statement goes, and why.
//!
//! Not a request: no store is asked for a key. Invariant: it places keys by the very layout the
//! gateway uses, or says that none is saved yet.

mod sql;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use breccia_config::Plan;
use breccia_core::layout::Layout;
use breccia_net::layout_store::LayoutStore;

use crate::cli::ExplainArguments;
use crate::loading::{self, Layouts};
use crate::trouble::{Trouble, print};

pub(crate) fn run(arguments: &ExplainArguments) -> Result<(), Trouble> {
    let given = arguments.config.given();
    let asked = asked(arguments)?;
    let (plan, _) = given.load()?;
    if !plan.stores.contains_key(&arguments.store) {
        let known: Vec<&str> = plan.stores.keys().map(String::as_str).collect();
        return Err(Trouble::refused(format!(
            "there is no store '{}' in {}; there are: {}",
            arguments.store,
            given.config.display(),
            known.join(", ")
        )));
    }
    let key = match asked {
        Asked::Statement(statement) => {
            print(&sql::explain(&plan, arguments, statement)?);
            return Ok(());
        }
        Asked::Key(key) => key,
    };
    if let Some(composite) = sql_composite(&plan, &arguments.store) {
        return Err(Trouble::refused(given.with_arguments(&format!(
            "'{}' places no keys: every server of a sql-read-replica holds everything; ask about a \
             statement instead: breccia explain --config FILE {composite} --sql \"SELECT …\"",
            arguments.store
        ))));
    }
    let store = LayoutStore::open_read_only(&plan.state_dir);
    let layouts = loading::open_layouts(&plan, &store).map_err(|refusals| {
        let lines = refusals.iter().flat_map(|refusal| given.lines(refusal));
        Trouble::Refused(lines.collect())
    })?;
    print(&explain(&plan, &layouts, &arguments.store, &key)?);
    Ok(())
}

/// What is asked about.
enum Asked<'a> {
    Key(Vec<u8>),
    Statement(&'a str),
}

/// A key or a statement, not both.
fn asked(arguments: &ExplainArguments) -> Result<Asked<'_>, Trouble> {
    let refused = |line: &str| Err(Trouble::refused(line));
    match (&arguments.key, &arguments.sql) {
        (Some(_), Some(_)) => refused("KEY and --sql exclude each other; leave one of them out"),
        (None, None) => {
            refused("what is asked about is missing; give a KEY, or --sql \"SELECT …\"")
        }
        (None, Some(_)) if arguments.hex => {
            refused("--hex is about keys; leave it out beside --sql")
        }
        (None, Some(statement)) => Ok(Asked::Statement(statement)),
        (Some(_), None) if arguments.database.is_some() || arguments.offline => {
            refused("--database and --offline are about statements; leave them out beside a KEY")
        }
        (Some(key), None) => Ok(Asked::Key(bytes(key, arguments.hex)?)),
    }
}

fn bytes(key: &OsStr, hex: bool) -> Result<Vec<u8>, Trouble> {
    if !hex {
        return Ok(key.as_bytes().to_vec());
    }
    from_hex(key.as_bytes())
        .ok_or_else(|| Trouble::refused("--hex: write the key as pairs of the digits 0-9 and a-f"))
}

/// The composite that has statements in place of a store's keys: the store itself, or the one it is
/// a server of.
fn sql_composite<'a>(plan: &'a Plan, store: &'a str) -> Option<&'a str> {
    if plan.stores.get(store)?.is_sql() {
        return Some(store);
    }
    let parents = plan.stores.iter().filter(|_| plan.is_only_sql(store));
    let mut parents = parents.filter(|(_, parent)| parent.parts().contains(&store));
    parents.next().map(|(name, _)| name.as_str())
}

/// The lines for one key, from the outermost composite to the server.
fn explain(plan: &Plan, layouts: &Layouts, store: &str, key: &[u8]) -> Result<String, Trouble> {
    let saved = LayoutStore::open_read_only(&plan.state_dir);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "key      {} ({} bytes)", printable(key), key.len());
    let mut name = store.to_owned();
    while let Some(layout) = layouts.get(&name) {
        let is_saved = saved.load(&name).map_err(Trouble::refused)?.is_some();
        name = placed(&mut out, layout, is_saved, key)?;
    }
    let kind = plan
        .stores
        .get(&name)
        .map_or("store", |plan| plan.type_name());
    let server = plan
        .stores
        .get(&name)
        .and_then(breccia_config::StorePlan::location);
    let server = server.unwrap_or_else(|| "inside the gateway".to_owned());
    let _ = writeln!(out, "server   {server} ({kind} '{name}')");
    Ok(out)
}

/// The lines of one composite; answers the shard's name.
fn placed(
    out: &mut String,
    layout: &Layout,
    is_saved: bool,
    key: &[u8],
) -> Result<String, Trouble> {
    let placement = layout.place(key);
    let shard = layout
        .shard_name(placement.shard)
        .unwrap_or_default()
        .to_owned();
    if shard.is_empty() {
        return Err(Trouble::failed(
            "the layout has no such shard: this is a fault in Breccia",
        ));
    }
    let state = if is_saved {
        format!("epoch {}", layout.epoch().get())
    } else {
        "not saved here: a first start makes this one, unless shards carry markers of another"
            .to_owned()
    };
    let _ = writeln!(
        out,
        "store    {} (layout {}, {state})",
        layout.composite(),
        layout.digest()
    );
    if let Some(tag) = layout.hash_tag() {
        let _ = writeln!(out, "hashed   {}", printable(tag.hashed_part(key)));
    }
    let _ = writeln!(out, "hash     {} {:016x}", layout.hash(), placement.hash);
    let _ = writeln!(
        out,
        "slot     {} of {}",
        placement.slot.get(),
        layout.slot_count()
    );
    let _ = writeln!(out, "shard    {shard}");
    Ok(shard)
}

/// The key between quotes, with `\xNN` for what is not printable ASCII.
fn printable(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_keys_are_pairs_of_digits() {
        let check = |text: &str, expected: Option<&[u8]>| {
            assert_eq!(from_hex(text.as_bytes()).as_deref(), expected, "{text}");
        };
        check("", Some(b""));
        check("00fF7a", Some(&[0, 255, 0x7a]));
        check("0", None);
        check("0x", None);
        check("+1", None);
    }

    #[test]
    fn keys_are_printed_as_text_where_they_can_be() {
        assert_eq!(printable(b"user:1"), "\"user:1\"");
        assert_eq!(printable(b"a\"\n\xff"), "\"a\\\"\\n\\xff\"");
    }
}
