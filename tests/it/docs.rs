//! The documentation says what the program does: examples are parsed, tables are held against the
//! code, links lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use octo_sts::{
    agent,
    audit::{
        Record,
        record::{Operation, PolicyRef, TokenRecord},
    },
    client::ambient::{Places, SourceKind},
    clock::UnixTime,
    config::variables::{ALL, Origin},
    deny_file::DenyList,
    name::{PolicyName, Scope},
    oidc::{IssuersFile, Pod},
    policy::{Policy, PolicyKind, Rules, TrustedIssuers},
    reason::{Condition, Reason, Refusal, Workload},
    transport::reply,
    yaml,
};
use serde_json::Value;

use crate::harness::{Folder, process, tls};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Markdown file: those of the root and of `docs`.
fn documents() -> Vec<PathBuf> {
    let files = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = files(root().to_owned()).chain(files(root().join("docs")));
    all.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The code blocks of a language.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let starts = text.split(&fence).skip(1);
    starts.map(|rest| rest[..rest.find("```").unwrap()].to_owned()).collect()
}

/// The rows of the table whose header starts so, each cell without white space around it.
fn table(text: &str, header: &str) -> Vec<Vec<String>> {
    let start = text.find(header).unwrap_or_else(|| panic!("no table {header}"));
    let rows = text[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// What stands in backticks.
fn ticked(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn kind_of(policy: &str) -> PolicyKind {
    if policy.contains("\nrepositories:") {
        PolicyKind::Organization
    } else {
        PolicyKind::Repository
    }
}

#[test]
fn every_yaml_example_is_valid() {
    let mut policies = 0;
    for path in ["README.md", "docs/policies.md"] {
        for text in blocks(&read(path), "yaml") {
            let has = |key: &str| text.lines().any(|line| line.starts_with(key));
            let parsed = if has("issuers:") || has("issuer_patterns:") {
                TrustedIssuers::parse(text.as_bytes()).map(drop)
            } else if has("steps:") {
                yaml::load::<serde::de::IgnoredAny>(text.as_bytes()).map(drop).map_err(Into::into)
            } else {
                policies += 1;
                Policy::parse(text.as_bytes(), kind_of(&text), &Rules::default()).map(drop)
            };
            assert_eq!(parsed, Ok(()), "{path}:\n{text}");
        }
    }
    assert!(policies >= 8);
}

/// A release of the action that lacks an input ignores it, and without `domain` it sends the
/// workflow's token to another service.
#[test]
fn every_use_of_the_action_is_of_a_release_that_has_its_inputs() {
    #[derive(Debug, serde::Deserialize)]
    struct Release {
        version: String,
        commit: String,
        inputs: Vec<String>,
    }
    #[derive(serde::Deserialize)]
    struct Releases {
        releases: Vec<Release>,
    }
    let Releases { releases } =
        yaml::load(read("interop/action/releases.yaml").as_bytes()).unwrap();
    assert!(
        releases.iter().any(|release| !release.inputs.contains(&"domain".to_owned())),
        "{releases:?}"
    );
    let mut count = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (at, uses) in text.match_indices("uses: octo-sts/action@") {
            let (pin, step) = text[at + uses.len()..].split_once('\n').unwrap();
            let release = releases
                .iter()
                .find(|release| pin == format!("{} # {}", release.commit, release.version));
            let release = release.unwrap_or_else(|| {
                panic!("{}: {pin} is not a release that we know", path.display())
            });
            let step = step.split("\n  - ").next().unwrap();
            let with = step.split("with:\n").nth(1).unwrap().split("```").next().unwrap();
            let inputs: BTreeSet<&str> =
                with.lines().filter_map(|line| Some(line.trim().split_once(": ")?.0)).collect();
            assert_eq!(inputs, ["domain", "identity", "scope"].into(), "{}", path.display());
            let known: BTreeSet<&str> = release.inputs.iter().map(String::as_str).collect();
            assert!(inputs.is_subset(&known), "{} has no {inputs:?}", release.version);
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn every_deny_file_is_valid() {
    let examples = blocks(&read("docs/operations.md"), "yaml");
    assert!(!examples.is_empty());
    for text in examples {
        let list = DenyList::read(text.as_bytes());
        assert!(
            list.as_ref().is_ok_and(|list| list.len() == text.matches("reason:").count()),
            "{list:?}"
        );
    }
}

#[test]
fn every_issuers_file_is_valid() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("cluster")).unwrap();
    folder.file("cluster/ca.crt", &tls::certificate(&["api.internal"]).1);
    folder.file("cluster/token", "token");
    folder.file("closed-cluster.json", include_str!("../fixtures/kubernetes/jwks.json"));
    let pod = Pod { api_server: None, folder: folder.path().to_owned() };
    let file = IssuersFile { path: folder.path().join("issuers.yaml"), pod, plain_http: false };
    let examples = blocks(&read("docs/issuers.md"), "yaml");
    assert!(!examples.is_empty());
    for text in examples {
        folder.file("issuers.yaml", &text);
        assert_eq!(file.load().map(drop), Ok(()), "{text}");
    }
}

#[test]
fn the_agents_examples_are_what_it_reads() {
    let mut manifests = blocks(&read("docs/agent.md"), "yaml");
    let of_the_agent = |text: &str| {
        agent::File::parse(text.as_bytes(), Path::new("")).map(|file| file.tokens.len())
    };
    let example = manifests.remove(0);
    assert_eq!(of_the_agent(&example), Ok(2), "{example}");
    let rows = table(&read("docs/agent.md"), "| key | meaning");
    for key in rows.iter().flat_map(|row| ticked(&row[0]).collect::<Vec<_>>()) {
        let spelled = key.rsplit('.').next().unwrap();
        let known = ["source"].contains(&spelled) || example.contains(&format!("{spelled}:"));
        assert!(known, "{key} is not in the example");
    }
    for name in ["agent-sidecar.yaml", "agent-init.yaml"] {
        manifests.extend(crate::deploy::documents(&read(&format!("examples/kubernetes/{name}"))));
    }
    assert_eq!(manifests.len(), 5);
    for manifest in manifests {
        let parsed = yaml::load::<Value>(manifest.as_bytes())
            .unwrap_or_else(|error| panic!("{error}\n{manifest}"));
        if let Some(config) = parsed["data"]["agent.yaml"].as_str() {
            assert_eq!(of_the_agent(config), Ok(1), "{config}");
        }
    }
}

#[test]
fn every_example_policy_is_valid() {
    let folders =
        [("examples/policies", PolicyKind::Repository), ("examples/tour", PolicyKind::Repository)];
    let mut count = 0;
    for (folder, kind) in
        folders.into_iter().chain([("examples/tour/org", PolicyKind::Organization)])
    {
        let paths = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| path.is_file()) {
            let parsed = Policy::parse(&fs::read(&path).unwrap(), kind, &Rules::default());
            assert!(parsed.is_ok(), "{}: {parsed:?}", path.display());
            count += 1;
        }
    }
    assert!(count >= 12);
}

#[test]
fn the_readme_names_the_main_job_and_the_tests() {
    let readme = read("README.md");
    for line in ["cargo run -- dev", "cargo test"] {
        assert!(readme.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_readmes_excerpt_is_what_the_tour_prints() {
    let output = process(&[]).args(["dev", "--once", "--port", "0"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    // Tokens and times differ each time.
    let fixed = |line: &str| match (line.split_once("ghs_"), line.split_once("until ")) {
        (Some((before, _)), Some(_)) => {
            let after = line.split_once("…").unwrap().1;
            format!("{before}{}", after.split_once("until ").unwrap().0)
        }
        _ => line.to_owned(),
    };
    let shown: BTreeSet<String> = shown.lines().map(fixed).collect();
    let excerpt = blocks(&read("README.md"), "text").concat();
    for line in excerpt.lines() {
        assert!(shown.contains(&fixed(line)), "the tour does not print {line:?}");
    }
    assert!(excerpt.lines().count() > 10);
}

#[test]
fn exchanges_in_examples_are_well_formed() {
    let mut count = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (at, start) in text.match_indices("/sts/exchange?") {
            let query = &text[at + start.len()..];
            let query = &query[..query.find(['"', ' ', '`', '\n']).unwrap()];
            for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                let valid = match name.as_ref() {
                    "scope" => value.parse::<Scope>().is_ok(),
                    "identity" => value.parse::<PolicyName>().is_ok(),
                    _ => false,
                };
                assert!(valid, "{}: {name}={value}", path.display());
            }
            count += 1;
        }
        for block in blocks(&text, "json") {
            assert!(serde_json::from_str::<Value>(&block).is_ok(), "{}", path.display());
        }
    }
    assert!(count > 0);
}

#[test]
fn the_table_of_errors_is_that_of_the_wire() {
    let rows = table(&read("docs/errors.md"), "| reason | gRPC");
    let documented: Vec<_> = rows
        .iter()
        .map(|row| {
            (ticked(&row[0]).next().unwrap(), row[1].parse().unwrap(), row[2].parse().unwrap())
        })
        .collect();
    let answered: Vec<(String, i32, u16)> = reply::table()
        .map(|(reason, code, status)| (reason.as_str().to_owned(), code, status))
        .collect();
    assert_eq!(documented, answered);
}

#[test]
fn the_sources_of_identities_are_those_of_the_code() {
    let page = read("docs/clients.md");
    let rows = table(&page, "| source | when");
    let documented: Vec<String> =
        rows.iter().flat_map(|row| ticked(&row[0]).collect::<Vec<_>>()).collect();
    let known: Vec<&str> = SourceKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(documented, known);
    for path in Places::default().pod_files {
        assert!(
            rows.iter().any(|row| row[1].contains(path.to_str().unwrap())),
            "{}",
            path.display()
        );
    }
    for text in blocks(&page, "yaml") {
        assert!(yaml::load::<serde::de::IgnoredAny>(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn the_flags_of_clients_exist() {
    let page = read("docs/clients.md");
    let help = |command: &str| {
        let output = process(&[]).args([command, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let help = help("exchange") + &help("git-credential");
    let flags = page
        .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
        .filter(|word| word.starts_with("--"));
    // Those of git and gh.
    for flag in flags
        .filter(|flag| !["--global", "--repo"].contains(flag) && flag.contains(|c: char| c != '-'))
    {
        assert!(
            help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
            "{flag}"
        );
    }
}

#[test]
fn every_reason_that_is_mentioned_exists() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let endings = [
        "_INVALID",
        "_UNAVAILABLE",
        "_REFUSED",
        "_MISMATCH",
        "_TRUSTED",
        "_PERMITTED",
        "_FOUND",
        "_LIMITED",
    ];
    for path in documents() {
        for word in ticked(&fs::read_to_string(&path).unwrap().replace("```", "")) {
            if endings.iter().any(|ending| word.ends_with(ending)) && !word.contains(' ') {
                assert!(reasons.contains(word.as_str()), "{}: {word}", path.display());
            }
        }
    }
}

/// A record in which everything is filled in.
fn full_record() -> Record {
    let some = || Some("x".to_owned());
    let mut record = Record::begin(
        UnixTime::from_secs(0),
        Operation::Exchange,
        "r".into(),
        "rest",
        "::1".into(),
    );
    record.deny(&Refusal::new(Reason::Internal, "").because("x"));
    let (got, wanted, hint) = (some(), some(), None);
    record.hold(&[Condition { field: "subject".into(), satisfied: true, got, wanted, hint }]);
    record.policy =
        Some(PolicyRef { repository: "x".into(), path: "x".into(), blob: some(), sha256: some() });
    record.token = Some(TokenRecord {
        installation: 1,
        sha256: "x".into(),
        sha256_base64: "x".into(),
        expires_at: "x".into(),
        permissions: [("contents".to_owned(), "read")].into(),
        repositories: Some(vec!["x".into()]),
    });
    record.trusted_issuers = Some("x");
    record.replayed = true;
    record.minting(1, true);
    record.kubernetes = Some(Workload {
        namespace: "x".into(),
        service_account: some(),
        pod: some(),
        node: some(),
    });
    for field in [
        &mut record.user_agent,
        &mut record.scope,
        &mut record.identity,
        &mut record.cap,
        &mut record.issuer,
        &mut record.subject,
        &mut record.jti,
    ] {
        *field = some();
    }
    record
}

#[test]
fn the_audit_fields_are_those_of_the_record() {
    let record = serde_json::to_value(full_record()).unwrap();
    let mut written = BTreeSet::new();
    for (name, value) in record.as_object().unwrap() {
        match value.as_object() {
            Some(inner) => written.extend(inner.keys().map(|inner| format!("{name}.{inner}"))),
            None => drop(written.insert(name.clone())),
        }
    }
    let rows = table(&read("docs/operations.md"), "| field | meaning");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| ticked(&row[0]).collect::<Vec<_>>()).collect();
    assert_eq!(documented, written);
}

/// Every Rust file of the product.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn the_metrics_are_those_of_the_code() {
    let mut named = BTreeSet::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let starts = text.split("\"octosts_").skip(1);
        named.extend(starts.map(|rest| format!("octosts_{}", &rest[..rest.find('"').unwrap()])));
    }
    named.retain(|name| !name.contains(['.', '{', ' ']));
    let rows = table(&read("docs/operations.md"), "| metric | kind");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| ticked(&row[0]).collect::<Vec<_>>()).collect();
    assert_eq!(documented, named);
}

#[test]
fn the_fields_of_policies_are_those_of_the_parser() {
    let rows = table(&read("docs/policies.md"), "| field | meaning");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| ticked(&row[0]).collect::<Vec<_>>()).collect();
    let document = read("src/policy/document.rs");
    let keys = document.split("const KEYS: ").nth(1).unwrap().split("];").next().unwrap();
    let parsed: BTreeSet<String> = keys.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(documented, parsed);
}

#[test]
fn the_modules_of_the_architecture_are_those_of_the_crate() {
    let rows = table(&read("ARCHITECTURE.md"), "| module | owns");
    let documented: Vec<String> =
        rows.iter().flat_map(|row| ticked(&row[0]).collect::<Vec<_>>()).collect();
    let lib = read("src/lib.rs");
    let listed: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(documented, listed);
}

#[test]
fn who_moves_over_is_told_of_every_variable() {
    let rows = table(&read("docs/migrating.md"), "| variable | what to do |");
    let told: BTreeSet<String> = rows.iter().flat_map(|row| ticked(&row[0])).collect();
    let of_the_go_service =
        ALL.iter().filter(|variable| !matches!(variable.origin, Origin::Own | Origin::Client));
    let missed: Vec<_> = of_the_go_service
        .map(|variable| variable.name)
        .filter(|name| !told.contains(*name))
        .collect();
    assert!(missed.is_empty(), "not in docs/migrating.md: {missed:?}");
}

#[test]
fn links_and_paths_lead_somewhere() {
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if !target.starts_with("https://") {
                let file = path.parent().unwrap().join(target.split('#').next().unwrap());
                assert!(file.exists(), "{}: {target}", path.display());
            }
        }
        let inline = text.replace("```", "");
        for source in ticked(&inline).filter(|word| word.ends_with(".rs")) {
            let found = [root().join(&source), root().join("src").join(&source)]
                .iter()
                .any(|path| path.exists());
            assert!(found, "{}: {source}", path.display());
        }
    }
}
