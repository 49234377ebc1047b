//! Listings against a model.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use breccia_blob::listing::{ListItem, ListRequest, ListedObject, RollUp, Step};
use breccia_blob::meta::ETag;
use breccia_blob::store::BlobStoreExt;
use breccia_blob::{BlobStore, Key};
use bytes::Bytes;

use crate::place::{Place, key, pattern};

fn odd_keys() -> BTreeSet<Vec<u8>> {
    let pieces: [&[u8]; 9] = [
        b"a",
        b"b",
        b"/",
        b"//",
        b"\x00",
        b"\xff",
        b"%",
        b"'",
        "\u{e9}".as_bytes(),
    ];
    let mut keys = BTreeSet::new();
    let numbers = pattern(4 * 400, 9);
    for four in numbers.chunks_exact(4) {
        let mut key = Vec::new();
        for byte in &four[..=usize::from(four[3]) % 3] {
            key.extend_from_slice(pieces[usize::from(*byte) % pieces.len()]);
        }
        keys.insert(key);
    }
    keys.insert(vec![0xff; 1024]);
    keys.insert(vec![0x00; 1024]);
    keys.insert(b"A".to_vec());
    keys.insert(b"a ".to_vec());
    keys.insert(b" a".to_vec());
    keys
}

/// The page as the definition has it.
fn model(keys: &BTreeSet<Vec<u8>>, request: &ListRequest) -> Result<(Vec<Vec<u8>>, bool)> {
    let mut roll_up = RollUp::new(request.clone());
    for key in keys {
        let object = ListedObject {
            key: Key::new(key.clone())?,
            size: 0,
            modified_ms: 0,
            etag: ETag::from_text("e"),
        };
        if roll_up.push(object) == Step::Full {
            break;
        }
    }
    let page = roll_up.finish();
    let names = page.items.iter().map(|item| item.name().to_vec());
    Ok((names.collect(), page.more))
}

pub(crate) async fn pages_equal_a_model(place: &Place) -> Result<()> {
    let store = place.open("l_", |_| {});
    let keys = odd_keys();
    for name in &keys {
        store.put_bytes(&Key::new(name.clone())?, "x").await?;
    }
    let prefixes: [&[u8]; 6] = [b"", b"a", b"b/", b"\xff", b"\xff\xff", b"none"];
    let delimiters: [Option<&[u8]>; 4] = [None, Some(b"/"), Some(b"//"), Some(b"\xff")];
    for prefix in prefixes {
        for delimiter in delimiters {
            for limit in [1, 3, 50, 1000] {
                walk(&*store, &keys, prefix, delimiter, limit).await?;
            }
        }
    }
    Ok(())
}

async fn walk(
    store: &dyn BlobStore,
    keys: &BTreeSet<Vec<u8>>,
    prefix: &[u8],
    delimiter: Option<&[u8]>,
    limit: usize,
) -> Result<()> {
    let mut request = ListRequest {
        prefix: Bytes::copy_from_slice(prefix),
        after: None,
        delimiter: delimiter.map(Bytes::copy_from_slice),
        limit,
    };
    // The small limits are only walked some way.
    for _ in 0..12 {
        let page = store.list(request.clone()).await?;
        let names: Vec<Vec<u8>> = page.items.iter().map(|item| item.name().to_vec()).collect();
        let expected = model(keys, &request)?;
        ensure!((names, page.more) == expected, "{request:?}");
        let Some(last) = page.items.last().filter(|_| page.more) else {
            return Ok(());
        };
        request.after = Some(Bytes::copy_from_slice(last.name()));
    }
    Ok(())
}

pub(crate) async fn a_page_of_prefixes_reads_few_rows(place: &Place) -> Result<()> {
    let store = place.open("f_", |_| {});
    store.put_bytes(&key("a/first"), "x").await?;
    // Ten thousand further keys under one prefix, written beside the store.
    for block in 0..10 {
        let rows: Vec<String> = (0..1000)
            .map(|row| {
                let hex = format!("622f{:08x}", block * 1000 + row);
                let name = match &place.running {
                    crate::place::Running::Postgresql(_) => format!("'\\x{hex}'"),
                    _ => format!("x'{hex}'"),
                };
                format!("({name}, 1, 0, 0, 'e', '{{\"chunk\":1}}', '{{}}')")
            })
            .collect();
        place.sql(&format!(
            "INSERT INTO f_objects (name, generation, size, modified, etag, record, tags) \
             VALUES {}",
            rows.join(",")
        ))?;
    }
    store.put_bytes(&key("c"), "x").await?;
    let request = ListRequest {
        delimiter: Some(Bytes::from_static(b"/")),
        limit: 1000,
        ..ListRequest::default()
    };
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        let page = store.list(request.clone()).await?;
        let names: Vec<&[u8]> = page.items.iter().map(ListItem::name).collect();
        ensure!(names == [&b"a/"[..], b"b/", b"c"], "{names:?}");
    }
    ensure!(begun.elapsed().as_secs() < 10, "every key was read");
    Ok(())
}
