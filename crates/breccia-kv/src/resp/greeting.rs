//! What a fresh connection to a Redis server is set up with: login, database, and a first answer.
//! No socket. Invariant: a connection that has greeted is logged in, on its database, and belongs
//! to a server that runs what it is sent.

use std::sync::Arc;

use super::encode::{self, RespVersion};
use crate::identity::Identity;
use crate::upstream::Greeting;

/// How transactions will be sent on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transactions {
    /// Not at all.
    Never,
    /// Each as one request, from MULTI to EXEC.
    Whole,
    /// Command by command, as a client sends them: the connection may rest between two.
    Stepwise,
}

/// Who logs in where.
#[derive(Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) version: RespVersion,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    /// The database that requests use.
    pub(crate) database: u32,
    pub(crate) transactions: Transactions,
    /// The markers the server must carry, and the database they lie in.
    pub(crate) identity: Option<(&'a Arc<Identity>, u32)>,
}

/// Appends a request; answers the number of its reply.
fn say(greeting: &mut Greeting, words: &[&[u8]]) -> usize {
    encode::request(&mut greeting.bytes, words);
    greeting.replies += 1;
    greeting.replies - 1
}

impl Login<'_> {
    /// The bytes of the greeting, and what is expected of its replies.
    pub(crate) fn greeting(self) -> Greeting {
        let mut greeting = Greeting::default();
        self.log_in(&mut greeting);
        let selected = self.prove(&mut greeting);
        if self.database != selected {
            select(&mut greeting, self.database);
        }
        self.try_transaction(&mut greeting);
        if greeting.replies == 0 {
            // A frozen server's kernel accepts connections too: only an answer shows that requests
            // written now are run now. -LOADING and -BUSY are signs of life.
            let ping = say(&mut greeting, &[b"PING"]);
            greeting.tolerated.push(ping);
        }
        greeting
    }

    fn log_in(&self, greeting: &mut Greeting) {
        let user = self.user.unwrap_or("default").as_bytes();
        match (self.version, self.password.map(str::as_bytes)) {
            (RespVersion::V3, Some(password)) => {
                say(greeting, &[b"HELLO", b"3", b"AUTH", user, password]);
            }
            (RespVersion::V3, None) => {
                say(greeting, &[b"HELLO", b"3"]);
            }
            (RespVersion::V2, Some(password)) if self.user.is_some() => {
                say(greeting, &[b"AUTH", user, password]);
            }
            (RespVersion::V2, Some(password)) => {
                say(greeting, &[b"AUTH", password]);
            }
            (RespVersion::V2, None) => {}
        }
    }

    /// Asks for the beginning of each marker, in the database that carries them. Answers which
    /// database is selected afterwards.
    fn prove(&self, greeting: &mut Greeting) -> u32 {
        let Some((identity, database)) = self.identity else {
            return 0;
        };
        if database != 0 {
            select(greeting, database);
        }
        for marker in identity.carried() {
            let last = (marker.head.len() - 1).to_string();
            let words: [&[u8]; 4] = [b"GETRANGE", &marker.key, b"0", last.as_bytes()];
            let number = say(greeting, &words);
            let mut expected = Vec::new();
            encode::bulk(&mut expected, &marker.head);
            greeting.proofs.push((number, expected));
        }
        database
    }

    /// Shows that this login may open transactions: a MULTI refused later would let the commands
    /// after it run one by one.
    fn try_transaction(&self, greeting: &mut Greeting) {
        if self.transactions == Transactions::Never {
            return;
        }
        say(greeting, &[b"MULTI"]);
        if self.transactions == Transactions::Whole {
            say(greeting, &[b"DISCARD"]);
            return;
        }
        // The nested MULTI shows whether it spoils a transaction here (Valkey 8 and later) or not
        // (Redis).
        let nested = say(greeting, &[b"MULTI"]);
        let exec = say(greeting, &[b"EXEC"]);
        greeting.tolerated.extend([nested, exec]);
        greeting.transaction_probe = Some(exec);
    }
}

fn select(greeting: &mut Greeting, database: u32) {
    say(greeting, &[b"SELECT", database.to_string().as_bytes()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(login: Login<'_>, bytes: &str, tolerated: &[usize], probe: Option<usize>) {
        let greeting = login.greeting();
        let words: Vec<String> = String::from_utf8(greeting.bytes)
            .unwrap()
            .split("\r\n")
            .filter(|line| !line.is_empty() && !line.starts_with(['*', '$']))
            .map(str::to_owned)
            .collect();
        assert_eq!(words.join(" "), bytes);
        assert_eq!(greeting.tolerated, tolerated, "{bytes}");
        assert_eq!(greeting.transaction_probe, probe, "{bytes}");
    }

    #[test]
    fn a_connection_says_what_it_needs_and_at_least_ping() {
        let plain = Login {
            version: RespVersion::V2,
            user: None,
            password: None,
            database: 0,
            transactions: Transactions::Never,
            identity: None,
        };
        check(plain, "PING", &[0], None);
        let third = Login {
            version: RespVersion::V3,
            ..plain
        };
        check(third, "HELLO 3", &[], None);
        let secret = Login {
            password: Some("s"),
            ..plain
        };
        check(secret, "AUTH s", &[], None);
        let named = Login {
            user: Some("u"),
            database: 4,
            ..secret
        };
        check(named, "AUTH u s SELECT 4", &[], None);
        let whole = Login {
            transactions: Transactions::Whole,
            ..plain
        };
        check(whole, "MULTI DISCARD", &[], None);
        let stepwise = Login {
            transactions: Transactions::Stepwise,
            ..named
        };
        check(
            stepwise,
            "AUTH u s SELECT 4 MULTI MULTI EXEC",
            &[3, 4],
            Some(4),
        );
    }
}
