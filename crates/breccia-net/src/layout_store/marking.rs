//! Which marker each shard is known to carry: the state folder's part in checking shards.
//!
//! Not the markers themselves, and not the checking. Invariant: a record is of what was seen on the
//! shard, so a shard without a record may be given a marker, and one with a record may not.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde_json::{Map, Value};

use super::{LayoutStore, LayoutStoreError, markers_file};

/// The marker a shard is known to carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerRecord {
    /// The composite's name when it was seen: part of the marker's key.
    pub composite: String,
    /// The digest of the marker's text.
    pub digest: String,
}

/// By the name of the store that carries it.
type Records = BTreeMap<String, MarkerRecord>;

impl LayoutStore {
    /// What the shards of a composite are known to carry, by store name.
    pub fn marker_records(&self, composite: &str) -> Result<Records, LayoutStoreError> {
        let file = markers_file(composite);
        let Some(text) = self.files.read(&file)? else {
            return Ok(Records::new());
        };
        let bad = |problem: String| LayoutStoreError::Records {
            path: self.files.path(&file),
            problem,
        };
        let entries: BTreeMap<String, [String; 2]> =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let record = |(leaf, [composite, digest]): (String, [String; 2])| {
            (leaf, MarkerRecord { composite, digest })
        };
        Ok(entries.into_iter().map(record).collect())
    }

    /// Records what a shard was seen to carry.
    pub fn record_marker(
        &self,
        composite: &str,
        leaf: &str,
        record: MarkerRecord,
    ) -> Result<(), LayoutStoreError> {
        let _held = self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut records = self.marker_records(composite)?;
        records.insert(leaf.to_owned(), record);
        self.save_records(composite, &records)
    }

    /// For a layout that is new: what was known of an earlier one of this name means nothing.
    pub(super) fn forget_markers(&self, composite: &str) -> Result<(), LayoutStoreError> {
        self.files.remove(&markers_file(composite))
    }

    /// For a composite with a new name. The records keep the old one: the shards carry it still.
    pub(super) fn copy_markers(&self, old: &str, new: &str) -> Result<(), LayoutStoreError> {
        let records = self.marker_records(old)?;
        if records.is_empty() {
            return Ok(());
        }
        self.save_records(new, &records)
    }

    /// For a shard with a new name.
    pub(super) fn rename_marked(
        &self,
        composite: &str,
        old: &str,
        new: &str,
    ) -> Result<(), LayoutStoreError> {
        let mut records = self.marker_records(composite)?;
        let Some(record) = records.remove(old) else {
            return Ok(());
        };
        records.insert(new.to_owned(), record);
        self.save_records(composite, &records)
    }

    fn save_records(&self, composite: &str, records: &Records) -> Result<(), LayoutStoreError> {
        let pair = |record: &MarkerRecord| {
            Value::from(vec![record.composite.as_str(), record.digest.as_str()])
        };
        let entries: Map<String, Value> = records
            .iter()
            .map(|(leaf, record)| (leaf.clone(), pair(record)))
            .collect();
        let text = format!("{:#}\n", Value::Object(entries));
        self.files.write(&markers_file(composite), &text)
    }
}

#[cfg(test)]
mod tests {
    use breccia_core::layout::{CompositeKind, LayoutSpec, Role};

    use super::super::open_layout;
    use super::*;

    #[test]
    fn records_follow_renames_and_end_with_their_layout() {
        let store = LayoutStore::ephemeral();
        let spec = |composite: &str, shards: &[&str]| LayoutSpec {
            composite: composite.to_owned(),
            kind: CompositeKind::InMemory,
            hash: breccia_core::HashKind::default(),
            hash_tag: None,
            placement_key: breccia_core::PlacementKey::Raw,
            role: Role::Outer,
            shards: shards.iter().map(|shard| (*shard).to_owned()).collect(),
        };
        let open = |spec: &LayoutSpec| open_layout(&store, spec, None, &BTreeMap::new());
        open(&spec("cache", &["a", "b"])).expect("a layout");
        assert_eq!(store.marker_records("cache").expect("none"), Records::new());
        let record = MarkerRecord {
            composite: "cache".to_owned(),
            digest: "0123456789abcdef".to_owned(),
        };
        let recorded = store.record_marker("cache", "a", record.clone());
        recorded.expect("it is recorded");
        store.rename_shard("cache", "a", "x").expect("renamed");
        store.rename("cache", "sessions").expect("renamed");
        let records = store.marker_records("sessions").expect("records");
        assert_eq!(records, Records::from([("x".to_owned(), record)]));
        assert_eq!(store.marker_records("cache").expect("none"), Records::new());

        let removed = store.files.remove("sessions.layout.toml");
        removed.expect("it is removed");
        open(&spec("sessions", &["x", "b"])).expect("a new layout");
        assert_eq!(
            store.marker_records("sessions").expect("none"),
            Records::new()
        );
    }
}
