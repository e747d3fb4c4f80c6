//! The issuers file: issuers as objects, and what each of them means.
//!
//! ```yaml
//! issuers:
//!   - issuer: https://k8s.internal:6443
//!     ca_file: ca.crt
//!     bearer_token_file: token
//!     private_network: true
//! ```
//!
//! An entry with an exact `issuer` (or `in_cluster: true`, the pod's own cluster) makes that issuer
//! known, and may say where its keys are and how they are reached. One with an `issuer_pattern`
//! makes nothing known: it has rules for tokens, and counts as listed. Files that it names are read
//! with it, so that every error is reported with its place; except the bearer token, which
//! rotates.

mod document;
mod pod;
pub(super) mod reload;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::document::{Document, Item};
pub use self::pod::Pod;
use super::{keys::KeySet, rules::Rules};
use crate::{
    egress::Roots,
    name::Issuer,
    pattern::Pattern,
    yaml::{self, At, Invalid},
};

/// Entries in one file.
const MAX_ENTRIES: usize = 256;

/// No file that the issuers file names is larger.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where the issuers file is, and the surroundings that its entries lean on.
#[derive(Debug, Clone)]
pub struct IssuersFile {
    /// The file.
    pub path: PathBuf,
    /// What `in_cluster` means.
    pub pod: Pod,
    /// Whether an issuer may be without TLS, on loopback, though its entry does not say so.
    pub plain_http: bool,
}

/// What an issuers file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedIssuers {
    pub(super) entries: Vec<Entry>,
    /// In the file's order: the first that matches counts.
    pub(super) patterns: Vec<(Pattern, Arc<Rules>)>,
    /// Whether there is no other issuer at all.
    pub(super) only_listed: bool,
}

/// An issuer that the file makes known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) issuer: Issuer,
    pub(super) keys: KeysFrom,
    pub(super) rules: Arc<Rules>,
    /// Whether every subject of the issuer is the operator's own.
    pub(super) is_single_tenant: bool,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeysFrom {
    /// The issuer says where, by OpenID Connect Discovery.
    Discovery(Reach),
    /// A key set at this address; nothing else is fetched.
    Address(http::Uri, Reach),
    /// A key set that the operator has written down.
    Fixed(FixedKeys),
}

impl KeysFrom {
    /// Whether only the operator can reach the keys, or has supplied them: such an issuer is the
    /// operator's own.
    fn are_private(&self) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Discovery(reach) | Self::Address(_, reach) => {
                reach.private_network || reach.roots.is_some()
            }
        }
    }
}

/// Keys that are written down, read once. Two are equal if their texts are.
#[derive(Debug, Clone)]
pub(super) struct FixedKeys {
    text: Vec<u8>,
    pub(super) set: Arc<KeySet>,
}

impl PartialEq for FixedKeys {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for FixedKeys {}

/// What takes us to the origin of the keys' address, or of the issuer if there is none, and to no
/// other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reach {
    pub(super) private_network: bool,
    /// The only roots of trust there.
    pub(super) roots: Option<Roots>,
    /// The file of a bearer token.
    pub(super) bearer: Option<PathBuf>,
    /// Whether the way is through the proxy; to other origins too.
    pub(super) proxy: bool,
}

impl ListedIssuers {
    /// Whether there is no other issuer at all, the built-in ones included.
    pub fn only_listed(&self) -> bool {
        self.only_listed
    }
}

impl IssuersFile {
    /// Reads the file and what it names. Blocks.
    ///
    /// # Errors
    /// The first error, by line and column; never the file's content.
    pub fn load(&self) -> Result<ListedIssuers, Invalid> {
        let bytes = read(&self.path)
            .map_err(|error| Invalid::file(format!("the file cannot be read: {error}")))?;
        self.parse(&bytes)
    }

    fn parse(&self, bytes: &[u8]) -> Result<ListedIssuers, Invalid> {
        let document: Document = yaml::load_with_web_keys(bytes)?;
        let mut listed = ListedIssuers {
            only_listed: document.only_listed.unwrap_or(false),
            ..ListedIssuers::default()
        };
        let items = document.issuers.ok_or_else(|| Invalid::file("`issuers` is missing"))?;
        if items.value.is_empty() || items.value.len() > MAX_ENTRIES {
            return Err(items.refuse("`issuers` has 1 to 256 entries"));
        }
        for item in &items.value {
            self.add(&mut listed, item)?;
        }
        Ok(listed)
    }

