//! How generations live and end.

use anyhow::{Result, bail, ensure};
use breccia_blob::condition::WriteCondition;
use breccia_blob::sql::CHUNK;
use breccia_blob::store::{BlobStoreExt, GetOptions, PutOptions};
use breccia_blob::upload::{CompleteOptions, MIN_PART_BYTES, PartChoice, UploadOptions};
use breccia_blob::{BlobError, BlobStore, Body};

use crate::place::{Place, Told, key, pattern};

pub(crate) async fn two_gateways_make_the_tables_at_once(place: &Place) -> Result<()> {
    for round in 0..3 {
        let prefix = format!("race{round}_");
        let stores: Vec<_> = (0..6).map(|_| place.open(&prefix, |_| {})).collect();
        let name = key("k");
        let puts = stores.iter().map(|store| store.put_bytes(&name, "content"));
        for put in futures_util::future::join_all(puts).await {
            put?;
        }
    }
    Ok(())
}

pub(crate) async fn a_reader_of_an_overwritten_object_reads_it_to_the_end(
    place: &Place,
) -> Result<()> {
    let store = place.open("o_", |_| {});
    let old = pattern(4 * CHUNK + 5, 1);
    store.put_bytes(&key("k"), old.clone()).await?;
    let opened = store.get(&key("k"), GetOptions::default()).await?;
    let mut body = Body::new(opened.source, opened.meta.size);
    let mut got = match body.next().await {
        Some(first) => first?.to_vec(),
        None => bail!("nothing came"),
    };
    store.put_bytes(&key("k"), pattern(3 * CHUNK, 2)).await?;
    store.maintain(0).await?;
    while let Some(piece) = body.next().await {
        got.extend_from_slice(&piece?);
    }
    ensure!(got == old, "the reader got something else");
    let (_, new) = store.get_bytes(&key("k")).await?;
    ensure!(new == pattern(3 * CHUNK, 2), "the new object is not there");
    // Once the grace has passed, the rest of a very slow reader is refused, not made up.
    let opened = store.get(&key("k"), GetOptions::default()).await?;
    let mut late = Body::new(opened.source, opened.meta.size);
    let _first = late.next().await;
    store.delete(&key("k"), WriteCondition::Always).await?;
    place.impatient("o_").maintain(0).await?;
    let next = late.next().await;
    ensure!(
        matches!(next, Some(Err(BlobError::Damaged { .. }))),
        "{next:?}"
    );
    Ok(())
}

fn expect_no_leftovers(place: &Place, prefix: &str) -> Result<()> {
    for table in [
        "chunks", "garbage", "pending", "objects", "uploads", "parts",
    ] {
        let count = place.count(&format!("{prefix}{table}"))?;
        ensure!(count == 0, "{count} rows are left in {table}");
    }
    Ok(())
}

pub(crate) async fn what_nobody_may_read_is_swept(place: &Place) -> Result<()> {
    let patient = place.open("s_", |_| {});
    for round in 0..3 {
        patient
            .put_bytes(&key("large"), pattern(70 * CHUNK, round))
            .await?;
        patient.put_bytes(&key("small"), pattern(5, round)).await?;
    }
    patient.put_bytes(&key("empty"), "").await?;
    for name in ["large", "small", "empty"] {
        let there = patient.delete(&key(name), WriteCondition::Always).await?;
        ensure!(there, "{name} was there");
    }
    ensure!(patient.maintain(0).await?.leftovers == 0, "too early");
    ensure!(place.count("s_chunks")? == 213, "chunks went too early");
    let swept = place.impatient("s_").maintain(0).await?;
    ensure!(swept.leftovers == 7, "{swept:?}");
    expect_no_leftovers(place, "s_")
}

