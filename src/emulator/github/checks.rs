//! Check runs: only the App that created one can change it.

use serde_json::{Value, json};

use super::super::server::Request;
use super::{
    caller::{self, Caller},
    files::{CheckRun, Repository},
    reply::{Answer, DOCS, Reply},
    route::RouteKind,
    shapes,
    state::State,
};
use crate::clock::UnixTime;

/// Annotations of one request.
const MAX_ANNOTATIONS: usize = 50;
/// Characters of a summary.
const MAX_SUMMARY: usize = 65_535;
const STATUSES: [&str; 3] = ["queued", "in_progress", "completed"];
const CONCLUSIONS: [&str; 7] =
    ["action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"];

/// `POST /repos/{owner}/{repo}/check-runs`
pub(super) fn create(state: &mut State, caller: &Caller, id: u64, request: &Request) -> Answer {
    let documentation = RouteKind::CreateCheckRun.documentation();
    let (app, now) = (writer(state, caller, id)?, state.now());
    let body = body(request)?;
    let missing = |field| Reply::invalid("CheckRun", field, "missing_field", documentation);
    let name = text(&body, "name").ok_or_else(|| missing("name"))?;
    let head_sha = text(&body, "head_sha").ok_or_else(|| missing("head_sha"))?;
    let repository = repository(state, id)?;
    if repository.resolve(&head_sha).is_none_or(|(commit, _)| commit != head_sha) {
        return Err(Reply::error(
            422,
            format!("No commit found for SHA: {head_sha}"),
            documentation,
        ));
    }
    let mut run = CheckRun {
        by_app: app,
        head_sha,
        name,
        external_id: text(&body, "external_id").unwrap_or_default(),
        status: "queued".into(),
        conclusion: None,
        title: None,
        summary: None,
        annotations: Vec::new(),
        started_at: now,
        completed_at: None,
    };
    change(&mut run, &body, now, documentation)?;
    repository.check_runs.push(run.clone());
    let number = repository.check_runs.len() as u64;
    Ok(Reply::json(201, shape(state, id, number, &run)?))
}

/// `PATCH /repos/{owner}/{repo}/check-runs/{id}`
pub(super) fn update(
    state: &mut State,
    caller: &Caller,
    (id, number): (u64, u64),
    request: &Request,
) -> Answer {
    let documentation = RouteKind::UpdateCheckRun.documentation();
    let (app, now) = (writer(state, caller, id)?, state.now());
    let body = body(request)?;
    let at = number.checked_sub(base(id)).and_then(|at| usize::try_from(at).ok());
    let runs = &mut repository(state, id)?.check_runs;
    let run = at.and_then(|at| runs.get_mut(at.checked_sub(1)?));
    let run = run.ok_or_else(|| Reply::not_found(documentation))?;
    if run.by_app != app {
        let message = format!(
            "Invalid app_id `{app}` - check run can only be modified by the GitHub App that created it."
        );
        return Err(Reply::error(403, message, documentation));
    }
    change(run, &body, now, documentation)?;
    let run = run.clone();
    Ok(Reply::json(200, shape(state, id, number - base(id), &run)?))
}

/// The App whose token this is, if the token may write checks.
fn writer(state: &State, caller: &Caller, id: u64) -> Result<u64, Reply> {
    let found = state.repositories.get(&id).ok_or_else(|| Reply::not_found(DOCS))?;
    caller::demand(state, caller, found, &[("checks", "write")])?;
    let Caller::Token(access) = caller else { return Err(Reply::not_found(DOCS)) };
    let installation = state.installations.get(&access.installation);
    installation.map(|found| found.app).ok_or_else(|| Reply::not_found(DOCS))
}

fn repository(state: &mut State, id: u64) -> Result<&mut Repository, Reply> {
    state.repositories.get_mut(&id).ok_or_else(|| Reply::not_found(DOCS))
}

