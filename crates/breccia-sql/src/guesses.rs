//! Logins that failed, by user and address: who guesses passwords, waits longer and longer.
//!
//! Pure: the time is an argument. Not a lock: a user that knows the password gets in, from another
//! address at once. Invariant: however many connections guess, they get one answer in
//! [`STEP`] together once they have failed a few times, and the table is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So often a password may be mistyped.
const FREE: u32 = 3;
/// Between two challenges to the same user and address, after that.
const STEP: Duration = Duration::from_secs(1);
/// The longest wait; who would wait longer is turned away.
pub(crate) const LONGEST: Duration = Duration::from_secs(15);
/// Failures are forgotten once this long, or twice as long, has passed without another.
const KEPT: Duration = Duration::from_mins(10);
/// The most entries of one generation; there are two.
const MOST: usize = 8_192;

/// Who failed, and how often.
#[derive(Debug, Default)]
pub struct Guesses {
    hasher: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
    turned: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    failures: u32,
    /// When the next challenge may be sent.
    next: Option<Instant>,
}

/// A user at an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who(u64);

impl Guesses {
    /// Who `user` at the address of `peer` is. An IPv6 client can choose the second half of its
    /// address.
    pub(crate) fn who(&self, user: &str, peer: &str) -> Who {
        let address = peer.parse().map(|peer: SocketAddr| peer.ip());
        Who(match address {
            Ok(IpAddr::V6(address)) => self.hasher.hash_one((user, address.to_bits() >> 64)),
            Ok(IpAddr::V4(address)) => self.hasher.hash_one((user, address)),
            Err(_) => self.hasher.hash_one((user, peer)),
        })
    }

    /// How long the next challenge waits; `None`: too many wait already for one within `longest`.
    pub(crate) fn wait(&self, who: Who, now: Instant, longest: Duration) -> Option<Duration> {
        let mut table = self.lock();
        let Some(entry) = table.entry(who).filter(|entry| entry.failures >= FREE) else {
            return Some(Duration::ZERO);
        };
        let at = entry.next.map_or(now, |next| next.max(now));
        let wait = at.saturating_duration_since(now);
        if wait > longest {
            return None;
        }
        entry.next = Some(at + STEP);
        Some(wait)
    }

    /// The proof was wrong.
    pub(crate) fn failed(&self, who: Who, now: Instant) {
        let mut table = self.lock();
        table.turn(now);
        let mut entry = table.entry(who).map(|entry| *entry).unwrap_or_default();
        entry.failures = entry.failures.saturating_add(1);
        entry.next = entry.next.max(Some(now + STEP));
        table.young.insert(who.0, entry);
    }

    /// It was right.
    pub(crate) fn passed(&self, who: Who) {
        let mut table = self.lock();
        table.young.remove(&who.0);
        table.old.remove(&who.0);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn entry(&mut self, who: Who) -> Option<&mut Entry> {
        match self.young.get_mut(&who.0) {
            Some(entry) => Some(entry),
            None => self.old.get_mut(&who.0),
        }
    }

    /// Makes the young ones old, once they are many or the time has come.
    fn turn(&mut self, now: Instant) {
        let turned = *self.turned.get_or_insert(now);
        let late = now.saturating_duration_since(turned) >= KEPT;
        if late || self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
            self.turned = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_waits_from_the_fourth_time_on_and_all_its_connections_together() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let who = guesses.who("ann", "192.0.2.1:4000");
        for _ in 0..FREE {
            assert_eq!(guesses.wait(who, now, LONGEST), Some(Duration::ZERO));
            guesses.failed(who, now);
        }
        let same = guesses.who("ann", "192.0.2.1:4001");
        for number in 1..=15 {
            assert_eq!(guesses.wait(same, now, LONGEST), Some(STEP * number));
        }
        assert_eq!(guesses.wait(same, now, LONGEST), None);
        for (user, peer) in [
            ("bob", "192.0.2.1:1"),
            ("ann", "192.0.2.2:1"),
            ("ann", "unix"),
        ] {
            let other = guesses.who(user, peer);
            let wait = guesses.wait(other, now, LONGEST);
            assert_eq!(wait, Some(Duration::ZERO), "{user} {peer}");
        }
        guesses.passed(who);
        assert_eq!(guesses.wait(who, now, LONGEST), Some(Duration::ZERO));
    }

    #[test]
    fn an_address_that_a_client_can_choose_is_one() {
        let guesses = Guesses::default();
        let who = |peer| guesses.who("ann", peer).0;
        assert_eq!(who("[2001:db8::1]:1"), who("[2001:db8::2:3]:2"));
        assert_ne!(who("[2001:db8::1]:1"), who("[2001:db8:0:1::1]:1"));
    }

    #[test]
    fn failures_are_forgotten_and_their_number_is_bounded() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let who = guesses.who("ann", "192.0.2.1:1");
        for _ in 0..FREE {
            guesses.failed(who, now);
        }
        let other = guesses.who("bob", "192.0.2.1:1");
        guesses.failed(other, now + KEPT);
        assert!(guesses.lock().old.contains_key(&who.0));
        guesses.failed(other, now + KEPT * 2);
        assert_eq!(
            guesses.wait(who, now + KEPT * 2, LONGEST),
            Some(Duration::ZERO)
        );
        for number in 0..3 * MOST {
            let user = number.to_string();
            guesses.failed(guesses.who(&user, "192.0.2.1:1"), now + KEPT * 2);
        }
        let table = guesses.lock();
        assert!(table.young.len() <= MOST && table.old.len() <= MOST);
    }
}
