//! What a fresh connection to a Redis server is set up with: login, database, and a first answer.
//! No socket. Invariant: a connection that has greeted is logged in, on its database, and belongs
//! to a server that runs what it is sent.

use super::encode::{self, RespVersion};
use crate::upstream::Greeting;

/// Who logs in where.
#[derive(Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) version: RespVersion,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    pub(crate) database: u32,
    /// Whether transactions will be sent.
    pub(crate) transactions: bool,
}

impl Login<'_> {
    /// The bytes of the greeting.
    pub(crate) fn greeting(self) -> Greeting {
        let mut greeting = Greeting::default();
        let mut say = |words: &[&[u8]]| {
            encode::request(&mut greeting.bytes, words);
            greeting.replies += 1;
        };
        let user = self.user.unwrap_or("default").as_bytes();
        match (self.version, self.password.map(str::as_bytes)) {
            (RespVersion::V3, Some(password)) => say(&[b"HELLO", b"3", b"AUTH", user, password]),
            (RespVersion::V3, None) => say(&[b"HELLO", b"3"]),
            (RespVersion::V2, Some(password)) if self.user.is_some() => {
                say(&[b"AUTH", user, password]);
            }
            (RespVersion::V2, Some(password)) => say(&[b"AUTH", password]),
            (RespVersion::V2, None) => {}
        }
        if self.database != 0 {
            say(&[b"SELECT", self.database.to_string().as_bytes()]);
        }
        if self.transactions {
            // Shows that this login may open transactions: a MULTI refused later would let the
            // commands after it run one by one.
            say(&[b"MULTI"]);
            say(&[b"DISCARD"]);
        }
        if greeting.replies == 0 {
            // A frozen server's kernel accepts connections too: only an answer shows that requests
            // written now are run now.
            encode::request(&mut greeting.bytes, &[b"PING"]);
            greeting.replies = 1;
        }
        greeting
    }
}
