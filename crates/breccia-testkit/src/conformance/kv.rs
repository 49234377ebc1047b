//! What every in-memory store and every composite of them must do.
//!
//! The checks use keys of their own and flush the store first. Invariant: what a store refuses, it
//! refuses with the right error, and leaves everything as it was.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_core::error::Effect;
use breccia_kv::entry::{
    Condition, Expiry, ExpiryCondition, Lifetime, Operation, Outcome, Refusal, TimeUnit,
};
use breccia_kv::error::KvError;
use breccia_kv::store::{
    KeyedOperation, KvStore, KvStoreExt, Need, ScanRequest, SetOptions, StoreKind,
};

mod edits;
mod many;
mod times;

/// Runs all checks against a store, which is flushed.
pub async fn kv_conformance(store: &dyn KvStore) -> Result<()> {
    store.flush().await.context("flush")?;
    values(store).await.context("values")?;
    conditions(store).await.context("conditions")?;
    flags_and_tokens(store).await.context("flags and tokens")?;
    edits::check(store).await.context("edits")?;
    many::check(store).await.context("many keys")?;
    locks(store).await.context("locks")?;
    times::check(store).await.context("times")?;
    limits(store).await.context("limits")?;
    store.flush().await.context("flush")?;
    ensure!(
        store.get(b"value").await?.is_none(),
        "a flushed store holds nothing"
    );
    Ok(())
}

/// One operation's outcome.
async fn run(store: &dyn KvStore, key: &str, operation: Operation<'_>) -> Result<Outcome> {
    store
        .apply_one(key.as_bytes(), operation)
        .await
        .with_context(|| format!("{key}: {operation:?}"))
}

/// One operation, and what it must answer.
async fn expect(
    store: &dyn KvStore,
    key: &str,
    operation: Operation<'_>,
    expected: Outcome,
) -> Result<()> {
    let found = run(store, key, operation).await?;
    ensure!(
        found == expected,
        "{key}: {operation:?} answered {found:?}, not {expected:?}"
    );
    Ok(())
}

/// A key's value.
async fn data(store: &dyn KvStore, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(store
        .get(key.as_bytes())
        .await?
        .map(|value| value.data.to_vec()))
}

async fn expect_data(store: &dyn KvStore, key: &str, expected: Option<&[u8]>) -> Result<()> {
    let found = data(store, key).await?;
    let shown = |data: Option<&[u8]>| data.map(|data| data.escape_ascii().to_string());
    ensure!(
        found.as_deref() == expected,
        "{key} is {:?}, not {:?}",
        shown(found.as_deref()),
        shown(expected)
    );
    Ok(())
}

/// A refusal must say that nothing was done.
fn expect_refusal<T: std::fmt::Debug>(answer: Result<T, KvError>, what: &str) -> Result<()> {
    match answer {
        Err(
            error @ (KvError::Unsupported { .. }
            | KvError::KeyTooLong { .. }
            | KvError::ValueTooLarge { .. }),
        ) => {
            ensure!(error.effect() == Effect::NotApplied, "{what}: {error}");
            Ok(())
        }
        other => anyhow::bail!("{what} must be refused, but: {other:?}"),
    }
}

fn has(store: &dyn KvStore, kind: StoreKind) -> bool {
    store
        .capabilities()
        .leaves
        .iter()
        .any(|leaf| leaf.kind == kind)
}

async fn values(store: &dyn KvStore) -> Result<()> {
    let all: Vec<u8> = (0..=255).collect();
    let long = "x".repeat(187);
    for key in [
        &b"value"[..],
        b"\x00\r\n \xff",
        long.as_bytes(),
        "schlüssel".as_bytes(),
        b" ",
    ] {
        let name = key.escape_ascii().to_string();
        for value in [
            &b""[..],
            b"plain",
            &all,
            b"VALUE x 0 1\r\nEND\r\n",
            &vec![b'v'; 100_000],
        ] {
            ensure!(
                store.set(key, value, SetOptions::default()).await?,
                "{name} was not set"
            );
            let found = store
                .get(key)
                .await?
                .with_context(|| format!("{name} is missing"))?;
            ensure!(found.data == value, "{name} came back changed");
        }
        ensure!(store.exists(key).await?, "{name} does not exist");
        ensure!(store.delete(key).await?, "{name} was not deleted");
        ensure!(!store.delete(key).await?, "{name} was deleted twice");
        ensure!(!store.exists(key).await?, "{name} still exists");
        ensure!(store.get(key).await?.is_none(), "{name} is still there");
    }
    expect(store, "value", Operation::Length, Outcome::Length(0)).await?;
    expect(store, "value", Operation::Type, Outcome::Type(None)).await?;
    expect(store, "value", Operation::Touch, Outcome::Flag(false)).await?;
    run(store, "value", Operation::set(b"abc")).await?;
    expect(store, "value", Operation::Length, Outcome::Length(3)).await?;
    expect(
        store,
        "value",
        Operation::Type,
        Outcome::Type(Some("string".into())),
    )
    .await?;
    expect(store, "value", Operation::Touch, Outcome::Flag(true)).await
}

fn set<'a>(data: &'a [u8], condition: Condition<'a>, want_old: bool) -> Operation<'a> {
    Operation::Set {
        data,
        flags: 0,
        condition,
        expiry: Expiry::Never,
        want_old,
    }
}

const ABSENT: Outcome = Outcome::NotStored {
    found: false,
    old: None,
};
const PRESENT: Outcome = Outcome::NotStored {
    found: true,
    old: None,
};

/// A write that must happen; the value found.
async fn expect_stored(
    store: &dyn KvStore,
    key: &str,
    operation: Operation<'_>,
) -> Result<Option<Vec<u8>>> {
    match run(store, key, operation).await? {
        Outcome::Stored { old, .. } => Ok(old.map(|old| old.to_vec())),
        other => anyhow::bail!("{key}: {operation:?} answered {other:?}"),
    }
}

