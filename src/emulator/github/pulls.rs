//! Pull requests, comparing commits, and trees of files.

use serde_json::{Value, json};

use super::super::server::Request;
use super::{
    caller::{self, Caller},
    contents,
    files::{Placed, Pull, Repository, Tree, git_id},
    reply::{Answer, Reply},
    route::RouteKind,
    shapes,
    state::State,
};
use crate::clock::UnixTime;

/// Files of a comparison, and entries of a tree, beyond which the rest is left out.
const MAX_FILES: usize = 300;
const MAX_ENTRIES: usize = 100_000;

/// `GET /repos/{owner}/{repo}/pulls`
pub(super) fn list(state: &State, repository: &Repository) -> Value {
    let numbered = repository.pulls.iter().enumerate().rev();
    numbered.map(|(at, pull)| shape(state, repository, at + 1, pull)).collect()
}

/// `GET /repos/{owner}/{repo}/pulls/{number}`
pub(super) fn get(state: &State, repository: &Repository, number: u64) -> Answer {
    let not_found = || Reply::not_found(RouteKind::Pull.documentation());
    let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let pull = at.and_then(|at| repository.pulls.get(at)).ok_or_else(not_found)?;
    let mut body = shape(state, repository, at.unwrap_or_default() + 1, pull);
    let full = json!({
        "merged": false, "mergeable": null, "rebaseable": null, "mergeable_state": "unknown",
        "merged_by": null, "comments": 0, "review_comments": 0, "maintainer_can_modify": false,
        "commits": 1, "additions": 0, "deletions": 0, "changed_files": 0,
    });
    if let (Value::Object(body), Value::Object(full)) = (&mut body, full) {
        body.extend(full);
    }
    Ok(Reply::json(200, body))
}

/// `POST /repos/{owner}/{repo}/pulls`, from a branch of the same repository.
pub(super) fn create(state: &mut State, caller: &Caller, id: u64, request: &Request) -> Answer {
    let documentation = RouteKind::CreatePull.documentation();
    let now = state.now();
    let not_found = || Reply::not_found(documentation);
    let repository = state.repositories.get(&id).ok_or_else(not_found)?;
    caller::demand(state, caller, repository, &[("pull_requests", "write")])?;
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|_| Reply::error(400, "Problems parsing JSON", documentation))?;
    let branch = |field: &'static str| {
        let named = body.get(field).and_then(Value::as_str).unwrap_or_default();
        let is_there = repository.branches().contains_key(named);
        let invalid = || Reply::invalid("PullRequest", field, "invalid", documentation);
        is_there.then(|| named.to_owned()).ok_or_else(invalid)
    };
    let draft = body.get("draft").and_then(Value::as_bool).unwrap_or_default();
    let pull = Pull { head: (id, branch("head")?), base: branch("base")?, draft, created_at: now };
    let repository = state.repositories.get_mut(&id).ok_or_else(not_found)?;
    repository.pulls.push(pull);
    let number = repository.pulls.len();
    let repository = state.repositories.get(&id).ok_or_else(not_found)?;
    let created = get(state, repository, number as u64)?;
    Ok(Reply { status: 201, ..created })
}

/// The head of a pull request: its repository and commit.
pub(super) fn head<'a>(state: &'a State, pull: &Pull) -> Option<(&'a Repository, &'a str)> {
    let (id, branch) = &pull.head;
    let repository = state.repositories.get(id)?;
    Some((repository, repository.branches().get(branch)?))
}

