//! The committer: one thread that owns the index's writing connection, and commits for all.
//!
//! Not what a change does to the tables (see `index::change`). Invariant: a change is answered as
//! made only after its transaction is on the disk, and its files were there before.
//!
//! *Group commit.* Requests wait in a bounded channel. The thread takes what is there and runs all of
//! it in one transaction: conditions are decided there, one after the other, so they are exact
//! whoever races. With many writers the cost of a commit is
//! shared by all that came while the last one was being synced; a lone writer never waits for more.
//!
//! *A full disk.* Deletes need room in the index's log before they can free any: the ballast is let
//! go for them, once, and taken again by `maintain`.
//!
//! Seen with `strace -f -y -e trace=openat,write,pwrite64,fdatasync,fsync,unlink` for one put over
//! an older object, in this order: by the writing thread `openat(data/02/0…2, O_CREAT|O_EXCL)`,
//! `write` (all of the file), `fdatasync`, `openat(data/02)`, `fsync`; by this thread
//! `pwrite64(index.sqlite-wal)` twice a page, `fdatasync(index.sqlite-wal)`, and the answer; by the
//! sweeping thread `unlink(data/01/0…1)`.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use breccia_core::error::Effect;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::ballast::Ballast;
use super::folder::Folder;
use super::generations::Generations;
use super::hot::Hot;
use super::index::change::{Change, Decision};
use super::index::{open_writer, schema};
use super::records::ObjectRow;
use super::sweep::Sweep;
use super::write::Pending;
use crate::error::BlobError;
use crate::key::Key;

/// The most changes in one transaction.
const MAX_BATCH: usize = 256;
/// The most changes that wait; who comes later waits outside.
const QUEUE: usize = 1024;

/// A change with the files it refers to.
struct Request {
    change: Change,
    files: Vec<Pending>,
    reply: oneshot::Sender<Result<bool, BlobError>>,
}

/// The way to the committer; when it is dropped, what waits is committed and the thread ends.
#[derive(Debug)]
pub(super) struct Committer {
    folder: Arc<Folder>,
    sender: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(shared: Shared, connection: Connection) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let folder = Arc::clone(&shared.folder);
        let worker = Worker {
            shared,
            connection: Some(connection),
        };
        let thread = std::thread::Builder::new()
            .name("breccia-fs-commit".to_owned())
            .spawn(move || worker.run(receiver))?;
        Ok(Self {
            folder,
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    /// Commits a change. Once it is taken in it is carried out, also if nobody waits any longer.
    pub(super) async fn commit(
        &self,
        change: Change,
        files: Vec<Pending>,
    ) -> Result<bool, BlobError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            change,
            files,
            reply,
        };
        let gone = |effect| BlobError::System {
            store: self.folder.name().to_owned(),
            what: "commit".to_owned(),
            reason: "the committer has ended".to_owned(),
            effect,
        };
        let Some(sender) = &self.sender else {
            return Err(gone(Effect::NotApplied));
        };
        if sender.send(request).await.is_err() {
            return Err(gone(Effect::NotApplied));
        }
        answer.await.unwrap_or(Err(gone(Effect::Unknown)))
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by itself.
            let _ = thread.join();
        }
    }
}

/// What the committer shares with the store.
pub(super) struct Shared {
    pub(super) folder: Arc<Folder>,
    pub(super) sweep: Arc<Sweep>,
    pub(super) generations: Arc<Generations>,
    pub(super) ballast: Arc<Ballast>,
    pub(super) hot: Arc<Hot>,
}

/// What the thread owns.
struct Worker {
    shared: Shared,
    /// None after a failed commit: it is opened again before the next.
    connection: Option<Connection>,
}

/// Why nothing of a batch is known to be committed.
struct Failure {
    error: BlobError,
    /// Whether the connection must not be used again.
    broken: bool,
}

impl Worker {
    fn run(mut self, mut receiver: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while let Some(first) = receiver.blocking_recv() {
            batch.push(first);
            while batch.len() < MAX_BATCH
                && let Ok(next) = receiver.try_recv()
            {
                batch.push(next);
            }
            self.commit(&mut batch);
            batch.clear();
        }
    }

    fn commit(&mut self, batch: &mut Vec<Request>) {
        let keys = batch.iter().filter_map(|request| request.change.object());
        let committing = self.shared.hot.before_commit(keys);
        let limit = self.shared.generations.wanted_limit();
        let mut result = self.transact(batch, limit);
        if let Err(full @ BlobError::Full { .. }) = &result
            && batch.iter().any(|request| request.change.frees())
            && self.shared.ballast.let_go()
        {
            for refused in batch.extract_if(.., |request| !request.change.frees()) {
                fail(refused, full);
            }
            result = self.transact(batch, limit);
        }
        self.shared.hot.after_commit(committing);
        match result {
            Ok(decisions) => {
                if let Some(limit) = limit {
                    self.shared.generations.raise(limit);
                }
                let often = keys_changed_often(batch);
                for (mut request, decision) in batch.drain(..).zip(decisions) {
                    self.keep_open(&mut request, &decision, &often);
                    self.answer(request, decision);
                }
            }
            Err(error) => {
                tracing::warn!(store = self.shared.folder.name(), %error,
                    "a commit of {} changes failed", batch.len());
                for request in batch.drain(..) {
                    fail(request, &error);
                }
            }
        }
    }

