//! Many keys in one request, and what is asked of the whole store. Invariant: an answer about many
//! keys is complete or an error.

use super::{
    BTreeSet, KeyedOperation, KvStore, KvStoreExt, Need, Operation, Outcome, Result, ScanRequest,
    ensure, expect_refusal,
};

pub(super) async fn check(store: &dyn KvStore) -> Result<()> {
    store.flush().await?;
    let keys: Vec<Vec<u8>> = (0..200)
        .map(|number| format!("many {number}").into_bytes())
        .collect();
    let writes: Vec<KeyedOperation<'_>> = keys
        .iter()
        .map(|key| KeyedOperation {
            key,
            operation: Operation::set(key),
        })
        .collect();
    let outcomes = store.apply_each(&writes).await?;
    ensure!(outcomes.len() == keys.len(), "{} outcomes", outcomes.len());
    ensure!(
        outcomes
            .iter()
            .all(|one| matches!(one, Outcome::Stored { .. })),
        "{outcomes:?}"
    );
    let mut asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    asked.insert(3, b"none");
    asked.push(b"many 7");
    let values = store.get_many(&asked).await?;
    ensure!(values.len() == asked.len(), "{} values", values.len());
    for (key, value) in asked.iter().zip(&values) {
        let found = value.as_ref().map(|value| value.data.as_ref());
        let expected = (*key != b"none").then_some(*key);
        ensure!(
            found == expected,
            "{} came as {found:?}",
            key.escape_ascii()
        );
    }
    // The last of several writes of one key holds.
    let twice = [&b"1"[..], b"2", b"3"].map(|data| KeyedOperation {
        key: b"many 0",
        operation: Operation::set(data),
    });
    store.apply_each(&twice).await?;
    super::expect_data(store, "many 0", Some(b"3")).await?;
    listing(store, keys.len()).await?;
    let deleted = store.delete_many(&asked).await?;
    ensure!(deleted == keys.len() as u64, "{deleted} keys were deleted");
    Ok(())
}

async fn listing(store: &dyn KvStore, count: usize) -> Result<()> {
    if !store.capabilities().can(Need::Scan) {
        return refused_listing(store).await;
    }
    ensure!(
        store.key_count().await? == count as u64,
        "it counts {}",
        store.key_count().await?
    );
    for (page, pattern, expected) in [
        (1, None, count),
        (10, Some(&b"many*"[..]), count),
        (1000, Some(b"many [1-3]"), 3),
    ] {
        let mut found = BTreeSet::new();
        let mut request = ScanRequest {
            pattern,
            count: page,
            ..ScanRequest::default()
        };
        loop {
            let page = store.scan(request).await?;
            found.extend(page.keys);
            ensure!(
                i64::try_from(page.cursor).is_ok(),
                "a cursor clients cannot parse"
            );
            request.cursor = page.cursor;
            if page.cursor == 0 {
                break;
            }
        }
        ensure!(
            found.len() == expected,
            "{} keys for {pattern:?}",
            found.len()
        );
    }
    let none = ScanRequest {
        type_name: Some(b"list"),
        count: 1000,
        ..ScanRequest::default()
    };
    ensure!(
        store.scan(none).await?.keys.is_empty(),
        "a string was listed as a list"
    );
    let some = store.random_key(7).await?;
    ensure!(
        some.is_some_and(|key| key.starts_with(b"many ")),
        "no random key"
    );
    for number in 0..20 {
        super::run(store, &format!("prefix*{number}"), Operation::set(b"")).await?;
    }
    super::run(store, "prefixx", Operation::set(b"")).await?;
    ensure!(
        store.delete_prefix(b"prefix*").await? == 20,
        "a prefix is taken literally"
    );
    ensure!(
        store.delete_prefix(b"prefix").await? == 1,
        "the rest of the prefix"
    );
    Ok(())
}

async fn refused_listing(store: &dyn KvStore) -> Result<()> {
    // A composite refuses as soon as the scan reaches the member that cannot list.
    if store.capabilities().composite {
        ensure!(
            store.key_count().await.is_err(),
            "it counts what it cannot list"
        );
        return Ok(());
    }
    expect_refusal(store.key_count().await, "counting")?;
    expect_refusal(store.scan(ScanRequest::default()).await, "listing")?;
    expect_refusal(store.random_key(1).await, "a random key")
}
