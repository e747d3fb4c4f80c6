//! The file of tests, in the format of the Go service's smoke test.

use serde::Deserialize;

use crate::yaml::{self, At, Invalid};

/// Tests in one file.
const MAX_TESTS: usize = 256;
/// Exchanges in one test.
const MAX_REPEATS: usize = 1000;

/// What is tested.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `domain` and `tests`")]
pub(super) struct ProbeFile {
    /// The host of the server, and the audience of tokens for it.
    pub(super) domain: String,
    pub(super) tests: Vec<Test>,
}

/// One test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `name`, `scope` and `identity`")]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) scope: String,
    pub(super) identity: String,
    /// The exchange must fail.
    #[serde(default)]
    pub(super) expect_failure: bool,
    /// A part of the error's text; empty is part of any.
    #[serde(default)]
    pub(super) expected_error: String,
    /// So many exchanges must use the same App.
    #[serde(default)]
    sticky_repeat: Option<At<usize>>,
    #[serde(default)]
    pub(super) verify: Option<Verify>,
}

/// What the token must be able to do.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map of what is read")]
pub(super) struct Verify {
    #[serde(default)]
    pub(super) contents_read: Option<File>,
    #[serde(default)]
    pub(super) issues_read: Option<Repository>,
    #[serde(default)]
    pub(super) pull_requests_read: Option<Repository>,
}

/// A file in a repository.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `org`, `repo` and `path`")]
pub(super) struct File {
    pub(super) org: String,
    pub(super) repo: String,
    pub(super) path: String,
}

/// A repository.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `org` and `repo`")]
pub(super) struct Repository {
    pub(super) org: String,
    pub(super) repo: String,
}

impl ProbeFile {
    /// Reads the file.
    ///
    /// # Errors
    /// The first error in it, with its place.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let file: Self = yaml::load(text)?;
        if file.domain.trim().is_empty() {
            return Err(Invalid::file("expected `domain`, the host of the server"));
        }
        if file.tests.is_empty() || file.tests.len() > MAX_TESTS {
            return Err(Invalid::file(format!("expected 1 to {MAX_TESTS} `tests`")));
        }
        for test in &file.tests {
            for (name, value) in
                [("name", &test.name), ("scope", &test.scope), ("identity", &test.identity)]
            {
                if value.is_empty() {
                    return Err(Invalid::file(format!("a test has an empty `{name}`")));
                }
            }
            if let Some(repeat) = &test.sticky_repeat
                && !(repeat.value == 0 || (2..=MAX_REPEATS).contains(&repeat.value))
            {
                let rule = format!("expected 2 to {MAX_REPEATS} exchanges");
                return Err(Invalid::at(repeat.mark, rule));
            }
        }
        Ok(file)
    }
}

impl Test {
    /// How many exchanges must use the same App; `None` if that is not tested.
    pub(super) fn repeats(&self) -> Option<usize> {
        self.sticky_repeat.as_ref().map(|repeat| repeat.value).filter(|repeat| *repeat > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str =
        "domain: sts.example.com\ntests:\n  - {name: one, scope: o/r, identity: i}\n";

    #[test]
    fn a_file_of_the_go_services_smoke_test_is_read() {
        let text = "\
domain: octo-sts.example.com
tests:
  - name: valid
    scope: octo-org/hello
    identity: smoke-test
    expect_failure: false
    verify:
      contents_read: {org: octo-org, repo: hello, path: README.md}
      issues_read: {org: octo-org, repo: hello}
      pull_requests_read: {org: octo-org, repo: hello}
  - name: missing
    scope: octo-org/hello
    identity: absent
    expect_failure: true
    expected_error: exchange failed
  - name: sticky
    scope: octo-org/hello
    identity: checks
    sticky_repeat: 30
";
        let file = ProbeFile::parse(text.as_bytes()).unwrap();
        assert_eq!((file.domain.as_str(), file.tests.len()), ("octo-sts.example.com", 3));
        assert_eq!(file.tests[2].repeats(), Some(30));
        assert!(file.tests[1].expect_failure);
        assert!(ProbeFile::parse(TEST.as_bytes()).unwrap().tests[0].repeats().is_none());
    }

    #[test]
    fn errors_name_what_is_expected() {
        for (text, words) in [
            (String::new(), "is empty"),
            ("domain: x\ntests: []\n".to_owned(), "1 to 256"),
            (TEST.replace("sts.example.com", "''"), "expected `domain`"),
            (TEST.replace("name: one", "name: ''"), "empty `name`"),
            (TEST.replace("identity: i", "identity: i, sticky_repeat: 1"), "2 to 1000"),
            (TEST.replace("identity: i", "identity: i, expect: x"), "expect"),
            (TEST.replace("identity: i", "expect_failure: true"), "identity"),
        ] {
            let error = ProbeFile::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
