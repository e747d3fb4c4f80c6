//! What Go reads in the same text: `interop/go-yaml` generates texts and writes what
//! `sigs.k8s.io/yaml` makes of them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{Invalid, load};

/// A text, and what Go reads in it, if it accepts it.
#[derive(Deserialize)]
struct Answer {
    kind: Kind,
    text: String,
    fields: Option<Fields>,
    /// Go accepts it only where the fields are not embedded in another struct.
    #[serde(default)]
    flat: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Repository,
    Organization,
    List,
}

impl Kind {
    /// Go knows the keys of one kind of file only.
    fn has_all_keys_of(self, text: &str) -> bool {
        let keys: BTreeMap<String, serde::de::IgnoredAny> =
            load(text.as_bytes()).unwrap_or_default();
        let is_known = |key: &str| match (self, key) {
            (Self::List, key) => matches!(key, "mode" | "issuers" | "issuer_patterns"),
            (_, "mode" | "issuers" | "issuer_patterns") => false,
            (Self::Repository, "repositories") => false,
            _ => true,
        };
        keys.keys().all(|key| is_known(key))
    }
}

/// The fields of policies and lists. Absent, null and empty are one here, as they are in Go.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    issuer: Option<String>,
    issuer_pattern: Option<String>,
    subject: Option<String>,
    subject_pattern: Option<String>,
    audience: Option<String>,
    audience_pattern: Option<String>,
    claim_pattern: Option<BTreeMap<String, String>>,
    permissions: Option<BTreeMap<String, String>>,
    app: Option<String>,
    app_pattern: Option<String>,
    repositories: Option<Vec<String>>,
    mode: Option<String>,
    issuers: Option<Vec<String>>,
    issuer_patterns: Option<Vec<String>>,
}

impl Fields {
    /// The fields that are not empty, by name.
    fn flattened(&self) -> BTreeMap<String, String> {
        let texts = [
            ("issuer", &self.issuer),
            ("issuer_pattern", &self.issuer_pattern),
            ("subject", &self.subject),
            ("subject_pattern", &self.subject_pattern),
            ("audience", &self.audience),
            ("audience_pattern", &self.audience_pattern),
            ("app", &self.app),
            ("app_pattern", &self.app_pattern),
            ("mode", &self.mode),
        ];
        let maps = [("claim_pattern", &self.claim_pattern), ("permissions", &self.permissions)];
        let lists = [
            ("repositories", &self.repositories),
            ("issuers", &self.issuers),
            ("issuer_patterns", &self.issuer_patterns),
        ];
        let texts =
            texts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let texts = texts.filter(|(_, value)| !value.is_empty());
        let maps = maps.into_iter().flat_map(|(name, map)| {
            map.iter().flatten().map(move |(key, value)| (format!("{name}.{key}"), value.clone()))
        });
        let lists = lists.into_iter().flat_map(|(name, list)| {
            list.iter()
                .flatten()
                .enumerate()
                .map(move |(n, value)| (format!("{name}[{n}]"), value.clone()))
        });
        texts.chain(maps).chain(lists).collect()
    }
}

