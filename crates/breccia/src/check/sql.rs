//! What `check --connect` finds out about the servers of each `sql-read-replica`.
//!
//! Not their watch: a gateway asks again and again, this once. Invariant: what is asked here changes
//! nothing, and each fault and each warning says what to do.

mod alike;
mod mysql;

use std::collections::BTreeMap;
use std::time::Duration;

use breccia_config::{Plan, Protocol, SqlPlan, SqlReadReplicaPlan, StorePlan};
use breccia_sql::SqlError;
use breccia_sql::postgres::monitor::{ROLE, report};
use breccia_sql::postgres::token::Lsn;
use breccia_sql::postgres::upstream::{Login, Row};

use super::logins;
use crate::registry;
use alike::Settings;

/// What a server is asked behind [`ROLE`], in the order of the fields of [`Facts`].
const MORE: &str = "pg_catalog.current_setting('server_version'), \
    pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE')::text, \
    (SELECT status FROM pg_catalog.pg_stat_wal_receiver), \
    pg_catalog.current_setting('hot_standby'), \
    pg_catalog.current_setting('wal_level'), \
    pg_catalog.current_setting('default_transaction_read_only'), \
    pg_catalog.current_setting('synchronous_commit'), \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused()::text END, \
    pg_catalog.current_setting('recovery_min_apply_delay'), \
    pg_catalog.current_setting('max_connections'), \
    pg_catalog.current_setting('superuser_reserved_connections'), \
    pg_catalog.current_setting('reserved_connections', true)";

/// Settings that change what a read answers; they are asked for behind [`MORE`].
const ANSWERED_BY: [&str; 7] = [
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "search_path",
    "default_text_search_config",
    "lc_monetary",
    "lc_numeric",
];
/// Where their values stand in the row.
const FIRST_SETTING: usize = 16;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    recovery: bool,
    timeline: Option<u32>,
    system: u64,
    position: Lsn,
    version: String,
    sees_all: bool,
    receives: Option<String>,
    hot_standby: bool,
    wal_level: String,
    read_only: bool,
    synchronous_commit: String,
    replay_paused: bool,
    /// How late it applies what it receives, on purpose; `None`: it does not.
    delay: Option<String>,
    /// How many connections of clients it takes.
    connections: usize,
    settings: Settings,
}

impl Facts {
    fn read(row: &Row) -> Option<Self> {
        let role = report(row)?;
        let at = |number: usize| row.get(number).and_then(Option::as_deref);
        Some(Self {
            recovery: role.recovery,
            timeline: role.timeline,
            system: role.system,
            position: role.position,
            version: at(4)?.to_owned(),
            sees_all: at(5)? == "true",
            receives: at(6).map(str::to_owned),
            hot_standby: at(7)? == "on",
            wal_level: at(8)?.to_owned(),
            read_only: at(9)? == "on",
            synchronous_commit: at(10)?.to_owned(),
            replay_paused: at(11) == Some("true"),
            delay: at(12).filter(|it| *it != "0").map(str::to_owned),
            connections: connections([at(13), at(14), at(15)]),
            settings: (FIRST_SETTING..)
                .zip(ANSWERED_BY)
                .filter_map(|(number, name)| Some((name.to_owned(), at(number)?.to_owned())))
                .collect(),
        })
    }
}

/// What is asked of a server, as one query.
fn question() -> String {
    let setting = |name: &&str| format!(", pg_catalog.current_setting('{name}')");
    let settings: String = ANSWERED_BY.iter().map(setting).collect();
    format!("{ROLE}, {MORE}{settings}")
}

/// How many connections are left of all, those for other roles taken off.
fn connections([all, reserved, more]: [Option<&str>; 3]) -> usize {
    let number = |it: Option<&str>| it.and_then(|it| it.parse().ok());
    let taken = [reserved, more].map(|it| number(it).unwrap_or(0));
    let all = number(all).unwrap_or(usize::MAX);
    taken.into_iter().fold(all, usize::saturating_sub)
}

/// What there is to say of the servers and their composites.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// One for each server; `Err`: it cannot be used.
    pub(super) lines: BTreeMap<String, Result<String, String>>,
    /// What would not work.
    pub(super) faults: Vec<String>,
    /// What works, if not as somebody may wish.
    pub(super) warnings: Vec<String>,
}

