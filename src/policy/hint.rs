//! Hints for the most frequent mistakes of policy authors. A hint about a value is given only where
//! it is known to be right: with the change that it proposes, the value would have matched.

use super::{
    compile::Matcher,
    slip::{self, SPECIAL},
};
use serde_json::{Map, Value};

use crate::{claim, pattern::Pattern};

/// Longer texts get no hint: finding one must stay cheap.
const MAX_BYTES: usize = 256;
/// Names and paths of claims that are compared.
const MAX_PATHS: usize = 256;
/// Strings of an array that are compared.
const MAX_ITEMS: usize = 4;

/// Why a value may have failed a condition, in terms of that condition's field.
pub(super) fn mismatch(field: &str, wanted: &Matcher, got: &str) -> Option<String> {
    let text = wanted.as_str();
    if text.len() > MAX_BYTES || got.len() > MAX_BYTES * 4 {
        return None;
    }
    if slip::is_template(text) {
        return Some("the policy has a placeholder that was not filled in".to_owned());
    }
    let repaired = slip::without_globs(text);
    let is_glob = glob(text, got)
        || repaired.as_ref().is_some_and(|repaired| reads_as_pattern(repaired, got));
    match wanted {
        Matcher::Exact(_) if text.contains(SPECIAL) && reads_as_pattern(text, got) => {
            Some(format!("`{field}` is compared literally; did you mean `{field}_pattern`?"))
        }
        Matcher::Exact(_) if is_glob => {
            Some(format!("`{field}` is compared literally; did you mean `{field}_pattern`, with `.*` for any text?"))
        }
        Matcher::Pattern(_) if is_glob => Some(
            "this pattern reads like a glob; in a pattern, `*` repeats the character before it, and `.*` is any text"
                .to_owned(),
        ),
        Matcher::Exact(_) | Matcher::Pattern(_) => nearly(wanted, got),
    }
}

/// What sets a value apart that is nearly the one expected.
fn nearly(wanted: &Matcher, got: &str) -> Option<String> {
    let text = wanted.as_str();
    let without_slash = |text: &str| text.strip_suffix('/').map(str::to_owned);
    if without_slash(text).as_deref() == Some(got) || without_slash(got).as_deref() == Some(text) {
        return Some("the values differ in the slash at the end only".to_owned());
    }
    match wanted {
        Matcher::Exact(_) if text.eq_ignore_ascii_case(got) => Some("the values differ in letter case only".to_owned()),
        Matcher::Pattern(_) if reads_as_pattern(&format!("(?s:.*)(?:{text})(?s:.*)"), got) => Some(
            "the pattern matches only a part of the value, and it must match the whole; add `.*` where any text may be"
                .to_owned(),
        ),
        Matcher::Exact(_) | Matcher::Pattern(_) => None,
    }
}

/// Why a claim that is there may have failed.
pub(super) fn value(name: &str, pattern: &Pattern, value: &Value) -> Option<String> {
    match value {
        Value::String(got) => {
            let file =
                got.split_once('@').map(|(file, _)| file).filter(|_| slip::has_ref_suffix(name));
            // Not with the pattern itself: it may be costly.
            if file.is_some_and(|file| {
                pattern.as_str().len() <= MAX_BYTES && reads_as_pattern(pattern.as_str(), file)
            }) {
                return Some(format!(
                    "the value of `{name}` ends with `@` and a ref; add `@` and a pattern of the ref"
                ));
            }
            mismatch(name, &Matcher::Pattern(pattern.clone()), got)
        }
        Value::Array(items) if !items.iter().any(Value::is_string) => {
            Some("an array matches by its strings, and this one has none".to_owned())
        }
        Value::Array(items) => items.iter().take(MAX_ITEMS).find_map(|item| {
            item.as_str().and_then(|got| mismatch(name, &Matcher::Pattern(pattern.clone()), got))
        }),
        Value::Object(_) => Some(format!(
            "this claim is an object, which never matches; name a member, `{name}/MEMBER`"
        )),
        Value::Number(number) if !number.is_i64() && !number.is_u64() => Some(
            "this claim is a number with a fraction or an exponent, which never matches".to_owned(),
        ),
        Value::Null => Some("this claim is null, which never matches".to_owned()),
        Value::Number(_) | Value::Bool(_) => None,
    }
}

