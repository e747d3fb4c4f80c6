//! Bearer tokens: as they come, and as signed by a key that is cached. An input is a token's
//! claims, or its header, a line break and its claims; both are signed as they stand.
#![no_main]

use libfuzzer_sys::fuzz_target;
use octo_sts::{clock::UnixTime, oidc::fuzzing::verify_with_cached_keys};
use octo_sts_fuzz::{WORLD, seed};
use serde_json::{Map, Value};

const CLAIMS: &[&str] = &[
    r#"{"iss":"${ACTIONS}","sub":"s","aud":"a","exp":1800000300,"nbf":1800000000,"iat":1800000000}"#,
    r#"{"iss":"${ACTIONS}","sub":"s","aud":["a","",7],"exp":1.8e9,"jti":"x","n":{"a":[1,-1.5,null,true,"\u00e9"]}}"#,
    r#"{"iss":"${ACTIONS}","sub":"s","exp":253402300799,"iss":"https://a","sub":"t"}"#,
];
const HEADERS: &[&str] = &[
    r#"{"alg":"EdDSA","kid":"${KID}","typ":"JWT"}"#,
    r#"{"alg":"EdDSA","typ":"at+jwt","jwk":{"kty":"oct","k":"YQ"},"jku":"https://a","x5c":[]}"#,
    r#"{"alg":"none"}"#,
    r#"{"alg":"HS256","crit":["b64"],"b64":false,"cty":"JWT","zip":"DEF","enc":"A128GCM"}"#,
];

fn seeds() {
    let pairs = HEADERS
        .iter()
        .flat_map(|header| CLAIMS.iter().map(move |claims| format!("{header}\n{claims}")));
    let base =
        include_str!("../../tests/corpus/base-claims.json").split_whitespace().collect::<String>();
    seed("token", pairs.chain(CLAIMS.iter().map(|claims| (*claims).to_owned())).chain([base]));
    seed("token", ["a.b.c", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EifQ.YQ"]);
}

fuzz_target!(init: seeds(), |input: &str| {
    if let Ok(read) = WORLD.oidc.read(input) {
        assert!(verify_with_cached_keys(&WORLD.oidc, &read).is_none(), "nobody signed this");
    }
    let own = WORLD.issuer.header();
    let (header, claims) = match input.split_once('\n') {
        Some((header, claims)) => (header.replace("${KID}", own["kid"].as_str().unwrap()), claims),
        None => (own.to_string(), input),
    };
    let claims = WORLD.fill(claims);
    let token = WORLD.issuer.sign_text(&header, &claims);
    let Ok(read) = WORLD.oidc.read(&token) else { return };
    let Some(verified) = verify_with_cached_keys(&WORLD.oidc, &read) else { return };

    let header: Map<String, Value> = serde_json::from_str(&header).unwrap();
    assert_eq!(header["alg"], "EdDSA");
    assert!(["crit", "b64", "zip", "enc", "cty"].iter().all(|name| !header.contains_key(*name)));
    let claims: Map<String, Value> = serde_json::from_str(&claims).unwrap();
    assert_eq!(*verified.claims(), claims, "readers that take the last of two agree");
    assert_eq!(verified.issuer().as_str(), WORLD.issuer.url());
    assert_eq!(claims["iss"], verified.issuer().as_str());
    assert_eq!(claims["sub"], verified.subject().as_str());
    assert!(verified.expires_at() > WORLD.now.minus(std::time::Duration::from_secs(60)));
    assert!(verified.expires_at() < UnixTime::from_secs(253_402_300_800));
    assert!(!verified.expires_at().rfc3339().is_empty());
    every_change_is_seen(&token);
});

/// Another letter anywhere, and no cached key verifies the token.
fn every_change_is_seen(token: &str) {
    let at = token.len() / 2;
    for at in [0, at, token.len() - 1] {
        let mut changed = token.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let verified = WORLD
            .oidc
            .read(&changed)
            .ok()
            .and_then(|read| verify_with_cached_keys(&WORLD.oidc, &read));
        assert!(verified.is_none(), "{token} {changed}");
    }
}