pub(crate) async fn a_dropped_put_is_swept_and_a_slow_one_is_refused(place: &Place) -> Result<()> {
    let store = place.impatient("p_");
    store.head(&key("k")).await.err();
    let size = 4 * CHUNK;
    let bytes = pattern(size, 3);
    for dropped in [true, false] {
        let (sender, source) = Told::new();
        let name = key("k");
        let body = Body::new(Box::new(source), size as u64);
        let mut put = store.put(&name, body, PutOptions::default());
        sender.send(bytes.slice(..2 * CHUNK)).await?;
        tokio::select! {
            done = &mut put => bail!("the put has ended: {done:?}"),
            waited = place.wait_for("p_chunks", 2) => waited?,
        }
        ensure!(place.count("p_pending")? == 1, "no sign of life");
        if dropped {
            drop(put);
            store.maintain(0).await?;
        } else {
            store.maintain(0).await?;
            sender.send(bytes.slice(2 * CHUNK..)).await?;
            drop(sender);
            let done = put.await;
            ensure!(matches!(done, Err(BlobError::Timeout { .. })), "{done:?}");
        }
        let there = store.head(&name).await;
        ensure!(matches!(there, Err(BlobError::NotFound)), "{there:?}");
        store.maintain(0).await?;
        expect_no_leftovers(place, "p_")?;
    }
    // A body that is wrong at its end: gone with the next sweep, however long the grace.
    let patient = place.open("p_", |_| {});
    let body = Body::from_bytes(bytes).expect_md5([0; 16]);
    let done = patient.put(&key("k"), body, PutOptions::default()).await;
    ensure!(matches!(done, Err(BlobError::Body { .. })), "{done:?}");
    patient.maintain(0).await?;
    expect_no_leftovers(place, "p_")
}

pub(crate) async fn parts_that_are_not_chosen_are_swept(place: &Place) -> Result<()> {
    let store = place.impatient("u_");
    let name = key("k");
    let upload = store.create_upload(&name, UploadOptions::default()).await?;
    let large = usize::try_from(MIN_PART_BYTES)? + 3;
    let mut choices = Vec::new();
    let mut whole = Vec::new();
    for (number, size) in [(2, large), (5, 10), (7, 10), (2, large)] {
        let bytes = pattern(size, u32::from(number));
        let body = Body::from_bytes(bytes.clone());
        let part = store.put_part(&name, &upload, number, body).await?;
        if number != 7 {
            choices.push(PartChoice {
                number,
                etag: part.etag,
                checksum: None,
            });
            whole.push(bytes);
        }
    }
    let (choices, whole) = (choices.split_off(1), whole.split_off(1));
    let choices = choices.into_iter().rev().collect();
    let expected = [whole[1].clone(), whole[0].clone()].concat();
    let options = CompleteOptions::default();
    store
        .complete_upload(&name, &upload, choices, options)
        .await?;
    store.maintain(0).await?;
    let chunks = expected.len().div_ceil(CHUNK) + 1;
    let there = place.count("u_chunks")?;
    ensure!(there <= chunks as u64, "{there} chunks are left");
    let (meta, bytes) = store.get_bytes(&name).await?;
    ensure!(bytes == expected && meta.parts.len() == 2, "{meta:?}");
    let late = store
        .put_part(&name, &upload, 1, Body::from_bytes("x"))
        .await;
    ensure!(matches!(late, Err(BlobError::NoSuchUpload)), "{late:?}");
    store.delete(&name, WriteCondition::Always).await?;
    let other = store.create_upload(&name, UploadOptions::default()).await?;
    store
        .put_part(&name, &other, 1, Body::from_bytes("x"))
        .await?;
    let swept = store.maintain(u64::MAX).await?;
    ensure!(swept.uploads == 1, "{swept:?}");
    expect_no_leftovers(place, "u_")
}

pub(crate) async fn a_newer_schema_is_refused(place: &Place) -> Result<()> {
    place.open("n_", |_| {}).head(&key("k")).await.err();
    place.sql("UPDATE n_meta SET value = 2")?;
    let refused = place.open("n_", |_| {}).head(&key("k")).await;
    match refused {
        Err(BlobError::NotUsed { reason, .. }) if reason.contains("version 2") => Ok(()),
        other => bail!("{other:?}"),
    }
}
