//! Texts that read one way, and those that do not.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

mod go;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    issuer: Option<String>,
    claim_pattern: BTreeMap<String, String>,
    repositories: Vec<String>,
    enabled: bool,
    port: Option<u16>,
}

fn read(text: &str) -> Result<Sample, Invalid> {
    load(text.as_bytes())
}

fn issuer(value: &str) -> Result<Option<String>, Invalid> {
    read(&format!("issuer: {value}\n")).map(|sample| sample.issuer)
}

fn refused(text: &str) -> String {
    match read(text) {
        Ok(sample) => panic!("{text:?} reads as {sample:?}"),
        Err(invalid) => invalid.to_string(),
    }
}

#[test]
fn texts_stand_for_themselves_however_they_are_written() {
    for (written, text) in [
        ("https://a.b", "https://a.b"),
        ("'yes'", "yes"),
        ("\"010\"", "010"),
        ("'null'", "null"),
        ("\"\"", ""),
        ("!!str 1.0", "1.0"),
        ("'2020-01-01'", "2020-01-01"),
        (">-\n  a\n  b", "a b"),
        ("|\n  a\n", "a\n"),
        ("a # comment", "a"),
        ("a#b", "a#b"),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        (".github", ".github"),
        ("yEs", "yEs"),
        ("0xg", "0xg"),
        ("1a", "1a"),
        ("repo:o/r:ref:refs/heads/main", "repo:o/r:ref:refs/heads/main"),
        ("12-34", "12-34"),
        ("--1", "--1"),
        ("1e", "1e"),
        ("e1", "e1"),
    ] {
        assert_eq!(issuer(written), Ok(Some(text.to_owned())), "{written}");
    }
}

#[test]
fn plain_booleans_and_integers_stand_for_their_text() {
    for text in ["true", "false", "0", "1", "-1", "42", "123456789012345678901234567890"] {
        assert_eq!(issuer(text), Ok(Some(text.to_owned())));
    }
    for null in ["", "~", "null", "Null", "NULL"] {
        assert_eq!(issuer(null), Ok(None), "{null}");
    }
}

/// Unquoted texts that YAML 1.1 or 1.2 gives a type.
const TYPED: &str = "\
    yes Yes YES no No NO on On ON off Off OFF y Y n N True TRUE False FALSE 010 00 -0 +1 0x1f 0b1 \
    0o17 1_000 12:30 12:30:45 1.0 1. .5 -1.5 1e3 1.5e+3 1e-3 .inf -.Inf .nan .NaN 2020-01-01 \
    2020-1-1 2020-01-01T00:00:00Z = << 190:20:30.15 6.8523015e+5 685_230.15 \
    0X1F +0X1F -0X1F +0x1f 0B11 -0B1 0O17 +0O17 -0o17 0_17 0_x1f 0x_1f 1_ 1__0 1e1_0 1_0e1 1_0.5 1._5 .5_ ._5 1E3 \
    1.e3 +.5 -.5 +.inf -.INF .NAN 1:20 -1:20 08 09 2020-1-1T1:2:3Z 2020-01-01t00:00:00.5+01:00 \
";

#[test]
fn plain_scalars_that_readers_type_differently_are_refused() {
    for text in TYPED.split_whitespace().chain(["2020-01-01 00:00:00 +1:00", "?r", "?r s"]) {
        let message = refused(&format!("issuer: {text}\n"));
        assert_eq!(message, format!("line 1, column 9: {}", scalar::AMBIGUOUS), "{text}");
    }
}

