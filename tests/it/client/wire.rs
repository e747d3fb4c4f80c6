//! What is asked of a server, and what is made of its answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use octo_sts::{
    client::{Class, Client, Error, IdentityToken, Issued, Server, Target, revoke},
    clock::{Clock, ManualClock, SystemClock, UnixTime},
    egress::{Egress, Settings},
};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::{Fake, Said, TOKEN, raw, said, wrongs};
use crate::harness::{POLICY, Setup};

fn egress() -> Egress {
    Egress::new(Settings::default()).unwrap()
}

fn client(url: &str) -> Client {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Client::new(Server::parse(url).unwrap(), &egress(), clock)
}

fn identity_token(text: &str) -> IdentityToken {
    IdentityToken::parse(text).unwrap()
}

fn target(scope: &str, identity: &str) -> Target {
    Target::new(scope.parse().unwrap(), identity.parse().unwrap())
}

async fn ask(client: &Client) -> Result<Issued, Error> {
    let token = identity_token(TOKEN);
    let issued = client.exchange(&token, &target("octo-org/hello", "a/ci")).await;
    if let Err(error) = &issued {
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
    }
    issued
}

#[test]
fn servers_are_reached_over_tls_or_on_loopback() {
    for (text, host, shown) in [
        ("https://sts.example.com", "sts.example.com", "https://sts.example.com"),
        ("sts.example.com", "sts.example.com", "https://sts.example.com"),
        (
            "https://STS.example.com:8443/base/",
            "sts.example.com",
            "https://sts.example.com:8443/base",
        ),
        ("http://127.0.0.1:8080", "127.0.0.1", "http://127.0.0.1:8080"),
        ("http://localhost:8080/", "localhost", "http://localhost:8080"),
    ] {
        let server = Server::parse(text).unwrap();
        assert_eq!((server.host(), server.to_string().as_str()), (host, shown));
        assert_eq!(server.audience().unwrap().as_str(), host);
    }
    for bad in [
        "",
        "http://sts.example.com",
        "ftp://a",
        "https://u:p@a",
        "https://a?x",
        "https://a#x",
        "https://",
        "a b",
    ] {
        assert!(Server::parse(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_server_without_an_expiry_is_taken_for_nearly_an_hour() {
    let server = Fake::start(|heard| {
        let asked =
            heard.method == "POST" && heard.path == "/sts/exchange" && heard.body.is_empty();
        let right =
            heard.parameter("scope") == "octo-org/hello" && heard.parameter("identity") == "a/ci";
        assert!(
            asked && right && heard.header("authorization") == format!("Bearer {TOKEN}"),
            "{heard:?}"
        );
        said(200, json!({"token": "ghs_x", "refreshToken": ""}).to_string())
    })
    .await;
    let clock = ManualClock::at(UnixTime::from_secs(1_790_000_000));
    let client = Client::new(Server::parse(&server.url).unwrap(), &egress(), Arc::new(clock));
    let issued = ask(&client).await.unwrap();
    assert_eq!(
        (issued.token.expose_secret(), issued.expires_at.as_secs()),
        ("ghs_x", 1_790_003_300)
    );
}

#[tokio::test]
async fn what_is_no_token_is_not_handed_on() {
    for body in [
        json!({}),
        json!({"token": ""}),
        json!({"token": 7}),
        json!({"token": "a\nquit=1"}),
        json!({"token": "a b"}),
        json!({"token": "ä"}),
        json!({"token": "ghs_x", "expiry": "soon"}),
        json!([]),
    ] {
        let text = body.to_string();
        let server = Fake::start(move |_| said(200, text.clone())).await;
        let error = ask(&client(&server.url)).await.unwrap_err();
        assert_eq!(
            (error.code, error.class(), server.heard().len()),
            (13, Class::Internal, 1),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_servers_words_are_told_as_plain_text() {
    let server = Fake::start(|_| {
        let message = format!("\u{1b}[31mno\nto {TOKEN}{}", "x".repeat(2000));
        let body = json!({"code": 7, "message": message, "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "POLICY_MISMATCH", "domain": "octo-sts"},
            {"@type": "type.googleapis.com/google.rpc.Help"},
            {"@type": "type.googleapis.com/octosts.v1.Condition", "field": "subject", "satisfied": false, "got": "a\u{7}", "wanted": "b"},
        ]});
        (403, vec![("x-request-id", "r-1".to_owned())], body.to_string())
    })
    .await;
    let error = ask(&client(&server.url)).await.unwrap_err();
    assert_eq!(
        (error.code, error.class(), error.reason.as_deref()),
        (7, Class::Refused, Some("POLICY_MISMATCH"))
    );
    assert!(
        error.message.starts_with(" [31mno to [REDACTED]x") && error.message.chars().count() == 513
    );
    assert_eq!(error.request_id.as_deref(), Some("r-1"));
    let condition = &error.conditions[0];
    assert_eq!(
        (condition.got.as_deref(), condition.wanted.as_deref(), condition.satisfied),
        (Some("a "), Some("b"), false)
    );
}

#[tokio::test]
async fn each_code_has_its_class() {
    // By the body's code, and by the status where there is none.
    for (status, code, class) in [
        (400, 3, Class::Internal),
        (400, 9, Class::Internal),
        (401, 16, Class::Refused),
        (403, 7, Class::Refused),
        (404, 5, Class::Refused),
        (429, 8, Class::Unavailable),
        (500, 13, Class::Internal),
        (501, 12, Class::Internal),
        (503, 14, Class::Unavailable),
        (504, 4, Class::Unavailable),
        (418, 2, Class::Internal),
    ] {
        for body in [json!({"code": code, "message": "m"}).to_string(), "<html>".to_owned()] {
            let with_code = body.starts_with('{');
            // The wait that is asked for is longer than is waited.
            let server =
                Fake::start(move |_| (status, vec![("retry-after", "7".to_owned())], body.clone()))
                    .await;
            let error = ask(&client(&server.url)).await.unwrap_err();
            if with_code || code != 9 {
                assert_eq!((error.code, error.class()), (code, class), "{status}");
            }
            assert_eq!(
                (error.retry_after, server.heard().len()),
                (Some(Duration::from_secs(7)), 1)
            );
        }
    }
}

/// A server that says `first` so many times and then gives a token.
async fn after(times: usize, first: Said) -> (Fake, Arc<AtomicUsize>) {
    let (asked, counts) = (Arc::new(AtomicUsize::new(0)), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&counts);
    let fake = Fake::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        if asked.fetch_add(1, Ordering::SeqCst) < times {
            first.clone()
        } else {
            said(200, json!({"token": "ghs_x"}).to_string())
        }
    })
    .await;
    (fake, counts)
}

#[tokio::test]
async fn what_may_pass_is_tried_three_times() {
    for status in [502, 503, 504] {
        let (server, asked) = after(2, said(status, "")).await;
        assert!(ask(&client(&server.url)).await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
    let (server, asked) = after(3, said(503, "")).await;
    assert_eq!(ask(&client(&server.url)).await.unwrap_err().class(), Class::Unavailable);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    for status in [400, 401, 403, 404, 429, 500, 501] {
        let (server, asked) = after(1, said(status, "")).await;
        assert!(ask(&client(&server.url)).await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{status}");
    }
}

#[tokio::test]
async fn what_may_have_led_to_a_token_is_not_repeated() {
    let info = |metadata: serde_json::Value| {
        let details = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "GITHUB_UNAVAILABLE", "domain": "octo-sts", "metadata": metadata,
        }]);
        json!({"code": 14, "message": "GitHub is unavailable", "details": details}).to_string()
    };
    for (metadata, requests) in [
        (json!({"may_have_minted": "true"}), 1),
        (json!({"may_have_minted": "false"}), 3),
        (json!({}), 3),
    ] {
        for status in [502, 503, 504] {
            let (server, requested) = after(3, said(status, info(metadata.clone()))).await;
            let error = ask(&client(&server.url)).await.unwrap_err();
            assert_eq!(
                (error.reason.as_deref(), error.class()),
                (Some("GITHUB_UNAVAILABLE"), Class::Unavailable)
            );
            assert_eq!(requested.load(Ordering::SeqCst), requests, "{metadata}");
            assert_eq!(error.may_have_minted, requests == 1);
        }
    }
    // Connections that break after the request was sent, at every stage of the answer.
    for sent in
        ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"token\": \"ghs"]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                counted.fetch_add(
                    usize::from(stream.read(&mut request).await.unwrap() > 0),
                    Ordering::SeqCst,
                );
                stream.write_all(sent.as_bytes()).await.unwrap();
            }
        });
        let error = ask(&client(&url)).await.unwrap_err();
        assert_eq!((error.class(), error.may_have_minted), (Class::Unavailable, true), "{sent}");
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{sent}");
    }
}

