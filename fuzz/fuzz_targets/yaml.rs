//! Strict YAML: what is taken, libyaml does not read otherwise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use octo_sts::yaml;
use octo_sts_fuzz::{cases, seed};
use serde_json::Value as Ours;
use serde_yaml::Value as Theirs;

fn seeds() {
    let (policies, lists) = (
        cases(include_str!("../../tests/corpus/policies.yaml")),
        cases(include_str!("../../tests/corpus/issuers.yaml")),
    );
    let policies = policies.iter().filter_map(|case| case["policy"].as_str());
    seed("yaml", policies.chain(lists.iter().filter_map(|case| case["list"].as_str())));
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Ok(ours) = yaml::load::<Ours>(bytes) else { return };
    // What libyaml refuses (`[a:]`, and more of YAML 1.2) is nothing else to it either.
    let Ok(theirs) = serde_yaml::from_slice::<Theirs>(bytes) else { return };
    assert!(is_same(&ours, &theirs), "{ours} is {theirs:?} to libyaml");
});

fn is_same(ours: &Ours, theirs: &Theirs) -> bool {
    match (ours, theirs) {
        (Ours::Null, Theirs::Null) => true,
        (Ours::Bool(ours), Theirs::Bool(theirs)) => ours == theirs,
        (Ours::Number(ours), Theirs::Number(theirs)) => ours.to_string() == theirs.to_string(),
        (Ours::String(ours), Theirs::String(theirs)) => ours == theirs,
        (Ours::Array(ours), Theirs::Sequence(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Ours::Object(ours), Theirs::Mapping(theirs)) => {
            let find = |key: &Theirs| ours.get(&text(key)?);
            ours.len() == theirs.len()
                && theirs
                    .iter()
                    .all(|(key, theirs)| find(key).is_some_and(|ours| is_same(ours, theirs)))
        }
        _ => false,
    }
}

fn text(key: &Theirs) -> Option<String> {
    Some(match key {
        Theirs::String(text) => text.clone(),
        Theirs::Number(number) => number.to_string(),
        Theirs::Bool(value) => value.to_string(),
        _ => return None,
    })
}
