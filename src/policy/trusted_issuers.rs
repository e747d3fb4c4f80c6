//! An organization's list of issuers: the file, and its verdict on one issuer.
//!
//! The list is asked before anything is fetched from an issuer.

use serde::Deserialize;

use crate::{
    name::Issuer,
    pattern::Pattern,
    yaml::{self, At, Invalid, present},
};

const MOST_ISSUERS: usize = 64;
const MOST_PATTERNS: usize = 16;
/// Bytes of all compiled patterns of one list.
const MAX_COMPILED: usize = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `issuers` or `issuer_patterns`")]
struct Document {
    #[serde(default, deserialize_with = "present")]
    mode: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    issuers: Option<At<Vec<At<String>>>>,
    #[serde(default, deserialize_with = "present")]
    issuer_patterns: Option<At<Vec<At<String>>>>,
}

/// The issuers that an organization trusts.
#[derive(Debug)]
pub struct TrustedIssuers {
    enforced: bool,
    pub(super) issuers: Box<[Issuer]>,
    pub(super) patterns: Box<[Pattern]>,
}

/// What the list says of one issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is on the list.
    Listed,
    /// It is not.
    Unlisted {
        /// Whether it is refused for that (`enforce`), or only recorded (`audit`).
        enforced: bool,
    },
}

impl Verdict {
    /// Whether an exchange may go on.
    pub fn allows(self) -> bool {
        self != Self::Unlisted { enforced: true }
    }
}

impl TrustedIssuers {
    /// Reads `trusted-token-issuers.yaml`.
    ///
    /// # Errors
    /// [`Invalid`] names the first rule that the file breaks, and where; never the file's text.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let document: Document = yaml::load(bytes)?;
        let enforced = match &document.mode {
            None => true,
            Some(mode) => match mode.value.as_str() {
                "enforce" => true,
                "audit" => false,
                _ => return Err(mode.refuse("`mode` is `enforce` or `audit`")),
            },
        };
        let issuers = bounded(document.issuers, MOST_ISSUERS, "there are more than 64 issuers")?;
        let patterns = bounded(document.issuer_patterns, MOST_PATTERNS, "there are more than 16 patterns")?;
        if issuers.is_empty() && patterns.is_empty() {
            return Err(Invalid::file("the list is empty; name at least one issuer"));
        }
        let mut compiled = 0;
        let mut compile = |entry: &At<String>| {
            let pattern = pattern(entry)?;
            compiled += pattern.compiled_bytes();
            if compiled > MAX_COMPILED {
                return Err(entry.refuse("the patterns of this list are too large when compiled (4 MiB)"));
            }
            Ok(pattern)
        };
        Ok(Self {
            enforced,
            issuers: issuers.iter().map(issuer).collect::<Result<_, _>>()?,
            patterns: patterns.iter().map(&mut compile).collect::<Result<_, _>>()?,
        })
    }

    /// Whether an issuer is on the list.
    pub fn verdict(&self, issuer: &Issuer) -> Verdict {
        if self.issuers.contains(issuer) || self.patterns.iter().any(|pattern| pattern.is_match(issuer.as_str())) {
            Verdict::Listed
        } else {
            Verdict::Unlisted { enforced: self.enforced }
        }
    }
}

fn bounded(list: Option<At<Vec<At<String>>>>, most: usize, rule: &'static str) -> Result<Vec<At<String>>, Invalid> {
    match list {
        Some(list) if list.value.len() > most => Err(list.refuse(rule)),
        list => Ok(list.map(|list| list.value).unwrap_or_default()),
    }
}

/// An entry that no token's issuer could equal would only look like protection.
fn issuer(entry: &At<String>) -> Result<Issuer, Invalid> {
    entry.value.parse().map_err(|error: crate::name::NameError| entry.refuse(error.to_string()))
}

fn pattern(entry: &At<String>) -> Result<Pattern, Invalid> {
    Pattern::compile_for_issuers(&entry.value).map_err(|error| entry.refuse(error.to_string()))
}
