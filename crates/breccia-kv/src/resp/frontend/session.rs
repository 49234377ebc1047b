//! Commands about the connection itself, answered here.
//!
//! Invariant: nothing here reaches a shard, except that a change of version or database makes the
//! client wait for its earlier requests, which used other connections.

mod client;
mod info;
mod slow;

use super::super::codec::request::Request;
use super::super::commands::REDIS_VERSION;
use super::super::encode::{self, RespVersion};
use super::dialogue::RespDialogue;
use super::route::Command;
use super::service::Backend;
use super::ticket::Convert;
use super::wire_error::{SYNTAX, WRONGPASS, not_offered, wrong_arity};
use crate::edit::parse_integer;
use crate::front::settings::same_secret;
use crate::glob;

/// What a session command asks of the dialogue.
pub(crate) enum SessionAction {
    /// It was answered.
    Done,
    /// The connection closes after its reply.
    Close,
    /// A shard knows the answer better.
    Forward,
    /// The number of keys on all shards is wanted; this makes the reply of it.
    Count(Box<dyn Convert>),
    /// Everything the client set up is to be undone; it was answered.
    Reset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Replies {
    #[default]
    On,
    Off,
    SkipNext,
}

/// What one client has set up.
#[derive(Debug)]
pub(crate) struct Session {
    pub version: RespVersion,
    pub database: u32,
    pub authenticated: bool,
    pub user: String,
    name: Vec<u8>,
    replies: Replies,
}

impl Session {
    pub(crate) fn new(authenticated: bool) -> Self {
        Self {
            version: RespVersion::V2,
            database: 0,
            authenticated,
            user: "default".to_owned(),
            name: Vec::new(),
            replies: Replies::On,
        }
    }