#[test]
fn characters_that_end_a_line_for_some_are_refused_wherever_they_stand() {
    for c in ['\u{85}', '\u{2028}', '\u{2029}'] {
        for (before, after, line, column) in [
            ("# c", "issuer: a\n", 1, 4),
            ("issuer: a", "b\n", 1, 10),
            ("issuer: 'a", "b'\n", 1, 11),
            ("issuer: \"a", "b\"\n", 1, 11),
            ("issuer: |\n  a", "b\n", 2, 4),
            ("issuer: >\r\n  a", "b\n", 2, 4),
            ("claim_pattern:\r  a", "b: c\n", 2, 4),
            ("issuer: a\n", "", 2, 1),
            ("", "issuer: a\n", 1, 1),
        ] {
            let message = refused(&format!("{before}{c}{after}"));
            let place =
                format!("line {line}, column {column}: YAML readers disagree on whether U+0085");
            assert!(message.starts_with(&place), "{before:?} {c:?}: {message}");
        }
    }
    assert_eq!(
        issuer(r#""\N\L\P\u2028\x85""#),
        Ok(Some("\u{85}\u{2028}\u{2029}\u{2028}\u{85}".into()))
    );
}

#[test]
fn what_the_parsers_of_two_yaml_versions_read_differently_is_refused() {
    for text in [
        "issuer: |\n  a",
        "issuer: >\n  a\n  ",
        "issuer: ",
        "\n...\nissuer: a\n",
        "issuer: a\n\t\nrepositories: []\n",
        "issuer: &a: x\n",
        "issuer: &a.b x\n",
        "issuer: &a x\nrepositories: [*a:]\n",
        "repositories: &a[b]\n",
        "issuer: \"\\/\"\n",
        "issuer: \"\\ud83d\\ude00\"\n",
        "repositories: [a?]\n",
        "repositories: [:a]\n",
        "claim_pattern: {a:}\n",
        "claim_pattern: {a\n: b}\n",
        "claim_pattern: {a\n  b: c}\n",
        "issuer: !!str\n",
        "%YAML 1.2\n---\nissuer: a\n",
        "%TAG ! b\n---\nissuer: a\n",
        "%a\n---\nissuer: a\n",
        "\tissuer: a\n",
        "repositories:\n  -\ta\n",
        "issuer: |\n  \ta\n",
        "claim_pattern:\n  y: a\n",
        "claim_pattern: {N: a}\n",
        "claim_pattern: {9223372036854775808: a}\n",
    ] {
        refused(text);
    }
    for text in [
        "issuer: |-\n  a",
        "issuer: &a-b_1 a\n",
        "issuer: \"a\"",
        "{\"issuer\":\"a\"}",
        "issuer:\ta\n",
    ] {
        assert_eq!(read(text).map(|sample| sample.issuer), Ok(Some("a".into())), "{text:?}");
    }
}

#[test]
fn ambiguous_keys_and_list_items_are_refused_too() {
    assert!(refused("claim_pattern: {no: a}").contains("column 17"));
    assert!(refused("repositories: [a, 1.0]").contains("column 19"));
    assert!(refused("claim_pattern: {~: a}").contains("a key is a text"));
    assert!(refused("claim_pattern: {[a]: b}").contains("a key is a text"));
    assert_eq!(read("claim_pattern: {true: a, 1: b}").unwrap().claim_pattern.len(), 2);
}

#[test]
fn keys_are_known_and_stand_once() {
    for (text, message) in [
        ("isuer: x\n", "line 1, column 1: unknown key; did you mean `issuer`?"),
        ("\nIssuer: x\n", "line 2, column 1: unknown key; it is spelled `issuer`"),
        ("claim-pattern: {}\n", "line 1, column 1: unknown key; it is spelled `claim_pattern`"),
        ("claim_patterns: {}\n", "line 1, column 1: unknown key; did you mean `claim_pattern`?"),
        (
            "whatever: x\n",
            "line 1, column 1: unknown key; there are issuer, claim_pattern, repositories, enabled, port",
        ),
        ("issuer: a\nissuer: b\n", "line 2, column 1: this key was there before"),
        ("claim_pattern:\n  a: x\n  \"a\": y\n", "line 3, column 3: this key was there before"),
    ] {
        assert_eq!(refused(text), message);
    }
}

#[test]
fn documents_merges_tags_and_types() {
    for (text, rule) in [
        ("issuer: a\n---\nissuer: b\n", "more than one document"),
        ("issuer: a\n---\n{{{\n", "more than one document"),
        ("issuer: a\n...\nfoo\n", "line 3"),
        ("a: &a {b: c}\nclaim_pattern:\n  <<: *a\n", "merge keys"),
        ("issuer: !foo a\n", "tags"),
        ("issuer: !!binary aGk=\n", "tags"),
        ("issuer: !!int 5\n", "tags"),
        ("repositories: !!seq [a]\n", "tags"),
        ("issuer: [a]\n", "a string is expected here"),
        ("repositories: a\n", "a sequence is expected here"),
        ("claim_pattern: [a]\n", "a map is expected here"),
        ("claim_pattern: {a: ~}\n", "a value is expected here"),
        ("repositories: [a, ~]\n", "a value is expected here"),
        ("enabled: 'true'\n", "a boolean is expected here"),
        ("port: 70000\n", "u16 is expected here"),
        ("- a\n", "expected here"),
        ("hello\n", "expected here"),
    ] {
        let message = refused(text);
        assert!(message.contains(rule), "{text:?}: {message}");
    }
    assert_eq!(
        read("enabled: true\nport: 443\n").unwrap(),
        Sample { enabled: true, port: Some(443), ..Sample::default() }
    );
}

#[test]
fn malformed_files() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "~\n",
        "issuer: \"abc\n",
        "issuer: a: b\n",
        "claim_pattern:\n\ta: b\n",
        "issuer: *a\n",
        "issuer: a\u{0}b\n",
        "issuer: a\u{1b}b\n",
        "issuer: a # \u{1b}\n",
        "issuer: \"a\u{1b}b\"\n",
        "repositories: [\na]\n",
        "issuer: \"\\uD800\"\n",
        "{issuer: a",
        "issuer: &a\n  - *a\n",
        "&a : *a\n",
        "@x: 1\n",
    ] {
        refused(text);
    }
    assert_eq!(load::<Sample>(b"issuer: \xff\n").unwrap_err().rule(), "the file is not UTF-8");
    assert_eq!(
        refused(&format!("issuer: {}\n", "x".repeat(65536))),
        "the file is larger than 64 KiB"
    );
    assert!(refused("issuer: a\nrepositories: [a,\n b\n").starts_with("line "));
}

