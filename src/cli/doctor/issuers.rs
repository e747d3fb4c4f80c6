//! The issuers that are known, and whether their keys can be had.

use super::{super::Exit, finding::Finding};
use crate::{
    clock::UnixTime,
    egress,
    oidc::{Diagnosis, Fault, IssuerKind, UsableKeys},
};

const BY_ANYBODY: &str = "give the issuer a `bearer_token_file` in the issuers file, or let anybody read its discovery and keys \
    (in Kubernetes: bind the cluster role `system:service-account-issuer-discovery` to `system:unauthenticated`)";

/// What there is to say of one issuer. That a built-in one cannot be reached is no fault of a
/// server whose callers do not use it.
pub(super) fn tell(diagnosis: &Diagnosis, now: UnixTime) -> Finding {
    let what = format!("issuer {}", diagnosis.issuer);
    let finding = match &diagnosis.keys {
        Ok(keys) => match keys.ending(now).next() {
            Some((id, end)) => {
                let words = format!(
                    "{}; the key {id:?} ends, or has ended, at {}",
                    in_words(keys),
                    end.rfc3339()
                );
                Finding::warn(
                    what,
                    words,
                    "put the issuer's new key where this one is, before it ends",
                )
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

fn in_words(UsableKeys { are_fixed, usable, unusable, algorithms, .. }: &UsableKeys) -> String {
    let others =
        if *unusable > 0 { format!(", and {unusable} that cannot be used") } else { String::new() };
    let algorithms = if algorithms.is_empty() {
        "no algorithm that it lists".to_owned()
    } else {
        algorithms.join(", ")
    };
    let source = if *are_fixed { ", supplied by the operator" } else { "" };
    format!(
        "has {usable} key{} for {algorithms}{others}{source}",
        if *usable == 1 { "" } else { "s" }
    )
}

fn explain(fault: Fault, diagnosis: &Diagnosis) -> (Exit, String, String) {
    match fault {
        Fault::Discovery(error) | Fault::Keys(error) => of_fetch(fault, error),
        Fault::OtherIssuer | Fault::Template => {
            let other = diagnosis.other.as_deref().unwrap_or("unknown");
            let words = format!("{fault}: {other}");
            let todo = "configure the issuer as its tokens have it in `iss`, to the letter: scheme, case, slash at the end";
            (Exit::Refused, words, todo.to_owned())
        }
        Fault::NotDiscovery(_) | Fault::NotKeys(_) => {
            let todo = "open ISSUER/.well-known/openid-configuration from this machine and look at the answer";
            (Exit::Unavailable, fault.to_string(), todo.to_owned())
        }
        Fault::InsecureKeys => {
            let todo = "correct the issuer's `jwks_uri`, or give the keys' address in `jwks_uri` of the issuers file";
            (Exit::Refused, fault.to_string(), todo.to_owned())
        }
        Fault::NoKeys => {
            let todo = "it needs an RSA key of 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519, without `use: enc`";
            (Exit::Unavailable, fault.to_string(), todo.to_owned())
        }
        Fault::Bearer => {
            let todo = "correct the entry's `bearer_token_file`: a readable file with one token";
            (Exit::Usage, fault.to_string(), todo.to_owned())
        }
        Fault::TooSlow => (Exit::Unavailable, fault.to_string(), SLOW.to_owned()),
        Fault::Interrupted | Fault::UnknownKey => {
            (Exit::Internal, fault.to_string(), "report it".to_owned())
        }
    }
}

const SLOW: &str =
    "see what is slow on the way there from this machine; an exchange waits for 5 s too";

/// A fetch failed. The words are those that callers get.
fn of_fetch(fault: Fault, error: egress::Error) -> (Exit, String, String) {
    let (exit, todo) = match error {
        egress::Error::Status(401 | 403) => (Exit::Refused, BY_ANYBODY),
        egress::Error::Status(404) => (
            Exit::Unavailable,
            "configure the issuer as its tokens have it in `iss`, to the letter",
        ),
        egress::Error::Status(300..=399) => (
            Exit::Unavailable,
            "redirects are not followed: configure the issuer as its tokens have it in `iss`; ask its operator why it redirects",
        ),
        egress::Error::Refused => (
            Exit::Refused,
            "the address is private or uses http: set OIDC_ALLOW_PRIVATE_NETWORKS=known or `private_network` in the issuers \
             file, if the issuer is meant to be on a private network; http is for loopback only",
        ),
        egress::Error::Certificate(_) => (
            Exit::Unavailable,
            "name the issuer's CA in `ca_file` of the issuers file, or add it to SSL_CERT_FILE; look at the certificate's \
             names and dates",
        ),
        egress::Error::Connect(_) => (
            Exit::Unavailable,
            "see whether the host's name resolves here and the port is open: DNS, NetworkPolicy, firewall",
        ),
        egress::Error::Timeout => (Exit::Unavailable, SLOW),
        egress::Error::Closed | egress::Error::Broken => (
            Exit::Unavailable,
            "open the address from this machine and see what answers: a proxy, another protocol?",
        ),
        egress::Error::Status(_)
        | egress::Error::Url
        | egress::Error::TooLarge
        | egress::Error::Encoding => (Exit::Unavailable, "ask the issuer's operator"),
    };
    (exit, fault.to_string(), todo.to_owned())
}
