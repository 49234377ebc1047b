//! Objects: round trips, ranges, damage, races.
//!
//! Not crashes (see `recovery`). Invariant: a get gives the bytes of one put, whole or not at all.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::body::{Body, Whole};
use crate::checksum::{Algorithm, Checksum};
use crate::condition::{ETagSet, WriteCondition};
use crate::error::BlobError;
use crate::meta::{ETag, Headers, Tags};
use crate::store::{CopyOptions, PutOptions, ReservedWrite};

const BLOCK: usize = 64 * 1024;
const SIZES: &[usize] = &[
    0,
    1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    4 * BLOCK - 1,
    4 * BLOCK,
    4 * BLOCK + 1,
    5 * BLOCK,
    5 * BLOCK + 1,
    1024 * 1024 + 3,
];

/// Gives its bytes in chunks of odd sizes.
struct Chopped(Bytes, usize);

impl ByteSource for Chopped {
    fn next(&mut self) -> NextChunk<'_> {
        let take = self.1.min(self.0.len());
        let chunk = self.0.split_to(take);
        Box::pin(async move { (!chunk.is_empty()).then_some(Ok(chunk)) })
    }
}

#[tokio::test]
async fn objects_of_every_size_come_back_equal() {
    let (folder, store) = fresh();
    for (seed, size) in SIZES.iter().copied().enumerate() {
        let name = format!("object {size}");
        let sent = bytes(size, seed);
        let body = Body::new(Box::new(Chopped(sent.clone(), 9973)), size as u64);
        let key_of = key(&name);
        let body = body.compute(Algorithm::Crc32c);
        let put = store.put(&key_of, body, PutOptions::default());
        let written = put.await.expect("it is put");
        assert_eq!(written.etag, ETag::of_md5(crate::checksum::md5(&sent)));
        let (meta, found) = store.get_bytes(&key(&name)).await.expect("it is got");
        assert!(found == sent, "{size}");
        assert_eq!((meta.size, &meta.etag), (size as u64, &written.etag));
        assert_eq!(meta.modified_ms, written.modified_ms);
        assert_eq!(meta.checksum, written.checksum);
        assert_eq!(store.head(&key(&name)).await.expect("a head"), meta);
    }
    drop(store);
    let store = open(folder.path());
    for (seed, size) in SIZES.iter().copied().enumerate() {
        let found = read(&store, &format!("object {size}")).await;
        assert!(found.expect("it is there") == bytes(size, seed), "{size}");
    }
}

#[tokio::test]
async fn ranges_give_just_the_bytes_asked_for() {
    let (_folder, store) = fresh();
    for size in SIZES.iter().copied() {
        let sent = bytes(size, 5);
        store.put_bytes(&key("o"), sent.clone()).await.expect("put");
        let size = size as u64;
        let block = BLOCK as u64;
        for from in [0, 1, block - 1, block, 4 * block - 1, 4 * block, size / 2] {
            for length in [1, 2, block, block + 1, 4 * block, size] {
                let span = Span::Between(from, from + length.max(1) - 1);
                let read = read_span(&store, "o", span).await;
                let Ok(range) = span.of(size) else {
                    assert!(matches!(read, Err(BlobError::Range { .. })));
                    continue;
                };
                let (given, found) = read.expect("read");
                assert_eq!(given, range);
                let start = usize::try_from(range.start).expect("small");
                let end = usize::try_from(range.end).expect("small");
                assert!(found == sent[start..end], "{span:?} of {size}");
            }
        }
    }
}