fn shape(state: &State, repository: &Repository, number: usize, pull: &Pull) -> Value {
    let full_name = format!("{}/{}", state.login(repository.owner), repository.name);
    let url = format!("{}/repos/{full_name}/pulls/{number}", state.api);
    let web = format!("https://github.com/{full_name}/pull/{number}");
    let issue = format!("{}/repos/{full_name}/issues/{number}", state.api);
    let id = repository.id.saturating_add(number as u64);
    let side = |repository: &Repository, branch: &str, sha: &str| {
        let login = state.login(repository.owner);
        json!({
            "label": format!("{login}:{branch}"), "ref": branch, "sha": sha,
            "user": shapes::account_by_id(state, repository.owner),
            "repo": shapes::repository(state, repository),
        })
    };
    let head = head(state, pull);
    let head = head.map(|(head, sha)| side(head, &pull.head.1, sha));
    let base_sha = repository.branches().get(&pull.base).map_or("", String::as_str);
    let link = |suffix: &str| format!("{url}{suffix}");
    let href = |href: String| json!({ "href": href });
    let links = json!({
        "self": href(url.clone()), "html": href(web.clone()), "issue": href(issue.clone()),
        "comments": href(format!("{issue}/comments")), "commits": href(link("/commits")),
        "review_comments": href(link("/comments")),
        "review_comment": href(link("/comments{/number}")),
        "statuses": href(format!("{}/repos/{full_name}/statuses", state.api)),
    });
    json!({
        "url": url, "id": id, "node_id": shapes::node_id("PullRequest", id), "html_url": web,
        "diff_url": format!("{web}.diff"), "patch_url": format!("{web}.patch"), "issue_url": issue,
        "commits_url": link("/commits"), "review_comments_url": link("/comments"),
        "review_comment_url": format!("{}/repos/{full_name}/pulls/comments{{/number}}", state.api),
        "comments_url": format!("{issue}/comments"),
        "statuses_url": format!("{}/repos/{full_name}/statuses", state.api),
        "number": number, "state": "open", "locked": false, "title": "a pull request", "body": null,
        "labels": [], "milestone": null, "active_lock_reason": null,
        "created_at": pull.created_at.rfc3339(), "updated_at": pull.created_at.rfc3339(),
        "closed_at": null, "merged_at": null, "merge_commit_sha": null, "assignee": null,
        "assignees": [], "requested_reviewers": [], "requested_teams": [], "draft": pull.draft,
        "user": shapes::account_by_id(state, repository.owner),
        "head": head, "base": side(repository, &pull.base, base_sha),
        "author_association": "CONTRIBUTOR", "auto_merge": null,
        "_links": links,
    })
}

/// `GET /repos/{owner}/{repo}/compare/{base}...{head}`
pub(super) fn compare(
    state: &State,
    repository: &Repository,
    (base, head): (&str, &str),
) -> Answer {
    let documentation = RouteKind::Compare.documentation();
    let resolved = |reference: &str| {
        let found = repository.resolve(reference);
        found.ok_or_else(|| Reply::not_found(documentation))
    };
    let ((base_id, _), (head_id, head_tree)) = (resolved(base)?, resolved(head)?);
    let behind: Vec<&str> = repository.ancestry(base_id).collect();
    let Some(merge_base) = repository.ancestry(head_id).find(|commit| behind.contains(commit))
    else {
        let message = format!("No common ancestor between {base} and {head}.");
        return Err(Reply::error(404, message, documentation));
    };
    let ahead: Vec<&str> =
        repository.ancestry(head_id).take_while(|commit| *commit != merge_base).collect();
    let behind_by = behind.iter().position(|commit| *commit == merge_base).unwrap_or_default();
    let status = match (ahead.len(), behind_by) {
        (0, 0) => "identical",
        (_, 0) => "ahead",
        (0, _) => "behind",
        _ => "diverged",
    };
    let empty = Tree::new();
    let old = repository.resolve(merge_base).map_or(&empty, |(_, tree)| tree);
    let full_name = format!("{}/{}", state.login(repository.owner), repository.name);
    let url = format!("{}/repos/{full_name}/compare/{base}...{head}", state.api);
    let web = format!("https://github.com/{full_name}/compare/{base}...{head}");
    let shape = |id: &str| commit(state, &full_name, repository, id);
    Ok(Reply::json(
        200,
        json!({
            "url": url, "html_url": web, "permalink_url": web, "diff_url": format!("{web}.diff"),
            "patch_url": format!("{web}.patch"), "base_commit": shape(base_id),
            "merge_base_commit": shape(merge_base), "status": status, "ahead_by": ahead.len(),
            "behind_by": behind_by, "total_commits": ahead.len(),
            "commits": ahead.iter().rev().map(|id| shape(id)).collect::<Vec<_>>(),
            "files": changed(&format!("{}/repos/{full_name}", state.api), old, head_tree),
        }),
    ))
}

fn changed(api: &str, old: &Tree, new: &Tree) -> Vec<Value> {
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let file = |path: &String| {
        let (before, after) = (old.get(path).map(Placed::sha), new.get(path).map(Placed::sha));
        let status = match (&before, &after) {
            (Some(before), Some(after)) if before == after => return None,
            (Some(_), Some(_)) => "modified",
            (None, _) => "added",
            (Some(_), None) => "removed",
        };
        let sha = after.or(before);
        Some(json!({
            "sha": sha, "filename": path, "status": status, "additions": 0, "deletions": 0,
            "changes": 0, "blob_url": format!("{api}/blob/{path}"),
            "raw_url": format!("{api}/raw/{path}"), "contents_url": format!("{api}/contents/{path}"),
        }))
    };
    paths.into_iter().filter_map(file).take(MAX_FILES).collect()
}

