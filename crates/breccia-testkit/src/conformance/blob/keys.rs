//! Any key is one object of its own, or is refused by name; never another object.

use anyhow::{Context, Result, bail, ensure};
use breccia_blob::condition::WriteCondition;
use breccia_blob::error::BlobError;
use breccia_blob::key::Key;
use breccia_blob::listing::{ListItem, MAX_PAGE};
use breccia_blob::store::{BlobStore, BlobStoreExt};

use super::{expect_absent, expect_bytes, request};

/// Keys that stores are known to bend. They are listed under no common prefix.
fn odd_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = [
        "a",
        "A",
        "a/",
        "a//",
        "a//b",
        "a/b",
        "/a",
        "//a",
        "/",
        "//",
        "a/./b",
        "a/../b",
        ".",
        "..",
        "./a",
        "../a",
        "a/.",
        "a/..",
        "a.",
        "a ",
        " a",
        " a ",
        "  ",
        " ",
        "a+b",
        "a b",
        "a%20b",
        "%2F",
        "%2f",
        "a%2Fb",
        "%",
        "%zz",
        "a\\b",
        "a?b=c",
        "a#b",
        "a&b",
        "a;b",
        "a:b",
        "a*b",
        "a<b>",
        "a\"b",
        "a'b",
        "a|b",
        "a`b",
        "a^b",
        "a{b}",
        "a[b]",
        "a~b",
        "~",
        "a,b",
        "a=b",
        "a@b",
        "a!b",
        "a$b",
        "ä",
        "a\u{308}",
        "日本",
        "\u{1f600}",
        "\u{ffff}",
        "\u{fffd}",
        "\u{10ffff}",
        "\u{e000}",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "&amp;",
        "&#65;",
        "]]>",
        "con",
        "index.html",
        "a/index.html",
        "_",
        "-",
        "0",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    keys.push(vec![b'k'; 900]);
    keys.push([vec![b'd'; 400], b"/".to_vec(), vec![b'k'; 500]].concat());
    keys
}

/// Only members that are not bound to text hold these.
fn raw_keys() -> Vec<Vec<u8>> {
    vec![
        vec![0],
        vec![0xff],
        vec![0xc3],
        b"a\0b".to_vec(),
        vec![0xed, 0xa0, 0x80],
    ]
}

pub(super) async fn check(store: &dyn BlobStore) -> Result<()> {
    let mut held = Vec::new();
    for bytes in odd_keys().into_iter().chain(raw_keys()) {
        let key = Key::new(bytes)?;
        match store.put_bytes(&key, key.bytes()).await {
            Ok(_) => held.push(key),
            Err(BlobError::KeyRefused { reason, .. }) => {
                ensure!(!reason.is_empty(), "{key:?} is refused without a reason");
            }
            Err(BlobError::KeyTooLong { .. }) if key.as_bytes().len() > 500 => {}
            Err(error) => bail!("{key:?} is neither held nor refused: {error:?}"),
        }
    }
    ensure!(held.len() > 30, "only {} odd keys are held", held.len());
    for key in &held {
        // Each holds its own name: two keys that fall together would show here.
        expect_bytes(store, key, key.as_bytes())
            .await
            .with_context(|| format!("{key:?}"))?;
    }
    let mut expected: Vec<&[u8]> = held.iter().map(Key::as_bytes).collect();
    expected.sort_unstable();
    let page = store.list(request("", None, None, MAX_PAGE)).await?;
    let listed: Vec<&[u8]> = page.items.iter().map(ListItem::name).collect();
    let odd = |names: &[&[u8]], others: &[&[u8]]| -> Vec<String> {
        let lost = names.iter().filter(|name| !others.contains(name));
        lost.map(|name| name.escape_ascii().to_string()).collect()
    };
    ensure!(
        listed == expected,
        "the listing lacks {:?} and adds {:?}, or is out of order",
        odd(&expected, &listed),
        odd(&listed, &expected)
    );
    for key in &held {
        store.delete(key, WriteCondition::Always).await?;
        expect_absent_by_head(store, key).await?;
    }
    let gone = Key::new(&b"a"[..])?;
    expect_absent(store, &gone).await
}

async fn expect_absent_by_head(store: &dyn BlobStore, key: &Key) -> Result<()> {
    match store.head(key).await {
        Err(BlobError::NotFound) => Ok(()),
        other => bail!("{key:?} must be gone, but: {other:?}"),
    }
}
