//! The names of the domain, each parsed once, at the edge.
//!
//! Everything here comes from strangers: a request, a token, a policy file. A value of one of
//! these types is proof that its text obeyed the contract, so no later step checks it again.
//! GitHub compares owners and repositories without ASCII case; so do [`Owner`] and [`RepoName`],
//! which keep the text as first given for GitHub and compare by its lowercase form.

use std::{borrow::Borrow, fmt, hash::Hash, net::IpAddr, str::FromStr};

/// Why a text is not the name it should be. The text itself is not repeated: an unverified caller may have sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(&'static str);

/// A name that keeps its spelling and compares by its ASCII lowercase form.
#[derive(Clone)]
struct Folded {
    given: Box<str>,
    key: Box<str>,
}

impl Folded {
    fn new(given: &str) -> Self {
        Self { given: given.into(), key: given.to_ascii_lowercase().into() }
    }
}

macro_rules! folded_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Folded);

        impl $name {
            /// The text as first given, for GitHub and for people.
            pub fn as_str(&self) -> &str {
                &self.0.given
            }

            /// The ASCII lowercase form, by which names are compared and cached.
            pub fn key(&self) -> &str {
                &self.0.key
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.key == other.0.key
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.key.hash(state);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.given)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0.given, f)
            }
        }
    };
}

folded_name! {
    /// An organization or a personal account on GitHub: `[A-Za-z0-9_-]{1,64}`.
    Owner
}

folded_name! {
    /// A repository's name without its owner: `[A-Za-z0-9._-]{1,100}`, not `.` or `..`.
    RepoName
}

impl FromStr for Owner {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if fits {
            Ok(Self(Folded::new(text)))
        } else {
            Err(NameError("an owner is 1 to 64 of A-Z a-z 0-9 _ -"))
        }
    }
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=100).contains(&text.len()) && is_segment(text);
        if fits {
            Ok(Self(Folded::new(text)))
        } else {
            Err(NameError("a repository is 1 to 100 of A-Z a-z 0-9 . _ -"))
        }
    }
}

/// One path segment of `[A-Za-z0-9._-]` that is neither `.` nor `..`.
fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The name that an operator's file gives an App, and by which a policy can pin it: 1 to 100
/// printable characters, and not a number, since numbers pin Apps by their id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppName(Box<str>);

impl AppName {
    /// The name as it is written in the file. Names are compared literally.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.parse::<i64>().is_ok() {
            return Err(NameError("an App's name is not a number: numbers pin Apps by their id"));
        }
        let is_printable = !text.chars().any(char::is_control) && text.trim() == text;
        if is_printable && (1..=100).contains(&text.chars().count()) {
            Ok(Self(text.into()))
        } else {
            Err(NameError("an App's name is 1 to 100 printable characters"))
        }
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request is about: an owner, or one repository of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    owner: Owner,
    repo: Option<RepoName>,
}

impl Scope {
    /// The owner, by whose installation everything is read and minted.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The repository, where the scope names one.
    pub fn repo(&self) -> Option<&RepoName> {
        self.repo.as_ref()
    }
}

impl FromStr for Scope {
    type Err = NameError;

    /// Parses `OWNER` or `OWNER/REPO`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (owner, repo) = match text.split_once('/') {
            Some((owner, repo)) => (owner, Some(repo.parse()?)),
            None => (text, None),
        };
        Ok(Self { owner: owner.parse()?, repo })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repo {
            Some(repo) => write!(f, "{}/{repo}", self.owner),
            None => self.owner.fmt(f),
        }
    }
}

/// The name of a trust policy (a request's `identity`): one or more segments joined by `/`,
/// at most 255 bytes. It can name nothing outside `.github/chainguard/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(Box<str>);

impl PolicyName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The policy's file in its repository.
    pub fn path(&self) -> String {
        format!(".github/chainguard/{}.sts.yaml", self.0)
    }
}

impl FromStr for PolicyName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() <= 255 && text.split('/').all(is_segment) {
            Ok(Self(text.into()))
        } else {
            Err(NameError(
                "an identity is at most 255 of A-Z a-z 0-9 . _ - in segments joined by /",
            ))
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text, byte for byte as given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_name! {
    /// A token's subject (`sub`): 1 to 1024 bytes without control characters.
    Subject
}

text_name! {
    /// One audience of a token (`aud`): 1 to 512 bytes without control characters.
    Audience
}

text_name! {
    /// An issuer (`iss`): an absolute URL that names one place only and can be fetched from.
    Issuer
}

impl FromStr for Subject {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_plain_text(text, 1024) {
            Ok(Self(text.into()))
        } else {
            Err(NameError("a subject is 1 to 1024 bytes without control characters"))
        }
    }
}

impl FromStr for Audience {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_plain_text(text, 512) {
            Ok(Self(text.into()))
        } else {
            Err(NameError("an audience is 1 to 512 bytes without control characters"))
        }
    }
}

