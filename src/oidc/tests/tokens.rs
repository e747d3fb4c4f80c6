//! Signatures, claims and times.

use serde_json::{Value, json};

use super::{
    super::*,
    fixture::{KEYS, NOW, TestKey, World, b64, owner},
};
use crate::{clock::UnixTime, reason::Reason};

fn header(algorithm: &str, key_id: &str) -> Value {
    json!({"alg": algorithm, "kid": key_id})
}

/// A token with one claim changed; null takes it out.
fn changed(world: &World, name: &str, value: Value) -> String {
    let mut claims = world.claims();
    let members = claims.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    KEYS.rsa.token(&header("RS256", "k1"), &claims.to_string())
}

/// A token of the known issuer with the claim spelled as `text`.
fn spelled(world: &World, text: &str) -> String {
    let claims = world.claims().to_string();
    KEYS.rsa.token(&header("RS256", "k1"), &format!("{},{text}}}", claims.trim_end_matches('}')))
}

#[tokio::test]
async fn a_good_token_says_who_asks() {
    let world = World::new().await;
    let token = world.verify(&world.token("k1")).await.unwrap();
    assert_eq!(token.issuer(), &world.fake.issuer("actions"));
    assert_eq!((token.subject().as_str(), token.id()), ("repo:o/r", Some("j")));
    assert_eq!(token.audiences(), ["sts".parse().unwrap()]);
    assert_eq!(token.expires_at(), UnixTime::from_secs(NOW + 86_400));
    assert_eq!(token.issuer_kind(), IssuerKind::Actions);
    assert_eq!(Value::Object(token.claims().clone()), world.claims());
}

#[tokio::test]
async fn each_algorithm_takes_its_own_keys_and_no_other() {
    let world = World::new().await;
    let keys: [(&TestKey, &str, &[&str]); 5] = [
        (&KEYS.rsa, "rsa", &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (&KEYS.p256, "p256", &["ES256"]),
        (&KEYS.p384, "p384", &["ES384"]),
        (&KEYS.ed25519, "ed", &["EdDSA", "Ed25519"]),
        (&KEYS.p521, "p521", &["ES512"]),
    ];
    world.fake.set().algorithms = None;
    world.fake.set().keys = keys.iter().map(|(key, id, _)| key.named(id)).collect();
    for (key, id, fitting) in keys {
        for algorithm in [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
            "Ed25519", "HS256", "ES512", "none",
        ] {
            let token = key.token(&header(algorithm, id), &world.claims().to_string());
            let answer = world.verify(&token).await.map(|_| ()).map_err(|error| error.reason());
            let expected =
                if fitting.contains(&algorithm) { Ok(()) } else { Err(Reason::SignatureInvalid) };
            assert_eq!(answer, expected, "{algorithm} with {id}");
        }
    }
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let world = World::new().await;
    let modulus = KEYS.rsa.jwk["n"].as_str().unwrap();
    world
        .fake
        .set()
        .keys
        .push(json!({"kty": "oct", "kid": "oct", "k": b64(modulus), "alg": "HS256"}));
    world.fake.set().algorithms = None;
    for id in ["k1", "oct"] {
        let signed =
            format!("{}.{}", b64(header("HS256", id).to_string()), b64(world.claims().to_string()));
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, modulus.as_bytes());
        let token = format!("{signed}.{}", b64(aws_lc_rs::hmac::sign(&secret, signed.as_bytes())));
        assert_eq!(world.refusal(&token).await, Reason::SignatureInvalid);
    }
}

#[tokio::test]
async fn keys_that_the_token_brings_along_mean_nothing() {
    let world = World::new().await;
    let own = KEYS.other_rsa.named("k1");
    for more in [
        json!({"jwk": own}),
        json!({"jku": "http://127.0.0.1:1/jwks"}),
        json!({"x5u": "http://127.0.0.1:1/"}),
        json!({"x5c": ["AA"]}),
    ] {
        let mut header = header("RS256", "k1");
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let claims = world.claims().to_string();
        assert_eq!(
            world.refusal(&KEYS.other_rsa.token(&header, &claims)).await,
            Reason::SignatureInvalid,
            "{more}"
        );
        assert!(world.verify(&KEYS.rsa.token(&header, &claims)).await.is_ok(), "{more}");
    }
}

