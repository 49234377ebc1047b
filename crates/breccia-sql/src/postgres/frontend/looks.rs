//! Whether a statement that the client knows is still what it was told, wherever it is prepared.
//!
//! A driver describes a statement once and reads all rows by that. A server that has kept the statement
//! refuses it once its columns are others; one that prepares it anew would answer with the new ones.
//! Invariant: a statement that was described to the client is bound only where it is described so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use breccia_net::clock;

use super::session::{HEALTH_LOOK, Session};
use crate::error::SqlError;
use crate::postgres::cluster::Cluster;
use crate::postgres::codec::message::Status;
use crate::postgres::codec::{self, message};
use crate::postgres::described::{Description, Shape};
use crate::postgres::statement::{Statement, Statements};
use crate::postgres::upstream::{self, Endpoint, Upstream};

/// The most statements of one batch that are looked at: more are refused as if they were stale.
const MAX_LOOKS: usize = 500;

impl Session {
    /// Keeps in mind which statements a batch binds that were described to the client.
    pub(super) fn note_binds(&mut self, frames: &[u8]) {
        self.binds.clear();
        if !self.names.any_told() {
            return;
        }
        let mut at = 0;
        while let Ok(Some(head)) = codec::head(frames.get(at..).unwrap_or_default()) {
            let frame = frames.get(at..at + head.length).unwrap_or_default();
            at += head.length;
            if head.tag == b'B'
                && let Ok(bind) = codec::bind(codec::body(frame))
                && self.names.told(bind.statement).is_some()
                && self.binds.len() < MAX_LOOKS
                && !self.binds.iter().any(|name| **name == *bind.statement)
            {
                self.binds.push(bind.statement.into());
            }
        }
    }

    /// Has a connection that owes nothing describe them, where it is not known how it would.
    pub(super) async fn look_again(
        &mut self,
        server: usize,
        endpoint: &Endpoint,
        upstream: &mut Upstream,
    ) -> Result<(), SqlError> {
        if self.binds.is_empty() {
            return Ok(());
        }
        let changes = self.database.changes.load(Ordering::Acquire);
        let renewed = upstream.prepared_at == changes;
        let statements = &self.listener.cluster.statements;
        let mut wanted = Vec::new();
        for name in &self.binds {
            let statement = self.names.under(name, &self.settings, statements);
            let mut known = |it: &Arc<Statement>| {
                renewed
                    && upstream.prepared.touch(it.id)
                    && upstream.prepared.shape(it.id).is_some()
            };
            wanted.extend(statement.filter(|it| !known(it)));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let (process, secret) = (upstream.key.0, Arc::clone(&upstream.key.1));
        upstream.prepared_at = changes;
        // As long as the statement itself would: what it names may be locked.
        let looking = async {
            tokio::select! {
                biased;
                looked = look(endpoint, upstream, statements, wanted, renewed) => looked,
                down = goes_down(&self.listener.cluster, server, endpoint) => Err(down),
            }
        };
        let doing = &self.registered.doing;
        let looked = doing.before(&mut self.client, looking).await;
        if let Err(SqlError::Cancelled | SqlError::Left) = looked {
            // Nobody waits for it, so it does not wait for a lock.
            if let Err(error) = endpoint.cancel(process, &secret).await {
                tracing::debug!(%error, "a cancel did not reach its server");
            }
        }
        looked
    }

    /// The same where a connection is held, by a transaction that may still move.
    pub(super) async fn look_where_held(&mut self) -> Result<(), SqlError> {
        if self.binds.is_empty() {
            return Ok(());
        }
        let Some(mut attached) = self.attached.take() else {
            return Ok(());
        };
        let (server, pool) = (attached.server, Arc::clone(attached.lease.pool()));
        let looked = match attached.lease.upstream() {
            Some(upstream) => self.look_again(server, pool.endpoint(), upstream).await,
            None => Ok(()),
        };
        if looked.is_err() {
            // It is closed, and the transaction goes on elsewhere. What it has shown stays seen.
            self.registered.doing.end();
            self.freshness.used_replica(attached.home(clock::now()));
            return looked;
        }
        self.attached = Some(attached);
        Ok(())
    }
}

/// Ends once a server is known to be down: what was asked there is lost.
pub(super) async fn goes_down(cluster: &Cluster, server: usize, endpoint: &Endpoint) -> SqlError {
    let server = cluster.server(server);
    while server.is_some_and(|server| server.options.health.is_up()) {
        tokio::time::sleep(HEALTH_LOOK).await;
    }
    SqlError::Lost {
        server: endpoint.name.clone(),
        source: std::io::ErrorKind::TimedOut.into(),
    }
}

/// Has statements described on a connection; `renewed`: none that is there is of before a change.
async fn look(
    endpoint: &Endpoint,
    upstream: &mut Upstream,
    statements: &Statements,
    wanted: Vec<Arc<Statement>>,
    renewed: bool,
) -> Result<(), SqlError> {
    if !renewed {
        endpoint.ask(upstream, "DEALLOCATE ALL").await?;
        upstream.prepared.clear();
    }
    for statement in wanted {
        let mut packet = Vec::new();
        if !upstream.prepared.touch(statement.id) {
            if let Some(oldest) = upstream.prepared.insert(statement.id) {
                message::named(&mut packet, b'C', b'S', &statements.name(oldest));
            }
            message::named(&mut packet, b'C', b'S', &statement.name);
            message::parse(
                &mut packet,
                &statement.name,
                &statement.sql,
                &statement.types,
            );
        }
        message::named(&mut packet, b'D', b'S', &statement.name);
        message::empty(&mut packet, b'S');
        match endpoint.describe(upstream, &packet).await? {
            Some(shape) => upstream.prepared.note_shape(statement.id, shape),
            // Why is told when it is asked for. The server may have kept it under its name.
            None => upstream.prepared.distrust(),
        }
    }
    Ok(())
}

impl Endpoint {
    /// Has a statement described on a connection that owes nothing; `None`: the server refuses it. A
    /// transaction that fails by that is lost.
    async fn describe(
        &self,
        upstream: &mut Upstream,
        packet: &[u8],
    ) -> Result<Option<Shape>, SqlError> {
        self.send(upstream, packet).await?;
        let (mut description, mut shape) = (Description::default(), None);
        loop {
            let frame = self.next(upstream).await?;
            match frame.first() {
                Some(b'Z') if upstream::status(codec::body(&frame)) == Some(Status::Failed) => {
                    return Err(SqlError::Lost {
                        server: self.name.clone(),
                        source: std::io::ErrorKind::Other.into(),
                    });
                }
                Some(b'Z') => return Ok(shape),
                Some(tag) => shape = description.take(*tag, codec::body(&frame)).or(shape),
                None => {}
            }
        }
    }
}