fn is_plain_text(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl Issuer {
    /// Whether the issuer is reached without TLS. Such an issuer is on loopback, and the
    /// outbound rule decides whether that is allowed at all.
    pub fn is_plain_http(&self) -> bool {
        self.0.starts_with("http://")
    }

    /// The part before the path, `scheme://host[:port]`.
    pub fn origin(&self) -> &str {
        let after_scheme = self.0.find("://").map_or(0, |at| at + 3);
        let end = self.0.get(after_scheme..).and_then(|rest| rest.find('/'));
        end.and_then(|end| self.0.get(..after_scheme + end)).unwrap_or(&self.0)
    }
}

impl FromStr for Issuer {
    type Err = NameError;

    /// Accepts `https://HOST[:PORT][/PATH]`, and `http` on loopback. No userinfo, query or
    /// fragment, no empty or dot segment in any spelling, one trailing slash at most.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > 512 {
            return Err(NameError("an issuer is at most 512 bytes"));
        }
        let (plain, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(NameError("an issuer starts with https://")),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = issuer_host(authority)
            .ok_or(NameError("an issuer's host is lowercase ASCII, with an optional port"))?;
        if plain && !is_loopback(host) {
            return Err(NameError("an issuer without TLS is on loopback"));
        }
        if !is_issuer_path(path) {
            return Err(NameError("an issuer's path has plain segments only"));
        }
        Ok(Self(text.into()))
    }
}

/// The host of `HOST[:PORT]`, if both are well formed.
fn issuer_host(authority: &str) -> Option<&str> {
    let (host, port) = if authority.starts_with('[') {
        let (host, rest) = authority.split_at(authority.find(']')? + 1);
        host.get(1..host.len() - 1)?.parse::<std::net::Ipv6Addr>().ok()?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        let (host, port) =
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_')
                })
        };
        (host.len() <= 253 && host.split('.').all(label)).then_some(())?;
        // `0x7f.1` and `010.0.0.1` are addresses to readers of URLs and names to others; `xn--`
        // need not decode.
        (url::Host::parse(host).ok()?.to_string() == host).then_some(())?;
        (host, port)
    };
    if let Some(port) = port {
        (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().ok()? > 0).then_some(())?;
    }
    (!host.bytes().any(|b| b.is_ascii_uppercase())).then_some(host)
}

/// Whether a URL's host is this machine by name or by literal address.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_issuer_path(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return path.is_empty() };
    path.is_empty() || path.strip_suffix('/').unwrap_or(path).split('/').all(is_issuer_segment)
}

/// A segment of RFC 3986 `pchar`s. Escapes that would read as `.`, `/`, `\` or a control
/// character after decoding are refused: two spellings of one path are two issuers here and one
/// place on the network.
fn is_issuer_segment(segment: &str) -> bool {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex))
            else {
                return false;
            };
            let decoded = high * 16 + low;
            if matches!(decoded, b'.' | b'/' | b'\\' | 0..=0x1f | 0x7f) {
                return false;
            }
        } else if !(byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)) {
            return false;
        }
    }
    !matches!(segment, "" | "." | "..")
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| digit.try_into().ok())
}

macro_rules! number_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_name! {
    /// A GitHub App's numeric id.
    AppId
}

number_name! {
    /// The numeric id of an account on GitHub, which it keeps when it is renamed.
    AccountId
}

number_name! {
    /// The numeric id of one installation of an App on an owner's account.
    InstallationId
}

impl FromStr for AppId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse()
            .ok()
            .filter(|id| *id > 0 && i64::try_from(*id).is_ok())
            .map(Self)
            .ok_or(NameError("an App id is a positive number"))
    }
}

