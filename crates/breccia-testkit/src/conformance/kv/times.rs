//! Expiry. The checks wait a few seconds, all at once. Invariant: an entry is never gone early, and
//! never seen late by more than its store's clock ticks.

use super::{
    Condition, Context, Duration, Expiry, ExpiryCondition, KvStore, KvStoreExt, Lifetime, Need,
    Operation, Outcome, Result, StoreKind, TimeUnit, ensure, expect, expect_data, expect_refusal,
    has, run,
};

pub(super) async fn check(store: &dyn KvStore) -> Result<()> {
    let (ending, kept) = tokio::join!(ending(store), kept(store));
    ending.context("entries that end")?;
    kept.context("times that are kept")?;
    changes(store).await.context("changes of the time")?;
    if store.capabilities().can(Need::Milliseconds) {
        milliseconds(store).await.context("milliseconds")
    } else if has(store, StoreKind::Memcached) && store.capabilities().leaves.len() == 1 {
        refused_milliseconds(store)
            .await
            .context("refused milliseconds")
    } else {
        Ok(())
    }
}

fn set(data: &[u8], expiry: Expiry) -> Operation<'_> {
    Operation::Set {
        data,
        flags: 0,
        condition: Condition::Always,
        expiry,
        want_old: false,
    }
}

fn expire(expiry: Expiry, condition: ExpiryCondition) -> Operation<'static> {
    Operation::Expire { expiry, condition }
}

async fn ending(store: &dyn KvStore) -> Result<()> {
    let soon = expire(Expiry::After(2000), ExpiryCondition::Always);
    run(store, "ends", set(b"v", Expiry::After(2000))).await?;
    run(store, "ends too", Operation::set(b"v")).await?;
    expect(store, "ends too", soon, Outcome::Flag(true)).await?;
    store
        .increment(b"ends with count", 3, Some(Duration::from_secs(2)))
        .await?;
    run(store, "stays", set(b"v", Expiry::After(2000))).await?;
    run(store, "stays", Operation::set(b"w")).await?;
    expect_data(store, "ends", Some(b"v")).await?;
    tokio::time::sleep(Duration::from_millis(3200)).await;
    for key in ["ends", "ends too", "ends with count"] {
        expect_data(store, key, None).await?;
        ensure!(!store.exists(key.as_bytes()).await?, "{key} still exists");
    }
    expect_data(store, "stays", Some(b"w")).await?;
    ensure!(
        store.increment(b"ends with count", 1, None).await? == 1,
        "a counter begins anew"
    );
    expect(store, "never was", soon, Outcome::Flag(false)).await?;
    for past in [Expiry::At(1000), Expiry::At(0)] {
        run(store, "past", Operation::set(b"v")).await?;
        expect(
            store,
            "past",
            expire(past, ExpiryCondition::Always),
            Outcome::Flag(true),
        )
        .await?;
        expect_data(store, "past", None).await?;
        run(store, "past", set(b"v", past)).await?;
        expect_data(store, "past", None).await?;
    }
    Ok(())
}