/// One server of a composite, as it was asked.
struct Asked {
    name: String,
    place: String,
    role: String,
    facts: Result<Facts, String>,
}

/// Asks every server of every `sql-read-replica`.
pub(super) async fn look(plan: &Plan, limit: Duration) -> Findings {
    let mut findings = Findings::default();
    for (name, store) in &plan.stores {
        let StorePlan::SqlReadReplica(composite) = store else {
            continue;
        };
        if plan.spoken(name) == Some(Protocol::Mysql) {
            let asked = mysql::ask_all(plan, name, limit).await;
            findings.weigh_mysql(name, composite, &asked);
            for one in &asked {
                let facts = one.facts.as_ref().ok();
                if let Some(most) = facts.and_then(|it| it.number("max_connections")) {
                    findings.weigh_connections(plan, &one.name, most);
                }
            }
            continue;
        }
        let asked = ask_all(plan, name, limit).await;
        findings.weigh(name, composite, &asked);
        for one in &asked {
            if let Ok(facts) = &one.facts {
                findings.weigh_connections(plan, &one.name, facts.connections);
            }
        }
    }
    let answer = findings.lines.iter().filter(|(_, line)| line.is_ok());
    let answer = answer.map(|(name, _)| name.as_str()).collect();
    let mut refused = logins::look(plan, limit, &answer).await;
    refused.extend(logins::questions(plan, limit, &answer).await);
    findings.faults.extend(refused);
    findings
}

async fn ask_all(plan: &Plan, composite: &str, limit: Duration) -> Vec<Asked> {
    let mut asked = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (number, (name, store)) in plan.leaves(composite).into_iter().enumerate() {
        let StorePlan::Postgresql(server) = store else {
            continue;
        };
        let (name, server) = (name.to_owned(), server.clone());
        tasks.spawn(async move {
            let asking = tokio::time::timeout(limit, ask(&name, &server));
            let facts = asking.await.unwrap_or_else(|_| {
                Err(format!("it does not answer within {} s", limit.as_secs()))
            });
            let place = server.address.to_string();
            let role = server.monitor_user.unwrap_or(server.user);
            (
                number,
                Asked {
                    name,
                    place,
                    role,
                    facts,
                },
            )
        });
    }
    while let Some(Ok(one)) = tasks.join_next().await {
        asked.push(one);
    }
    asked.sort_by_key(|(number, _)| *number);
    asked.into_iter().map(|(_, asked)| asked).collect()
}

async fn ask(name: &str, server: &SqlPlan) -> Result<Facts, String> {
    let (endpoint, own_role) =
        registry::sql_endpoint(name, server).map_err(|trouble| trouble.into_lines().join("; "))?;
    let (role, credential) = own_role.ok_or_else(|| {
        format!(
            "store.{name} has neither `user` nor `monitor-user`, so its role and position cannot \
             be asked, and nobody is served by it; add one"
        )
    })?;
    let login = Login {
        role,
        credential,
        database: server.database.clone(),
        read_only: false,
    };
    let mut upstream = endpoint
        .open(&login)
        .await
        .map_err(|error| unreached(&error))?;
    let rows = endpoint.ask(&mut upstream, &question()).await;
    let rows = rows.map_err(|error| error.to_string())?;
    let facts = rows.first().and_then(Facts::read);
    facts.ok_or_else(|| "it does not say what it is; is it a PostgreSQL server?".to_owned())
}

/// Why a server cannot be asked. A replica with `hot_standby = off` lets nobody in.
fn unreached(error: &SqlError) -> String {
    let closed = matches!(
        error,
        SqlError::Refused { sqlstate, text, .. }
            if sqlstate == "57P03" && text.contains("not accepting connections")
    );
    if closed {
        format!("{error}; if it is a replica, set hot_standby = on there and restart it")
    } else {
        error.without_server()
    }
}

