//! What GitHub delivers: a pull request that breaks a policy, and a push that deletes one.

use serde_json::{Value, json};

use super::{
    policies::{ORG, PolicyFile},
    tour::Tour,
    world::World,
};
use crate::emulator::CheckRunRecord;

const REPO: &str = "hello";

impl Tour<'_> {
    /// A pull request with a mistake in a policy gets a check that fails, on the line of the mistake.
    pub(super) async fn pull_request(&mut self, index: usize) -> bool {
        self.page.step("A pull request that breaks the policy gets a check that says so");
        let Some(file) = self.world.policies.files.get(index) else { return false };
        let (path, broken) = (file.name.path(), broken(file));
        self.page.note("In it, subject is misspelled as subjects.");
        let run = proposed(self.world, &path, &broken).await;
        drop(self.world.record().await);
        let Some(run) = run else { return self.page.check(false, "there is no check run") };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let words = format!("{}  {}: {}", text(&run.conclusion), run.name, text(&run.title));
        let mut as_expected = run.conclusion.as_deref() == Some("failure");
        as_expected &= !run.annotations.is_empty();
        self.page.check(as_expected, words);
        for annotation in &run.annotations {
            let text =
                |name: &str| annotation.get(name).and_then(Value::as_str).unwrap_or_default();
            let line = annotation.get("start_line").and_then(Value::as_u64).unwrap_or_default();
            for message in text("message").lines().filter(|line| !line.is_empty()) {
                self.page.note(format_args!("         {path} line {line}: {message}"));
            }
        }
        as_expected
    }

    /// A policy that was deleted is refused as soon as GitHub has said so.
    pub(super) async fn deletion(&mut self, index: usize) -> bool {
        self.page.step("The policy is deleted; from GitHub's delivery on, it gives no token");
        let Some((file, token)) = self.workload(index, &[]) else {
            return self.page.check(false, "no token can be made up");
        };
        let (path, scope, identity) = (file.name.path(), file.scope(), file.name.to_string());
        let placed = self.world.placed.get(index).cloned().unwrap_or_default();
        let status = push(self.world, &path, None).await;
        drop(self.world.record().await);
        let arrived = self.page.check(status == Some(200), "200  the delivery of the push");
        let reply = self.world.caller.rest(&self.world.server, &token, &scope, &identity).await;
        drop(self.world.record().await);
        let refused = match reply {
            Ok(reply) => {
                let reason = reply.text("/details/0/reason");
                let words =
                    format!("{}  {reason}: {}", reply.status.as_u16(), reply.text("/message"));
                self.page.check(reason == "POLICY_NOT_FOUND", words)
            }
            Err(error) => self.page.check(false, error),
        };
        // For those who go on with it.
        push(self.world, &path, Some(&placed)).await;
        drop(self.world.record().await);
        arrived && refused
    }
}

fn broken(file: &PolicyFile) -> String {
    file.text.replace("subject:", "subjects:")
}

/// Opens a pull request with the file: the check run that it gets.
async fn proposed(world: &World, path: &str, text: &str) -> Option<CheckRunRecord> {
    let github = &world.github;
    let head = github.commit_files((ORG, REPO), "break-it", &[(path, Some(text))]);
    let number = github.open_pull((ORG, REPO), (ORG, REPO, "break-it"), "main");
    let body = about(
        world,
        &json!({
            "action": "opened", "pull_request": { "number": number, "head": { "sha": head } },
        }),
    );
    github.deliver(world.app, "pull_request", body).await;
    for _ in 0..100 {
        let run = github.check_runs(ORG, REPO).into_iter().find(|run| run.head_sha == head);
        if run.is_some() {
            return run;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    None
}

/// Commits a change to the main branch and delivers the push: the server's status.
async fn push(world: &World, path: &str, text: Option<&str>) -> Option<u16> {
    let github = &world.github;
    let before = github.head_of(ORG, REPO, "main").unwrap_or_default();
    let after = github.commit_files((ORG, REPO), "main", &[(path, text)]);
    let change = if text.is_some() { "added" } else { "removed" };
    let body = about(
        world,
        &json!({
            "ref": "refs/heads/main", "before": before, "after": after, "commits": [{ change: [path] }],
        }),
    );
    let guid = github.deliver(world.app, "push", body).await;
    github.delivery_statuses(&guid).first().copied()
}

/// What every delivery says.
fn about(world: &World, what: &Value) -> Value {
    let mut body = json!({
        "repository": { "name": REPO, "owner": { "login": ORG }, "default_branch": "main" },
        "installation": { "id": world.installation.0 },
    });
    if let (Value::Object(body), Value::Object(what)) = (&mut body, what) {
        body.extend(what.clone());
    }
    body
}
