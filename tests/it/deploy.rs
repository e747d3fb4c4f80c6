//! What is deployed fits the program: the examples of the Kubernetes guide, the manifests, the
//! chart's values. What an API server says of them, and how they run, is shown by `interop/helm`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use octo_sts::{
    config::variables::{ALL, Origin, Variable},
    oidc::{IssuersFile, Pod},
    policy::{Policy, PolicyKind, Rules},
    yaml,
};
use serde_json::Value;

use crate::{
    docs::{blocks, read, root},
    harness::{Folder, tls},
};

const CHART: &str = "deploy/helm/octo-sts";

/// A folder with the files that issuers files name, and a pod that has its credential there.
struct Cluster(Folder);

impl Cluster {
    fn new() -> Self {
        let folder = Folder::new();
        folder.file("ca.crt", &tls::certificate(&["api.internal"]).1);
        folder.file("jwks.json", &read("tests/fixtures/kubernetes/jwks.json"));
        let reply: Value =
            serde_json::from_str(&read("tests/fixtures/kubernetes/tokenrequest_rs256_aud.json"))
                .unwrap();
        folder.file("token", reply["status"]["token"].as_str().unwrap());
        Self(folder)
    }

    fn refuses(&self, issuers: &str) -> Option<String> {
        let path = self.0.file("issuers.yaml", issuers).into();
        let pod = Pod {
            api_server: Some(("10.0.0.1".to_owned(), 443)),
            folder: self.0.path().to_owned(),
        };
        IssuersFile { path, pod, plain_http: false }.load().err().map(|invalid| invalid.to_string())
    }
}

/// Whether what it asks for is not built in, so that setting it has no effect.
fn is_missing(variable: &Variable) -> bool {
    matches!(variable.origin, Origin::Ignored { .. })
}

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

fn schema() -> Value {
    serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap()
}

/// The YAML files of a folder and of those below it.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = paths.flat_map(|path| if path.is_dir() { manifests(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

#[test]
fn every_example_of_the_guide_is_valid() {
    let cluster = Cluster::new();
    let (mut issuers, mut policies, mut objects) = (0, 0, 0);
    for text in blocks(&read("docs/kubernetes.md"), "yaml") {
        if text.starts_with("issuers:") {
            assert_eq!(cluster.refuses(&text), None, "{text}");
            issuers += 1;
        } else if text.contains("\npermissions:") {
            let parsed = Policy::parse(text.as_bytes(), PolicyKind::Repository, &Rules::default());
            assert_eq!(parsed.err(), None, "{text}");
            policies += 1;
        } else {
            let object: Value = yaml::load(text.as_bytes()).unwrap();
            assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{text}");
            objects += 1;
        }
    }
    assert!(issuers >= 4 && policies >= 2 && objects >= 1, "{issuers} {policies} {objects}");
}

/// The YAML documents of a manifest, each with the line break at its end.
pub(crate) fn documents(manifest: &str) -> impl Iterator<Item = String> {
    manifest.split("\n---\n").map(|document| format!("{document}\n"))
}

