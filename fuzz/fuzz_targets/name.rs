//! Names: what is taken means one thing to us, to the URL libraries and to a file system.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use octo_sts::name::{AppId, Audience, Issuer, Owner, PolicyName, RepoName, Scope, Subject};
use octo_sts_fuzz::seed;

const SEEDS: &[&str] = &[
    "octo-org/hello",
    "nested/ci.v1",
    "...",
    "https://host.example:8443/realms/my%20realm+x:y/",
    "https://[2001:db8::1]:443/x",
    "https://a_b.xn--mnchen-3ya.de:080",
    "http://127.0.0.1:80/a~b",
    "http://localhost",
    "https://0x7f.1/",
    "https://1.2.3",
    "https://a/;p=(1),'!$&*@",
    "https://xn--/",
    "repo:octo-org/hello:environment:my env",
    "12345",
];

fuzz_target!(init: seed("name", SEEDS), |text: &str| {
    if let Ok(scope) = text.parse::<Scope>() {
        scope_is_its_text(&scope, text);
    }
    if let Ok(policy) = text.parse::<PolicyName>() {
        policy_is_one_file_of_its_folder(&policy);
    }
    if let Ok(issuer) = text.parse::<Issuer>() {
        assert_eq!(issuer.as_str(), text);
        issuer_is_one_place(&issuer);
    }
    if let Ok(subject) = text.parse::<Subject>() {
        assert_eq!(subject.as_str(), text);
    }
    if let Ok(audience) = text.parse::<Audience>() {
        assert_eq!(audience.as_str(), text);
    }
    if let Ok(app) = text.parse::<AppId>() {
        assert!(app.0 > 0);
    }
});

/// What is compared and cached is the text as given, but for its case, and it needs no escape in a
/// URL.
fn scope_is_its_text(scope: &Scope, text: &str) {
    assert_eq!(scope.to_string(), text);
    let segments: Vec<&str> = text.split('/').collect();
    assert_eq!(segments.len(), if scope.repo().is_some() { 2 } else { 1 });
    assert_eq!(text.to_ascii_uppercase().parse::<Scope>().as_ref(), Ok(scope));
    assert_eq!(scope.owner().as_str().parse::<Owner>().as_ref(), Ok(scope.owner()));
    if let Some(repo) = scope.repo() {
        assert_eq!(repo.as_str().parse::<RepoName>().as_ref(), Ok(repo));
    }
    let url = url::Url::parse(&format!("https://host/repos/{text}")).unwrap();
    assert_eq!(url.path(), format!("/repos/{text}"));
}

/// Whoever normalizes the path finds a file below the folder, under the very name.
fn policy_is_one_file_of_its_folder(policy: &PolicyName) {
    let path = policy.path();
    assert!(
        Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))),
        "{path}"
    );
    assert!(path.starts_with(".github/chainguard/") && path.ends_with(".sts.yaml"), "{path}");
    let url = url::Url::parse(&format!("https://host/{path}")).unwrap();
    assert_eq!(url.path(), format!("/{path}"));
    assert!(url.query().is_none() && url.fragment().is_none());
}

/// No library takes the issuer to another host, port or path than ours does, alone or with the
/// path of its discovery document.
fn issuer_is_one_place(issuer: &Issuer) {
    let text = issuer.as_str();
    let discovery = format!("{}/.well-known/openid-configuration", text.trim_end_matches('/'));
    for text in [text, &discovery] {
        let url = url::Url::parse(text).unwrap();
        let uri: http::Uri = text.parse().unwrap();
        assert_eq!(Some(url.scheme()), uri.scheme_str());
        assert!(url.username().is_empty() && url.password().is_none());
        assert!(url.query().is_none() && url.fragment().is_none() && uri.query().is_none());
        let rest = text.strip_prefix(issuer.origin()).unwrap();
        assert_eq!(uri.path(), if rest.is_empty() { "/" } else { rest });
        assert_eq!(url.path(), uri.path());
        let written = uri.host().unwrap();
        let same_address = || {
            let address =
                |host: &str| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().ok();
            address(written).is_some() && address(written) == address(url.host_str().unwrap())
        };
        assert!(url.host_str() == Some(written) || same_address(), "{url} {uri}");
        let default = if issuer.is_plain_http() { 80 } else { 443 };
        assert_eq!(url.port_or_known_default(), Some(uri.port_u16().unwrap_or(default)));
        assert_eq!(issuer.is_plain_http(), url.scheme() == "http");
    }
}
