//! State folder tests: what is refused at start, the commands that mend it, crashes, the lock.
//!
//! Invariant: a refusal names the difference and the mend, and leaves the folder as it was.

mod commands;
mod refusals;

use std::fs;

use breccia_core::hash::HashKind;
use breccia_core::layout::{CompositeKind, Role};
use tempfile::TempDir;

use super::*;

fn spec(composite: &str, shards: &[&str]) -> LayoutSpec {
    LayoutSpec {
        composite: composite.to_owned(),
        kind: CompositeKind::InMemory,
        hash: HashKind::Xxh3_64,
        hash_tag: None,
        placement_key: breccia_core::PlacementKey::Raw,
        role: Role::Outer,
        shards: shards.iter().map(|shard| (*shard).to_owned()).collect(),
    }
}

fn three() -> LayoutSpec {
    spec("cache", &["redis-a", "redis-b", "redis-c"])
}

fn addresses(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(shard, address)| ((*shard).to_owned(), (*address).to_owned()))
        .collect()
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// Every file of a folder, and what is in it.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let files = entries.map(|entry| entry.expect("an entry").path());
    files
        .map(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read_to_string(&path).expect("a text"))
        })
        .collect()
}

fn check_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn layout_survives_a_restart_and_another_order_of_stores() {
    let folder = temporary();
    let first = {
        let store = LayoutStore::open(folder.path()).expect("a store");
        open_layout(&store, &three(), None, &none()).expect("a layout")
    };
    let store = LayoutStore::open(folder.path()).expect("a store");
    let reversed = spec("cache", &["redis-c", "redis-b", "redis-a"]);
    let second = open_layout(&store, &reversed, None, &none()).expect("a layout");
    assert_eq!(first, second);
    assert_eq!(second.shards(), ["redis-a", "redis-b", "redis-c"]);
    assert_eq!(store.all().expect("layouts"), [(*second).clone()]);
}

#[test]
fn folder_is_made_with_those_above_it() {
    let folder = temporary();
    let deep = folder.path().join("a/b/c");
    let store = LayoutStore::open(&deep).expect("a store");
    open_layout(&store, &three(), None, &none()).expect("a layout");
    let names: Vec<String> = contents(&deep).into_keys().collect();
    assert_eq!(
        names,
        ["breccia.lock", "cache.addresses.json", "cache.layout.toml"]
    );
    assert_eq!(store.folder(), Some(deep.as_path()));
}

#[test]
fn folder_that_cannot_be_made_is_reported_with_the_option() {
    let folder = temporary();
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let error = LayoutStore::open(&file.join("state")).expect_err("not a folder");
    check_parts(
        &error.to_string(),
        &["cannot make", "file/state", "`dir` in `[state]`"],
    );
    assert_eq!(error.kind(), breccia_core::ErrorKind::System);
}

#[test]
fn second_opening_of_a_folder_is_refused_until_the_first_is_gone() {
    let folder = temporary();
    let first = LayoutStore::open(folder.path()).expect("a store");
    let error = LayoutStore::open(folder.path())
        .expect_err("held")
        .to_string();
    let pid = format!("(pid {})", std::process::id());
    check_parts(
        &error,
        &[
            &folder.path().display().to_string(),
            &pid,
            "a folder of its own",
        ],
    );
    drop(first);
    LayoutStore::open(folder.path()).expect("free again");
}