#[tokio::test]
async fn a_server_may_do_anything_wrong() {
    for (wrong, bytes, codes) in wrongs() {
        // Only what hangs is not waited for.
        let time = if codes == [4] { Duration::from_millis(400) } else { Duration::from_secs(20) };
        let client = client(&raw(bytes).await).within(time);
        let error = ask(&client).await.unwrap_err();
        assert!(codes.contains(&error.code), "{wrong}: {} {error}", error.code);
    }
    let gone = ask(&client("http://127.0.0.1:1")).await.unwrap_err();
    assert_eq!((gone.code, gone.class()), (14, Class::Unavailable));
    let tls = ask(&client("https://127.0.0.1:1")).await.unwrap_err();
    assert_eq!(tls.class(), Class::Unavailable);
}

#[tokio::test]
async fn a_server_that_cannot_check_says_so() {
    for (status, body) in [
        (404, "404 page not found".to_owned()),
        (404, json!({"code": 5, "message": "Not Found", "details": []}).to_string()),
    ] {
        let server = Fake::start(move |_| said(status, body.clone())).await;
        let target = target("o/r", "ci");
        let error = client(&server.url).check(&identity_token(TOKEN), &target).await.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (12, "this server cannot check without minting")
        );
    }
}

#[tokio::test]
async fn the_product_answers_both_questions() {
    let world = Setup::with_policy(POLICY).await.start().await;
    let client = client(&format!("http://{}", world.address));
    let target = target("octo-org/hello", "ci");
    let good = identity_token(&world.token(json!({})));
    let bad = identity_token(&world.token(json!({"sub": "somebody"})));

    let checked = client.check(&good, &target).await.unwrap();
    assert!(
        checked.granted && checked.conditions.iter().all(|condition| condition.satisfied),
        "{checked:?}"
    );
    assert_eq!(checked.permissions.get("issues").map(String::as_str), Some("write"));
    assert_eq!(checked.repositories, ["hello"]);
    let refused = client.check(&bad, &target).await.unwrap();
    assert_eq!((refused.granted, refused.reason.as_deref()), (false, Some("POLICY_MISMATCH")));
    assert!(
        refused
            .conditions
            .iter()
            .any(|condition| condition.field == "subject" && !condition.satisfied)
    );
    let foreign = client.check(&identity_token(TOKEN), &target).await.unwrap_err();
    assert_eq!(
        (foreign.class(), foreign.reason.as_deref()),
        (Class::Refused, Some("TOKEN_CLAIMS_INVALID"))
    );

    let error = client.exchange(&bad, &target).await.unwrap_err();
    assert_eq!((error.reason.as_deref(), error.class()), (Some("POLICY_MISMATCH"), Class::Refused));
    assert!(
        error.request_id.is_some() && error.conditions.iter().any(|condition| !condition.satisfied)
    );
    assert_eq!(world.issued().len(), 0, "nothing was minted so far");
    let issued = client.exchange(&good, &target).await.unwrap();
    assert_eq!(issued.expires_at, world.clock.now().plus(Duration::from_secs(3600)));

    let api: http::Uri = world.github.url().parse().unwrap();
    for _ in 0..2 {
        revoke(&api, &egress(), &issued.token).await.unwrap();
    }
    assert!(world.issued().iter().all(|token| token.revoked));
    assert!(
        revoke(&"http://127.0.0.1:1".parse().unwrap(), &egress(), &issued.token).await.is_err()
    );
}
