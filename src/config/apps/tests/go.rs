//! What the libraries of the Go service read in the same files: `interop/go-appconfig` generates
//! files and writes what these read in them.

use std::io::BufRead;

use serde::Deserialize;

use super::*;
use crate::yaml::{self, Node, Scalar, Value};

/// A file, and what Go reads in it, if it accepts it.
#[derive(Deserialize)]
struct Answer {
    text: String,
    file: Option<File>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct File {
    orgs: Vec<Org>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Org {
    name: String,
    apps: Vec<GoApp>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct GoApp {
    app_id: i64,
    app_name: String,
}

impl File {
    fn of(apps: &Apps) -> Self {
        let pool = |name: &str, apps: &[ConfiguredApp]| Org {
            name: name.to_owned(),
            apps: apps
                .iter()
                .map(|app| GoApp {
                    app_id: i64::try_from(app.id.0).unwrap(),
                    app_name: app.name.as_ref().map_or("", AppName::as_str).to_owned(),
                })
                .collect(),
        };
        let mut orgs: Vec<Org> =
            apps.listed.iter().map(|(owner, apps)| pool(owner.key(), apps)).collect();
        if !apps.others.is_empty() {
            orgs.push(pool("*", &apps.others));
        }
        Self { orgs }.sorted()
    }

    /// Their order has no meaning.
    fn sorted(mut self) -> Self {
        self.orgs.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }
}

/// The rules by which the server refuses what Go accepts; docs/migrating.md lists them.
const STRICTER: &[&str] = &[
    "the environment variable UNSET is not set",
    "there is more than one document",
    "merge keys are not supported",
    "tags are not read",
    "YAML readers disagree",
    "of the directives, only",
    "indentation is by spaces, not tabs",
    "the indentation does not fit",
    "a key stands on one line",
    "this key is given twice, in different letter case",
    "an owner is 1 to 64 of",
    "expected the App's id, a positive number",
    "an App's name is 1 to 100 printable characters",
    "`kms_key` must name a key version of Google Cloud KMS",
    "`private_key` must hold",
    // A key's text as a path is usually not there, and sometimes too long for a name.
    "`private_key_file` names a file that",
];

/// What `${KMS}` stands for. Only the server checks the form of a key's name.
const KMS_KEY: &str = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";

/// Whether an id is a string: Go accepts integers only.
fn has_textual_id(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(_) => false,
        Value::List(items) => items.iter().any(has_textual_id),
        Value::Map(entries) => entries.iter().any(|(key, value)| {
            let is_text = matches!(value.value, Value::Scalar(Scalar::Text(_)));
            key.value.eq_ignore_ascii_case("app_id") && is_text || has_textual_id(value)
        }),
    }
}

#[test]
#[ignore = "reads what interop/go-appconfig generates"]
fn generated_files_are_read_as_go_reads_them() {
    let pem = rsa_pem();
    let variables: Environment = [
        ("PEM", &*pem),
        ("KMS", KMS_KEY),
        ("NAME", "named"),
        ("ORG", "Org-V"),
        ("EMPTY", ""),
        ("DOLLAR", "${NAME}"),
    ]
    .into_iter()
    .collect();
    let mut total = 0;
    let mut accepted = 0;
    let mut differences = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let Answer { text, file } = serde_json::from_str(&line.unwrap()).unwrap();
        total += 1;
        let difference = match (parse(text.as_bytes(), &variables), file) {
            (Ok(ours), Some(go)) => {
                accepted += 1;
                let ours = File::of(&ours);
                let go = go.sorted();
                (ours != go).then(|| format!("{ours:?}, and to Go {go:?}"))
            }
            (Ok(_), None) => {
                let (root, _) = yaml::tree(text.as_bytes()).unwrap();
                (!has_textual_id(&root)).then(|| "accepted, and Go refuses it".to_owned())
            }
            (Err(errors), Some(_)) => {
                let is_listed = |error: &crate::yaml::Invalid| {
                    // A quoted string that goes on at the start of a line breaks YAML's rules for
                    // indentation, and Go reads it.
                    let is_unindented =
                        error.rule() == "this is not well-formed YAML" && error.column() == Some(1);
                    is_unindented || STRICTER.iter().any(|rule| error.rule().starts_with(rule))
                };
                let other = errors.iter().find(|error| !is_listed(error));
                other.map(|error| format!("refused, and Go accepts it: {error}"))
            }
            (Err(_), None) => None,
        };
        differences.extend(difference.map(|difference| format!("{text}\n{difference}\n")));
    }
    let shown: String = differences.iter().take(10).map(String::as_str).collect();
    assert!(differences.is_empty(), "{} of {total}:\n{shown}", differences.len());
    assert!(total > 0 && accepted * 5 > total, "both accept {accepted} of {total}");
}