fn reads_as_pattern(text: &str, got: &str) -> bool {
    Pattern::compile_light(text).is_ok_and(|pattern| pattern.is_match(got))
}

/// Why a subject may have failed: one side has GitHub's immutable form, with ids, and the other
/// not.
pub(super) fn subject(wanted: &Matcher, got: &str) -> Option<String> {
    if let Some(named) = without_ids(got) {
        return wanted.is_match(&named).then(|| {
            format!(
                "the token's subject has the immutable form with ids, `repo:OWNER@ID/REPO@ID:…`, \
                 and the policy names owner and repository without them; it would have to name `{}`",
                prefix(got)
            )
        });
    }
    let text = wanted.as_str();
    let named = if text.len() <= MAX_BYTES { without_written_ids(text) } else { None }?;
    let matches = match wanted {
        Matcher::Exact(_) => named == got,
        Matcher::Pattern(_) => reads_as_pattern(&named, got),
    };
    matches.then(|| {
        "the policy names owner and repository with ids, `repo:OWNER@ID/REPO@ID:…`, \
         and the token's subject has none: the repository does not use immutable subjects"
            .to_owned()
    })
}

/// `repo:OWNER@1/REPO@2` of a subject.
fn prefix(subject: &str) -> &str {
    let end = subject.match_indices(':').nth(1).map_or(subject.len(), |(at, _)| at);
    subject.get(..end).unwrap_or_default()
}

/// A subject condition without `@` and the digits, or the pattern of digits, that follow it.
fn without_written_ids(text: &str) -> Option<String> {
    const DIGITS: [&str; 4] = ["[0-9]+", r"\d+", "[0-9]*", r"\d*"];
    let (start, rest) = text.split_at(text.find("repo:")?);
    let mut parts = rest.split('@');
    let mut named = format!("{start}{}", parts.next()?);
    let mut is_changed = false;
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let pattern = DIGITS
            .iter()
            .find(|digits| part.starts_with(**digits))
            .map_or(0, |digits| digits.len());
        match digits.max(pattern) {
            0 => named.push('@'),
            _ => is_changed = true,
        }
        named.push_str(part.get(digits.max(pattern)..)?);
    }
    is_changed.then_some(named)
}

/// Why the subject of a Kubernetes token may have failed: what it names, the policy names
/// otherwise.
pub(super) fn service_account(wanted: &Matcher, got: &str) -> Option<String> {
    const PREFIX: &str = "system:serviceaccount:";
    let Matcher::Exact(wanted) = wanted else { return None };
    let (namespace, name) = got.strip_prefix(PREFIX)?.split_once(':')?;
    Some(match wanted.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')) {
        Some((wanted, same)) if same == name => {
            format!(
                "the service account is that of another namespace: `{namespace}`, not `{wanted}`"
            )
        }
        Some((same, wanted)) if same == namespace => {
            format!("it is another service account of that namespace: `{name}`, not `{wanted}`")
        }
        Some(_) => return None,
        None => "a service account's subject is `system:serviceaccount:NAMESPACE:NAME`".to_owned(),
    })
}

/// Where a claim may be that is not there by its name: the same words joined otherwise, the same
/// inside `kubernetes.io`, or a name that is spelled nearly so.
pub(super) fn claim(claims: &Map<String, Value>, name: &str) -> Option<String> {
    if name.len() > MAX_BYTES {
        return None;
    }
    let wanted = words(name);
    let mut paths = Vec::new();
    collect_paths(claims, "", &mut paths);
    let same =
        paths.iter().find(|path| words(path) == wanted && claim::lookup(claims, path).is_some());
    let inside = || {
        let inside = format!("kubernetes.io/{name}");
        let wanted = words(&inside);
        paths
            .iter()
            .find(|path| words(path) == wanted && !wanted.is_empty())
            .filter(|_| !name.is_empty())
    };
    let misspelt = || {
        let edits = |path: &&String| strsim::osa_distance(path, name);
        let max_edits = name.chars().count() / 5;
        let near = paths.iter().filter(|path| path.len().abs_diff(name.len()) <= 2);
        near.min_by_key(edits).filter(|path| edits(path) <= max_edits.min(2))
    };
    let found = same.or_else(inside).or_else(misspelt)?;
    Some(format!("the token has no such claim; did you mean `{found}`?"))
}

