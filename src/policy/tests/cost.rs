//! What policies cost: those that people write stay cheap, hostile ones do not.

use super::*;
use crate::cpu_limiter::MAX_INLINE_COST;

/// Claims of workflow tokens and patterns as real policies write them, OWNER and REPO to be filled
/// in.
const SHAPES: [(&str, &[&str]); 14] = [
    (
        "job_workflow_ref",
        &[
            r"OWNER/REPO/\.github/workflows/.*@refs/heads/main",
            r"OWNER/.*/.github/workflows/[a-z-]+\.ya?ml@refs/(heads|tags)/.*",
            r"OWNER/(REPO|REPO-infra|REPO-images|REPO-charts|REPO-docs)/\.github/workflows/(build|release|sync|bump|scan|deploy)\.yaml@refs/heads/(main|release/v[0-9]+\.[0-9]+)",
        ],
    ),
    ("workflow_ref", &[r"^OWNER/REPO/\.github/workflows/(ci|release).yaml@refs/.*$", "OWNER/.*"]),
    ("event_name", &["push", "(push|workflow_dispatch|schedule|repository_dispatch)"]),
    (
        "ref",
        &[
            "refs/heads/main",
            "refs/heads/(main|master|release-.*)",
            r"refs/tags/v[0-9]+\.[0-9]+\.[0-9]+(-.*)?",
        ],
    ),
    ("repository", &["OWNER/REPO", "OWNER/(REPO|REPO-.+)", "(?i)OWNER/[a-z0-9_.-]{1,100}"]),
    ("ref_protected", &["true"]),
    ("ref_type", &["branch|tag"]),
    ("repository_owner", &["OWNER"]),
    ("repository_id", &["[0-9]+", "[0-9]{1,20}"]),
    ("repository_visibility", &["private|internal"]),
    ("environment", &["prod.*", "[^/]+"]),
    ("actor", &[r".*\[bot\]", r"[\w-]{1,39}(\[bot\])?"]),
    ("sha", &["[a-f0-9]{40}"]),
    ("runner_environment", &["github-hosted", ".*"]),
];

/// Up to twelve claim patterns, and a token of 4 KiB.
fn generated(seed: u64) -> (Policy, VerifiedToken) {
    let mut random = fastrand::Rng::with_seed(seed);
    let word = |random: &mut fastrand::Rng, most| -> String {
        (0..random.usize(3..=most)).map(|_| random.alphanumeric().to_ascii_lowercase()).collect()
    };
    let (owner, repo) = (word(&mut random, 39), word(&mut random, 60));
    let fill = |text: &str| text.replace("OWNER", &owner).replace("REPO", &repo);
    let subjects = [
        "subject: repo:OWNER/REPO:ref:refs/heads/main",
        r"subject_pattern: repo:OWNER/.*:(ref:refs/heads/main|pull_request|environment:[a-z]+)",
        r"subject_pattern: ^repo:[^/]+/[a-zA-Z0-9_.-]+:.*$",
    ];
    let audiences =
        ["", "audience_pattern: https://.*\\.example\\.com\n", "audience: sts.example.com\n"];
    let mut shapes = SHAPES;
    random.shuffle(&mut shapes);
    let claims: String = shapes[..random.usize(0..=12)]
        .iter()
        .map(|(name, patterns)| {
            format!("  {name}: '{}'\n", fill(patterns[random.usize(..patterns.len())]))
        })
        .collect();
    let claims = if claims.is_empty() { claims } else { format!("claim_pattern:\n{claims}") };
    let subject = fill(subjects[random.usize(..subjects.len())]);
    let audience = audiences[random.usize(..audiences.len())];
    let policy = policy(&format!("issuer: {ACTIONS}\n{subject}\n{audience}{claims}"));
    let mut claims: Map<String, Value> = shapes
        .iter()
        .map(|(name, _)| ((*name).to_owned(), Value::from(word(&mut random, 290))))
        .collect();
    claims.insert("sub".into(), format!("repo:{owner}/{repo}:{}", word(&mut random, 200)).into());
    let length = serde_json::to_string(&claims).unwrap().len();
    claims.insert("workflow".into(), "w".repeat(4096_usize.saturating_sub(length)).into());
    (policy, token(&claims))
}

#[test]
fn policies_as_people_write_them_are_cheap() {
    let costs: Vec<u64> =
        (0..2_000).map(generated).map(|(policy, token)| policy.cost(&token)).collect();
    let most = costs.iter().max().unwrap();
    // Half of what is allowed, so that no real policy comes near.
    assert!(*most < MAX_INLINE_COST / 2, "{most}");
    assert!(
        costs.iter().filter(|cost| **cost > 1 << 20).count() > 500,
        "the policies have patterns"
    );
}

#[test]
fn policies_as_people_write_them_take_little_memory() {
    let bytes: Vec<usize> = (0..500).map(|seed| generated(seed).0.heap_bytes()).collect();
    let mean = bytes.iter().sum::<usize>() / bytes.len();
    assert!(mean < 64 << 10, "{mean}");
}

#[test]
fn hostile_policies_are_expensive() {
    let token = token(
        json!({"a": "ab".repeat(2000), "list": vec!["x".repeat(1000); 20]}).as_object().unwrap(),
    );
    for claims in
        ["{a: '((.*a){1,10}){1,90}[b-c]'}", r"{a: '\pL{50}'}", "{list: '((.*a){1,10}){1,90}[b-c]'}"]
    {
        let policy = policy(&format!("issuer: {ACTIONS}\nsubject: s\nclaim_pattern: {claims}\n"));
        assert!(policy.cost(&token) > MAX_INLINE_COST, "{claims}");
    }
}

#[test]
fn a_pattern_costs_by_the_text_that_it_is_matched_against() {
    let cost = |claims: Value, pattern: &str| {
        let policy =
            policy(&format!("issuer: {ACTIONS}\nsubject: s\nclaim_pattern: {{a: '{pattern}'}}\n"));
        policy.cost(&token(claims.as_object().unwrap()))
    };
    let long = "x".repeat(4000);
    assert_eq!(cost(json!({}), "abc"), 0, "an absent claim is not matched");
    assert_eq!(cost(json!({"a": "abc"}), "abc"), cost(json!({"a": "abc", "other": long}), "abc"));
    assert!(cost(json!({"a": long}), "abc") > 50 * cost(json!({"a": "abc"}), "abc"));
    assert_eq!(cost(json!({"a": [long, long]}), "abc"), 2 * cost(json!({"a": long}), "abc"));
    assert_eq!(cost(json!({"a": {"b": long}}), "abc"), 0, "an object never matches");
}