#[test]
fn files_as_editors_write_them() {
    for text in [
        "\u{feff}issuer: a\n",
        "issuer: a\r\n",
        "---\nissuer: a\n",
        "%YAML 1.1\n---\nissuer: a\n",
        "# c\nissuer: a # c\n",
        "{issuer: a}",
        "issuer: a\n...",
    ] {
        assert_eq!(read(text).map(|sample| sample.issuer), Ok(Some("a".into())), "{text:?}");
    }
}

#[test]
fn anchors_are_few_and_repeat_what_they_name() {
    let sample = read("issuer: &x a\nclaim_pattern: {k: *x}\n").unwrap();
    assert_eq!(sample.claim_pattern["k"], "a");
    let aliases =
        |count: usize| format!("issuer: &a x\nrepositories: [{}]\n", vec!["*a"; count].join(", "));
    assert_eq!(read(&aliases(15)).unwrap().repositories.len(), 15);
    assert!(refused(&aliases(16)).contains("more than 16 anchors"));
    let anchors: String = (0..17).map(|n| format!("  k{n}: &a{n} x\n")).collect();
    assert!(refused(&format!("claim_pattern:\n{anchors}")).contains("more than 16 anchors"));
}

#[test]
fn hostile_files_end_soon() {
    for text in [
        "[".repeat(65_000),
        "{a: ".repeat(16_000),
        "- ".repeat(32_000),
        "? ".repeat(32_000),
        "&a ".repeat(20_000),
        "[a,".repeat(20_000),
        (0..300).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        "---\n".repeat(16_000),
        "%a b\n".repeat(10_000),
        "\"".repeat(65_000),
    ] {
        assert!(read(&text).is_err(), "{:.20}", text);
    }
    assert!(read(&format!("issuer: a\n{}", "# x\n".repeat(16_000))).is_ok());
}