    /// Whether the next reply is dropped; it counts as that reply.
    pub(crate) fn next_is_muted(&mut self) -> bool {
        match self.replies {
            Replies::On => false,
            Replies::Off => true,
            Replies::SkipNext => {
                self.replies = Replies::On;
                true
            }
        }
    }
}

/// Settings that CONFIG GET shows because libraries ask for them; patterns select among them.
const SHOWN_SETTINGS: [(&str, &str); 9] = [
    ("appendonly", "no"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("proto-max-bulk-len", "536870912"),
    ("save", ""),
    ("slowlog-log-slower-than", "10000"),
    ("slowlog-max-len", "128"),
    ("timeout", "0"),
];

impl RespDialogue {
    pub(crate) fn answer_session(
        &mut self,
        command: &Command,
        request: Request<'_>,
    ) -> SessionAction {
        let row = command.row;
        match command.spec.name {
            "ping" => self.ping(row, request),
            "echo" => self.reply(row, |out| encode::bulk(out, request.argument(1))),
            "quit" => {
                self.reply(row, encode::ok);
                return SessionAction::Close;
            }
            "reset" => {
                // A reply that was to be skipped is this one; what was off is on again.
                if self.session.replies == Replies::Off {
                    self.session.replies = Replies::On;
                }
                self.session.version = RespVersion::V2;
                self.reply(row, |out| encode::simple(out, "RESET"));
                return SessionAction::Reset;
            }
            "hello" => self.hello(row, request),
            "auth" => self.auth(row, request),
            "select" => self.select(row, request),
            "client" => return self.client_command(row, request),
            "info" => return self.info(row, request),
            "slowlog" => return self.slowlog(row, request),
            "latency" => return self.latency(row, request),
            "config" if request.argument(1).eq_ignore_ascii_case(b"help") => {
                return self.help(row, "config");
            }
            "config" => self.config(row, request),
            "role" => self.reply(row, |out| {
                encode::array(out, 3);
                encode::bulk(out, b"master");
                encode::integer(out, 0);
                encode::array(out, 0);
            }),
            "command" => return self.command_command(row, request),
            name => self.refuse(row, not_offered(name, "it is about one server's state")),
        }
        SessionAction::Done
    }

    fn ping(&mut self, row: u16, request: Request<'_>) {
        if request.len() > 2 {
            return self.refuse(row, wrong_arity("ping"));
        }
        let subscribed = self.subscriptions.count() > 0;
        let version = self.session.version;
        self.reply(row, |out| {
            if subscribed && version == RespVersion::V2 {
                encode::array(out, 2);
                encode::bulk(out, b"pong");
                encode::bulk(out, request.argument(1));
            } else if request.len() == 2 {
                encode::bulk(out, request.argument(1));
            } else {
                encode::simple(out, "PONG");
            }
        });
    }

    fn hello(&mut self, row: u16, request: Request<'_>) {
        let version = match request.argument(1) {
            [] if request.len() == 1 => self.session.version,
            b"2" => RespVersion::V2,
            b"3" => RespVersion::V3,
            other if parse_integer(other).is_some() => {
                return self.refuse(row, "NOPROTO unsupported protocol version");
            }
            _ => {
                let text = "ERR Protocol version is not an integer or out of range";
                return self.refuse(row, text);
            }
        };
        let mut name = None;
        let mut at = 2;
        while at < request.len() {
            let option = request.argument(at).to_ascii_uppercase();
            let left = request.len() - at - 1;
            if option == b"AUTH" && left >= 2 {
                if !self.log_in(request.argument(at + 1), request.argument(at + 2)) {
                    return self.refuse(row, WRONGPASS);
                }
                at += 3;
            } else if option == b"SETNAME" && left >= 1 {
                if !is_client_name(request.argument(at + 1)) {
                    return self.refuse(row, BAD_NAME);
                }
                name = Some(request.argument(at + 1).to_vec());
                at += 2;
            } else {
                let option = String::from_utf8_lossy(request.argument(at)).into_owned();
                return self.refuse(row, format!("ERR Syntax error in HELLO option '{option}'"));
            }
        }
        if !self.session.authenticated {
            return self.refuse(row, HELLO_NOAUTH);
        }
        if version != self.session.version && self.lease.is_some() {
            return self.refuse(row, WATCHING);
        }
        if let Some(name) = name {
            self.session.name = name;
            self.show_names();
        }
        self.switch(|session| session.version = version);
        let id = i64::try_from(self.client.id).unwrap_or(i64::MAX);
        self.reply(row, |out| {
            encode::map(out, version, 7);
            encode::bulk(out, b"server");
            encode::bulk(out, b"redis");
            encode::bulk(out, b"version");
            encode::bulk(out, REDIS_VERSION.as_bytes());
            encode::bulk(out, b"proto");
            encode::integer(out, version.number().into());
            encode::bulk(out, b"id");
            encode::integer(out, id);
            encode::bulk(out, b"mode");
            encode::bulk(out, b"standalone");
            encode::bulk(out, b"role");
            encode::bulk(out, b"master");
            encode::bulk(out, b"modules");
            encode::array(out, 0);
        });
    }

    /// Changes what the client's upstream connections are chosen by.
    fn switch(&mut self, change: impl FnOnce(&mut Session)) {
        let before = self.mode();
        change(&mut self.session);
        if self.mode() != before {
            self.renew_subscriptions();
            self.paths.clear();
            self.barrier = true;
        }
    }

    fn auth(&mut self, row: u16, request: Request<'_>) {
        if request.len() > 3 {
            return self.refuse(row, SYNTAX);
        }
        if request.len() == 2 && self.settings.users.is_empty() {
            return self.refuse(row, NO_PASSWORD_SET);
        }
        let good = if request.len() == 2 {
            self.log_in(b"default", request.argument(1))
        } else {
            self.log_in(request.argument(1), request.argument(2))
        };
        if good {
            self.reply(row, encode::ok);
        } else {
            self.refuse(row, WRONGPASS);
        }
    }

    /// Logs in; all users are looked at, whatever the name, so that time tells nothing.
    fn log_in(&mut self, name: &[u8], password: &[u8]) -> bool {
        let users = &self.settings.users;
        if users.is_empty() {
            // As a Redis without passwords: its default user takes any.
            return name == b"default";
        }
        let mut found = None;
        for user in users {
            let good = match &user.password {
                Some(wanted) => same_secret(wanted.as_bytes(), password),
                None => true,
            };
            if good && user.name.as_bytes() == name {
                found = Some(user.name.clone());
            }
        }
        let Some(user) = found else {
            tracing::warn!(
                listener = self.service.listener.name,
                peer = self.client.peer,
                "a client gave a wrong name or password"
            );
            return false;
        };
        self.session.authenticated = true;
        self.session.user = user;
        self.show_names();
        true
    }

    fn select(&mut self, row: u16, request: Request<'_>) {
        let Some(number) = parse_integer(request.argument(1)) else {
            return self.refuse(row, "ERR value is not an integer or out of range");
        };
        if i32::try_from(number).is_err() {
            let text = "ERR value is out of range, value must between -2147483648 and 2147483647";
            return self.refuse(row, text);
        }
        let databases = match &self.service.backend {
            Backend::Forward(forward) => forward
                .leaves
                .iter()
                .map(|leaf| leaf.terms().databases)
                .min()
                .unwrap_or(1),
            Backend::Portable(_) => 1,
        };
        if !u32::try_from(number).is_ok_and(|number: u32| number < databases.max(1)) {
            return self.refuse(row, "ERR DB index is out of range");
        }
        if u32::try_from(number) != Ok(self.session.database) && self.lease.is_some() {
            return self.refuse(row, WATCHING);
        }
        self.switch(|session| session.database = u32::try_from(number).unwrap_or(0));
        self.reply(row, encode::ok);
    }

    /// Lets the listener's list show what the client calls itself.
    pub(crate) fn show_names(&self) {
        self.card.rename(|names| {
            names.name.clone_from(&self.session.name);
            names.user.clone_from(&self.session.user);
        });
    }

    fn config(&mut self, row: u16, request: Request<'_>) {
        if request.len() < 3 {
            return self.refuse(row, wrong_arity("config|get"));
        }
        let found: Vec<_> = SHOWN_SETTINGS
            .iter()
            .filter(|(name, _)| {
                request
                    .arguments()
                    .skip(2)
                    .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
            })
            .collect();
        let version = self.session.version;
        self.reply(row, |out| {
            encode::map(out, version, found.len());
            for (name, value) in found {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, value.as_bytes());
            }
        });
    }

    /// HELP: any server has the text.
    fn help(&mut self, row: u16, name: &str) -> SessionAction {
        if matches!(self.service.backend, Backend::Forward(_)) {
            return SessionAction::Forward;
        }
        let name = format!("{name} help");
        self.refuse(row, not_offered(&name, "no shard here is a Redis"));
        SessionAction::Done
    }

    /// COMMAND describes the shards, so a shard answers; without Redis shards nothing is described.
    fn command_command(&mut self, row: u16, request: Request<'_>) -> SessionAction {
        if matches!(self.service.backend, Backend::Forward(_)) {
            return SessionAction::Forward;
        }
        let subcommand = request.argument(1).to_ascii_lowercase();
        let (count, version) = (self.service.routes.len(), self.session.version);
        match subcommand.as_slice() {
            b"count" => {
                let count = i64::try_from(count).unwrap_or(0);
                self.reply(row, |out| encode::integer(out, count));
            }
            b"docs" => self.reply(row, |out| encode::map(out, version, 0)),
            b"" | b"list" | b"info" => self.reply(row, |out| encode::array(out, 0)),
            _ => self.refuse(row, not_offered("command", "no shard here is a Redis")),
        }
        SessionAction::Done
    }
}

const WATCHING: &str = "ERR breccia: the protocol version and the database cannot change between \
                        WATCH and EXEC, DISCARD or UNWATCH";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
const NO_PASSWORD_SET: &str = "ERR AUTH <password> called without any password configured for the \
                               default user. Are you sure your configuration is correct?";
const HELLO_NOAUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, \
                            otherwise the HELLO AUTH <user> <pass> option can be used to \
                            authenticate the client and select the RESP protocol version at the \
                            same time";

fn is_client_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}
