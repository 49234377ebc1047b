//! Checks of listeners' keys that belong to another protocol.
//!
//! Not what a protocol's own keys demand of each other. Invariant: a key that would do nothing is a
//! fault, if it was written.

use crate::decode::Decoder;
use crate::fault::ConfigError;
use crate::plan::Protocol;
use crate::value::Decoded;

/// Keys of a listener that only S3 has.
const ONLY_S3: [&str; 4] = ["buckets", "domain", "region", "buffer-memory"];
/// Keys of a listener that S3 has no use for.
const NOT_S3: [&str; 2] = ["max-arguments", "reply-buffer"];
/// Keys of a listener that only SQL has.
const ONLY_SQL: [&str; 8] = [
    "pool-mode",
    "pool-size",
    "queue-timeout",
    "idle-in-transaction-timeout",
    "transaction-timeout",
    "slow-statement",
    "max-lifetime",
    "upstream-idle-timeout",
];
/// Keys of a listener that only PostgreSQL has.
const ONLY_POSTGRESQL: [&str; 2] = ["auth-query", "allow-md5"];
/// Keys of a listener that only MySQL has.
const ONLY_MYSQL: [&str; 1] = ["local-infile"];
/// Keys of a listener that SQL has no use for.
const NOT_SQL: [&str; 5] = [
    "deadline",
    "max-arguments",
    "max-in-flight",
    "min-body-rate",
    "reply-buffer",
];
/// Keys of a user that only S3 has.
const USER_ONLY_S3: [&str; 4] = ["access-key", "secret-key", "buckets", "read-only"];
/// Keys of a user that only SQL has.
const USER_ONLY_SQL: [&str; 3] = ["scram-verifier", "upstream-user", "upstream-password"];

/// Keys that belong to another protocol.
pub(super) fn keys(decoder: &mut Decoder<'_>, listener: &Decoded, protocol: Protocol) {
    let mut fault = |table: &Decoded, key, mend| {
        if table.given(key) {
            let protocol = protocol.name();
            decoder.fault_in(table, key, ConfigError::ForeignKey { protocol, mend });
        }
    };
    let foreign: [&[&str]; 4] = match protocol {
        Protocol::S3 => [&NOT_S3, &ONLY_SQL, &ONLY_POSTGRESQL, &ONLY_MYSQL],
        Protocol::Postgresql => [&ONLY_S3, &NOT_SQL, &ONLY_MYSQL, &[]],
        Protocol::Mysql => [&ONLY_S3, &NOT_SQL, &ONLY_POSTGRESQL, &[]],
        Protocol::Redis | Protocol::Memcached => {
            [&ONLY_S3, &ONLY_SQL, &ONLY_POSTGRESQL, &ONLY_MYSQL]
        }
    };
    for key in foreign.concat() {
        let mend = match key {
            "buckets" => "write `store`, or use protocol = \"s3\"",
            "deadline" => "write `queue-timeout`",
            "auth-query" if protocol == Protocol::Mysql => {
                "take it out, and give each user a table with a password"
            }
            _ => "take it out",
        };
        fault(listener, key, mend);
    }
    let (foreign, mend): (Vec<&str>, _) = match protocol {
        Protocol::S3 => (
            [&["password"], USER_ONLY_SQL.as_slice()].concat(),
            "S3 clients sign: give the user an access-key and a secret-key",
        ),
        Protocol::Redis => (
            [USER_ONLY_S3.as_slice(), &USER_ONLY_SQL].concat(),
            "Redis clients log in with name and password",
        ),
        Protocol::Postgresql => (
            USER_ONLY_S3.to_vec(),
            "PostgreSQL clients log in with name and password",
        ),
        Protocol::Mysql => (
            [USER_ONLY_S3.as_slice(), &["scram-verifier"]].concat(),
            "MySQL clients log in with name and password: give the user a `password`",
        ),
        // No user belongs there: told elsewhere.
        Protocol::Memcached => return,
    };
    for user in listener.get::<&[Decoded]>("user").unwrap_or(&[]) {
        for key in &foreign {
            fault(user, key, mend);
        }
    }
}
