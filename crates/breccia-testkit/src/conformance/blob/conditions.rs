//! Conditions: exact where they are offered, refused where they are not.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use breccia_blob::body::Body;
use breccia_blob::condition::{ConditionalCall, ETagSet, ReadConditions, Support, WriteCondition};
use breccia_blob::error::BlobError;
use breccia_blob::meta::ETag;
use breccia_blob::store::{BlobStore, BlobStoreExt, GetOptions, PutOptions};

use super::{expect_absent, expect_bytes, expect_error, key, pattern};

/// How many write at once in a race.
const RACERS: u8 = 40;

pub(super) async fn check(store: &Arc<dyn BlobStore>) -> Result<()> {
    reads(&**store).await.context("reads")?;
    let offered = store.probe_conditional().await.context("probe")?;
    ensure!(
        offered == store.conditional(),
        "what was probed is remembered"
    );
    for call in [ConditionalCall::PutIfAbsent, ConditionalCall::PutIfMatch] {
        ensure!(
            offered.of(call) != Support::Unprobed,
            "{} is still open",
            call.name()
        );
    }
    if_absent(store, offered.of(ConditionalCall::PutIfAbsent))
        .await
        .context("if absent")?;
    if_match(&**store, offered.of(ConditionalCall::PutIfMatch))
        .await
        .context("if match")?;
    deletes(&**store, offered.of(ConditionalCall::DeleteIfMatch))
        .await
        .context("delete")
}

fn only(etag: &ETag) -> ETagSet {
    ETagSet::OneOf(vec![etag.clone()])
}

fn is_failed(error: &BlobError) -> bool {
    matches!(error, BlobError::PreconditionFailed)
}

async fn reads(store: &dyn BlobStore) -> Result<()> {
    let key = key("read-conditions");
    let etag = store.put_bytes(&key, "x").await?.etag;
    let other = ETag::from_text("0".repeat(32));
    let get = async |conditions: ReadConditions| {
        let options = GetOptions {
            conditions,
            ..GetOptions::default()
        };
        store.get(&key, options).await
    };
    let none = ReadConditions::default;
    let good = [
        ReadConditions {
            if_match: Some(only(&etag)),
            ..none()
        },
        ReadConditions {
            if_match: Some(ETagSet::Any),
            ..none()
        },
        ReadConditions {
            if_none_match: Some(only(&other)),
            ..none()
        },
        ReadConditions {
            if_modified_since: Some(1_000_000),
            ..none()
        },
        ReadConditions {
            if_unmodified_since: Some(9_000_000_000),
            ..none()
        },
    ];
    for conditions in good {
        get(conditions.clone())
            .await
            .with_context(|| format!("{conditions:?}"))?;
    }
    let unmodified = [
        ReadConditions {
            if_none_match: Some(only(&etag)),
            ..none()
        },
        ReadConditions {
            if_none_match: Some(ETagSet::Any),
            ..none()
        },
        ReadConditions {
            if_modified_since: Some(9_000_000_000),
            ..none()
        },
    ];
    for conditions in unmodified {
        let what = format!("{conditions:?}");
        expect_error(get(conditions).await, &what, |error| {
            matches!(error, BlobError::NotModified { .. })
        })?;
    }
    let failed = [
        ReadConditions {
            if_match: Some(only(&other)),
            ..none()
        },
        ReadConditions {
            if_unmodified_since: Some(1_000_000),
            ..none()
        },
    ];
    for conditions in failed {
        let what = format!("{conditions:?}");
        expect_error(get(conditions).await, &what, is_failed)?;
    }
    Ok(())
}

fn put_options(condition: WriteCondition) -> PutOptions {
    PutOptions {
        condition,
        ..PutOptions::default()
    }
}

async fn if_absent(store: &Arc<dyn BlobStore>, support: Support) -> Result<()> {
    let put = async |name: &str, bytes: &'static str| {
        let options = put_options(WriteCondition::IfAbsent);
        store
            .put(&key(name), Body::from_bytes(bytes), options)
            .await
    };
    if support == Support::No {
        let refused = |error: &BlobError| matches!(error, BlobError::ConditionUnsupported { .. });
        expect_error(
            put("absent", "x").await,
            "a call that is not offered",
            refused,
        )?;
        return expect_absent(&**store, &key("absent")).await;
    }
    put("absent", "first").await?;
    expect_error(put("absent", "second").await, "there is one", is_failed)?;
    expect_bytes(&**store, &key("absent"), b"first").await?;
    for (name, size) in [("race/small", 1024), ("race/large", 1_500_000)] {
        race(store, name, size)
            .await
            .with_context(|| name.to_owned())?;
    }
    Ok(())
}

async fn race(store: &Arc<dyn BlobStore>, name: &str, size: usize) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, key) = (Arc::clone(store), key(name));
        tasks.spawn(async move {
            let body = Body::from_bytes(pattern(size, racer));
            let options = put_options(WriteCondition::IfAbsent);
            (racer, store.put(&key, body, options).await)
        });
    }
    let mut winners = Vec::new();
    for (racer, answer) in tasks.join_all().await {
        match answer {
            Ok(_) => winners.push(racer),
            Err(BlobError::PreconditionFailed | BlobError::Conflict { .. }) => {}
            Err(error) => return Err(error).context("a racer"),
        }
    }
    ensure!(
        winners.len() == 1,
        "there are {} winners: {winners:?}",
        winners.len()
    );
    let winner = winners.first().copied().unwrap_or_default();
    expect_bytes(&**store, &key(name), &pattern(size, winner)).await
}

async fn if_match(store: &dyn BlobStore, support: Support) -> Result<()> {
    let key = key("match");
    let put = async |bytes: &'static str, tags: ETagSet| {
        let options = put_options(WriteCondition::IfMatch(tags));
        store.put(&key, Body::from_bytes(bytes), options).await
    };
    let first = store.put_bytes(&key, "first").await?.etag;
    if support == Support::No {
        let refused = |error: &BlobError| matches!(error, BlobError::ConditionUnsupported { .. });
        expect_error(
            put("x", only(&first)).await,
            "a call that is not offered",
            refused,
        )?;
        return expect_bytes(store, &key, b"first").await;
    }
    let second = put("second", only(&first)).await?.etag;
    expect_error(put("third", only(&first)).await, "an old tag", is_failed)?;
    expect_bytes(store, &key, b"second").await?;
    put("fourth", only(&second)).await?;
    expect_bytes(store, &key, b"fourth").await?;
    store.delete(&key, WriteCondition::Always).await?;
    expect_error(
        put("fifth", only(&second)).await,
        "nothing to match",
        |error| matches!(error, BlobError::NotFound | BlobError::PreconditionFailed),
    )?;
    expect_absent(store, &key).await
}

async fn deletes(store: &dyn BlobStore, support: Support) -> Result<()> {
    let key = key("delete-if");
    let etag = store.put_bytes(&key, "x").await?.etag;
    let other = ETag::from_text("0".repeat(32));
    let delete = async |etag: &ETag| {
        let condition = WriteCondition::IfMatch(only(etag));
        store.delete(&key, condition).await
    };
    if support != Support::Yes {
        ensure!(
            delete(&etag).await.is_err(),
            "a call that is not offered is refused"
        );
        return expect_bytes(store, &key, b"x").await;
    }
    expect_error(delete(&other).await, "another tag", is_failed)?;
    expect_bytes(store, &key, b"x").await?;
    delete(&etag).await?;
    expect_absent(store, &key).await
}
