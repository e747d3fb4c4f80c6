//! Reading files.

use super::*;

async fn read(world: &World, token: &ReadToken) -> Result<File, Error> {
    world.github.file(token, FILE_PATH, None, None).await
}

/// What a read comes to when GitHub answers so.
async fn read_as(answered: impl Fn() -> Answered + Send + Sync + 'static) -> Result<File, Error> {
    let world = World::new(on(FILE, move |_| answered())).await;
    let token = world.read_token().await;
    world.clock.advance(Duration::from_secs(60));
    read(&world, &token).await
}

#[tokio::test]
async fn a_read_token_is_for_one_repository_and_for_reading() {
    let world = World::new(on(MINT, |seen| {
        let mut reply = minted_json(&seen.body);
        reply["repositories"] =
            json!([{"name": "Hello", "full_name": "Octo-Org/Hello", "private": true}]);
        answer(201, reply)
    }))
    .await;
    let token = world.read_token().await;
    let asked = world.fake.seen().pop().unwrap();
    assert_eq!(asked.body, json!({"repositories": ["hello"], "permissions": {"contents": "read"}}));
    assert_eq!(
        (token.owner().as_str(), token.repo().as_str(), token.private()),
        ("octo-org", "Hello", true)
    );
    assert_eq!((token.issued_at(), token.expires_at()), (NOW, NOW.plus(Duration::from_secs(3600))));
    assert!(!format!("{token:?}").contains("canary"));
    drop(token);
    world.revocations(1).await;
}

#[tokio::test]
async fn a_repository_of_which_nothing_is_said_counts_as_private() {
    let world = World::new(on(MINT, |seen| {
        let mut reply = minted_json(&seen.body);
        reply["repositories"][0]["private"] = Value::Null;
        answer(201, reply)
    }))
    .await;
    assert!(world.read_token().await.private());
}

#[tokio::test]
async fn a_read_token_without_a_repository_proves_nothing() {
    let world = World::new(on(MINT, |seen| {
        let mut reply = minted_json(&seen.body);
        reply["repositories"] = json!([]);
        answer(201, reply)
    }))
    .await;
    let token =
        world.github.read_token(&world.installation().await, &"hello".parse().unwrap()).await;
    assert_eq!(token.unwrap_err().reason(), crate::reason::Reason::GithubUnavailable);
    world.revocations(1).await;
}

