//! Starts real servers for tests; holds conformance suites and faulty peers.
//!
//! A development dependency only: nothing here is part of the product, and it may block, panic-free,
//! as long as a test can wait. Invariant: whatever is started is gone when its value is dropped.

pub mod conformance;
pub mod process;
pub mod resp;

mod azurite;
mod breccia;
mod certificates;
mod dice;
mod exchange;
mod faulty;
mod garage;
mod gcs_stub;
mod http_message;
mod mariadb;
mod mariadb_cluster;
mod memcached;
mod my_client;
mod my_reply;
mod my_value;
mod narrow;
mod ports;
mod postgres;
mod postgres_cluster;
mod redis;
mod redis_cluster;
mod redis_sentinel;
mod reply;
mod rgw;
mod s3_request;
mod s3_server;
mod sql_client;
mod text;
mod utc;

pub use azurite::Azurite;
pub use breccia::{Breccia, binary, http};
pub use certificates::Certificates;
pub use dice::Dice;
pub use exchange::Exchange;
pub use faulty::{Fault, FaultyProxy};
pub use garage::{Garage, GarageOptions};
pub use gcs_stub::GcsStub;
pub use http_message::{HttpReply, http_call};
pub use mariadb::{MariaDb, MariaDbOptions};
pub use mariadb_cluster::{MariaDbCluster, MariaDbClusterOptions};
pub use memcached::Memcached;
pub use my_client::{
    MY_CURSOR, MY_DEPRECATE_EOF, MY_FOUND_ROWS, MY_LOCAL_FILES, MY_MODERN, MY_OLD,
    MY_SESSION_TRACK, MY_TRACKING, MyClient, MyLogin, MyStatement,
};
pub use my_reply::{MyFault, MyReply, MyResult};
pub use my_value::MyValue;
pub use narrow::connect_narrow;
pub use ports::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use postgres_cluster::{ClusterOptions, PostgresCluster};
pub use process::{Process, Signal, wait_until};
pub use redis::{Redis, RedisOptions};
pub use redis_cluster::RedisCluster;
pub use redis_sentinel::RedisSentinel;
pub use reply::Reply;
pub use resp::RespClient;
pub use rgw::Rgw;
pub use s3_request::{ChunkSigner, S3Request, checksum_base64, md5_base64, sha256_hex};
pub use s3_server::S3Server;
pub use sql_client::{SqlClient, SqlFault, SqlReply, send_cancel};
pub use text::TextClient;

/// Where `cargo xtask test setup` has put programs and libraries that Debian does not have:
/// `BRECCIA_TEST_CLIENTS`, or `target/clients` of the workspace.
pub fn clients_folder() -> std::path::PathBuf {
    let beside = || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients");
    std::env::var_os("BRECCIA_TEST_CLIENTS").map_or_else(beside, std::path::PathBuf::from)
}
