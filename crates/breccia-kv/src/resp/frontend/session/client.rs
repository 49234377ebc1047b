//! CLIENT: about this client, and about the listener's other clients.
//!
//! Not how they are kept; see [`super::super::clients`]. Invariant: nothing here waits for a shard.

use super::super::super::codec::request::Request;
use super::super::super::encode::{self, RespVersion};
use super::super::clients::Card;
use super::super::dialogue::RespDialogue;
use super::super::route::NO_TRACKING;
use super::super::wire_error::{SYNTAX, not_offered, wrong_subcommand};
use super::{BAD_NAME, Replies, SessionAction, is_client_name};
use crate::edit::parse_integer;
use crate::pipeline::Patience;

const NO_UNBLOCK: &str = "the shard does not tell Breccia's login the number of its connection \
                          (CLIENT ID), or the store has another address now; CLIENT KILL ends it";
const NOT_TRACKING: &str = "ERR CLIENT CACHING can be called only when the client is in tracking \
                            mode with OPTIN or OPTOUT mode enabled";
const NO_REDIRECTION: &str = "ERR The client ID you want redirect to does not exist";
const NO_INTEGER: &str = "ERR value is not an integer or out of range";

/// The clients that CLIENT LIST and KILL are to look at.
#[derive(Debug, Default)]
struct Filter {
    id: Option<Vec<u64>>,
    kind: Option<Kind>,
    address: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
}

/// A client is one or the other; servers are no clients here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Subscriber,
    Server,
}

impl Kind {
    fn parse(name: &[u8]) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Some(match name.as_slice() {
            b"normal" => Self::Normal,
            b"pubsub" => Self::Subscriber,
            b"master" | b"slave" | b"replica" => Self::Server,
            _ => return None,
        })
    }
}

impl Filter {
    fn takes(&self, card: &Card) -> bool {
        let kind = if card.is_subscribed() {
            Kind::Subscriber
        } else {
            Kind::Normal
        };
        let same = |wanted: &Option<Vec<u8>>, found: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted == found.as_bytes())
        };
        self.id.as_ref().is_none_or(|ids| ids.contains(&card.id))
            && self.kind.is_none_or(|wanted| wanted == kind)
            && same(&self.address, &card.address)
            && same(&self.local, &card.local)
            && (self.user.is_none() || same(&self.user, &card.names().user))
    }
}

fn unknown_type(name: &[u8]) -> String {
    format!(
        "ERR Unknown client type '{}'",
        String::from_utf8_lossy(name)
    )
}

impl RespDialogue {
    pub(super) fn client_command(&mut self, row: u16, request: Request<'_>) -> SessionAction {
        let subcommand = request.argument(1).to_ascii_lowercase();
        match subcommand.as_slice() {
            b"id" => {
                let id = i64::try_from(self.client.id).unwrap_or(i64::MAX);
                self.reply(row, |out| encode::integer(out, id));
            }
            b"getname" => {
                let (name, version) = (self.session.name.clone(), self.session.version);
                self.reply(row, |out| {
                    if name.is_empty() {
                        encode::null(out, version);
                    } else {
                        encode::bulk(out, &name);
                    }
                });
            }
            b"setname" => self.client_name(row, request),
            b"setinfo" => self.client_library(row, request),
            b"no-evict" | b"no-touch" => self.client_switch(row, request),
            b"info" => {
                self.note_doings(row);
                let own = self.client.id;
                self.client_lines(row, |card| card.id == own);
            }
            b"list" => self.client_list(row, request),
            b"kill" => return self.client_kill(row, request),
            b"unblock" => self.client_unblock(row, request),
            b"getredir" => self.reply(row, |out| encode::integer(out, -1)),
            b"reply" => self.client_reply(row, request),
            b"tracking" => self.client_tracking(row, request),
            b"trackinginfo" => self.client_tracking_info(row),
            b"caching" => self.refuse(row, NOT_TRACKING),
            _ => return self.help(row, "client"),
        }
        SessionAction::Done
    }

    fn client_name(&mut self, row: u16, request: Request<'_>) {
        if !is_client_name(request.argument(2)) {
            return self.refuse(row, BAD_NAME);
        }
        self.session.name = request.argument(2).to_vec();
        self.show_names();
        self.reply(row, encode::ok);
    }