/// Which entry of `differences.yaml` explains that a rule refuses what Go accepts.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "YAML readers disagree on this unquoted value",
        "plain scalars of other types are refused where text is expected",
    ),
    ("YAML readers disagree", "what YAML readers take for different things is refused"),
    ("an anchor's name is", "what YAML readers take for different things is refused"),
    ("the escape", "what YAML readers take for different things is refused"),
    ("`...` ends a document", "what YAML readers take for different things is refused"),
    ("inside [] and {}, an anchor", "what YAML readers take for different things is refused"),
    ("a key stands on one line", "what YAML readers take for different things is refused"),
    // Go reads `[a:]` as a list of text, YAML 1.2 as a list of maps.
    ("a string is expected here", "what YAML readers take for different things is refused"),
    ("a key is a text", "what YAML readers take for different things is refused"),
    ("merge keys are not supported", "merge keys, tags and directives are refused"),
    ("tags are not read", "merge keys, tags and directives are refused"),
    ("a tag needs a value", "merge keys, tags and directives are refused"),
    ("of the directives", "merge keys, tags and directives are refused"),
    ("a value is expected here", "null is not an entry"),
    ("the file is empty", "YAML is well-formed by version 1.2"),
    ("this is not well-formed YAML", "YAML is well-formed by version 1.2"),
    ("the indentation does not fit", "YAML is well-formed by version 1.2"),
    ("indentation is by spaces", "YAML is well-formed by version 1.2"),
    ("there is more than one document", "one document"),
    ("unknown key; it is spelled", "keys have one spelling"),
    ("this key was there before", "keys have one spelling"),
    ("there are more than 16 anchors and aliases", "policies have a limit"),
    ("lists and maps are nested too deeply", "policies have a limit"),
    ("the file has too many values", "policies have a limit"),
];

#[test]
#[ignore = "reads Go's answers from standard input"]
fn generated_texts_are_read_as_go_reads_them() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut texts = 0;
    for line in std::io::stdin().lines() {
        let answer: Answer = serde_json::from_str(&line.unwrap()).unwrap();
        texts += 1;
        match compare(&answer) {
            Ok(class) => *counts.entry(class).or_default() += 1,
            Err(why) => wrong.push(format!("{:?}: {why}", answer.text)),
        }
    }
    let shown: Vec<_> = wrong.iter().take(MAX_SHOWN).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {texts} texts:\n{}", wrong.len(), shown.join("\n"));
    println!("{texts} texts: {counts:#?}");
    let share = |class: &str| counts.get(class).copied().unwrap_or_default() * 100 / texts;
    assert!(share(ACCEPTED) >= 20, "most texts are refused");
}

const MAX_SHOWN: usize = 50;
const ACCEPTED: &str = "accepted by both";

/// How the two readings go together, or what is wrong.
fn compare(answer: &Answer) -> Result<&'static str, String> {
    let ours: Result<Fields, Invalid> = load(answer.text.as_bytes());
    match (ours, &answer.fields) {
        (Ok(ours), None) if answer.kind.has_all_keys_of(&answer.text) => {
            Err(format!("Go refuses it: {:?}", ours.flattened()))
        }
        (_, None) => Ok("refused by both"),
        (Ok(ours), Some(go)) if !is_same(&ours.flattened(), &go.flattened()) => {
            Err(format!("ours {:?}, Go's {:?}", ours.flattened(), go.flattened()))
        }
        (Ok(_), Some(_)) if answer.flat => {
            Ok("plain booleans and integers in policies of organizations")
        }
        (Ok(_), Some(_)) => Ok(ACCEPTED),
        (Err(error), Some(_)) => {
            let found = DIFFERENCES.iter().find(|(rule, _)| error.rule().starts_with(rule));
            found
                .map(|(_, difference)| *difference)
                .ok_or_else(|| format!("Go accepts it: {error}"))
        }
    }
}

/// Go reads an integer over 64 bits as a float, and writes that.
fn is_same(ours: &BTreeMap<String, String>, go: &BTreeMap<String, String>) -> bool {
    let is_float_of = |ours: &str, go: &str| {
        ours.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit())
            && ours.parse::<u64>().is_err()
            && ours.parse::<f32>() == go.parse::<f32>()
    };
    ours.len() == go.len()
        && ours
            .iter()
            .zip(go)
            .all(|(ours, go)| ours.0 == go.0 && (ours.1 == go.1 || is_float_of(ours.1, go.1)))
}

#[test]
fn differences_from_go_are_listed() {
    let listed = include_str!("../../../tests/corpus/differences.yaml");
    for (rule, difference) in DIFFERENCES {
        assert!(listed.contains(&format!("- name: \"{difference}\"\n")), "{rule}: {difference}");
    }
}
