//! A policy's file → a policy that can be evaluated, or every rule that it breaks.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Coverage, Permissions,
    document::{Choice, Document},
    pattern_error, permission,
};
use crate::{
    name::{Issuer, Owner, RepoName, Scope},
    pattern::{self, Pattern, PatternError},
    yaml::{self, At, Errors, Invalid},
};

/// Claim patterns in one policy.
const MAX_CLAIMS: usize = 64;
/// Bytes of all compiled patterns of one policy.
const MAX_COMPILED: usize = 4 << 20;

/// Whose policy a file is: that of the repository that it lies in, or of a whole organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// The policy is about the one repository that holds it.
    Repository,
    /// The policy lies in the organization's policy repository.
    Organization,
}

impl PolicyKind {
    /// Which policies a scope is about. `OWNER` and `OWNER/<policy repository>` read the same file.
    pub fn of(scope: &Scope, policy_repo: &RepoName) -> Self {
        match scope.repo() {
            Some(repo) if repo != policy_repo => Self::Repository,
            _ => Self::Organization,
        }
    }
}

/// Where a policy's file is.
#[derive(Debug, Clone, Copy)]
pub struct Home<'a> {
    /// Whose policy it is.
    pub kind: PolicyKind,
    /// The owner of the repository that holds it. Unknown where a file is checked by itself; then
    /// `repositories` may name any one owner.
    pub owner: Option<&'a Owner>,
}

impl From<PolicyKind> for Home<'_> {
    fn from(kind: PolicyKind) -> Self {
        Self { kind, owner: None }
    }
}

/// Limits that the operator sets for policies.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Permissions that repository policies may grant above `read`, though they govern the
    /// organization or are not in the table.
    pub organization_permissions: BTreeSet<String>,
    /// Organization policies must list repositories.
    pub require_repositories: bool,
}

/// Which App must mint.
#[derive(Debug, Clone)]
pub enum AppPin {
    /// `app`: an id in decimal, or a slug.
    Exact(String),
    /// `app_pattern`: held against the slug and the decimal id, whole texts only.
    Pattern(Pattern),
}

/// A trust policy that obeys the contract.
#[derive(Debug)]
pub struct Policy {
    pub(super) kind: PolicyKind,
    pub(super) issuer: Matcher,
    pub(super) subject: Matcher,
    pub(super) audience: Option<Matcher>,
    pub(super) claims: BTreeMap<String, Pattern>,
    pub(super) permissions: Permissions,
    pub(super) coverage: Coverage,
    pub(super) pin: Option<AppPin>,
}

/// What one value is held against.
#[derive(Debug)]
pub(super) enum Matcher {
    /// Byte for byte.
    Exact(String),
    /// From start to end.
    Pattern(Pattern),
}

impl Matcher {
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }

    /// As the policy writes it.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Exact(exact) => exact,
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

impl Policy {
    /// Reads a policy's file. This costs CPU, up to some tens of milliseconds for a hostile file,
    /// so call it off the threads that serve requests.
    ///
    /// # Errors
    /// [`Errors`] has every rule that the file breaks, and where; never the file's text.
    pub fn parse<'a>(
        bytes: &[u8],
        home: impl Into<Home<'a>>,
        rules: &Rules,
    ) -> Result<Self, Errors> {
        let home = home.into();
        let (root, mut errors) = yaml::tree(bytes)?;
        let document = Document::read(&root, &mut errors);
        let mut compiler =
            Compiler { text: std::str::from_utf8(bytes).unwrap_or_default(), compiled: 0, errors };
        let issuer = compiler.required(document.issuer, "issuer");
        let subject = compiler.required(document.subject, "subject");
        let audience = compiler.matcher(document.audience, "audience");
        let claims = compiler.claims(document.claim_pattern);
        let pin = compiler.pin(document.app);
        let mut errors = compiler.errors;
        let permissions = permissions(document.permissions, home.kind, rules, &mut errors);
        let coverage = Coverage::read(document.repositories, &home, rules, &mut errors);
        errors.check()?;
        let (Some(issuer), Some(subject)) = (issuer, subject) else {
            return Err(Invalid::file("the policy has no issuer or no subject").into());
        };
        Ok(Self { kind: home.kind, issuer, subject, audience, claims, permissions, coverage, pin })
    }

    /// Whether the policy's issuer condition admits an issuer of which nothing is verified, so
    /// that something may be fetched from it. A pattern in which `.` or a class can match a `/`
    /// does not: `https://.*\.example\.com` matches `https://evil.com/x.example.com` too.
    pub fn admit(&self, issuer: &Issuer) -> bool {
        let is_bounded = match &self.issuer {
            Matcher::Exact(_) => true,
            Matcher::Pattern(pattern) => !pattern.slashes().by_class,
        };
        is_bounded && self.issuer.is_match(issuer.as_str())
    }

    /// What a token may do by this policy.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// The issuer that the policy names, if it names exactly one.
    pub fn exact_issuer(&self) -> Option<&str> {
        match &self.issuer {
            Matcher::Exact(issuer) => Some(issuer),
            Matcher::Pattern(_) => None,
        }
    }
}

