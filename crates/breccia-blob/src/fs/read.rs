//! Reading generation files: a small one at once, a large one in steps, always verified.
//!
//! Not the look-up of which file it is. Invariant: a block's bytes are given only after its
//! checksum was found right, whatever range is asked for.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use breccia_core::error::Effect;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::Inner;
use super::folder::Folder;
use super::format::{self, TRAILER_BYTES, Trailer};
use super::records::{FileRef, Record};
use super::sweep::Pins;
use crate::body::{ByteSource, NextChunk};
use crate::error::BlobError;
use crate::key::Key;

/// Files up to this are read at once.
const AT_ONCE_BYTES: u64 = 320 * 1024;
/// Larger ones are read in steps of so many bytes: whole blocks.
const STEP_BYTES: u64 = 4 * format::BLOCK_BYTES as u64;

/// Why a file cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no such file: it was removed, or lost.
    Gone,
    /// It is not what was written.
    Damaged(String),
    /// The machine refused.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::UnexpectedEof => Self::Damaged("it is shorter than it was".to_owned()),
            _ => Self::Io(error),
        }
    }
}

impl From<&'static str> for Fault {
    fn from(problem: &'static str) -> Self {
        Self::Damaged(problem.to_owned())
    }
}

impl Fault {
    pub(super) fn error(self, folder: &Folder, key: &str, generation: u64) -> BlobError {
        match self {
            Self::Gone => folder.damaged(generation, key, "it is missing"),
            Self::Damaged(problem) => folder.damaged(generation, key, &problem),
            Self::Io(error) => folder.io_error("read a file", &error, Effect::NotApplied),
        }
    }
}

/// An open file whose table was found right, or all of its bytes.
#[derive(Debug)]
pub(super) enum Reader {
    /// The data of a small file, verified, and the file.
    Whole(Bytes, File),
    /// A large file.
    Steps {
        file: File,
        table: Vec<u8>,
        data_bytes: u64,
    },
}

impl Reader {
    /// Opens a file that the index refers to.
    pub(super) fn open(folder: &Folder, wanted: FileRef) -> Result<Self, Fault> {
        let file = File::open(folder.file(wanted.generation))?;
        if wanted.file_bytes <= AT_ONCE_BYTES {
            let data = whole(&file, wanted)?;
            return Ok(Self::Whole(data, file));
        }
        let (trailer, tail) = read_tail(&file, wanted.file_bytes)?;
        expect(&trailer, wanted)?;
        let (table, _) = trailer.split(&tail)?;
        Ok(Self::Steps {
            table: table.to_vec(),
            file,
            data_bytes: wanted.size,
        })
    }

    /// The file, if it is a small one.
    pub(super) fn small_file(&self) -> Option<File> {
        match self {
            Self::Whole(_, file) => file.try_clone().ok(),
            Self::Steps { .. } => None,
        }
    }

    /// The first bytes of a range that is not empty: as many as one step gives.
    fn read(&self, range: &Range<u64>) -> Result<Bytes, Fault> {
        match self {
            Self::Whole(data, _) => slice(data, range),
            Self::Steps {
                file,
                table,
                data_bytes,
            } => {
                let block = format::BLOCK_BYTES as u64;
                let step_end = (range.start / block * block).saturating_add(STEP_BYTES);
                let range = range.start..range.end.min(step_end);
                let covering = format::covering(&range, *data_bytes);
                let mut data = vec![0; length(&covering)];
                file.read_exact_at(&mut data, covering.start)?;
                let first = covering.start / block;
                format::check_blocks(table, first, &data)
                    .map_err(|block| Fault::Damaged(format!("block {block} is damaged")))?;
                let from = range.start.saturating_sub(covering.start);
                let to = range.end.saturating_sub(covering.start);
                slice(&Bytes::from(data), &(from..to))
            }
        }
    }
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

pub(super) fn slice(data: &Bytes, range: &Range<u64>) -> Result<Bytes, Fault> {
    let start = usize::try_from(range.start).unwrap_or(usize::MAX);
    let end = usize::try_from(range.end).unwrap_or(usize::MAX);
    if start > end || end > data.len() {
        return Err("it is shorter than the index says".into());
    }
    Ok(data.slice(start..end))
}

fn expect(trailer: &Trailer, wanted: FileRef) -> Result<(), Fault> {
    if trailer.generation != wanted.generation || trailer.data_bytes != wanted.size {
        return Err("it is not the file the index means".into());
    }
    Ok(())
}

/// Reads a small file with one read, and verifies all of it.
fn whole(file: &File, wanted: FileRef) -> Result<Bytes, Fault> {
    let length = usize::try_from(wanted.file_bytes).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    verified(bytes, wanted)
}

/// The data of a small file that was read whole, if all of it is right.
pub(super) fn verified(mut bytes: Vec<u8>, wanted: FileRef) -> Result<Bytes, Fault> {
    let at = bytes.len().saturating_sub(TRAILER_BYTES);
    let (rest, trailer) = bytes.split_at_checked(at).ok_or("it is too short")?;
    let trailer = Trailer::read(trailer, wanted.file_bytes)?;
    expect(&trailer, wanted)?;
    let at = usize::try_from(wanted.size).unwrap_or(usize::MAX);
    let (data, tail) = rest.split_at_checked(at).ok_or("it is too short")?;
    let (table, _) = trailer.split(tail)?;
    format::check_blocks(table, 0, data)
        .map_err(|block| Fault::Damaged(format!("block {block} is damaged")))?;
    bytes.truncate(at);
    Ok(bytes.into())
}

/// Reads trailer, table and footer of a file, and verifies table and footer.
fn read_tail(file: &File, file_bytes: u64) -> Result<(Trailer, Vec<u8>), Fault> {
    let at = file_bytes
        .checked_sub(TRAILER_BYTES as u64)
        .ok_or("it is too short")?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, at)?;
    let trailer = Trailer::read(&trailer, file_bytes)?;
    let mut tail = vec![0; trailer.tail_bytes()];
    file.read_exact_at(&mut tail, trailer.data_bytes)?;
    trailer.split(&tail)?;
    Ok((trailer, tail))
}

