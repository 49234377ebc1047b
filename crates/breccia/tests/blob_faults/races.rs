//! Conditional writes in a race: exactly one wins, and whoever lost the answer can find out.
//!
//! Not about which calls support conditions in general; members that lack them are named. Invariant: all
//! writers of a race have sent all but their last byte before the first may end.

use std::sync::{Barrier, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Fault, FaultyProxy, Garage, Postgres, Rgw, S3Request, S3Server};

use super::site::{Plan, Site, Upload, alone, among_others, bytes_of, path};

const WRITERS: u64 = 100;
const BIG_WRITERS: u64 = 12;
const BIG: usize = 20 * 1024 * 1024;

/// What one writer was answered; nothing when it did not wait for it.
type Answer = Option<(u16, String)>;

/// Runs writers beside each other; `write` gets its number and the gate before its last byte.
fn all_at_once(
    count: u64,
    write: impl Fn(u64, &Barrier) -> Result<Answer> + Sync,
) -> Result<Vec<Answer>> {
    let gate = Barrier::new(usize::try_from(count)?);
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (gate, answers, write) = (&gate, &answers, &write);
        for number in 0..count {
            scope.spawn(move || {
                let answer = write(number, gate);
                answers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(answer);
            });
        }
    });
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.into_iter().collect()
}

fn put_if_absent(
    server: &S3Server,
    key: &str,
    body: &[u8],
    gate: &Barrier,
    waits: bool,
) -> Result<Answer> {
    let request = S3Request::new(server, "PUT", &path(key)).header("if-none-match", "*");
    let opened = request.length(body.len()).open();
    let (last, most) = body.split_last().context("an empty body")?;
    let sent = opened.map(|mut exchange| {
        // One that is refused early may not be read to its end.
        let _sent = exchange.write(most);
        exchange
    });
    gate.wait();
    let mut exchange = sent?;
    let _sent = exchange.write(&[*last]);
    if !waits {
        exchange.reset();
        return Ok(None);
    }
    let (reply, _) = exchange.reply()?;
    Ok(Some((reply.status, reply.text())))
}

/// One 200 and else 412, or 409 where the member saw a conflict.
fn one_wins(answers: &[Answer]) -> Result<()> {
    let count = |wanted: u16| {
        let of = |answer: &&Answer| answer.as_ref().is_some_and(|(status, _)| *status == wanted);
        answers.iter().filter(of).count()
    };
    let lost = count(412) + count(409);
    let other = answers
        .iter()
        .flatten()
        .find(|(status, _)| ![200, 412, 409].contains(status));
    ensure!(other.is_none(), "{other:?}");
    ensure!(
        count(200) == 1 && lost + 1 == answers.len(),
        "{} won, {lost} lost",
        count(200)
    );
    Ok(())
}

fn puts(site: &Site, shard: usize, writers: u64, length: usize) -> Result<()> {
    let key = site.key_on(shard, &format!("race-{length}"));
    let bodies: Vec<Vec<u8>> = (0..writers)
        .map(|number| bytes_of(&key, number, length))
        .collect();
    let answers = all_at_once(writers, |number, gate| {
        let body = &bodies[usize::try_from(number)?];
        put_if_absent(&site.s3, &key, body, gate, true)
    })?;
    one_wins(&answers)
        .with_context(|| format!("shard {shard}, {writers} puts of {length} bytes"))?;
    let found = site.get(&key)?.context("nobody's object is there")?;
    ensure!(
        bodies.contains(&found),
        "the object is none of those written"
    );
    Ok(())
}

fn completions(site: &Site, shard: usize, writers: u64) -> Result<()> {
    let key = site.key_on(shard, "race-complete");
    let begin = |number: u64| -> Result<Upload> {
        let mut upload = Upload::begin(&site.s3, &key)?;
        upload.part(&site.s3, &bytes_of(&key, number, 5_000))?;
        Ok(upload)
    };
    let uploads: Vec<Upload> = (0..writers).map(begin).collect::<Result<_>>()?;
    let answers = all_at_once(writers, |number, gate| {
        let upload = &uploads[usize::try_from(number)?];
        let request = upload.completion(&site.s3).header("if-none-match", "*");
        gate.wait();
        let reply = request.send(&upload.document())?;
        Ok(Some((super::site::told(&reply), reply.text())))
    })?;
    one_wins(&answers).with_context(|| format!("shard {shard}, completions"))?;
    let found = site.get(&key)?.context("nobody's object is there")?;
    let is_one = (0..writers).any(|number| found == bytes_of(&key, number, 5_000));
    ensure!(is_one, "the object is none of those written");
    Ok(())
}