/// Compiles patterns, adds up what they cost, and notes what is wrong with them.
struct Compiler<'a> {
    text: &'a str,
    compiled: usize,
    errors: Errors,
}

impl Compiler<'_> {
    fn pattern(&mut self, source: &At<String>, key: &str) -> Option<Pattern> {
        if self.compiled > MAX_COMPILED {
            return None;
        }
        match Pattern::compile(&source.value) {
            Ok(pattern) => {
                self.compiled += pattern.compiled_bytes();
                if self.compiled > MAX_COMPILED {
                    let rule = "the patterns of this policy are too large when compiled (4 MiB)";
                    self.errors.push(source.refuse(rule));
                }
                Some(pattern)
            }
            Err(error) => {
                // An attempt costs time even if nothing comes of it.
                self.compiled +=
                    if error == PatternError::TooLarge { pattern::MAX_COMPILED } else { 0 };
                self.errors.push(pattern_error::explain(self.text, source, key, error));
                None
            }
        }
    }

    fn matcher(&mut self, Choice { exact, pattern, .. }: Choice, name: &str) -> Option<Matcher> {
        match (exact, pattern) {
            (Some(_), Some(pattern)) => {
                self.errors.push(
                    pattern.refuse(format!("`{name}` and `{name}_pattern` exclude each other")),
                );
                None
            }
            (Some(exact), None) => Some(Matcher::Exact(exact.value)),
            (None, Some(pattern)) => {
                self.pattern(&pattern, &format!("{name}_pattern")).map(Matcher::Pattern)
            }
            (None, None) => None,
        }
    }

    fn required(&mut self, choice: Choice, name: &str) -> Option<Matcher> {
        if choice.exact.is_none() && choice.pattern.is_none() && !choice.is_unreadable {
            self.errors
                .push(Invalid::file(format!("one of `{name}` and `{name}_pattern` is required")));
        }
        self.matcher(choice, name)
    }

    fn claims(&mut self, entries: Vec<(At<String>, At<String>)>) -> BTreeMap<String, Pattern> {
        let mut claims = BTreeMap::new();
        for (count, (name, source)) in entries.into_iter().enumerate() {
            if count == MAX_CLAIMS {
                self.errors.push(name.refuse("there are more than 64 claim patterns"));
                break;
            }
            if let Some(pattern) = self.pattern(&source, "claim_pattern") {
                claims.insert(name.value, pattern);
            }
        }
        claims
    }

    fn pin(&mut self, choice: Choice) -> Option<AppPin> {
        self.matcher(choice, "app").map(|pin| match pin {
            Matcher::Exact(app) => AppPin::Exact(app),
            Matcher::Pattern(pattern) => AppPin::Pattern(pattern),
        })
    }
}

fn permissions(
    entries: Option<Vec<(At<String>, At<String>)>>,
    kind: PolicyKind,
    rules: &Rules,
    errors: &mut Errors,
) -> Permissions {
    if entries.is_none() {
        errors.push(Invalid::file("`permissions` is required and not empty"));
    }
    let mut permissions = Permissions::new();
    for (name, level) in entries.unwrap_or_default() {
        if errors.leave_out_rest() {
            break;
        }
        if let Some(access) = permission::rules::entry(&name, &level, (kind, rules), errors) {
            permissions.insert(name.value, access);
        }
    }
    permissions
}
