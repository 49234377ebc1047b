//! Commands about the connection itself, answered here.
//!
//! Invariant: nothing here reaches a shard, except that a change of version or database makes the
//! client wait for its earlier requests, which used other connections.

use std::fmt::Write as _;

use super::super::codec::request::Request;
use super::super::commands::REDIS_VERSION;
use super::super::encode::{self, RespVersion};
use super::dialogue::RespDialogue;
use super::route::Command;
use super::service::Backend;
use super::wire_error::{SYNTAX, WRONGPASS, not_offered, wrong_arity};
use crate::edit::parse_integer;
use crate::front::settings::same_secret;
use crate::glob;

/// What a session command asks of the dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionAction {
    /// It was answered.
    Done,
    /// The connection closes after its reply.
    Close,
    /// A shard knows the answer better.
    Forward,
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
const SHOWN_SETTINGS: [(&str, &str); 7] = [
    ("appendonly", "no"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("proto-max-bulk-len", "536870912"),
    ("save", ""),
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
                self.session.replies = Replies::On;
                self.session.version = RespVersion::V2;
                self.reply(row, |out| encode::simple(out, "RESET"));
                return SessionAction::Reset;
            }
            "hello" => self.hello(row, request),
            "auth" => self.auth(row, request),
            "select" => self.select(row, request),
            "client" => self.client_command(row, request),
            "info" => self.info(row, request),
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

    fn client_command(&mut self, row: u16, request: Request<'_>) {
        let subcommand = request.argument(1).to_ascii_lowercase();
        let arguments = request.len() - 2;
        match (subcommand.as_slice(), arguments) {
            (b"id", 0) => {
                let id = i64::try_from(self.client.id).unwrap_or(i64::MAX);
                self.reply(row, |out| encode::integer(out, id));
            }
            (b"getname", 0) => {
                let (name, version) = (self.session.name.clone(), self.session.version);
                self.reply(row, |out| {
                    if name.is_empty() {
                        encode::null(out, version);
                    } else {
                        encode::bulk(out, &name);
                    }
                });
            }
            (b"setname", 1) => {
                if !is_client_name(request.argument(2)) {
                    return self.refuse(row, BAD_NAME);
                }
                self.session.name = request.argument(2).to_vec();
                self.reply(row, encode::ok);
            }
            (b"setinfo", 2) => self.reply(row, encode::ok),
            (b"no-evict" | b"no-touch", 1) => {
                let given = request.argument(2);
                if given.eq_ignore_ascii_case(b"on") || given.eq_ignore_ascii_case(b"off") {
                    self.reply(row, encode::ok);
                } else {
                    self.refuse(row, SYNTAX);
                }
            }
            (b"info", 0) => {
                let line = self.client_line();
                self.reply(row, |out| encode::bulk(out, line.as_bytes()));
            }
            (b"getredir", 0) => self.reply(row, |out| encode::integer(out, -1)),
            (b"reply", 1) => self.client_reply(row, request),
            (b"tracking", _) if request.argument(2).eq_ignore_ascii_case(b"off") => {
                self.reply(row, encode::ok);
            }
            (b"tracking" | b"caching" | b"trackinginfo", _) => {
                let why = "invalidations of several shards are not merged";
                self.refuse(row, not_offered("client tracking", why));
            }
            (
                b"id" | b"getname" | b"setname" | b"setinfo" | b"info" | b"getredir" | b"reply",
                _,
            ) => {
                let name = String::from_utf8_lossy(&subcommand).into_owned();
                self.refuse(row, wrong_arity(&format!("client|{name}")));
            }
            (b"list" | b"kill" | b"pause" | b"unpause" | b"unblock" | b"no-loop" | b"help", _) => {
                let name = String::from_utf8_lossy(&subcommand).into_owned();
                self.refuse(
                    row,
                    not_offered(&format!("client {name}"), "see `breccia status`"),
                );
            }
            _ => {
                let name = String::from_utf8_lossy(request.argument(1)).into_owned();
                let text = format!("ERR unknown subcommand '{name}'. Try CLIENT HELP.");
                self.refuse(row, &text);
            }
        }
    }

    fn client_reply(&mut self, row: u16, request: Request<'_>) {
        let mode = request.argument(2).to_ascii_lowercase();
        match mode.as_slice() {
            b"on" => {
                self.session.replies = Replies::On;
                self.reply(row, encode::ok);
            }
            b"off" => self.session.replies = Replies::Off,
            b"skip" => {
                if self.session.replies == Replies::On {
                    self.session.replies = Replies::SkipNext;
                }
            }
            _ => self.refuse(row, SYNTAX),
        }
    }

    fn client_line(&self) -> String {
        format!(
            "id={} addr={} name={} db={} multi={} watch={} user={} resp={} lib-name= lib-ver=\n",
            self.client.id,
            self.client.peer,
            String::from_utf8_lossy(&self.session.name),
            self.session.database,
            if self.transaction.is_open() { 0 } else { -1 },
            u8::from(self.transaction.leaf().is_some()),
            self.session.user,
            self.session.version.number(),
        )
    }

    fn info(&mut self, row: u16, request: Request<'_>) {
        let wanted = |section: &str| {
            request.len() == 1
                || request.arguments().skip(1).any(|name| {
                    [section.as_bytes(), b"all", b"default", b"everything"]
                        .iter()
                        .any(|known| name.eq_ignore_ascii_case(known))
                })
        };
        let mut text = String::new();
        let sections = [
            (
                "Server",
                format!(
                    "redis_version:{REDIS_VERSION}\r\nbreccia_version:{}\r\nredis_mode:standalone\r\n\
                     arch_bits:64\r\nprocess_id:{}\r\n",
                    env!("CARGO_PKG_VERSION"),
                    std::process::id()
                ),
            ),
            (
                "Replication",
                "role:master\r\nconnected_slaves:0\r\n".to_owned(),
            ),
            ("Cluster", "cluster_enabled:0\r\n".to_owned()),
            ("Keyspace", String::new()),
        ];
        for (name, lines) in sections {
            if wanted(name) {
                if !text.is_empty() {
                    text.push_str("\r\n");
                }
                // Writing to a String cannot fail.
                let _ = write!(text, "# {name}\r\n{lines}");
            }
        }
        let version = self.session.version;
        self.reply(row, |out| match version {
            RespVersion::V2 => encode::bulk(out, text.as_bytes()),
            RespVersion::V3 => encode::verbatim(out, text.as_bytes()),
        });
    }

    fn config(&mut self, row: u16, request: Request<'_>) {
        if !request.argument(1).eq_ignore_ascii_case(b"get") {
            let name = String::from_utf8_lossy(request.argument(1)).into_owned();
            let why = "the settings of shards are not Breccia's";
            return self.refuse(row, not_offered(&format!("config {name}"), why));
        }
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
