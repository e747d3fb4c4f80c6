use super::*;

fn read(text: &str) -> Result<DenyList, String> {
    DenyList::read(text.as_bytes()).map_err(|error| error.to_string())
}

/// Whether one entry denies what is known by these words: `issuer`, `kid`, `sub`, `at` a policy,
/// `reaches` repositories (`*`: all).
fn denies(entry: &str, known: &[(&str, &str)]) -> bool {
    let list = read(&format!("deny:\n  - {{{entry}, reason: x}}\n")).unwrap();
    let get = |name: &str| known.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let issuer = get("issuer").unwrap_or("https://issuer.example.com").parse().unwrap();
    let subject: Option<Subject> = get("sub").map(|subject| subject.parse().unwrap());
    let place: Option<(Owner, RepoName, PolicyName)> = get("at").map(|at| {
        let mut parts = at.splitn(3, '/');
        let mut next = || parts.next().unwrap();
        (next().parse().unwrap(), next().parse().unwrap(), next().parse().unwrap())
    });
    let repositories = get("reaches").map(|names| match names {
        "*" => Repositories::All,
        names => Repositories::These(names.split(' ').map(|name| name.parse().unwrap()).collect()),
    });
    let facts = Facts {
        issuer: &issuer,
        key_id: get("kid"),
        subject: subject.as_ref(),
        policy: place.as_ref().map(|(owner, repo, name)| PolicyAt { owner, repo, name }),
        repositories: repositories.as_ref(),
    };
    list.check(&facts, UnixTime::from_secs(0)).is_err()
}

#[test]
fn each_key_denies_what_it_names_and_nothing_else() {
    let (ci, other) = (("at", "octo-org/hello/ci"), ("at", "octo-org/other/ci"));
    let issuer = "issuer: https://k8s.example.com/a";
    for (entry, known, expected) in [
        (issuer, &[("issuer", "https://k8s.example.com/a")][..], true),
        (issuer, &[("issuer", "https://k8s.example.com/a/")], true),
        (issuer, &[("issuer", "https://k8s.example.com/A")], false),
        (issuer, &[("issuer", "https://k8s.example.com/ab")], false),
        (issuer, &[("issuer", "https://k8s.example.com")], false),
        ("key_id: k1", &[("kid", "k1")], true),
        ("key_id: k1", &[("kid", "K1")], false),
        ("key_id: k1", &[], false),
        ("key_id: 7", &[("kid", "7")], true),
        ("subject: a:b", &[("sub", "a:b")], true),
        ("subject: a:b", &[("sub", "a:bc")], false),
        ("subject: a:b", &[], false),
        ("subject_pattern: 'a:.*'", &[("sub", "a:bc")], true),
        ("subject_pattern: 'a:.*'", &[("sub", "xa:bc")], false),
        ("subject_pattern: 'a:.*'", &[], false),
        ("owner: Octo-Org", &[ci], true),
        ("owner: octo", &[ci], false),
        ("owner: octo-org", &[], false),
        ("repository: octo-org/HELLO", &[ci], true),
        ("repository: octo-org/hello", &[other], false),
        ("repository: other-org/hello", &[ci], false),
        ("repository: octo-org/hello", &[other, ("reaches", "other hello")], true),
        ("repository: octo-org/hello", &[other, ("reaches", "other")], false),
        ("repository: octo-org/hello", &[other, ("reaches", "*")], true),
        ("repository: other-org/hello", &[other, ("reaches", "*")], false),
        ("policy: octo-org/hello/ci", &[ci], true),
        ("policy: octo-org/hello/CI", &[ci], false),
        ("policy: octo-org/hello/c", &[ci], false),
        ("policy: octo-org/hello/a/b", &[("at", "octo-org/hello/a/b")], true),
        ("policy: octo-org/hello/ci", &[other], false),
    ] {
        assert_eq!(denies(entry, known), expected, "{entry} {known:?}");
    }
}

#[test]
fn all_keys_of_an_entry_must_match() {
    let entry = "issuer: https://issuer.example.com, owner: octo-org, subject: s";
    let known = [("sub", "s"), ("at", "octo-org/hello/ci")];
    assert!(denies(entry, &known));
    assert!(!denies(entry, &known[..1]));
    assert!(!denies(entry, &known[1..]));
    assert!(!denies(entry, &[known[0], known[1], ("issuer", "https://other.example.com")]));
}

#[test]
fn an_entry_is_in_force_until_its_end() {
    let list = read(
        "deny:\n  - {owner: octo-org, reason: over, until: \"1970-01-01T00:01:00Z\"}\n\
         \x20 - {owner: octo-org, reason: still so, until: \"1970-01-01T03:00:00+01:00\"}\n",
    )
    .unwrap();
    let issuer = "https://issuer.example.com".parse().unwrap();
    let (owner, repo, name) =
        ("octo-org".parse().unwrap(), "hello".parse().unwrap(), "ci".parse().unwrap());
    let facts = Facts {
        issuer: &issuer,
        key_id: None,
        subject: None,
        policy: Some(PolicyAt { owner: &owner, repo: &repo, name: &name }),
        repositories: None,
    };
    let at = |secs| list.check(&facts, UnixTime::from_secs(secs)).map_err(|d| d.to_string());
    let denied = |line, why: &str| {
        Err(format!("denied by the entry at line {line} of the deny file: {why}"))
    };
    assert_eq!(at(59), denied(2, "over"));
    assert_eq!(at(60), denied(3, "still so"));
    assert_eq!(at(2 * 60 * 60 - 1), denied(3, "still so"));
    assert_eq!(at(2 * 60 * 60), Ok(()));
}

#[test]
fn an_error_says_where_and_which_rule() {
    let reason = "reason: x";
    for (text, expected) in [
        ("", "the file is empty"),
        ("deny: null\n", ""),
        ("{}\n", ""),
        ("deny:\n  - {owner: octo-org}\n", "expected `reason`"),
        ("deny:\n  - {owner: octo-org, reason: ' '}\n", "expected a reason"),
        ("deny:\n  - {reason: x}\n", "expected at least one of"),
        (
            &format!("deny:\n  - {{subject: a, subject_pattern: b, {reason}}}\n"),
            "expected `subject` or `subject_pattern`",
        ),
        (&format!("deny:\n  - {{owners: a, {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{owner: null, {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{owner: a b, {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{issuer: 'http://a.example.com', {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{repository: a, {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{repository: a/b/c, {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{policy: a/b, {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{policy: a/b/../c, {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{key_id: '', {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{subject_pattern: '(', {reason}}}\n"), "line 2"),
        (&format!("deny:\n  - {{owner: a, until: 2026-12-01T00:00:00Z, {reason}}}\n"), "quotes"),
        (&format!("deny:\n  - {{owner: a, until: tomorrow, {reason}}}\n"), "expected a time"),
        (&format!("deny:\n  - {{owner: a, {reason}}}\nallow: []\n"), "line 3"),
    ] {
        match read(text) {
            Ok(_) => panic!("{text} is read"),
            Err(error) => assert!(error.contains(expected), "{text}: {error}"),
        }
    }
    assert_eq!(read("deny: []\n"), Ok(DenyList::default()));
}
