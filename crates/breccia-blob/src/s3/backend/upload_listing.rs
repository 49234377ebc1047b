//! Listings of uploads, and the end of those that have expired.
//!
//! Invariant: uploads come by key and then by id, whatever the server's order within a key is.

use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::listing::no_bucket;
use super::meta::time_of;
use crate::error::BlobError;
use crate::http::Repeat;
use crate::key::Key;
use crate::key_names::ListFrom;
use crate::listing::{MAX_PAGE, Start};
use crate::store::Maintained;
use crate::upload::{UploadId, UploadInfo, UploadPage};

/// The most pages of uploads of one key that are put in order, and of uploads that one call reads.
const MAX_UPLOAD_PAGES: usize = 20;
/// The most uploads that one call of maintenance ends.
const MAX_ENDED_UPLOADS: usize = 1000;

impl S3Store {
    pub(super) async fn uploads_page(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> Result<UploadPage, BlobError> {
        let mut found: Vec<UploadInfo> = Vec::new();
        let mut marker: Option<String> = None;
        let behind = after.as_ref().map(|(key, _)| key.clone());
        if let Some((key, id)) = after {
            if let (Some(id), Ok(name)) = (id, self.names.name_of(&key))
                && key.as_bytes().starts_with(&prefix)
            {
                found = self.uploads_of(&name, &key).await?;
                found.retain(|upload| upload.id > id);
            }
            if let ListFrom::Behind(name) = self.names.list_from(&Start::Behind(key.bytes())) {
                marker = Some(name);
            }
        }
        let within = self.names.name_prefix(&prefix);
        let mut id_marker: Option<String> = None;
        for _ in 0..MAX_UPLOAD_PAGES {
            let page = self
                .raw_uploads(&within, marker.take(), id_marker.take())
                .await?;
            let taken = page.uploads.iter().filter_map(|raw| {
                let key = self.names.key_of(&raw.name)?;
                // Ceph's gateway gives the marker's own key again.
                let news = behind.as_ref().is_none_or(|behind| key > *behind);
                let wanted = news && key.as_bytes().starts_with(&prefix);
                wanted.then(|| UploadInfo {
                    key,
                    id: UploadId(raw.id.clone()),
                    begun_ms: raw.begun_ms,
                })
            });
            found.extend(taken);
            // The server's order within a key is its own; a key is whole once another one follows.
            let whole = found.last().map(|last| last.key.clone());
            let in_whole_keys = found
                .iter()
                .filter(|upload| Some(&upload.key) != whole.as_ref())
                .count();
            if !page.truncated || in_whole_keys > limit {
                found.sort_by(|one, other| (&one.key, &one.id).cmp(&(&other.key, &other.id)));
                let more = page.truncated || found.len() > limit;
                found.truncate(limit);
                return Ok(UploadPage {
                    more: more && !found.is_empty(),
                    uploads: found,
                });
            }
            (marker, id_marker) = (page.next_key, page.next_id);
            if marker.is_none() {
                return Err(self.nonsense("a cut listing of uploads without a marker", false));
            }
        }
        Err(BlobError::Overloaded {
            store: self.name.clone(),
            limit: "the most uploads of one key that can be listed".to_owned(),
        })
    }

    /// All uploads of one key, in the order of their ids.
    async fn uploads_of(&self, name: &str, key: &Key) -> Result<Vec<UploadInfo>, BlobError> {
        let mut found = Vec::new();
        let (mut marker, mut id_marker) = (None, None);
        for _ in 0..MAX_UPLOAD_PAGES {
            let page = self
                .raw_uploads(name, marker.take(), id_marker.take())
                .await?;
            let beyond = page.uploads.iter().any(|raw| raw.name != name);
            let own = page.uploads.into_iter().filter(|raw| raw.name == name);
            found.extend(own.map(|raw| UploadInfo {
                key: key.clone(),
                id: UploadId(raw.id),
                begun_ms: raw.begun_ms,
            }));
            if beyond || !page.truncated {
                found.sort_by(|one, other| one.id.cmp(&other.id));
                return Ok(found);
            }
            (marker, id_marker) = (page.next_key, page.next_id);
        }
        Err(BlobError::Overloaded {
            store: self.name.clone(),
            limit: "the most uploads of one key that can be listed".to_owned(),
        })
    }

    async fn raw_uploads(
        &self,
        prefix: &str,
        key_marker: Option<String>,
        id_marker: Option<String>,
    ) -> Result<RawUploads, BlobError> {
        let most = MAX_PAGE.to_string();
        let mut query = vec![
            ("uploads", ""),
            ("encoding-type", "url"),
            ("max-uploads", &most),
            ("prefix", prefix),
        ];
        if let Some(marker) = &key_marker {
            query.push(("key-marker", marker));
            if let Some(marker) = &id_marker {
                query.push(("upload-id-marker", marker));
            }
        }
        let head = self.head_of(Method::GET, "", &query);
        let answer = self
            .call(head, Bytes::new(), Repeat::WhenFailed)
            .await
            .map_err(no_bucket(&self.name))?;
        let document = self.document(&answer, false)?;
        let encoded = document.text_of("EncodingType") == Some("url");
        let mut page = RawUploads {
            truncated: document.says("IsTruncated"),
            ..RawUploads::default()
        };
        for upload in document.all("Upload") {
            let id = upload.text_of("UploadId").filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| self.nonsense("a listed upload without an id", false))?;
            if let Some(name) = self.listed_name(upload, "Key", encoded)? {
                page.uploads.push(RawUpload {
                    name,
                    id: id.to_owned(),
                    begun_ms: time_of(upload.text_of("Initiated")),
                });
            }
        }
        if page.truncated {
            page.next_key = self.listed_name(&document, "NextKeyMarker", encoded)?;
            page.next_id = document.text_of("NextUploadIdMarker").map(str::to_owned);
        }
        Ok(page)
    }

    /// Ends uploads that were begun too long ago; those that are left are for the next call.
    pub(super) async fn end_expired(
        &self,
        expired_before_ms: u64,
    ) -> Result<Maintained, BlobError> {
        let mut done = Maintained::default();
        let (mut marker, mut id_marker) = (None, None);
        for _ in 0..MAX_UPLOAD_PAGES {
            let page = self
                .raw_uploads(self.names.prefix(), marker.take(), id_marker.take())
                .await?;
            for upload in page.uploads {
                // A time that could not be read is 0: such an upload is left alone.
                if upload.begun_ms == 0 || upload.begun_ms >= expired_before_ms {
                    continue;
                }
                match self.end_named(&upload.name, &UploadId(upload.id)).await {
                    Ok(()) => done.uploads += 1,
                    Err(BlobError::NoSuchUpload) => {}
                    Err(error) => return Err(error),
                }
                if done.uploads >= MAX_ENDED_UPLOADS as u64 {
                    return Ok(done);
                }
            }
            if !page.truncated || page.next_key.is_none() {
                break;
            }
            (marker, id_marker) = (page.next_key, page.next_id);
        }
        Ok(done)
    }
}

#[derive(Debug, Default)]
struct RawUploads {
    uploads: Vec<RawUpload>,
    truncated: bool,
    next_key: Option<String>,
    next_id: Option<String>,
}

#[derive(Debug)]
struct RawUpload {
    name: String,
    id: String,
    begun_ms: u64,
}
