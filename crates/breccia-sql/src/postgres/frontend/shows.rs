//! What Breccia shows of itself, and what may be set: the names behind `breccia.`.
//!
//! Not how it is asked (`own.rs`). Invariant: all of it is text, so that both formats of results are
//! the same bytes, and nothing of it is a secret.

use breccia_net::clock;

use super::session::Session;
use crate::class::Class;
use crate::error::SqlError;
use crate::placing::Seeker as _;
use crate::postgres::codec::message;
use crate::postgres::token::Token;

/// An answer of Breccia's own that is an error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) state: &'static str,
    pub(super) text: String,
    pub(super) hint: &'static str,
}

impl Refusal {
    pub(super) fn new(state: &'static str, text: String) -> Self {
        Self {
            state,
            text,
            hint: "",
        }
    }
}

/// What can be shown: the name, and the columns of a table; none: it is one value.
const SHOWN: [(&str, &[&str]); 9] = [
    ("token", &[]),
    ("target", &[]),
    ("pinned", &[]),
    ("primary", &[]),
    ("server", &[]),
    ("reason", &[]),
    ("version", &[]),
    (
        "servers",
        &[
            "server",
            "role",
            "state",
            "lag_seconds",
            "lag_bytes",
            "running",
        ],
    ),
    (
        "pools",
        &[
            "listener",
            "server",
            "role",
            "database",
            "read_only",
            "idle",
            "open",
            "waiting",
        ],
    ),
];

const SHOWN_HINT: &str = "There are breccia.token, breccia.target, breccia.pinned, \
    breccia.primary, breccia.server, breccia.reason, breccia.version, breccia.servers and \
    breccia.pools.";
const SET_HINT: &str = "There are breccia.token and breccia.target.";

/// Rows of text.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Option<String>>>,
}

fn unknown(name: &str, hint: &'static str) -> Refusal {
    Refusal {
        hint,
        ..Refusal::new(
            "42704",
            format!("unrecognized configuration parameter \"breccia.{name}\""),
        )
    }
}

/// The columns of what is shown under a name.
pub(super) fn columns(name: &str) -> Result<Vec<String>, Refusal> {
    let found = SHOWN.iter().find(|(known, _)| *known == name);
    let (_, columns) = found.ok_or_else(|| unknown(name, SHOWN_HINT))?;
    Ok(match columns {
        [] => vec![format!("breccia.{name}")],
        columns => columns.iter().map(|name| (*name).to_owned()).collect(),
    })
}

/// Whether a name may be set.
pub(super) fn settable(name: &str) -> Result<(), Refusal> {
    match name {
        "token" | "target" => Ok(()),
        _ if SHOWN.iter().any(|(known, _)| *known == name) => Err(Refusal {
            hint: SET_HINT,
            ..Refusal::new(
                "55P02",
                format!("parameter \"breccia.{name}\" cannot be changed"),
            )
        }),
        _ => Err(unknown(name, SET_HINT)),
    }
}

/// A `RowDescription` of columns of text, in the formats that were asked for.
pub(super) fn describe(out: &mut Vec<u8>, columns: &[String], formats: &[u16]) {
    let columns: Vec<(&str, u16)> = columns
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let format = match formats {
                [all] => Some(all),
                each => each.get(number),
            };
            (name.as_str(), format.copied().unwrap_or_default())
        })
        .collect();
    message::text_columns(out, &columns);
}

impl Session {
    /// What stands under a name now.
    pub(super) async fn table(&mut self, name: &str) -> Result<Table, Refusal> {
        let columns = columns(name)?;
        let rows = match name {
            "servers" => self.server_rows(),
            "pools" => self.pool_rows(),
            _ => vec![vec![Some(self.value(name).await?)]],
        };
        Ok(Table { columns, rows })
    }