async fn conditions(store: &dyn KvStore) -> Result<()> {
    let key = "condition";
    let (present, absent) = (Condition::IfPresent, Condition::IfAbsent);
    let equals = Condition::IfEquals;
    expect(store, key, set(b"1", present, false), ABSENT).await?;
    expect(store, key, set(b"1", equals(b""), false), ABSENT).await?;
    expect_stored(store, key, set(b"1", absent, false)).await?;
    expect(store, key, set(b"2", absent, false), PRESENT).await?;
    expect(store, key, set(b"2", equals(b"x"), false), PRESENT).await?;
    expect_data(store, key, Some(b"1")).await?;
    expect_stored(store, key, set(b"2", present, false)).await?;
    expect_stored(store, key, set(b"3", equals(b"2"), false)).await?;
    let old = expect_stored(store, key, set(b"4", Condition::Always, true)).await?;
    ensure!(old.as_deref() == Some(b"3"), "the value found was {old:?}");
    let kept = Outcome::NotStored {
        found: true,
        old: Some("4".into()),
    };
    expect(store, key, set(b"5", absent, true), kept).await?;
    expect_data(store, key, Some(b"4")).await?;
    let delete = |condition, want_old| Operation::Delete {
        condition,
        want_old,
    };
    let kept = Outcome::NotDeleted { found: true };
    expect(store, key, delete(equals(b"3"), false), kept).await?;
    let gone = Outcome::Deleted {
        old: Some("4".into()),
    };
    expect(store, key, delete(Condition::Always, true), gone).await?;
    let missing = Outcome::NotDeleted { found: false };
    expect(store, key, delete(Condition::Always, true), missing).await
}

const FLAGGED: Operation<'static> = Operation::Set {
    data: b"1",
    flags: 4_000_000_000,
    condition: Condition::Always,
    expiry: Expiry::Never,
    want_old: false,
};

async fn flags_and_tokens(store: &dyn KvStore) -> Result<()> {
    if store.capabilities().can(Need::FlagsAndCas) {
        return kept_flags_and_tokens(store).await;
    }
    if !store.capabilities().composite {
        expect_refusal(store.apply_one(b"token", FLAGGED).await, "flags")?;
        let set = set(b"1", Condition::IfCas(1), false);
        expect_refusal(store.apply_one(b"token", set).await, "a token")?;
    }
    Ok(())
}

async fn kept_flags_and_tokens(store: &dyn KvStore) -> Result<()> {
    let key = "token";
    let Outcome::Stored { cas, .. } = run(store, key, FLAGGED).await? else {
        anyhow::bail!("it was not stored");
    };
    let found = store.get(key.as_bytes()).await?.context("missing")?;
    let (flags, token) = (found.flags, found.cas);
    ensure!(flags == 4_000_000_000, "flags came back as {flags}");
    ensure!(token == cas && cas != 0, "token {token} after {cas}");
    let (data, condition) = (&b"0"[..], Condition::IfPresent);
    run(store, key, Operation::Append { data, condition }).await?;
    let after = store.get(key.as_bytes()).await?.context("missing")?;
    ensure!(after.flags == found.flags, "an edit changed the flags");
    ensure!(after.cas != cas, "an edit left the token");
    let set = |cas| set(b"2", Condition::IfCas(cas), false);
    expect(store, key, set(cas), PRESENT).await?;
    let delete = |cas| Operation::Delete {
        condition: Condition::IfCas(cas),
        want_old: false,
    };
    let lost = Outcome::NotDeleted { found: true };
    expect(store, key, delete(cas), lost).await?;
    let won = run(store, key, set(after.cas)).await?;
    let Outcome::Stored { cas, .. } = won else {
        anyhow::bail!("a right token lost: {won:?}")
    };
    expect(store, key, delete(cas), Outcome::Deleted { old: None }).await?;
    expect(store, key, set(cas), ABSENT).await
}

async fn locks(store: &dyn KvStore) -> Result<()> {
    let ttl = Duration::from_mins(1);
    ensure!(
        store.try_lock(b"lock", b"me", ttl).await?,
        "a free lock was refused"
    );
    ensure!(
        !store.try_lock(b"lock", b"you", ttl).await?,
        "a held lock was given"
    );
    ensure!(
        !store.unlock(b"lock", b"you").await?,
        "another owner unlocked"
    );
    ensure!(
        store.unlock(b"lock", b"me").await?,
        "the owner could not unlock"
    );
    ensure!(
        !store.unlock(b"lock", b"me").await?,
        "it was unlocked twice"
    );
    Ok(())
}

/// What servers limit: refused with the reason, and the value that is there stays.
async fn limits(store: &dyn KvStore) -> Result<()> {
    let long = vec![b'k'; 188];
    let large = vec![b'v'; 2 << 20];
    if store
        .capabilities()
        .leaves
        .iter()
        .all(|leaf| leaf.kind == StoreKind::Memcached)
    {
        expect_refusal(store.get(&long).await, "a key of 188 bytes")?;
        run(store, "large", Operation::set(b"small")).await?;
        let answer = store.set(b"large", &large, SetOptions::default()).await;
        expect_refusal(answer, "a value of 2 MiB")?;
        expect_data(store, "large", Some(b"small")).await?;
    } else if !has(store, StoreKind::Memcached) {
        ensure!(
            store.set(&long, &large, SetOptions::default()).await?,
            "a large value"
        );
        let found = store.get(&long).await?.context("missing")?;
        ensure!(found.data == large, "a large value came back changed");
        store.delete(&long).await?;
    }
    Ok(())
}
