//! Counters, texts that grow, and several operations as one. Invariant: concurrent edits of one key
//! are never lost.

use super::{
    Condition, KvStore, KvStoreExt, Operation, Outcome, Refusal, Result, ensure, expect,
    expect_data, run,
};

pub(super) async fn check(store: &dyn KvStore) -> Result<()> {
    integers(store).await?;
    floats(store).await?;
    counters(store).await?;
    texts(store).await?;
    together(store).await?;
    side_by_side(store).await
}

async fn integers(store: &dyn KvStore) -> Result<()> {
    let key = "integer";
    let add = |delta| Operation::Increment { delta };
    let rows = [
        (add(5), Outcome::Integer(5)),
        (add(-12), Outcome::Integer(-7)),
        (add(i64::MIN), Outcome::Refused(Refusal::Overflow)),
        (add(7), Outcome::Integer(0)),
        (add(i64::MIN), Outcome::Integer(i64::MIN)),
        (add(-1), Outcome::Refused(Refusal::Overflow)),
        (add(i64::MAX), Outcome::Integer(-1)),
    ];
    for (operation, expected) in rows {
        expect(store, key, operation, expected).await?;
    }
    expect_data(store, key, Some(b"-1")).await?;
    // From 10 to 9 the text gets shorter: nothing may be left of the longer one.
    run(store, key, Operation::set(b"10")).await?;
    expect(store, key, add(-1), Outcome::Integer(9)).await?;
    expect_data(store, key, Some(b"9")).await?;
    for wrong in ["", "abc", "1.5", " 1", "01", "9223372036854775808"] {
        run(store, key, Operation::set(wrong.as_bytes())).await?;
        expect(store, key, add(1), Outcome::Refused(Refusal::NotInteger)).await?;
        expect_data(store, key, Some(wrong.as_bytes())).await?;
    }
    Ok(())
}

async fn floats(store: &dyn KvStore) -> Result<()> {
    let key = "float";
    let add = |delta| Operation::IncrementFloat { delta };
    let rows = [
        (add(b"0.1"), Outcome::Data("0.1".into())),
        (add(b"0.2"), Outcome::Data("0.3".into())),
        // The noise of an 80-bit float, as Redis shows it.
        (
            add(b"3.0e3"),
            Outcome::Data("3000.30000000000000004".into()),
        ),
        (add(b"abc"), Outcome::Refused(Refusal::NotFloat)),
        (add(b"inf"), Outcome::Refused(Refusal::NotFinite)),
    ];
    for (operation, expected) in rows {
        expect(store, key, operation, expected).await?;
    }
    Ok(())
}

async fn counters(store: &dyn KvStore) -> Result<()> {
    let key = "counter";
    let count = |delta, down| Operation::Count {
        delta,
        down,
        create: None,
    };
    let missing = Outcome::NotStored {
        found: false,
        old: None,
    };
    expect(store, key, count(1, false), missing).await?;
    run(store, key, Operation::set(b"5")).await?;
    expect(store, key, count(7, false), Outcome::Counter(12)).await?;
    expect(store, key, count(100, true), Outcome::Counter(0)).await?;
    expect(
        store,
        key,
        count(u64::MAX, false),
        Outcome::Counter(u64::MAX),
    )
    .await?;
    expect(store, key, count(3, false), Outcome::Counter(2)).await?;
    run(store, key, Operation::set(b"x")).await?;
    expect(
        store,
        key,
        count(1, false),
        Outcome::Refused(Refusal::NotCounter),
    )
    .await
}