    fn add(
        &self,
        listed: &mut ListedIssuers,
        At { mark, value: item }: &At<Item>,
    ) -> Result<(), Invalid> {
        let refuse = |rule: &'static str| Err(Invalid::at(*mark, rule));
        let rules = Arc::new(item.rules()?);
        let (issuer, keys) = match (
            &item.issuer,
            &item.issuer_pattern,
            item.in_cluster.as_ref().map(|at| at.value),
        ) {
            (Some(issuer), None, None) => self.exact(issuer, item)?,
            (None, Some(pattern), None) => {
                item.refuse_means(
                    "an entry with `issuer_pattern` only admits: it has no keys, credentials or network",
                )?;
                if let Some(single_tenant) = &item.single_tenant {
                    return Err(single_tenant.refuse(
                        "`single_tenant` is for one issuer, expected an entry with `issuer`",
                    ));
                }
                let compiled = Pattern::compile_for_issuers(&pattern.value);
                listed
                    .patterns
                    .push((compiled.map_err(|error| pattern.refuse(error.to_string()))?, rules));
                return Ok(());
            }
            (None, None, Some(true)) => {
                item.refuse_means(
                    "an entry with `in_cluster` has its keys and credentials from the pod",
                )?;
                self.pod.cluster().map_err(|rule| Invalid::at(*mark, rule))?
            }
            (None, None, Some(false)) => return refuse("`in_cluster` is `true`, or is left out"),
            _ => return refuse("an entry has one of `issuer`, `issuer_pattern` and `in_cluster`"),
        };
        if listed.entries.iter().any(|other| other.issuer == issuer) {
            return refuse("another entry has this issuer already");
        }
        let is_single_tenant =
            item.single_tenant.as_ref().map_or_else(|| keys.are_private(), |at| at.value);
        listed.entries.push(Entry { issuer, keys, rules, is_single_tenant });
        Ok(())
    }

    fn exact(&self, text: &At<String>, item: &Item) -> Result<(Issuer, KeysFrom), Invalid> {
        let issuer: Issuer = text
            .value
            .parse()
            .map_err(|error: crate::name::NameError| text.refuse(error.to_string()))?;
        let private_network = item.private_network.as_ref().is_some_and(|at| at.value);
        let plain_http = private_network || self.plain_http;
        let fixed = self.fixed_keys(item)?;
        if issuer.is_plain_http() && !plain_http && fixed.is_none() {
            return Err(
                text.refuse("an issuer without TLS needs `private_network`, and is on loopback")
            );
        }
        if let Some(fixed) = fixed {
            return Ok((issuer, fixed));
        }
        let reach = Reach {
            private_network,
            roots: item.ca_file.as_ref().map(|file| self.roots(file)).transpose()?,
            bearer: item.bearer_token_file.as_ref().map(|file| self.bearer(file)).transpose()?,
            proxy: item.proxy.as_ref().is_some_and(|at| at.value),
        };
        let keys = match &item.jwks_uri {
            Some(address) => KeysFrom::Address(key_address(address, plain_http)?, reach),
            None => KeysFrom::Discovery(reach),
        };
        Ok((issuer, keys))
    }

    /// The keys that stand in the file or in one beside it, if the entry has them.
    fn fixed_keys(&self, item: &Item) -> Result<Option<KeysFrom>, Invalid> {
        let (mark, text) = match (&item.jwks, &item.jwks_file, &item.jwks_uri) {
            (None, None, _) => return Ok(None),
            (Some(jwks), None, None) => (jwks.mark, jwks.value.to_string().into_bytes()),
            (None, Some(file), None) => (file.mark, self.file(file)?),
            (Some(At { mark, .. }), ..) | (_, Some(At { mark, .. }), _) => {
                return Err(Invalid::at(
                    *mark,
                    "an entry has one of `jwks_uri`, `jwks_file` and `jwks`",
                ));
            }
        };
        item.refuse_reach(
            "keys that are written down are not fetched: nothing is reached for them",
        )?;
        match KeySet::read(&text, None) {
            Some(set) if set.usable_count() > 0 => {
                Ok(Some(KeysFrom::Fixed(FixedKeys { text, set: Arc::new(set) })))
            }
            Some(_) => Err(Invalid::at(mark, "none of these keys can verify a signature")),
            None => Err(Invalid::at(mark, "this is not a JSON Web Key Set")),
        }
    }

    fn roots(&self, file: &At<String>) -> Result<Roots, Invalid> {
        Roots::read(&self.file(file)?).map_err(|error| file.refuse(error))
    }

    /// The file is there and holds something. What it holds is read when it is needed.
    fn bearer(&self, file: &At<String>) -> Result<PathBuf, Invalid> {
        if self.file(file)?.trim_ascii().is_empty() {
            return Err(file.refuse("the file is empty"));
        }
        Ok(self.beside(&file.value))
    }

    fn file(&self, file: &At<String>) -> Result<Vec<u8>, Invalid> {
        if file.value.is_empty() {
            return Err(file.refuse("the name of a file is expected here"));
        }
        read(&self.beside(&file.value))
            .map_err(|error| file.refuse(format!("the file cannot be read: {error}")))
    }

    /// Relative paths start at the issuers file's folder.
    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// Reads a file that is not larger than any of these has reason to be.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    fs::read(path)
}

/// An address of keys: https, or http on loopback where that is allowed.
fn key_address(text: &At<String>, plain_http: bool) -> Result<http::Uri, Invalid> {
    let wanted = || text.refuse("a URL such as https://HOST/openid/v1/jwks is expected here");
    let uri: http::Uri = text.value.parse().map_err(|_| wanted())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wanted)?;
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    match uri.scheme_str() {
        Some("https") if !has_user => Ok(uri),
        Some("http") if !has_user && plain_http && crate::name::is_loopback(host) => Ok(uri),
        Some("http") if !has_user => {
            Err(text.refuse("keys without TLS need `private_network`, and are on loopback"))
        }
        _ => Err(wanted()),
    }
}

#[cfg(test)]
mod tests;
