//! `breccia layout`: looking at layouts, and mending what a start refuses.
//!
//! Not the rules. Invariant: whatever changes a layout holds the lock of the state folder, so it is
//! refused while a gateway runs on it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::Plan;
use breccia_core::layout::{CompositeKind, Layout, Verdict};
use breccia_core::slots::ShardIndex;
use breccia_kv::identity::marker_key;
use breccia_net::layout_store::{LayoutStore, LayoutStoreError};

use crate::blobs::command as blobs;
use crate::cli::{ConfigArgument, LayoutCommand};
use crate::loading::{self, Given, Layouts, Wanted};
use crate::markers::{self, MarkedLeaf};
use crate::reach::Target;
use crate::trouble::{Trouble, print};

/// How long a shard may take to count its keys.
const COUNT_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(command: &LayoutCommand) -> Result<(), Trouble> {
    match command {
        LayoutCommand::Show { config, store } => show(&Opened::new(config)?, store.as_deref()),
        LayoutCommand::Diff { config } => diff(&Opened::new(config)?),
        LayoutCommand::Export { config, store } => {
            print(&Opened::new(config)?.reading().export(store)?);
            Ok(())
        }
        LayoutCommand::Import {
            config,
            replace,
            document,
        } => {
            let text = std::fs::read_to_string(document).map_err(|error| {
                let reason = breccia_net::error::plain_reason(&error);
                Trouble::refused(format!("{} cannot be read ({reason})", document.display()))
            })?;
            done(&Opened::new(config)?.writing()?.import(&text, *replace)?)
        }
        LayoutCommand::Adopt { config, store } => adopt(&Opened::new(config)?, store),
        LayoutCommand::Rename { config, old, new } => {
            done(&Opened::new(config)?.writing()?.rename(old, new)?)
        }
        LayoutCommand::RenameShard {
            config,
            store,
            old,
            new,
        } => done(
            &Opened::new(config)?
                .writing()?
                .rename_shard(store, old, new)?,
        ),
        LayoutCommand::AcceptAddress {
            config,
            store,
            shards,
        } => accept_address(&Opened::new(config)?, store, shards),
        LayoutCommand::Mark {
            config,
            replace,
            store,
            shards,
        } => mark(&Opened::new(config)?, store, shards, *replace),
    }
}

/// A refusal of the layout store: whatever it is, no layout was changed.
impl From<LayoutStoreError> for Trouble {
    fn from(error: LayoutStoreError) -> Self {
        match error {
            LayoutStoreError::Io { .. } => Self::failed(error),
            error => Self::refused(error),
        }
    }
}

/// A config and the state folder that goes with it.
struct Opened<'a> {
    given: Given<'a>,
    plan: Plan,
}

impl<'a> Opened<'a> {
    fn new(argument: &'a ConfigArgument) -> Result<Self, Trouble> {
        let given = argument.given();
        let (plan, _) = given.load()?;
        Ok(Self { given, plan })
    }

    fn reading(&self) -> LayoutStore {
        LayoutStore::open_read_only(&self.plan.state_dir)
    }

    fn writing(&self) -> Result<LayoutStore, LayoutStoreError> {
        LayoutStore::open(&self.plan.state_dir)
    }

    fn composite(&self, name: &str) -> Result<Wanted, Trouble> {
        loading::wanted(&self.plan, name).ok_or_else(|| {
            let known: Vec<&str> = loading::composites(&self.plan).into_keys().collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            let line = format!("the config has no composite '{name}'; there are: {known}");
            Trouble::refused(line)
        })
    }
}

/// What a change came to.
#[expect(clippy::unnecessary_wraps, reason = "it ends commands that can fail")]
fn done(layout: &Layout) -> Result<(), Trouble> {
    print(&format!(
        "{}: layout {}, epoch {}\n",
        layout.composite(),
        layout.digest(),
        layout.epoch().get()
    ));
    Ok(())
}

