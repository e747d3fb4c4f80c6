//! The operator's requirements for an issuer's tokens, beyond those for all tokens.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{algorithm::Algorithm, error::Unfit};
use crate::{
    claim,
    clock::{UnixTime, in_words},
};

/// What happens when a token is exchanged a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// It is exchanged again.
    #[default]
    Off,
    /// It is exchanged again, and the record says so.
    Warn,
    /// It is refused.
    Enforce,
}

impl Replay {
    /// All of them, by name.
    pub const NAMES: &[(&str, Self)] =
        &[("off", Self::Off), ("warn", Self::Warn), ("enforce", Self::Enforce)];
}

/// The rules of one entry of the issuers file. None are the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rules {
    /// The only algorithms.
    pub(super) algorithms: Option<Vec<Algorithm>>,
    /// The longest life, `exp - iat`.
    pub(super) max_lifetime: Option<Duration>,
    /// The longest time since `iat`.
    pub(super) max_age: Option<Duration>,
    /// Whether there must be a `jti`.
    pub(super) require_jti: bool,
    /// Claims that must be there, by name or path.
    pub(super) require_claims: Vec<String>,
    /// What happens when a token is exchanged a second time, if it is not what happens to others.
    pub(super) replay: Option<Replay>,
}

/// The times of a token that was signed, as far as it has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) now: UnixTime,
    pub(super) issued_at: Option<UnixTime>,
    pub(super) expires_at: UnixTime,
}

impl Rules {
    /// Whether a token is fit, whose signature and times were found right.
    pub(super) fn check(
        &self,
        algorithm: Algorithm,
        claims: &Map<String, Value>,
        life: Life,
    ) -> Result<(), Unfit> {
        if self.algorithms.as_ref().is_some_and(|allowed| !allowed.contains(&algorithm)) {
            return Err(Unfit::Algorithm(algorithm.name()));
        }
        self.check_life(life)?;
        if self.require_jti
            && !claims.get("jti").is_some_and(|id| id.is_string() && says_something(id))
        {
            return Err(Unfit::Missing("jti".to_owned()));
        }
        let missing = |name: &&String| !claim::lookup(claims, name).is_some_and(says_something);
        match self.require_claims.iter().find(missing) {
            Some(name) => Err(Unfit::Missing(name.clone())),
            None => Ok(()),
        }
    }

    fn check_life(&self, Life { now, issued_at, expires_at }: Life) -> Result<(), Unfit> {
        if self.max_lifetime.is_none() && self.max_age.is_none() {
            return Ok(());
        }
        let issued_at = issued_at.ok_or_else(|| Unfit::Missing("iat".to_owned()))?;
        match (self.max_lifetime, self.max_age) {
            (Some(most), _) if expires_at.since(issued_at) > most => {
                Err(Unfit::LongLived(in_words(most)))
            }
            (_, Some(most)) if now.since(issued_at) > most => Err(Unfit::Old(in_words(most))),
            _ => Ok(()),
        }
    }
}

/// A claim that is there but empty is as good as none.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(rules: &Rules, claims: Value) -> Result<(), Unfit> {
        let moment = |name: &str| claims.get(name).and_then(Value::as_i64).map(UnixTime::from_secs);
        let life = Life {
            now: UnixTime::from_secs(1000),
            issued_at: moment("iat"),
            expires_at: moment("exp").unwrap_or(UnixTime::from_secs(2000)),
        };
        rules.check(Algorithm::Rs256, claims.as_object().unwrap(), life)
    }

    fn missing(name: &str) -> Result<(), Unfit> {
        Err(Unfit::Missing(name.to_owned()))
    }

    #[test]
    fn no_rules_ask_for_nothing() {
        assert_eq!(check(&Rules::default(), json!({})), Ok(()));
    }

    #[test]
    fn algorithms_are_those_listed() {
        let only = |algorithm| Rules { algorithms: Some(vec![algorithm]), ..Rules::default() };
        assert_eq!(check(&only(Algorithm::Rs256), json!({})), Ok(()));
        assert_eq!(check(&only(Algorithm::Es256), json!({})), Err(Unfit::Algorithm("RS256")));
    }

    #[test]
    fn a_life_is_counted_from_iat_which_must_be_there() {
        let short = Rules { max_lifetime: Some(Duration::from_secs(600)), ..Rules::default() };
        assert_eq!(check(&short, json!({"iat": 900, "exp": 1500})), Ok(()));
        assert_eq!(
            check(&short, json!({"iat": 900, "exp": 1501})),
            Err(Unfit::LongLived("10m".into()))
        );
        assert_eq!(
            check(&short, json!({"iat": -9_000_000_000_000_000_i64, "exp": 1501})),
            Err(Unfit::LongLived("10m".into()))
        );
        assert_eq!(check(&short, json!({"exp": 1100})), missing("iat"));
        let young = Rules { max_age: Some(Duration::from_secs(90)), ..Rules::default() };
        assert_eq!(check(&young, json!({"iat": 910})), Ok(()));
        assert_eq!(check(&young, json!({"iat": 909})), Err(Unfit::Old("90s".into())));
        // What is still to come within the leeway is no age at all.
        assert_eq!(check(&young, json!({"iat": 1030})), Ok(()));
        assert_eq!(check(&young, json!({})), missing("iat"));
    }

    #[test]
    fn an_id_is_a_text_that_is_not_empty() {
        let rules = Rules { require_jti: true, ..Rules::default() };
        assert_eq!(check(&rules, json!({"jti": "a"})), Ok(()));
        for claims in [
            json!({}),
            json!({"jti": ""}),
            json!({"jti": null}),
            json!({"jti": 5}),
            json!({"jti": ["a"]}),
        ] {
            assert_eq!(check(&rules, claims.clone()), missing("jti"), "{claims}");
        }
    }

    #[test]
    fn claims_are_found_by_name_or_path_and_say_something() {
        let rules = Rules {
            require_claims: vec!["a".into(), "kubernetes.io/pod".into()],
            ..Rules::default()
        };
        let pod = json!({"name": "web"});
        assert_eq!(check(&rules, json!({"a": false, "kubernetes.io": {"pod": pod}})), Ok(()));
        assert_eq!(check(&rules, json!({"a": 0, "kubernetes.io/pod": "x"})), Ok(()));
        assert_eq!(check(&rules, json!({"kubernetes.io": {"pod": pod}})), missing("a"));
        for empty in [json!(null), json!(""), json!({}), json!([])] {
            let claims = json!({"a": 1, "kubernetes.io": {"pod": empty}});
            assert_eq!(check(&rules, claims.clone()), missing("kubernetes.io/pod"), "{claims}");
        }
    }
}