#[tokio::test]
async fn a_changed_byte_breaks_the_signature() {
    let world = World::new().await;
    let token = world.token("k1");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let mut claims = world.claims();
    claims["sub"] = json!("repo:o/other");
    let empty_pss = KEYS.rsa.token(&header("PS256", "k1"), &world.claims().to_string());
    for forged in [
        format!("{head}.{}.{signature}", b64(claims.to_string())),
        format!("{signed}.{}", b64([0; 256])),
        format!("{signed}.{}", b64([0; 1])),
        format!("{signed}.{}", empty_pss.rsplit_once('.').unwrap().1),
    ] {
        assert_eq!(world.refusal(&forged).await, Reason::SignatureInvalid);
    }
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn expiry_in_every_form() {
    let world = World::new().await;
    for (exp, expected) in [
        (json!(NOW + 60), Ok(())),
        (json!(NOW - 29), Ok(())),
        (json!(NOW as f64 + 60.5), Ok(())),
        (json!(253_402_300_799_i64), Ok(())),
        (json!(NOW - 30), Err(Reason::TokenExpired)),
        (json!(NOW as f64 - 29.5), Err(Reason::TokenExpired)),
        (json!(0), Err(Reason::TokenExpired)),
        (json!(-1), Err(Reason::TokenExpired)),
        (json!(i64::MIN), Err(Reason::TokenExpired)),
        (json!(-1e300), Err(Reason::TokenExpired)),
        (Value::Null, Err(Reason::TokenClaimsInvalid)),
        (json!((NOW + 60).to_string()), Err(Reason::TokenClaimsInvalid)),
        (json!([NOW + 60]), Err(Reason::TokenClaimsInvalid)),
        (json!(true), Err(Reason::TokenClaimsInvalid)),
        (json!(1e18), Err(Reason::TokenClaimsInvalid)),
        (json!(1e300), Err(Reason::TokenClaimsInvalid)),
        (json!(u64::MAX), Err(Reason::TokenClaimsInvalid)),
        (json!(i64::MAX), Err(Reason::TokenClaimsInvalid)),
        (json!(NOW * 1000), Err(Reason::TokenClaimsInvalid)),
    ] {
        let answer = world
            .verify(&changed(&world, "exp", exp.clone()))
            .await
            .map(|_| ())
            .map_err(|error| error.reason());
        assert_eq!(answer, expected, "{exp}");
    }
    assert_eq!(world.refusal(&spelled(&world, r#""x":1e999"#)).await, Reason::TokenClaimsInvalid);
}

#[tokio::test]
async fn the_other_times_are_checked_where_present() {
    let world = World::new().await;
    for name in ["nbf", "iat"] {
        for (value, expected) in [
            (Value::Null, Ok(())),
            (json!(NOW + 60), Ok(())),
            (json!(-5), Ok(())),
            (json!(0.5), Ok(())),
            (json!(NOW + 61), Err(Reason::TokenNotYetValid)),
            (json!(u64::MAX), Err(Reason::TokenNotYetValid)),
            (json!(1e300), Err(Reason::TokenNotYetValid)),
            (json!("1"), Err(Reason::TokenClaimsInvalid)),
            (json!({}), Err(Reason::TokenClaimsInvalid)),
        ] {
            let answer = world
                .verify(&changed(&world, name, value.clone()))
                .await
                .map(|_| ())
                .map_err(|error| error.reason());
            assert_eq!(answer, expected, "{name} {value}");
        }
        assert_eq!(
            world.refusal(&spelled(&world, r#""nbf":null"#)).await,
            Reason::TokenClaimsInvalid
        );
    }
}

#[tokio::test]
async fn the_leeway_is_a_setting_of_five_minutes_at_most() {
    let world = World::with(|settings| settings.leeway = Duration::from_secs(3600)).await;
    assert!(world.verify(&changed(&world, "nbf", json!(NOW + 300))).await.is_ok());
    assert_eq!(
        world.refusal(&changed(&world, "nbf", json!(NOW + 301))).await,
        Reason::TokenNotYetValid
    );
}

#[tokio::test]
async fn duplicate_claims_are_refused_at_any_depth() {
    let world = World::new().await;
    for twice in [
        r#""sub":"repo:o/r""#,
        r#""exp":9999999999"#,
        r#""\u0073ub":"x""#,
        r#""a":1,"a":1"#,
        r#""x":{"a":1,"a":1}"#,
        r#""x":[{"a":{"b":1,"b":2}}]"#,
        r#""iss":"https://other.example""#,
    ] {
        assert_eq!(
            world.refusal(&spelled(&world, twice)).await,
            Reason::TokenClaimsInvalid,
            "{twice}"
        );
    }
    assert!(world.verify(&spelled(&world, r#""x":{"sub":"s","x":{"sub":1}}"#)).await.is_ok());
    let deep = format!(r#""x":{}{}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(world.refusal(&spelled(&world, &deep)).await, Reason::TokenClaimsInvalid);
}

#[tokio::test]
async fn subjects_are_text() {
    let world = World::new().await;
    for bad in
        [Value::Null, json!(5), json!(["s"]), json!(""), json!("a\nb"), json!("s".repeat(1025))]
    {
        assert_eq!(
            world.refusal(&changed(&world, "sub", bad.clone())).await,
            Reason::TokenClaimsInvalid,
            "{bad}"
        );
    }
    assert!(world.verify(&changed(&world, "sub", json!("s".repeat(1024)))).await.is_ok());
}

#[tokio::test]
async fn audiences_in_every_form() {
    let world = World::new().await;
    let odd = "a".repeat(513);
    for (aud, expected) in [
        (Value::Null, vec![]),
        (json!("me"), vec!["me"]),
        (json!(""), vec![]),
        (json!([]), vec![]),
        (json!(["me", "you"]), vec!["me", "you"]),
        (json!(["", 5, null, "me", odd, "a\u{0}", ["x"], "you"]), vec!["me", "you"]),
    ] {
        let token = world.verify(&changed(&world, "aud", aud.clone())).await.unwrap();
        let audiences: Vec<_> =
            token.audiences().iter().map(|audience| audience.as_str()).collect();
        assert_eq!(audiences, expected, "{aud}");
    }
    for bad in [json!(5), json!({"a": 1}), json!(true)] {
        assert_eq!(
            world.refusal(&changed(&world, "aud", bad.clone())).await,
            Reason::TokenClaimsInvalid,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn an_admission_is_for_one_issuer() {
    let world = World::new().await;
    let token = world.oidc.read(&world.token("k1")).unwrap();
    let other = Admission::by_gate(&world.fake.issuer("other"), &owner());
    assert_eq!(world.oidc.verify(&token, &other).await.unwrap_err(), Error::NotAdmitted);
    assert_eq!(world.fake.discoveries(), 0);
}

#[tokio::test]
async fn issuers_are_known_by_every_byte() {
    let world = World::with(|settings| {
        settings.configured = vec!["https://configured.example/x".parse().unwrap()]
    })
    .await;
    let known = |issuer: &str| {
        let token = KEYS.rsa.token(&header("RS256", "k1"), &json!({"iss": issuer}).to_string());
        world
            .oidc
            .known(&world.oidc.read(&token).unwrap())
            .unwrap()
            .map(|admission| admission.issuer().as_str().to_owned())
    };
    for issuer in [
        "https://accounts.google.com",
        "https://gitlab.com",
        "https://agent.buildkite.com",
        "https://app.terraform.io",
        "https://issuer.enforce.dev",
        "https://configured.example/x",
    ] {
        assert_eq!(known(issuer).as_deref(), Some(issuer));
    }
    for issuer in [
        "https://gitlab.com/",
        "https://gitlab.com.evil.example",
        "https://gitlab.com:443",
        "https://configured.example",
        "https://configured.example/x/",
    ] {
        assert_eq!(known(issuer), None, "{issuer}");
    }
    assert!(
        world.oidc.is_actions(&world.fake.issuer("actions"))
            && !world.oidc.is_actions(&"https://gitlab.com".parse().unwrap())
    );
}

#[test]
fn every_error_has_its_word_and_says_nothing_of_the_token() {
    for (error, reason) in [
        (Error::TooLarge(1), Reason::TokenTooLarge),
        (Error::Malformed("x"), Reason::TokenMalformed),
        (Error::Signature("x".into()), Reason::SignatureInvalid),
        (Error::Expired, Reason::TokenExpired),
        (
            Error::NotYetValid { claim: "nbf", leeway: Duration::from_secs(60) },
            Reason::TokenNotYetValid,
        ),
        (Error::Claims("x".into()), Reason::TokenClaimsInvalid),
        (Error::Unfit(Unfit::Algorithm("RS256")), Reason::TokenClaimsInvalid),
        (Error::NotListed, Reason::IssuerNotTrusted),
        (Error::NotAdmitted, Reason::IssuerNotTrusted),
    ] {
        assert_eq!((error.reason(), error.retry_after()), (reason, None));
    }
    let error = Error::Unavailable { cause: Fault::TooSlow, retry_after: Duration::ZERO };
    assert_eq!(
        (error.reason(), error.retry_after()),
        (Reason::IssuerUnavailable, Some(Duration::from_secs(1)))
    );
}
