//! What can go wrong with layouts and the state folder.
//!
//! Invariant: a refusal says what the layout has, what the config has, and what mends it.

use std::io;
use std::path::PathBuf;

use breccia_core::error::{CoreError, Effect, ErrorKind, Origin};
use breccia_core::layout::LayoutDifference;

use crate::error::plain_reason;

/// An error of the layout store. Nothing was changed, unless it is about writing a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutStoreError {
    /// Another process holds the state folder.
    #[error(
        "the state folder {} is in use by another process{}; stop that one, or give this one a \
         folder of its own (`dir` in `[state]`)",
        folder.display(),
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The state folder.
        folder: PathBuf,
        /// The process that holds it, if it could be read.
        holder: Option<u32>,
    },
    /// The system refused something.
    #[error(
        "cannot {action} {} ({}); the state folder (`dir` in `[state]`) must be a folder this \
         process can read and write",
        path.display(),
        plain_reason(source)
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something was to be saved in a folder opened for reading.
    #[error("{} cannot be written: the state folder was opened for reading only", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// A file is far larger than anything kept in a state folder.
    #[error("{} has {bytes} bytes, which no file of a state folder has; restore it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A layout document in the state folder cannot be used.
    #[error("{}: {source}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CoreError,
    },
    /// A layout document has the file name of another composite.
    #[error(
        "{} holds the layout of '{holds}'; give the file the name {holds}.layout.toml again",
        path.display()
    )]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The composite it is of.
        holds: String,
    },
    /// The file of last addresses cannot be read.
    #[error(
        "{}: {problem}; make sure no two shards have changed places, then remove the file",
        path.display()
    )]
    Addresses {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file of what the shards carry cannot be read.
    #[error("{}: {problem}; remove the file: each shard's marker is then checked as at first", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A document to be imported cannot be used.
    #[error("the layout cannot be imported: {source}")]
    Import {
        /// What is wrong with it.
        source: CoreError,
    },
    /// A document to be imported is not the layout the composite has.
    #[error(
        "'{composite}' already has a layout with digest {current} in {}, and the document has \
         digest {imported}; import it with `--replace` if the keys lie where the document says",
        path.display()
    )]
    ImportDiffers {
        /// The composite.
        composite: String,
        /// The file that holds its layout.
        path: PathBuf,
        /// The digest of that one.
        current: String,
        /// The digest of the document.
        imported: String,
    },
    /// A layout cannot be made or changed as asked.
    #[error(transparent)]
    Core {
        /// Why.
        source: CoreError,
    },
    /// There is no layout of this name.
    #[error("there is no layout of '{composite}' in {place}; there are: {known}")]
    NoLayout {
        /// The composite.
        composite: String,
        /// The state folder.
        place: String,
        /// The composites with a layout, for the message.
        known: String,
    },
    /// A composite would take the name of another one.
    #[error("'{composite}' already has a layout in {}; choose another name", path.display())]
    NameTaken {
        /// The composite.
        composite: String,
        /// The file that holds its layout.
        path: PathBuf,
    },
    /// The layout has no shard of this name.
    #[error("the layout of '{composite}' has no shard '{shard}'; it has {known}")]
    NoSuchShard {
        /// The composite.
        composite: String,
        /// The name that was asked for.
        shard: String,
        /// The names it has, for the message.
        known: String,
    },
    /// The config asks for something else than the layout is.
    #[error("{}", lines(differences))]
    Differs {
        /// The composite.
        composite: String,
        /// Each difference, with its mend.
        differences: Vec<LayoutDifference>,
    },
    /// A composite without a layout shares shards with a layout without a composite.
    #[error(
        "'{composite}' has no layout, but the layout of '{orphan}', which the config does not \
         have, holds its shards {shards}; if '{orphan}' was renamed, run `breccia layout rename \
         --config FILE {orphan} {composite}`, else put '{orphan}' back, or, if it is gone for \
         good with its keys, move {} away",
        path.display()
    )]
    Orphan {
        /// The composite in the config.
        composite: String,
        /// The composite in the state folder.
        orphan: String,
        /// The shards they share, for the message.
        shards: String,
        /// The file of the layout in the state folder.
        path: PathBuf,
    },
    /// `layout-digest` names another layout than the one there is.
    #[error(
        "'{composite}': layout-digest is {pinned}, but the layout in {place} has digest {digest}; \
         if all gateways use that one, set layout-digest = \"{digest}\", else run `breccia layout \
         export --config FILE {composite}` where the layout {pinned} is in use, and here `breccia \
         layout import --replace --config FILE DOCUMENT`"
    )]
    PinnedOther {
        /// The composite.
        composite: String,
        /// The digest in the config.
        pinned: String,
        /// The digest of the layout.
        digest: String,
        /// The state folder.
        place: String,
    },
    /// `layout-digest` names a layout that is not here, and a new one would be another.
    #[error(
        "'{composite}': layout-digest is {pinned}, but {place} holds no layout of it, and one made \
         from this config would have digest {digest}; run `breccia layout export --config FILE \
         {composite}` where the layout {pinned} is in use, and here `breccia layout import --config \
         FILE DOCUMENT`, or list `stores` in the order they had when it was made"
    )]
    PinnedMissing {
        /// The composite.
        composite: String,
        /// The digest in the config.
        pinned: String,
        /// The digest of the layout that would be made.
        digest: String,
        /// The state folder.
        place: String,
    },
    /// A shard is where another shard of the composite was.
    #[error(
        "'{composite}': the config has shard '{shard}' at {address}, where shard '{other}' was \
         when Breccia last started; put the addresses back, or, if the keys of '{shard}' lie there \
         now, run `breccia layout accept-address --config FILE {composite} {shard}`"
    )]
    AddressOfOther {
        /// The composite.
        composite: String,
        /// The shard in the config.
        shard: String,
        /// Its address in the config.
        address: String,
        /// The shard that was last seen there.
        other: String,
    },
}

fn lines(differences: &[LayoutDifference]) -> String {
    let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl LayoutStoreError {
    /// The composite that cannot be opened, where it is about a single one.
    pub fn composite(&self) -> Option<&str> {
        match self {
            Self::Differs { composite, .. }
            | Self::Orphan { composite, .. }
            | Self::PinnedOther { composite, .. }
            | Self::PinnedMissing { composite, .. }
            | Self::AddressOfOther { composite, .. } => Some(composite),
            _ => None,
        }
    }

    /// The composite that has a layout and is not in the config, where this is what is wrong.
    pub fn orphan(&self) -> Option<&str> {
        match self {
            Self::Orphan { orphan, .. } => Some(orphan),
            _ => None,
        }
    }

    /// What kind of trouble this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::ReadOnly { .. } => ErrorKind::System,
            _ => ErrorKind::Refused,
        }
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        match self.kind() {
            ErrorKind::System => Origin::Internal,
            _ => Origin::Downstream,
        }
    }

    /// No request depends on a layout store.
    pub fn effect(&self) -> Effect {
        Effect::NotApplied
    }
}
