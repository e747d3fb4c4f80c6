//! Issuers: what they publish verifies what they sign, and they misbehave on demand.

use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};

use super::*;
use crate::emulator::{Alg, Document, Fetches, Issuer, Misbehaviour, claims};

async fn issuer() -> (Issuer, Http, ManualClock) {
    let clock = ManualClock::at(UnixTime::from_secs(1_767_225_600));
    (Issuer::start(Arc::new(clock.clone())).await.unwrap(), Http::new(), clock)
}

/// The claims, if a published key verifies the token.
fn verified(jwks: Value, token: &str) -> Option<Value> {
    let header = jsonwebtoken::decode_header(token).unwrap();
    let set: JwkSet = serde_json::from_value(jwks).unwrap();
    let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap())?).unwrap();
    let mut validation = Validation::new(header.alg);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    jsonwebtoken::decode(token, &key, &validation).ok().map(|token| token.claims)
}

const ALGS: [Alg; 9] = [
    Alg::Rs256,
    Alg::Rs384,
    Alg::Rs512,
    Alg::Ps256,
    Alg::Ps384,
    Alg::Ps512,
    Alg::Es256,
    Alg::Es384,
    Alg::EdDsa,
];

#[tokio::test]
async fn published_keys_verify_what_is_signed() {
    let (issuer, http, _) = issuer().await;
    for alg in ALGS {
        issuer.rotate(alg);
        let discovery =
            http.get(&format!("{}/.well-known/openid-configuration", issuer.url())).await.json();
        assert_eq!(discovery["issuer"], issuer.url());
        assert!(
            discovery["id_token_signing_alg_values_supported"]
                .as_array()
                .unwrap()
                .contains(&json!(alg.name()))
        );
        let jwks = http.get(discovery["jwks_uri"].as_str().unwrap()).await.json();
        let token = issuer.sign(&json!({"sub": "someone", "nbf": null}));
        let claims = verified(jwks, &token).unwrap_or_else(|| panic!("{}", alg.name()));
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!(issuer.url()), &json!("someone")));
        assert_eq!(
            (&claims["iat"], &claims["exp"]),
            (&json!(1_767_225_600), &json!(1_767_225_900))
        );
        assert_eq!(claims.get("nbf"), None);
    }
    assert_eq!(issuer.fetches(), Fetches { discovery: ALGS.len(), jwks: ALGS.len() });
    assert!(issuer.unknown_requests().is_empty());
}

