//! The claims that real issuers put into their tokens, for examples and tests. `iss`, the times and
//! `jti` are left to [`super::Issuer::sign`]; `aud` is left to the caller.

use serde_json::{Value, json};

/// A GitHub Actions token of a workflow that runs in `OWNER/REPO` on `reference`
/// (`refs/heads/main`). Ids are strings, as GitHub sends them.
pub fn github_actions(owner: &str, repo: &str, reference: &str) -> Value {
    let full_name = format!("{owner}/{repo}");
    let workflow = format!("{full_name}/.github/workflows/release.yaml@{reference}");
    let sha = "9b1ad1b7ad2c64f3c2c2b5c4f0a3c6a57d9f6a11";
    json!({
        "sub": format!("repo:{full_name}:ref:{reference}"),
        "actor": "octocat",
        "actor_id": "583231",
        "base_ref": "",
        "check_run_id": "37261955472",
        "event_name": if reference.starts_with("refs/pull/") { "pull_request" } else { "push" },
        "head_ref": "",
        "job_workflow_ref": workflow,
        "job_workflow_sha": sha,
        "ref": reference,
        "ref_protected": "true",
        "ref_type": if reference.starts_with("refs/tags/") { "tag" } else { "branch" },
        "repository": full_name,
        "repository_id": "600000001",
        "repository_owner": owner,
        "repository_owner_id": "5000001",
        "repository_visibility": "private",
        "run_attempt": "1",
        "run_id": "16214763527",
        "run_number": "42",
        "runner_environment": "github-hosted",
        "sha": sha,
        "workflow": "release",
        "workflow_ref": workflow,
        "workflow_sha": sha,
    })
}

/// A GitHub Actions token of a workflow that runs for a pull request: it has the merge ref.
pub fn github_actions_pull_request(owner: &str, repo: &str, number: u32) -> Value {
    let mut claims = github_actions(owner, repo, &format!("refs/pull/{number}/merge"));
    set(&mut claims, "sub", format!("repo:{owner}/{repo}:pull_request"));
    set(&mut claims, "base_ref", "main".to_owned());
    set(&mut claims, "head_ref", "feature".to_owned());
    set(&mut claims, "ref_protected", "false".to_owned());
    claims
}

/// A GitHub Actions token of a job that names an environment, on the branch `main`.
pub fn github_actions_environment(owner: &str, repo: &str, environment: &str) -> Value {
    let mut claims = github_actions(owner, repo, "refs/heads/main");
    set(&mut claims, "sub", format!("repo:{owner}/{repo}:environment:{environment}"));
    set(&mut claims, "environment", environment.to_owned());
    set(&mut claims, "environment_node_id", "EN_kwDOAbCdEf4AbCdE".to_owned());
    claims
}

fn set(claims: &mut Value, name: &str, value: String) {
    if let Value::Object(claims) = claims {
        claims.insert(name.to_owned(), Value::String(value));
    }
}

/// A Kubernetes projected token of a pod's service account.
pub fn kubernetes(namespace: &str, service_account: &str) -> Value {
    json!({
        "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "node-1", "uid": "6b1c9d7e-6f7e-4b52-9a0d-1b6a4a5d0c11"},
            "pod": {"name": format!("{service_account}-0"), "uid": "b24dd48c-8f6d-4fdc-93a9-db5f40ed833c"},
            "serviceaccount": {"name": service_account, "uid": "bde80658-c3cc-4de9-8caa-5798fa48f45d"},
        },
    })
}