impl Findings {
    fn weigh(&mut self, name: &str, composite: &SqlReadReplicaPlan, asked: &[Asked]) {
        let facts = |asked: &'_ Asked| asked.facts.clone().ok().map(|it| (asked.name.clone(), it));
        let answered: Vec<(String, Facts)> = asked.iter().filter_map(facts).collect();
        let primaries: Vec<&(String, Facts)> = answered
            .iter()
            .filter(|(_, facts)| !facts.recovery)
            .collect();
        let (primaries, outdated) = followable(primaries, &answered);
        for ((server, facts), (other, timeline)) in outdated {
            self.faults.push(format!(
                "{server}: it claims to be the primary on the older timeline {}, and {other} is on \
                 {timeline}, so it serves nobody; make it a replica again (pg_rewind, \
                 pg_basebackup)",
                facts.timeline.unwrap_or(0)
            ));
        }
        let first = primaries.first().map(|(_, facts)| facts);
        for one in asked {
            let line = match &one.facts {
                Ok(facts) => Ok(format!("{} answers ({})", one.place, said(facts, first))),
                Err(why) => Err(format!("{} cannot be used ({why})", one.place)),
            };
            self.lines.insert(one.name.clone(), line);
            if let Ok(facts) = &one.facts {
                self.weigh_one(one, facts, composite);
            }
        }
        self.weigh_roles(name, composite, &primaries, &answered);
        if let Some((primary, known)) = primaries.first() {
            for (server, facts) in answered.iter().filter(|(server, _)| server != primary) {
                self.weigh_alike((primary, &known.settings), (server, &facts.settings));
            }
        }
        let mut others = answered.iter();
        if let Some((first, known)) = others.next()
            && let Some((other, _)) = others.find(|(_, facts)| facts.system != known.system)
        {
            self.faults.push(format!(
                "{name}: {first} and {other} belong to different clusters (their system \
                 identifiers differ); name servers that were copied from one (pg_basebackup)"
            ));
        }
    }

    fn weigh_roles(
        &mut self,
        name: &str,
        composite: &SqlReadReplicaPlan,
        primaries: &[&(String, Facts)],
        answered: &[(String, Facts)],
    ) {
        match primaries {
            [] if answered.is_empty() => {}
            [] => {
                let known = &composite.primary;
                let mend = if answered.iter().any(|(server, _)| server == known) {
                    format!("promote one (pg_promote), or name the primary in store.{name}")
                } else {
                    format!("start {known}, or promote one (pg_promote)")
                };
                self.faults.push(format!(
                    "{name}: every server that answers is a replica, so nothing can be written; \
                     {mend}"
                ));
            }
            [(primary, facts)] if newer_than(facts, answered).is_some() => {
                let other = newer_than(facts, answered);
                let (other, timeline) = other.unwrap_or((primary, 0));
                self.faults.push(format!(
                    "{name}: {primary} claims to be the primary, and {other} is on the newer \
                     timeline {timeline}, so another server was promoted, and writes would be \
                     refused; start that one, or, to go on with {primary}, make the others its \
                     replicas again (pg_rewind, pg_basebackup)"
                ));
                return;
            }
            [(primary, _)] if *primary != composite.primary => self.warnings.push(format!(
                "{name}: {primary} is the primary, and store.{name}.primary names {}, which is \
                 not; the gateway follows the servers, but write primary = \"{primary}\"",
                composite.primary
            )),
            [_, _, ..] => {
                let names: Vec<&str> = primaries.iter().map(|(name, _)| name.as_str()).collect();
                self.faults.push(format!(
                    "{name}: {} all claim to be the primary, so writes would be refused; stop all \
                     but one, and make the others replicas again (pg_rewind, pg_basebackup)",
                    names.join(" and ")
                ));
            }
            _ => {}
        }
        let timeline = primaries.first().and_then(|(_, facts)| facts.timeline);
        for (server, facts) in answered.iter().filter(|(_, facts)| facts.recovery) {
            if primaries.len() == 1 && facts.timeline.is_some() && facts.timeline != timeline {
                self.faults.push(format!(
                    "{server}: it is not on the primary's timeline, so it serves no reads; make it \
                     follow the primary (recovery_target_timeline = 'latest', pg_rewind)"
                ));
            }
        }
    }