#[tokio::test]
async fn damage_is_found_before_a_byte_of_its_block_is_sent() {
    for size in [1000, 9 * BLOCK] {
        let (folder, store) = fresh();
        let sent = bytes(size, 1);
        store.put_bytes(&key("o"), sent.clone()).await.expect("put");
        let file = files(folder.path()).pop().expect("a file");
        let length = std::fs::metadata(&file).expect("its length").len();
        let handle = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&file)
            .expect("the file opens");
        let step = (length / 97).max(1);
        let places = (0..length).step_by(usize::try_from(step).expect("small"));
        for place in places.chain(length - 300..length) {
            let mut byte = [0];
            handle.read_exact_at(&mut byte, place).expect("read");
            handle.write_all_at(&[byte[0] ^ 4], place).expect("flip");
            let mut given = Vec::new();
            let error = match store.get(&key("o"), GetOptions::default()).await {
                Err(error) => Some(error),
                Ok(mut opened) => loop {
                    match opened.source.next().await {
                        Some(Ok(chunk)) => given.extend_from_slice(&chunk),
                        Some(Err(error)) => break Some(error),
                        None => break None,
                    }
                },
            };
            let Some(BlobError::Damaged { store, problem }) = error else {
                panic!("byte {place} of {size}: {error:?}");
            };
            assert!(store == "disk" && problem.contains("key o") && problem.contains("data/"));
            assert!(given == sent[..given.len()], "byte {place} of {size}");
            handle.write_all_at(&byte, place).expect("flip back");
        }
        assert!(read(&store, "o").await.expect("it is whole again") == sent);
        // A range elsewhere is not concerned by a block that is damaged.
        if size > BLOCK {
            handle.write_all_at(&[sent[0] ^ 1], 0).expect("flip");
            let (_, found) = read_span(&store, "o", Span::From(BLOCK as u64))
                .await
                .expect("its blocks are whole");
            assert!(found == sent[BLOCK..]);
        }
        std::fs::remove_file(&file).expect("remove");
        // One that was read lately is open still: a start later it is missed.
        drop((handle, store));
        let store = open(folder.path());
        let error = store.get_bytes(&key("o")).await.expect_err("it is gone");
        assert!(matches!(error, BlobError::Damaged { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_reader_keeps_the_version_it_opened() {
    let (folder, store) = fresh();
    let sent = bytes(20 * BLOCK, 1);
    store.put_bytes(&key("o"), sent.clone()).await.expect("put");
    let name = key("o");
    let open = || store.get(&name, GetOptions::default());
    let mut slow = open().await.expect("open");
    let first = slow.source.next().await.expect("bytes").expect("good");
    store
        .put_bytes(&key("o"), bytes(20 * BLOCK, 2))
        .await
        .expect("put");
    until_files(folder.path(), 1).await;
    let mut second = open().await.expect("open");
    assert!(
        store
            .delete(&key("o"), WriteCondition::Always)
            .await
            .expect("delete")
    );
    until_files(folder.path(), 0).await;
    let mut found = first.to_vec();
    while let Some(chunk) = slow.source.next().await {
        found.extend_from_slice(&chunk.expect("good"));
    }
    assert!(found == sent);
    let mut found = Vec::new();
    while let Some(chunk) = second.source.next().await {
        found.extend_from_slice(&chunk.expect("good"));
    }
    assert!(found == bytes(20 * BLOCK, 2));
    assert_eq!(read(&store, "o").await, None);
    assert!(
        !store
            .delete(&key("o"), WriteCondition::Always)
            .await
            .expect("delete")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_meet_whole_versions_while_writers_replace_them() {
    let (_folder, store) = fresh();
    store
        .put_bytes(&key("o"), bytes(3000, 0))
        .await
        .expect("put");
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for seed in 0..60 {
                let size = 3000 + seed * 6000;
                store
                    .put_bytes(&key("o"), bytes(size, seed))
                    .await
                    .expect("put");
            }
        }
    });
    while !writer.is_finished() {
        let (meta, found) = store.get_bytes(&key("o")).await.expect("there is one");
        assert_eq!(meta.etag, ETag::of_md5(crate::checksum::md5(&found)));
    }
    writer.await.expect("it wrote");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_creators_one_wins() {
    let (folder, store) = fresh();
    let tasks: Vec<_> = (0..100)
        .map(|seed| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let options = PutOptions {
                    condition: WriteCondition::IfAbsent,
                    ..PutOptions::default()
                };
                let body = Body::from_bytes(bytes(100 + seed, seed));
                store.put(&key("one"), body, options).await
            })
        })
        .collect();
    let mut winner = None;
    for task in tasks {
        match task.await.expect("it ran") {
            Ok(written) => assert!(winner.replace(written.etag).is_none(), "one winner"),
            Err(BlobError::PreconditionFailed) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let meta = store.head(&key("one")).await.expect("it is there");
    assert_eq!(Some(meta.etag), winner);
    until_files(folder.path(), 1).await;
}

#[tokio::test]
async fn conditions_are_held_against_what_is_there() {
    let (_folder, store) = fresh();
    let first = store.put_bytes(&key("o"), "first").await.expect("put").etag;
    let of = |tag: &ETag| WriteCondition::IfMatch(ETagSet::OneOf(vec![tag.clone()]));
    let put = async |name: &str, text: &'static str, condition| {
        let options = PutOptions {
            condition,
            ..PutOptions::default()
        };
        store.put(&key(name), Body::from_bytes(text), options).await
    };
    let second = put("o", "second", of(&first))
        .await
        .expect("it matches")
        .etag;
    let refused = put("o", "third", of(&first)).await;
    assert!(matches!(refused, Err(BlobError::PreconditionFailed)));
    let absent = put("none", "third", of(&first)).await;
    assert!(matches!(absent, Err(BlobError::NotFound)));
    let refused = store.delete(&key("o"), of(&first)).await;
    assert!(matches!(refused, Err(BlobError::PreconditionFailed)));
    assert_eq!(read(&store, "o").await.as_deref(), Some(&b"second"[..]));
    assert!(
        store
            .delete(&key("o"), of(&second))
            .await
            .expect("it matches")
    );
    let absent = store.delete(&key("o"), of(&second)).await;
    assert!(matches!(absent, Err(BlobError::NotFound)));
}

#[tokio::test]
async fn a_body_that_is_wrong_or_ends_early_leaves_nothing() {
    let (folder, store) = fresh();
    let (name, large) = (key("o"), bytes(9 * BLOCK, 1));
    let wrong = Checksum::full(Algorithm::Crc32, vec![1, 2, 3, 4]);
    for sent in [Bytes::from_static(b"small"), large.clone()] {
        let size = sent.len() as u64;
        let source = || Box::new(Whole::new(sent.clone()));
        for body in [
            Body::new(source(), size).expect(wrong.clone()),
            Body::new(source(), size).expect_md5([0; 16]),
            Body::new(source(), size + 1),
        ] {
            let put = store.put(&name, body, PutOptions::default());
            assert!(matches!(put.await, Err(BlobError::Body { .. })));
        }
    }
    let body = Body::new(Box::new(Stuck(Some(large.clone()))), large.len() as u64);
    let put = store.put(&name, body, PutOptions::default());
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), put).await;
    assert!(waited.is_err(), "it waits for the rest");
    until_files(folder.path(), 0).await;
    assert_eq!(read(&store, "o").await, None);
}

