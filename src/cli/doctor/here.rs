//! What can be seen without asking anybody: the configuration and the files that it names.

use std::time::Duration;

use super::{super::Exit, finding::Finding};
use crate::{
    clock::{Clock, UnixTime},
    config::{Config, Remark},
    transport::TlsFiles,
};

/// An error in the environment.
pub(super) fn error(Remark { variable, text }: &Remark) -> Finding {
    let todo = "correct it; `octo-sts serve --help` lists all variables";
    Finding::fail(Exit::Usage, "configuration", format_args!("{variable} {text}"), todo)
}

/// The findings of a configuration without errors.
pub(super) fn look(config: &Config, clock: &dyn Clock) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("configuration", "is complete and without errors")];
    let warn = |Remark { variable, text }: &Remark| {
        Finding::warn(
            "configuration",
            format_args!("{variable} {text}"),
            "look whether it is what you mean",
        )
    };
    findings.extend(config.warnings.iter().map(warn));
    findings.push(match &config.domain {
        Some(host) => domain(host.as_str()),
        None => Finding::ok("domain", "is not set: only the webhook is served"),
    });
    findings.push(config.listen.tls.as_ref().map_or_else(
        || Finding::ok("tls", "is not served; something in front should add it"),
        |files| certificate(files, clock.now()),
    ));
    if let Some((file, listed)) = &config.tokens.issuers_file {
        let only = if listed.only_listed() {
            "; no other issuer is taken, the built-in ones included"
        } else {
            ""
        };
        findings.push(Finding::ok(
            "issuers file",
            format_args!("{} has no errors{only}", file.path.display()),
        ));
    }
    if let Some(file) = config.denials.file() {
        let entries = config.denials.current().len();
        findings.push(Finding::ok(
            "deny file",
            format_args!("{} has no errors; entries: {entries}", file.path.display()),
        ));
    }
    findings
}

/// How long before its end a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The server's own certificate: that its key fits was seen when the configuration was read.
fn certificate(files: &TlsFiles, now: UnixTime) -> Finding {
    let todo = "renew the certificate and put it in the place of the old one; a running server takes it up";
    match files.ends_at() {
        Err(error) => Finding::fail(
            Exit::Usage,
            "tls",
            error,
            "correct STS_TLS_CERT_FILE and STS_TLS_KEY_FILE",
        ),
        Ok(end) if end <= now => Finding::fail(
            Exit::Usage,
            "tls",
            format_args!("the certificate ended at {}", end.rfc3339()),
            todo,
        ),
        Ok(end) if end < now.plus(WARN_BEFORE) => {
            Finding::warn("tls", format_args!("the certificate ends at {}", end.rfc3339()), todo)
        }
        Ok(end) => Finding::ok(
            "tls",
            format_args!("the certificate and its key fit, until {}", end.rfc3339()),
        ),
    }
}

/// `STS_DOMAIN` is an audience, which may be any text; but callers take it for a host.
fn domain(domain: &str) -> Finding {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let host = domain.split_once(':').map_or(domain, |(host, _port)| host);
    let is_host = host.contains('.') && host.split('.').all(is_label);
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if is_host && !is_address && domain.bytes().all(|b| !b.is_ascii_uppercase()) {
        Finding::ok("domain", format_args!("tokens are expected to have the audience {domain}"))
    } else {
        let words =
            format!("STS_DOMAIN is {domain}, which is not a host's name in lowercase with a dot");
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