#[tokio::test]
async fn keys_come_and_go() {
    let (issuer, ..) = issuer().await;
    let old = issuer.header()["kid"].as_str().unwrap().to_owned();
    let by_old = issuer.sign(&json!({}));
    let new = issuer.rotate(Alg::Es256);
    assert_ne!(old, new);
    assert!(
        verified(issuer.jwks(), &by_old).is_some()
            && verified(issuer.jwks(), &issuer.sign(&json!({}))).is_some()
    );
    assert!(issuer.withdraw(&old));
    assert!(verified(issuer.jwks(), &by_old).is_none());
    assert!(issuer.use_key(&old) && issuer.publish(&old) && !issuer.use_key("nothing"));
    assert!(verified(issuer.jwks(), &issuer.sign(&json!({}))).is_some());
    let odd = issuer.sign_with(&json!({"typ": null, "crit": ["b64"]}), &json!({}));
    let header = keys::from_base64url(odd.split('.').next().unwrap()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&header).unwrap(),
        json!({"alg": "RS256", "kid": old, "crit": ["b64"]})
    );
    assert_eq!(
        issuer.sign_text("x", r#"{"a":1,"a":2}"#).split('.').nth(1).unwrap(),
        keys::base64url(r#"{"a":1,"a":2}"#)
    );
}

#[tokio::test]
async fn issuers_by_path_have_keys_of_their_own() {
    let (issuer, http, _) = issuer().await;
    let (a, b) = (issuer.at("/tenant-a"), issuer.at("/tenant-b/"));
    assert_eq!(
        (a.url(), b.url()),
        (format!("{}/tenant-a", issuer.url()), format!("{}/tenant-b/", issuer.url()))
    );
    let discovery = http
        .get(&format!("{}/tenant-b/.well-known/openid-configuration", issuer.url()))
        .await
        .json();
    assert_eq!(discovery["issuer"], b.url());
    assert!(
        verified(a.jwks(), &a.sign(&json!({}))).is_some()
            && verified(b.jwks(), &a.sign(&json!({}))).is_none()
    );
    assert_eq!((a.fetches().discovery, b.fetches().discovery), (0, 1));
    assert_eq!(issuer.at("/tenant-a").jwks(), a.jwks(), "the same issuer again");
    assert_eq!(
        http.get(&format!("{}/tenant-c/.well-known/openid-configuration", issuer.url()))
            .await
            .status,
        404
    );
    assert_eq!(issuer.unknown_requests(), ["GET /tenant-c/.well-known/openid-configuration"]);
}

#[tokio::test]
async fn misbehaviour_on_demand() {
    let (issuer, http, _) = issuer().await;
    let url = format!("{}/.well-known/openid-configuration", issuer.url());
    let request = || http::Request::get(&url).body(Full::default()).unwrap();
    let discovery = |how| issuer.misbehave(Document::Discovery, how);
    discovery(Misbehaviour::Cut);
    assert!(http.try_send(request()).await.is_err());
    discovery(Misbehaviour::Status(503));
    assert_eq!(http.get(&url).await.status, 503);
    discovery(Misbehaviour::Redirect("https://example.com/x".into()));
    let answer = http.get(&url).await;
    assert_eq!((answer.status, answer.header("location")), (302, "https://example.com/x"));
    discovery(Misbehaviour::Padded(300 << 10));
    assert_eq!(http.get(&url).await.body.len(), 300 << 10);
    discovery(Misbehaviour::Html);
    assert!(http.get(&url).await.body.starts_with(b"<!DOCTYPE"));
    discovery(Misbehaviour::Member("issuer".into(), json!("https://evil.example")));
    assert_eq!(http.get(&url).await.json()["issuer"], "https://evil.example");
    discovery(Misbehaviour::Member("jwks_uri".into(), Value::Null));
    assert_eq!(http.get(&url).await.json().get("jwks_uri"), None);
    discovery(Misbehaviour::Replace(json!(5)));
    assert_eq!(http.get(&url).await.json(), json!(5));
    issuer.misbehave_times(1, Document::Discovery, Misbehaviour::Status(500));
    assert_eq!((http.get(&url).await.status, http.get(&url).await.status), (500, 200));
    issuer.misbehave(Document::Jwks, Misbehaviour::OddKeys);
    let keys = http.get(&format!("{}/.well-known/jwks", issuer.url())).await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 7);
    issuer.misbehave(Document::Discovery, Misbehaviour::Hang);
    assert!(tokio::time::timeout(Duration::from_millis(100), http.get(&url)).await.is_err());
    issuer.behave();
    issuer.cache_control(Some("max-age=60"));
    assert_eq!(http.get(&url).await.header("cache-control"), "max-age=60");
    issuer.require_bearer(Some("cluster"));
    assert_eq!(http.get(&url).await.status, 403);
    assert_eq!(issuer.fetches().discovery, 13);
}

#[tokio::test]
async fn a_stalled_issuer_answers_when_it_behaves() {
    let (issuer, http, _) = issuer().await;
    issuer.misbehave(Document::Jwks, Misbehaviour::Stall);
    let (client, url) = (http.clone(), issuer.url());
    let stalled =
        tokio::spawn(async move { client.get(&format!("{url}/.well-known/jwks")).await.status });
    while issuer.fetches().jwks == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        http.get(&format!("{}/.well-known/openid-configuration", issuer.url())).await.status,
        200
    );
    issuer.at("/other").behave();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!stalled.is_finished());
    issuer.behave();
    assert_eq!(stalled.await.unwrap(), 200);
}

#[test]
fn example_claims_are_consistent() {
    let actions = claims::github_actions("octo-org", "hello", "refs/heads/main");
    assert_eq!(actions["sub"], "repo:octo-org/hello:ref:refs/heads/main");
    assert_eq!(
        (&actions["repository"], &actions["repository_owner"]),
        (&json!("octo-org/hello"), &json!("octo-org"))
    );
    let pod = claims::kubernetes("default", "builder");
    assert_eq!(pod["sub"], "system:serviceaccount:default:builder");
    assert_eq!(pod["kubernetes.io"]["namespace"], "default");
}
