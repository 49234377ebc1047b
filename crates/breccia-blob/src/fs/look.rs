//! A look at a folder from outside: whether a store was begun in it, and which markers it carries.
//!
//! Not a way to use it. Invariant: nothing in the folder is made, written or removed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::Path;

use breccia_core::error::Effect;
use rusqlite::Connection;

use super::folder::{DATA, Folder, INDEX_FILE, LOCK_FILE, generation_of};
use super::index::lookup;
use super::read::{Reader, Walk};
use super::{FsOptions, open};
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::ListRequest;
use crate::local::{Contents, Looked, read_only};
use crate::markers::marker_name;

/// Whether a store was begun here: there is an index, or a file that one could be made of.
pub(crate) fn is_begun(path: &Path) -> io::Result<bool> {
    if fs::exists(path.join(INDEX_FILE))? {
        return Ok(true);
    }
    let data = match fs::read_dir(path.join(DATA)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        data => data?,
    };
    for shard in data {
        let shard = shard?;
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(shard.path())? {
            if generation_of(&file?.file_name()).is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What a folder shows. Blocks.
pub(crate) fn look(options: &FsOptions) -> Result<Looked, BlobError> {
    let path = &options.path;
    let failed = |error: io::Error| BlobError::System {
        store: options.name.clone(),
        what: format!("look at {}", path.display()),
        reason: error.to_string(),
        effect: Effect::NotApplied,
    };
    if !is_begun(path).map_err(failed)? {
        return Ok(Looked::Nothing);
    }
    let mut lock = File::open(path.join(LOCK_FILE)).map_err(failed)?;
    match lock.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            lock.read_to_string(&mut holder).map_err(failed)?;
            return Ok(Looked::InUse(format!("process {}", holder.trim())));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let folder = Folder::found(&options.name, path, lock).map_err(failed)?;
    if !fs::exists(folder.index()).map_err(failed)? {
        return Ok(Looked::Unindexed);
    }
    let told = |error: rusqlite::Error| {
        folder.index_error("look at the index", &error, Effect::NotApplied)
    };
    let connection = read_only::open(&folder.index()).map_err(told)?;
    if !open::has_tables(&folder, &connection)? {
        return Ok(Looked::Nothing);
    }
    contents(&folder, &connection).map(Looked::Store)
}

fn contents(folder: &Folder, connection: &Connection) -> Result<Contents, BlobError> {
    let told = |error: rusqlite::Error| {
        folder.index_error("look at the index", &error, Effect::NotApplied)
    };
    let mut contents = Contents::default();
    let names = lookup::reserved_names(connection, &marker_name(""), None).map_err(told)?;
    for name in names {
        let Some(file) = lookup::reserved(connection, &name).map_err(told)? else {
            continue;
        };
        let whose = Key::new(name.clone().into_bytes())?;
        let reader = Reader::open(folder, file).map_err(|fault| {
            let whose = format!("the reserved object {name}");
            fault.error(folder, &whose, file.generation)
        })?;
        let mut walk = Walk::new(whose, &[file], &(0..file.size)).with_open(reader);
        let mut bytes = Vec::new();
        while let Some(more) = walk.step(folder)? {
            bytes.extend_from_slice(&more);
        }
        contents.markers.insert(name, bytes.into());
    }
    let one = ListRequest {
        limit: 1,
        ..ListRequest::default()
    };
    contents.first = lookup::list(connection, one).map_err(told)?;
    Ok(contents)
}
