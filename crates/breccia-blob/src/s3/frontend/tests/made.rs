//! Buckets that clients make.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;
use crate::bucket::{
    BucketFuture, BucketName, BucketRecord, BucketStore, Confirmed, Created, Deleted,
};
use crate::listing::ListRequest;

/// Records in memory; `vanishing` names are deleted by another gateway at the next write.
#[derive(Debug)]
struct Records {
    store: Arc<dyn BlobStore>,
    found: Mutex<BTreeMap<BucketName, BucketRecord>>,
    vanishing: Mutex<BTreeSet<BucketName>>,
}

impl Records {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BucketName, BucketRecord>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BucketStore for Records {
    fn create<'a>(
        &'a self,
        name: &'a BucketName,
        owner: Option<&'a str>,
    ) -> BucketFuture<'a, Created> {
        Box::pin(async move {
            let mut found = self.lock();
            if let Some(record) = found.get(name) {
                return Ok(Created::Existed(record.clone()));
            }
            let record = BucketRecord {
                name: name.clone(),
                created_ms: 0,
                owner: owner.map(str::to_owned),
            };
            found.insert(name.clone(), record.clone());
            Ok(Created::New(record))
        })
    }

    fn look_up<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Option<BucketRecord>> {
        Box::pin(async move { Ok(self.lock().get(name).cloned()) })
    }

    fn list(&self) -> BucketFuture<'_, Vec<BucketRecord>> {
        Box::pin(async move { Ok(self.lock().values().cloned().collect()) })
    }

    fn delete<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Deleted> {
        Box::pin(async move {
            let request = ListRequest {
                prefix: format!("{name}/").into(),
                limit: 1,
                ..ListRequest::default()
            };
            if !self.store.list(request).await?.items.is_empty() {
                return Ok(Deleted::NotEmpty);
            }
            let removed = self.lock().remove(name);
            Ok(removed.map_or(Deleted::Missing, |_| Deleted::Removed))
        })
    }

    fn confirm_write<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Confirmed> {
        Box::pin(async move {
            let vanishing = self.vanishing.lock().expect("no panic").contains(name);
            Ok(if vanishing {
                Confirmed::Gone
            } else {
                Confirmed::Alive
            })
        })
    }
}

fn server() -> (Server, Arc<Records>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder, "all");
    let records = Arc::new(Records {
        store: Arc::clone(&store),
        found: Mutex::default(),
        vanishing: Mutex::default(),
    });
    let namespace = Namespace::ByClients {
        store,
        buckets: Arc::clone(&records) as Arc<dyn BucketStore>,
    };
    (Server::start(namespace, settings(), folder), records)
}

#[tokio::test]
async fn buckets_are_made_used_and_deleted() {
    let (server, records) = server();
    server.ask("GET", "/docs/k").await.is(404, "NoSuchBucket");
    let reply = server.ask("PUT", "/docs").await;
    assert_eq!((reply.status, reply.header("location")), (200, "/docs"));
    server
        .ask("PUT", "/docs")
        .await
        .is(409, "BucketAlreadyOwnedByYou");
    let other = Message::new("PUT", "/docs").signed_by("AKMAIL");
    server.send(other).await.is(403, "AccessDenied");
    server
        .ask("PUT", "/No_Name")
        .await
        .is(400, "InvalidBucketName");
    let place = |region: &str| {
        let document = format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint>\
             </CreateBucketConfiguration>"
        );
        Message::new("PUT", "/mail").body(document).signed()
    };
    server
        .send(place("eu-west-1"))
        .await
        .is(400, "InvalidLocationConstraint");
    assert_eq!(server.send(place("us-east-1")).await.status, 200);
    assert_eq!(
        server.ask("GET", "/").await.elements("Name"),
        ["docs", "mail"]
    );
    server.put("/docs/a/b", "x").await;
    server.put("/docs/a/c", "x").await;
    server.put("/mail/z", "x").await;
    assert_eq!(server.ask("GET", "/docs/a/b").await.text(), "x");
    let page = server.ask("GET", "/docs?prefix=a/&max-keys=1").await;
    assert_eq!(
        (page.elements("Key"), page.element("NextMarker")),
        (vec!["a/b".into()], "a/b".into())
    );
    let page = server.ask("GET", "/docs?delimiter=/").await;
    assert_eq!(page.elements("Prefix"), ["", "a/"]);
    let page = server.ask("GET", "/docs?marker=a/b").await;
    assert_eq!(page.elements("Key"), ["a/c"]);
    server
        .ask("DELETE", "/docs")
        .await
        .is(409, "BucketNotEmpty");
    for key in ["a/b", "a/c"] {
        assert_eq!(
            server.ask("DELETE", &format!("/docs/{key}")).await.status,
            204
        );
    }
    assert_eq!(server.ask("DELETE", "/docs").await.status, 204);
    server.ask("DELETE", "/docs").await.is(404, "NoSuchBucket");
    assert_eq!(records.lock().len(), 1);
}

#[tokio::test]
async fn a_write_into_a_bucket_that_is_gone_is_undone_and_not_acknowledged() {
    let (server, records) = server();
    assert_eq!(server.ask("PUT", "/docs").await.status, 200);
    server.put("/docs/source", "x").await;
    let begun = server
        .ask("POST", "/docs/whole?uploads")
        .await
        .element("UploadId");
    let part = Message::new("PUT", &format!("/docs/whole?partNumber=1&uploadId={begun}"));
    let etag = server
        .send(part.body("x").signed())
        .await
        .header("etag")
        .to_owned();
    let name = BucketName::new("docs").expect("a name");
    records.vanishing.lock().expect("no panic").insert(name);
    let put = Message::new("PUT", "/docs/put").body("x").signed();
    server.send(put).await.is(404, "NoSuchBucket");
    let copy = Message::new("PUT", "/docs/copy").header("x-amz-copy-source", "/docs/source");
    server.send(copy.signed()).await.is(404, "NoSuchBucket");
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>\
         </CompleteMultipartUpload>"
    );
    let complete = Message::new("POST", &format!("/docs/whole?uploadId={begun}"));
    server
        .send(complete.body(document).signed())
        .await
        .is(404, "NoSuchBucket");
    let listed = records.store.list(ListRequest {
        limit: 10,
        ..ListRequest::default()
    });
    let listed = listed.await.expect("a page").items.len();
    assert_eq!(listed, 1, "only the source is left");
}