#[test]
fn held_folder_can_be_looked_at_but_not_changed() {
    let folder = temporary();
    let holder = LayoutStore::open(folder.path()).expect("a store");
    let made = open_layout(&holder, &three(), None, &none()).expect("a layout");
    let before = contents(folder.path());
    let viewer = LayoutStore::open_read_only(folder.path());
    assert_eq!(
        open_layout(&viewer, &three(), None, &none()).expect("a layout"),
        made
    );
    assert_eq!(
        viewer.load("cache").expect("readable").as_ref(),
        Some(&*made)
    );
    let other = spec("other", &["x", "y"]);
    let shown = open_layout(&viewer, &other, None, &none()).expect("what would be made");
    assert_eq!(shown.shards(), ["x", "y"]);
    let error = viewer.save(&made).expect_err("read only").to_string();
    check_parts(&error, &["cache.layout.toml", "for reading only"]);
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn missing_folder_looks_empty_and_is_not_made() {
    let folder = temporary();
    let missing = folder.path().join("missing");
    let viewer = LayoutStore::open_read_only(&missing);
    assert_eq!(viewer.all().expect("empty"), []);
    assert_eq!(viewer.load("cache").expect("empty"), None);
    open_layout(&viewer, &three(), None, &none()).expect("what would be made");
    assert!(!missing.exists());
}

#[test]
fn ephemeral_store_keeps_layouts_until_it_is_dropped() {
    let store = LayoutStore::ephemeral();
    assert_eq!(store.folder(), None);
    let known = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2")]);
    let made = open_layout(&store, &three(), None, &known).expect("a layout");
    assert_eq!(store.all().expect("layouts"), [(*made).clone()]);
    assert_eq!(store.last_addresses("cache").expect("addresses"), known);
    let error = open_layout(&store, &spec("cache", &["redis-a"]), None, &none());
    check_parts(
        &error.expect_err("differs").to_string(),
        &["redis-b", "redis-c"],
    );
    let error = LayoutStore::ephemeral()
        .export("cache")
        .expect_err("empty")
        .to_string();
    check_parts(&error, &["no layout of 'cache' in memory", "none"]);
}

#[test]
fn file_left_half_written_by_a_crash_is_swept_and_the_old_one_holds() {
    let folder = temporary();
    let made = {
        let store = LayoutStore::open(folder.path()).expect("a store");
        open_layout(&store, &three(), None, &none()).expect("a layout")
    };
    let put =
        |name: &str| fs::write(folder.path().join(name), "format = 1\ncompo").expect("a file");
    put("cache.layout.toml.new");
    put("cache.addresses.json.new");
    put("notes.new");
    let store = LayoutStore::open(folder.path()).expect("a store");
    assert_eq!(
        open_layout(&store, &three(), None, &none()).expect("a layout"),
        made
    );
    let names: Vec<String> = contents(folder.path()).into_keys().collect();
    let expected = [
        "breccia.lock",
        "cache.addresses.json",
        "cache.layout.toml",
        "notes.new",
    ];
    assert_eq!(names, expected);
}

#[test]
fn damaged_files_are_refused_with_their_path() {
    let check = |file: &str, from: &str, to: &str, parts: &[&str]| {
        let folder = temporary();
        let store = LayoutStore::open(folder.path()).expect("a store");
        let known = addresses(&[("redis-a", "h:1")]);
        open_layout(&store, &three(), None, &known).expect("a layout");
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).expect("a text");
        assert!(text.contains(from), "{from}: {text}");
        fs::write(&path, text.replace(from, to)).expect("writable");
        let error = open_layout(&store, &three(), None, &known)
            .expect_err(from)
            .to_string();
        check_parts(&error, parts);
        check_parts(&error, &[&path.display().to_string()]);
    };
    check(
        "cache.layout.toml",
        "epoch = 1",
        "epoch = 9",
        &["states digest", "backup"],
    );
    check(
        "cache.layout.toml",
        "4098",
        "4099",
        &["slot 4098 lies on no shard"],
    );
    check("cache.addresses.json", "{", "[", &["remove the file"]);
    check("cache.addresses.json", "\"h:1\"", "1", &["remove the file"]);
}

#[test]
fn layout_in_the_file_of_another_composite_is_refused() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    open_layout(&store, &three(), None, &none()).expect("a layout");
    let path = |name: &str| folder.path().join(name);
    fs::rename(path("cache.layout.toml"), path("sessions.layout.toml")).expect("renamed");
    let error = store.load("sessions").expect_err("misnamed").to_string();
    check_parts(
        &error,
        &[
            "sessions.layout.toml",
            "of 'cache'",
            "cache.layout.toml again",
        ],
    );
}

#[test]
fn oversized_file_is_refused_without_reading_it_whole() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    let path = store.layout_path("cache");
    fs::File::create(&path)
        .and_then(|file| file.set_len(1 << 40))
        .expect("a sparse file");
    let error = store.load("cache").expect_err("too large").to_string();
    check_parts(&error, &["cache.layout.toml", "1099511627776 bytes"]);
}

#[test]
fn names_that_are_no_store_names_have_no_layout() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    fs::write(folder.path().join("..layout.toml"), "").expect("a file");
    assert_eq!(store.load("../cache").expect("none"), None);
    assert_eq!(store.all().expect("none"), []);
}
