//! What the file may say, and how its errors are reported.

use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;
use crate::{
    oidc::tests::fixture::{KEYS, b64},
    oidc::{Replay, algorithm::Algorithm},
    tests::Folder,
};

struct Cluster {
    folder: Folder,
    file: IssuersFile,
}

/// A folder with a CA, a token, keys, and a pod's credential.
fn cluster() -> Cluster {
    let folder = Folder::new();
    let CertifiedKey { cert, .. } =
        generate_simple_self_signed(["api.internal".to_owned()]).unwrap();
    folder.file("ca.crt", &cert.pem());
    let claims =
        serde_json::json!({"iss": "https://kubernetes.default.svc.cluster.local", "sub": "x"});
    folder.file(
        "token",
        &format!("{}.{}.c2ln\n", b64(r#"{"alg":"RS256"}"#), b64(claims.to_string())),
    );
    folder.file("keys.json", &serde_json::json!({"keys": [KEYS.rsa.named("k1")]}).to_string());
    folder.file("empty", " \n");
    folder.file("junk", "junk");
    let pod = Pod { api_server: Some(("10.0.0.1".into(), 6443)), folder: folder.path().to_owned() };
    let file = IssuersFile { path: folder.path().join("issuers.yaml"), pod, plain_http: false };
    Cluster { folder, file }
}

impl Cluster {
    fn load(&self, text: &str) -> Result<ListedIssuers, String> {
        self.folder.file("issuers.yaml", text);
        self.file.load().map_err(|invalid| invalid.to_string())
    }

    fn refuses(&self, text: &str, words: &str) {
        let said = self.load(text).map(drop).unwrap_err();
        assert!(said.contains(words), "{text}\n  said {said}\n  not  {words}");
    }
}

#[test]
fn an_entry_has_every_field_of_the_contract() {
    let cluster = cluster();
    let listed = cluster
        .load(
            "issuers:
  - issuer: https://k8s.internal:6443
    jwks_uri: https://10.0.0.1:6443/openid/v1/jwks
    ca_file: ca.crt
    bearer_token_file: token
    private_network: true
    proxy: false
    algorithms: [RS256]
    max_lifetime: 1h
    max_age: 10m
    require_jti: false
    require_claims: [kubernetes.io/pod]
    replay: warn
  - in_cluster: true
only_listed: false
",
        )
        .unwrap();
    let [entry, own] = listed.entries.as_slice() else { panic!("{listed:?}") };
    assert_eq!(entry.issuer.as_str(), "https://k8s.internal:6443");
    let KeysFrom::Address(uri, reach) = &entry.keys else { panic!("{entry:?}") };
    assert_eq!(uri, "https://10.0.0.1:6443/openid/v1/jwks");
    assert!(reach.private_network && reach.roots.is_some() && !reach.proxy);
    assert_eq!(reach.bearer, Some(cluster.folder.path().join("token")));
    let rules = Rules {
        algorithms: Some(vec![Algorithm::Rs256]),
        max_lifetime: Some(Duration::from_secs(3600)),
        max_age: Some(Duration::from_secs(600)),
        require_jti: false,
        require_claims: vec!["kubernetes.io/pod".into()],
        replay: Some(Replay::Warn),
    };
    assert_eq!(*entry.rules, rules);
    assert_eq!(own.issuer.as_str(), "https://kubernetes.default.svc.cluster.local");
    let KeysFrom::Address(uri, reach) = &own.keys else { panic!("{own:?}") };
    assert_eq!(uri, "https://10.0.0.1:6443/openid/v1/jwks");
    assert!(reach.private_network && reach.roots.is_some() && reach.bearer.is_some());
    assert!(!listed.only_listed);
    assert_eq!(cluster.file.load().unwrap(), listed);
}

#[test]
fn keys_can_be_written_down() {
    let cluster = cluster();
    let beside = cluster
        .load("issuers:\n  - issuer: https://a.internal\n    jwks_file: keys.json\n")
        .unwrap();
    assert!(matches!(beside.entries[0].keys, KeysFrom::Fixed(_)));
    let inline = serde_json::json!({"keys": [KEYS.p256.named("k1"), {"kty": "oct", "k": "x"}]});
    let inline = cluster
        .load(&format!("issuers:\n  - issuer: https://a.internal\n    jwks: {inline}\n"))
        .unwrap();
    assert!(matches!(inline.entries[0].keys, KeysFrom::Fixed(_)));
    // Nothing is fetched, so it does not matter that the issuer could not be.
    assert!(
        cluster
            .load("issuers:\n  - issuer: http://127.0.0.1:1\n    jwks_file: keys.json\n")
            .is_ok()
    );
}

#[test]
fn an_issuer_that_only_the_operator_can_reach_is_single_tenant_unless_the_entry_says_otherwise() {
    let cluster = cluster();
    for (entry, expected) in [
        ("issuer: https://a.internal", false),
        ("{issuer: https://a.internal, jwks_uri: https://b.internal/}", false),
        ("{issuer: https://a.internal, bearer_token_file: token}", false),
        ("{issuer: https://a.internal, single_tenant: true}", true),
        ("{issuer: https://a.internal, private_network: true}", true),
        ("{issuer: https://a.internal, ca_file: ca.crt}", true),
        ("{issuer: https://a.internal, jwks_file: keys.json}", true),
        ("{issuer: https://a.internal, jwks_file: keys.json, single_tenant: false}", false),
        ("in_cluster: true", true),
        ("{in_cluster: true, single_tenant: false}", false),
    ] {
        let listed = cluster.load(&format!("issuers:\n  - {entry}\n")).unwrap();
        assert_eq!(listed.entries[0].is_single_tenant, expected, "{entry}");
    }
    let pattern = "issuers:\n  - issuer_pattern: https://a\\.internal\n    single_tenant: true\n";
    cluster.refuses(pattern, "expected an entry with `issuer`");
}

#[test]
fn a_pattern_only_admits() {
    let cluster = cluster();
    let listed = cluster.load(
        "issuers:\n  - issuer_pattern: https://oidc\\.eks\\.[a-z0-9-]+\\.amazonaws\\.com/id/[0-9A-F]+\n    max_lifetime: 1h\n",
    );
    assert_eq!(listed.unwrap().patterns.len(), 1);
    for more in [
        "jwks_uri: https://a/k",
        "jwks_file: keys.json",
        "ca_file: ca.crt",
        "private_network: false",
        "proxy: true",
    ] {
        let text = format!("issuers:\n  - issuer_pattern: https://a\n    {more}\n");
        cluster.refuses(&text, "line 3");
        cluster.refuses(&text, "only admits");
    }
    cluster.refuses("issuers:\n  - issuer_pattern: https://.*\\.internal\n", "can match `/`");
    cluster.refuses("issuers:\n  - issuer_pattern: https:/+a\n", "`/` stands under");
    cluster.refuses("issuers:\n  - issuer_pattern: ''\n", "not empty");
}

#[test]
fn mistakes_are_told_where_they_stand_and_never_repeat_the_file() {
    let cluster = cluster();
    let entry = |more: &str| format!("issuers:\n  - issuer: https://secret.internal\n    {more}\n");
    for (text, words) in [
        ("".to_owned(), "the file is empty"),
        ("only_listed: true\n".into(), "`issuers` is missing"),
        ("issuers: []\n".into(), "line 1, column 10: `issuers` has 1 to 256 entries"),
        ("issuers:\n".into(), "line 1"),
        ("issuers:\n  - {}\n".into(), "line 2, column 5: an entry has one of"),
        ("issuers: [{issuer: https://a, in_cluster: true}]\n".into(), "an entry has one of"),
        ("issuers: [{in_cluster: false}]\n".into(), "is `true`, or is left out"),
        ("issuers: [{issuer: https://a}, {issuer: https://a}]\n".into(), "another entry has this issuer"),
        (
            "issuers: [{in_cluster: true}, {issuer: https://kubernetes.default.svc.cluster.local}]\n".into(),
            "another entry",
        ),
        ("issuers: [{in_cluster: true, ca_file: ca.crt}]\n".into(), "from the pod"),
        ("issuers: [{issuer: secret}]\n".into(), "line 1, column 20: an issuer starts with https://"),
        ("issuers: [{issuer: http://secret.internal}]\n".into(), "an issuer without TLS is on loopback"),
        ("issuers: [{issuer: http://127.0.0.1:1}]\n".into(), "needs `private_network`"),
        (entry("jwks_url: https://a"), "line 3, column 5: unknown key; did you mean `jwks_uri`"),
        (entry("only_listed: true"), "unknown key"),
        (entry("private_network: yes"), "put it in quotes"),
        (entry("private_network: 'true'"), "a boolean is expected here"),
        (entry("private_network: null"), "line 3, column 22"),
        (entry("ca_file: ''"), "line 3, column 14: the name of a file"),
        (entry("ca_file: secret.crt"), "line 3, column 14: the file cannot be read"),
        (entry("ca_file: junk"), "no certificate in PEM form"),
        (entry("bearer_token_file: empty"), "the file is empty"),
        (entry("bearer_token_file: secret"), "the file cannot be read"),
        (entry("jwks_uri: secret"), "line 3, column 15: a URL such as"),
        (entry("jwks_uri: https://secret@a/k"), "a URL such as"),
        (entry("jwks_uri: ftp://secret/k"), "a URL such as"),
        (entry("jwks_uri: http://secret.internal/k"), "keys without TLS"),
        (entry("jwks_uri: http://127.0.0.1/k"), "keys without TLS"),
        (entry("jwks_uri: http://secret.internal/k\n    private_network: true"), "keys without TLS"),
        (entry("{jwks_uri: https://a/k, jwks_file: keys.json}"), "line 3"),
        (entry("jwks_uri: https://a/k\n    jwks_file: keys.json"), "one of `jwks_uri`, `jwks_file` and `jwks`"),
        (entry("jwks: {keys: []}\n    jwks_file: keys.json"), "one of `jwks_uri`, `jwks_file` and `jwks`"),
        (entry("jwks: {keys: []}"), "line 3, column 11: none of these keys"),
        (entry("jwks: {keys: [{kty: oct, k: secret}]}"), "none of these keys"),
        (entry("jwks: secret"), "not a JSON Web Key Set"),
        (entry("jwks_file: junk"), "not a JSON Web Key Set"),
        (entry("jwks_file: keys.json\n    ca_file: ca.crt"), "line 4, column 14: keys that are written down"),
        (entry("jwks_file: keys.json\n    private_network: true"), "keys that are written down"),
        (entry("algorithms: []"), "at least one algorithm"),
        (entry("algorithms: [HS256]"), "line 3, column 18: expected RS256"),
        (entry("algorithms: [none]"), "expected RS256"),
        (entry("max_lifetime: 1 hour"), "a duration such as"),
        (entry("max_lifetime: 0s"), "a duration such as"),
        (entry("max_lifetime: 9000h"), "a duration such as"),
        (entry("max_age: -1h"), "a duration such as"),
        (entry("require_jti: 1"), "a boolean is expected here"),
        (entry("replay: once"), "line 3, column 13: expected \"off\" (in quotes), warn or enforce"),
        (entry("require_claims: []"), "1 to 64 names"),
        (entry("require_claims: ['']"), "the name of a claim"),
        (entry("require_claims: a"), "line 3"),
    ] {
        cluster.refuses(&text, words);
        assert!(!cluster.load(&text).unwrap_err().contains("secret"), "{text}");
    }
}

#[test]
fn a_cluster_of_ones_own_needs_a_pod() {
    let mut cluster = cluster();
    let text = "issuers: [{in_cluster: true}]\n";
    cluster.file.pod.api_server = Some(("fd00::1".into(), 443));
    let KeysFrom::Address(uri, _) = cluster.load(text).unwrap().entries[0].keys.clone() else {
        panic!()
    };
    assert_eq!(uri, "https://[fd00::1]:443/openid/v1/jwks");
    cluster.folder.file("token", "junk");
    cluster.refuses(text, "the pod's token");
    cluster.folder.file("ca.crt", "junk");
    cluster.refuses(text, "the pod's ca.crt");
    cluster.file.pod.folder = cluster.folder.path().join("none");
    cluster.refuses(text, "the pod's token cannot be read");
    cluster.file.pod.api_server = None;
    cluster.refuses(text, "this is not a pod");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let cluster = cluster();
    cluster.folder.file("keys.json", &" ".repeat((1 << 20) + 1));
    cluster.refuses("issuers: [{issuer: https://a, jwks_file: keys.json}]\n", "larger than 1 MiB");
    cluster.refuses(
        &format!("issuers: [{{issuer: https://a}}]\n{}", " ".repeat(64 << 10)),
        "larger than 64 KiB",
    );
}
