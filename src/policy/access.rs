//! What a policy gives, to whom and where: for people who review a change of it.

use serde_json::{Map, Value};

use super::{AppPin, Coverage, Permissions, Policy, PolicyKind, compile::Matcher};

/// What a policy gives. Two policies that give the same are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The conditions: a field's name and what its value is compared with.
    pub who: Vec<(String, String)>,
    /// The permissions of the token.
    pub permissions: Permissions,
    /// The repositories that it reaches.
    pub reach: Reach,
    /// The App that must mint, if the policy says so.
    pub pin: Option<String>,
}

/// Which repositories a policy's tokens reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The repository that holds the policy.
    Own,
    /// All that the installation sees.
    All,
    /// These.
    These(Vec<String>),
}

impl Policy {
    /// What the policy gives.
    pub fn access(&self) -> Access {
        let mut who = vec![field("issuer", &self.issuer), field("subject", &self.subject)];
        who.push(match &self.audience {
            Some(audience) => field("audience", audience),
            None => ("audience".to_owned(), "the default".to_owned()),
        });
        let claims = self.claims.iter();
        who.extend(
            claims.map(|(name, pattern)| {
                (format!("claim_pattern.{name}"), pattern.as_str().to_owned())
            }),
        );
        Access {
            who,
            permissions: self.permissions.clone(),
            reach: self.reach(),
            pin: self.pin.as_ref().map(|pin| match pin {
                AppPin::Exact(app) => app.clone(),
                AppPin::Pattern(pattern) => pattern.as_str().to_owned(),
            }),
        }
    }

    /// The policy's members as its file writes them; `repositories` only if it names some.
    pub fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        let matchers = [("issuer", Some(&self.issuer)), ("subject", Some(&self.subject))];
        for (name, matcher) in matchers.into_iter().chain([("audience", self.audience.as_ref())]) {
            let Some(matcher) = matcher else { continue };
            let (name, value) = field(name, matcher);
            members.insert(name, value.into());
        }
        if !self.claims.is_empty() {
            let claims = self.claims.iter();
            let claims = claims.map(|(name, pattern)| (name.clone(), pattern.as_str().into()));
            members.insert("claim_pattern".into(), Value::Object(claims.collect()));
        }
        let permissions = self.permissions.iter();
        let permissions = permissions.map(|(name, level)| (name.clone(), level.as_str().into()));
        members.insert("permissions".into(), Value::Object(permissions.collect()));
        if let Reach::These(names) = self.reach() {
            members.insert("repositories".into(), names.into());
        }
        match &self.pin {
            Some(AppPin::Exact(app)) => drop(members.insert("app".into(), app.clone().into())),
            Some(AppPin::Pattern(pattern)) => {
                members.insert("app_pattern".into(), pattern.as_str().into());
            }
            None => {}
        }
        members
    }

    pub(super) fn reach(&self) -> Reach {
        match (&self.coverage, self.kind) {
            (Coverage::Unlisted, PolicyKind::Repository) => Reach::Own,
            (Coverage::Unlisted | Coverage::All, _) => Reach::All,
            (Coverage::Listed { names, .. }, _) => {
                Reach::These(names.iter().map(ToString::to_string).collect())
            }
        }
    }
}

fn field(name: &str, matcher: &Matcher) -> (String, String) {
    let suffix = match matcher {
        Matcher::Exact(_) => "",
        Matcher::Pattern(_) => "_pattern",
    };
    (format!("{name}{suffix}"), matcher.as_str().to_owned())
}