fn show(opened: &Opened<'_>, store: Option<&str>) -> Result<(), Trouble> {
    let layouts = match store {
        None => opened.reading().all()?,
        Some(name) => match opened.reading().load(name)? {
            Some(layout) => vec![layout],
            None => return Err(no_layout(opened, name)),
        },
    };
    if layouts.is_empty() {
        let folder = opened.plan.state_dir.display();
        print(&format!(
            "there is no layout in {folder}: the first start makes them\n"
        ));
    }
    for layout in layouts {
        let addresses = opened.reading().last_addresses(layout.composite())?;
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "composite  {} ({})",
            layout.composite(),
            layout.role().name()
        );
        let _ = writeln!(out, "digest     {}", layout.digest());
        let _ = writeln!(out, "epoch      {}", layout.epoch().get());
        let _ = writeln!(out, "hash       {}", layout.hash());
        let tag = layout
            .hash_tag()
            .map_or("none".to_owned(), |tag| tag.to_string());
        let _ = writeln!(out, "hash-tag   {tag}");
        if layout.kind() == CompositeKind::Blob {
            let _ = writeln!(out, "hashed     {}", layout.placement_key());
        }
        let _ = writeln!(out, "seed       {:016x}", layout.seed());
        let _ = writeln!(out, "slots      {}", layout.slot_count());
        for (index, shard) in (0_u16..).zip(layout.shards()) {
            let slots = layout.slots_held(ShardIndex::new(index));
            let place = addresses.get(shard).map_or("-", String::as_str);
            let _ = writeln!(out, "shard      {shard}  {slots} slots  {place}");
        }
        print(&format!("{out}\n"));
    }
    Ok(())
}

fn no_layout(opened: &Opened<'_>, name: &str) -> Trouble {
    Trouble::failed(format!(
        "'{name}' has no layout in {}; the first start makes it",
        opened.plan.state_dir.display()
    ))
}

fn diff(opened: &Opened<'_>) -> Result<(), Trouble> {
    let layouts = opened.reading();
    let refusals = loading::refusals(&opened.plan);
    let mut lines: Vec<String> = refusals
        .iter()
        .flat_map(|refusal| opened.given.lines(refusal))
        .collect();
    let refused = |name: &str| {
        let mut composites = refusals.iter().map(LayoutStoreError::composite);
        composites.any(|composite| composite.is_none_or(|composite| composite == name))
    };
    for name in loading::composites(&opened.plan).into_keys() {
        if refused(name) {
            continue;
        }
        match layouts.load(name)? {
            None => print(&format!(
                "{name}: no layout yet: the first start makes it\n"
            )),
            Some(layout) => print(&format!("{name}: as in the layout {}\n", layout.digest())),
        }
    }
    let orphans: BTreeSet<&str> = refusals
        .iter()
        .filter_map(LayoutStoreError::orphan)
        .collect();
    for layout in layouts.all()? {
        let name = layout.composite();
        if loading::wanted(&opened.plan, name).is_none() && !orphans.contains(name) {
            lines.push(format!(
                "'{name}': there is a layout, and the config has no such composite"
            ));
        }
    }
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Trouble::Failed(lines))
    }
}

fn adopt(opened: &Opened<'_>, name: &str) -> Result<(), Trouble> {
    let wanted = opened.composite(name)?;
    if wanted.spec.kind == CompositeKind::Blob {
        return blobs::adopt(&opened.plan, &opened.writing()?, &wanted);
    }
    let layouts = opened.writing()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::failed)?;
    let full = runtime.block_on(not_empty(&opened.plan, name));
    runtime.shutdown_background();
    if !full.is_empty() {
        return Err(Trouble::Refused(full));
    }
    let layout = layouts.adopt(&wanted.spec)?;
    done(&layout)
}

/// One line for each shard that holds keys or cannot tell.
async fn not_empty(plan: &Plan, composite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let markers: Vec<Vec<u8>> = markers::composites(plan)
        .into_iter()
        .map(marker_key)
        .collect();
    for (name, store) in plan.leaves(composite) {
        let target = match Target::of(store) {
            Ok(Some(target)) => target,
            Ok(None) => continue,
            Err(error) => {
                lines.push(format!("'{name}': {error}"));
                continue;
            }
        };
        let line = match tokio::time::timeout(COUNT_LIMIT, target.key_count(&markers)).await {
            Ok(Ok(0)) => continue,
            Ok(Ok(keys)) => format!("'{name}' holds {keys} keys; adopt needs empty shards"),
            Ok(Err(why)) => format!("'{name}' cannot tell whether it is empty ({why})"),
            Err(_) => format!("'{name}' cannot tell whether it is empty (it does not answer)"),
        };
        lines.push(line);
    }
    lines
}

