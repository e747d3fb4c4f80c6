//! Operations on a repository: finding it under its present or a former name, its issues and refs.

use serde_json::{Value, json};

use super::super::server::Request;
use super::{
    caller::{self, Caller},
    checks, contents,
    files::{Issue, Repository},
    pulls,
    reply::{Answer, DOCS, Reply},
    route::{RepoAction, RepoRef, RouteKind},
    shapes,
    state::{State, full_name},
};

/// An operation on a repository.
pub(super) struct Operation<'a> {
    pub(super) action: &'a RepoAction,
    pub(super) kind: RouteKind,
    /// The part of the request's path behind the repository.
    pub(super) rest: &'a str,
    pub(super) request: &'a Request,
}

/// Finds the repository, checks what the caller may, and answers.
pub(super) fn answer(
    state: &mut State,
    caller: &Caller,
    on: &RepoRef,
    operation: &Operation<'_>,
) -> Answer {
    let id = find(state, caller, on, operation)?;
    let request = operation.request;
    match operation.action {
        RepoAction::Get => {
            let repository = allowed(state, caller, id, ("metadata", "read"))?;
            Ok(Reply::json(200, shapes::full_repository(state, repository)))
        }
        RepoAction::Installation => installation(state, caller, id),
        RepoAction::Contents(path) => {
            let repository = allowed(state, caller, id, ("contents", "read"))?;
            contents::get(state, repository, path, request)
        }
        RepoAction::PutContents(path) => contents::put(state, caller, (id, path), request),
        RepoAction::Issues => {
            let repository = allowed(state, caller, id, ("issues", "read"))?;
            Ok(Reply::json(200, issues(state, repository)))
        }
        RepoAction::CreateIssue => create_issue(state, caller, id, request),
        RepoAction::Pulls => {
            let repository = allowed(state, caller, id, ("pull_requests", "read"))?;
            Ok(Reply::json(200, pulls::list(state, repository)))
        }
        RepoAction::CreatePull => pulls::create(state, caller, id, request),
        RepoAction::Pull(number) => {
            let repository = allowed(state, caller, id, ("pull_requests", "read"))?;
            pulls::get(state, repository, *number)
        }
        RepoAction::Compare(base, head) => {
            let repository = allowed(state, caller, id, ("contents", "read"))?;
            pulls::compare(state, repository, (base, head))
        }
        RepoAction::GitTree(sha) => {
            let repository = allowed(state, caller, id, ("contents", "read"))?;
            pulls::tree(state, repository, sha, request)
        }
        RepoAction::GitRef(name) => {
            git_ref(state, allowed(state, caller, id, ("contents", "read"))?, name)
        }
        RepoAction::CreateCheckRun => checks::create(state, caller, id, request),
        RepoAction::UpdateCheckRun(run) => checks::update(state, caller, (id, *run), request),
    }
}

/// The repository, if the caller has the permission on it.
fn allowed<'a>(
    state: &'a State,
    caller: &Caller,
    id: u64,
    needed: (&str, &str),
) -> Result<&'a Repository, Reply> {
    let repository = state.repositories.get(&id).ok_or_else(|| Reply::not_found(DOCS))?;
    caller::demand(state, caller, repository, &[needed])?;
    Ok(repository)
}

/// `GET /repos/{owner}/{repo}/installation`
fn installation(state: &State, caller: &Caller, id: u64) -> Answer {
    let not_found = || Reply::not_found(RouteKind::RepoInstallation.documentation());
    let repository = state.repositories.get(&id).ok_or_else(not_found)?;
    let Caller::App(app) = caller else { return Err(not_found()) };
    let found =
        state.installation_of(*app, repository.owner).filter(|found| found.covers(repository));
    Ok(Reply::json(200, shapes::installation(state, found.ok_or_else(not_found)?)))
}