    /// SETINFO is newer than the table; libraries send it when they connect.
    fn client_library(&mut self, row: u16, request: Request<'_>) {
        if request.len() != 4 {
            let text = super::super::wire_error::wrong_arity("client|setinfo");
            return self.refuse(row, text);
        }
        let value = request.argument(3);
        if is_client_name(value) {
            let value = String::from_utf8_lossy(value).into_owned();
            let what = request.argument(2).to_ascii_lowercase();
            self.card.rename(|names| match what.as_slice() {
                b"lib-name" => names.library = value,
                b"lib-ver" => names.library_version = value,
                _ => {}
            });
        }
        self.reply(row, encode::ok);
    }

    /// Nothing is evicted or touched here: the words are checked.
    fn client_switch(&mut self, row: u16, request: Request<'_>) {
        let given = request.argument(2);
        let known = given.eq_ignore_ascii_case(b"on") || given.eq_ignore_ascii_case(b"off");
        if known && request.len() == 3 {
            self.reply(row, encode::ok);
        } else {
            self.refuse(row, SYNTAX);
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

    /// Nobody tracks here: ON is refused, OFF is no change. What a server would not understand is
    /// answered as by a server.
    fn client_tracking(&mut self, row: u16, request: Request<'_>) {
        let switch = request.argument(2).to_ascii_lowercase();
        let mut at = 3;
        while at < request.len() {
            let has_value = at + 1 < request.len();
            match request.argument(at).to_ascii_lowercase().as_slice() {
                b"bcast" | b"optin" | b"optout" | b"noloop" => at += 1,
                b"prefix" if has_value => at += 2,
                b"redirect" if has_value => {
                    let Some(id) = parse_integer(request.argument(at + 1)) else {
                        return self.refuse(row, NO_INTEGER);
                    };
                    let id = u64::try_from(id).ok();
                    if id
                        .and_then(|id| self.service.listener.clients.card(id))
                        .is_none()
                    {
                        return self.refuse(row, NO_REDIRECTION);
                    }
                    at += 2;
                }
                _ => return self.refuse(row, SYNTAX),
            }
        }
        match switch.as_slice() {
            b"on" => self.refuse(row, not_offered("client tracking", NO_TRACKING)),
            b"off" => self.reply(row, encode::ok),
            _ => self.refuse(row, SYNTAX),
        }
    }

    /// This is how a server says that nobody tracks.
    fn client_tracking_info(&mut self, row: u16) {
        let version = self.session.version;
        self.reply(row, |out| {
            encode::map(out, version, 3);
            encode::bulk(out, b"flags");
            encode::set(out, version, 1);
            encode::bulk(out, b"off");
            encode::bulk(out, b"redirect");
            encode::integer(out, -1);
            encode::bulk(out, b"prefixes");
            encode::array(out, 0);
        });
    }

    fn client_lines(&mut self, row: u16, wanted: impl Fn(&Card) -> bool) {
        let text = self.service.listener.clients.lines(wanted);
        self.long_text(row, &text);
    }

    /// A text of several lines.
    pub(super) fn long_text(&mut self, row: u16, text: &str) {
        let version = self.session.version;
        self.reply(row, |out| match version {
            RespVersion::V2 => encode::bulk(out, text.as_bytes()),
            RespVersion::V3 => encode::verbatim(out, text.as_bytes()),
        });
    }

    fn client_list(&mut self, row: u16, request: Request<'_>) {
        let mut filter = Filter::default();
        let option = request.argument(2).to_ascii_lowercase();
        match (option.as_slice(), request.len()) {
            (_, 2) => {}
            (b"type", 4) => match Kind::parse(request.argument(3)) {
                Some(kind) => filter.kind = Some(kind),
                None => return self.refuse(row, unknown_type(request.argument(3))),
            },
            (b"id", 4..) => {
                let ids = request.arguments().skip(3);
                let ids = ids.map(|id| u64::try_from(parse_integer(id)?).ok());
                let Some(ids) = ids.collect() else {
                    return self.refuse(row, "ERR Invalid client ID");
                };
                filter.id = Some(ids);
            }
            _ => return self.refuse(row, SYNTAX),
        }
        self.note_doings(row);
        self.client_lines(row, |card| filter.takes(card));
    }

    fn client_kill(&mut self, row: u16, request: Request<'_>) -> SessionAction {
        let plain = request.len() == 3;
        let (filter, skips_me) = if plain {
            let address = Some(request.argument(2).to_vec());
            let filter = Filter {
                address,
                ..Filter::default()
            };
            (filter, false)
        } else {
            match self.kill_filter(request) {
                Ok(found) => found,
                Err(text) => {
                    self.refuse(row, text);
                    return SessionAction::Done;
                }
            }
        };
        let (mut count, mut me) = (0, false);
        for card in self.service.listener.clients.cards() {
            let own = card.id == self.client.id;
            if filter.takes(&card) && !(own && skips_me) {
                count += 1;
                me |= own;
                if !own {
                    card.handle.close();
                }
                if plain {
                    break;
                }
            }
        }
        match (plain, count) {
            (true, 0) => self.refuse(row, "ERR No such client"),
            (true, _) => self.reply(row, encode::ok),
            (false, count) => self.reply(row, |out| encode::integer(out, count)),
        }
        if me {
            SessionAction::Close
        } else {
            SessionAction::Done
        }
    }

    /// Whom CLIENT KILL means, and whether it spares the one who asks.
    fn kill_filter(&self, request: Request<'_>) -> Result<(Filter, bool), String> {
        let (mut filter, mut skips_me) = (Filter::default(), true);
        let mut at = 2;
        while at < request.len() {
            if at + 1 >= request.len() {
                return Err(SYNTAX.to_owned());
            }
            let (option, value) = (request.argument(at), request.argument(at + 1));
            let option = option.to_ascii_lowercase();
            match option.as_slice() {
                b"id" => {
                    let id = parse_integer(value).filter(|id| *id > 0);
                    let id = id.and_then(|id| u64::try_from(id).ok());
                    let wrong = "ERR client-id should be greater than 0";
                    filter.id = Some(vec![id.ok_or_else(|| wrong.to_owned())?]);
                }
                b"type" => {
                    let kind = Kind::parse(value).ok_or_else(|| unknown_type(value))?;
                    filter.kind = Some(kind);
                }
                b"addr" => filter.address = Some(value.to_vec()),
                b"laddr" => filter.local = Some(value.to_vec()),
                b"user" => {
                    let users = &self.settings.users;
                    let mut names = users.iter().map(|user| user.name.as_bytes());
                    if !(names.any(|name| name == value) || users.is_empty() && value == b"default")
                    {
                        let name = String::from_utf8_lossy(value);
                        return Err(format!("ERR No such user '{name}'"));
                    }
                    filter.user = Some(value.to_vec());
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => skips_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => skips_me = false,
                _ => return Err(SYNTAX.to_owned()),
            }
            at += 2;
        }
        Ok((filter, skips_me))
    }

    /// Only the shard can unblock a client: what it waits for may be on its way to it.
    fn client_unblock(&mut self, row: u16, request: Request<'_>) {
        if request.len() > 4 {
            return self.refuse(row, wrong_subcommand("CLIENT", request.argument(1)));
        }
        let reason = request.argument(3);
        let known =
            reason.eq_ignore_ascii_case(b"timeout") || reason.eq_ignore_ascii_case(b"error");
        if request.len() > 3 && !known {
            let text = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
            return self.refuse(row, text);
        }
        let Some(id) = parse_integer(request.argument(2)) else {
            return self.refuse(row, NO_INTEGER);
        };
        let card = u64::try_from(id).ok();
        let card = card.and_then(|id| self.service.listener.clients.card(id));
        let Some(waiting) = card.and_then(|card| card.mark_waiting()) else {
            return self.reply(row, |out| encode::integer(out, 0));
        };
        let same_server = waiting.endpoint.current().moved == waiting.moved;
        let leaf = self.forward().leaf_at(&waiting.endpoint);
        let number = waiting.number.get().filter(|_| same_server);
        let (Some(leaf), Some(number)) = (leaf, number) else {
            return self.refuse(row, not_offered("client unblock", NO_UNBLOCK));
        };
        let (number, mut frame) = (number.to_string(), Vec::new());
        let words: [&[u8]; 4] = [b"CLIENT", b"UNBLOCK", number.as_bytes(), reason];
        let count = if reason.is_empty() { 3 } else { 4 };
        encode::request(&mut frame, words.get(..count).unwrap_or_default());
        let upstream = self.held(leaf).unwrap_or_else(|| self.path(leaf));
        self.enqueue(&upstream, leaf, row, Patience::Timeout, &frame);
    }
}
