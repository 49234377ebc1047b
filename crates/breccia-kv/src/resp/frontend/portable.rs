//! The portable set on a connection: each request is a future over the store, one at a time, so a
//! client's order is kept whatever the members are.
//!
//! Invariant: a transaction queued here is bounded, and reaches the store as one call.

use std::sync::Arc;

use super::super::codec::request::Request;
use super::super::encode;
use super::super::portable;
use super::dialogue::{RespDialogue, Step};
use super::route::{Command, Route};
use super::service::Backend;
use super::ticket::Asked;
use super::transaction::Transaction;
use super::wire_error::EXECABORT;
use crate::topology::LeafIndex;

/// Bytes of commands that one portable transaction may hold.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// Commands that one portable transaction may hold.
const MAX_QUEUED_COMMANDS: usize = 4096;
/// What an argument takes beside its own bytes.
const BYTES_PER_ARGUMENT: usize = 48;

impl RespDialogue {
    fn store(&self) -> Option<Arc<dyn crate::store::KvStore>> {
        match &self.service.backend {
            Backend::Portable(store) => Some(Arc::clone(store)),
            Backend::Forward(_) => None,
        }
    }

    pub(crate) fn route_portable(&mut self, command: &Command, request: Request<'_>) -> Step {
        match command.route {
            Route::Session => self.session_command(command, request),
            Route::Transaction(kind) if portable::offers_transaction(command.spec.name) => {
                self.transact(command, kind, request)
            }
            _ => {
                let arguments: Vec<Vec<u8>> = request.arguments().map(<[u8]>::to_vec).collect();
                let Some(store) = self.store() else {
                    return Step::Done;
                };
                let version = self.session.version;
                let asked = self.ask(LeafIndex::default(), command.row);
                self.work.start(&self.client, async move {
                    let mut out = Vec::new();
                    portable::execute(&*store, &arguments, version, &mut out).await;
                    asked.answer(&out);
                });
                Step::Done
            }
        }
    }

    pub(crate) fn queue_portable(&mut self, command: &Command, request: Request<'_>) -> Step {
        let bytes = request.frame().len() + request.len() * BYTES_PER_ARGUMENT;
        let full = self.transaction.queued_bytes + bytes > MAX_QUEUED_BYTES;
        if full || self.transaction.queued.len() >= MAX_QUEUED_COMMANDS {
            self.transaction.spoil();
            self.refuse(
                command.row,
                "ERR breccia: the transaction is larger than 16 MiB or 4096 commands",
            );
            return Step::Done;
        }
        let arguments: Vec<Vec<u8>> = request.arguments().map(<[u8]>::to_vec).collect();
        let mut refusal = Vec::new();
        let good = match self.store() {
            Some(store) => {
                portable::check_queued(&*store, &self.transaction.queued, &arguments, &mut refusal)
            }
            None => true,
        };
        if good {
            self.transaction.queued_bytes += bytes;
            self.transaction.queued.push(arguments);
            self.transaction.note_queued();
            self.reply(command.row, |out| encode::simple(out, "QUEUED"));
        } else {
            self.transaction.spoil();
            let muted = self.session.next_is_muted();
            self.client
                .answer(muted, |out| out.extend_from_slice(&refusal));
        }
        Step::Done
    }

    pub(crate) fn exec_portable(&mut self, command: &Command) -> Step {
        let transaction = std::mem::take(&mut self.transaction);
        if transaction.is_spoiled() {
            self.refuse(command.row, EXECABORT);
            return Step::Done;
        }
        let Some(store) = self.store() else {
            return Step::Done;
        };
        let version = self.session.version;
        let asked: Asked = self.ask(LeafIndex::default(), command.row);
        self.transaction = Transaction::default();
        self.work.start(&self.client, async move {
            let mut out = Vec::new();
            let queued = transaction.queued;
            portable::execute_transaction(&*store, &queued, version, &mut out).await;
            asked.answer(&out);
        });
        Step::Done
    }
}
