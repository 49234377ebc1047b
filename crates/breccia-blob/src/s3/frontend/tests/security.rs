//! Who is let in, and who is not.

use super::*;

#[tokio::test]
async fn unsigned_and_wrongly_signed_requests_are_refused() {
    let server = Server::fixed(settings());
    server.put("/mail/k", "x").await;
    let get = || Message::new("GET", "/mail/k");
    server.send(get()).await.is(403, "AccessDenied");
    let unknown = get().signed_with("AKNOBODY", SECRET, &Payload::Unsigned).0;
    server.send(unknown).await.is(403, "InvalidAccessKeyId");
    let wrong = get().signed_with(ACCESS_KEY, "wrong", &Payload::Unsigned).0;
    server.send(wrong).await.is(403, "SignatureDoesNotMatch");
    let mut moved = get().signed();
    moved.target = "/mail/other".to_owned();
    server.send(moved).await.is(403, "SignatureDoesNotMatch");
    let added = get().signed().header("x-amz-copy-source", "/mail/k");
    server.send(added).await.is(403, "AccessDenied");
    let twice = get().signed().presigned(clock::unix_ms(), 60);
    server.send(twice).await.is(400, "InvalidArgument");
    let old = get().header("authorization", "AWS AKEXAMPLE:abc");
    server.send(old).await.is(400, "InvalidRequest");
}

#[tokio::test]
async fn presigned_requests_are_good_until_they_expire() {
    let server = Server::fixed(settings());
    server.put("/mail/k", "x").await;
    let now_ms = clock::unix_ms();
    let get = |now_ms: u64| Message::new("GET", "/mail/k").presigned(now_ms, 60);
    assert_eq!(server.send(get(now_ms)).await.text(), "x");
    let reply = server
        .send(get(now_ms - 61_000))
        .await
        .is(403, "AccessDenied");
    assert!(reply.element("Message").contains("expired"));
    server
        .send(get(now_ms + 3_600_000))
        .await
        .is(403, "AccessDenied");
    let added = Message::new("PUT", "/mail/k").presigned(now_ms, 60);
    let added = added.header("x-amz-copy-source", "/mail/k").body("");
    server.send(added).await.is(403, "AccessDenied");
}

#[tokio::test]
async fn users_keep_to_their_buckets_and_rights() {
    let server = Server::fixed(settings());
    server.put("/mail/k", "x").await;
    server.put("/other/k", "x").await;
    let ask =
        async |access_key: &str, message: Message| server.send(message.signed_by(access_key)).await;
    let get = |target: &str| Message::new("GET", target);
    assert_eq!(ask("AKMAIL", get("/mail/k")).await.status, 200);
    ask("AKMAIL", get("/other/k")).await.is(403, "AccessDenied");
    ask("AKMAIL", get("/none/k")).await.is(403, "AccessDenied");
    assert_eq!(ask("AKMAIL", get("/")).await.elements("Name"), ["mail"]);
    let copy = Message::new("PUT", "/mail/x").header("x-amz-copy-source", "/other/k");
    ask("AKMAIL", copy).await.is(403, "AccessDenied");
    let copy = Message::new("PUT", "/mail/x?partNumber=1&uploadId=u");
    let copy = copy.header("x-amz-copy-source", "/other/k");
    ask("AKMAIL", copy).await.is(403, "AccessDenied");
    assert_eq!(ask("AKREAD", get("/other/k")).await.status, 200);
    for (method, target) in [
        ("PUT", "/mail/k"),
        ("DELETE", "/mail/k"),
        ("POST", "/mail/k?uploads"),
        ("POST", "/mail?delete"),
        ("PUT", "/mail/k?tagging"),
        ("PUT", "/bucket"),
    ] {
        let message = Message::new(method, target).body("x");
        ask("AKREAD", message).await.is(403, "AccessDenied");
    }
    assert_eq!(server.ask("GET", "/mail/k").await.text(), "x");
}

#[tokio::test]
async fn an_open_listener_lets_everybody_in_and_still_verifies_digests() {
    let open = Settings {
        users: Vec::new(),
        anonymous: true,
        ..settings()
    };
    let server = Server::fixed(open);
    let put = Message::new("PUT", "/mail/k").body("x");
    assert_eq!(server.send(put.clone()).await.status, 200);
    assert_eq!(server.send(put.clone().signed_by("ANY")).await.status, 200);
    let mut other = put.signed_by("ANY");
    other.body = b"y".to_vec();
    server
        .send(other)
        .await
        .is(400, "XAmzContentSHA256Mismatch");
    assert_eq!(
        server.send(Message::new("GET", "/mail/k")).await.text(),
        "x"
    );
    let chunked = super::bodies::chunked(true, Some(("x-amz-checksum-crc32", "y/Q5Jg==")));
    assert_eq!(server.send(chunked).await.status, 200);
    assert_eq!(
        server.send(Message::new("GET", "/mail/k")).await.text(),
        "123456789"
    );
    let named = Message::new("GET", "/mail/k?response-content-type=a");
    server.send(named).await.is(400, "InvalidRequest");
}

#[tokio::test]
async fn a_reload_takes_users_away_at_once() {
    let server = Server::fixed(settings());
    server.put("/mail/k", "x").await;
    let mut fewer = settings();
    fewer.users.retain(|user| user.access_key != ACCESS_KEY);
    server.frontend.settings.set(fewer);
    server
        .ask("GET", "/mail/k")
        .await
        .is(403, "InvalidAccessKeyId");
}