/// The names and paths of a token's claims.
fn collect_paths(level: &Map<String, Value>, before: &str, paths: &mut Vec<String>) {
    for (key, value) in level {
        if paths.len() >= MAX_PATHS {
            return;
        }
        let path = if before.is_empty() { key.clone() } else { format!("{before}/{key}") };
        if path.len() > MAX_BYTES {
            continue;
        }
        if let Value::Object(inner) = value {
            collect_paths(inner, &path, paths);
        }
        paths.push(path);
    }
}

/// What a name is made of, however it is joined: `kubernetes.io/pod/name` and
/// `kubernetes.io.pod.name` are one.
fn words(name: &str) -> Vec<&str> {
    name.split(['/', '.', ':']).filter(|word| !word.is_empty()).collect()
}

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
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
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
            assert!(
                mismatch("subject", &exact(text), MAIN).unwrap().contains("`subject_pattern`"),
                "{text}"
            );
        }
        for text in [
            "repo:o/r:ref:refs/heads/other",
            "repo:o/r:environment:my env (x) +1",
            "repo:o/x:*",
            "repo:o/r:(a|b)",
        ] {
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
        assert!(
            mismatch("subject", &pattern("repo:o/*:ref:refs/heads/main"), MAIN)
                .unwrap()
                .contains("glob")
        );
        for text in ["repo:o/*:ref:refs/(heads|tags)/.*", "repo:*:ref:refs/heads/.*"] {
            assert!(mismatch("subject", &pattern(text), MAIN).unwrap().contains("glob"), "{text}");
        }
        for text in ["repo:o/.*:refs/tags/.*", "repo:o/x:*"] {
            assert_eq!(mismatch("subject", &pattern(text), MAIN), None, "{text}");
        }
    }

    #[test]
    fn an_immutable_subject_against_a_policy_of_names() {
        let immutable = "repo:o@1/r@22:ref:refs/heads/main";
        assert!(subject(&exact(MAIN), immutable).is_some());
        assert!(subject(&pattern("repo:o/r:.*"), immutable).is_some());
        assert_eq!(subject(&exact("repo:o/other:ref:refs/heads/main"), immutable), None);
        for other in
            [MAIN, "repo:o@x/r@2:ref", "repo:o@/r@2:ref", "o@1/r@2:x", "repo:o@1", "repo:o@1/r"]
        {
            assert_eq!(subject(&pattern(".*nothing.*"), other), None, "{other}");
        }
    }

    #[test]
    fn a_policy_of_ids_against_a_subject_without() {
        for wanted in [
            exact("repo:o@1/r@22:ref:refs/heads/main"),
            pattern("repo:o@1/r@22:.*"),
            pattern(r"^repo:o@[0-9]+/r@\d+:ref:refs/heads/(main|x)$"),
        ] {
            assert!(subject(&wanted, MAIN).unwrap().contains("has none"), "{wanted:?}");
        }
        for wanted in [
            exact("repo:o@1/other@22:ref:refs/heads/main"),
            pattern("repo:o@x/r:.*"),
            pattern("a@1.*"),
        ] {
            assert_eq!(subject(&wanted, MAIN), None, "{wanted:?}");
        }
    }

    #[test]
    fn a_workflow_file_without_its_ref() {
        let got = Value::from("o/r/.github/workflows/x.yaml@refs/heads/main");
        let hint = |name: &str, text: &str| value(name, &Pattern::compile(text).unwrap(), &got);
        for text in ["o/r/.github/workflows/x.yaml", r"o/r/\.github/workflows/.*\.yaml"] {
            assert!(hint("job_workflow_ref", text).unwrap().contains("add `@`"), "{text}");
            assert!(hint("workflow_ref", text).unwrap().contains("add `@`"), "{text}");
            assert!(!hint("other", text).unwrap_or_default().contains("add `@`"), "{text}");
        }
        assert!(hint("job_workflow_ref", "o/r/*@refs/heads/main").unwrap().contains("glob"));
        assert_eq!(hint("job_workflow_ref", "o/other/x.yaml"), None);
    }

    #[test]
    fn values_that_never_match() {
        let hint = |got: serde_json::Value| {
            value("c", &Pattern::compile("1").unwrap(), &got).unwrap_or_default()
        };
        assert!(hint(serde_json::json!([1, 2])).contains("has none"));
        assert!(hint(serde_json::json!({"a": 1})).contains("`c/MEMBER`"));
        assert!(hint(serde_json::json!(1.5)).contains("fraction"));
        assert!(hint(Value::Null).contains("null"));
        assert_eq!(hint(serde_json::json!(2)), "");
        assert_eq!(hint(serde_json::json!(["2"])), "");
        assert!(hint(serde_json::json!(["x1"])).contains("part of the value"));
    }

    #[test]
    fn values_that_are_nearly_right() {
        let hint =
            |wanted: Matcher, got: &str| mismatch("issuer", &wanted, got).unwrap_or_default();
        assert!(hint(exact("https://a.example/"), "https://a.example").contains("slash"));
        assert!(hint(exact("https://a.example"), "https://a.example/").contains("slash"));
        assert!(hint(exact("repo:Acme/app:x"), "repo:acme/app:x").contains("letter case"));
        assert!(hint(pattern("main|develop"), "refs/heads/main").contains("part of the value"));
        assert!(hint(pattern("repo:\\$\\{repo\\}"), "x").is_empty());
        assert!(hint(exact("repo:${repo}:ref"), "x").contains("placeholder"));
        assert_eq!(hint(pattern("a|b"), "c"), "");
    }

    #[test]
    fn a_service_account_that_is_not_quite_the_policys() {
        let got = "system:serviceaccount:staging:deployer";
        let hint = |wanted: &str| service_account(&exact(wanted), got).unwrap_or_default();
        assert!(
            hint("system:serviceaccount:production:deployer")
                .contains("`staging`, not `production`")
        );
        assert!(
            hint("system:serviceaccount:staging:builder").contains("`deployer`, not `builder`")
        );
        assert!(hint("staging:deployer").contains("`system:serviceaccount:NAMESPACE:NAME`"));
        assert_eq!(hint("system:serviceaccount:production:builder"), "");
        assert_eq!(service_account(&pattern("x"), got), None);
        for other in ["repo:o/r:ref", "system:serviceaccount:x", "system:node:x"] {
            assert_eq!(service_account(&exact("x"), other), None, "{other}");
        }
    }

    #[test]
    fn a_claim_that_is_elsewhere() {
        let claims = serde_json::json!({
            "kubernetes.io": {"namespace": "x", "pod": {"name": "y"}}, "a.b": "c", "repository": "o/r",
            "job_workflow_ref": "w", "https://sts.amazonaws.com/": {"aws_account": "1"},
        });
        let hint = |name: &str| claim(claims.as_object().unwrap(), name);
        for (name, path) in [
            ("kubernetes.io.namespace", "`kubernetes.io/namespace`"),
            ("kubernetes.io/pod.name", "`kubernetes.io/pod/name`"),
            ("namespace", "`kubernetes.io/namespace`"),
            ("pod/name", "`kubernetes.io/pod/name`"),
            ("kubernetes.io.pod.name", "`kubernetes.io/pod/name`"),
            ("https://sts.amazonaws.com/aws_account", "`https://sts.amazonaws.com//aws_account`"),
            ("repositroy", "`repository`"),
            ("job-workflow-ref", "`job_workflow_ref`"),
        ] {
            assert!(hint(name).unwrap().contains(path), "{name}");
        }
        for name in ["a.c", "", "ü.ö", "node", "x", "kubernetes.io/pod/uid/x"] {
            assert_eq!(hint(name), None, "{name}");
        }
    }

    #[test]
    fn globs_match_whole_texts() {
        for (g, text) in [
            ("a*c", "abc"),
            ("*", ""),
            ("a*b*c", "aXbYc"),
            ("abc", "abc"),
            ("*c", "c"),
            ("a**b", "ab"),
        ] {
            assert!(glob(g, text), "{g} {text}");
        }
        for (g, text) in
            [("a*c", "ab"), ("abc", "abcd"), ("a*b*c", "acb"), ("ab*ba", "aba"), ("*x", "")]
        {
            assert!(!glob(g, text), "{g} {text}");
        }
    }
}
