//! Key sets and discovery documents as issuers, good and bad, publish them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
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
        (json!({"use": "jwt-svid"}), true),
        (json!({"use": "both"}), true),
        (json!({"use": 5}), true),
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
        let answer =
            accepts(json!([KEYS.rsa.with(more.clone())]), &KEYS.rsa, json!({"alg": "RS256"})).await;
        assert_eq!(answer.is_ok(), expected, "{more}: {answer:?}");
        let mut named = more.clone();
        named["kid"] = json!("k1");
        let answer =
            accepts(json!([KEYS.rsa.with(named)]), &KEYS.rsa, json!({"alg": "RS256", "kid": "k1"}))
                .await;
        assert_eq!(answer.is_ok(), expected, "{more}: {answer:?}");
    }
}

#[tokio::test]
async fn an_odd_key_harms_no_other() {
    let odd = [
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "a"}),
        json!({"kty": "RSA", "kid": 5, "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "p521"}),
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
    assert_eq!(
        accepts(published.clone(), &KEYS.rsa, json!({"alg": "RS256", "kid": "k1"})).await,
        Ok(())
    );
    assert_eq!(accepts(published.clone(), &KEYS.rsa, json!({"alg": "RS256"})).await, Ok(()));
    let answer = accepts(published.clone(), &KEYS.rsa, json!({"alg": "RS256", "kid": "5"})).await;
    assert_eq!(answer.unwrap_err().reason(), Reason::IssuerUnavailable, "a number is no key id");
    for id in ["a", "e", "p521", "short"] {
        let answer =
            accepts(published.clone(), &KEYS.rsa, json!({"alg": "RS256", "kid": id})).await;
        assert_eq!(answer.unwrap_err().reason(), Reason::SignatureInvalid, "{id}");
    }
}

#[test]
fn rsa_keys_have_2048_to_4096_bits() {
    let usable = |bits: usize, leading_zeros: usize| {
        let mut n = vec![0; leading_zeros];
        n.push(1 << ((bits - 1) % 8));
        n.resize(leading_zeros + bits.div_ceil(8), 0xff);
        let key = json!({"kty": "RSA", "e": "AQAB", "n": super::fixture::b64(n)});
        KeySet::read(json!({"keys": [key]}).to_string().as_bytes(), None).unwrap().usable_count()
            == 1
    };
    for (bits, expected) in [
        (512, false),
        (1024, false),
        (2047, false),
        (2048, true),
        (3072, true),
        (4096, true),
        (4097, false),
        (8192, false),
        (16384, false),
    ] {
        assert_eq!(usable(bits, 0), expected, "{bits}");
    }
    assert!(!usable(1024, 128), "zeros in front are no strength");
}

#[tokio::test]
async fn a_token_without_key_id_is_held_against_the_fitting_keys() {
    let published =
        json!([KEYS.p256.named("p"), KEYS.other_rsa.named("o"), KEYS.rsa.jwk, KEYS.ed25519.jwk]);
    for (key, algorithm) in [
        (&KEYS.rsa, "RS256"),
        (&KEYS.other_rsa, "PS384"),
        (&KEYS.p256, "ES256"),
        (&KEYS.ed25519, "EdDSA"),
    ] {
        assert_eq!(
            accepts(published.clone(), key, json!({"alg": algorithm})).await,
            Ok(()),
            "{algorithm}"
        );
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
        let token =
            KEYS.rsa.token(&json!({"alg": "PS256", "kid": "k1"}), &world.claims().to_string());
        let answer = world.verify(&token).await.map(|_| ()).map_err(|error| error.reason());
        assert_eq!(
            answer,
            if expected { Ok(()) } else { Err(Reason::SignatureInvalid) },
            "{listed:?}"
        );
    }
}

/// The fault that the issuer's change causes, and how many key sets were fetched.
async fn fault(change: impl FnOnce(&World)) -> (Fault, usize) {
    let world = World::new().await;
    change(&world);
    let Err(Error::Unavailable { cause, retry_after }) = world.verify(&world.token("k1")).await
    else {
        panic!("available")
    };
    let wait = if cause == Fault::NoKeys { 3 } else { 1 };
    assert_eq!(retry_after, Duration::from_secs(wait));
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
        let found = fault(|world| {
            world.fake.set().issuer = Some(other(world.fake.issuer("actions").as_str()))
        })
        .await;
        assert_eq!(found, (Fault::OtherIssuer, 0));
    }
}

