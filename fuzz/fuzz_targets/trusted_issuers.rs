//! Lists of trusted issuers: the first line is an issuer that is asked about, the rest the list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use octo_sts::{
    name::Issuer,
    pattern::fuzzing::compile,
    policy::{TrustedIssuers, Verdict},
};
use octo_sts_fuzz::{cases, lines, seed};
use serde_yaml::Value;

const ROOT: &str = "https://issuer.example";

fn seeds() {
    let cases = cases(include_str!("../../tests/corpus/issuers.yaml"));
    let fill = |text: &str| {
        text.replace("${ROOT_PATTERN}", r"https://issuer\.example").replace("${ROOT}", ROOT)
    };
    let lists = cases.iter().filter_map(|case| case["list"].as_str());
    seed(
        "trusted_issuers",
        lists.flat_map(|list| [ROOT, "${ROOT}/a"].map(|issuer| fill(&format!("{issuer}\n{list}")))),
    );
}

fuzz_target!(init: seeds(), |input: &str| {
    let (issuer, list) = input.split_once('\n').unwrap_or((ROOT, input));
    let parsed = TrustedIssuers::parse(list.as_bytes());
    let Ok(issuer) = issuer.parse::<Issuer>() else { return };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(errors) => {
            let line = |invalid: &octo_sts::yaml::Invalid| invalid.line().unwrap_or(1) as usize;
            return assert!(errors.iter().all(|invalid| (1..=lines(list)).contains(&line(invalid))), "{errors}");
        }
    };
    // The list as another parser reads it, and the rule by itself.
    let Ok(read) = serde_yaml::from_str::<Value>(list) else { return };
    let texts = |name: &str| {
        let entries = read.get(name).and_then(Value::as_sequence).cloned().unwrap_or_default();
        entries.into_iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let by_pattern = |pattern: &String| {
        let (_, by_class, optional, is_match) = compile(pattern).unwrap();
        assert!(!by_class && !optional, "{pattern}");
        is_match(issuer.as_str())
    };
    let listed = texts("issuers").iter().any(|listed| listed == issuer.as_str())
        || texts("issuer_patterns").iter().any(by_pattern);
    let enforced = read.get("mode").and_then(Value::as_str) != Some("audit");
    let verdict = parsed.verdict(&issuer);
    assert_eq!(verdict, if listed { Verdict::Listed } else { Verdict::Unlisted { enforced } });
    assert_eq!(verdict.allows(), listed || !enforced);
});
