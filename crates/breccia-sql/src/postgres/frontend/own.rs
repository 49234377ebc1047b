//! What is asked of Breccia itself: `SHOW breccia.name`, `SET breccia.name`, and prepared
//! statements that are let go by SQL.
//!
//! Invariant: what is answered here is never sent to a server.

use breccia_net::clock;

use super::batch::Batch;
use super::session::Session;
use crate::class::Class;
use crate::postgres::codec;
use crate::postgres::codec::message::{self, Severity, Status};
use crate::token::Token;

impl Session {
    /// Answers a simple query that is Breccia's own matter; whether it was one.
    pub(super) async fn answer_own(&mut self, batch: &Batch) -> bool {
        let Some(verdict) = batch.only.clone().filter(|_| batch.simple) else {
            return false;
        };
        match &verdict.class {
            Class::OwnShow { name } => self.show(name).await,
            Class::OwnSet { name, value } => self.set_own(name, value),
            Class::Deallocate { name: Some(name) } if self.names.remove(name.as_bytes()) => {
                self.names.settle();
                message::complete(&mut self.client.out.bytes, "DEALLOCATE");
            }
            _ => return false,
        }
        self.answer_ready();
        true
    }

    /// Answers a batch that only prepares a statement which some server has prepared before: a
    /// client that waits for this answer alone may be the very one that holds every connection.
    pub(super) fn answer_prepared(&mut self, frames: &[u8]) -> bool {
        let whole = |bytes: &[u8]| codec::head(bytes).ok().flatten();
        let Some(head) = whole(frames).filter(|head| head.tag == b'P') else {
            return false;
        };
        let rest = frames.get(head.length..).unwrap_or_default();
        if rest != [b'S', 0, 0, 0, 4] {
            return false;
        }
        let body = codec::body(frames.get(..head.length).unwrap_or_default());
        let Ok(parse) = codec::parse(body) else {
            return false;
        };
        if !self.names.adopt(&parse, &self.listener.cluster.statements) {
            return false;
        }
        message::empty(&mut self.client.out.bytes, b'1');
        self.answer_ready();
        true
    }

    pub(super) fn answer_ready(&mut self) {
        let status = match self.begun {
            Some(_) => Status::Open,
            None => Status::Idle,
        };
        message::ready(&mut self.client.out.bytes, status);
    }

    async fn show(&mut self, name: &str) {
        let value = match name {
            "token" => self.token().await,
            "target" => Some(self.target().to_owned()),
            "pinned" => Some(self.pinned.unwrap_or_default().to_owned()),
            "primary" => {
                let view = self.look();
                let number = view.primary.clone().ok();
                let server = number.and_then(|it| self.listener.cluster.server(it));
                Some(server.map_or("", |server| server.name()).to_owned())
            }
            _ => {
                let text = format!("unrecognized configuration parameter \"breccia.{name}\"");
                return self.fail(
                    "42704",
                    &text,
                    "There are breccia.token, breccia.target, breccia.pinned and breccia.primary.",
                );
            }
        };
        match value {
            Some(value) => {
                let out = &mut self.client.out.bytes;
                message::one_row(out, &format!("breccia.{name}"), &value);
                message::complete(out, "SHOW");
            }
            None => self.fail("55000", "the primary did not tell its position in time", ""),
        }
    }

    /// How far this session has seen.
    async fn token(&mut self) -> Option<String> {
        let view = self.look();
        let lsn = if let Some(lsn) = self.freshness.known(view.epoch) {
            lsn
        } else {
            let patience = self.listener.limits.pool.queue_timeout();
            self.stamp(&view, clock::now() + patience).await?
        };
        let token = Token {
            system: view.system,
            timeline: view.timeline,
            lsn,
        };
        Some(token.to_string())
    }

    fn target(&self) -> &'static str {
        match self.pinned {
            Some("target") => "primary",
            _ => "auto",
        }
    }

    fn set_own(&mut self, name: &str, value: &str) {
        match (name, value) {
            ("token", text) => {
                let Ok(token) = text.parse::<Token>() else {
                    let text = "that is no token: it has the form system-id:timeline:lsn";
                    return self.fail("22023", text, "Take it from SHOW breccia.token.");
                };
                let view = self.look();
                let (system, timeline) = (view.system, view.timeline);
                self.freshness.import(token, view.epoch, system, timeline);
            }
            ("target", "primary") => {
                self.pinned = self.pinned.or(Some("target"));
            }
            ("target", "auto" | "default") => {
                if self.pinned == Some("target") {
                    self.pinned = None;
                }
            }
            ("target", _) => {
                return self.fail("22023", "breccia.target is primary or auto", "");
            }
            _ => {
                let text = format!("unrecognized configuration parameter \"breccia.{name}\"");
                return self.fail(
                    "42704",
                    &text,
                    "There are breccia.token and breccia.target.",
                );
            }
        }
        message::complete(&mut self.client.out.bytes, "SET");
    }

    fn fail(&mut self, state: &str, text: &str, hint: &str) {
        message::error(
            &mut self.client.out.bytes,
            Severity::Error,
            state,
            text,
            hint,
        );
    }
}
