//! Many at once, through two gateways.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_blob::condition::{ETagSet, WriteCondition};
use breccia_blob::store::{BlobStoreExt, PutOptions};
use breccia_blob::{BlobError, BlobStore, Body};

use crate::place::{Place, key, pattern};

const RACERS: u32 = 100;

fn only(condition: WriteCondition) -> PutOptions {
    PutOptions {
        condition,
        ..PutOptions::default()
    }
}

pub(crate) async fn one_of_a_hundred_creates(place: &Place) -> Result<()> {
    let stores = [place.open("r_", |_| {}), place.open("r_", |_| {})];
    for (round, size) in [1000_usize, 300_000].into_iter().enumerate() {
        let name = key(&format!("race/{round}"));
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let store = stores[racer as usize % 2].clone();
                let name = name.clone();
                tokio::spawn(async move {
                    let body = Body::from_bytes(pattern(size, racer));
                    store.put(&name, body, only(WriteCondition::IfAbsent)).await
                })
            })
            .collect();
        let mut winner = None;
        for (racer, task) in racers.into_iter().enumerate() {
            match task.await? {
                Ok(_) => {
                    ensure!(winner.is_none(), "two winners");
                    winner = Some(racer);
                }
                Err(BlobError::PreconditionFailed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (_, bytes) = stores[0].get_bytes(&name).await?;
        let winner = winner.map(u32::try_from).transpose()?;
        ensure!(
            winner.is_some_and(|winner| bytes == pattern(size, winner)),
            "{winner:?} won, but its bytes are not there"
        );
    }
    Ok(())
}

/// A counter in an object, raised by compare-and-swap.
pub(crate) async fn every_replacement_is_of_what_was_seen(place: &Place) -> Result<()> {
    let stores = [place.open("r_", |_| {}), place.open("r_", |_| {})];
    let name = key("counter");
    stores[0].put_bytes(&name, "0").await?;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = stores[task % 2].clone();
            let name = name.clone();
            tokio::spawn(async move {
                let mut raised = 0;
                while raised < 5 {
                    let (meta, bytes) = store.get_bytes(&name).await?;
                    let number: u32 = std::str::from_utf8(&bytes)?.parse()?;
                    let seen = WriteCondition::IfMatch(ETagSet::OneOf(vec![meta.etag]));
                    let body = Body::from_bytes((number + 1).to_string());
                    match store.put(&name, body, only(seen)).await {
                        Ok(_) => raised += 1,
                        Err(BlobError::PreconditionFailed | BlobError::Conflict { .. }) => {}
                        Err(error) => return Err(anyhow::Error::from(error)),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let (_, bytes) = stores[0].get_bytes(&name).await?;
    ensure!(bytes == "40", "{bytes:?}");
    Ok(())
}

pub(crate) async fn dropped_requests_leave_no_dirty_connection(place: &Place) -> Result<()> {
    let store = place.open("c_", |options| options.max_connections = 3);
    let old = pattern(20_000, 0);
    store.put_bytes(&key("k"), old.clone()).await?;
    for round in 0..60_u32 {
        let name = key("k");
        let limit = Duration::from_micros(u64::from(round) * 100);
        let bytes = pattern(20_000, round);
        let put = store.put_bytes(&name, bytes);
        let _cut = tokio::time::timeout(limit, put).await;
        let read = store.get_bytes(&name);
        let _cut = tokio::time::timeout(limit, read).await;
        let there = store.get_bytes(&name).await?.1;
        let whole = (0..=round).any(|round| there == pattern(20_000, round));
        ensure!(whole, "something else is there in round {round}");
    }
    Ok(())
}