#[tokio::test]
async fn documents_that_are_none() {
    let found = fault(|world| world.fake.set().issuer = Some("no url".to_owned())).await;
    assert_eq!(found, (Fault::OtherIssuer, 0));
    let found = fault(|world| {
        world.fake.set().issuer = Some("https://a.example/{tenantid}/v2.0".to_owned())
    })
    .await;
    assert_eq!(found, (Fault::Template, 0));
    for (document, what) in [
        ("", Unexpected::NotJson),
        ("x", Unexpected::NotJson),
        ("<html>", Unexpected::Html),
        ("[]", Unexpected::OtherJson),
        ("{}", Unexpected::OtherJson),
        (r#"{"keys":{}}"#, Unexpected::OtherJson),
        (r#"{"keys":5}"#, Unexpected::OtherJson),
    ] {
        let found = fault(|world| world.fake.set().key_document = Some(document.to_owned())).await;
        assert_eq!(found, (Fault::NotKeys(what), 1), "{document}");
    }
    let found = fault(|world| world.fake.set().keys.clear()).await;
    assert_eq!(found, (Fault::NoKeys, 1));
    let found = fault(|world| world.fake.set().key_document = Some("[".repeat(300 << 10))).await;
    assert_eq!(found, (Fault::Keys(egress::Error::TooLarge), 1));
}

#[tokio::test]
async fn redirects_and_refusals_of_an_issuer_are_faults() {
    for status in [301, 302, 307, 204, 403, 404] {
        let found =
            fault(|world| world.fake.answers(axum::http::StatusCode::from_u16(status).unwrap()))
                .await;
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
        let is_plain = uri.starts_with("http:");
        let expected =
            if is_plain { Fault::InsecureKeys } else { Fault::Keys(egress::Error::Refused) };
        assert_eq!(found, (expected, 0), "{uri}");
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
    for (status, times, expected, discoveries) in [
        (500, 2, true, 3),
        (503, 3, false, 3),
        (504, 1, true, 2),
        (505, 1, false, 1),
        (404, 1, false, 1),
    ] {
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
    let token = KEYS
        .rsa
        .token(&json!({"alg": "RS256", "kid": "k1"}), &world.claims_of(&issuer).to_string());
    assert_eq!(world.verify(&token).await.unwrap().issuer(), &issuer);
}

#[tokio::test]
async fn a_key_set_is_bounded_by_its_bytes_and_not_by_the_number_of_keys() {
    let ids = (0..1_000).map(|n| KEYS.ed25519.named(&n.to_string()));
    let published: Vec<_> = ids.chain([KEYS.rsa.named("last")]).collect();
    assert_eq!(
        accepts(json!(published), &KEYS.rsa, json!({"alg": "RS256", "kid": "last"})).await,
        Ok(())
    );
    assert_eq!(accepts(json!(published), &KEYS.rsa, json!({"alg": "RS256"})).await, Ok(()));
}

#[tokio::test]
async fn a_token_without_key_id_is_checked_against_sixteen_keys_of_its_type() {
    let keys = |others: usize| {
        let others = (0..others).map(|n| KEYS.other_rsa.named(&n.to_string()));
        let published: Vec<_> =
            others.chain([KEYS.p256.named("p"), KEYS.rsa.named("last")]).collect();
        accepts(json!(published), &KEYS.rsa, json!({"alg": "RS256"}))
    };
    assert_eq!(keys(15).await, Ok(()));
    assert_eq!(keys(16).await.unwrap_err().reason(), Reason::SignatureInvalid);
}

#[tokio::test]
async fn integers_may_have_zero_bytes_in_front_and_coordinates_have_exactly_the_curves_length() {
    let padded = |key: &TestKey, names: &[&str], zeros: usize| {
        let mut jwk = key.named("k");
        for name in names {
            let bytes =
                [vec![0; zeros], URL_SAFE_NO_PAD.decode(jwk[*name].as_str().unwrap()).unwrap()]
                    .concat();
            jwk[*name] = json!(super::fixture::b64(bytes));
        }
        json!([jwk])
    };
    for zeros in [0, 1, 2, 7] {
        for names in [&["n"][..], &["e"], &["n", "e"]] {
            let published = padded(&KEYS.rsa, names, zeros);
            for algorithm in ["RS256", "PS512"] {
                let header = json!({"alg": algorithm, "kid": "k"});
                assert_eq!(
                    accepts(published.clone(), &KEYS.rsa, header).await,
                    Ok(()),
                    "{names:?} {zeros}"
                );
            }
        }
    }
    // Go's libraries refuse these too.
    for (key, algorithm) in [
        (&KEYS.p256, "ES256"),
        (&KEYS.p384, "ES384"),
        (&KEYS.p521, "ES512"),
        (&KEYS.ed25519, "EdDSA"),
    ] {
        let header = json!({"alg": algorithm, "kid": "k"});
        assert_eq!(
            accepts(padded(key, &["x"], 0), key, header.clone()).await,
            Ok(()),
            "{algorithm}"
        );
        assert!(accepts(padded(key, &["x"], 1), key, header).await.is_err(), "{algorithm}");
    }
}

#[tokio::test]
async fn base64_of_a_key_may_be_padded() {
    let mut jwk = KEYS.p256.named("k");
    for name in ["x", "y"] {
        jwk[name] = json!(format!("{}=", jwk[name].as_str().unwrap()));
    }
    assert_eq!(
        accepts(json!([jwk]), &KEYS.p256, json!({"alg": "ES256", "kid": "k"})).await,
        Ok(())
    );
}

#[tokio::test]
async fn a_signature_of_es512_has_its_fixed_length() {
    let world = World::new().await;
    world.fake.set().algorithms = Some(json!(["ES512"]));
    world.fake.set().keys = vec![KEYS.p521.named("k")];
    let token = KEYS.p521.token(&json!({"alg": "ES512", "kid": "k"}), &world.claims().to_string());
    assert!(world.verify(&token).await.is_ok());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert_eq!(bytes.len(), 132);
    for other in [
        &bytes[..131],
        &bytes[1..],
        &[&bytes[..], &[0]].concat(),
        &[0; 132],
        &[&[0], &bytes[..]].concat(),
    ] {
        let forged = format!("{signed}.{}", super::fixture::b64(other));
        assert_eq!(world.refusal(&forged).await, Reason::SignatureInvalid, "{}", other.len());
    }
}

#[test]
fn a_set_of_many_keys_holds_what_it_says() {
    let size = |keys: Vec<Value>| {
        let document = json!({"keys": keys}).to_string();
        assert!(document.len() <= 256 << 10);
        KeySet::read(document.as_bytes(), None).unwrap().size()
    };
    let one = size(vec![KEYS.rsa.named("k")]);
    assert!((256..2_048).contains(&one), "{one}");
    assert!(size((0..14_000).map(|n| json!({"kid": n.to_string()})).collect()) <= 1 << 20);
    assert!(size((0..2_500).map(|n| KEYS.ed25519.named(&n.to_string())).collect()) <= 1 << 20);
    // Keys without an id that cannot be used are dropped.
    assert!(size((0..40_000).map(|_| json!({})).collect()) < 1_024);
}

#[tokio::test]
async fn a_wrong_key_is_told_apart_from_an_unknown_one() {
    let published = json!([
        KEYS.rsa.named("k1"),
        KEYS.rsa.with(json!({"kid": "rs512", "alg": "RS512"})),
        KEYS.rsa.with(json!({"kid": "old", "exp": super::fixture::NOW - 1})),
        {"kty": "oct", "kid": "oct", "k": "AA"},
    ]);
    for (id, words) in [
        ("k1", "the signature does not match the key that `kid` names"),
        ("rs512", "the key that `kid` names is not for the token's algorithm RS256"),
        ("old", "has expired"),
        ("oct", "cannot be used"),
    ] {
        let key = if id == "k1" { &KEYS.other_rsa } else { &KEYS.rsa };
        let error =
            accepts(published.clone(), key, json!({"alg": "RS256", "kid": id})).await.unwrap_err();
        assert_eq!(error.reason(), Reason::SignatureInvalid, "{id}");
        assert!(error.to_string().contains(words), "{id}: {error}");
    }
}

/// Key and token were made by Go's go-jose 2.6.3.
#[test]
fn a_token_of_another_implementation_is_verified_by_es512() {
    let fixture: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/tokens/go-jose-es512.json"))
            .unwrap();
    let keys = KeySet::read(fixture["jwks"].to_string().as_bytes(), None).unwrap();
    let token = fixture["token"].as_str().unwrap();
    let now = crate::clock::UnixTime::from_secs(super::fixture::NOW);
    let verifies =
        |token: &str| keys.verify(&Unverified::read(token, 32 << 10).unwrap(), now).is_ok();
    assert!(verifies(token));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other = super::fixture::b64(r#"{"iss":"https://issuer.example","sub":"other"}"#);
    assert!(!verifies(&format!("{header}.{other}.{signature}")));
}

#[tokio::test]
async fn only_the_usual_check_is_made_on_the_async_threads() {
    let world = World::new().await;
    world.fake.set().algorithms = None;
    let published = vec![
        KEYS.rsa.named("k1"),
        KEYS.other_rsa.named("k2"),
        KEYS.p256.named("p256"),
        KEYS.p521.named("p521"),
    ];
    let set = KeySet::read(json!({"keys": published}).to_string().as_bytes(), None).unwrap();
    world.fake.set().keys = published;
    let now = crate::clock::UnixTime::from_secs(super::fixture::NOW);
    for (key, header, is_expensive) in [
        (&KEYS.rsa, json!({"alg": "RS256", "kid": "k1"}), false),
        (&KEYS.p256, json!({"alg": "ES256", "kid": "p256"}), false),
        (&KEYS.p256, json!({"alg": "ES256"}), false),
        (&KEYS.rsa, json!({"alg": "RS256"}), true),
        (&KEYS.p521, json!({"alg": "ES512", "kid": "p521"}), true),
        (&KEYS.p521, json!({"alg": "ES512", "kid": "unknown"}), false),
    ] {
        let token = key.token(&header, &world.claims().to_string());
        assert_eq!(
            set.is_expensive(&world.oidc.read(&token).unwrap(), now),
            is_expensive,
            "{header}"
        );
        assert_eq!(world.verify(&token).await.is_ok(), header["kid"] != "unknown", "{header}");
    }
}

/// A world with the fixture's origin as that of a GitHub Enterprise Server.
async fn enterprise() -> World {
    World::with(|settings| {
        settings.private_networks = PrivateNetworks::Blocked;
        settings.private_origin = Origin::of(&settings.actions_issuer.as_str().parse().unwrap());
        settings.configured =
            vec![settings.actions_issuer.as_str().replace("actions", "other").parse().unwrap()];
    })
    .await
}

#[tokio::test]
async fn the_origin_of_an_enterprise_server_is_for_its_own_actions_issuer() {
    let world = enterprise().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    for issuer in ["other", "unknown"] {
        let claims = world.claims_of(&world.fake.issuer(issuer)).to_string();
        let token = KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &claims);
        let Error::Unavailable { cause, .. } = world.verify(&token).await.unwrap_err() else {
            panic!("{issuer}")
        };
        assert_eq!(cause, Fault::Discovery(egress::Error::Refused), "{issuer}");
    }
    let (world, elsewhere) = (enterprise().await, super::fixture::Fake::start().await);
    world.fake.set().jwks_uri = Some(format!("{}/jwks", elsewhere.issuer("actions")));
    assert_eq!(world.refusal(&world.token("k1")).await, Reason::IssuerMisconfigured);
    assert_eq!(elsewhere.set().key_fetches, 0, "another port");
}