async fn texts(store: &dyn KvStore) -> Result<()> {
    let key = "text";
    let append = |data, condition| Operation::Append { data, condition };
    let prepend = |data, condition| Operation::Prepend { data, condition };
    let missing = Outcome::NotStored {
        found: false,
        old: None,
    };
    expect(
        store,
        key,
        append(b"x", Condition::IfPresent),
        missing.clone(),
    )
    .await?;
    expect(store, key, prepend(b"x", Condition::IfPresent), missing).await?;
    expect(
        store,
        key,
        append(b"bc", Condition::Always),
        Outcome::Length(2),
    )
    .await?;
    expect(
        store,
        key,
        append(b"d", Condition::IfPresent),
        Outcome::Length(3),
    )
    .await?;
    expect(
        store,
        key,
        prepend(b"a", Condition::Always),
        Outcome::Length(4),
    )
    .await?;
    expect_data(store, key, Some(b"abcd")).await?;
    let range = |start, end| Operation::GetRange { start, end };
    expect(store, key, range(1, -2), Outcome::Data("bc".into())).await?;
    expect(store, key, range(9, 10), Outcome::Data("".into())).await?;
    expect(store, "no text", range(0, -1), Outcome::Data("".into())).await?;
    let patch = |offset, data| Operation::SetRange { offset, data };
    expect(store, key, patch(2, b"XY"), Outcome::Length(4)).await?;
    expect(store, key, patch(6, b"z"), Outcome::Length(7)).await?;
    expect_data(store, key, Some(b"abXY\0\0z")).await?;
    expect(store, "no text", patch(3, b""), Outcome::Length(0)).await?;
    expect_data(store, "no text", None).await
}

async fn together(store: &dyn KvStore) -> Result<()> {
    let operations = [
        Operation::set(b"1"),
        Operation::Increment { delta: 1 },
        Operation::Append {
            data: b"x",
            condition: Condition::Always,
        },
        Operation::Increment { delta: 1 },
        Operation::Get,
        Operation::delete(),
        Operation::Exists,
    ];
    let outcomes = store.apply(b"together", &operations).await?;
    ensure!(outcomes.len() == operations.len(), "{outcomes:?}");
    let expected = [
        Outcome::Integer(2),
        Outcome::Length(2),
        Outcome::Refused(Refusal::NotInteger),
    ];
    ensure!(outcomes.get(1..4) == Some(&expected), "{outcomes:?}");
    let read = matches!(outcomes.get(4), Some(Outcome::Value(Some(value))) if value.data == "2x");
    ensure!(read, "{outcomes:?}");
    ensure!(
        outcomes.last() == Some(&Outcome::Flag(false)),
        "{outcomes:?}"
    );
    expect_data(store, "together", None).await?;
    ensure!(
        store.apply(b"together", &[]).await?.is_empty(),
        "no operations, no outcomes"
    );
    Ok(())
}

/// How often each of four clients edits in [`side_by_side`].
const ROUNDS: usize = 50;

async fn side_by_side(store: &dyn KvStore) -> Result<()> {
    let client = async |mark: &[u8]| -> Result<()> {
        for _ in 0..ROUNDS {
            store.increment(b"shared", 1, None).await?;
            let mark = Operation::Append {
                data: mark,
                condition: Condition::Always,
            };
            // Two at once: their marks must stand side by side.
            store.apply(b"marks", &[mark, mark]).await?;
            let prefix = Operation::Prepend {
                data: b"p",
                condition: Condition::Always,
            };
            store.apply(b"prefixes", &[prefix]).await?;
        }
        Ok(())
    };
    let (a, b, c, d) = tokio::join!(client(b"a"), client(b"b"), client(b"c"), client(b"d"));
    a.and(b).and(c).and(d)?;
    expect_data(store, "shared", Some((4 * ROUNDS).to_string().as_bytes())).await?;
    let marks = super::data(store, "marks").await?.unwrap_or_default();
    ensure!(
        marks.len() == 8 * ROUNDS,
        "{} marks of {}",
        marks.len(),
        8 * ROUNDS
    );
    ensure!(
        marks.chunks(2).all(|pair| pair.first() == pair.last()),
        "two marks were parted"
    );
    expect(
        store,
        "prefixes",
        Operation::Length,
        Outcome::Length(4 * ROUNDS as u64),
    )
    .await
}
