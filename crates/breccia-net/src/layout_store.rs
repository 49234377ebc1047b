//! The state folder: one document per composite with its layout, and each shard's last address.
//!
//! Not here: what a layout is (see `breccia_core::layout`), or markers on the shards themselves.
//!
//! Invariant: a file in the folder is whole or absent, also after a crash, and one process at a
//! time may change it.
//!
//! ```text
//! breccia-data/
//! ├── breccia.lock             held by the one process that may write
//! ├── cache.layout.toml        the layout of composite `cache`, with its digest
//! ├── cache.addresses.json     where each shard of `cache` was when Breccia last started
//! └── cache.markers.json       which marker each shard of `cache` is known to carry
//! ```

mod error;
mod files;
mod marking;
mod opening;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use breccia_core::layout::{Layout, LayoutSpec, is_store_name};

pub use error::LayoutStoreError;
pub use marking::MarkerRecord;
pub use opening::{LayoutRequest, open_layout, open_layouts};

use files::Files;

const LAYOUT_SUFFIX: &str = ".layout.toml";
const ADDRESSES_SUFFIX: &str = ".addresses.json";
const MARKERS_SUFFIX: &str = ".markers.json";

/// Where layouts are kept between starts.
#[derive(Debug)]
pub struct LayoutStore {
    files: Files,
    /// Held while records are read, changed and written: shards are marked by several tasks.
    recording: Mutex<()>,
}

impl LayoutStore {
    /// Opens a state folder for this process alone, and makes it if it does not exist. The lock is
    /// held until the store is dropped, or the process is gone however it ends.
    pub fn open(folder: &Path) -> Result<Self, LayoutStoreError> {
        Files::lock(folder).map(LayoutStore::over)
    }

    /// Opens a state folder to look at it, also while another process holds it. A folder that does
    /// not exist is an empty one. Nothing can be saved.
    pub fn open_read_only(folder: &Path) -> Self {
        Self::over(Files::ReadOnly {
            folder: folder.to_path_buf(),
        })
    }

    /// A store that forgets everything when it is dropped: only for shards that forget as well, or
    /// where a layout is checked in some other way.
    pub fn ephemeral() -> Self {
        Self::over(Files::Memory(Mutex::default()))
    }

    fn over(files: Files) -> Self {
        LayoutStore {
            files,
            recording: Mutex::default(),
        }
    }

    /// The state folder, unless the store is ephemeral.
    pub fn folder(&self) -> Option<&Path> {
        self.files.folder()
    }

    /// The file that holds, or would hold, the layout of a composite.
    pub fn layout_path(&self, composite: &str) -> PathBuf {
        self.files.path(&layout_file(composite))
    }

    /// The layout of a composite, checked against its digest; none if it was never made.
    pub fn load(&self, composite: &str) -> Result<Option<Layout>, LayoutStoreError> {
        if !is_store_name(composite) {
            return Ok(None);
        }
        let file = layout_file(composite);
        let Some(text) = self.files.read(&file)? else {
            return Ok(None);
        };
        let path = self.files.path(&file);
        let layout = match Layout::from_document(&text) {
            Ok(layout) => layout,
            Err(source) => return Err(LayoutStoreError::Document { path, source }),
        };
        if layout.composite() != composite {
            let holds = layout.composite().to_owned();
            return Err(LayoutStoreError::Misnamed { path, holds });
        }
        Ok(Some(layout))
    }

    /// Every layout there is, by name of its composite.
    pub fn all(&self) -> Result<Vec<Layout>, LayoutStoreError> {
        let mut layouts = Vec::new();
        for file in self.files.names()? {
            if let Some(composite) = file.strip_suffix(LAYOUT_SUFFIX) {
                layouts.extend(self.load(composite)?);
            }
        }
        Ok(layouts)
    }

    /// Saves a layout in place of the one its composite had. When this returns, it is on the disk.
    pub fn save(&self, layout: &Layout) -> Result<(), LayoutStoreError> {
        self.files
            .write(&layout_file(layout.composite()), &layout.to_document())
    }

    /// The address of each shard when the composite was last opened, by shard name.
    pub fn last_addresses(
        &self,
        composite: &str,
    ) -> Result<BTreeMap<String, String>, LayoutStoreError> {
        let file = addresses_file(composite);
        let Some(text) = self.files.read(&file)? else {
            return Ok(BTreeMap::new());
        };
        serde_json::from_str(&text).map_err(|source| LayoutStoreError::Addresses {
            path: self.files.path(&file),
            problem: source.to_string(),
        })
    }

    /// Saves the address of each shard.
    pub fn save_addresses(
        &self,
        composite: &str,
        addresses: &BTreeMap<String, String>,
    ) -> Result<(), LayoutStoreError> {
        let entries: serde_json::Map<String, serde_json::Value> = addresses
            .iter()
            .map(|(shard, address)| (shard.clone(), address.as_str().into()))
            .collect();
        let text = format!("{:#}\n", serde_json::Value::Object(entries));
        self.files.write(&addresses_file(composite), &text)
    }

