//! Key sets and discovery documents as issuers, good and bad, publish them.

use serde_json::{Value, json};

use super::{
    super::*,
    fixture::{KEYS, TestKey, World},
};
use crate::{egress, reason::Reason};

/// Whether a token of the key, its header as given, is verified where `published` is the key set.
async fn accepts(published: Value, key: &TestKey, header: Value) -> Result<(), Error> {
    let world = World::new().await;
    world.fake.set().algorithms = None;
    world.fake.set().keys = published.as_array().unwrap().clone();
    world.verify(&key.token(&header, &world.claims().to_string())).await.map(|_| ())
}

#[tokio::test]
async fn keys_that_are_not_for_this_are_not_used() {
    for (more, expected) in [
        (json!({"use": "sig"}), true),
        (json!({"use": "enc"}), false),
        (json!({"use": "both"}), false),
        (json!({"key_ops": ["verify"]}), true),
        (json!({"key_ops": ["encrypt", "verify"]}), true),
        (json!({"key_ops": ["encrypt"]}), false),
        (json!({"key_ops": []}), false),
        (json!({"key_ops": "verify"}), false),
        (json!({"alg": "RS256"}), true),
        (json!({"alg": "RS512"}), false),
        (json!({"alg": "PS256"}), false),
        (json!({"alg": "ES256"}), false),
        (json!({"alg": "RSA-OAEP"}), false),
        (json!({"alg": "none"}), false),
        (json!({"alg": 5}), false),
        (json!({"kty": "EC"}), false),
        (json!({"kty": "oct", "k": "AA"}), false),
        (json!({"n": ""}), false),
        (json!({"e": ""}), false),
        (json!({"x5c": ["AA"], "x5t": "AA", "unheard": {"of": 1}}), true),
    ] {
        let answer = accepts(json!([KEYS.rsa.with(more.clone())]), &KEYS.rsa, json!({"alg": "RS256"})).await;
        assert_eq!(answer.is_ok(), expected, "{more}: {answer:?}");
        let mut named = more.clone();
        named["kid"] = json!("k1");
        let answer = accepts(json!([KEYS.rsa.with(named)]), &KEYS.rsa, json!({"alg": "RS256", "kid": "k1"})).await;
        assert_eq!(answer.is_ok(), expected, "{more}: {answer:?}");
    }
}

#[tokio::test]
async fn an_odd_key_harms_no_other() {
    let odd = [
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "a"}),
        json!({"kty": "RSA", "kid": 5, "n": "AQAB", "e": "AQAB"}),
        KEYS.p521.named("p521"),
        json!({"kty": "RSA", "use": "enc", "kid": "e", "n": "AQAB", "e": "AQAB"}),
        json!("x"),
        json!(null),
        json!({}),
        json!([[]]),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "short"}),
    ];
    let mut published = odd.to_vec();
    published.push(KEYS.rsa.named("k1"));
    let published = Value::Array(published);
    assert_eq!(accepts(published.clone(), &KEYS.rsa, json!({"alg": "RS256", "kid": "k1"})).await, Ok(()));
    assert_eq!(accepts(published.clone(), &KEYS.rsa, json!({"alg": "RS256"})).await, Ok(()));
    for id in ["a", "e", "5", "p521", "short"] {
        let answer = accepts(published.clone(), &KEYS.rsa, json!({"alg": "RS256", "kid": id})).await;
        assert_eq!(answer.unwrap_err().reason(), Reason::SignatureInvalid, "{id}");
    }
}

#[test]
fn rsa_keys_have_2048_to_8192_bits() {
    let usable = |bits: usize, leading_zeros: usize| {
        let mut n = vec![0; leading_zeros];
        n.push(1 << ((bits - 1) % 8));
        n.resize(leading_zeros + bits.div_ceil(8), 0xff);
        let key = json!({"kty": "RSA", "e": "AQAB", "n": super::fixture::b64(n)});
        KeySet::read(json!({"keys": [key]}).to_string().as_bytes(), None).unwrap().usable_count() == 1
    };
    for (bits, expected) in [
        (512, false),
        (1024, false),
        (2047, false),
        (2048, true),
        (3072, true),
        (8192, true),
        (8193, false),
        (16384, false),
    ] {
        assert_eq!(usable(bits, 0), expected, "{bits}");
    }
    assert!(!usable(1024, 128), "zeros in front are no strength");
}

