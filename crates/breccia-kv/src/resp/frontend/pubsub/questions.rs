//! PUBSUB: who is subscribed to what, of this gateway's own clients; and how many PUBLISH has reached.
//!
//! The shards could not say: to them each worker is one subscriber. Invariant: every worker answers
//! the same.

use std::sync::Arc;

use super::super::super::codec::reply::integer;
use super::super::super::codec::request::Request;
use super::super::super::encode;
use super::super::dialogue::{RespDialogue, Step};
use super::super::forward::LARGE_REQUEST;
use super::super::route::Command;
use super::super::ticket::{Convert, Ticket};
use super::super::wire_error::wrong_subcommand;
use super::{Kind, Roster, Topic};
use crate::glob;
use crate::pipeline::Patience;

/// Makes a shard's number of receivers one of clients.
struct Reached {
    roster: Arc<Roster>,
    server: String,
    kind: Kind,
    channel: Vec<u8>,
}

impl Convert for Reached {
    fn convert(&self, reply: &[u8]) -> Vec<u8> {
        let Some(said) = integer(reply) else {
            return reply.to_vec();
        };
        let topic = (self.kind, self.channel.as_slice());
        let mut out = Vec::new();
        encode::integer(&mut out, self.roster.audience(&self.server, topic, said));
        out
    }
}

impl RespDialogue {
    /// Goes to the shard of its channel. While clients of this gateway are subscribed to anything, the
    /// number is put right.
    pub(crate) fn publish(&mut self, command: &Command, request: Request<'_>) -> Step {
        let leaf = self.home_of_channel(request);
        let forward = self.forward();
        let roster = &forward.store.roster;
        let server = roster
            .is_listened_to()
            .then(|| forward.hub.server_of(leaf))
            .flatten();
        let held = self.held(leaf);
        let is_large = held.is_none() && request.frame().len() > LARGE_REQUEST && !self.on_bulk;
        let Some(server) = server.filter(|_| !is_large) else {
            return self.send(leaf, command.row, request);
        };
        let reached = Box::new(Reached {
            roster: Arc::clone(roster),
            server,
            kind: match command.spec.name {
                "spublish" => Kind::Shard,
                _ => Kind::Channel,
            },
            channel: request.argument(1).to_vec(),
        });
        let upstream = held.unwrap_or_else(|| self.path(leaf));
        let ticket = Ticket::Converted(self.ask(leaf, command.row), reached);
        self.enqueue_ticket(&upstream, ticket, Patience::Timeout, |out| {
            out.extend_from_slice(request.frame());
        });
        Step::Done
    }

    pub(crate) fn pubsub(&mut self, command: &Command, request: Request<'_>) -> Step {
        let subcommand = request.argument(1).to_ascii_lowercase();
        match subcommand.as_slice() {
            b"channels" => self.pubsub_names(command.row, Kind::Channel, request),
            b"shardchannels" => self.pubsub_names(command.row, Kind::Shard, request),
            b"numsub" => self.pubsub_counts(command.row, Kind::Channel, request),
            b"shardnumsub" => self.pubsub_counts(command.row, Kind::Shard, request),
            b"numpat" => {
                let roster = &self.forward().store.roster;
                let count = roster.names(Kind::Pattern, |_| true).len();
                self.reply(command.row, |out| {
                    encode::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
                });
            }
            // HELP: any server has the text.
            _ => return self.forward_any(command, request),
        }
        Step::Done
    }

    fn pubsub_names(&mut self, row: u16, kind: Kind, request: Request<'_>) {
        if request.len() > 3 {
            let text = wrong_subcommand("PUBSUB", request.argument(1));
            return self.refuse(row, text);
        }
        let pattern = request.argument(2);
        let all = request.len() == 2;
        let roster = &self.forward().store.roster;
        let names = roster.names(kind, |name| all || glob::matches(pattern, name));
        self.reply(row, |out| {
            encode::array(out, names.len());
            for name in &names {
                encode::bulk(out, name);
            }
        });
    }

    fn pubsub_counts(&mut self, row: u16, kind: Kind, request: Request<'_>) {
        let forward = self.forward();
        let roster = &forward.store.roster;
        self.reply(row, |out| {
            encode::array(out, (request.len() - 2) * 2);
            for name in request.arguments().skip(2) {
                encode::bulk(out, name);
                let count = roster.count(&Topic::new(kind, name));
                encode::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
            }
        });
    }
}
