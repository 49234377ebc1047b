//! PUBSUB: who is subscribed to what, of this gateway's own clients.
//!
//! The shards could not say: to them each worker is one subscriber. Invariant: every worker answers
//! the same.

use super::super::super::codec::request::Request;
use super::super::super::encode;
use super::super::dialogue::{RespDialogue, Step};
use super::super::route::Command;
use super::super::wire_error::wrong_subcommand;
use super::{Kind, Topic};
use crate::glob;

impl RespDialogue {
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
