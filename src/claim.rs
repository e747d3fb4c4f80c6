//! A claim by its name or path, and what of it a pattern is held against.

use serde_json::{Map, Value};

/// Longer texts never match: a pattern's time grows with the text, and no claim is that long.
const MAX_TEXT_BYTES: usize = 4 * 1024;

/// Finds a claim. A name is looked up as it stands; if absent, as a path: at each level the
/// longest existing key that is the rest of the name, or is followed in it by `/`, is taken. So
/// `kubernetes.io/namespace` is `namespace` inside `kubernetes.io`. There is no way back: where
/// the longest key leads nowhere, a shorter one is not tried, and a token has one meaning.
pub fn lookup<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let (mut level, mut rest) = (claims, name);
    loop {
        if let Some(value) = level.get(rest) {
            return Some(value);
        }
        let (value, after) = rest.rmatch_indices('/').find_map(|(at, _)| {
            let (key, after) = (rest.get(..at)?, rest.get(at + 1..)?);
            Some((level.get(key)?, after))
        })?;
        (level, rest) = (value.as_object()?, after);
    }
}

/// Whether a claim's value satisfies a test on texts: strings by their text, booleans and
/// integers by their literal, an array if any of its strings does; objects, floats and null never.
pub(crate) fn matches(value: &Value, test: impl Fn(&str) -> bool) -> bool {
    let short = |text: &str| text.len() <= MAX_TEXT_BYTES && test(text);
    match value {
        Value::String(text) => short(text),
        Value::Bool(_) => test(&value.to_string()),
        Value::Number(number) if number.is_i64() || number.is_u64() => test(&number.to_string()),
        Value::Array(items) => items.iter().filter_map(Value::as_str).any(short),
        Value::Number(_) | Value::Null | Value::Object(_) => false,
    }
}

/// The lengths of the texts that [`matches`] tests at most, in bytes.
pub(crate) fn text_lengths(value: &Value) -> Vec<usize> {
    let mut lengths = Vec::new();
    let found = std::cell::RefCell::new(&mut lengths);
    matches(value, |text| {
        found.borrow_mut().push(text.len());
        false
    });
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Map<String, Value> {
        let value = serde_json::json!({
            "plain": "p", "a/b": "as it stands", "a": { "b": "inside", "c": { "d": "deep" } },
            "kubernetes.io": { "namespace": "default", "pod": { "name": "web" } },
            "https://sts.amazonaws.com/": { "aws_account": "123", "request_tags": { "team/x": "y" } },
            "x": { "y/z": "1" }, "x/y": { "w": "2" }, "t": "text", "n": null, "": { "e": "empty" },
        });
        value.as_object().unwrap().clone()
    }

    #[test]
    fn names_are_looked_up_as_they_stand_and_then_as_paths() {
        let claims = claims();
        let text = |name: &str| lookup(&claims, name).and_then(Value::as_str);
        for (name, value) in [
            ("plain", "p"),
            ("a/b", "as it stands"),
            ("a/c/d", "deep"),
            ("kubernetes.io/namespace", "default"),
            ("kubernetes.io/pod/name", "web"),
            ("https://sts.amazonaws.com//aws_account", "123"),
            ("https://sts.amazonaws.com//request_tags/team/x", "y"),
            ("x/y/w", "2"),
            ("/e", "empty"),
        ] {
            assert_eq!(text(name), Some(value), "{name}");
        }
        assert_eq!(lookup(&claims, "n"), Some(&Value::Null));
    }

    #[test]
    fn the_longest_key_is_taken_without_a_way_back() {
        let claims = claims();
        // `x/y` exists, so `x` is not tried, though `y/z` stands in it
        for absent in [
            "x/y/z",
            "t/u",
            "a/c/",
            "kubernetes.io",
            "kubernetes.io/",
            "kubernetes.io/pod/uid",
            "",
            "A/B",
            "n/x",
        ] {
            assert!(!matches!(lookup(&claims, absent), Some(Value::String(_))), "{absent}");
        }
        assert_eq!(lookup(&claims, "x/y/z"), None);
    }

    #[test]
    fn values_match_by_their_text() {
        let is = |value: Value, wanted: &str| matches(&value, |text| text == wanted);
        assert!(is("x".into(), "x") && is(true.into(), "true") && is(false.into(), "false"));
        assert!(
            is(42.into(), "42")
                && is((-7).into(), "-7")
                && is(u64::MAX.into(), "18446744073709551615")
        );
        assert!(is(serde_json::json!(["a", "b"]), "b"));
        assert!(!is(serde_json::json!([1, true, ["x"], {"x": "x"}]), "x"));
    }

    #[test]
    fn objects_floats_null_and_long_texts_never_match() {
        let any = |value: Value| matches(&value, |_| true);
        for never in [
            Value::Null,
            serde_json::json!({"a": 1}),
            1.0.into(),
            1e3.into(),
            serde_json::json!([]),
            serde_json::json!([1]),
        ] {
            assert!(!any(never.clone()), "{never}");
        }
        assert!(any("x".repeat(4096).into()));
        assert!(!any("x".repeat(4097).into()));
        assert!(!any(serde_json::json!(["x".repeat(4097)])));
    }
}
