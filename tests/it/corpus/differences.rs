//! What this service does otherwise than octo-sts/app, on purpose: `differences.yaml`. Each entry
//! names the cases or tests that show it, and they must exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::Deserialize;

use super::{StandIns, load, names};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    name: String,
    /// What octo-sts/app does.
    go: String,
    /// What we do.
    ours: String,
    why: String,
    /// `FILE: CASE`, the file without its ending, or `test: FUNCTION`.
    shown_by: Vec<String>,
}

/// The functions that are tests, in all sources.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // An attribute that makes a test, then a line with its name.
            let marked = text.split("test]\n").skip(1).filter_map(|after| after.lines().next());
            let name = |line: &str| Some(line.split_once("fn ")?.1.split_once('(')?.0.to_owned());
            found.extend(marked.filter_map(name));
        }
    }
}

#[test]
fn every_difference_is_shown_by_a_case_or_a_test() {
    let differences: Vec<Difference> = load("differences.yaml", &StandIns::default());
    let mut shows: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for file in ["policies", "tokens", "requests", "issuers"] {
        shows.insert(file, names(&format!("{file}.yaml")).into_iter().collect());
    }
    let here = shows.entry("test").or_default();
    for folder in ["src", "tests"] {
        tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), here);
    }
    assert!(differences.len() > 20 && shows.values().all(|names| names.len() > 10));
    let mut seen = BTreeSet::new();
    for Difference { name, go, ours, why, shown_by } in &differences {
        assert!(seen.insert(name), "{name} stands twice");
        assert!(![go, ours, why].iter().any(|text| text.trim().is_empty()) && go != ours, "{name}");
        assert!(!shown_by.is_empty(), "nothing shows {name}");
        for reference in shown_by {
            let (place, what) = reference.split_once(": ").unwrap();
            assert!(shows[place].contains(what), "{name}: there is no {reference}");
        }
    }
}