/// The identifier of one request: ours, never the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    /// A fresh identifier.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn owners_compare_without_case_and_keep_their_spelling() {
        let (a, b): (Owner, Owner) = ("Octo-Org".parse().unwrap(), "octo-org".parse().unwrap());
        assert_eq!(a, b);
        assert_eq!(a.as_str(), "Octo-Org");
        assert_eq!(a.key(), "octo-org");
    }

    #[test]
    fn scopes() {
        for good in ["octo-org", "octo-org/hello", "O/.github", "a_b/x.y"] {
            assert_eq!(good.parse::<Scope>().unwrap().to_string(), good);
        }
        for bad in [
            "", "/", "foo/", "/foo", "a/b/c", "a/.", "a/..", "a b", "a/b c", "é", "a%2fb", "a.b",
            "a/\u{0}",
        ] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(65).parse::<Scope>().is_err());
    }

    #[test]
    fn identities_stay_under_their_folder() {
        for good in ["foo", "a/b", "release-1.0", "_x", "..."] {
            assert_eq!(
                good.parse::<PolicyName>().unwrap().path(),
                format!(".github/chainguard/{good}.sts.yaml")
            );
        }
        for bad in
            ["", "/a", "a/", "a//b", ".", "..", "a/../b", "../../x", "a\\b", "a%2e", "a\u{0}", "ä"]
        {
            assert!(bad.parse::<PolicyName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(256).parse::<PolicyName>().is_err());
    }

    #[test]
    fn issuers_that_name_one_place() {
        for good in [
            "https://token.actions.githubusercontent.com",
            "https://host:8443/a/b",
            "https://westeurope.oic.prod-aks.azure.com/tenant/guid/",
            "https://host/realms/my%20realm+x:y",
            "https://[2001:db8::1]:8443/x",
            "http://127.0.0.1:8080",
            "http://localhost/x",
            "http://[::1]:1",
        ] {
            assert_eq!(good.parse::<Issuer>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn issuers_that_could_mean_another_place() {
        for bad in [
            "",
            "accounts.google.com",
            "https://",
            "https:///x",
            "ftp://a",
            "HTTPS://a",
            "https://A",
            "https://é",
            "https://user@host",
            "https://u:p@host",
            "https://a?x",
            "https://a/?x",
            "https://a#f",
            "https://a//b",
            "https://a/b//",
            "https://a//",
            "https://a/./b",
            "https://a/../b",
            "https://a/%2e%2e/b",
            "https://a/%2E",
            "https://a/x%2fy",
            "https://a/b c",
            "https://a/\\b",
            "https://a:0",
            "https://a:65536",
            "https://a:",
            "https://a:+1",
            "https://a..b",
            "https://a.",
            "https://1",
            "https://0x7f.1",
            "https://010.0.0.1",
            "https://1.2.3.4.5",
            "https://xn--",
            "http://example.com",
            "http://127.0.0.1.nip.io",
            "https://[::1",
            "https://[::1]x",
            "https://a/%zz",
            "https://a/%",
            "https://a/b\n",
            "https://a /",
        ] {
            assert!(bad.parse::<Issuer>().is_err(), "{bad:?}");
        }
        assert!(format!("https://a/{}", "x".repeat(512)).parse::<Issuer>().is_err());
    }

    /// Texts that are issuers, or nearly.
    fn near_issuer() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            "[a-z0-9_-]{1,4}(\\.[a-z0-9-]{1,3}){0,3}",
            "localhost|127\\.0\\.0\\.1|\\[::1\\]|0x7f\\.1"
        ];
        let path = "(/([a-z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2}){0,4}){0,3}";
        ("https?://", host, "(:[0-9]{1,5})?", path)
            .prop_map(|(scheme, host, port, path)| scheme + &host + &port + &path)
    }

    proptest! {
        #[test]
        fn an_issuer_is_one_place_to_every_reader(text in near_issuer()) {
            let Ok(issuer) = text.parse::<Issuer>() else { return Ok(()) };
            let (url, uri) = (url::Url::parse(&text).unwrap(), text.parse::<http::Uri>().unwrap());
            prop_assert_eq!(url.host_str(), uri.host());
            prop_assert_eq!(Some(url.scheme()), uri.scheme_str());
            prop_assert_eq!(url.path(), uri.path());
            let default = if issuer.is_plain_http() { 80 } else { 443 };
            prop_assert_eq!(url.port_or_known_default(), Some(uri.port_u16().unwrap_or(default)));
            prop_assert!(text.starts_with(issuer.origin()));
        }

        #[test]
        fn a_policy_is_one_file_of_its_folder(text in "[a-z./%\\\\]{1,8}|\\PC{0,8}") {
            let Ok(policy) = text.parse::<PolicyName>() else { return Ok(()) };
            let path = policy.path();
            let mut parts = std::path::Path::new(&path).components();
            prop_assert!(parts.all(|part| matches!(part, std::path::Component::Normal(_))), "{}", path);
            prop_assert!(path.starts_with(".github/chainguard/"));
            let url = url::Url::parse(&format!("https://host/{path}")).unwrap();
            prop_assert_eq!(url.path(), format!("/{path}"));
        }
    }

    #[test]
    fn an_issuers_origin_has_no_path() {
        for (issuer, origin) in [
            ("https://a:1/x/y", "https://a:1"),
            ("https://a", "https://a"),
            ("https://a/", "https://a"),
        ] {
            assert_eq!(issuer.parse::<Issuer>().unwrap().origin(), origin);
        }
    }

    #[test]
    fn subjects_and_audiences() {
        assert!("repo:o/r:environment:my env (x) & 'y'".parse::<Subject>().is_ok());
        assert!("".parse::<Subject>().is_err());
        assert!("a\u{7f}".parse::<Subject>().is_err());
        assert!("a".repeat(1025).parse::<Subject>().is_err());
        assert!("@|".parse::<Audience>().is_ok());
        assert!("a".repeat(513).parse::<Audience>().is_err());
    }
}