#[tokio::test]
async fn a_file_is_its_bytes_its_blob_and_its_tag() {
    let world = World::new(on(FILE, |seen| match seen.header("if-none-match") {
        "\"one\"" => answer(304, "").with("etag", "\"one\""),
        _ => answer(200, file_json(FILE_PATH, &[b'x'; 100])).with("etag", "\"one\""),
    }))
    .await;
    let token = world.read_token().await;
    let file = read(&world, &token).await.unwrap();
    let etag = Some("\"one\"".to_owned());
    assert_eq!(file, File::Present { bytes: vec![b'x'; 100].into(), sha: "b10b".into(), etag });
    assert_eq!(world.fake.seen().pop().unwrap().header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(
        world.github.file(&token, FILE_PATH, None, Some("\"one\"")).await.unwrap(),
        File::Unchanged
    );
    assert_eq!(world.github.file(&token, FILE_PATH, None, Some("\"two\"")).await.unwrap(), file);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let file = read_as(|| answer(200, file_json(FILE_PATH, b""))).await.unwrap();
    assert_eq!(file, File::Present { bytes: Vec::new().into(), sha: "b10b".into(), etag: None });
}

#[tokio::test]
async fn what_is_no_file_of_its_own() {
    let large = json!({"message": "too large", "errors": [{"resource": "Blob", "field": "data", "code": "too_large"}]});
    let mut unsent = file_json(FILE_PATH, b"");
    (unsent["encoding"], unsent["size"]) = ("none".into(), 1_048_577.into());
    for (status, body) in [
        (200, json!([{"type": "file", "path": FILE_PATH, "sha": "b10b"}])),
        (200, json!([])),
        (
            200,
            json!({"type": "symlink", "path": FILE_PATH, "sha": "b10b", "target": "/etc/passwd"}),
        ),
        (200, json!({"type": "submodule", "path": FILE_PATH, "sha": "b10b"})),
        // A link to a file is answered with that file.
        (200, file_json("docs/unowned.yaml", b"issuer: x")),
        (200, file_json(&FILE_PATH.to_uppercase(), b"issuer: x")),
        (200, unsent),
        (403, large),
    ] {
        let text = body.to_string();
        assert_eq!(read_as(move || answer(status, &body)).await.unwrap(), File::NotAFile, "{text}");
    }
}

#[tokio::test]
async fn half_a_file_is_no_file() {
    let mut short = file_json(FILE_PATH, b"issuer: x");
    short["size"] = 10.into();
    let mut garbled = file_json(FILE_PATH, b"issuer: x");
    garbled["content"] = "!!".into();
    let cut = file_json(FILE_PATH, b"issuer: x").to_string()[..60].to_owned();
    for body in [short.to_string(), garbled.to_string(), cut, "<html>".to_owned(), "{}".to_owned()]
    {
        let text = body.clone();
        let error = read_as(move || answer(200, &body)).await.unwrap_err();
        assert!(matches!(error, Error::Unexpected(_)) && !error.is_outage(), "{text}: {error}");
    }
}

#[tokio::test]
async fn refusals_of_a_read() {
    for message in ["Not Found", "This repository is empty.", "No commit found for the ref main"] {
        assert_eq!(read_as(move || refusal(404, message)).await.unwrap(), File::Absent);
    }
    assert_eq!(read_as(|| refusal(401, "Bad credentials")).await.unwrap_err(), Error::TokenRefused);
    let forbidden =
        read_as(|| refusal(403, "Resource not accessible by integration")).await.unwrap_err();
    assert_eq!(forbidden.reason(), crate::reason::Reason::PolicyForbidden);
    let limited = read_as(|| refusal(429, "slow down")).await.unwrap_err();
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(60)));
    // The last call within the limit is an answer like any other.
    assert_eq!(
        read_as(|| refusal(404, "Not Found").with("x-ratelimit-remaining", 0)).await.unwrap(),
        File::Absent
    );
    let unasked = read_as(|| answer(304, "")).await.unwrap_err();
    assert!(matches!(unasked, Error::Unexpected(_)) && !unasked.is_outage(), "{unasked}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_does_not_travel() {
    let elsewhere = Fake::start(|_| Some(answer(200, file_json(FILE_PATH, b"issuer: evil")))).await;
    for status in [301, 302, 307] {
        let target = elsewhere.api.to_string();
        let error = read_as(move || refusal(status, "Moved Permanently").with("location", &target))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Moved(cause) if cause.contains("Moved Permanently")),
            "{error}"
        );
        assert_eq!(error.reason(), crate::reason::Reason::RepositoryNotAccessible);
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_young_token_is_given_time_to_spread() {
    for (status, message) in
        [(401, "Bad credentials"), (403, "Resource not accessible by integration")]
    {
        let world = World::new(on(FILE, move |seen| {
            if seen.nth < 3 { refusal(status, message) } else { healthy(seen) }
        }))
        .await;
        let token = world.read_token().await;
        assert!(matches!(read(&world, &token).await.unwrap(), File::Present { .. }));
        assert_eq!(world.fake.count(FILE), 4);
    }
}

#[tokio::test]
async fn an_older_tokens_refusal_counts_at_once() {
    let world = World::new(on(FILE, |_| refusal(401, "Bad credentials"))).await;
    let token = world.read_token().await;
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(read(&world, &token).await.unwrap_err(), Error::TokenRefused);
    assert_eq!(world.fake.count(FILE), 1);
}

#[tokio::test]
async fn a_young_tokens_refusal_counts_after_five_tries() {
    let world = World::new(on(FILE, |_| refusal(401, "Bad credentials"))).await;
    let token = world.read_token().await;
    assert_eq!(read(&world, &token).await.unwrap_err(), Error::TokenRefused);
    assert_eq!(world.fake.count(FILE), 5);
}

#[tokio::test]
async fn whether_the_repository_is_visible() {
    for (status, visible) in [
        (200, Ok(true)),
        (404, Ok(false)),
        (301, Err(Error::Moved("301: literally".into()))),
        (401, Err(Error::TokenRefused)),
    ] {
        let world = World::new(on(REPOSITORY, move |_| refusal(status, "literally"))).await;
        let token = world.read_token().await;
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(world.github.repository_visible(&token).await, visible, "{status}");
    }
}

#[tokio::test]
async fn odd_paths_stay_below_the_repository() {
    let world =
        World::new(|seen| seen.line.contains("contents").then(|| refusal(404, "Not Found"))).await;
    let token = world.read_token().await;
    world.github.file(&token, "a b/c?d#e%2f", None, None).await.unwrap();
    assert_eq!(
        world.fake.count("GET /api/v3/repos/octo-org/hello/contents/a%20b/c%3Fd%23e%252f"),
        1
    );
}
