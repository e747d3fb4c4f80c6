//! An organization's list of issuers: the file, and its verdict on one issuer.
//!
//! The list is checked before anything is fetched from an issuer.

use crate::{
    name::Issuer,
    pattern::Pattern,
    yaml::{self, At, Errors, Invalid, Node, Value},
};

const MAX_ISSUERS: usize = 64;
const MAX_PATTERNS: usize = 16;
/// Bytes of all compiled patterns of one list.
const MAX_COMPILED: usize = 4 << 20;
const KEYS: &str = "a list of trusted issuers has mode, issuers, issuer_patterns";

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
    /// [`Errors`] has every rule that the file breaks, and where; never the file's text.
    pub fn parse(bytes: &[u8]) -> Result<Self, Errors> {
        let (root, mut errors) = yaml::tree(bytes)?;
        let (mut enforced, mut issuers, mut patterns) = (true, Vec::new(), Vec::new());
        let entries: &[(At<String>, Node)] = match &root.value {
            Value::Map(entries) => entries,
            Value::Scalar(_) | Value::List(_) => {
                errors.push(root.refuse("expected a map with `issuers` or `issuer_patterns`"));
                &[]
            }
        };
        for (key, node) in entries {
            match key.value.as_str() {
                "mode" => enforced = errors.note(mode(node)).unwrap_or(true),
                "issuers" => issuers = each(node, MAX_ISSUERS, &mut errors, issuer),
                "issuer_patterns" => {
                    let mut compiled = 0;
                    patterns = each(node, MAX_PATTERNS, &mut errors, |entry| {
                        bounded_pattern(entry, &mut compiled)
                    });
                }
                _ => errors.push(key.refuse(format!("unknown key; {KEYS}"))),
            }
        }
        if errors.is_empty() && issuers.is_empty() && patterns.is_empty() {
            errors.push(Invalid::file("the list is empty; name at least one issuer"));
        }
        errors.check()?;
        Ok(Self { enforced, issuers: issuers.into(), patterns: patterns.into() })
    }

    /// Whether an issuer is on the list.
    pub fn verdict(&self, issuer: &Issuer) -> Verdict {
        if self.issuers.contains(issuer)
            || self.patterns.iter().any(|pattern| pattern.is_match(issuer.as_str()))
        {
            Verdict::Listed
        } else {
            Verdict::Unlisted { enforced: self.enforced }
        }
    }
}

fn mode(node: &Node) -> Result<bool, Invalid> {
    match node.text() {
        Some("enforce") => Ok(true),
        Some("audit") => Ok(false),
        _ => Err(node.refuse("`mode` is `enforce` or `audit`")),
    }
}

/// Reads the entries of a list, of which there are at most `max`.
fn each<T>(
    node: &Node,
    max: usize,
    errors: &mut Errors,
    mut read: impl FnMut(&At<String>) -> Result<T, Invalid>,
) -> Vec<T> {
    let Value::List(items) = &node.value else {
        errors.push(node.refuse(format!("expected a list of strings, found {}", node.kind())));
        return Vec::new();
    };
    if items.len() > max {
        errors.push(node.refuse(format!("there are more than {max} entries")));
        return Vec::new();
    }
    let mut entry = |item: &Node| {
        let value = item
            .text()
            .ok_or_else(|| item.refuse(format!("expected a string, found {}", item.kind())))?;
        read(&At { mark: item.mark, value: value.to_owned() })
    };
    items.iter().filter_map(|item| errors.note(entry(item))).collect()
}

/// An entry that no token's issuer could equal would only look like protection.
fn issuer(entry: &At<String>) -> Result<Issuer, Invalid> {
    entry.value.parse().map_err(|error: crate::name::NameError| entry.refuse(error.to_string()))
}

fn bounded_pattern(entry: &At<String>, compiled: &mut usize) -> Result<Pattern, Invalid> {
    let too_large =
        || entry.refuse("the patterns of this list are too large when compiled (4 MiB)");
    if *compiled > MAX_COMPILED {
        return Err(too_large());
    }
    let pattern = pattern(entry)?;
    *compiled += pattern.compiled_bytes();
    if *compiled > MAX_COMPILED { Err(too_large()) } else { Ok(pattern) }
}

fn pattern(entry: &At<String>) -> Result<Pattern, Invalid> {
    Pattern::compile_for_issuers(&entry.value).map_err(|error| entry.refuse(error.to_string()))
}
