//! Writing generation files: a body or a footer alone, synced, and not yet referred to.
//!
//! Not the commit that makes it an object. Invariant: a file that is not kept is removed, whoever
//! gives up and when: also if the future that asked for it is dropped while a thread writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::Arc;

use breccia_core::error::Effect;

use super::Inner;
use super::folder::Folder;
use super::format::{self, MAX_DATA_BYTES, TRAILER_BYTES};
use super::hot;
use super::records::{FileRef, Record, to_json};
use super::sweep::Sweep;
use crate::body::{Body, Digests};
use crate::error::BlobError;

/// So many bytes of a body are gathered for one write: whole blocks.
const WRITE_BYTES: usize = 4 * format::BLOCK_BYTES;
/// Room for table, footer and trailer, so that a small file's buffer need not grow.
const TAIL_ROOM: usize = 1024;

/// A file that nothing refers to yet: removed when this is dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Pending {
    generation: u64,
    sweep: Option<Arc<Sweep>>,
    /// The file itself, if it is so small that readers may want it open.
    small: Option<File>,
}

impl Pending {
    /// The open file of a small object; once.
    pub(super) fn small_file(&mut self) -> Option<File> {
        self.small.take()
    }

    /// The index refers to it now.
    pub(super) fn keep(mut self) {
        self.sweep = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(sweep) = self.sweep.take() {
            sweep.remove([self.generation]);
        }
    }
}

/// A file that is written and synced.
#[derive(Debug)]
pub(super) struct WrittenFile {
    pub(super) file: FileRef,
    pub(super) pending: Pending,
}

/// A file that is being written.
#[derive(Debug)]
struct Writer {
    file: File,
    pending: Pending,
    table: Vec<u8>,
    data_bytes: u64,
}

impl Writer {
    fn create(folder: &Folder, sweep: &Arc<Sweep>, generation: u64) -> io::Result<Self> {
        let path = folder.file(generation);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        let pending = Pending {
            generation,
            sweep: Some(Arc::clone(sweep)),
            small: None,
        };
        Ok(Self {
            file,
            pending,
            table: Vec::new(),
            data_bytes: 0,
        })
    }

    fn take_in(&mut self, data: &[u8]) {
        format::add_blocks(&mut self.table, data);
        self.data_bytes = self.data_bytes.saturating_add(data.len() as u64);
    }

    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.take_in(data);
        self.file.write_all(data)
    }

    /// Writes the last data and everything behind it at once, and syncs file and name.
    fn finish(
        mut self,
        folder: &Folder,
        mut buffer: Vec<u8>,
        footer: &[u8],
    ) -> io::Result<WrittenFile> {
        self.take_in(&buffer);
        let generation = self.pending.generation;
        format::add_tail(
            &mut buffer,
            generation,
            self.data_bytes,
            &self.table,
            footer,
        );
        self.file.write_all(&buffer)?;
        self.file.sync_data()?;
        folder.sync_name(generation)?;
        let tail = [self.table.len(), footer.len(), TRAILER_BYTES];
        let tail: u64 = tail.iter().map(|bytes| *bytes as u64).sum();
        let file = FileRef {
            generation,
            size: self.data_bytes,
            file_bytes: self.data_bytes.saturating_add(tail),
        };
        if file.file_bytes <= hot::MAX_FILE_BYTES {
            self.pending.small = Some(self.file);
        }
        Ok(WrittenFile {
            file,
            pending: self.pending,
        })
    }
}

impl Inner {
    /// Writes a body to its clean end. `record` says what the file is, once the digests are known.
    pub(super) async fn write_body(
        self: &Arc<Self>,
        body: &mut Body,
        record: impl FnOnce(&Digests) -> Record,
    ) -> Result<WrittenFile, BlobError> {
        if body.size() > MAX_DATA_BYTES {
            return Err(BlobError::TooLarge {
                store: self.folder.name().to_owned(),
                limit: MAX_DATA_BYTES,
            });
        }
        let expected = usize::try_from(body.size()).unwrap_or(WRITE_BYTES);
        let mut buffer = Vec::with_capacity(expected.min(WRITE_BYTES) + TAIL_ROOM);
        let mut writer = None;
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk?;
            while buffer.len() + chunk.len() > WRITE_BYTES {
                let room = WRITE_BYTES.saturating_sub(buffer.len());
                buffer.extend_from_slice(&chunk.split_to(room));
                let (open, emptied) = self.append(writer, buffer).await?;
                writer = Some(open);
                buffer = emptied;
            }
            buffer.extend_from_slice(&chunk);
        }
        let digests = body
            .digests()
            .ok_or_else(|| self.system("read a body", "it has no end"))?;
        let footer = to_json(self.folder.name(), &record(digests))?;
        self.finish(writer, buffer, footer).await
    }

    /// Writes a file that is a footer only.
    pub(super) async fn write_record(
        self: &Arc<Self>,
        record: &Record,
    ) -> Result<WrittenFile, BlobError> {
        let footer = to_json(self.folder.name(), record)?;
        if footer.len() as u64 > format::MAX_FOOTER_BYTES {
            return Err(self.system("write down an object", "there is too much to say of it"));
        }
        self.finish(None, Vec::with_capacity(footer.len() + TAIL_ROOM), footer)
            .await
    }

    async fn append(
        self: &Arc<Self>,
        writer: Option<Writer>,
        mut buffer: Vec<u8>,
    ) -> Result<(Writer, Vec<u8>), BlobError> {
        let generation = self.generation_unless(writer.is_some()).await?;
        self.write_blocking("write a file", move |inner| {
            let mut writer = inner.writer(writer, generation)?;
            writer.append(&buffer)?;
            buffer.clear();
            Ok((writer, buffer))
        })
        .await
    }

    async fn finish(
        self: &Arc<Self>,
        writer: Option<Writer>,
        buffer: Vec<u8>,
        footer: Vec<u8>,
    ) -> Result<WrittenFile, BlobError> {
        let generation = self.generation_unless(writer.is_some()).await?;
        self.write_blocking("write a file", move |inner| {
            let writer = inner.writer(writer, generation)?;
            writer.finish(&inner.folder, buffer, &footer)
        })
        .await
    }

    async fn generation_unless(&self, taken: bool) -> Result<u64, BlobError> {
        if taken {
            Ok(0)
        } else {
            self.generation().await
        }
    }

    fn writer(&self, writer: Option<Writer>, generation: u64) -> io::Result<Writer> {
        match writer {
            Some(writer) => Ok(writer),
            None => Writer::create(&self.folder, &self.sweep, generation),
        }
    }

    async fn write_blocking<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        job: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let permit = Arc::clone(&self.writes).acquire_owned().await;
        let inner = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let result = job(&inner);
            drop(permit);
            result
        })
        .await;
        match done {
            Ok(result) => {
                result.map_err(|error| self.folder.io_error(what, &error, Effect::NotApplied))
            }
            Err(ended) => Err(self.system(what, &ended.to_string())),
        }
    }
}
