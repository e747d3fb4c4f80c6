//! One test: exchange, compare, use the token, revoke it.

use http::{Method, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    super::workload::Workload,
    file::{Repository, Test, Verify},
};
use crate::client::{GitHubApi, Target};

/// The name of the check run by which Apps are compared.
const CHECK_RUN: &str = "octo-sts-probe";
/// What is escaped in a segment of a path.
const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'/');

/// Runs tests.
pub(super) struct Probe<'a> {
    pub(super) workload: &'a Workload,
    /// The root of GitHub's API.
    pub(super) api: &'a Uri,
}

/// The reason for having no token.
#[derive(Debug, thiserror::Error)]
enum NoToken {
    /// The server refuses, or would. The text begins as that of the Go service's client.
    #[error("{0}")]
    Refused(String),
    /// There was no exchange, or its outcome is unknown.
    #[error("{0}")]
    Failed(String),
}

impl NoToken {
    fn refused(error: &dyn std::fmt::Display) -> Self {
        Self::Refused(format!("exchange failed: {error}"))
    }
}

/// What became of a test.
pub(super) struct Outcome {
    name: String,
    /// Why it failed.
    failure: Option<String>,
}

impl Outcome {
    pub(super) fn is_passed(&self) -> bool {
        self.failure.is_none()
    }

    /// A line for people.
    pub(super) fn line(&self) -> String {
        match &self.failure {
            None => format!("PASS  {}\n", self.name),
            Some(failure) => format!("FAIL  {}: {failure}\n", self.name),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "name": self.name, "passed": self.is_passed(), "failure": self.failure })
    }
}

