//! Trust policies: any file is refused at a place of its own, or evaluates within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use octo_sts::{
    name::{RepoName, Scope},
    policy::{Context, PolicyKind, Policy, Repositories, Rules},
};
use octo_sts_fuzz::{WORLD, cases, lines, seed};

fn seeds() {
    let cases = cases(include_str!("../../tests/corpus/policies.yaml"));
    seed("policy", cases.iter().filter_map(|case| case["policy"].as_str()));
}

fuzz_target!(init: seeds(), |text: &str| {
    let text = WORLD.fill(text);
    for kind in [PolicyKind::Repository, PolicyKind::Organization] {
        match Policy::parse(text.as_bytes(), kind, &Rules::default()) {
            Ok(policy) => evaluate(&policy, kind),
            Err(errors) => {
                assert!(errors.iter().count() > 0);
                for invalid in errors.iter() {
                    let line = invalid.line().unwrap_or(1) as usize;
                    assert!((1..=lines(&text)).contains(&line), "{invalid}");
                    assert!(invalid.column() != Some(0) && !invalid.rule().is_empty(), "{invalid}");
                }
            }
        }
    }
});

fn evaluate(policy: &Policy, kind: PolicyKind) {
    assert!(policy.heap_bytes() > 0);
    let policy_repo: RepoName = ".github".parse().unwrap();
    for scope in ["octo-org/hello", "octo-org", "octo-org/.github"] {
        let scope: Scope = scope.parse().unwrap();
        let asked = Context {
            scope: &scope,
            domain: "sts.example.com",
            github_host: "github.com",
            policy_repo: &policy_repo,
        };
        for token in &WORLD.tokens {
            let grant = match policy.evaluate(token, &asked) {
                Ok(grant) => grant,
                Err(denied) => {
                    assert!(denied.failed().count() > 0);
                    continue;
                }
            };
            assert_eq!(
                kind,
                PolicyKind::of(&scope, &policy_repo),
                "a policy speaks for its own kind of scope"
            );
            assert!(grant.conditions().iter().all(|condition| condition.satisfied));
            assert_eq!(grant.owner(), scope.owner());
            assert!(!grant.permissions().is_empty());
            assert!(policy.exact_issuer().is_none_or(|issuer| issuer == token.issuer().as_str()));
            match grant.repositories() {
                Repositories::All => assert_eq!(kind, PolicyKind::Organization),
                Repositories::These(names) if kind == PolicyKind::Repository => {
                    assert_eq!(Some(&names[..]), scope.repo().map(std::slice::from_ref))
                }
                Repositories::These(names) => assert!(!names.is_empty()),
            }
        }
    }
}
