//! Runs one Ceph RGW with four buckets, `bench`, `member0`, `member1` and `member2`, until its standard input ends.
//!
//! Prints one line when it is ready: port, access key, secret key, region, and the ids of its
//! processes. For benches, which do not link this crate.

use std::io::Read as _;

use anyhow::Result;
use breccia_testkit::Rgw;

fn main() -> Result<()> {
    let rgw = Rgw::start()?;
    let server = rgw.s3();
    for bucket in ["bench", "member0", "member1", "member2"] {
        server.create_bucket(bucket)?;
    }
    let ids: Vec<String> = rgw.process_ids().iter().map(u32::to_string).collect();
    println!(
        "{} {} {} {} {}",
        rgw.port(),
        server.access_key,
        server.secret_key,
        server.region,
        ids.join(" ")
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
