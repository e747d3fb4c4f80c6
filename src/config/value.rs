//! What the value of a variable may be. The error of each function says what is expected, as the
//! rest of a sentence that starts with the variable's name, and never repeats the value.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use url::{Host, Url};

use super::GitHub;
use crate::{
    clock,
    egress::Origin,
    github::KmsProvider,
    name::{AppId, Audience, Issuer, Owner, RepoName, is_loopback},
};

/// A value, or what is expected instead.
pub(crate) type Parsed<T> = Result<T, String>;

/// A TCP port.
pub(super) fn port(text: &str) -> Parsed<u16> {
    if text.starts_with("tcp://") {
        return Err("holds an address that Kubernetes sets for a service of that name: \
                    set the variable in the pod's manifest, or enableServiceLinks to false"
            .to_owned());
    }
    go_integer(text)
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| format!("must be a whole number from 0 to {}", u16::MAX))
}

/// A whole number within `range`, which must fit the type.
pub(super) fn whole<T: FromStr>(text: &str, range: RangeInclusive<u64>) -> Parsed<T> {
    let fits = text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse().is_ok_and(|number| range.contains(&number));
    text.parse()
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
}

/// A switch, in the spellings that Go's `strconv.ParseBool` accepts.
pub(super) fn switch(text: &str) -> Parsed<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// One of several words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Parsed<T> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("must be {}", words.join(" or "))
    })
}

/// A span of time as Go writes it (`90s`, `1h30m`, `1.5s`), within `range`.
pub(crate) fn duration(text: &str, range: RangeInclusive<Duration>) -> Parsed<Duration> {
    clock::parse_duration(text).filter(|duration| range.contains(duration)).ok_or_else(|| {
        let least = clock::in_words(*range.start());
        let most = clock::in_words(*range.end());
        format!("must be a duration such as 90s or 1h30m, from {least} to {most}")
    })
}

/// The parts of a comma separated list, without white space and empty ones.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// The ids of the Apps, separated by commas.
pub(super) fn app_ids(text: &str) -> Parsed<Vec<AppId>> {
    let id = |text: &str| {
        let id = go_integer(text.trim()).filter(|id| *id > 0).map(AppId);
        id.ok_or_else(|| {
            "must be the ids of the Apps, positive numbers separated by commas".to_owned()
        })
    };
    text.split(',').map(id).collect()
}

/// A number of calls to GitHub.
pub(super) fn quota(text: &str) -> Parsed<u64> {
    go_integer(text).ok_or_else(|| "must be a whole number of 0 or more".to_owned())
}

/// A span of time as Go writes it, of any length but zero.
pub(super) fn span(text: &str) -> Parsed<Duration> {
    clock::parse_duration(text.strip_prefix('+').unwrap_or(text))
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be a duration such as 90s or 1h30m, longer than zero".to_owned())
}

/// A key management service.
pub(super) fn kms_provider(text: &str) -> Parsed<KmsProvider> {
    word(
        &text.to_ascii_lowercase(),
        &[("gcp", KmsProvider::Gcp), ("aws", KmsProvider::Aws), ("akv", KmsProvider::Azure)],
    )
}

/// An integer that is not negative, as Go's `strconv.ParseInt` reads it with base 0: `0x`, `0o`, `0b`
/// or a leading `0` set the base, and `_` may separate digits.
fn go_integer(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix, has_prefix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16, true),
        [b'0', b'o' | b'O', ..] => (text.get(2..)?, 8, true),
        [b'0', b'b' | b'B', ..] => (text.get(2..)?, 2, true),
        [b'0', _, ..] => (text.get(1..)?, 8, true),
        _ => (text, 10, false),
    };
    // An underscore stands between two digits, or between the prefix and a digit.
    let is_separated = !digits.ends_with('_') && !digits.contains("__");
    if !is_separated || (digits.starts_with('_') && !has_prefix) {
        return None;
    }
    let digits = digits.replace('_', "");
    let are_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    let number = if are_digits { u64::from_str_radix(&digits, radix).ok() } else { None };
    number.filter(|number| i64::try_from(*number).is_ok())
}

