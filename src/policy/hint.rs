//! Hints for the mistakes that policy authors make most. Each is given only where it is known to
//! be right: where mending what it names would have made the value match.

use super::compile::Matcher;
use serde_json::{Map, Value};

use crate::{claim, pattern::Pattern};

/// Longer texts get no hint: finding one must stay cheap.
const MOST_BYTES: usize = 256;

/// Why a value may have failed a condition, by the words of that condition's field.
pub(super) fn mismatch(field: &str, wanted: &Matcher, got: &str) -> Option<String> {
    let text = wanted.as_str();
    if text.len() > MOST_BYTES || got.len() > MOST_BYTES * 4 {
        return None;
    }
    match wanted {
        Matcher::Exact(_) if text.contains(SPECIAL) && reads_as_pattern(text, got) => {
            Some(format!("`{field}` is compared as it stands; did you mean `{field}_pattern`?"))
        }
        Matcher::Exact(_) if glob(text, got) => {
            Some(format!("`{field}` is compared as it stands; did you mean `{field}_pattern`, with `.*` for any text?"))
        }
        Matcher::Pattern(_) if glob(text, got) => Some(
            "this pattern reads like a glob; in a pattern, `*` repeats what stands before it, and any text is `.*`"
                .into(),
        ),
        Matcher::Exact(_) | Matcher::Pattern(_) => None,
    }
}

fn reads_as_pattern(text: &str, got: &str) -> bool {
    Pattern::compile_light(text).is_ok_and(|pattern| pattern.is_match(got))
}

/// Why a subject may have failed: GitHub's immutable form carries ids that the policy does not.
pub(super) fn subject(wanted: &Matcher, got: &str) -> Option<String> {
    let named = without_ids(got).filter(|named| wanted.is_match(named));
    named.map(|_| {
        "the token's subject has the immutable form, `repo:OWNER@ID/REPO@ID:…`; the policy names owner and repository without ids"
            .to_owned()
    })
}

/// Why the subject of a Kubernetes token may have failed: what it names, the policy names otherwise.
pub(super) fn service_account(wanted: &Matcher, got: &str) -> Option<String> {
    const PREFIX: &str = "system:serviceaccount:";
    let Matcher::Exact(wanted) = wanted else { return None };
    let (namespace, name) = got.strip_prefix(PREFIX)?.split_once(':')?;
    Some(match wanted.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')) {
        Some((wanted, same)) if same == name => {
            format!("the service account is that of another namespace: `{namespace}`, not `{wanted}`")
        }
        Some((same, wanted)) if same == namespace => {
            format!("it is another service account of that namespace: `{name}`, not `{wanted}`")
        }
        Some(_) => return None,
        None => "a service account's subject is `system:serviceaccount:NAMESPACE:NAME`".to_owned(),
    })
}

/// Where a claim may be that is not there by its name: one level of the path spelled otherwise.
pub(super) fn claim(claims: &Map<String, Value>, name: &str) -> Option<String> {
    if name.len() > MOST_BYTES {
        return None;
    }
    let at_dot = |(at, _)| Some(format!("{}/{}", name.get(..at)?, name.get(at + 1..)?));
    let dotted = name.match_indices('.').filter_map(at_dot);
    let inside = [format!("kubernetes.io/{name}")];
    let found = dotted.chain(inside).find(|path| claim::lookup(claims, path).is_some())?;
    Some(format!("the token has no such claim; did you mean `{found}`?"))
}

/// Without one of these, a pattern is the text itself.
const SPECIAL: [char; 11] = ['.', '*', '+', '?', '(', '[', '{', '|', '^', '$', '\\'];