/// A `commit`.
fn commit(state: &State, full_name: &str, repository: &Repository, id: &str) -> Value {
    let url = format!("{}/repos/{full_name}/commits/{id}", state.api);
    let git = |kind: &str, sha: &str| format!("{}/repos/{full_name}/git/{kind}/{sha}", state.api);
    let tree = repository.resolve(id).map(|(_, tree)| contents::tree_id(tree, ""));
    let tree = tree.unwrap_or_else(|| git_id("tree", b""));
    let person = json!({"name": "Mona", "email": "mona@example.com", "date": UnixTime::from_secs(0).rfc3339()});
    let parents = repository.ancestry(id).skip(1).take(1);
    json!({
        "url": url, "sha": id, "node_id": shapes::node_id("Commit", repository.id),
        "html_url": format!("https://github.com/{full_name}/commit/{id}"),
        "comments_url": format!("{url}/comments"),
        "commit": {
            "url": git("commits", id), "author": person, "committer": person, "message": "a commit",
            "comment_count": 0, "tree": {"sha": tree, "url": git("trees", &tree)},
        },
        "author": null, "committer": null,
        "parents": parents.map(|sha| json!({"sha": sha, "url": git("commits", sha)})).collect::<Vec<_>>(),
    })
}

/// `GET /repos/{owner}/{repo}/git/trees/{sha}`: by the id of a tree, or a commit or branch.
pub(super) fn tree(state: &State, repository: &Repository, sha: &str, request: &Request) -> Answer {
    let found = match repository.resolve(sha) {
        Some((_, tree)) => Some((tree, String::new())),
        None => folders(repository).find(|(tree, folder)| contents::tree_id(tree, folder) == sha),
    };
    let not_found = || Reply::not_found(RouteKind::GitTree.documentation());
    let (tree, folder) = found.ok_or_else(not_found)?;
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let full_name = format!("{}/{}", state.login(repository.owner), repository.name);
    let git = |kind: &str, sha: &str| format!("{}/repos/{full_name}/git/{kind}/{sha}", state.api);
    let is_recursive = request.query("recursive").is_some();
    let mut entries = std::collections::BTreeMap::new();
    for (path, placed) in tree.iter() {
        let Some(below) = path.strip_prefix(&prefix) else { continue };
        let mut at = 0;
        while let Some(next) = below.get(at..).and_then(|rest| rest.find('/')) {
            let name = below.get(..at + next).unwrap_or_default().to_owned();
            let sha = contents::tree_id(tree, &format!("{prefix}{name}"));
            let url = git("trees", &sha);
            let entry =
                json!({"path": name, "mode": "040000", "type": "tree", "sha": sha, "url": url});
            entries.insert(name, entry);
            at += next + 1;
        }
        let (mode, kind) = match placed {
            Placed::File(_) | Placed::Zeros(_) => ("100644", "blob"),
            Placed::Symlink(_) => ("120000", "blob"),
            Placed::Submodule(_) => ("160000", "commit"),
        };
        let sha = placed.sha();
        let url = git("blobs", &sha);
        let entry = json!({"path": below, "mode": mode, "type": kind, "sha": sha, "size": placed.size(), "url": url});
        entries.insert(below.to_owned(), entry);
    }
    let is_listed = |(path, _): &(String, Value)| is_recursive || !path.contains('/');
    let listed: Vec<Value> =
        entries.into_iter().filter(is_listed).map(|(_, entry)| entry).take(MAX_ENTRIES).collect();
    let max = state.options.max_tree_entries.unwrap_or(MAX_ENTRIES);
    let body = json!({
        "sha": sha, "url": git("trees", sha), "truncated": listed.len() > max,
        "tree": listed.into_iter().take(max).collect::<Vec<_>>(),
    });
    Ok(Reply::json(200, body))
}

/// Every folder of every commit.
fn folders(repository: &Repository) -> impl Iterator<Item = (&std::sync::Arc<Tree>, String)> {
    repository.trees().flat_map(|tree| {
        let mut folders: Vec<String> = tree
            .keys()
            .flat_map(|path| path.match_indices('/').map(|(at, _)| path.get(..at)))
            .flatten()
            .map(str::to_owned)
            .collect();
        folders.sort();
        folders.dedup();
        folders.into_iter().map(move |folder| (tree, folder))
    })
}
