//! From a file's path to a plan, and from a plan to the layouts of its composites.
//!
//! Not the checks: those are the config crate's and the layout store's. Invariant: whatever is
//! refused is shown whole, not only its first fault, and a command that mends can be copied.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use breccia_config::{Plan, StorePlan, Warning};
use breccia_core::PlacementKey;
use breccia_core::layout::{CompositeKind, Layout, LayoutSpec};
use breccia_net::layout_store::{self, LayoutRequest, LayoutStore, LayoutStoreError};

use crate::trouble::Trouble;

/// Reads a config file; its faults are a refusal with one line each.
pub(crate) fn load(path: &Path) -> Result<(Plan, Vec<Warning>), Trouble> {
    breccia_config::load(path, &environment)
        .map_err(|faults| Trouble::Refused(faults.iter().map(ToString::to_string).collect()))
}

/// The variables of this process.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What a composite and its members ask of the composite's layout.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) spec: LayoutSpec,
    pub(crate) digest: Option<String>,
    /// Where each shard that lies on a server is.
    pub(crate) addresses: BTreeMap<String, String>,
}

/// Which config a command was given, and which state folder instead of the config's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) config: &'a Path,
    pub(crate) data_dir: Option<&'a Path>,
}

impl Given<'_> {
    /// Reads the config.
    pub(crate) fn load(&self) -> Result<(Plan, Vec<Warning>), Trouble> {
        let (mut plan, warnings) = load(self.config)?;
        if let Some(folder) = self.data_dir {
            plan.state_dir = folder.to_path_buf();
        }
        Ok((plan, warnings))
    }

    /// A refusal's lines, with these arguments in the commands they name.
    pub(crate) fn lines(&self, refusal: &LayoutStoreError) -> Vec<String> {
        let text = self.with_arguments(&refusal.to_string());
        text.lines().map(str::to_owned).collect()
    }

    /// Lines that begin with a key of the file, each with the file and the key's line in front, as the
    /// faults of the file itself have them. Others stay.
    pub(crate) fn placed(&self, lines: Vec<String>) -> Vec<String> {
        let file = self.config.display();
        let text = std::fs::read_to_string(self.config).unwrap_or_default();
        let place = |line: String| {
            let key = line.split_once(": ").map(|(key, _)| key);
            let key = key.filter(|it| it.starts_with("store.") || it.starts_with("listener."));
            match key.and_then(|key| breccia_config::line_of(&text, key)) {
                Some(number) => format!("{file}:{number}: {line}"),
                None => line,
            }
        };
        lines.into_iter().map(place).collect()
    }

    /// A text, with these arguments in the commands it names.
    pub(crate) fn with_arguments(&self, text: &str) -> String {
        let mut arguments = format!("--config {}", shell_word(self.config));
        if let Some(folder) = self.data_dir {
            arguments += " --data-dir ";
            arguments += &shell_word(folder);
        }
        text.replace("--config FILE", &arguments)
    }
}

/// A path as one word of a shell's command line.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./+=:,@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Layouts by the name of their composite.
pub(crate) type Layouts = BTreeMap<String, Arc<Layout>>;

/// The layout of every composite, or everything that speaks against them. A store that was opened
/// for reading stays as it is.
pub(crate) fn open_layouts(
    plan: &Plan,
    store: &LayoutStore,
) -> Result<Layouts, Vec<LayoutStoreError>> {
    let wanted = composites(plan);
    let requests: Vec<LayoutRequest<'_>> = wanted
        .values()
        .map(|wanted| LayoutRequest {
            spec: &wanted.spec,
            pinned_digest: wanted.digest.as_deref(),
            addresses: &wanted.addresses,
        })
        .collect();
    let layouts = layout_store::open_layouts(store, &requests)?;
    let layouts = layouts
        .into_iter()
        .map(|layout| (layout.composite().to_owned(), layout));
    Ok(layouts.collect())
}

/// What a start would refuse, found without changing anything.
pub(crate) fn refusals(plan: &Plan) -> Vec<LayoutStoreError> {
    let store = LayoutStore::open_read_only(&plan.state_dir);
    open_layouts(plan, &store).err().unwrap_or_default()
}

/// Every composite of the plan by name.
pub(crate) fn composites(plan: &Plan) -> BTreeMap<&str, Wanted> {
    plan.stores
        .keys()
        .filter_map(|name| Some((name.as_str(), wanted(plan, name)?)))
        .collect()
}

/// What one store asks of its layout; `None` if it is not a composite.
pub(crate) fn wanted(plan: &Plan, name: &str) -> Option<Wanted> {
    let store = plan.stores.get(name)?;
    let (kind, hash, hash_tag, placement_key, digest) = match store {
        StorePlan::ShardedInMemory(sharded) => (
            CompositeKind::InMemory,
            sharded.hash,
            sharded.hash_tag,
            PlacementKey::Raw,
            &sharded.layout_digest,
        ),
        StorePlan::ShardedBlob(sharded) => (
            CompositeKind::Blob,
            sharded.hash,
            sharded.hash_tag,
            sharded.placement_key.clone(),
            &sharded.layout_digest,
        ),
        _ => return None,
    };
    let shards = store.members().to_vec();
    let location = |shard: &String| Some((shard.clone(), plan.stores.get(shard)?.location()?));
    let addresses = shards.iter().filter_map(location).collect();
    Some(Wanted {
        spec: LayoutSpec {
            composite: name.to_owned(),
            kind,
            hash,
            hash_tag,
            placement_key,
            role: plan.role(name),
            shards,
        },
        digest: digest.clone(),
        addresses,
    })
}