#[test]
fn the_manifests_of_the_examples_ask_for_policies_that_are_there() {
    let mut count = 0;
    for path in manifests(&root().join("examples/kubernetes")) {
        let text = fs::read_to_string(&path).unwrap();
        for object in documents(&text) {
            let object: Value = yaml::load(object.as_bytes())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(object["kind"].is_string(), "{}", path.display());
        }
        let asked =
            text.split("identity=").skip(1).map(|rest| rest.split(['"', '\n']).next().unwrap());
        let named = text.split("name: OCTO_STS_IDENTITY\n").skip(1);
        let named =
            named.filter_map(|rest| rest.trim().strip_prefix("value: \"")?.split('"').next());
        for identity in asked.chain(named) {
            assert!(
                root().join(format!("examples/policies/{identity}.sts.yaml")).exists(),
                "{identity}"
            );
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn the_plain_manifests_set_variables_and_issuers_that_the_program_takes() {
    for path in manifests(&root().join("deploy/kubernetes")) {
        let object: Value = yaml::load(&fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(object["kind"].is_string(), "{}", path.display());
    }
    let settings: Value = yaml::load(read("deploy/kubernetes/settings.yaml").as_bytes()).unwrap();
    let built: BTreeSet<String> = ALL
        .iter()
        .filter(|variable| !is_missing(variable))
        .map(|variable| variable.name.to_owned())
        .collect();
    assert_eq!(names(&settings["data"]).difference(&built).count(), 0, "{settings}");
    let issuers: Value = yaml::load(read("deploy/kubernetes/issuers.yaml").as_bytes()).unwrap();
    assert_eq!(Cluster::new().refuses(issuers["data"]["issuers.yaml"].as_str().unwrap()), None);
}

#[test]
fn a_pod_has_the_time_that_the_server_takes_to_end() {
    let settings: Value = yaml::load(read("deploy/kubernetes/settings.yaml").as_bytes()).unwrap();
    let deployment: Value =
        yaml::load(read("deploy/kubernetes/deployment.yaml").as_bytes()).unwrap();
    let grace =
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert_eq!(settings["data"]["STS_SHUTDOWN_TIMEOUT"], format!("{}s", grace - 5));
    let template = read(&format!("{CHART}/templates/deployment.yaml"));
    assert!(template.contains(
        "terminationGracePeriodSeconds: {{ add (int .Values.shutdown.timeoutSeconds) 5 }}"
    ));
    let values: Value = yaml::load(read(&format!("{CHART}/values.yaml")).as_bytes()).unwrap();
    let seconds = |name: &str| values["shutdown"][name].as_u64().unwrap();
    assert!(seconds("drainDelaySeconds") * 2 <= seconds("timeoutSeconds"));
    // What arrives at the end of the delay has as long as an exchange may take.
    assert!(seconds("drainDelaySeconds") + 15 <= seconds("timeoutSeconds") - 5);
}

#[test]
fn the_charts_settings_are_the_variables_that_no_value_stands_for() {
    let template = read(&format!("{CHART}/templates/deployment.yaml"));
    let set: BTreeSet<&str> =
        template.split("- name: ").skip(1).map(|rest| rest.split('\n').next().unwrap()).collect();
    let settings = names(&schema()["properties"]["settings"]["properties"]);
    for variable in ALL {
        let (set, free) = (set.contains(variable.name), settings.contains(variable.name));
        assert!(!(set && free), "{} can be set twice", variable.name);
        assert!(!is_missing(variable) || !(set || free), "{} is not built in", variable.name);
        assert!(variable.origin != Origin::Own || set || free, "{} cannot be set", variable.name);
    }
    let known: BTreeSet<String> = ALL.iter().map(|variable| variable.name.to_owned()).collect();
    assert_eq!(settings.difference(&known).count(), 0, "{settings:?}");
}

#[test]
fn the_charts_issuers_are_those_of_the_issuers_file() {
    let document = read("src/oidc/issuers_file/document.rs");
    let fields =
        document.split("pub(super) struct Item {").nth(1).unwrap().split("\n}").next().unwrap();
    let fields: BTreeSet<String> = fields
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("pub(super) ").split_once(": Option<"))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert!(fields.contains("require_claims"), "{fields:?}");
    assert_eq!(
        names(&schema()["properties"]["issuers"]["properties"]["list"]["items"]["properties"]),
        fields
    );
}

#[test]
fn the_charts_values_are_those_of_its_schema() {
    fn hold(values: &Value, schema: &Value, path: &str) {
        let Some(known) = schema.get("properties") else { return };
        let known: BTreeSet<String> =
            names(known).into_iter().filter(|name| name != "global").collect();
        // `resources` is taken as a whole, and has a member that is rarely used.
        if path != "/resources" && path != "/settings" {
            assert_eq!(names(values), known, "{path}");
        }
        for name in names(values) {
            hold(&values[&name], &schema["properties"][&name], &format!("{path}/{name}"));
        }
        assert_eq!(schema["additionalProperties"], false, "{path}");
    }
    let values: Value = yaml::load(read(&format!("{CHART}/values.yaml")).as_bytes()).unwrap();
    hold(&values, &schema(), "");
}

#[test]
fn the_versions_that_are_named_are_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    let chart: Value = yaml::load(read(&format!("{CHART}/Chart.yaml")).as_bytes()).unwrap();
    assert_eq!(chart["appVersion"], version);
    assert!(
        read("deploy/kubernetes/deployment.yaml").contains(&format!("image: octo-sts:{version}\n"))
    );
    let minimum = read("Cargo.toml")
        .split("rust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    assert!(read("deploy/Dockerfile").contains(&format!("FROM rust:{minimum}-")));
}
