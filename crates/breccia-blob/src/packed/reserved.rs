//! Reserved objects, for those who keep something beside the clients' objects.
//!
//! Names that begin with `~` are the members' own (uploads, probes) and are not listed here.
//! Invariant: none of them has the name of a key.

use bytes::Bytes;

use super::listing::walk;
use super::{Guard, Member};
use crate::error::BlobError;
use crate::listing::MAX_PAGE;
use crate::store::ReservedWrite;

/// Writes one; whether it was written.
pub(crate) async fn write<M: Member + ?Sized>(
    member: &M,
    name: &str,
    bytes: Bytes,
    how: ReservedWrite,
) -> Result<bool, BlobError> {
    let name = member.names().reserved(name);
    let guard = match how {
        ReservedWrite::Always => Guard::None,
        ReservedWrite::IfAbsent => {
            // Looked at first as well, should the service not honour the condition.
            match member.look(&name).await {
                Ok(_) => return Ok(false),
                Err(BlobError::NotFound) => Guard::IfAbsent,
                Err(error) => return Err(error),
            }
        }
    };
    match member.write_small(&name, bytes, "", &guard).await {
        Ok(()) => Ok(true),
        Err(BlobError::PreconditionFailed) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The names with this prefix, behind `after`.
pub(crate) async fn list<M: Member + ?Sized>(
    member: &M,
    prefix: &str,
    after: Option<&str>,
) -> Result<Vec<String>, BlobError> {
    let names = member.names();
    let behind = after.map(|after| names.reserved(after));
    let found = walk(member, names.reserved(prefix), behind, MAX_PAGE).await?;
    let own = found.iter().filter_map(|(name, _)| names.reserved_of(name));
    // The members' own names sort behind all letters and digits.
    Ok(own
        .filter(|name| !name.starts_with('~'))
        .map(str::to_owned)
        .collect())
}