    fn weigh_one(&mut self, asked: &Asked, facts: &Facts, composite: &SqlReadReplicaPlan) {
        let (name, role) = (&asked.name, &asked.role);
        let grant = format!("GRANT pg_monitor TO \"{}\"", role.replace('"', "\"\""));
        if facts.recovery && facts.timeline.is_none() {
            self.faults.push(format!(
                "{name}: it does not tell its timeline, so it serves no reads; on the primary: \
                 {grant}"
            ));
        } else if !facts.sees_all {
            self.warnings.push(format!(
                "{name}: role {role:?} is no member of pg_monitor, so as a replica it does not \
                 tell which timeline it receives, and after a failover serves no reads until its \
                 next restart point; on the primary: {grant}"
            ));
        } else if facts.recovery && facts.receives.is_none() {
            self.warnings.push(format!(
                "{name}: it receives nothing from a primary now; look at its primary_conninfo and \
                 its log"
            ));
        }
        if facts.replay_paused {
            self.warnings.push(format!(
                "{name}: its replay is paused, so it falls behind and serves no reads that need \
                 more; go on with SELECT pg_wal_replay_resume()"
            ));
        }
        if let Some(delay) = facts.delay.as_ref().filter(|_| facts.recovery) {
            self.warnings.push(format!(
                "{name}: it applies what it receives {delay} late on purpose \
                 (recovery_min_apply_delay), so it serves no reads that need to be fresh; set that to \
                 0, or take it out of `replicas`"
            ));
        }
        if !facts.hot_standby {
            self.warnings.push(format!(
                "{name}: hot_standby is off, so as a replica it would let nobody in; set it to on \
                 and restart the server"
            ));
        }
        if !facts.recovery && facts.wal_level == "minimal" && !composite.replicas.is_empty() {
            self.faults.push(format!(
                "{name}: wal_level is minimal, so no replica can follow it; set wal_level = \
                 replica and restart the server"
            ));
        }
        if !facts.recovery && facts.read_only {
            self.faults.push(format!(
                "{name}: it is the primary, and default_transaction_read_only is on for role \
                 {role:?}, so writes fail; turn it off (ALTER SYSTEM, ALTER DATABASE or ALTER ROLE)"
            ));
        }
        if !facts.recovery && facts.synchronous_commit == "off" {
            self.warnings.push(format!(
                "{name}: synchronous_commit is off for role {role:?}: the last commits may be lost \
                 at a crash or failover, though acknowledged; reads stay right. Set it to on where \
                 that matters"
            ));
        }
    }
}

/// A replica of the same cluster that is on a newer timeline, and which.
fn newer_than<'a>(claimant: &Facts, answered: &'a [(String, Facts)]) -> Option<(&'a String, u32)> {
    let replicas = answered.iter().filter(|(_, facts)| facts.recovery);
    let newer = replicas.filter(|(_, facts)| {
        facts.system == claimant.system && facts.timeline > claimant.timeline.or(Some(0))
    });
    newer
        .map(|(server, facts)| (server, facts.timeline.unwrap_or(0)))
        .max_by_key(|(_, timeline)| *timeline)
}

type Named = (String, Facts);

/// A server that came back as a primary, and the one that shows it, with its timeline.
type Outdated<'a> = (&'a Named, (&'a String, u32));

/// Parts the servers that claim to be the primary as a gateway does at its start: those that it may
/// follow, and those that came back on an older timeline, each with who shows it.
fn followable<'a>(
    primaries: Vec<&'a Named>,
    answered: &'a [Named],
) -> (Vec<&'a Named>, Vec<Outdated<'a>>) {
    let is_current = |one: &&Named| newer_than(&one.1, answered).is_none();
    if !primaries.iter().any(is_current) {
        return (primaries, Vec::new());
    }
    let (current, older): (Vec<_>, Vec<_>) = primaries.into_iter().partition(is_current);
    let shown = |one: &'a Named| Some((one, newer_than(&one.1, answered)?));
    (current, older.into_iter().filter_map(shown).collect())
}

/// What a server is, for its line.
fn said(facts: &Facts, primary: Option<&Facts>) -> String {
    let role = if facts.recovery { "replica" } else { "primary" };
    let timeline = facts
        .timeline
        .map_or("unknown".to_owned(), |it| it.to_string());
    let lag = match primary {
        _ if !facts.recovery => String::new(),
        // Positions of different clusters tell nothing of each other.
        Some(primary) if primary.system == facts.system => {
            let behind = primary.position.0.saturating_sub(facts.position.0);
            format!(", {behind} bytes behind")
        }
        _ => ", lag unknown without its primary".to_owned(),
    };
    // Packages add words of their own.
    let version = facts.version.split_whitespace().next().unwrap_or_default();
    format!("PostgreSQL {version}, {role}, timeline {timeline}{lag}")
}

#[cfg(test)]
mod tests;