/// Edits keep the time of expiry, however often they are done.
async fn kept(store: &dyn KvStore) -> Result<()> {
    let key = "kept";
    run(store, key, set(b"100", Expiry::After(4000))).await?;
    let edits = [
        Operation::Increment { delta: 1 },
        Operation::Increment { delta: -95 },
        Operation::Append {
            data: b"0",
            condition: Condition::Always,
        },
        Operation::SetRange {
            offset: 0,
            data: b"9",
        },
        Operation::IncrementFloat { delta: b"0.5" },
        set(b"100", Expiry::Keep),
    ];
    for _ in 0..25 {
        for edit in edits {
            run(store, key, edit).await?;
        }
        ensure!(store.exists(key.as_bytes()).await?, "it ended early");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let left = store.time_to_live(key.as_bytes()).await?;
    ensure!(
        matches!(left, Lifetime::Ms(ms) if ms <= 3000),
        "{left:?} is left"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    expect_data(store, key, None).await
}

async fn changes(store: &dyn KvStore) -> Result<()> {
    use ExpiryCondition as If;
    let key = "changes";
    let about = async |seconds: u64| -> Result<()> {
        match store.time_to_live(key.as_bytes()).await? {
            Lifetime::Ms(ms) if (ms / 1000).abs_diff(seconds) <= 1 => Ok(()),
            other => anyhow::bail!("{other:?} is left, not about {seconds} s"),
        }
    };
    run(store, key, Operation::set(b"v")).await?;
    ensure!(
        store.time_to_live(key.as_bytes()).await? == Lifetime::Forever,
        "it ends"
    );
    ensure!(
        store.time_to_live(b"missing").await? == Lifetime::Missing,
        "it is there"
    );
    let after = |seconds: u64| Expiry::After(seconds * 1000);
    let rows = [
        (Operation::Persist, false),
        (expire(after(100), If::IfSome), false),
        (expire(after(100), If::IfLater), false),
        (expire(after(100), If::IfNone), true),
        (expire(after(200), If::IfNone), false),
        (expire(after(200), If::IfSooner), false),
        (expire(after(50), If::IfSooner), true),
        (expire(after(60), If::IfSomeAndSooner), false),
        (expire(after(300), If::IfLater), true),
        (expire(after(400), If::IfSome), true),
    ];
    for (operation, changed) in rows {
        expect(store, key, operation, Outcome::Flag(changed)).await?;
    }
    about(400).await?;
    let read = run(store, key, Operation::GetAndExpire { expiry: after(100) }).await?;
    ensure!(
        matches!(&read, Outcome::Value(Some(value)) if value.data == "v"),
        "{read:?}"
    );
    about(100).await?;
    // Beyond thirty days memcached counts differently.
    run(store, key, expire(after(40 * 86_400), If::Always)).await?;
    about(40 * 86_400).await?;
    run(store, key, set(b"w", after(40 * 86_400))).await?;
    about(40 * 86_400).await?;
    expect(store, key, Operation::Persist, Outcome::Flag(true)).await?;
    ensure!(
        store.time_to_live(key.as_bytes()).await? == Lifetime::Forever,
        "it still ends"
    );
    let none = run(
        store,
        "missing",
        Operation::GetAndExpire {
            expiry: Expiry::Never,
        },
    )
    .await?;
    ensure!(none == Outcome::Value(None), "{none:?}");
    Ok(())
}

async fn milliseconds(store: &dyn KvStore) -> Result<()> {
    let key = "brief";
    run(store, key, set(b"v", Expiry::After(150))).await?;
    let left = run(
        store,
        key,
        Operation::TimeToLive {
            unit: TimeUnit::Milliseconds,
        },
    )
    .await?;
    ensure!(
        matches!(left, Outcome::Lifetime(Lifetime::Ms(1..=150))),
        "{left:?} is left"
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    expect_data(store, key, None).await?;
    let at = 33_177_117_420_123;
    run(store, key, set(b"v", Expiry::At(at))).await?;
    let unit = TimeUnit::Milliseconds;
    expect(
        store,
        key,
        Operation::ExpiresAt { unit },
        Outcome::Lifetime(Lifetime::Ms(at)),
    )
    .await
}

async fn refused_milliseconds(store: &dyn KvStore) -> Result<()> {
    let key = b"brief";
    store.delete(key).await?;
    let answer = store.apply_one(key, set(b"v", Expiry::After(1500))).await;
    expect_refusal(answer, "an expiry of 1500 ms")?;
    ensure!(!store.exists(key).await?, "what was refused was done");
    store.apply_one(key, Operation::set(b"v")).await?;
    let unit = TimeUnit::Milliseconds;
    let answer = store.apply_one(key, Operation::TimeToLive { unit }).await;
    expect_refusal(answer, "a time left in milliseconds")
}
