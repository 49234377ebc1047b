//! An object that is overwritten and deleted while somebody reads it slowly: one version or an end.
//!
//! Not about damage. Invariant: the reader has got its head before the first overwrite.

use anyhow::{Result, ensure};
use breccia_testkit::{Postgres, Rgw};

use super::site::{Plan, Site, Upload, among_others, bytes_of};

const SIZE: usize = 12 * 1024 * 1024;

fn slow_reads(site: &Site, shard: usize, always_whole: bool) -> Result<()> {
    let key = site.key_on(shard, "slow");
    let first = bytes_of(&key, 1, SIZE);
    site.put(&key, &first)?;
    let range = format!("bytes={}-", SIZE / 3);
    let mut whole = site.request("GET", &key).open()?;
    let mut part = site.request("GET", &key).header("range", &range).open()?;
    ensure!(whole.head()?.status == 200 && part.head()?.status == 206);
    let mut read = whole.read(100_000)?;
    let mut read_part = part.read(100_000)?;
    for version in 2..5 {
        site.put(
            &key,
            &bytes_of(&key, version, SIZE - 1000 * usize::try_from(version)?),
        )?;
    }
    let mut upload = Upload::begin(&site.s3, &key)?;
    upload.part(&site.s3, &bytes_of(&key, 5, 6_000_000))?;
    upload.part(&site.s3, &bytes_of(&key, 6, 6_000_000))?;
    let (status, text) = upload.complete(&site.s3)?;
    ensure!(status == 200, "shard {shard}: {status} {text}");
    read.extend(whole.read(1_000_000)?);
    let newest = [bytes_of(&key, 5, 6_000_000), bytes_of(&key, 6, 6_000_000)].concat();
    ensure!(
        site.get(&key)? == Some(newest),
        "shard {shard}: not the newest"
    );
    site.call("DELETE", &key, b"")?.success()?;
    // A connection that is cut is an error here, and what came before it counts.
    read.extend(rest(&mut whole));
    read_part.extend(rest(&mut part));
    ensure!(
        first.starts_with(&read),
        "shard {shard}: mixed versions in {} bytes",
        read.len()
    );
    ensure!(
        first[SIZE / 3..].starts_with(&read_part),
        "shard {shard}: mixed versions in a range"
    );
    if always_whole {
        ensure!(
            read.len() == SIZE,
            "shard {shard}: cut after {} bytes",
            read.len()
        );
        ensure!(
            read_part.len() == SIZE - SIZE / 3,
            "shard {shard}: range cut after {}",
            read_part.len()
        );
    }
    ensure!(site.get(&key)?.is_none());
    Ok(())
}

fn rest(exchange: &mut breccia_testkit::Exchange) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(bytes) = exchange.read(4_096) {
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    all
}

#[test]
fn a_slow_reader_never_sees_two_versions() -> Result<()> {
    let _shared = among_others();
    let postgres = Postgres::new()?;
    postgres.create_database("blobs")?;
    let rgw = Rgw::shared()?.s3();
    rgw.create_bucket("overwrite")?;
    let site = Plan::new()?
        .patient()
        .fs("disk")
        .sqlite("file")
        .postgres("pg", &postgres, postgres.port(), "blobs")
        .s3("rgw", rgw, rgw.address(), "overwrite")
        .start()?;
    for shard in 0..4 {
        slow_reads(&site, shard, shard < 3)?;
    }
    Ok(())
}