/// The server's own host name, as tokens carry it in their audience.
pub(super) fn domain(text: &str) -> Parsed<Audience> {
    if text.contains("://") {
        return Err("must be a host without scheme, such as octo-sts.example.com".to_owned());
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let fits = text.len() <= 253
        && host.split('.').all(label)
        && port.is_none_or(|port| whole::<u16>(port, 1..=u16::MAX.into()).is_ok());
    let domain = if fits { text.parse().ok() } else { None };
    domain.ok_or_else(|| "must be a host, such as octo-sts.example.com".to_owned())
}

/// The repository of an organization's own policies.
pub(super) fn policy_repo(text: &str) -> Parsed<RepoName> {
    text.parse().map_err(|_| "must be the name of a repository, without its owner".to_owned())
}

/// Exact issuers. Without TLS only on loopback, where private addresses are allowed.
pub(super) fn issuers(text: &str, private: bool) -> Parsed<Vec<Issuer>> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for (index, part) in list(text).enumerate() {
        let place = index + 1;
        let issuer: Issuer = part
            .parse()
            .map_err(|error| format!("must be a list of issuers; entry {place}: {error}"))?;
        if issuer.is_plain_http() && !private {
            return Err(format!(
                "has entry {place} without TLS, which needs OIDC_ALLOW_PRIVATE_NETWORKS=known"
            ));
        }
        if !issuers.contains(&issuer) {
            issuers.push(issuer);
        }
    }
    Ok(issuers)
}

/// Owners on GitHub, at least one: a list that names none would refuse every exchange.
pub(super) fn owners(text: &str) -> Parsed<Vec<Owner>> {
    let read = |(index, part): (usize, &str)| {
        part.parse()
            .map_err(|error| format!("must be a list of owners; entry {}: {error}", index + 1))
    };
    let owners = list(text).enumerate().map(read).collect::<Parsed<Vec<Owner>>>()?;
    if owners.is_empty() {
        Err("must name at least one owner, comma separated".to_owned())
    } else {
        Ok(owners)
    }
}

/// The address of a sink of events.
pub(super) fn sink(text: &str) -> Parsed<http::Uri> {
    let uri = text.parse::<http::Uri>().ok();
    let is_http = |uri: &http::Uri| matches!(uri.scheme_str(), Some("https" | "http"));
    uri.filter(is_http).ok_or_else(|| "must be a URL, https:// or http://".to_owned())
}

/// Names of permissions, spelled as GitHub's API spells them.
pub(super) fn permissions(text: &str) -> Parsed<Vec<String>> {
    let fits = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if list(text).all(fits) {
        Ok(list(text).map(str::to_owned).collect())
    } else {
        Err("must be names of permissions with underscores, such as organization_secrets, comma separated".to_owned())
    }
}

/// A proxy that is reached without TLS, as `http://HOST:PORT`; the scheme may be left out. It may
/// hold credentials.
pub(super) fn proxy(text: &str) -> Parsed<String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&text).ok().filter(|url| url.scheme() == "http");
    url.filter(|url| matches!(url.path(), "" | "/") && url.query().is_none())
        .map(|_| text.trim_end_matches('/').to_owned())
        .ok_or_else(|| {
            "must be the URL of an HTTP proxy, such as http://proxy.example.com:3128".to_owned()
        })
}

/// The root of GitHub's API, and what follows from it.
pub(super) fn github(text: &str) -> Parsed<GitHub> {
    let expected = || "must be the URL of GitHub's API, such as https://HOST/api/v3".to_owned();
    let url = Url::parse(text).map_err(|_| expected())?;
    let host = url.host_str().ok_or_else(expected)?;
    let loopback = is_loopback(host);
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err("must start with https:// (http:// is for loopback only)".to_owned()),
        _ => return Err(expected()),
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("must be a URL without credentials, query and fragment".to_owned());
    }
    if host == "github.com" || (host.ends_with(".ghe.com") && !host.starts_with("api.")) {
        return Err(format!("must name the API, not the web site: https://api.{host}"));
    }
    let name = host.strip_prefix("api.").unwrap_or(host);
    let cloud = matches!(url.host(), Some(Host::Domain(_)))
        && (name == "github.com" || name.ends_with(".ghe.com"));
    let actions = match name {
        "github.com" => "https://token.actions.githubusercontent.com".to_owned(),
        tenant if cloud => format!("https://token.actions.{tenant}"),
        server => format!("https://{server}/_services/token"),
    };
    let api: http::Uri = url.as_str().trim_end_matches('/').parse().map_err(|_| expected())?;
    Ok(GitHub {
        host: name.to_owned(),
        actions_issuer: actions.parse().map_err(|_| expected())?,
        private_origin: if cloud { None } else { Origin::of(&api) },
        api,
    })
}