/// Every writer leaves before its answer; exactly one object is there, and a further writer loses.
fn nobody_waits(site: &Site, shard: usize) -> Result<()> {
    let key = site.key_on(shard, "race-left");
    all_at_once(20, |number, gate| {
        put_if_absent(&site.s3, &key, &bytes_of(&key, number, 40_000), gate, false)
    })?;
    // Who left may be heard of late, or never; this one settles it.
    let gate = Barrier::new(1);
    let settled = put_if_absent(&site.s3, &key, &bytes_of(&key, 20, 40_000), &gate, true)?;
    let status = settled.map(|(status, _)| status);
    ensure!(matches!(status, Some(200 | 412 | 409)), "{status:?}");
    let found = site.get(&key)?.context("nobody's object is there")?;
    let winner = (0..=20).find(|number| found == bytes_of(&key, *number, 40_000));
    ensure!(winner.is_some(), "the object is none of those written");
    ensure!(
        (winner == Some(20)) == (status == Some(200)),
        "{winner:?} won, the last was told {status:?}"
    );
    std::thread::sleep(std::time::Duration::from_millis(200));
    ensure!(
        site.get(&key)?.as_deref() == Some(found.as_slice()),
        "a second one won"
    );
    Ok(())
}

#[test]
fn exactly_one_of_many_writers_wins_on_members_of_our_own() -> Result<()> {
    let _shared = among_others();
    let postgres = Postgres::new()?;
    postgres.create_database("blobs")?;
    let plan = Plan::new()?.patient().fs("disk").sqlite("file");
    let site = plan
        .postgres("pg", &postgres, postgres.port(), "blobs")
        .start()?;
    for shard in 0..3 {
        puts(&site, shard, WRITERS, 1_024)?;
        completions(&site, shard, 20)?;
        nobody_waits(&site, shard)?;
    }
    Ok(())
}

#[test]
fn exactly_one_of_many_writers_of_big_objects_wins() -> Result<()> {
    let _alone = alone();
    let site = Plan::new()?.fs("disk").sqlite("file").start()?;
    puts(&site, 0, BIG_WRITERS, BIG)?;
    puts(&site, 1, BIG_WRITERS, BIG / 4)
}

#[test]
fn exactly_one_writer_wins_where_a_server_decides_and_answers_may_be_lost() -> Result<()> {
    let _shared = among_others();
    let rgw = Rgw::shared()?.s3();
    rgw.create_bucket("races")?;
    let proxy = FaultyProxy::start(rgw.address())?;
    let plan = Plan::new()?.patient();
    let site = plan.s3("rgw", rgw, &proxy.address(), "races").start()?;
    puts(&site, 0, WRITERS, 1_024)?;
    nobody_waits(&site, 0)?;
    // Completions with a condition are not honoured by it, so they are refused, by name.
    let mut upload = Upload::begin(&site.s3, "refused")?;
    upload.part(&site.s3, b"part")?;
    let request = upload.completion(&site.s3).header("if-none-match", "*");
    let reply = request.send(&upload.document())?;
    ensure!(
        reply.status == 501 && reply.text().contains("rgw"),
        "{} {}",
        reply.status,
        reply.text()
    );
    ensure!(site.get("refused")?.is_none(), "it was completed");
    let (status, text) = upload.complete(&site.s3)?;
    ensure!(status == 200, "without a condition: {status} {text}");
    // The winner's answer is lost on its way from the server.
    proxy.set(Fault::CutAfter(0));
    let gate = Barrier::new(1);
    let body = bytes_of("cut", 1, 40_000);
    let (status, text) =
        put_if_absent(&site.s3, "cut", &body, &gate, true)?.context("no answer")?;
    ensure!(status == 503 && text.contains("rgw"), "{status} {text}");
    proxy.set(Fault::None);
    site.wait_for_put("back", 200)?;
    let found = site.get("cut")?;
    let again = put_if_absent(&site.s3, "cut", b"other", &gate, true)?.context("no answer")?;
    match found {
        Some(found) => ensure!(found == body && again.0 == 412, "{again:?}"),
        None => ensure!(again.0 == 200, "{again:?}"),
    }
    Ok(())
}

#[test]
fn a_server_that_ignores_conditions_is_never_sent_one() -> Result<()> {
    let _shared = among_others();
    if !Garage::present() {
        return Ok(());
    }
    let garage = Garage::new()?;
    garage.s3().create_bucket("races")?;
    let plan = Plan::new()?.s3("garage", garage.s3(), garage.s3().address(), "races");
    let site = plan.fs("disk").start()?;
    let there = site.key_on(0, "there");
    site.put(&there, b"old")?;
    let check = |request: S3Request, body: &[u8]| -> Result<()> {
        let reply = request.send(body)?;
        let text = reply.text();
        ensure!(
            reply.status == 501 && text.contains("garage"),
            "{} {text}",
            reply.status
        );
        ensure!(
            !text.contains("'disk'"),
            "a shard that can is named: {text}"
        );
        Ok(())
    };
    for key in [&there, &site.key_on(0, "absent"), &site.key_on(1, "other")] {
        check(
            site.request("PUT", key).header("if-none-match", "*"),
            b"new",
        )?;
        check(
            site.request("PUT", key).header("if-match", "\"abc\""),
            b"new",
        )?;
        let mut upload = Upload::begin(&site.s3, key)?;
        upload.part(&site.s3, b"part")?;
        check(
            upload.completion(&site.s3).header("if-none-match", "*"),
            &upload.document(),
        )?;
    }
    ensure!(
        site.get(&there)?.as_deref() == Some(b"old".as_slice()),
        "it was overwritten"
    );
    ensure!(site.keys()? == [there], "{:?}", site.keys());
    Ok(())
}