fn body(request: &Request) -> Result<Value, Reply> {
    serde_json::from_slice(&request.body)
        .map_err(|_| Reply::error(400, "Problems parsing JSON", DOCS))
}

fn text(body: &Value, name: &str) -> Option<String> {
    body.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// Takes over what the request says.
fn change(
    run: &mut CheckRun,
    body: &Value,
    now: UnixTime,
    documentation: &str,
) -> Result<(), Reply> {
    let invalid = |field| Reply::invalid("CheckRun", field, "invalid", documentation);
    if let Some(name) = text(body, "name") {
        run.name = name;
    }
    if let Some(conclusion) = text(body, "conclusion") {
        if !CONCLUSIONS.contains(&conclusion.as_str()) {
            return Err(invalid("conclusion"));
        }
        run.conclusion = Some(conclusion);
        run.status = "completed".into();
    }
    if let Some(status) = text(body, "status") {
        if !STATUSES.contains(&status.as_str()) || status == "completed" && run.conclusion.is_none()
        {
            return Err(invalid("status"));
        }
        run.status = status;
    }
    if let Some(output) = body.get("output") {
        run.title = text(output, "title").or(run.title.take());
        run.summary = text(output, "summary").or(run.summary.take());
        if run.title.is_none() || run.summary.is_none() {
            return Err(invalid("output"));
        }
        if run.summary.as_ref().is_some_and(|summary| summary.chars().count() > MAX_SUMMARY) {
            return Err(invalid("summary"));
        }
        annotate(run, output).ok_or_else(|| invalid("annotations"))?;
    }
    if run.status == "completed" {
        run.completed_at.get_or_insert(now);
    }
    Ok(())
}

/// Adds the annotations of a request to those that are there.
fn annotate(run: &mut CheckRun, output: &Value) -> Option<()> {
    let Some(annotations) = output.get("annotations") else { return Some(()) };
    let annotations = annotations.as_array()?;
    let is_line =
        |value: Option<&Value>| value.and_then(Value::as_u64).is_some_and(|line| line > 0);
    let is_valid = |annotation: &Value| {
        let level = text(annotation, "annotation_level").unwrap_or_default();
        text(annotation, "path").is_some_and(|path| !path.is_empty())
            && is_line(annotation.get("start_line"))
            && is_line(annotation.get("end_line"))
            && ["notice", "warning", "failure"].contains(&level.as_str())
            && text(annotation, "message").is_some_and(|message| !message.is_empty())
    };
    if annotations.len() > MAX_ANNOTATIONS || !annotations.iter().all(is_valid) {
        return None;
    }
    run.annotations.extend(annotations.iter().cloned());
    Some(())
}

/// Ids of check runs are unique across repositories.
fn base(repository: u64) -> u64 {
    repository.saturating_mul(1_000)
}

fn shape(state: &State, id: u64, number: u64, run: &CheckRun) -> Result<Value, Reply> {
    let repository = state.repositories.get(&id).ok_or_else(|| Reply::not_found(DOCS))?;
    let full_name = format!("{}/{}", state.login(repository.owner), repository.name);
    let id = base(id).saturating_add(number);
    let url = format!("{}/repos/{full_name}/check-runs/{id}", state.api);
    Ok(json!({
        "id": id,
        "node_id": shapes::node_id("CheckRun", id),
        "head_sha": run.head_sha,
        "name": run.name,
        "external_id": run.external_id,
        "url": url,
        "html_url": format!("https://github.com/{full_name}/runs/{id}"),
        "details_url": null,
        "status": run.status,
        "conclusion": run.conclusion,
        "started_at": run.started_at.rfc3339(),
        "completed_at": run.completed_at.map(UnixTime::rfc3339),
        "output": {
            "title": run.title,
            "summary": run.summary,
            "text": null,
            "annotations_count": run.annotations.len(),
            "annotations_url": format!("{url}/annotations"),
        },
        "check_suite": null,
        "app": state.apps.get(&run.by_app).map(|app| shapes::app(state, app)),
        "pull_requests": [],
    }))
}
