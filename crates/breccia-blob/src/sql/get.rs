//! Getting: the row, then its chunks one by one.
//!
//! Not a transaction: a generation's chunks stay for the grace. Invariant: no byte is given whose
//! chunk was not found whole and with its CRC32C.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::driver::Row;
use super::fault::Fault;
use super::record::{self, Segment, StoredObject};
use super::statements::Query;
use super::store::Inner;
use crate::body::{ByteSource, NextChunk};
use crate::error::BlobError;
use crate::key::Key;
use crate::store::{GetOptions, Opened};

/// Opens an object.
pub(super) async fn open(
    inner: &Arc<Inner>,
    key: &Key,
    options: GetOptions,
) -> Result<Opened, BlobError> {
    // The first chunk comes with the row where it will certainly be wanted.
    let whole = options.span.is_none() && options.conditions.is_empty();
    let query = if whole {
        Query::FindObjectAndChunk
    } else {
        Query::FindObject
    };
    let answer = inner.ask(query, vec![key.bytes().into()]).await?;
    let mut row = answer.first().ok_or(BlobError::NotFound)?;
    let object = StoredObject::read(&mut row).map_err(|fault| inner.told(fault))?;
    options.conditions.check(&object.meta)?;
    let range = match options.span {
        None => 0..object.meta.size,
        Some(span) => span.of(object.meta.size)?,
    };
    let first = if whole {
        read_first(&mut row).map_err(|fault| inner.told(fault))?
    } else {
        None
    };
    let source = Chunks::new(Arc::clone(inner), &object, &range, first);
    Ok(Opened {
        meta: object.meta,
        range,
        source: Box::new(source),
    })
}

type CheckedChunk = (i64, Bytes);

fn read_first(row: &mut Row) -> Result<Option<CheckedChunk>, Fault> {
    match row.optional_integer()? {
        None => Ok(None),
        Some(crc) => Ok(Some((crc, row.bytes()?))),
    }
}

/// The bytes of an object, from its chunks.
struct Chunks {
    inner: Arc<Inner>,
    segments: std::vec::IntoIter<Segment>,
    chunk: u64,
    segment: Option<Segment>,
    /// Where in the segment to go on.
    at: u64,
    /// How many bytes are still to be given.
    left: u64,
    /// The very first chunk, where it came with the row.
    first: Option<CheckedChunk>,
}

impl Chunks {
    fn new(
        inner: Arc<Inner>,
        object: &StoredObject,
        range: &Range<u64>,
        first: Option<CheckedChunk>,
    ) -> Self {
        let mut at = range.start;
        let mut segments = object.segments.clone().into_iter();
        let mut segment = segments.next();
        while let Some(current) = segment
            && at >= current.size
        {
            at = at.saturating_sub(current.size);
            segment = segments.next();
        }
        // Only the first segment's first chunk came with the row.
        let opened = segment.map(|segment| segment.generation);
        let head = object.segments.first().map(|segment| segment.generation);
        let first = first.filter(|_| opened == head && at == 0);
        Self {
            inner,
            segments,
            chunk: object.chunk,
            segment,
            at,
            left: range.end.saturating_sub(range.start),
            first,
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(segment) = self.segment else {
            return Err(self.damaged("it has fewer parts than its row says"));
        };
        let sequence = self.at.checked_div(self.chunk).unwrap_or(0);
        let start = sequence.saturating_mul(self.chunk);
        let length = segment.size.saturating_sub(start).min(self.chunk);
        let data = self.fetch(segment.generation, sequence).await?;
        if data.len() as u64 != length {
            return Err(self.damaged(&format!(
                "chunk {sequence} of {:016x} has {} bytes instead of {length}",
                segment.generation,
                data.len()
            )));
        }
        let from = self.at.saturating_sub(start);
        let to = length.min(from.saturating_add(self.left));
        let given = slice(&data, from, to);
        self.left = self.left.saturating_sub(given.len() as u64);
        self.at = self.at.saturating_add(given.len() as u64);
        while let Some(segment) = self.segment
            && self.at >= segment.size
            && self.left > 0
        {
            self.at = 0;
            self.segment = self.segments.next();
        }
        Ok(Some(given))
    }

    async fn fetch(&mut self, generation: i64, sequence: u64) -> Result<Bytes, BlobError> {
        let (crc, data) = match self.first.take() {
            Some(first) => first,
            None => self.ask(generation, sequence).await?,
        };
        if record::crc(&data) == crc {
            Ok(data)
        } else {
            Err(self.damaged(&format!(
                "chunk {sequence} of {generation:016x} does not have its CRC32C"
            )))
        }
    }

    async fn ask(&self, generation: i64, sequence: u64) -> Result<CheckedChunk, BlobError> {
        let values = vec![generation.into(), super::driver::signed(sequence)];
        let answer = self.inner.ask(Query::FindChunk, values).await?;
        let Some(mut row) = answer.first() else {
            return Err(self.damaged(&format!("chunk {sequence} of {generation:016x} is missing")));
        };
        let read = || Ok((row.integer()?, row.bytes()?));
        let chunk: Result<CheckedChunk, Fault> = { read }();
        chunk.map_err(|fault| self.inner.told(fault))
    }

    fn damaged(&self, problem: &str) -> BlobError {
        BlobError::Damaged {
            store: self.inner.name.clone(),
            problem: problem.to_owned(),
        }
    }
}

fn slice(data: &Bytes, from: u64, to: u64) -> Bytes {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(data.len());
    let (from, to) = (place(from), place(to));
    if from < to {
        data.slice(from..to)
    } else {
        Bytes::new()
    }
}

impl ByteSource for Chunks {
    fn next(&mut self) -> NextChunk<'_> {
        Box::pin(async move { self.read().await.transpose() })
    }
}