/// `repo:OWNER@1/REPO@2:REST` → `repo:OWNER/REPO:REST`.
fn without_ids(subject: &str) -> Option<String> {
    let (owner, rest) = subject.strip_prefix("repo:")?.split_once('/')?;
    let (repo, rest) = rest.split_once(':')?;
    let name = |text: &str| {
        let (name, id) = text.rsplit_once('@')?;
        (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then(|| name.to_owned())
    };
    Some(format!("repo:{}/{}:{rest}", name(owner)?, name(repo)?))
}

/// Whether a glob, in which `*` alone is special, matches a whole text.
fn glob(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Matcher {
        Matcher::Exact(text.into())
    }

    fn pattern(text: &str) -> Matcher {
        Matcher::Pattern(Pattern::compile(text).unwrap())
    }

    const MAIN: &str = "repo:o/r:ref:refs/heads/main";

    #[test]
    fn an_exact_field_that_holds_a_pattern() {
        for text in [
            "repo:o/r:.*",
            "repo:o/*:ref:refs/heads/main",
            "^repo:o/r:ref.*$",
            "repo:o/r:(ref|x):.+",
            r"repo:o/[rs]:ref:refs\/heads\/main",
        ] {
            assert!(mismatch("subject", &exact(text), MAIN).unwrap().contains("`subject_pattern`"), "{text}");
        }
        for text in
            ["repo:o/r:ref:refs/heads/other", "repo:o/r:environment:my env (x) +1", "repo:o/x:*", "repo:o/r:(a|b)"]
        {
            assert_eq!(mismatch("subject", &exact(text), MAIN), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_would_be_a_costly_pattern_gets_no_hint() {
        let (got, costly) = ("a".repeat(400), "(?:[a-zéß]{20}){20}");
        assert!(mismatch("subject", &exact("a{400}"), &got).is_some());
        assert!(Pattern::compile(costly).unwrap().is_match(&got));
        assert_eq!(mismatch("subject", &exact(costly), &got), None);
    }

    #[test]
    fn a_pattern_that_is_a_glob() {
        assert!(mismatch("subject", &pattern("repo:o/*:ref:refs/heads/main"), MAIN).unwrap().contains("glob"));
        for text in ["repo:o/.*:refs/tags/.*", "repo:o/x:*", "repo:o/r:ref"] {
            assert_eq!(mismatch("subject", &pattern(text), MAIN), None, "{text}");
        }
    }

    #[test]
    fn an_immutable_subject_against_a_policy_of_names() {
        let immutable = "repo:o@1/r@22:ref:refs/heads/main";
        assert!(subject(&exact(MAIN), immutable).is_some());
        assert!(subject(&pattern("repo:o/r:.*"), immutable).is_some());
        assert_eq!(subject(&exact("repo:o/other:ref:refs/heads/main"), immutable), None);
        for other in [MAIN, "repo:o@x/r@2:ref", "repo:o@/r@2:ref", "o@1/r@2:x", "repo:o@1", "repo:o@1/r"] {
            assert_eq!(subject(&pattern(".*nothing.*"), other), None, "{other}");
        }
    }

    #[test]
    fn a_service_account_that_is_not_quite_the_policys() {
        let got = "system:serviceaccount:staging:deployer";
        let hint = |wanted: &str| service_account(&exact(wanted), got).unwrap_or_default();
        assert!(hint("system:serviceaccount:production:deployer").contains("`staging`, not `production`"));
        assert!(hint("system:serviceaccount:staging:builder").contains("`deployer`, not `builder`"));
        assert!(hint("staging:deployer").contains("`system:serviceaccount:NAMESPACE:NAME`"));
        assert_eq!(hint("system:serviceaccount:production:builder"), "");
        assert_eq!(service_account(&pattern("x"), got), None);
        for other in ["repo:o/r:ref", "system:serviceaccount:x", "system:node:x"] {
            assert_eq!(service_account(&exact("x"), other), None, "{other}");
        }
    }

    #[test]
    fn a_claim_that_is_elsewhere() {
        let claims = serde_json::json!({"kubernetes.io": {"namespace": "x", "pod": {"name": "y"}}, "a.b": "c"});
        let hint = |name: &str| claim(claims.as_object().unwrap(), name);
        for (name, path) in [
            ("kubernetes.io.namespace", "`kubernetes.io/namespace`"),
            ("kubernetes.io/pod.name", "`kubernetes.io/pod/name`"),
            ("namespace", "`kubernetes.io/namespace`"),
            ("pod/name", "`kubernetes.io/pod/name`"),
        ] {
            assert!(hint(name).unwrap().contains(path), "{name}");
        }
        for name in ["a.c", "kubernetes.io.pod.name", "", "ü.ö", "node"] {
            assert_eq!(hint(name), None, "{name}");
        }
    }

    #[test]
    fn globs_match_whole_texts() {
        for (g, text) in [("a*c", "abc"), ("*", ""), ("a*b*c", "aXbYc"), ("abc", "abc"), ("*c", "c"), ("a**b", "ab")] {
            assert!(glob(g, text), "{g} {text}");
        }
        for (g, text) in [("a*c", "ab"), ("abc", "abcd"), ("a*b*c", "acb"), ("ab*ba", "aba"), ("*x", "")] {
            assert!(!glob(g, text), "{g} {text}");
        }
    }
}
