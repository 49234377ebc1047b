//! Executions of prepared statements whose parameters are too long to be kept.
//!
//! Not how they are sent ([`super`]). Invariant: the statement's text is known, and binds, pins and is
//! refused as with short parameters.

use super::{Long, number_of};
use crate::error::SqlError;
use crate::mysql::class::{Class, Hidden, Selects, Verdict};
use crate::mysql::codec::{self, HEADER_BYTES};
use crate::mysql::frontend::serve::{Ask, Trouble};
use crate::mysql::frontend::session::{End, Session};

impl Session {
    /// A statement runs whose parameters are too long to be kept.
    pub(super) async fn execute_long(&mut self, mut long: Long) -> Result<(), End> {
        let number = number_of(&long.here).unwrap_or_default();
        if let Some(statement) = self.statements.get_mut(number) {
            // Values may come long after their types.
            let head = codec::ExecuteHead::most_bytes(statement.parameters);
            self.here_at_least(&mut long, head).await?;
        }
        let payload = long.here.get(HEADER_BYTES..).unwrap_or_default();
        let parts = self.statements.get_mut(number).map(|statement| {
            let head = codec::ExecuteHead::parse(payload, statement.parameters);
            (statement, head)
        });
        let Some((statement, head)) = parts else {
            let why = format!("Unknown prepared statement handler ({number})");
            self.answer_error(1243, *b"HY000", &why);
            return self.finish_refused(long).await;
        };
        let head = head?;
        if let Some(types) = &head.types {
            statement.types = payload.get(types.clone()).map(Into::into);
        } else if let (Some(types), Some(flag)) = (&statement.types, head.flag) {
            long.insert = Some((flag, types.to_vec()));
        }
        let cursor = head.flags != 0;
        let classifier = &self.listener.cluster.schemas.classifier;
        let known = statement.judge(classifier);
        let verdict = self.judged_long(&known, cursor);
        if verdict.asked.anything() {
            // It is prepared anew, and what it asks about would be that.
            self.refuse(&SqlError::Forgotten);
            return self.finish_refused(long).await;
        }
        if !self.note_before(&verdict) || !self.is_ready(number).await {
            return self.finish_refused(long).await;
        }
        // It is prepared first, so that its number there is known.
        match self.ready_for_data(number).await {
            Ok((_, there)) => long.number = Some(there),
            Err(Trouble::Before(error)) => {
                self.refuse(&error);
                return self.finish_refused(long).await;
            }
            Err(Trouble::End(end)) => return Err(end),
            Err(Trouble::After { error, .. }) => {
                let why = format!("breccia: {error}; the statement was not carried out");
                return Err(End::Told(1158, b"08S01", why));
            }
        }
        self.forget_types(number);
        let outcome = self.serve(Ask::Long(&mut long), &verdict).await?;
        self.note_after(&verdict, outcome.as_ref());
        self.hold_or_drop(number, cursor, outcome).await;
        self.finish_refused(long).await
    }

    /// What an execution is whose parameters are too long to be kept.
    fn judged_long(&self, known: &Verdict, cursor: bool) -> Verdict {
        let mut verdict = known.clone();
        if known.class == Class::Read {
            // It cannot be sent once more, where a replica is lost.
            verdict.class = Class::Primary("long");
        }
        if cursor {
            verdict.selects = Selects::Unknown;
        }
        // Of a text that is known the values change nothing.
        verdict.only_reads = self.refused_away(known).is_none();
        verdict.may_set_last_insert_id = true;
        verdict.hidden = verdict.hidden.max(Hidden::Triggers);
        verdict
    }
}
