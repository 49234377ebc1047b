//! What is not as announced does not become visible, and what was there stays.

use anyhow::{Context, Result, ensure};
use breccia_blob::body::Body;
use breccia_blob::checksum::{self, Algorithm, Checksum};
use breccia_blob::error::{BlobError, BodyFault};
use breccia_blob::store::{BlobStore, BlobStoreExt, PutOptions};

use super::{Chunks, expect_absent, expect_bytes, expect_error, key, pattern};

pub(super) async fn check(store: &dyn BlobStore) -> Result<()> {
    for size in [10, 300_000, 3_000_000] {
        let what = || format!("{size} bytes");
        wrong_bodies(store, size).await.with_context(what)?;
    }
    checksums(store).await.context("checksums")?;
    given_up(store).await.context("a put that is given up")
}

async fn wrong_bodies(store: &dyn BlobStore, size: usize) -> Result<()> {
    let (new, old) = (
        key(&format!("bad/new/{size}")),
        key(&format!("bad/old/{size}")),
    );
    let before = pattern(2000, 3);
    store.put_bytes(&old, before.clone()).await?;
    let bytes = pattern(size, 4);
    let good = || Chunks::new(bytes.clone(), 50_000);
    let crc = |value: u8| Checksum::full(Algorithm::Crc32c, vec![value; 4]);
    let bodies: [fn(Body) -> Body; 2] = [
        |body| body.expect_md5([7; 16]),
        |body| body.expect_sha256([7; 32]),
    ];
    for target in [&new, &old] {
        for change in bodies {
            let answer = store
                .put(target, change(good().body()), PutOptions::default())
                .await;
            expect_error(answer, "a wrong digest", is_body_fault)?;
        }
        let answer = store
            .put(target, good().body().expect(crc(1)), PutOptions::default())
            .await;
        expect_error(answer, "a wrong checksum", is_body_fault)?;
        let short = Body::new(Box::new(good()), size as u64 + 1);
        expect_error(
            store.put(target, short, PutOptions::default()).await,
            "short",
            |error| {
                matches!(
                    error,
                    BlobError::Body {
                        fault: BodyFault::TooShort { .. }
                    }
                )
            },
        )?;
        let mut broken = good();
        broken.fail_after = Some(size / 100_000);
        let answer = store
            .put(target, broken.body(), PutOptions::default())
            .await;
        expect_error(answer, "a client that goes away", is_body_fault)?;
    }
    expect_absent(store, &new).await?;
    expect_bytes(store, &old, &before).await
}

fn is_body_fault(error: &BlobError) -> bool {
    matches!(error, BlobError::Body { .. })
}

async fn checksums(store: &dyn BlobStore) -> Result<()> {
    let bytes = pattern(100_000, 5);
    for algorithm in Algorithm::ALL {
        let key = key(&format!("checksum/{algorithm}"));
        let checksum = Checksum::full(*algorithm, checksum::of(*algorithm, &bytes));
        let body = Body::from_bytes(bytes.clone()).expect(checksum.clone());
        let written = store.put(&key, body, PutOptions::default()).await;
        let written = written.with_context(|| format!("put with {algorithm}"))?;
        ensure!(
            written.checksum == Some(checksum.clone()),
            "put answers {:?}",
            written.checksum
        );
        // A server behind may not keep it; if it does, it is the right one.
        let meta = store.head(&key).await?;
        if let Some(kept) = meta.checksum.filter(|kept| kept.algorithm == *algorithm) {
            ensure!(kept == checksum, "{algorithm}: head answers {kept:?}");
        }
        expect_bytes(store, &key, &bytes).await?;
    }
    Ok(())
}

/// Dropping the future of a put is as good as never having put.
async fn given_up(store: &dyn BlobStore) -> Result<()> {
    let key = key("given-up");
    for pause_ms in [0, 1, 5, 20] {
        let endless = Body::new(Box::new(Stuck(3)), 1_000_000);
        let put = store.put(&key, endless, PutOptions::default());
        let limit = std::time::Duration::from_millis(pause_ms);
        ensure!(
            tokio::time::timeout(limit, put).await.is_err(),
            "it cannot have ended"
        );
        expect_absent(store, &key).await?;
    }
    store.put_bytes(&key, "now").await?;
    expect_bytes(store, &key, b"now").await
}

/// Gives some chunks and then nothing for ever.
struct Stuck(usize);

impl breccia_blob::body::ByteSource for Stuck {
    fn next(&mut self) -> breccia_blob::body::NextChunk<'_> {
        Box::pin(async move {
            if self.0 == 0 {
                std::future::pending::<()>().await;
            }
            self.0 = self.0.saturating_sub(1);
            Some(Ok(pattern(100_000, 1)))
        })
    }
}