    async fn value(&mut self, name: &str) -> Result<String, Refusal> {
        let name_of = |session: &Self, number: usize| {
            let server = session.listener.cluster.server(number);
            server.map_or("", |server| server.name()).to_owned()
        };
        Ok(match name {
            "token" => self.token().await.ok_or_else(|| {
                let text = "the primary did not tell its position in time".to_owned();
                Refusal::new("55000", text)
            })?,
            "target" => match self.pinned {
                Some("target") => "primary".to_owned(),
                _ => "auto".to_owned(),
            },
            "pinned" => self.pinned.unwrap_or_default().to_owned(),
            "primary" => {
                let number = self.look().primary.clone().unwrap_or(usize::MAX);
                let server = self.listener.cluster.server(number);
                // While it is down, nobody takes writes, as /status says too.
                let able = server.filter(|server| server.options.health.is_up());
                able.map_or_else(String::new, |server| server.name().to_owned())
            }
            "server" => self
                .watch
                .last()
                .map_or_else(String::new, |(server, _)| name_of(self, server)),
            "reason" => self
                .watch
                .last()
                .map_or("", |(_, reason)| reason)
                .to_owned(),
            _ => env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// How far this session has seen.
    async fn token(&mut self) -> Option<String> {
        let view = self.look();
        // A transaction that is open may have seen more than is noted yet.
        let seen = self
            .attached
            .as_ref()
            .is_some_and(|it| it.seen || it.replica);
        let known = self.freshness.known(view.epoch).copied().filter(|_| !seen);
        let lsn = if let Some(lsn) = known {
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

    fn server_rows(&mut self) -> Vec<Vec<Option<String>>> {
        let view = self.look();
        let cluster = &self.listener.cluster;
        let row = |(number, server): (usize, &crate::postgres::cluster::Server)| {
            let replica = server.report().is_some_and(|report| report.recovery);
            let role = match server.report() {
                _ if view.primary == Ok(number) => "primary",
                Some(_) if replica => "replica",
                Some(_) => "claims to be a primary",
                None => "unknown",
            };
            let state = cluster.unused(&view, number);
            let lag = cluster.lag(number).filter(|_| replica);
            vec![
                Some(server.name().to_owned()),
                Some(role.to_owned()),
                Some(state.unwrap_or_else(|| "in service".to_owned())),
                lag.map(|(time, _)| format!("{:.3}", time.as_secs_f64())),
                lag.map(|(_, bytes)| bytes.to_string()),
                Some(server.running().to_string()),
            ]
        };
        cluster.servers.iter().enumerate().map(row).collect()
    }

    fn pool_rows(&self) -> Vec<Vec<Option<String>>> {
        let mut rows: Vec<_> = self.listener.cluster.pools();
        let key = |pool: &crate::postgres::pool::Pool| {
            let server = pool.endpoint().name.clone();
            let login = (pool.role().to_owned(), pool.database().to_owned());
            (
                pool.listener().to_owned(),
                server,
                login,
                pool.is_read_only(),
            )
        };
        rows.sort_by_key(|pool| key(pool));
        let row = |pool: &std::sync::Arc<crate::postgres::pool::Pool>| {
            let (listener, server, (role, database), read_only) = key(pool);
            let (idle, open) = pool.counts();
            let number = |number: usize| number.to_string();
            let read_only = if read_only { "on" } else { "off" }.to_owned();
            let waiting = number(pool.waiting());
            let cells = [
                listener,
                server,
                role,
                database,
                read_only,
                number(idle),
                number(open),
                waiting,
            ];
            cells.map(Some).to_vec()
        };
        rows.iter().map(row).collect()
    }

    /// Carries out what the first packet sets.
    pub(super) fn begin_own(&mut self) -> Result<(), SqlError> {
        for (name, value) in std::mem::take(&mut self.startup_own) {
            let set = settable(&name);
            let set = set.and_then(|()| self.change_own(&Class::OwnSet { name, value }));
            set.map_err(|refusal| SqlError::Settings {
                server: self.listener.cluster.options.name.clone(),
                sqlstate: refusal.state.to_owned(),
                errno: None,
                text: format!("{}. {}", refusal.text, refusal.hint)
                    .trim_end()
                    .to_owned(),
            })?;
        }
        Ok(())
    }

    /// Carries a SET or RESET out; its tag.
    pub(super) fn change_own(&mut self, class: &Class) -> Result<&'static str, Refusal> {
        let invalid = |text: &str, hint| Refusal {
            hint,
            ..Refusal::new("22023", text.to_owned())
        };
        let (name, value, tag) = match class {
            Class::OwnSet { name, value } => (name.as_str(), value.as_str(), "SET"),
            Class::OwnReset { name } => (name.as_str(), "default", "RESET"),
            _ => return Err(unknown("", SET_HINT)),
        };
        match (name, value) {
            ("target", "primary") => self.pinned = self.pinned.or(Some("target")),
            ("target", value) => {
                if !["auto", "default"]
                    .iter()
                    .any(|it| value.eq_ignore_ascii_case(it))
                {
                    return Err(invalid("breccia.target is primary or auto", ""));
                }
                self.pinned = self.pinned.filter(|why| *why != "target");
            }
            ("token", value) if value.eq_ignore_ascii_case("default") => {
                let text = "what a session has seen cannot be taken back";
                return Err(invalid(text, "Begin another session."));
            }
            ("token", text) => {
                let token: Token = text.parse().map_err(|()| {
                    let text = "that is no token: it has the form system-id:timeline:lsn";
                    invalid(text, "Take it from SHOW breccia.token.")
                })?;
                let view = self.look();
                let (system, timeline) = (view.system, view.timeline);
                self.freshness
                    .import_token(token, view.epoch, system, timeline);
            }
            (other, _) => return Err(unknown(other, SET_HINT)),
        }
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hints_name_all_there_is() {
        for (name, _) in SHOWN {
            assert!(SHOWN_HINT.contains(&format!("breccia.{name}")), "{name}");
            let hinted = SET_HINT.contains(&format!("breccia.{name}"));
            assert_eq!(settable(name).is_ok(), hinted, "{name}");
        }
        assert_eq!(columns("nonsense").expect_err("no").hint, SHOWN_HINT);
        assert_eq!(settable("nonsense").expect_err("no").state, "42704");
        assert_eq!(settable("version").expect_err("no").state, "55P02");
    }

    #[test]
    fn a_description_has_the_formats_that_were_asked_for() {
        let formats = |asked: &[u16]| {
            let mut out = Vec::new();
            describe(&mut out, &["a".to_owned(), "b".to_owned()], asked);
            let row = 2 + 6 + 4 + 2 + 4 + 2;
            let first = 5 + 2 + row;
            (out[first - 1], out[first + row - 1])
        };
        assert_eq!(formats(&[]), (0, 0));
        assert_eq!(formats(&[1]), (1, 1));
        assert_eq!(formats(&[0, 1]), (0, 1));
    }
}