fn accept_address(opened: &Opened<'_>, name: &str, shards: &[String]) -> Result<(), Trouble> {
    let wanted = opened.composite(name)?;
    let named: Vec<&String> = if shards.is_empty() {
        wanted.addresses.keys().collect()
    } else {
        shards.iter().collect()
    };
    let layouts = opened.writing()?;
    for shard in named {
        let Some(address) = wanted.addresses.get(shard) else {
            let line = format!("'{shard}' is no shard of '{name}' that lies on a server");
            return Err(Trouble::refused(line));
        };
        let before = layouts.accept_address(name, shard, address)?;
        let before = before.unwrap_or_else(|| "unknown".to_owned());
        print(&format!("{name}/{shard}: {address} (before: {before})\n"));
    }
    Ok(())
}

/// Writes markers on leaves that an administrator knows to be the right ones.
fn mark(opened: &Opened<'_>, name: &str, shards: &[String], replace: bool) -> Result<(), Trouble> {
    if opened.composite(name)?.spec.kind == CompositeKind::Blob {
        return mark_blobs(opened, name, shards, replace);
    }
    if !markers::composites(&opened.plan).contains(&name) {
        let line = format!("'{name}' has no markers; set marker = true in [store.{name}] first");
        return Err(Trouble::refused(line));
    }
    let Some(layout) = opened.reading().load(name)? else {
        return Err(no_layout(opened, name));
    };
    let layouts = Layouts::from([(name.to_owned(), Arc::new(layout))]);
    let mut leaves = MarkedLeaf::all(&opened.plan, &layouts).map_err(Trouble::refused)?;
    for shard in shards {
        if !leaves.iter().any(|leaf| leaf.name == *shard) {
            let known: Vec<&str> = leaves.iter().map(|leaf| leaf.name.as_str()).collect();
            let known = known.join(", ");
            let line = format!("'{shard}' is no server of '{name}'; there are: {known}");
            return Err(Trouble::refused(line));
        }
    }
    leaves.retain(|leaf| shards.contains(&leaf.name));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::failed)?;
    let marking = async {
        for leaf in &leaves {
            let done = tokio::time::timeout(COUNT_LIMIT, mark_leaf(leaf, replace)).await;
            let done = done.unwrap_or_else(|_| Err("it does not answer".to_owned()));
            let done = done.map_err(|why| Trouble::failed(format!("{}: {why}", leaf.name)))?;
            print(&format!("{}: {done}\n", leaf.name));
        }
        Ok(())
    };
    let done = runtime.block_on(marking);
    runtime.shutdown_background();
    done
}

fn mark_blobs(
    opened: &Opened<'_>,
    name: &str,
    shards: &[String],
    replace: bool,
) -> Result<(), Trouble> {
    let store = opened.writing()?;
    let Some(layout) = store.load(name)? else {
        return Err(no_layout(opened, name));
    };
    let leaves: Vec<&str> = opened
        .plan
        .leaves(name)
        .into_iter()
        .map(|(leaf, _)| leaf)
        .collect();
    if let Some(stranger) = shards
        .iter()
        .find(|shard| !leaves.contains(&shard.as_str()))
    {
        let known = leaves.join(", ");
        let line = format!("'{stranger}' is no leaf of '{name}'; there are: {known}");
        return Err(Trouble::refused(line));
    }
    let layouts = Layouts::from([(name.to_owned(), Arc::new(layout))]);
    for leaf in blobs::mark(&opened.plan, &store, &layouts, shards, replace)? {
        print(&format!("{leaf}: it carries the marker\n"));
    }
    Ok(())
}

async fn mark_leaf(leaf: &MarkedLeaf, replace: bool) -> Result<&'static str, String> {
    let mut peer = leaf.enter().await?;
    let mut written = false;
    for marker in &leaf.markers {
        match markers::look(&mut peer, marker, None, false).await?.verdict {
            Verdict::Right => {}
            Verdict::Refuse(fault) if !replace => {
                return Err(format!("{fault}; write over it with --replace"));
            }
            _ => written |= markers::write(&mut peer, marker, replace).await?,
        }
    }
    Ok(if written {
        "marked"
    } else {
        "carries the marker already"
    })
}