/// Reads what a file is, for a rebuild of the index.
pub(super) fn read_record(folder: &Folder, generation: u64) -> Result<(FileRef, Record), Fault> {
    let file = File::open(folder.file(generation))?;
    let file_bytes = file.metadata()?.len();
    let (trailer, tail) = read_tail(&file, file_bytes)?;
    if trailer.generation != generation {
        return Err("it is the file of another generation".into());
    }
    let (_, footer) = trailer.split(&tail)?;
    let file = FileRef {
        generation,
        size: trailer.data_bytes,
        file_bytes,
    };
    Ok((file, format::read_footer(footer)?))
}

/// Goes through the files of an object, from place to place.
#[derive(Debug)]
pub(super) struct Walk {
    key: Key,
    pieces: VecDeque<(FileRef, Range<u64>)>,
    open: Option<Reader>,
}

impl Walk {
    /// Through the bytes in `range` of the object that `pieces` hold.
    pub(super) fn new(key: Key, pieces: &[FileRef], range: &Range<u64>) -> Self {
        let mut wanted = VecDeque::new();
        let mut start = 0_u64;
        for piece in pieces {
            let end = start.saturating_add(piece.size);
            let from = range.start.clamp(start, end).saturating_sub(start);
            let to = range.end.clamp(start, end).saturating_sub(start);
            if from < to {
                wanted.push_back((*piece, from..to));
            }
            start = end;
        }
        Self {
            key,
            pieces: wanted,
            open: None,
        }
    }

    /// Goes on with a file that is open already: the first one.
    pub(super) fn with_open(mut self, reader: Reader) -> Self {
        self.open = Some(reader);
        self
    }

    fn is_done(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The next bytes; none at the end.
    pub(super) fn step(&mut self, folder: &Folder) -> Result<Option<Bytes>, BlobError> {
        let Some((file, range)) = self.pieces.front_mut() else {
            return Ok(None);
        };
        let generation = file.generation;
        let result = match self.open.take() {
            Some(reader) => Ok(reader),
            None => Reader::open(folder, *file),
        }
        .and_then(|reader| Ok((reader.read(range)?, reader)));
        let (bytes, reader) = result.map_err(|fault| {
            let error = fault.error(folder, &format!("key {}", self.key), generation);
            tracing::warn!(store = folder.name(), %error, "an object cannot be read");
            error
        })?;
        range.start = range.start.saturating_add(bytes.len() as u64);
        if range.start < range.end {
            self.open = Some(reader);
        } else {
            self.pieces.pop_front();
        }
        Ok(Some(bytes))
    }
}

type Stepped = (Walk, Result<Option<Bytes>, BlobError>);

/// The bytes of an object on their way out, one step read ahead.
pub(super) struct ObjectSource {
    inner: Arc<Inner>,
    ready: Option<Bytes>,
    walk: Option<Walk>,
    /// Kept here while it runs, so that a dropped [`ByteSource::next`] loses nothing.
    running: Option<JoinHandle<Stepped>>,
    _pins: Option<Pins>,
}

impl ObjectSource {
    pub(super) fn new(
        inner: &Arc<Inner>,
        ready: Option<Bytes>,
        walk: Walk,
        pins: Option<Pins>,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            ready,
            walk: Some(walk),
            running: None,
            _pins: pins,
        }
    }

    fn start(&mut self, permit: OwnedSemaphorePermit) {
        if let Some(mut walk) = self.walk.take() {
            let inner = Arc::clone(&self.inner);
            self.running = Some(tokio::task::spawn_blocking(move || {
                let result = walk.step(&inner.folder);
                drop(permit);
                (walk, result)
            }));
        }
    }

    fn read_ahead(&mut self) {
        if self.walk.as_ref().is_some_and(|walk| !walk.is_done())
            && let Ok(permit) = Arc::clone(&self.inner.reads).try_acquire_owned()
        {
            self.start(permit);
        }
    }

    async fn next_bytes(&mut self) -> Option<Result<Bytes, BlobError>> {
        if let Some(bytes) = self.ready.take() {
            self.read_ahead();
            return Some(Ok(bytes));
        }
        if self.running.is_none() {
            if self.walk.as_ref().is_none_or(Walk::is_done) {
                return None;
            }
            let permit = Arc::clone(&self.inner.reads).acquire_owned().await.ok()?;
            self.start(permit);
        }
        let done = self.running.as_mut()?.await;
        self.running = None;
        match done {
            Ok((walk, result)) => {
                if result.is_ok() {
                    self.walk = Some(walk);
                    self.read_ahead();
                }
                result.transpose()
            }
            Err(ended) => Some(Err(self.inner.system("read a file", &ended.to_string()))),
        }
    }
}

impl ByteSource for ObjectSource {
    fn next(&mut self) -> NextChunk<'_> {
        Box::pin(self.next_bytes())
    }
}
