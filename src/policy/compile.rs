//! A policy's file → a policy that can be evaluated, or the rule that it breaks.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Level, Permissions,
    document::{Document, Entries},
    permission,
};
use crate::{
    name::{Issuer, RepoName, Scope},
    pattern::Pattern,
    yaml::{self, At, Invalid},
};

/// Claim patterns in one policy.
const MOST_CLAIMS: usize = 64;
/// Bytes of all compiled patterns of one policy.
const MAX_COMPILED: usize = 4 << 20;
/// Repositories in one policy: GitHub takes no more names for one token.
const MOST_REPOSITORIES: usize = 500;

/// Whose policy a file is: that of the repository that it lies in, or of a whole organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The policy is about the one repository that holds it.
    Repository,
    /// The policy lies in the organization's policy repository.
    Organization,
}

impl Kind {
    /// Which policies a scope is about. `OWNER` and `OWNER/<policy repository>` read the same file.
    pub fn of(scope: &Scope, policy_repo: &RepoName) -> Self {
        match scope.repo() {
            Some(repo) if repo != policy_repo => Self::Repository,
            _ => Self::Organization,
        }
    }
}

/// The operator's word on what policies may say.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Organization-wide permissions that repository policies may grant above `read`.
    pub organization_permissions: BTreeSet<String>,
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
    pub(super) kind: Kind,
    pub(super) issuer: Matcher,
    pub(super) subject: Matcher,
    pub(super) audience: Option<Matcher>,
    pub(super) claims: BTreeMap<String, Pattern>,
    pub(super) permissions: Permissions,
    pub(super) repositories: Option<Vec<RepoName>>,
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
    /// [`Invalid`] names the first rule that the file breaks, and where; never the file's text.
    pub fn parse(bytes: &[u8], kind: Kind, rules: &Rules) -> Result<Self, Invalid> {
        let document: Document = yaml::load(bytes)?;
        let mut compiler = Compiler { compiled: 0 };
        let issuer = compiler.required(document.issuer, document.issuer_pattern, "issuer")?;
        let subject = compiler.required(document.subject, document.subject_pattern, "subject")?;
        let audience = compiler.matcher(document.audience, document.audience_pattern, "audience")?;
        let claims = compiler.claims(document.claim_pattern.unwrap_or_default())?;
        let permissions = permissions(document.permissions.unwrap_or_default(), kind, rules)?;
        let repositories = document.repositories.map(|list| repositories(list, kind)).transpose()?;
        let pin = compiler.pin(document.app, document.app_pattern)?;
        Ok(Self { kind, issuer, subject, audience, claims, permissions, repositories, pin })
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

/// Compiles patterns and adds up what they cost.
struct Compiler {
    compiled: usize,
}

impl Compiler {
    fn pattern(&mut self, source: &At<String>) -> Result<Pattern, Invalid> {
        let pattern = Pattern::compile(&source.value).map_err(|error| source.refuse(error.to_string()))?;
        self.compiled += pattern.compiled_bytes();
        if self.compiled > MAX_COMPILED {
            return Err(source.refuse("the patterns of this policy are too large when compiled (4 MiB)"));
        }
        Ok(pattern)
    }

    fn matcher(
        &mut self,
        exact: Option<At<String>>,
        pattern: Option<At<String>>,
        name: &str,
    ) -> Result<Option<Matcher>, Invalid> {
        let is_set = |text: &At<String>| !text.value.is_empty();
        match (exact.filter(is_set), pattern.filter(is_set)) {
            (Some(_), Some(pattern)) => {
                Err(pattern.refuse(format!("`{name}` and `{name}_pattern` exclude each other")))
            }
            (Some(exact), None) => Ok(Some(Matcher::Exact(exact.value))),
            (None, Some(pattern)) => Ok(Some(Matcher::Pattern(self.pattern(&pattern)?))),
            (None, None) => Ok(None),
        }
    }

    fn required(
        &mut self,
        exact: Option<At<String>>,
        pattern: Option<At<String>>,
        name: &str,
    ) -> Result<Matcher, Invalid> {
        self.matcher(exact, pattern, name)?
            .ok_or_else(|| Invalid::file(format!("one of `{name}` and `{name}_pattern` is required")))
    }

    fn claims(&mut self, entries: Entries) -> Result<BTreeMap<String, Pattern>, Invalid> {
        let mut claims = BTreeMap::new();
        for (name, pattern) in entries.0 {
            if claims.len() == MOST_CLAIMS {
                return Err(name.refuse("there are more than 64 claim patterns"));
            }
            if pattern.value.is_empty() {
                return Err(pattern.refuse("a claim's pattern is not empty"));
            }
            let compiled = self.pattern(&pattern)?;
            claims.insert(name.value, compiled);
        }
        Ok(claims)
    }

    fn pin(&mut self, app: Option<At<String>>, pattern: Option<At<String>>) -> Result<Option<AppPin>, Invalid> {
        for pin in [&app, &pattern].into_iter().flatten() {
            if pin.value.is_empty() {
                return Err(pin.refuse("a pin is not empty"));
            }
        }
        match (app, pattern) {
            (Some(_), Some(pattern)) => Err(pattern.refuse("`app` and `app_pattern` exclude each other")),
            (Some(app), None) => Ok(Some(AppPin::Exact(app.value))),
            (None, Some(pattern)) => Ok(Some(AppPin::Pattern(self.pattern(&pattern)?))),
            (None, None) => Ok(None),
        }
    }
}

fn permissions(entries: Entries, kind: Kind, rules: &Rules) -> Result<Permissions, Invalid> {
    let mut permissions = Permissions::new();
    for (name, level) in entries.0 {
        if !permission::is_name(&name.value) {
            let hint = if name.value.contains('-') { "; words are joined by `_`, as in `pull_requests`" } else { "" };
            return Err(name.refuse(format!("a permission's name is [a-z][a-z0-9_]*{hint}")));
        }
        let Some(access) = Level::parse(&level.value) else {
            return Err(level.refuse("a level is `read`, `write` or `admin`"));
        };
        let wide = kind == Kind::Repository && access > Level::Read && permission::is_organization_wide(&name.value);
        if wide && !rules.organization_permissions.contains(&name.value) {
            return Err(level.refuse("a repository's policy may grant organization-wide permissions at `read` only"));
        }
        permissions.insert(name.value, access);
    }
    if permissions.is_empty() {
        return Err(Invalid::file("`permissions` is required and not empty"));
    }
    Ok(permissions)
}

fn repositories(list: At<Vec<At<String>>>, kind: Kind) -> Result<Vec<RepoName>, Invalid> {
    if kind == Kind::Repository {
        return Err(list.refuse("`repositories` is for organization policies"));
    }
    if list.value.is_empty() {
        return Err(list.refuse("`repositories` is not empty; without it, a policy covers all"));
    }
    if list.value.len() > MOST_REPOSITORIES {
        return Err(list.refuse("there are more than 500 repositories"));
    }
    let mut names: Vec<RepoName> = Vec::with_capacity(list.value.len());
    let mut seen = BTreeSet::new();
    for entry in list.value {
        if entry.value.contains('/') {
            return Err(entry.refuse("a repository stands here without its owner"));
        }
        let name: RepoName =
            entry.value.parse().map_err(|error: crate::name::NameError| entry.refuse(error.to_string()))?;
        if seen.insert(name.key().to_owned()) {
            names.push(name);
        }
    }
    Ok(names)
}