    /// The document of a layout, for another gateway.
    pub fn export(&self, composite: &str) -> Result<String, LayoutStoreError> {
        self.existing(composite).map(|layout| layout.to_document())
    }

    /// Takes in a layout that another gateway exported. A layout the composite already has here is
    /// replaced only on demand, unless it is the same one.
    pub fn import(&self, document: &str, replace: bool) -> Result<Layout, LayoutStoreError> {
        let imported = Layout::from_document(document)
            .map_err(|source| LayoutStoreError::Import { source })?;
        match self.load(imported.composite())? {
            Some(current) if current == imported => return Ok(imported),
            Some(current) if !replace => {
                return Err(LayoutStoreError::ImportDiffers {
                    composite: imported.composite().to_owned(),
                    path: self.layout_path(imported.composite()),
                    current: current.digest(),
                    imported: imported.digest(),
                });
            }
            _ => {}
        }
        self.save(&imported)?;
        Ok(imported)
    }

    /// Gives a composite another name. No key moves; the digest changes.
    pub fn rename(&self, old: &str, new: &str) -> Result<Layout, LayoutStoreError> {
        let layout = self.existing(old)?;
        let renamed = layout
            .renamed(new)
            .map_err(|source| LayoutStoreError::Core { source })?;
        // An earlier attempt may have ended between the two files.
        if self.load(new)?.is_some_and(|present| present != renamed) {
            return Err(LayoutStoreError::NameTaken {
                composite: new.to_owned(),
                path: self.layout_path(new),
            });
        }
        let addresses = self.last_addresses(old)?;
        self.save_addresses(new, &addresses)?;
        self.copy_markers(old, new)?;
        self.save(&renamed)?;
        self.files.remove(&layout_file(old))?;
        self.files.remove(&addresses_file(old))?;
        self.files.remove(&markers_file(old))?;
        Ok(renamed)
    }

    /// Gives a shard of a composite another name. No key moves; the digest changes.
    pub fn rename_shard(
        &self,
        composite: &str,
        old: &str,
        new: &str,
    ) -> Result<Layout, LayoutStoreError> {
        let layout = self.existing(composite)?;
        let renamed = layout
            .shard_renamed(old, new)
            .map_err(|source| LayoutStoreError::Core { source })?;
        // Both names first: the address is known whichever layout a crash leaves.
        let mut addresses = self.last_addresses(composite)?;
        match addresses.get(old).cloned() {
            Some(address) => drop(addresses.insert(new.to_owned(), address)),
            None => drop(addresses.remove(new)),
        }
        self.save_addresses(composite, &addresses)?;
        self.rename_marked(composite, old, new)?;
        self.save(&renamed)?;
        addresses.remove(old);
        self.save_addresses(composite, &addresses)?;
        Ok(renamed)
    }

    /// Records that a shard is at this address now, whatever was known before: the administrator
    /// has made sure that the data of this shard lies there. Returns the address it had.
    pub fn accept_address(
        &self,
        composite: &str,
        shard: &str,
        address: &str,
    ) -> Result<Option<String>, LayoutStoreError> {
        let layout = self.existing(composite)?;
        if layout.shard_index(shard).is_none() {
            return Err(LayoutStoreError::NoSuchShard {
                composite: composite.to_owned(),
                shard: shard.to_owned(),
                known: layout.shards().join(", "),
            });
        }
        let mut addresses = self.last_addresses(composite)?;
        let before = addresses.get(shard).cloned();
        addresses.retain(|_, known| known != address);
        addresses.insert(shard.to_owned(), address.to_owned());
        self.save_addresses(composite, &addresses)?;
        Ok(before)
    }

    /// Makes the layout what the config asks for, as a new epoch. Keys move: the caller has made
    /// sure that the shards are empty, or hold only keys where the new layout puts them.
    pub fn adopt(&self, spec: &LayoutSpec) -> Result<Layout, LayoutStoreError> {
        let layout = match self.load(&spec.composite)? {
            Some(current) => current.replaced(spec),
            None => Layout::first(spec),
        };
        let layout = layout.map_err(|source| LayoutStoreError::Core { source })?;
        self.save(&layout)?;
        Ok(layout)
    }

    fn existing(&self, composite: &str) -> Result<Layout, LayoutStoreError> {
        if let Some(layout) = self.load(composite)? {
            return Ok(layout);
        }
        let known: Vec<String> = self
            .all()?
            .iter()
            .map(|layout| layout.composite().to_owned())
            .collect();
        Err(LayoutStoreError::NoLayout {
            composite: composite.to_owned(),
            place: self.files.to_string(),
            known: if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            },
        })
    }
}

fn layout_file(composite: &str) -> String {
    format!("{composite}{LAYOUT_SUFFIX}")
}

fn addresses_file(composite: &str) -> String {
    format!("{composite}{ADDRESSES_SUFFIX}")
}

fn markers_file(composite: &str) -> String {
    format!("{composite}{MARKERS_SUFFIX}")
}

#[cfg(test)]
mod tests;
