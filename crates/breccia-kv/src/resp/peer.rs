//! What is noted of the server at the other end of one connection: the scripts it has shown to know,
//! and the number by which it calls the connection.
//!
//! Not what is asked of it. Invariant: all of it is forgotten with the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::scripts::ScriptsSeen;

/// See the module's page.
#[derive(Debug, Default)]
pub struct Peer {
    /// The scripts it has.
    pub(crate) scripts: ScriptsSeen,
    /// What it calls this connection.
    pub(crate) number: Arc<ConnectionNumber>,
}

/// A connection's number on its server (CLIENT ID), for CLIENT UNBLOCK from any worker.
///
/// A connection that somebody was told to unblock is not lent to another client: the order to do so
/// may still be on its way.
#[derive(Debug, Default)]
pub(crate) struct ConnectionNumber {
    number: AtomicI64,
    marked: AtomicBool,
}

/// Nobody has asked for the number yet.
const NOT_ASKED: i64 = 0;
/// It was asked for, and the reply is on its way.
const ASKED: i64 = -1;
/// The server does not tell it to our login.
const UNTOLD: i64 = -2;

impl ConnectionNumber {
    /// Whether the number is to be asked for; at most once.
    pub(crate) fn is_wanted(&self) -> bool {
        let asks = |known, wanted| {
            let order = Ordering::Relaxed;
            self.number.compare_exchange(known, wanted, order, order)
        };
        asks(NOT_ASKED, ASKED).is_ok()
    }

    /// Takes the reply to CLIENT ID.
    pub(crate) fn learn(&self, number: Option<i64>) {
        let number = number.filter(|number| *number > 0).unwrap_or(UNTOLD);
        self.number.store(number, Ordering::Relaxed);
    }

    /// Whether the server has answered, be it with a refusal.
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self.number.load(Ordering::Relaxed), NOT_ASKED | ASKED)
    }

    /// The number, if it is known.
    pub(crate) fn get(&self) -> Option<i64> {
        let number = self.number.load(Ordering::Relaxed);
        (number > 0).then_some(number)
    }

    /// Somebody is about to have the connection unblocked.
    pub(crate) fn mark(&self) {
        self.marked.store(true, Ordering::Release);
    }

    /// Whether somebody has, or may have.
    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_asked_for_once() {
        let number = ConnectionNumber::default();
        assert!(number.is_wanted() && !number.is_wanted());
        assert!(!number.is_settled() && number.get().is_none());
        number.learn(Some(7));
        assert!(number.is_settled() && !number.is_wanted());
        assert_eq!(number.get(), Some(7));
    }

    #[test]
    fn a_refusal_settles_the_question() {
        let number = ConnectionNumber::default();
        assert!(number.is_wanted());
        number.learn(None);
        assert!(number.is_settled() && !number.is_wanted());
        assert_eq!(number.get(), None);
    }
}
