//! What is asked of Breccia itself: `SHOW breccia.name`, `SET breccia.name`, and constants of a
//! connection that only Breccia knows.
//!
//! Invariant: all of it is text, and nothing of it is a secret.

use std::sync::Arc;

use breccia_net::clock;

use super::session::{ER_UNKNOWN_ERROR, Session};
use crate::mysql::class::Class;
use crate::mysql::codec::{self, OkPacket, capabilities, lenenc};
use crate::mysql::gtid::Gtids;
use crate::outage::until_down;
use crate::placing::Seeker as _;

const SHOWN: &str = "there are breccia.token, breccia.target, breccia.pinned, breccia.primary, \
    breccia.server, breccia.reason and breccia.version";

/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN_VARIABLE: u16 = 1193;

impl Session {
    /// Answers what is asked of Breccia itself.
    pub(super) async fn answer_own(&mut self, class: &Class) {
        match class {
            Class::OwnShow { name } => match self.show(name).await {
                Ok(value) => answer_row(self, &format!("breccia.{name}"), value.as_bytes()),
                Err(why) => self.answer_error(UNKNOWN_VARIABLE, *b"HY000", &why),
            },
            Class::OwnSet { name, value } => match self.set_own(name, value) {
                Ok(()) => self.answer_ok(),
                Err(why) => self.answer_error(UNKNOWN_VARIABLE, *b"HY000", &why),
            },
            Class::OwnReset { name } if name == "target" => {
                self.want_any();
                self.answer_ok();
            }
            Class::OwnReset { name } => {
                let why = format!("breccia: breccia.{name} cannot be reset; breccia.target can");
                self.answer_error(UNKNOWN_VARIABLE, *b"HY000", &why);
            }
            _ => {
                let why = "breccia: what is asked of Breccia itself stands alone in its text";
                self.answer_error(ER_UNKNOWN_ERROR, *b"HY000", why);
            }
        }
    }

    async fn show(&mut self, name: &str) -> Result<String, String> {
        let view = self.look();
        Ok(match name {
            "token" => return self.token().await,
            "target" if self.wants_primary => "primary".to_owned(),
            "target" => "auto".to_owned(),
            "pinned" => self.pinned.unwrap_or_default().to_owned(),
            // While it is down, nobody takes writes, as /status says too.
            "primary" => match &view.primary {
                Ok(server) if self.has_primary(&view) => self.server_name(*server),
                _ => String::new(),
            },
            "server" => {
                let server = self
                    .last
                    .and_then(|(it, _)| self.listener.cluster.server(it));
                server.map_or_else(String::new, |server| server.name().to_owned())
            }
            "reason" => self
                .last
                .map_or_else(String::new, |(_, reason)| reason.to_owned()),
            "version" => env!("CARGO_PKG_VERSION").to_owned(),
            _ => return Err(format!("Unknown system variable 'breccia.{name}': {SHOWN}")),
        })
    }

    /// How far this session has seen, for another one to read no less.
    async fn token(&mut self) -> Result<String, String> {
        let view = self.look();
        let end = clock::now() + self.listener.limits.pool.queue_timeout();
        if let Some(known) = self.freshness.known(view.epoch) {
            return Ok(known.token());
        }
        let untold =
            || "breccia: the primary did not tell its position, so there is no token; ask again";
        let cluster = Arc::clone(&self.listener.cluster);
        let primary = view.primary.as_ref().ok();
        let Some(server) = primary.and_then(|it| cluster.server(*it)) else {
            return Err(untold().to_owned());
        };
        let (health, name) = (&server.options.health, server.name());
        let asking = async { Ok(self.stamp(&view, end).await) };
        let stamp = until_down(asking, health, name).await;
        let stamp = stamp.map_err(|error| format!("breccia: {error}"))?;
        stamp
            .map(|gtids| gtids.token())
            .ok_or_else(|| untold().to_owned())
    }

    /// Any server will do again, unless something else keeps the session where it is.
    fn want_any(&mut self) {
        self.wants_primary = false;
        if self.pinned == Some("target") {
            self.pinned = None;
            self.linger_free_home();
        }
    }

    fn set_own(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            ("token", token) => {
                let gtids = Gtids::from_token(token).map_err(|why| {
                    format!("breccia: {why}; a token is what SHOW breccia.token told")
                })?;
                let view = self.look();
                let known = self.listener.cluster.is_of_here(&gtids);
                self.freshness.import(&gtids, view.epoch, known);
                Ok(())
            }
            ("target", "primary") => {
                self.wants_primary = true;
                self.pin("target");
                Ok(())
            }
            ("target", "auto") => {
                self.want_any();
                Ok(())
            }
            ("target", _) => Err("breccia: breccia.target is 'primary' or 'auto'".to_owned()),
            _ => Err(format!(
                "Unknown system variable 'breccia.{name}': breccia.token and breccia.target can be set"
            )),
        }
    }
}

