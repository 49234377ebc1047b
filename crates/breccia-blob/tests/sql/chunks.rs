//! Objects of one chunk, of several, and damaged ones.

use anyhow::{Result, ensure};
use breccia_blob::sql::CHUNK;
use breccia_blob::store::{BlobStoreExt, GetOptions, PutOptions, Span};
use breccia_blob::{BlobError, BlobStore, Body};

use crate::place::{Place, Running, key, pattern};

async fn read(store: &dyn BlobStore, name: &str, span: Span) -> Result<Vec<u8>> {
    let options = GetOptions {
        span: Some(span),
        ..GetOptions::default()
    };
    let opened = store.get(&key(name), options).await?;
    let size = opened.range.end - opened.range.start;
    Ok(Body::new(opened.source, size).collect().await?.to_vec())
}

pub(crate) async fn sizes_around_chunks_come_back_whole_and_in_ranges(place: &Place) -> Result<()> {
    let store = place.store();
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17];
    for (seed, size) in sizes.into_iter().enumerate() {
        let bytes = pattern(size, u32::try_from(seed)?);
        let name = format!("size/{size}");
        store.put_bytes(&key(&name), bytes.clone()).await?;
        let (meta, got) = store.get_bytes(&key(&name)).await?;
        ensure!(meta.size == size as u64 && got == bytes, "{size} bytes");
        let borders = [
            0,
            1,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            2 * CHUNK - 1,
            2 * CHUNK,
            size,
        ];
        for from in borders.into_iter().filter(|from| *from < size) {
            for to in borders.into_iter().filter(|to| (from..size).contains(to)) {
                let span = Span::Between(from as u64, to as u64);
                let got = read(&*store, &name, span).await?;
                ensure!(got == bytes[from..=to], "{size} bytes: {from} to {to}");
            }
        }
        if size > 0 {
            let got = read(&*store, &name, Span::Last(5)).await?;
            ensure!(
                got == bytes[size.saturating_sub(5)..],
                "{size} bytes: the last"
            );
        }
    }
    Ok(())
}

pub(crate) async fn a_damaged_or_missing_chunk_is_told(place: &Place) -> Result<()> {
    let store = place.open("d_", |_| {});
    let check = async |name: &str, size: usize, sql: &str| -> Result<()> {
        store.put_bytes(&key(name), pattern(size, 1)).await?;
        place.sql(sql)?;
        let got = store.get_bytes(&key(name)).await;
        ensure!(
            matches!(got, Err(BlobError::Damaged { .. })),
            "{name}: {:?}",
            got.map(|(meta, bytes)| (meta, bytes.len()))
        );
        store
            .put(&key(name), Body::from_bytes("x"), PutOptions::default())
            .await?;
        place.sql("DELETE FROM d_chunks")?;
        Ok(())
    };
    let other = match place.running {
        Running::Postgresql(_) => "'\\x0102'",
        Running::Mysql(_) | Running::Sqlite(_) => "x'0102'",
    };
    let short = format!("UPDATE d_chunks SET data = {other} WHERE sequence = 1");
    check("short", 2 * CHUNK, &short).await?;
    let bits = format!("UPDATE d_chunks SET data = {other}");
    check("bits", 2, &bits).await?;
    check("gone", 2 * CHUNK, "DELETE FROM d_chunks WHERE sequence = 1").await?;
    check("all-gone", 5, "DELETE FROM d_chunks").await?;
    Ok(())
}
