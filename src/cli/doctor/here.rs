//! What can be seen without asking anybody: the configuration and the files that it names.

use super::{super::Exit, finding::Finding};
use crate::{
    clock::Clock,
    config::{Config, Remark},
};

/// A mistake in the environment.
pub(super) fn mistake(Remark { variable, text }: &Remark) -> Finding {
    let todo = "correct it; `octo-sts serve --help` lists all variables";
    Finding::fail(Exit::Usage, "configuration", format_args!("{variable} {text}"), todo)
}

/// What there is to say of a configuration without mistakes.
pub(super) fn look(config: &Config, _clock: &dyn Clock) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("configuration", "is complete and without mistakes")];
    let warn = |Remark { variable, text }: &Remark| {
        Finding::warn("configuration", format_args!("{variable} {text}"), "look whether it is what you mean")
    };
    findings.extend(config.warnings.iter().map(warn));
    findings.push(domain(config.domain.as_str()));
    findings.push(match &config.listen.tls {
        Some(files) => match files.check() {
            Ok(()) => Finding::ok("tls", format_args!("{} and its key fit", files.certificate.display())),
            Err(error) => Finding::fail(Exit::Usage, "tls", error, "correct STS_TLS_CERT_FILE and STS_TLS_KEY_FILE"),
        },
        None => Finding::ok("tls", "is not served; something in front should add it"),
    });
    findings
}

/// `STS_DOMAIN` is an audience, which may be any text; but callers take it for a host.
fn domain(domain: &str) -> Finding {
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let host = domain.split_once(':').map_or(domain, |(host, _port)| host);
    let is_host = host.contains('.') && host.split('.').all(is_label);
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if is_host && !is_address && domain.bytes().all(|b| !b.is_ascii_uppercase()) {
        Finding::ok("domain", format_args!("tokens are expected to have the audience {domain}"))
    } else {
        let words = format!("STS_DOMAIN is {domain}, which is not a host's name in lowercase with a dot");
        let todo = "set it to the host by which callers reach the server, without https:// and path: it is the \
            audience that tokens must have, to the letter";
        Finding::warn("domain", words, todo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_hosts_name() {
        for (text, is_ok) in [
            ("sts.example.com", true),
            ("sts-1.internal", true),
            ("https://sts.example.com", false),
            ("sts.example.com/", false),
            ("sts.example.com:8080", true),
            ("STS.example.com", false),
            ("localhost", false),
            ("10.0.0.1", false),
            ("sts..com", false),
        ] {
            let is_shown = format!("{:?}", domain(text)).contains("level: Ok");
            assert_eq!(is_shown, is_ok, "{text}");
        }
    }
}