#[tokio::test]
async fn any_key_is_held_and_tags_change_alone() {
    let (_folder, store) = fresh();
    let names: [&[u8]; 7] = [
        b"../../escape",
        b"/",
        b"a//b/./..",
        b"\xff\xfe\x00",
        b" ",
        &[b'k'; 1024],
        b"\0",
    ];
    let headers = Headers {
        content_type: Some("text/plain".to_owned()),
        user: [("colour".to_owned(), "grün".to_owned())].into(),
        ..Headers::default()
    };
    let tags = |value: &str| Tags::from([("tag".to_owned(), value.to_owned())]);
    for name in names {
        let options = PutOptions {
            headers: headers.clone(),
            tags: tags("first"),
            condition: WriteCondition::Always,
        };
        let body = Body::from_bytes(name.to_vec());
        store.put(&key(name), body, options).await.expect("put");
    }
    for name in names {
        let before = store.head(&key(name)).await.expect("head");
        assert_eq!((&before.headers, &before.tags), (&headers, &tags("first")));
        for value in ["second", "third"] {
            store.set_tags(&key(name), tags(value)).await.expect("tags");
        }
        let (mut after, found) = store.get_bytes(&key(name)).await.expect("get");
        assert_eq!((&found[..], &after.tags), (name, &tags("third")));
        after.tags = before.tags.clone();
        assert_eq!(after, before);
    }
    let absent = store.set_tags(&key("none"), tags("x")).await;
    assert!(matches!(absent, Err(BlobError::NotFound)));
}

#[tokio::test]
async fn copies_and_reserved_objects() {
    let (_folder, store) = fresh();
    store
        .put_bytes(&key("from"), bytes(7 * BLOCK, 3))
        .await
        .expect("put");
    let copy = async |from: &str, to: &str| {
        let (from, to) = (key(from), key(to));
        store.copy(&from, &to, CopyOptions::default()).await
    };
    let copied = copy("from", "to").await.expect("copied");
    assert_eq!(
        copied.etag,
        store.head(&key("from")).await.expect("head").etag
    );
    copy("to", "to").await.expect("onto itself");
    assert!(read(&store, "to").await.expect("it is there") == bytes(7 * BLOCK, 3));
    assert!(matches!(copy("none", "to").await, Err(BlobError::NotFound)));

    let write = async |name: &'static str, text: &'static str, how| {
        store
            .write_reserved(name, Bytes::from_static(text.as_bytes()), how)
            .await
    };
    let read = async |name| store.read_reserved(name).await.expect("read");
    assert_eq!(read("marker").await, None);
    assert!(
        write("marker", "one", ReservedWrite::IfAbsent)
            .await
            .expect("written")
    );
    assert!(
        !write("marker", "two", ReservedWrite::IfAbsent)
            .await
            .expect("kept")
    );
    assert_eq!(read("marker").await.as_deref(), Some(&b"one"[..]));
    assert!(
        write("marker", "three", ReservedWrite::Always)
            .await
            .expect("written")
    );
    assert!(
        write("mark", "", ReservedWrite::Always)
            .await
            .expect("written")
    );
    assert_eq!(read("marker").await.as_deref(), Some(&b"three"[..]));
    assert_eq!(read("mark").await.as_deref(), Some(&b""[..]));
    let list = async |prefix, after| store.list_reserved(prefix, after).await.expect("list");
    assert_eq!(list("ma", None).await, ["mark", "marker"]);
    assert_eq!(list("ma", Some("mark")).await, ["marker"]);
    assert!(list("x", None).await.is_empty());
    store.delete_reserved("marker").await.expect("deleted");
    store
        .delete_reserved("marker")
        .await
        .expect("there may be none");
    assert_eq!(read("marker").await, None);
    store.probe().await.expect("a sign of life");
}