/// The repository's id; a redirect if the name is a former one; 404 if the caller may not know of
/// it.
fn find(
    state: &State,
    caller: &Caller,
    on: &RepoRef,
    operation: &Operation<'_>,
) -> Result<u64, Reply> {
    let (id, moved) = match on {
        RepoRef::Id(id) => (Some(*id), false),
        RepoRef::Name(owner, name) => match state.repository_id(owner, name) {
            Some(id) => (Some(id), false),
            None => (state.moved.get(&full_name(owner, name)).copied(), true),
        },
    };
    let repository = id.and_then(|id| state.repositories.get(&id));
    let repository = repository.filter(|repository| caller::sees(state, caller, repository));
    let repository = repository.ok_or_else(|| Reply::not_found(operation.kind.documentation()))?;
    if moved { Err(redirect(state, repository, operation)) } else { Ok(repository.id) }
}

/// 301 for reading, 307 for all else, to the repository by its id.
fn redirect(state: &State, repository: &Repository, operation: &Operation<'_>) -> Reply {
    let mut url = format!("{}/repositories/{}{}", state.api, repository.id, operation.rest);
    if !operation.request.query.is_empty() {
        url = format!("{url}?{}", operation.request.query);
    }
    let reading = operation.request.method == http::Method::GET
        || operation.request.method == http::Method::HEAD;
    let body = json!({
        "message": "Moved Permanently",
        "url": url,
        "documentation_url": "https://docs.github.com/v3/#http-redirects",
    });
    Reply::json(if reading { 301 } else { 307 }, body).with("location", url)
}

/// `GET /repos/{owner}/{repo}/git/ref/{ref}`
fn git_ref(state: &State, repository: &Repository, name: &str) -> Answer {
    let found = name.strip_prefix("heads/").and_then(|branch| repository.branches().get(branch));
    let not_found = || Reply::not_found(RouteKind::GitRef.documentation());
    let commit = found.ok_or_else(not_found)?;
    let root =
        format!("{}/repos/{}/{}/git", state.api, state.login(repository.owner), repository.name);
    let shape = json!({
        "ref": format!("refs/{name}"),
        "node_id": shapes::node_id("Ref", repository.id),
        "url": format!("{root}/refs/{name}"),
        "object": {"type": "commit", "sha": commit, "url": format!("{root}/commits/{commit}")},
    });
    Ok(Reply::json(200, shape))
}

fn issues(state: &State, repository: &Repository) -> Value {
    let numbered = repository.issues.iter().enumerate().rev();
    numbered.map(|(at, issue)| shapes::issue(state, repository, at + 1, issue)).collect()
}

/// `POST /repos/{owner}/{repo}/issues`
fn create_issue(state: &mut State, caller: &Caller, id: u64, request: &Request) -> Answer {
    let documentation = RouteKind::CreateIssue.documentation();
    let now = state.now();
    let not_found = || Reply::not_found(documentation);
    let repository = state.repositories.get(&id).ok_or_else(not_found)?;
    caller::demand(state, caller, repository, &[("issues", "write")])?;
    let Caller::Token(access) = caller else { return Err(not_found()) };
    let by_app =
        state.installations.get(&access.installation).map_or(0, |installation| installation.app);
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|_| Reply::error(400, "Problems parsing JSON", DOCS))?;
    let Some(title) = body.get("title").and_then(Value::as_str) else {
        return Err(Reply::invalid("Issue", "title", "missing_field", documentation));
    };
    let text = body.get("body").and_then(Value::as_str).map(str::to_owned);
    let issue = Issue { title: title.into(), body: text, by_app, created_at: now };
    let repository = state.repositories.get_mut(&id).ok_or_else(not_found)?;
    repository.issues.push(issue.clone());
    let number = repository.issues.len();
    let repository = state.repositories.get(&id).ok_or_else(not_found)?;
    let shape = shapes::issue(state, repository, number, &issue);
    let url = shape.get("url").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Reply::json(201, shape).with("location", url))
}
