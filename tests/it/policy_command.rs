//! `octo-sts policy` as a process: what it prints and how it ends.

use crate::harness::{Folder, process};

const POLICY: &str = "issuer: https://token.actions.githubusercontent.com\n\
    subject: repo:your-org/your-repo:ref:refs/heads/main\npermissions:\n  contents: read\n";

fn test(expect: &str) -> String {
    format!(
        "tests:\n  - name: main\n    claims: {{iss: https://token.actions.githubusercontent.com, sub: 'repo:your-org/your-repo:ref:refs/heads/main', aud: sts.example.com}}\n    expect: {expect}\n"
    )
}

/// Exit code and stdout.
fn said(arguments: &[&str], folder: &Folder) -> (Option<i32>, String) {
    let output = process(&[]).arg("policy").args(arguments).arg(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text.replace(folder.path().to_str().unwrap(), "FOLDER"))
}

fn checkout(files: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().join(".github/chainguard")).unwrap();
    for (name, text) in files {
        folder.file(&format!(".github/chainguard/{name}"), text);
    }
    folder
}

#[test]
fn lint_reports_errors_and_warnings_with_their_places() {
    let good = checkout(&[("ci.sts.yaml", POLICY)]);
    let (code, text) = said(&["lint"], &good);
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "1 valid policies, 0 lines of errors, 0 warnings\n")
    );

    let glob = POLICY.replace("subject:", "subject_pattern:").replace("heads/main", "heads/*");
    let broken = POLICY.replace("contents: read", "contents: reed");
    let folder =
        checkout(&[("broken.sts.yaml", &broken), ("ci.yaml", POLICY), ("glob.sts.yaml", &glob)]);
    let (code, text) = said(&["lint"], &folder);
    assert_eq!(code, Some(64), "{text}");
    for line in [
        "FOLDER/.github/chainguard/broken.sts.yaml:4:13: a level is `read`, `write` or `admin`",
        "warning: FOLDER/.github/chainguard/glob.sts.yaml:2:18: `subject_pattern`",
        "warning: FOLDER/.github/chainguard/ci.yaml: this file is not read",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn an_organizations_policies_are_checked_as_such() {
    let policy = format!("{POLICY}repositories: [a]\n");
    let folder = checkout(&[("deploy.sts.yaml", &policy)]);
    assert_eq!(said(&["lint"], &folder).0, Some(64));
    assert_eq!(said(&["lint", "--organization"], &folder).0, Some(0));
}

#[test]
fn examples_are_run_and_those_that_come_out_otherwise_are_reported() {
    let domain = ["test", "--domain", "sts.example.com"];
    let folder = checkout(&[("ci.sts.yaml", POLICY), ("ci.sts.test.yaml", &test("granted"))]);
    assert_eq!(said(&domain, &folder), (Some(0), "1 tests, 0 failed\n".into()));
    // Another server's host is not the audience of the token.
    let (code, text) = said(&["test", "--domain", "other.example.com"], &folder);
    assert_eq!(code, Some(70));
    assert!(text.starts_with("FOLDER/.github/chainguard/ci.sts.test.yaml:2: test \"main\": expected granted, but it is denied by audience\n"), "{text}");
    assert_eq!(said(&["test"], &folder).0, Some(0), "without a domain, it is not looked at");

    let folder = checkout(&[("ci.sts.yaml", POLICY), ("ci.sts.test.yaml", &test("denied"))]);
    assert_eq!(said(&domain, &folder).0, Some(70));
    let folder = checkout(&[("ci.sts.yaml", POLICY), ("ci.sts.test.yaml", "tests: 1\n")]);
    assert!(said(&domain, &folder).1.contains("ci.sts.test.yaml:1: "));
}
