//! What an issuer publishes: an issuer that the gate admits is a stranger's.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use octo_sts::{
    emulator::Alg,
    oidc::{
        Unverified,
        fuzzing::{is_discovery, verifies},
    },
};
use octo_sts_fuzz::{WORLD, seed};
use serde_json::json;

const ALGORITHMS: [Alg; 4] = [Alg::Rs256, Alg::Es256, Alg::Es384, Alg::EdDsa];

/// One of each family, with and without a key id.
static TOKENS: LazyLock<Vec<Unverified>> = LazyLock::new(|| {
    let read = |text: String| WORLD.oidc.read(&text).unwrap();
    let sign = |alg: Alg| {
        let foreign = WORLD.issuer.at("/foreign");
        foreign.rotate(alg);
        let claims = json!({"sub": "s"});
        [
            foreign.sign_with(&json!({"kid": "k"}), &claims),
            foreign.sign_with(&json!({"kid": null}), &claims),
        ]
        .map(read)
    };
    ALGORITHMS.into_iter().flat_map(sign).collect()
});

fn seeds() {
    let published = WORLD.issuer.at("/published");
    ALGORITHMS.into_iter().for_each(|alg| drop(published.add_key(alg)));
    let keys = published.jwks();
    let one = keys["keys"].as_array().unwrap().iter().map(|key| json!({"keys": [key]}).to_string());
    let renamed = one.clone().map(|text| {
        let mut keys: serde_json::Value = serde_json::from_str(&text).unwrap();
        keys["keys"][0]["kid"] = json!("k");
        keys.to_string()
    });
    seed("keys", one.chain(renamed).chain([keys.to_string()]));
    let listed = r#"{"issuer":"https://a","jwks_uri":"https://a/k","id_token_signing_alg_values_supported":["RS256"]}"#;
    seed("keys", [listed, r#"{"issuer":"https://a/","jwks_uri":"http://[::1]:1/k?x#y"}"#]);
    seed(
        "keys",
        [
            r#"{"keys":[{"kty":"oct","k":"YQ","kid":"k"},{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k"}]}"#,
        ],
    );
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    is_discovery(bytes);
    for token in TOKENS.iter() {
        assert_ne!(verifies(bytes, token), Some(true), "the key is not in any corpus");
    }
});
