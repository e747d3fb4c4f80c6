//! The issuers that are known, and whether their keys can be had.

use super::{super::Exit, finding::Finding};
use crate::{
    clock::UnixTime,
    egress,
    oidc::{Diagnosis, Fault, HeldKeys, IssuerKind},
};

const BY_ANYBODY: &str = "give the issuer a `bearer_token_file` in the issuers file, or let anybody read its discovery and keys \
    (in Kubernetes: bind the cluster role `system:service-account-issuer-discovery` to `system:unauthenticated`)";

/// What there is to say of one issuer. That a built-in one cannot be reached is no fault of a server
/// whose callers do not use it.
pub(super) fn tell(diagnosis: &Diagnosis, now: UnixTime) -> Finding {
    let what = format!("issuer {}", diagnosis.issuer);
    let finding = match &diagnosis.keys {
        Ok(HeldKeys { usable: 0, unusable, .. }) => {
            let words = format!("publishes no key that can verify a token, and {unusable} that cannot");
            Finding::fail(
                Exit::Unavailable,
                what,
                words,
                "it needs an RSA key of at least 2048 bits, P-256, P-384 or Ed25519",
            )
        }
        Ok(keys) => match keys.ending(now).next() {
            Some((id, end)) => {
                let words = format!("{}; the key {id:?} ends, or has ended, at {}", in_words(keys), end.rfc3339());
                Finding::warn(what, words, "put the issuer's new key where this one is, before it ends")
            }
            None => Finding::ok(what, in_words(keys)),
        },
        Err(fault) => {
            let (exit, words, todo) = explain(*fault, diagnosis);
            Finding::fail(exit, what, words, todo)
        }
    };
    if diagnosis.kind == IssuerKind::BuiltIn { finding.no_worse_than_a_warning() } else { finding }
}

fn in_words(HeldKeys { are_fixed, usable, unusable, algorithms, .. }: &HeldKeys) -> String {
    let others = if *unusable > 0 { format!(", and {unusable} that cannot be used") } else { String::new() };
    let algorithms =
        if algorithms.is_empty() { "no algorithm that it lists".to_owned() } else { algorithms.join(", ") };
    let source = if *are_fixed { ", as written down" } else { "" };
    format!("has {usable} key{} for {algorithms}{others}{source}", if *usable == 1 { "" } else { "s" })
}

fn explain(fault: Fault, diagnosis: &Diagnosis) -> (Exit, String, String) {
    match fault {
        Fault::Discovery(error) => of_fetch("its discovery document", error),
        Fault::Keys(error) => of_fetch("its key set", error),
        Fault::OtherIssuer => {
            let other = diagnosis.other.as_deref().unwrap_or("another issuer");
            let words = format!("the discovery document there is of {other}, not of {}", diagnosis.issuer);
            let todo =
                "configure the issuer as its tokens have it in `iss`, to the letter: scheme, case, slash at the end";
            (Exit::Refused, words, todo.to_owned())
        }
        Fault::NotDiscovery => no_such("what came is not a discovery document"),
        Fault::NotKeys => no_such("what came in the place of keys is not a key set"),
        Fault::Bearer => {
            let todo = "mend the entry's `bearer_token_file`: the file must be there, readable, and hold one token";
            (Exit::Usage, fault.to_string(), todo.to_owned())
        }
        Fault::TooSlow => slow("discovery and keys"),
        Fault::Interrupted | Fault::UnknownKey => (Exit::Internal, fault.to_string(), "report it".to_owned()),
    }
}

fn no_such(words: &str) -> (Exit, String, String) {
    let todo =
        "open ISSUER/.well-known/openid-configuration from this machine and see what answers: a login page, a proxy?";
    (Exit::Unavailable, words.to_owned(), todo.to_owned())
}

fn slow(what: &str) -> (Exit, String, String) {
    let todo = "see what is slow on the way there from this machine; tokens wait for it no longer either";
    (Exit::Unavailable, format!("{what} did not come within 5 s"), todo.to_owned())
}

fn of_fetch(what: &str, error: egress::Error) -> (Exit, String, String) {
    let unavailable = |words: String, todo: &str| (Exit::Unavailable, words, todo.to_owned());
    match error {
        egress::Error::Status(status @ (401 | 403)) => {
            (Exit::Refused, format!("{what} sits behind authentication (status {status})"), BY_ANYBODY.to_owned())
        }
        egress::Error::Status(404) => unavailable(
            format!("{what} is not there (status 404)"),
            "configure the issuer as its tokens have it in `iss`, to the letter",
        ),
        egress::Error::Status(status @ 300..=399) => unavailable(
            format!("{what} is redirected (status {status}), which is not followed"),
            "configure the issuer as its tokens have it in `iss`; ask whoever runs it why it redirects",
        ),
        egress::Error::Status(status) => {
            unavailable(format!("{what} was answered with status {status}"), "ask whoever runs it")
        }
        egress::Error::Refused => (
            Exit::Refused,
            format!("{what} may not be fetched: the address is private, or is plain http"),
            "set OIDC_ALLOW_PRIVATE_NETWORKS=known, if it is meant to be on a private network; http is for loopback alone"
                .to_owned(),
        ),
        egress::Error::Certificate => unavailable(
            format!("{what}: the server's certificate does not lead to a CA that is trusted here, or is not its own"),
            "name the issuer's CA in `ca_file` of the issuers file, or add it to SSL_CERT_FILE; look at the certificate's \
                names and dates",
        ),
        egress::Error::Connect => unavailable(
            format!("{what}: no connection"),
            "see whether the host's name resolves here and the port is open: DNS, NetworkPolicy, firewall",
        ),
        egress::Error::Timeout => slow(what),
        egress::Error::Url => unavailable(format!("{what} is at an address that is none"), "ask whoever runs it"),
        egress::Error::TooLarge => unavailable(format!("{what} is larger than 256 KiB"), "ask whoever runs it"),
        egress::Error::Broken => no_such(&format!("{what}: the answer broke off, or is not HTTP")),
    }
}