impl Probe<'_> {
    /// Runs a test.
    pub(super) async fn run(&self, test: &Test) -> Outcome {
        let tested = match test.repeats() {
            Some(repeats) => self.same_app(test, repeats).await,
            None => self.exchange_once(test).await,
        };
        let plain =
            |text: String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Outcome { name: plain(test.name.clone()), failure: tested.err().map(plain) }
    }

    async fn exchange_once(&self, test: &Test) -> Result<(), String> {
        let token = match (self.exchange(test).await, test.expect_failure) {
            (Ok(token), false) => token,
            (Ok(token), true) => {
                self.revoke(&token).await?;
                return Err("the exchange was expected to fail and succeeded".to_owned());
            }
            (Err(NoToken::Refused(error)), true) if error.contains(&test.expected_error) => {
                return Ok(());
            }
            (Err(NoToken::Refused(error)), true) => {
                return Err(format!("expected an error with {:?}: {error}", test.expected_error));
            }
            (Err(error), _) => return Err(error.to_string()),
        };
        let verified = match &test.verify {
            Some(verify) => self.verify(verify, &token).await,
            None => Ok(()),
        };
        self.revoke(&token).await.and(verified)
    }

    /// A token by the test's policy.
    async fn exchange(&self, test: &Test) -> Result<SecretString, NoToken> {
        let scope = test.scope.parse().map_err(|error| NoToken::refused(&error))?;
        let identity = test.identity.parse().map_err(|error| NoToken::refused(&error))?;
        let token = self.workload.token().await;
        let token = token.map_err(|failure| NoToken::Failed(failure.to_string()))?;
        let target = Target::new(scope, identity);
        let issued = self.workload.client.exchange(&token, &target).await;
        issued.map(|issued| issued.token).map_err(|error| match error.code {
            // Nobody answered, or something broke: that is not a refusal.
            4 | 13 | 14 if error.reason.is_none() => NoToken::Failed(error.to_string()),
            _ => NoToken::refused(&error),
        })
    }

    fn api<'t>(&self, token: &'t SecretString) -> GitHubApi<'t> {
        GitHubApi::new(self.api, &self.workload.egress, token)
    }

    async fn revoke(&self, token: &SecretString) -> Result<(), String> {
        let revoked = self.api(token).revoke().await;
        revoked.map_err(|error| format!("the token was not revoked: {error}"))
    }

    /// Uses the token for what the file says that it can do.
    async fn verify(&self, verify: &Verify, token: &SecretString) -> Result<(), String> {
        let api = self.api(token);
        let mut paths = Vec::new();
        if let Some(file) = &verify.contents_read {
            let path = file.path.split('/').map(escaped).collect::<Vec<_>>().join("/");
            paths.push(format!("{}/contents/{path}", of_repository(&file.org, &file.repo)));
        }
        let listed = |repository: &Repository, what: &str| {
            format!("{}/{what}", of_repository(&repository.org, &repository.repo))
        };
        paths.extend(verify.issues_read.as_ref().map(|found| listed(found, "issues")));
        paths.extend(verify.pull_requests_read.as_ref().map(|found| listed(found, "pulls")));
        for path in paths {
            let read = api.call(Method::GET, &path, None).await;
            read.map_err(|error| format!("verification failed: {error}"))?;
        }
        Ok(())
    }

    /// Whether all exchanges use the same App: GitHub lets only the App that created a check run
    /// update it.
    async fn same_app(&self, test: &Test, repeats: usize) -> Result<(), String> {
        let (owner, repo) =
            test.scope.split_once('/').ok_or("`sticky_repeat` needs a scope OWNER/REPO")?;
        let runs = format!("{}/check-runs", of_repository(owner, repo));
        let first = self.exchange(test).await.map_err(|error| error.to_string())?;
        let created = self.create_check_run(&runs, (owner, repo), &first).await;
        let id = match created {
            Ok(id) => id,
            Err(error) => return self.revoke(&first).await.and(Err(error)),
        };
        let path = format!("{runs}/{id}");
        let mut same = Ok(());
        for exchange in 2..=repeats {
            same = self.update_check_run(test, &path, exchange).await;
            if same.is_err() {
                break;
            }
        }
        let done = json!({ "status": "completed", "conclusion": "neutral" });
        let ended = self.api(&first).call(Method::PATCH, &path, Some(&done)).await;
        let ended = ended.map(drop).map_err(|error| format!("the check run stays: {error}"));
        self.revoke(&first).await.and(same).and(ended)
    }

    async fn create_check_run(
        &self,
        runs: &str,
        (owner, repo): (&str, &str),
        token: &SecretString,
    ) -> Result<u64, String> {
        let api = self.api(token);
        let root = of_repository(owner, repo);
        let repository = api.call(Method::GET, &root, None).await.map_err(|e| e.to_string())?;
        let branch = repository.get("default_branch").and_then(Value::as_str).unwrap_or("main");
        let path = format!(
            "{root}/git/ref/heads/{}",
            branch.split('/').map(escaped).collect::<Vec<_>>().join("/")
        );
        let head = api.call(Method::GET, &path, None).await.map_err(|e| e.to_string())?;
        let body = json!({
            "name": CHECK_RUN,
            "head_sha": head.pointer("/object/sha"),
            "status": "completed",
            "conclusion": "success",
        });
        let run = api.call(Method::POST, runs, Some(&body)).await.map_err(|e| e.to_string())?;
        run.get("id").and_then(Value::as_u64).ok_or_else(|| "GitHub names no check run".to_owned())
    }

    async fn update_check_run(
        &self,
        test: &Test,
        path: &str,
        exchange: usize,
    ) -> Result<(), String> {
        let what = |error: String| format!("exchange {exchange}: {error}");
        let token = self.exchange(test).await.map_err(|error| what(error.to_string()))?;
        let body = json!({ "status": "completed", "conclusion": "success" });
        let updated = self.api(&token).call(Method::PATCH, path, Some(&body)).await;
        let updated = updated.map(drop).map_err(|error| {
            let cause = if error.code == 7 { "another App issued this token: " } else { "" };
            what(format!("{cause}{error}"))
        });
        self.revoke(&token).await.and(updated)
    }
}

fn of_repository(owner: &str, repo: &str) -> String {
    format!("/repos/{}/{}", escaped(owner), escaped(repo))
}

fn escaped(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}
