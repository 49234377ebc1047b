//! Composites over memory stores, nested and failing.

use std::collections::BTreeSet;

use breccia_core::error::Effect;

use super::*;
use crate::memory::{MemoryOptions, MemoryStore};
use crate::store::{KvStoreExt, SetOptions};

fn layout(name: &str, role: Role, shards: &[&str]) -> Arc<Layout> {
    let spec = LayoutSpec {
        composite: name.into(),
        kind: CompositeKind::InMemory,
        hash: HashKind::default(),
        hash_tag: None,
        placement_key: breccia_core::PlacementKey::Raw,
        role,
        shards: shards.iter().map(|shard| (*shard).into()).collect(),
    };
    Arc::new(Layout::first(&spec).unwrap())
}

fn memory(name: &str) -> Arc<dyn KvStore> {
    Arc::new(MemoryStore::new(MemoryOptions::new(name)))
}

fn composite(name: &str, role: Role, members: Vec<Arc<dyn KvStore>>) -> Arc<ShardedKv> {
    let names: Vec<String> = members
        .iter()
        .map(|m| m.capabilities().name.clone())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Arc::new(ShardedKv::new(layout(name, role, &names), members).unwrap())
}

fn nested() -> Arc<ShardedKv> {
    let inner: Arc<dyn KvStore> = composite(
        "inner",
        Role::Inner,
        vec![memory("b"), memory("c"), memory("d")],
    );
    composite("outer", Role::Outer, vec![memory("a"), inner, memory("e")])
}

/// A member that fails everything, as it is told.
#[derive(Debug)]
struct Broken {
    capabilities: Capabilities,
    error: KvError,
}

impl Broken {
    fn member(name: &str, effect: Effect) -> Arc<dyn KvStore> {
        let capabilities = Capabilities::leaf(name, crate::store::StoreKind::Redis);
        Arc::new(Self {
            capabilities,
            error: KvError::Timeout {
                store: name.into(),
                effect,
            },
        })
    }

    fn fail<'a, T: Send + 'a>(&self) -> StoreFuture<'a, T> {
        let error = self.error.clone();
        Box::pin(async move { Err(error) })
    }
}

impl KvStore for Broken {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    fn apply<'a>(&'a self, _: &'a [u8], _: &'a [Operation<'a>]) -> StoreFuture<'a, Vec<Outcome>> {
        self.fail()
    }
    fn apply_each<'a>(&'a self, _: &'a [KeyedOperation<'a>]) -> StoreFuture<'a, Vec<Outcome>> {
        self.fail()
    }
    fn scan<'a>(&'a self, _: ScanRequest<'a>) -> StoreFuture<'a, ScanPage> {
        self.fail()
    }
    fn key_count(&self) -> StoreFuture<'_, u64> {
        self.fail()
    }
    fn flush(&self) -> StoreFuture<'_, ()> {
        self.fail()
    }
    fn random_key(&self, _: u64) -> StoreFuture<'_, Option<Bytes>> {
        self.fail()
    }
}

fn keys(count: usize) -> Vec<Bytes> {
    (0..count)
        .map(|number| Bytes::from(format!("key{number}")))
        .collect()
}

#[tokio::test]
async fn each_key_lies_on_the_member_its_layout_names() {
    let members = [memory("a"), memory("b"), memory("c")];
    let store = composite("cache", Role::Outer, members.to_vec());
    for key in keys(300) {
        store.set(&key, &key, SetOptions::default()).await.unwrap();
        let expected = HashKind::Xxh3_64.hash(&key) % 3;
        for (index, member) in members.iter().enumerate() {
            assert_eq!(member.exists(&key).await.unwrap(), index as u64 == expected);
        }
    }
    assert_eq!(store.key_count().await.unwrap(), 300);
}

#[tokio::test]
async fn the_order_of_members_means_nothing_once_there_is_a_layout() {
    let layout = layout("cache", Role::Outer, &["a", "b", "c"]);
    let (a, b, c) = (memory("a"), memory("b"), memory("c"));
    let one = ShardedKv::new(layout.clone(), vec![a.clone(), b.clone(), c.clone()]).unwrap();
    for key in keys(100) {
        one.set(&key, b"1", SetOptions::default()).await.unwrap();
    }
    let other = ShardedKv::new(layout, vec![c, a, b]).unwrap();
    for key in keys(100) {
        assert!(other.exists(&key).await.unwrap());
    }
}

