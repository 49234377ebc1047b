//! The plan of a start without a configuration file.
//!
//! It is a configuration like any other, so that users can print it and start from it. Invariant:
//! it binds to loopback only and needs nothing installed.

use std::path::Path;

use crate::Secret;
use crate::plan::Plan;
use crate::read;

/// The quick start as a configuration file.
pub const QUICK_START: &str = include_str!("quick_start.toml");

/// The quick start: Redis on 127.0.0.1:6380 and memcached on 127.0.0.1:11212 over four memory
/// stores, S3 on 127.0.0.1:9100 over four folders below `data_dir` for one user with this key pair,
/// admin on 127.0.0.1:9180.
///
/// # Panics
///
/// Never: [`QUICK_START`] is a constant, and a test checks it.
pub fn quick_start(data_dir: &Path, access_key: &str, secret_key: &Secret) -> Plan {
    let (mut plan, _) = read::parse(QUICK_START, "quick start", data_dir, &|_| None)
        .expect("`QUICK_START` is a constant, and a test checks it");
    data_dir.clone_into(&mut plan.state_dir);
    // The constant's own are there for whoever makes a file of it.
    for user in plan.listeners.values_mut().flat_map(|it| &mut it.users) {
        if let Some(s3) = &mut user.s3 {
            access_key.clone_into(&mut s3.access_key);
            s3.secret_key.clone_from(secret_key);
        }
    }
    plan
}