/// A text that asks for nothing but system variables, without the path of the server's socket: it is
/// of no use to a client that is not on that machine, and would lead one that is past Breccia.
pub(super) fn without_socket(sql: &[u8]) -> Option<String> {
    const SOCKET: &str = "@@socket";
    const LONGEST: usize = 512;
    let text = std::str::from_utf8(sql.get(..LONGEST).map_or(sql, |_| b"")).ok()?;
    let text = text.trim().trim_end_matches(';').trim_end();
    let (select, names) = text.split_at_checked(7)?;
    if !select.trim_end().eq_ignore_ascii_case("SELECT") {
        return None;
    }
    let is_name = |name: &&str| {
        let rest = name.strip_prefix("@@");
        rest.is_some_and(|it| {
            it.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
    };
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    if !names.iter().all(is_name) || !names.iter().any(|it| it.eq_ignore_ascii_case(SOCKET)) {
        return None;
    }
    let written: Vec<String> = names
        .iter()
        .map(|name| {
            if name.eq_ignore_ascii_case(SOCKET) {
                format!("CAST(NULL AS CHAR(20)) AS `{name}`")
            } else {
                (*name).to_owned()
            }
        })
        .collect();
    Some(format!("SELECT {}", written.join(", ")))
}

/// Answers constants of the connection that a server would tell wrongly; whether it did.
pub(super) fn answer_constant(session: &mut Session, sql: &[u8]) -> bool {
    let text = sql.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    if text.eq_ignore_ascii_case(b"SELECT CONNECTION_ID()") {
        let number = session.registered.number.to_string();
        let name = String::from_utf8_lossy(text.get(7..).unwrap_or_default()).into_owned();
        answer_value(session, &column_of(&name, Kind::Number), number.as_bytes());
        session.forget_rows();
        return true;
    }
    false
}

/// Answers with one row of one column of text.
fn answer_row(session: &mut Session, name: &str, value: &[u8]) {
    answer_value(session, &column_of(name, Kind::Text), value);
}

/// Answers with one row of one column.
fn answer_value(session: &mut Session, column: &[u8], value: &[u8]) {
    let mut sequence = 1;
    let (known, status) = (session.capabilities, session.own_status());
    let out = &mut session.client.out.bytes;
    codec::write_packet(out, &mut sequence, &[1]);
    codec::write_packet(out, &mut sequence, column);
    let deprecates = known & capabilities::DEPRECATE_EOF != 0;
    if !deprecates {
        codec::write_packet(out, &mut sequence, &codec::eof(status, 0));
    }
    let mut row = Vec::new();
    lenenc::write_str(&mut row, value);
    codec::write_packet(out, &mut sequence, &row);
    let mut end = Vec::new();
    write_end(&mut end, status, known);
    codec::write_packet(out, &mut sequence, &end);
}

/// Answers with an end of rows.
pub(super) fn answer_eof(session: &mut Session) {
    let (known, status) = (session.capabilities, session.own_status());
    let mut end = Vec::new();
    write_end(&mut end, status, known);
    codec::write_packet(&mut session.client.out.bytes, &mut 1, &end);
}

fn write_end(end: &mut Vec<u8>, status: u16, known: u64) {
    if known & capabilities::DEPRECATE_EOF == 0 {
        end.extend_from_slice(&codec::eof(status, 0));
        return;
    }
    let ok = OkPacket {
        header: 0xfe,
        affected: 0,
        insert_id: 0,
        status,
        warnings: 0,
        info: b"",
        state: b"",
    };
    ok.write(end, known);
}

/// What a column holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Number,
}

/// The description of a column: `Column Definition 41`. Its collation, length, type, flags and digits
/// are those of a server's own.
fn column_of(name: &str, kind: Kind) -> Vec<u8> {
    const UTF8MB4_GENERAL_CI: u16 = 45;
    const BINARY: u16 = 63;
    const VAR_STRING: u8 = 0xfd;
    const LONGLONG: u8 = 8;
    const NOT_NULL_BINARY_NUMBER: u16 = 0x8081;
    let (collation, length, kind, flags, digits) = match kind {
        Kind::Text => (UTF8MB4_GENERAL_CI, 65_535_u32, VAR_STRING, 0, 31),
        Kind::Number => (BINARY, 10, LONGLONG, NOT_NULL_BINARY_NUMBER, 0),
    };
    let mut out = Vec::new();
    lenenc::write_str(&mut out, b"def");
    for empty in [b""; 3] {
        lenenc::write_str(&mut out, empty);
    }
    lenenc::write_str(&mut out, name.as_bytes());
    lenenc::write_str(&mut out, b"");
    out.push(0x0c);
    out.extend_from_slice(&collation.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&[digits, 0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_the_socket_is_taken_out() {
        let check = |sql: &str, expected: Option<&str>| {
            assert_eq!(without_socket(sql.as_bytes()).as_deref(), expected, "{sql}");
        };
        let null = "CAST(NULL AS CHAR(20)) AS `@@socket`";
        check("SELECT @@socket", Some(&format!("SELECT {null}")));
        let both = format!("SELECT @@max_allowed_packet, {null}, @@wait_timeout");
        check(
            "select @@max_allowed_packet,@@socket, @@wait_timeout;",
            Some(&both),
        );
        check("SELECT @@version", None);
        check("SELECT @@socket FROM t", None);
        check("SELECT '@@socket'", None);
        check("", None);
    }
}
