//! The trusted issuers and the gate.

use super::*;

fn issuer(text: &str) -> Issuer {
    text.parse().unwrap()
}

fn list(text: &str) -> TrustedIssuers {
    TrustedIssuers::parse(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    match TrustedIssuers::parse(text.as_bytes()) {
        Ok(list) => panic!("{text:?} reads as {list:?}"),
        Err(invalid) => invalid.to_string(),
    }
}

#[test]
fn either_list_admits() {
    let list = list(
        "issuers:\n- https://a.example\n- https://b.example/x\nissuer_patterns:\n- 'https://[a-z]+\\.c\\.example'\n",
    );
    for good in ["https://a.example", "https://b.example/x", "https://eu.c.example"] {
        assert_eq!(list.verdict(&issuer(good)), Verdict::Listed, "{good}");
    }
    for bad in [
        "https://a.example/",
        "https://a.example.evil.com",
        "https://b.example",
        "https://b.example/x/",
        "https://eu.c.example/x",
        "https://evil.com/eu.c.example",
        "https://e1.c.example",
        "https://a.example:443",
    ] {
        assert_eq!(list.verdict(&issuer(bad)), Verdict::Unlisted { enforced: true }, "{bad}");
    }
}

#[test]
fn the_mode_is_enforce_unless_it_is_audit() {
    let other = issuer("https://other.example");
    for (mode, enforced) in [
        ("", true),
        ("mode: enforce\n", true),
        ("mode: audit\n", false),
        ("mode: 'audit'\n", false),
    ] {
        let verdict = list(&format!("{mode}issuers: [https://a.example]\n")).verdict(&other);
        assert_eq!(
            (verdict, verdict.allows()),
            (Verdict::Unlisted { enforced }, !enforced),
            "{mode}"
        );
    }
    for mode in ["Audit", "off", "''", "~", "", "[audit]", "enforced"] {
        refused(&format!("mode: {mode}\nissuers: [https://a.example]\n"));
    }
}

#[test]
fn entries_are_issuers_that_a_token_can_have() {
    for entry in [
        "HTTPS://a.example",
        "https://A.example",
        "a.example",
        "http://a.example",
        "https://a.example?x",
        "https://u@a.example",
        "https://a.example//b",
        "''",
        "~",
        "https://a.example/../b",
        "https://",
        "'https://a.example '",
        "*",
        "1",
    ] {
        assert!(
            refused(&format!("issuers:\n- {entry}\n")).starts_with("line 2, column 3: "),
            "{entry}"
        );
    }
    for entry in [
        "https://a.example",
        "https://a.example/",
        "https://a.example:6443/Realm/x",
        "http://127.0.0.1:8080",
    ] {
        assert_eq!(
            list(&format!("issuers:\n- {entry}\n")).verdict(&issuer(entry)),
            Verdict::Listed
        );
    }
}

#[test]
fn patterns_cannot_reach_over_a_slash() {
    for pattern in [
        r"https://.*\.example\.com",
        "https://[^.]+.example",
        r"https://\S+",
        r"https://[^]]+\.example\.com",
        r"https://\D\.example",
        r"https://\W",
        "https://[!-~]+",
        "https://[[:print:]]+",
        r"https://\PL+",
        r"https://[\x2f]",
        "https://[/]a",
        r"https://(a|[^b])\.example",
        "(?s).",
        r"\p{Po}",
        "https://a/?",
        "https://a(/b)?",
        "https://a(/b|/c)",
        "https://a(/b)*",
        r"https://a\/?",
        r"https://a(\x2Fb)+",
        r"https://a(\x{2f}b|c)",
        "(https://a)?",
        "https://a/{1,2}",
        "https://a|https://b",
        "(?:(?:/))+",
        "https://a(?i:/x)?",
    ] {
        let message = refused(&format!("issuer_patterns:\n- '{pattern}'\n"));
        assert!(
            message.starts_with("line 2, column 3: `") && message.contains('/'),
            "{pattern}: {message}"
        );
    }
}

#[test]
fn patterns_that_stay_between_slashes_are_taken() {
    for pattern in [
        r"https://[a-z0-9-]+\.example\.com",
        r"https://[^/]+\.example\.com/tenant/[^/]+",
        r"https://\w+\.example",
        r"https://oidc\.eks\.(eu|us)-[a-z0-9-]+\.amazonaws\.com/id/[0-9A-F]{32}",
        r"https:\/\/a\x2Fb",
        "https://(a|b)/c",
    ] {
        list(&format!("issuer_patterns:\n- '{pattern}'\n"));
    }
    for pattern in ["(", "a**", r"\C", r"https://a\057?", ""] {
        refused(&format!("issuer_patterns:\n- '{pattern}'\n"));
    }
}

#[test]
fn the_list_is_bounded_and_not_empty() {
    let issuers =
        |count: usize| (0..count).map(|n| format!("- https://h{n}.example\n")).collect::<String>();
    assert_eq!(
        list(&format!("issuers:\n{}", issuers(64))).verdict(&issuer("https://h63.example")),
        Verdict::Listed
    );
    assert!(refused(&format!("issuers:\n{}", issuers(65))).contains("more than 64"));
    let patterns = |count: usize| "- a\n".repeat(count);
    list(&format!("issuer_patterns:\n{}", patterns(16)));
    assert!(refused(&format!("issuer_patterns:\n{}", patterns(17))).contains("more than 16"));
    list(&format!("issuer_patterns: ['{}']", "é".repeat(256)));
    assert!(refused(&format!("issuer_patterns: ['{}']", "a".repeat(257))).contains("256"));
    list("issuers: []\nissuer_patterns: [a]\n");
    for empty in [
        "",
        "# x\n",
        "mode: audit\n",
        "issuers: []\n",
        "issuers: []\nissuer_patterns: []\n",
        "issuers:\n",
        "{}",
        "issuers: ~\nissuer_patterns: [a]\n",
    ] {
        refused(empty);
    }
}

#[test]
fn the_list_is_strict_yaml() {
    for text in [
        "issuers: https://a.example\n",
        "issuer: [https://a.example]\n",
        "Issuers: [https://a.example]\n",
        "issuers: [https://a.example]\nissuers: [https://b.example]\n",
        "issuers: [https://a.example]\n---\nissuers: []\n",
        "- https://a.example\n",
        "issuers: {a: b}\n",
        "issuers: [[https://a.example]]\n",
        "x: 1\nissuers: [https://a.example]\n",
    ] {
        refused(text);
    }
}

#[test]
fn a_policy_admits_the_issuers_that_it_surely_names() {
    let admits = |condition: &str, text: &str| {
        policy(&format!("{condition}\nsubject: s\n")).admit(&issuer(text))
    };
    assert!(admits("issuer: https://a.example", "https://a.example"));
    assert!(!admits("issuer: https://a.example", "https://a.example/"));
    assert!(admits(r"issuer_pattern: 'https://[a-z]+\.a\.example(/x)?'", "https://eu.a.example/x"));
    assert!(!admits(
        r"issuer_pattern: 'https://[a-z]+\.a\.example'",
        "https://evil.com/eu.a.example"
    ));
    for open in [
        r"https://.*\.a\.example",
        r"https://[^.]+\.a\.example",
        r"https://\S+\.a\.example",
        r"https://\D+\.a\.example",
        r"https://[[:graph:]]+\.a\.example",
        r"https://(\PN|x)+\.a\.example",
    ] {
        let policy = policy(&format!("issuer_pattern: '{open}'\nsubject: s\n"));
        assert!(policy.issuer.is_match("https://eu.a.example"), "{open}");
        assert!(!policy.admit(&issuer("https://eu.a.example")), "{open}");
    }
}

#[test]
fn the_gate_asks_the_list_and_the_policy() {
    let owner = "octo-org".parse().unwrap();
    let (ours, other) = (issuer("https://a.example"), issuer("https://b.example"));
    let policy = policy("issuer: https://a.example\nsubject: s\n");
    let listed = list("issuers: [https://a.example]\n");
    let unlisted = list("issuers: [https://c.example]\n");
    let audited = list("mode: audit\nissuers: [https://c.example]\n");
    for (list, admitted) in
        [(None, true), (Some(&listed), true), (Some(&unlisted), false), (Some(&audited), true)]
    {
        let admission = gate::admit(list, &policy, &ours, &owner);
        assert_eq!(
            admission.map(|admission| admission.issuer().clone()),
            admitted.then(|| ours.clone()),
            "{list:?}"
        );
        assert!(gate::admit(list, &policy, &other, &owner).is_none());
    }
    assert!(
        gate::admit(Some(&list("issuers: [https://b.example]\n")), &policy, &other, &owner)
            .is_none()
    );
}

#[test]
fn only_an_exact_issuer_is_named_exactly() {
    assert_eq!(
        policy("issuer: https://a.example\nsubject: s\n").exact_issuer(),
        Some("https://a.example")
    );
    assert_eq!(policy("issuer_pattern: https://a\nsubject: s\n").exact_issuer(), None);
}
