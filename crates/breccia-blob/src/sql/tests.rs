//! What is told when a driver's answers are lost, by a driver that does as it is told.
//!
//! Not SQL: no statement is looked at but by its number. Invariant: none beyond the tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breccia_core::error::{Effect, ErrorKind};

use super::driver::{Answer, Connection, Driver, DriverFuture, Row, Value};
use super::fault::Fault;
use super::options::SqlOptions;
use super::statements::{Dialect, Query};
use super::store::SqlStore;
use crate::key::Key;
use crate::store::{BlobStore, BlobStoreExt, StoreKind};

/// Where a connection fails, and how.
type Fails = fn() -> Fault;

#[derive(Debug, Default)]
struct Script {
    /// What the next commits end with; `None` and none left: well.
    commits: Mutex<VecDeque<Option<Fails>>>,
    /// The same for statements that insert an object.
    inserts: Mutex<VecDeque<Option<Fails>>>,
    begun: Mutex<u32>,
    connected: Mutex<u32>,
}

fn next(fails: &Mutex<VecDeque<Option<Fails>>>) -> Result<(), Fault> {
    let next = fails.lock().expect("no panic").pop_front().flatten();
    next.map_or(Ok(()), |fails| Err(fails()))
}

#[derive(Debug)]
struct Scripted(Arc<Script>);

impl Driver for Scripted {
    fn dialect(&self) -> Dialect {
        Dialect::Postgresql
    }

    fn connect(&self) -> DriverFuture<'_, Box<dyn Connection>> {
        *self.0.connected.lock().expect("no panic") += 1;
        let connection: Box<dyn Connection> = Box::new(Scripted(Arc::clone(&self.0)));
        Box::pin(async { Ok(connection) })
    }
}

impl Connection for Scripted {
    fn run(&mut self, query: Query, _values: Vec<Value>) -> DriverFuture<'_, Answer> {
        Box::pin(async move {
            if query == Query::InsertObject {
                next(&self.0.inserts)?;
            }
            let rows = match query {
                Query::SchemaVersion => vec![Row::new(vec![Value::Integer(1)])],
                _ => Vec::new(),
            };
            Ok(Answer { rows, affected: 1 })
        })
    }

    fn define(&mut self, _sql: String) -> DriverFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn begin(&mut self) -> DriverFuture<'_, ()> {
        *self.0.begun.lock().expect("no panic") += 1;
        Box::pin(async { Ok(()) })
    }

    fn commit(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(async { next(&self.0.commits) })
    }

    fn rollback(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn is_closed(&self) -> bool {
        false
    }
}

fn store(script: &Arc<Script>) -> SqlStore {
    let mut options = SqlOptions::new("sql-a");
    options.timeout = Duration::from_mins(1);
    let driver = Box::new(Scripted(Arc::clone(script)));
    SqlStore::over(options, driver, StoreKind::Postgresql, "nowhere".to_owned())
}

const LOST: Fails = || Fault::Lost("connection closed".to_owned());
const BUSY: Fails = || Fault::Busy;
const LATE: Fails = || Fault::Late;
const FULL: Fails = || Fault::Full("no space".to_owned());

#[tokio::test(start_paused = true)]
async fn only_what_was_certainly_undone_is_tried_again_or_told_as_not_applied() {
    type Expected = Result<(), (ErrorKind, Effect)>;
    let check = async |inserts: &[Fails], commits: &[Fails], tries: u32, expected: Expected| {
        let script = Arc::new(Script::default());
        let fails = |all: &[Fails]| all.iter().copied().map(Some).collect();
        *script.inserts.lock().expect("no panic") = fails(inserts);
        *script.commits.lock().expect("no panic") = fails(commits);
        let key = Key::new("k").expect("a key");
        let put = store(&script).put_bytes(&key, "x").await;
        let told = put
            .map(drop)
            .map_err(|error| (error.kind(), error.effect()));
        assert_eq!(told, expected, "{} {}", inserts.len(), commits.len());
        assert_eq!(*script.begun.lock().expect("no panic"), tries);
    };
    let unreachable = ErrorKind::Unreachable;
    check(&[], &[], 1, Ok(())).await;
    check(&[], &[BUSY, BUSY], 3, Ok(())).await;
    check(&[BUSY], &[], 2, Ok(())).await;
    check(&[], &[LOST], 1, Err((unreachable, Effect::Unknown))).await;
    check(&[], &[LATE], 1, Err((ErrorKind::Timeout, Effect::Unknown))).await;
    check(&[], &[BUSY, LOST], 2, Err((unreachable, Effect::Unknown))).await;
    let full = Err((ErrorKind::Overloaded, Effect::NotApplied));
    check(&[], &[FULL], 1, full).await;
    check(&[FULL], &[], 1, full).await;
    check(
        &[LATE],
        &[],
        1,
        Err((ErrorKind::Timeout, Effect::NotApplied)),
    )
    .await;
    // The connection was used before, to look at the schema: it may have been dead already.
    check(&[LOST], &[], 2, Ok(())).await;
    check(
        &[LOST, LOST],
        &[],
        2,
        Err((unreachable, Effect::NotApplied)),
    )
    .await;
    let always = [BUSY; 20];
    check(
        &always,
        &[],
        10,
        Err((ErrorKind::Conflict, Effect::NotApplied)),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_went_wrong_is_not_used_again() {
    let check = async |fails: Fails, connections: u32| {
        let script = Arc::new(Script::default());
        *script.commits.lock().expect("no panic") = [Some(fails)].into();
        let (store, key) = (store(&script), Key::new("k").expect("a key"));
        let _first = store.put_bytes(&key, "x").await;
        store
            .put_bytes(&key, "x")
            .await
            .expect("the second goes well");
        store.probe().await.expect("an answer");
        assert_eq!(*script.connected.lock().expect("no panic"), connections);
    };
    check(LOST, 2).await;
    check(LATE, 2).await;
    check(FULL, 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_connection_is_told() {
    let script = Arc::new(Script::default());
    let mut options = SqlOptions::new("sql-a");
    options.max_connections = 1;
    let driver = Box::new(Scripted(script));
    let store = SqlStore::over(options, driver, StoreKind::Postgresql, String::new());
    let held = store.hold_a_session().await;
    let error = store.probe().await.expect_err("none is free");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    drop(held);
    store.probe().await.expect("one is free");
}
