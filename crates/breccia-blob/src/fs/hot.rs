//! Objects that were read lately: their facts and open files, for reads that need no other thread.
//!
//! Not a cache of bytes: those are read and verified each time, from the system's page cache or not at
//! all (`RWF_NOWAIT`), so that a worker never waits for a disk. Invariant: an entry is of the version
//! that the index holds. The committer takes the entries of a batch away *before* it commits, and
//! nobody puts one in while the commit runs or from a look-up that was begun before it ended.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::IoSliceMut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use breccia_core::HashKind;
use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};
use rustix::process::{Resource, getrlimit};

use super::read::verified;
use super::records::FileRef;
use crate::key::Key;
use crate::meta::ObjectMeta;

/// The largest file that is read this way, in bytes: what a worker may copy and verify in passing.
pub(super) const MAX_FILE_BYTES: u64 = 72 * 1024;
/// The most files that are kept open, of one store.
const MAX_FILES: usize = 4096;
/// At most this part of the files that the process may open.
const PART_OF_LIMIT: u64 = 16;
/// The table is locked in so many pieces.
const BUCKETS: usize = 64;

/// An object that was read lately.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) meta: ObjectMeta,
    file: File,
    wanted: FileRef,
}

impl Entry {
    /// Its bytes, verified; none if they are not at hand, or not what they should be.
    pub(super) fn read(&self) -> Option<Bytes> {
        let length = usize::try_from(self.wanted.file_bytes).ok()?;
        let mut bytes = vec![0; length];
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let read = preadv2(&self.file, &mut slices, 0, ReadWriteFlags::NOWAIT);
        if read != Ok(length) {
            return None;
        }
        verified(bytes, self.wanted).ok()
    }
}

#[derive(Debug, Default)]
struct Bucket {
    /// Odd while a batch with a key of this bucket is being committed.
    changes: u64,
    entries: HashMap<Key, Arc<Entry>>,
    /// The keys in the order they came in; some may be gone.
    order: VecDeque<Key>,
}

/// What a look-up was begun with: whether something has changed since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since(u64);

/// See the module's page.
#[derive(Debug)]
pub(super) struct Hot {
    buckets: Vec<Mutex<Bucket>>,
}

impl Hot {
    pub(super) fn new() -> Self {
        let buckets = std::iter::repeat_with(Mutex::default).take(BUCKETS);
        Self {
            buckets: buckets.collect(),
        }
    }

    fn index(key: &[u8]) -> usize {
        let hash = HashKind::Xxh3_64.hash(key) % (BUCKETS as u64);
        usize::try_from(hash).unwrap_or_default()
    }

    fn bucket(&self, index: usize) -> MutexGuard<'_, Bucket> {
        let bucket = self.buckets.get(index);
        let bucket = bucket.expect("an index is below the number of buckets");
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of a key, if it was read lately.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let bucket = self.bucket(Self::index(key.as_bytes()));
        bucket.entries.get(key).map(Arc::clone)
    }

    /// To be called before a look-up whose outcome may be put in.
    pub(super) fn since(&self, key: &Key) -> Since {
        Since(self.bucket(Self::index(key.as_bytes())).changes)
    }

    /// Puts in what a look-up has found, unless something was committed meanwhile.
    pub(super) fn put(
        &self,
        key: &Key,
        since: Since,
        meta: &ObjectMeta,
        file: File,
        wanted: FileRef,
    ) {
        if wanted.file_bytes > MAX_FILE_BYTES {
            return;
        }
        let most = most_in_a_bucket();
        let mut bucket = self.bucket(Self::index(key.as_bytes()));
        if bucket.changes != since.0 || since.0 % 2 == 1 || most == 0 {
            return;
        }
        let entry = Entry {
            meta: meta.clone(),
            file,
            wanted,
        };
        if bucket
            .entries
            .insert(key.clone(), Arc::new(entry))
            .is_none()
        {
            bucket.order.push_back(key.clone());
        }
        while bucket.entries.len() > most
            && let Some(oldest) = bucket.order.pop_front()
        {
            bucket.entries.remove(&oldest);
        }
        // Keys that were taken away and put in again stand there twice.
        if bucket.order.len() > most.saturating_mul(4) {
            let Bucket { entries, order, .. } = &mut *bucket;
            let mut seen = std::collections::HashSet::new();
            order.retain(|key| entries.contains_key(key) && seen.insert(key.clone()));
        }
    }

    /// Takes the entries of these keys away before a commit that may change them.
    pub(super) fn before_commit<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Committing {
        let mut indices = Vec::new();
        for key in keys {
            let index = Self::index(key.as_bytes());
            let mut bucket = self.bucket(index);
            bucket.entries.remove(key);
            if !indices.contains(&index) {
                bucket.changes = bucket.changes.wrapping_add(1);
                indices.push(index);
            }
        }
        Committing(indices)
    }

    /// The commit has ended, whatever came of it.
    pub(super) fn after_commit(&self, committing: Committing) {
        for index in committing.0 {
            let mut bucket = self.bucket(index);
            bucket.changes = bucket.changes.wrapping_add(1);
        }
    }
}

/// The buckets that a commit is changing.
#[derive(Debug)]
#[must_use]
pub(super) struct Committing(Vec<usize>);

fn most_in_a_bucket() -> usize {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = usize::try_from(allowed / PART_OF_LIMIT).unwrap_or(usize::MAX);
    MAX_FILES.min(allowed) / BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{ETag, Headers, NativeVersion, Tags};

    fn meta() -> ObjectMeta {
        ObjectMeta {
            size: 0,
            modified_ms: 0,
            etag: ETag::from_text("e"),
            checksum: None,
            headers: Headers::default(),
            tags: Tags::new(),
            parts: Vec::new(),
            native: NativeVersion::default(),
        }
    }

    fn put(hot: &Hot, key: &Key, since: Since) {
        let wanted = FileRef {
            generation: 1,
            size: 0,
            file_bytes: 0,
        };
        let file = tempfile::tempfile().expect("a file");
        hot.put(key, since, &meta(), file, wanted);
    }

    #[test]
    fn what_was_looked_up_before_or_during_a_commit_is_not_put_in() {
        let hot = Hot::new();
        let key = Key::new(&b"k"[..]).expect("a key");
        let before = hot.since(&key);
        put(&hot, &key, before);
        assert!(hot.get(&key).is_some());
        let committing = hot.before_commit(std::iter::once(&key));
        assert!(
            hot.get(&key).is_none(),
            "it is taken away before the commit"
        );
        put(&hot, &key, before);
        let during = hot.since(&key);
        put(&hot, &key, during);
        assert!(hot.get(&key).is_none());
        hot.after_commit(committing);
        put(&hot, &key, before);
        put(&hot, &key, during);
        assert!(hot.get(&key).is_none());
        put(&hot, &key, hot.since(&key));
        assert!(hot.get(&key).is_some());
    }

    #[test]
    fn few_files_stay_open() {
        let hot = Hot::new();
        for number in 0..5000 {
            let key = Key::new(format!("{number}")).expect("a key");
            put(&hot, &key, hot.since(&key));
        }
        let open: usize = (0..BUCKETS)
            .map(|index| hot.bucket(index).entries.len())
            .sum();
        assert!(open <= MAX_FILES && open > 0, "{open}");
    }
}
