//! A real memcached and a listener of ours with the same history.
//!
//! CAS tokens differ; where they are compared, it is by which ones are equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_kv::front::settings::ListenerSettings;
use breccia_kv::io::KvIo;
use breccia_kv::memcached::backend::{MemcachedOptions, MemcachedStore};
use breccia_kv::memcached::frontend::MemcachedBackend;
use breccia_kv::memory::{MemoryOptions, MemoryStore};
use breccia_kv::sharded::{ShardedKv, ShardedOptions};
use breccia_kv::store::KvStore;
use breccia_net::layout_store::LayoutStore;
use breccia_testkit::Memcached;

use crate::front::{Front, session};

/// Replaces CAS tokens by the order in which they were first seen (or by `#`), times to live by
/// `t#`, times since the last use by `l#`, the version by `#`, and what `me` says by its words.
pub(crate) fn normal(output: &[u8], seen: Option<&mut BTreeMap<String, usize>>) -> String {
    let mut seen = seen;
    let mut rank = |token: &str| match &mut seen {
        _ if token == "0" => "0".to_owned(),
        None => "#".to_owned(),
        Some(seen) => {
            let next = seen.len();
            format!("#{}", seen.entry(token.to_owned()).or_insert(next))
        }
    };
    let mut lines = Vec::new();
    for line in String::from_utf8_lossy(output).split("\r\n") {
        let words: Vec<&str> = line.split(' ').collect();
        let mut word = |index: usize, word: &str| match (words[0], index, word.split_at_checked(1))
        {
            ("VALUE", 4, _) => rank(word),
            ("HD" | "VA" | "EX" | "NS" | "NF" | "EN", 1.., Some(("c", token))) => {
                format!("c{}", rank(token))
            }
            ("HD" | "VA", 1.., Some(("t", left))) if left != "-1" => "t#".into(),
            ("HD" | "VA", 1.., Some(("l", seconds))) if !seconds.is_empty() => "l#".into(),
            ("VERSION", 1, _) => "#".into(),
            ("ME", 2.., _) => word.split('=').next().unwrap_or_default().to_owned(),
            _ => word.to_owned(),
        };
        let words: Vec<String> = words.iter().enumerate().map(|(i, w)| word(i, w)).collect();
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

/// A real memcached and a listener of ours with the same history.
pub(crate) struct Twins {
    pub(crate) server: Memcached,
    pub(crate) front: Front,
    /// What the front leads to.
    _shards: Vec<Memcached>,
    _io: Option<KvIo>,
    /// The tokens seen, while they are compared: they are unique for each key only.
    seen: Option<[BTreeMap<String, usize>; 2]>,
    /// Whether `kfoo` counts as the same as `kZm9v b`: memcached returns a key in the form in which
    /// the item was made, a typed store in the form in which it was asked for.
    pub(crate) same_key_form: bool,
}

/// A memcached whose background threads do not hold items: that shows in how numbers are padded.
fn quiet_memcached() -> Memcached {
    Memcached::start(&["-o", "no_lru_maintainer,no_lru_crawler"]).unwrap()
}

impl Twins {
    /// A front over a memory store.
    pub(crate) fn memory() -> Self {
        let store = Arc::new(MemoryStore::new(MemoryOptions::new("mem")));
        let backend = MemcachedBackend::Typed(store);
        let mut twins = Self::new(
            Front::start(backend, ListenerSettings::default()),
            Vec::new(),
            None,
        );
        twins.same_key_form = true;
        twins
    }

    /// A front over two memory stores and a memcached.
    pub(crate) fn mixed() -> Self {
        let shards = vec![quiet_memcached()];
        let io = KvIo::start().unwrap();
        let options = MemcachedOptions::new("mc", shards[0].address().parse().unwrap());
        let members: Vec<Arc<dyn KvStore>> = vec![
            Arc::new(MemoryStore::new(MemoryOptions::new("mem-a"))),
            Arc::new(MemcachedStore::new(&io, options)),
            Arc::new(MemoryStore::new(MemoryOptions::new("mem-b"))),
        ];
        let layouts = LayoutStore::ephemeral();
        let store = ShardedKv::open(&layouts, &ShardedOptions::new("mix"), members).unwrap();
        let backend = MemcachedBackend::Typed(Arc::new(store));
        let mut twins = Self::new(
            Front::start(backend, ListenerSettings::default()),
            shards,
            Some(io),
        );
        twins.same_key_form = true;
        twins
    }

    /// A front over this many servers.
    pub(crate) fn servers(count: usize) -> Self {
        let shards: Vec<Memcached> = (0..count).map(|_| quiet_memcached()).collect();
        Self::new(Front::over(&shards), shards, None)
    }

    fn new(front: Front, shards: Vec<Memcached>, io: Option<KvIo>) -> Self {
        let server = quiet_memcached();
        Self {
            server,
            front,
            _shards: shards,
            _io: io,
            seen: None,
            same_key_form: false,
        }
    }

    pub(crate) fn compare_tokens(mut self) -> Self {
        self.seen = Some(Default::default());
        self
    }

    pub(crate) fn check(&mut self, input: &str) {
        let bytes: Vec<u8> = input.chars().map(|c| u8::try_from(c).unwrap()).collect();
        self.check_bytes([&bytes, &bytes], input);
    }

    pub(crate) fn check_all(&mut self, inputs: &[&str]) {
        for input in inputs {
            self.check(input);
        }
    }

    fn raw(&self, inputs: [&[u8]; 2]) -> [Vec<u8>; 2] {
        [
            session(&self.server.address(), inputs[0]),
            session(&self.front.address, inputs[1]),
        ]
    }

    fn check_bytes(&mut self, inputs: [&[u8]; 2], shown: &str) {
        let [real, ours] = self.raw(inputs);
        let [theirs, mine] = match &mut self.seen {
            Some([theirs, mine]) => [Some(theirs), Some(mine)],
            None => [None, None],
        };
        let mut expected = normal(&real, theirs);
        let mut found = normal(&ours, mine);
        if self.same_key_form {
            for text in [&mut expected, &mut found] {
                *text = text.replace("kZm9v b", "kfoo");
            }
        }
        assert_eq!(
            found,
            expected,
            "for {:?}",
            shown.get(..400).unwrap_or(shown)
        );
    }

    /// Checks an input in which `{cas}` is the present token of the key `k` on either side.
    pub(crate) fn check_with_cas(&mut self, input: &str) {
        let tokens = self.raw([b"gets k\r\n", b"gets k\r\n"]).map(|reply| {
            let text = String::from_utf8(reply).unwrap();
            let line = text.lines().next().unwrap().to_owned();
            line.split(' ').nth(4).expect("k exists").to_owned()
        });
        let [real, ours] = tokens.map(|token| input.replace("{cas}", &token));
        self.check_bytes([real.as_bytes(), ours.as_bytes()], input);
    }
}
