//! Logins by the protocol of MySQL and MariaDB, at both ends.
//!
//! Upstream against a real `MariaDB`, and against a scripted server where MySQL 8 itself would be needed
//! (`caching_sha2_password`); downstream against the `mariadb` program. Not run without Debian's
//! `mariadb-server`. Invariant: every test has servers of its own.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that goes wrong this way fails, as it should"
)]

mod clients;
mod scripted;
mod servers;

use std::time::Duration;

use breccia_core::address::Address;
use breccia_sql::mysql::upstream::{Credential, Endpoint, Login, UpstreamTls};

fn endpoint(address: Address) -> Endpoint {
    Endpoint {
        name: "mail".to_owned(),
        address,
        tls: UpstreamTls::Off,
        health: None,
        timeout: Duration::from_secs(20),
        own: Vec::new(),
    }
}

fn login(user: &str, password: &str) -> Login {
    Login {
        user: user.to_owned(),
        credential: Credential::Password(password.to_owned()),
        capabilities: 0,
        collation: 45,
        with_schema: false,
        read_only: false,
    }
}

fn local(port: u16) -> Address {
    Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
}