#[test]
fn members_that_do_not_fit_the_layout_are_refused() {
    let layout = layout("cache", Role::Outer, &["a", "b"]);
    let check = |names: &[&str], expected: &str| {
        let members = names.iter().map(|name| memory(name)).collect();
        let error = ShardedKv::new(layout.clone(), members).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(&["a"], "the composite 'cache' has no member 'b'");
    check(&["a", "c"], "the composite 'cache' has no member 'b'");
    check(
        &["a", "b", "c"],
        "the composite 'cache' has no shard 'c' in its layout",
    );
    check(
        &["a", "b", "b"],
        "the composite 'cache' was given two members of one name",
    );
}

#[test]
fn opening_holds_the_members_against_the_layout_kept() {
    let layouts = LayoutStore::ephemeral();
    let options = ShardedOptions::new("cache");
    let made = ShardedKv::open(&layouts, &options, vec![memory("a"), memory("b")]).unwrap();
    let again = ShardedKv::open(&layouts, &options, vec![memory("b"), memory("a")]).unwrap();
    assert_eq!(made.layout().digest(), again.layout().digest());
    let members = vec![memory("a"), memory("b"), memory("c")];
    let error = ShardedKv::open(&layouts, &options, members).unwrap_err();
    assert!(matches!(error, KvError::Layout { .. }), "{error}");
}

#[tokio::test]
async fn many_keys_are_split_and_merged_in_their_order() {
    let store = nested();
    let keys = keys(200);
    let operations: Vec<KeyedOperation<'_>> = keys
        .iter()
        .map(|key| KeyedOperation {
            key,
            operation: Operation::set(key),
        })
        .collect();
    store.apply_each(&operations).await.unwrap();
    let mut asked: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
    asked.insert(7, b"missing");
    asked.push(&keys[3]);
    let values = store.get_many(&asked).await.unwrap();
    let found: Vec<Option<&[u8]>> = values
        .iter()
        .map(|value| value.as_ref().map(|value| value.data.as_ref()))
        .collect();
    let expected: Vec<Option<&[u8]>> = asked
        .iter()
        .map(|key| (*key != b"missing").then_some(*key))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(store.delete_many(&asked).await.unwrap(), 200);
}

#[tokio::test]
async fn inner_shards_fill_evenly() {
    let store = nested();
    for key in keys(3000) {
        store.set(&key, b"", SetOptions::default()).await.unwrap();
    }
    let inner = store.member(1);
    let inner_total = inner.key_count().await.unwrap();
    assert!((850..1150).contains(&inner_total), "{inner_total}");
    let mut per_leaf = std::collections::BTreeMap::new();
    let mut request = ScanRequest {
        count: 100,
        ..ScanRequest::default()
    };
    loop {
        let leaf = ScanCursor::decode(request.cursor, store.check, 5).leaf;
        let page = store.scan(request).await.unwrap();
        *per_leaf.entry(leaf).or_insert(0) += page.keys.len();
        request.cursor = page.cursor;
        if page.cursor == 0 {
            break;
        }
    }
    assert_eq!(per_leaf.len(), 5);
    for leaf in 1..4 {
        assert!((250..420).contains(&per_leaf[&leaf]), "{per_leaf:?}");
    }
}

#[tokio::test]
async fn a_scan_visits_every_leaf_and_a_foreign_cursor_begins_anew() {
    let store = nested();
    let written: BTreeSet<Bytes> = keys(500).into_iter().collect();
    for key in &written {
        store.set(key, b"", SetOptions::default()).await.unwrap();
    }
    for count in [1, 10, 1000] {
        let mut found = BTreeSet::new();
        let mut request = ScanRequest {
            count,
            ..ScanRequest::default()
        };
        loop {
            let page = store.scan(request).await.unwrap();
            found.extend(page.keys);
            request.cursor = page.cursor;
            if page.cursor == 0 {
                break;
            }
        }
        assert_eq!(found, written);
    }
    let first = store
        .scan(ScanRequest {
            count: 10,
            ..ScanRequest::default()
        })
        .await
        .unwrap();
    let foreign = first.cursor ^ (1 << 44);
    let again = store
        .scan(ScanRequest {
            cursor: foreign,
            count: 10,
            ..ScanRequest::default()
        })
        .await;
    assert_eq!(again.unwrap(), first);
    assert_eq!(store.delete_prefix(b"key4").await.unwrap(), 111);
    assert_eq!(store.scan_all(None).await.unwrap().len(), 389);
}

#[tokio::test]
async fn a_failed_part_fails_the_whole_and_says_what_became_of_it() {
    let members = vec![
        memory("a"),
        Broken::member("b", Effect::Unknown),
        memory("c"),
    ];
    let store = composite("cache", Role::Outer, members);
    let keys = keys(6);
    let all: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
    let error = store.delete_many(&all).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    let text = error.to_string();
    assert!(text.starts_with("cache/b did not answer within"), "{text}");
    assert!(text.contains("applied on cache/a ("), "{text}");
    assert!(text.contains("unknown on cache/b ("), "{text}");
    let error = store.get_many(&all).await.unwrap_err().to_string();
    assert!(!error.contains("applied on"), "{error}");
    let error = store.key_count().await.unwrap_err().to_string();
    assert!(error.starts_with("cache/b did not"), "{error}");
    for key in keys {
        let fails = store.get(&key).await.is_err();
        assert_eq!(
            fails,
            store.index_of(&key) == 1,
            "only the dead shard's keys fail"
        );
    }
}

#[tokio::test]
async fn some_key_is_found_wherever_it_lies() {
    let store = nested();
    assert_eq!(store.random_key(5).await.unwrap(), None);
    store
        .set(b"only", b"", SetOptions::default())
        .await
        .unwrap();
    for seed in [0, 1, u64::MAX] {
        assert_eq!(
            store.random_key(seed).await.unwrap().as_deref(),
            Some(&b"only"[..])
        );
    }
}

#[tokio::test]
async fn locks_belong_to_their_owner() {
    let store = nested();
    let ttl = std::time::Duration::from_mins(1);
    assert!(store.try_lock(b"l", b"me", ttl).await.unwrap());
    assert!(!store.try_lock(b"l", b"you", ttl).await.unwrap());
    assert!(!store.unlock(b"l", b"you").await.unwrap());
    assert!(store.unlock(b"l", b"me").await.unwrap());
    assert!(!store.unlock(b"l", b"me").await.unwrap());
    assert!(store.try_lock(b"l", b"you", ttl).await.unwrap());
    assert_eq!(store.increment(b"n", 5, Some(ttl)).await.unwrap(), 5);
    assert_eq!(store.increment(b"n", -7, None).await.unwrap(), -2);
    let error = store.increment(b"l", 1, None).await.unwrap_err();
    assert_eq!(error.kind(), breccia_core::error::ErrorKind::Invalid);
}
