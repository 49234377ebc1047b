//! Reserved objects over a folder: files like any other, with a table of their own.
//!
//! Not their meaning. Invariant: they lie outside of the clients' keys and survive a rebuild of the
//! index.

use std::sync::Arc;

use bytes::Bytes;

use super::Inner;
use super::get::LOOK_UPS;
use super::index::change::Change;
use super::index::lookup;
use super::read::{Fault, Reader, Walk};
use super::records::Record;
use crate::body::Body;
use crate::error::BlobError;
use crate::key::Key;
use crate::store::{MAX_RESERVED_BYTES, MAX_RESERVED_NAME_BYTES, ReservedWrite};

pub(super) async fn read(inner: &Arc<Inner>, name: &str) -> Result<Option<Bytes>, BlobError> {
    check_name(inner, name)?;
    let name = name.to_owned();
    inner
        .read_blocking(move |inner| {
            let mut missed = None;
            for _ in 0..LOOK_UPS {
                let found = inner.index.read(|c| lookup::reserved(c, &name))?;
                let Some(file) = found else { return Ok(None) };
                let whose = Key::new(name.clone().into_bytes())?;
                let reader = match Reader::open(&inner.folder, file) {
                    Ok(reader) => reader,
                    Err(Fault::Gone) if missed != Some(file.generation) => {
                        missed = Some(file.generation);
                        continue;
                    }
                    Err(fault) => {
                        let whose = format!("the reserved object {name}");
                        return Err(fault.error(&inner.folder, &whose, file.generation));
                    }
                };
                let mut walk = Walk::new(whose, &[file], &(0..file.size)).with_open(reader);
                let mut bytes = Vec::new();
                while let Some(more) = walk.step(&inner.folder)? {
                    bytes.extend_from_slice(&more);
                }
                return Ok(Some(bytes.into()));
            }
            Err(BlobError::Conflict {
                store: inner.folder.name().to_owned(),
            })
        })
        .await
}

pub(super) async fn write(
    inner: &Arc<Inner>,
    name: &str,
    bytes: Bytes,
    how: ReservedWrite,
) -> Result<bool, BlobError> {
    check_name(inner, name)?;
    if bytes.len() > MAX_RESERVED_BYTES {
        return Err(BlobError::TooLarge {
            store: inner.folder.name().to_owned(),
            limit: MAX_RESERVED_BYTES as u64,
        });
    }
    let record = Record::Reserved {
        name: name.to_owned(),
    };
    let written = inner
        .write_body(&mut Body::from_bytes(bytes), |_| record)
        .await?;
    let change = Change::WriteReserved {
        name: name.to_owned(),
        file: written.file,
        if_absent: how == ReservedWrite::IfAbsent,
    };
    inner.committer.commit(change, vec![written.pending]).await
}

pub(super) async fn delete(inner: &Arc<Inner>, name: &str) -> Result<(), BlobError> {
    check_name(inner, name)?;
    let change = Change::DeleteReserved {
        name: name.to_owned(),
    };
    inner.committer.commit(change, Vec::new()).await.map(drop)
}

fn check_name(inner: &Inner, name: &str) -> Result<(), BlobError> {
    if name.is_empty() || name.len() > MAX_RESERVED_NAME_BYTES {
        return Err(BlobError::Unsupported {
            store: inner.folder.name().to_owned(),
            operation: format!("a reserved object with a name of {} bytes", name.len()),
            reason: format!("a name has 1 to {MAX_RESERVED_NAME_BYTES} bytes"),
        });
    }
    Ok(())
}
