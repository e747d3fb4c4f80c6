//! Lone surrogate escapes in JSON.
//!
//! `"\ud800"` is half of a character. Go reads it as U+FFFD, so tokens that have one in some claim
//! work there, and the JSON library here refuses the whole text. A string with such an escape
//! becomes an empty array before the text is parsed: no condition of a policy matches that, and no
//! claim that is required may be one. In a member's name the escape becomes U+FFFD, as in Go.

use std::borrow::Cow;

/// The text with no lone surrogate escape in it.
pub(super) fn replace(text: Vec<u8>) -> Vec<u8> {
    match replaced(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(replaced) => replaced,
    }
}

fn replaced(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.windows(3).any(|three| matches!(three, [b'\\', b'u', b'd' | b'D'])) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest, mut has_changed) = (Vec::with_capacity(text.len()), text, false);
    while let Some(start) = rest.iter().position(|byte| *byte == b'"') {
        let (before, from_quote) = rest.split_at(start);
        let Some(end) = end_of_string(from_quote) else { break };
        let (literal, after) = from_quote.split_at(end);
        out.extend_from_slice(before);
        match without_lone_surrogates(literal) {
            Some(readable) => {
                has_changed = true;
                let is_name = after.trim_ascii_start().first() == Some(&b':');
                out.extend_from_slice(if is_name { &readable } else { b"[]" });
            }
            None => out.extend_from_slice(literal),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    if has_changed { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// Behind the closing quote of a text that starts with a quote.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut bytes = text.iter().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    None
}

/// The string literal with U+FFFD for each lone surrogate, if it has one and is otherwise well
/// formed.
fn without_lone_surrogates(literal: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut is_changed) = (Vec::with_capacity(literal.len()), literal, false);
    loop {
        let (taken, becomes) = match rest {
            [] => break,
            [b'\\', b'u', ..] => match (escaped(rest), rest.get(6..).and_then(escaped)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
                (Some(0xd800..=0xdfff), _) => (6, Some(&br"\ufffd"[..])),
                _ => (2, None),
            },
            [b'\\', _, ..] => (2, None),
            _ => (1, None),
        };
        let (taken, after) = rest.split_at(taken.min(rest.len()));
        is_changed |= becomes.is_some();
        out.extend_from_slice(becomes.unwrap_or(taken));
        rest = after;
    }
    (is_changed && serde_json::from_slice::<String>(&out).is_ok()).then_some(out)
}

/// The code unit of an escape `\uXXXX` at the start of the text.
fn escaped(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    u16::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> String {
        String::from_utf8(replace(text.into())).unwrap()
    }

    #[test]
    fn a_string_with_half_a_character_becomes_one_that_nothing_matches() {
        for (text, expected) in [
            (r#"{"a":"\ud800"}"#, r#"{"a":[]}"#),
            (r#"{"a":"x\uDFFFy","b":"z"}"#, r#"{"a":[],"b":"z"}"#),
            (r#"{"a":["\ud800","b",{"c":"\udc00\ud800"}]}"#, r#"{"a":[[],"b",{"c":[]}]}"#),
            (r#"{"a":"\ud800A"}"#, r#"{"a":[]}"#),
            (r#"{"a":"\ud800\ud83d\ude00"}"#, r#"{"a":[]}"#),
            (r#"{"a":"\"\\\ud800"}"#, r#"{"a":[]}"#),
            (r#"{"\ud800x" : "\ud800"}"#, r#"{"\ufffdx" : []}"#),
        ] {
            assert_eq!(replaced(text), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_stays_as_it_is() {
        for text in [
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"a":"\uD83D\uDE00 \u00e9 \\ud800"}"#,
            r#"{"a":"\\\\ud800"}"#,
            r#"{"a":"x"}"#,
            "",
            "\"",
            r#"{"a":"\ud800"#,
            r#"{"a":"\ud8"}"#,
            r#"{"a":"\ud800\x"}"#,
            "{\"a\":\"\\ud800\n\"}",
        ] {
            assert_eq!(replaced(text), text);
        }
        assert_eq!(replace(b"{\"a\":\"\\ud800\xff\"}".to_vec()), b"{\"a\":\"\\ud800\xff\"}");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_other_json_is_never_changed() {
        use proptest::prelude::*;
        proptest!(|(text in r#"[\\"ud8cDC0fF:{}\[\]a, ]{0,40}"#)| {
            let replaced = replaced(&text);
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert_eq!(replaced, text);
            }
        });
    }
}