    /// Runs the batch. The connection is kept only if it is still good.
    fn transact(
        &mut self,
        batch: &[Request],
        limit: Option<u64>,
    ) -> Result<Vec<Decision>, BlobError> {
        let connection = self.connected()?;
        match self.try_transact(&connection, batch, limit) {
            Ok(decisions) => {
                self.connection = Some(connection);
                Ok(decisions)
            }
            Err(failure) => {
                self.connection = (!failure.broken).then_some(connection);
                Err(failure.error)
            }
        }
    }

    fn connected(&mut self) -> Result<Connection, BlobError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        open_writer(&self.shared.folder.index(), false).map_err(|error| {
            let what = "open the index again";
            self.shared
                .folder
                .index_error(what, &error, Effect::NotApplied)
        })
    }

    fn try_transact(
        &self,
        connection: &Connection,
        batch: &[Request],
        limit: Option<u64>,
    ) -> Result<Vec<Decision>, Failure> {
        let before = |error: rusqlite::Error| self.rolled_back(connection, &error);
        let mut decisions = Vec::with_capacity(batch.len());
        execute(connection, "BEGIN IMMEDIATE").map_err(before)?;
        for request in batch {
            let decision = request.change.apply(connection, self.shared.folder.name());
            decisions.push(decision.map_err(before)?);
        }
        if let Some(limit) = limit {
            schema::set_generation_limit(connection, limit).map_err(before)?;
        }
        execute(connection, "COMMIT").map_err(|error| self.not_committed(connection, &error))?;
        Ok(decisions)
    }

    /// An error before the commit: nothing was applied.
    fn rolled_back(&self, connection: &Connection, error: &rusqlite::Error) -> Failure {
        let broken = !connection.is_autocommit() && execute(connection, "ROLLBACK").is_err();
        let what = "write to the index";
        Failure {
            error: self
                .shared
                .folder
                .index_error(what, error, Effect::NotApplied),
            broken,
        }
    }

    /// An error of the commit. A full disk is found before the commit's last page is written; after
    /// any other error that page may lie in the WAL, and count, once the index is opened again.
    fn not_committed(&self, connection: &Connection, error: &rusqlite::Error) -> Failure {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            return self.rolled_back(connection, error);
        }
        Failure {
            error: BlobError::System {
                store: self.shared.folder.name().to_owned(),
                what: "commit to the index".to_owned(),
                reason: error.to_string(),
                effect: Effect::Unknown,
            },
            broken: true,
        }
    }

    /// What was just written is often read next: its file stays open.
    fn keep_open(&self, request: &mut Request, decision: &Decision, often: &HashSet<Key>) {
        let Change::Put(object) = &request.change else {
            return;
        };
        let file = request.files.first_mut().and_then(Pending::small_file);
        let made = decision.as_ref().is_ok_and(|applied| applied.made);
        if let Some(file) = file.filter(|_| made && !often.contains(&object.key)) {
            let hot = &self.shared.hot;
            // Nobody else commits: what was made is what there is.
            let since = hot.since(&object.key);
            let meta = ObjectRow::of_one_file(object.facts.clone(), object.file).meta();
            hot.put(&object.key, since, &meta, file, object.file);
        }
    }

    fn answer(&self, request: Request, decision: Decision) {
        let Request { files, reply, .. } = request;
        let result = match decision {
            Ok(applied) => {
                if applied.made {
                    files.into_iter().for_each(Pending::keep);
                }
                self.shared.sweep.remove(applied.garbage);
                Ok(applied.made)
            }
            Err(error) => Err(error),
        };
        // Nobody may be waiting any longer.
        let _ = reply.send(result);
    }
}

/// The keys that more than one change of a batch concerns.
fn keys_changed_often(batch: &[Request]) -> HashSet<Key> {
    let mut seen = HashSet::with_capacity(batch.len());
    let keys = batch.iter().filter_map(|request| request.change.object());
    keys.filter(|key| !seen.insert(*key)).cloned().collect()
}

fn fail(request: Request, error: &BlobError) {
    if error.effect() == Effect::Unknown {
        // The index may refer to them. If it does not, the next start clears them away.
        request.files.into_iter().for_each(Pending::keep);
    }
    let _ = request.reply.send(Err(error.clone()));
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
