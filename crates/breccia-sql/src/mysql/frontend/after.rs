//! What an answer means, once the client has it: for the session, and for the connection it came on.
//!
//! Invariant: what a session may have seen or changed is noted before its next statement finds a place.

use std::sync::Arc;

use breccia_net::clock;

use super::attached::Attached;
use super::relay::Outcome;
use super::session::Session;
use crate::error::SqlError;
use crate::freshness::Home;
use crate::mysql::class::{Class, Verdict};
use crate::mysql::gtid::Gtids;

impl Session {
    /// What an answer means for the session, and for the connection it came on.
    pub(super) async fn after(
        &mut self,
        mut attached: Box<Attached>,
        verdict: &Verdict,
        outcome: &Outcome,
    ) {
        if (outcome.warnings > 0 || outcome.error.is_some())
            && let Some(upstream) = attached.lease.upstream()
        {
            upstream.has_warnings = true;
        }
        let committed = self.absorb(&mut attached, outcome, verdict);
        attached.note_traces(verdict, outcome);
        if !attached.replica && self.is_unsure(verdict, outcome) {
            // What is open is told with the next answer, which is to come from the same connection.
            attached.unsure = true;
        }
        let now = clock::now();
        self.note_previous(&mut attached, verdict, outcome);
        if attached.is_known_open() {
            self.transaction_since.get_or_insert(self.asked);
        } else if !self.in_transaction() {
            self.transaction_since = None;
        }
        let asks_more = verdict.asked.anything()
            || verdict.calculates_found_rows
            || outcome.warnings > 0
            || outcome.error.is_some();
        self.ask_untold(&mut attached, verdict, outcome).await;
        if attached.replica {
            self.freshness.used_replica(Home {
                server: attached.server,
                run: attached.run,
                last: now,
                has: attached.has.clone(),
            });
            let stays = self.stays(&attached, asks_more, verdict);
            self.settle_away(attached, stays, now).await;
            return;
        }
        let committed = committed.filter(|_| is_one_statement(verdict, outcome));
        self.note_primary(&attached, committed);
        if verdict.ddl {
            self.listener.cluster.ddl_seen();
        }
        if verdict.may_set_last_insert_id || outcome.insert_id != 0 {
            attached.sets_insert_id = true;
            attached.owns_insert_id |= outcome.insert_id != 0;
            if let Some(upstream) = attached.lease.upstream() {
                upstream.last_insert_id = None;
            }
        }
        let stays = self.stays(&attached, asks_more, verdict);
        self.settle_home(attached, stays).await;
    }

    /// Whether a statement that failed may have left a transaction open, or a setting changed.
    fn is_unsure(&self, verdict: &Verdict, outcome: &Outcome) -> bool {
        // ER_PARSE_ERROR: nothing of it was run.
        const UNREAD: u16 = 1064;
        /// Where more than one statement may have run, or nobody knows which.
        const PROGRAMS: [&str; 8] = [
            "call",
            "charset",
            "executable-comment",
            "function",
            "long",
            "several",
            "unlexed",
            "unproven",
        ];
        let Some((code, ..)) = &outcome.error else {
            return false;
        };
        let may = match verdict.class {
            Class::Primary(reason) => PROGRAMS.contains(&reason) && *code != UNREAD,
            _ => false,
        };
        may || !self.autocommits()
    }

    /// The primary was used: what the session may not read behind from now on.
    fn note_primary(&mut self, attached: &Attached, committed: Option<Gtids>) {
        let open = attached.in_transaction();
        match committed {
            Some(gtids) if !open && self.listener.cluster.is_whole(&gtids) => {
                self.freshness.used_primary(None);
                self.freshness.stamped(attached.epoch, &gtids);
            }
            _ => {
                let question = if open {
                    None
                } else {
                    self.listener.cluster.question(attached.server)
                };
                self.freshness.used_primary(question);
            }
        }
    }

    /// Asks for settings of which an answer should have told, and has not.
    async fn ask_untold(&mut self, attached: &mut Attached, verdict: &Verdict, outcome: &Outcome) {
        let mut asked = Self::doubted(outcome, verdict);
        if Self::misses_collation(outcome) {
            asked.push("collation_connection".to_owned());
        }
        if !asked.is_empty() {
            attached.forget_previous();
        }
        self.ask_settings(attached, &asked).await;
    }

    /// Asks for settings of which the answer told nothing, or that which held for a moment.
    async fn ask_settings(&mut self, attached: &mut Attached, names: &[String]) {
        let pool = Arc::clone(attached.pool());
        let Some(upstream) = attached.lease.upstream() else {
            return;
        };
        for name in names {
            let sql = format!("SELECT @@session.{name} LIMIT 1");
            let value = match pool.endpoint().ask_value(upstream, &sql).await {
                Ok(Some(value)) => value,
                Ok(None) => {
                    // NULL cannot be brought along.
                    self.pin("variable");
                    continue;
                }
                // There is no such variable, or none of a session's own: nothing has changed.
                Err(SqlError::Question { .. }) => continue,
                Err(_) => {
                    attached.tainted = true;
                    return;
                }
            };
            let value = match (name.as_str(), value.as_str()) {
                ("autocommit", "0") => "OFF",
                ("autocommit", _) => "ON",
                (_, value) => value,
            };
            Arc::make_mut(&mut self.settings).set(name, value);
            upstream.applied = Arc::clone(&self.settings);
            self.see_auto_is_null();
        }
    }
}

/// Whether an answer is that of one statement alone, so that it has shown nothing that was committed
/// after what it committed itself.
fn is_one_statement(verdict: &Verdict, outcome: &Outcome) -> bool {
    let many = matches!(
        verdict.class,
        Class::Primary("call" | "executable-comment") | Class::Pin(_)
    );
    verdict.single && !many && outcome.parts == 1 && outcome.error.is_none()
}
