//! Bytes that change on the disk of an `fs` member: found before they are sent, also on ranges.
//!
//! Not about what clients send (see [`super::wire`]). Invariant: a file is as it was before the next byte
//! is flipped.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_core::hash::splitmix64;
use breccia_testkit::wait_until;

use super::site::{Plan, Site, Upload, among_others, bytes_of, generation_files};

const SIZE: usize = 200_000;
const FLIPS: u64 = 24;
const TRAILER: u64 = 56;

/// Flips one bit of one byte.
fn flip(file: &Path, at: u64) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 0x10;
    Ok(file.write_all_at(&byte, at)?)
}

/// A read of `range` (all with `None`) gives the right bytes, or is seen to fail.
fn never_wrong(
    site: &Site,
    key: &str,
    bytes: &[u8],
    range: Option<(usize, usize)>,
) -> Result<bool> {
    let mut request = site.request("GET", key);
    let mut expected = bytes;
    if let Some((first, last)) = range {
        request = request.header("range", &format!("bytes={first}-{last}"));
        expected = &bytes[first..=last];
    }
    let mut exchange = request.open()?;
    let (reply, whole) = exchange.reply()?;
    if !matches!(reply.status, 200 | 206) {
        ensure!(reply.status == 500, "{} {}", reply.status, reply.text());
        ensure!(
            reply.text().contains("disk"),
            "the shard has no name: {}",
            reply.text()
        );
        return Ok(false);
    }
    ensure!(
        expected.starts_with(&reply.body),
        "{} bytes were sent that are not the object's",
        reply.body.len()
    );
    ensure!(
        !whole || reply.body.len() == expected.len(),
        "a short answer counts as whole"
    );
    Ok(whole)
}

/// All reads while one byte of a file is wrong. `data` is where the file's data lies in the object.
fn check(
    site: &Site,
    key: &str,
    bytes: &[u8],
    file: &Path,
    at: u64,
    data: (usize, usize),
) -> Result<()> {
    flip(file, at)?;
    let all = never_wrong(site, key, bytes, None)?;
    let (start, length) = data;
    let at = usize::try_from(at)?;
    if at < length {
        ensure!(
            !all,
            "byte {at} of the data is wrong, and the object was given"
        );
        let place = start + at;
        let before = place.saturating_sub(10);
        let after = (place + 10).min(bytes.len() - 1);
        for range in [
            (place, place),
            (before, after),
            (0, after),
            (before, bytes.len() - 1),
        ] {
            ensure!(
                !never_wrong(site, key, bytes, Some(range))?,
                "byte {at} of the data is wrong, and {range:?} was given"
            );
        }
    }
    for range in [
        (0, 9),
        (bytes.len() - 10, bytes.len() - 1),
        (70_000, 140_000),
    ] {
        never_wrong(site, key, bytes, Some(range))?;
    }
    flip(file, u64::try_from(at)?)?;
    ensure!(
        never_wrong(site, key, bytes, None)?,
        "the mended file is not read"
    );
    Ok(())
}

fn places(length: u64, data: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..FLIPS).map(|number| splitmix64(number) % data).collect();
    places.extend([0, 65_535, 65_536, data - 1]);
    // Table and footer, and every byte of the trailer.
    places.extend((0..FLIPS).map(|number| data + splitmix64(number) % (length - data)));
    places.extend(length - TRAILER..length);
    places.retain(|place| *place < length);
    places
}

fn new_files(site: &Site, before: &[std::path::PathBuf]) -> Result<Vec<std::path::PathBuf>> {
    let mut files = generation_files(&site.folder().join("disk"))?;
    files.retain(|file| !before.contains(file));
    Ok(files)
}

#[test]
fn a_flipped_byte_of_an_object_is_found_before_it_is_sent() -> Result<()> {
    let _shared = among_others();
    let site = Plan::new()?.fs("disk").start()?;
    let before = generation_files(&site.folder().join("disk"))?;
    let bytes = bytes_of("object", 1, SIZE);
    site.put("object", &bytes)?;
    let files = new_files(&site, &before)?;
    ensure!(files.len() == 1, "{files:?}");
    let length = std::fs::metadata(&files[0])?.len();
    for at in places(length, SIZE as u64) {
        let outcome = check(&site, "object", &bytes, &files[0], at, (0, SIZE));
        outcome.map_err(|error| error.context(format!("byte {at} of {length}")))?;
    }
    Ok(())
}

#[test]
fn a_flipped_byte_of_a_part_is_found_before_it_is_sent() -> Result<()> {
    let _shared = among_others();
    let site = Plan::new()?.fs("disk").start()?;
    let before = generation_files(&site.folder().join("disk"))?;
    let first = 5 * 1024 * 1024;
    let bytes = bytes_of("object", 1, first + SIZE);
    let mut upload = Upload::begin(&site.s3, "object")?;
    upload.part(&site.s3, &bytes[..first])?;
    upload.part(&site.s3, &bytes[first..])?;
    let (status, text) = upload.complete(&site.s3)?;
    ensure!(status == 200, "{status} {text}");
    // Two parts and a manifest; what the upload began with is removed behind the answer.
    let files = wait_until(Duration::from_secs(10), "three files", || {
        let files = new_files(&site, &before)?;
        Ok((files.len() == 3).then_some(files))
    })?;
    for file in files {
        let length = std::fs::metadata(&file)?.len();
        // The parts are told by their sizes; what is left is the manifest, which has no data.
        let data = match usize::try_from(length)? {
            0..10_000 => (0, 0),
            10_000..1_000_000 => (first, SIZE),
            _ => (0, first),
        };
        for number in 0..6 {
            let at = splitmix64(number) % length;
            let outcome = check(&site, "object", &bytes, &file, at, data);
            let context = format!("byte {at} of {length} of {}", file.display());
            outcome.map_err(|error| error.context(context))?;
        }
    }
    Ok(())
}

#[test]
fn a_file_that_is_cut_or_gone_is_an_error() -> Result<()> {
    let _shared = among_others();
    let site = Plan::new()?.fs("disk").start()?;
    let before = generation_files(&site.folder().join("disk"))?;
    let bytes = bytes_of("object", 1, SIZE);
    site.put("object", &bytes)?;
    let file = new_files(&site, &before)?.remove(0);
    let kept = std::fs::read(&file)?;
    for length in [kept.len() - 1, kept.len() - 60, SIZE, SIZE / 2, 0] {
        std::fs::write(&file, &kept[..length])?;
        ensure!(
            !never_wrong(&site, "object", &bytes, None)?,
            "cut to {length}"
        );
        ensure!(
            !never_wrong(&site, "object", &bytes, Some((0, 9)))?,
            "cut to {length}"
        );
    }
    std::fs::write(&file, [&kept[..], b"more"].concat())?;
    never_wrong(&site, "object", &bytes, None)?;
    std::fs::remove_file(&file)?;
    ensure!(!never_wrong(&site, "object", &bytes, None)?, "gone");
    std::fs::write(&file, &kept)?;
    ensure!(never_wrong(&site, "object", &bytes, None)?, "back");
    Ok(())
}