#[tokio::test]
async fn a_token_without_key_id_is_held_against_the_fitting_keys() {
    let published = json!([KEYS.p256.named("p"), KEYS.other_rsa.named("o"), KEYS.rsa.jwk, KEYS.ed25519.jwk]);
    for (key, algorithm) in
        [(&KEYS.rsa, "RS256"), (&KEYS.other_rsa, "PS384"), (&KEYS.p256, "ES256"), (&KEYS.ed25519, "EdDSA")]
    {
        assert_eq!(accepts(published.clone(), key, json!({"alg": algorithm})).await, Ok(()), "{algorithm}");
    }
    let answer = accepts(published, &KEYS.p384, json!({"alg": "ES384"})).await;
    assert_eq!(answer.unwrap_err().reason(), Reason::SignatureInvalid);
}

#[tokio::test]
async fn one_key_id_may_stand_for_several_keys() {
    let published = json!([KEYS.other_rsa.named("k"), KEYS.p256.named("k"), KEYS.rsa.named("k")]);
    assert_eq!(accepts(published, &KEYS.rsa, json!({"alg": "RS256", "kid": "k"})).await, Ok(()));
}

#[tokio::test]
async fn the_algorithms_that_discovery_lists_bind() {
    for (listed, expected) in [
        (None, true),
        (Some(json!([])), true),
        (Some(json!(["PS256"])), true),
        (Some(json!(["ES256", "PS256", "ML-DSA-44"])), true),
        (Some(json!(["RS256"])), false),
        (Some(json!(["ML-DSA-44"])), false),
        (Some(json!(["none", "HS256"])), false),
    ] {
        let world = World::new().await;
        world.fake.set().algorithms = listed.clone();
        let token = KEYS.rsa.token(&json!({"alg": "PS256", "kid": "k1"}), &world.claims().to_string());
        let answer = world.verify(&token).await.map(|_| ()).map_err(|error| error.reason());
        assert_eq!(answer, if expected { Ok(()) } else { Err(Reason::SignatureInvalid) }, "{listed:?}");
    }
}

/// The fault that the issuer's change causes, and how many key sets were fetched.
async fn fault(change: impl FnOnce(&World)) -> (Fault, usize) {
    let world = World::new().await;
    change(&world);
    let Err(Error::Unavailable { cause, retry_after }) = world.verify(&world.token("k1")).await else {
        panic!("available")
    };
    assert_eq!(retry_after, Duration::from_secs(1));
    let key_fetches = world.fake.set().key_fetches;
    (cause, key_fetches)
}

#[tokio::test]
async fn the_document_names_its_issuer_byte_for_byte() {
    for other in [
        |own: &str| format!("{own}/"),
        |own: &str| own.to_uppercase(),
        |own: &str| own.replace("127.0.0.1", "localhost"),
        |own: &str| own.replace("actions", "%61ctions"),
        |_: &str| "https://token.actions.githubusercontent.com".to_owned(),
    ] {
        let found = fault(|world| world.fake.set().issuer = Some(other(world.fake.issuer("actions").as_str()))).await;
        assert_eq!(found, (Fault::OtherIssuer, 0));
    }
}

#[tokio::test]
async fn documents_that_are_none() {
    let found = fault(|world| world.fake.set().issuer = Some("no url".to_owned())).await;
    assert_eq!(found, (Fault::NotDiscovery, 0));
    for document in ["", "x", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":5}"#] {
        let found = fault(|world| world.fake.set().key_document = Some(document.to_owned())).await;
        assert_eq!(found, (Fault::NotKeys, 1), "{document}");
    }
    let found = fault(|world| world.fake.set().key_document = Some("[".repeat(300 << 10))).await;
    assert_eq!(found, (Fault::Keys(egress::Error::TooLarge), 1));
}

