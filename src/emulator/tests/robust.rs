//! Nothing that a client sends brings the emulators down.

use proptest::prelude::*;

use super::*;
use crate::emulator::{Alg, Issuer, keys::Lease};

/// Pieces that paths and bodies are made of: what the emulators know, and what they do not expect.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "app",
        "installations",
        "access_tokens",
        "repos",
        "repositories",
        "octo-org",
        "hello",
        "contents",
        "README.md",
        "installation",
        "token",
        "users",
        "issues",
        "18446744073709551616",
        "600000004",
        "%2e%2e",
        "%ff",
        "%00",
        "..",
        "",
        ".well-known",
        "jwks",
        "%",
    ];
    prop_oneof![4 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[!-~]{0,8}"]
}

fn body() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "[!-~]{0,8}".prop_map(|text| json!(text)),
        any::<i64>().prop_map(|number| json!(number)),
        Just(json!([{}, null, "hello"]))
    ];
    let names = proptest::sample::select(vec![
        "permissions",
        "repositories",
        "repository_ids",
        "title",
        "message",
        "content",
    ]);
    let object = proptest::collection::hash_map(names, value, 0..4)
        .prop_map(|members| json!(members).to_string());
    prop_oneof![object, "[ -~]{0,20}"]
}

#[test]
fn any_request_gets_an_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (world, issuer, token) = runtime.block_on(async {
        let world = World::new().await;
        let issuer = Issuer::start(Arc::new(world.clock.clone())).await.unwrap();
        world.github.set(|options| options.hourly_limit = u64::MAX);
        let token = world.mint(Value::Null).await;
        (world, issuer, token)
    });
    let credentials = [
        String::new(),
        format!("Bearer {}", world.jwt()),
        format!("token {token}"),
        "Bearer ..".into(),
    ];
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    let request = (
        proptest::sample::select(methods.to_vec()),
        proptest::collection::vec(piece(), 0..6),
        proptest::sample::select(credentials.to_vec()),
        body(),
        any::<bool>(),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(600)
    });
    let outcome = runner.run(&request, |(method, pieces, credential, body, to_issuer)| {
        let root = if to_issuer { issuer.url() } else { world.github.url() };
        let Ok(uri) = format!("{root}/{}", pieces.join("/")).parse::<http::Uri>() else {
            return Ok(());
        };
        let request = http::Request::builder().method(method).uri(uri).header("user-agent", "test");
        let request = request.header("authorization", credential).body(Full::from(body)).unwrap();
        let answer = runtime.block_on(world.http.try_send(request));
        prop_assert!(answer.as_ref().is_ok_and(|answer| answer.status != 500), "{answer:?}");
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn http_2_with_prior_knowledge() {
    let world = World::new().await;
    let client = Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    let request =
        || http::Request::get(format!("{}/meta", world.github.url())).header("user-agent", "test");
    let answer = client.request(request().body(Full::default()).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    let long = "x".repeat(60 << 10);
    let answer = client
        .request(request().header("authorization", long).body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 401, "long tokens are read");
}

#[tokio::test]
async fn the_port_is_free_when_the_last_handle_goes() {
    let world = World::new().await;
    let (github, url, http) = (world.github.clone(), world.github.url(), world.http.clone());
    drop(world);
    assert_eq!(http.get(&format!("{url}/meta")).await.status, 200);
    drop(github);
    let request = http::Request::get(format!("{url}/meta")).body(Full::default()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), Http::new().try_send(request))
        .await
        .unwrap()
        .unwrap_err();
}

#[test]
fn keys_in_use_are_all_different() {
    let (one, two) = (Lease::take(Alg::Es256), Lease::take(Alg::Es256));
    assert_ne!(one.key_id(Alg::Es256), two.key_id(Alg::Es256));
}