#[test]
fn aliases_multiply_only_so_far() {
    let doubling = |first: &str| {
        let rest =
            (1..6).map(|n| format!("k{n}: &a{n} [*a{m}, *a{m}]\n", m = n - 1)).collect::<String>();
        load::<serde_json::Value>(format!("k0: &a0 [{first}]\n{rest}").as_bytes())
            .map_err(|invalid| invalid.rule().to_owned())
    };
    let too_many = Err("the file has too many values".to_owned());
    assert_eq!(doubling(&"'', ".repeat(15_000)), too_many);
    assert_eq!(doubling(&"x".repeat(60_000)), too_many);
    assert!(doubling("x, x").is_ok());
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        load::<serde_json::Value>(format!("{}x{}", "[".repeat(depth), "]".repeat(depth)).as_bytes())
    };
    assert!(nested(16).is_ok());
    assert_eq!(nested(17).unwrap_err().rule(), "lists and maps are nested too deeply");
    let block =
        |depth: usize| load::<serde_json::Value>(format!("{}x\n", "- ".repeat(depth)).as_bytes());
    assert!(block(16).is_ok());
    assert_eq!(block(17).unwrap_err().rule(), "lists and maps are nested too deeply");
}

#[test]
fn messages_never_hold_the_files_text() {
    let secret = "s3cr3t";
    for text in [
        format!("{secret}: x\n"),
        format!("port: {secret}\n"),
        format!("issuer: [{secret}]\n"),
        format!("repositories: {secret}\n"),
        format!("issuer: {secret}\nissuer: {secret}\n"),
        format!("issuer: *{secret}\n"),
        format!("issuer: !{secret} a\n"),
        format!("{secret}\n"),
        format!("enabled: {secret}\n"),
        format!("issuer: \"{secret}\n"),
        format!("@{secret}\n"),
        format!("a: {secret}: b\n"),
        format!("- {secret}\n"),
    ] {
        let message = refused(&text);
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn values_know_their_places() {
    let map: BTreeMap<String, At<String>> = load(b"a: x\nb:\n  'y'\n").unwrap();
    assert_eq!(
        (map["a"].mark, map["b"].mark),
        (Mark { line: 1, column: 4 }, Mark { line: 3, column: 3 })
    );
    let invalid = map["b"].refuse("no");
    assert_eq!((invalid.line(), invalid.column(), invalid.rule()), (Some(3), Some(3), "no"));
    assert!(serde_json::from_str::<At<String>>("\"x\"").is_err());
}

#[test]
fn other_types_load_as_serde_has_them() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Two,
    }
    let words: Vec<Word> = load(b"[one, two]").unwrap();
    assert_eq!(words, [Word::One, Word::Two]);
    assert_eq!(
        load::<Vec<Word>>(b"[three]").unwrap_err().to_string(),
        "line 1, column 2: one of one, two is expected here"
    );
    let value: serde_json::Value =
        load_with_web_keys(b"{keys: [{n: abc, use: sig, x: -1, y: true, z: ~}]}").unwrap();
    assert_eq!(
        value,
        serde_json::json!({"keys": [{"n": "abc", "use": "sig", "x": -1, "y": true, "z": null}]})
    );
}

proptest! {
    #[test]
    fn no_file_panics(text in "[ \\-:#&*!|>'\"%@\\[\\]{},?a-c0-9~\n\t]{0,64}") {
        let _ = load::<serde_json::Value>(text.as_bytes());
        let _ = read(&text);
    }
}