#[tokio::test]
async fn redirects_and_refusals_of_an_issuer_are_faults() {
    for status in [301, 302, 307, 204, 403, 404] {
        let found = fault(|world| world.fake.answers(axum::http::StatusCode::from_u16(status).unwrap())).await;
        assert_eq!(found, (Fault::Discovery(egress::Error::Status(status)), 0));
    }
}

#[tokio::test]
async fn a_key_set_is_fetched_by_the_rule_too() {
    for uri in [
        "http://169.254.169.254/jwks",
        "http://10.0.0.1/jwks",
        "https://[::ffff:169.254.169.254]/jwks",
        "http://jwks.example/",
    ] {
        let found = fault(|world| world.fake.set().jwks_uri = Some(uri.to_owned())).await;
        assert_eq!(found, (Fault::Keys(egress::Error::Refused), 0), "{uri}");
    }
    for uri in ["file:///etc/passwd", "ftp://127.0.0.1/", "https://user@127.0.0.1/", "gopher:x"] {
        let found = fault(|world| world.fake.set().jwks_uri = Some(uri.to_owned())).await;
        assert_eq!(found, (Fault::Keys(egress::Error::Url), 0), "{uri}");
    }
}

#[tokio::test]
async fn private_networks_are_for_whom_the_operator_says() {
    for (networks, known, admitted) in [
        (PrivateNetworks::Blocked, false, false),
        (PrivateNetworks::Known, true, false),
        (PrivateNetworks::All, true, true),
    ] {
        let world = World::with(|settings| settings.private_networks = networks).await;
        let other = world.claims_of(&world.fake.issuer("other")).to_string();
        let other = KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &other);
        assert_eq!(world.verify(&world.token("k1")).await.is_ok(), known, "{networks:?}");
        assert_eq!(world.verify(&other).await.is_ok(), admitted, "{networks:?}");
        assert_eq!(world.fake.discoveries(), usize::from(known) + usize::from(admitted));
    }
}

#[tokio::test]
async fn a_passing_fault_is_tried_again_three_times_at_most() {
    for (status, times, expected, discoveries) in
        [(500, 2, true, 3), (503, 3, false, 3), (504, 1, true, 2), (505, 1, false, 1), (404, 1, false, 1)]
    {
        let world = World::new().await;
        world.fake.answers(axum::http::StatusCode::from_u16(status).unwrap());
        world.fake.set().times = times;
        assert_eq!(world.verify(&world.token("k1")).await.is_ok(), expected, "{status}");
        assert_eq!(world.fake.discoveries(), discoveries, "{status}");
    }
}

#[tokio::test]
async fn an_issuer_with_a_trailing_slash_is_asked_without_doubling_it() {
    let world = World::new().await;
    let issuer: Issuer = format!("{}/", world.fake.issuer("other")).parse().unwrap();
    world.fake.set().issuer = Some(issuer.to_string());
    let token = KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &world.claims_of(&issuer).to_string());
    assert_eq!(world.verify(&token).await.unwrap().issuer(), &issuer);
}

#[test]
fn of_many_keys_few_are_read() {
    let keys: Vec<_> = (0..20_000).map(|n| json!({"kid": n.to_string()})).collect();
    let set = KeySet::read(json!({"keys": keys}).to_string().as_bytes(), None).unwrap();
    assert_eq!(set.count(), 64);
    // Those of which nothing can be used count too: to look at each costs time.
    let junk: Vec<_> = (0..20_000).map(|_| json!({})).chain([json!({"kid": "last"})]).collect();
    assert_eq!(KeySet::read(json!({"keys": junk}).to_string().as_bytes(), None).unwrap().count(), 0);
}
