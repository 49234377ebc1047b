//! SLOWLOG and LATENCY: the requests whose replies came late from a shard.
//!
//! Invariant: what is told was measured; what Breccia does not measure is refused.

use super::super::super::codec::request::Request;
use super::super::super::encode;
use super::super::dialogue::RespDialogue;
use super::super::service::Backend;
use super::super::wire_error::{not_offered, wrong_subcommand};
use super::SessionAction;
use crate::edit::parse_integer;

/// The one event whose time is kept.
const EVENT: &[u8] = b"command";
const NOT_MEASURED: &str = "only requests that are forwarded to Redis shards are timed one by one";

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl RespDialogue {
    pub(super) fn slowlog(&mut self, row: u16, request: Request<'_>) -> SessionAction {
        if !matches!(self.service.backend, Backend::Forward(_)) {
            self.refuse(row, not_offered("slowlog", NOT_MEASURED));
            return SessionAction::Done;
        }
        let subcommand = request.argument(1).to_ascii_lowercase();
        match subcommand.as_slice() {
            b"get" => self.slowlog_get(row, request),
            b"len" => {
                let count = self.service.listener.slow.len();
                self.reply(row, |out| {
                    encode::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
                });
            }
            b"reset" => {
                self.service.listener.slow.clear();
                self.reply(row, encode::ok);
            }
            _ => return self.help(row, "slowlog"),
        }
        SessionAction::Done
    }

    fn slowlog_get(&mut self, row: u16, request: Request<'_>) {
        if request.len() > 3 {
            let text = wrong_subcommand("SLOWLOG", request.argument(1));
            return self.refuse(row, text);
        }
        let count = match request.len() {
            2 => Some(10),
            _ => parse_integer(request.argument(2)).filter(|count| *count >= -1),
        };
        let Some(count) = count else {
            return self.refuse(row, "ERR count should be greater than or equal to -1");
        };
        let listener = &self.service.listener;
        let entries = listener
            .slow
            .latest(usize::try_from(count).unwrap_or(usize::MAX));
        let names: Vec<Vec<u8>> = entries
            .iter()
            .map(|entry| listener.clients.card(entry.client))
            .map(|card| card.map_or_else(Vec::new, |card| card.names().name))
            .collect();
        self.reply(row, |out| {
            encode::array(out, entries.len());
            for (entry, name) in entries.iter().zip(&names) {
                encode::array(out, 6);
                encode::integer(out, entry.id);
                encode::integer(out, signed(entry.at));
                let micros = u64::try_from(entry.took.as_micros()).unwrap_or(u64::MAX);
                encode::integer(out, signed(micros));
                encode::array(out, 2);
                encode::bulk(out, entry.command.to_ascii_uppercase().as_bytes());
                let rest = format!("... (on {}; arguments are not kept)", entry.shard);
                encode::bulk(out, rest.as_bytes());
                encode::bulk(out, entry.address.as_bytes());
                encode::bulk(out, name);
            }
        });
    }

    pub(super) fn latency(&mut self, row: u16, request: Request<'_>) -> SessionAction {
        if !matches!(self.service.backend, Backend::Forward(_)) {
            self.refuse(row, not_offered("latency", NOT_MEASURED));
            return SessionAction::Done;
        }
        let subcommand = request.argument(1).to_ascii_lowercase();
        let (samples, worst) = self.service.listener.slow.samples();
        match subcommand.as_slice() {
            b"latest" => self.reply(row, |out| {
                let last = samples.last();
                encode::array(out, usize::from(last.is_some()));
                if let Some(last) = last {
                    encode::array(out, 4);
                    encode::bulk(out, EVENT);
                    encode::integer(out, signed(last.at));
                    encode::integer(out, signed(last.milliseconds));
                    encode::integer(out, signed(worst));
                }
            }),
            b"history" => {
                let known = request.argument(2) == EVENT;
                let shown = if known { samples } else { Vec::new() };
                self.reply(row, |out| {
                    encode::array(out, shown.len());
                    for sample in &shown {
                        encode::array(out, 2);
                        encode::integer(out, signed(sample.at));
                        encode::integer(out, signed(sample.milliseconds));
                    }
                });
            }
            b"reset" => {
                let named = request.arguments().skip(2).any(|event| event == EVENT);
                let cleared =
                    (named || request.len() == 2) && self.service.listener.slow.clear_samples();
                self.reply(row, |out| encode::integer(out, i64::from(cleared)));
            }
            _ => return self.help(row, "latency"),
        }
        SessionAction::Done
    }
}
