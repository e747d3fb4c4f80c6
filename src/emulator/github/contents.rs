//! Files: reading them as JSON or raw, directories, links, submodules and what is too large;
//! writing.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::server::Request;
use super::{
    caller::{self, Caller},
    files::{Placed, Repository, Tree, git_id},
    reply::{Answer, Reply},
    route::RouteKind,
    state::State,
};

const MB: u64 = 1 << 20;
/// Above this, a file's content is left out of the JSON.
const MAX_JSON: u64 = MB;
/// Above this, a file cannot be read here at all.
const MAX_FILE: u64 = 100 * MB;
/// A directory listing ends here.
const MAX_ENTRIES: usize = 1_000;
const DOCUMENTATION: &str = "https://docs.github.com/rest/repos/contents#get-repository-content";

/// What the `Accept` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    Raw,
    Object,
}

/// Where an item is looked at: its repository, path and ref.
struct RepositoryAt<'a> {
    state: &'a State,
    repository: &'a Repository,
    reference: &'a str,
}

/// `GET /repos/{owner}/{repo}/contents/{path}`
pub(super) fn get(state: &State, repository: &Repository, path: &str, request: &Request) -> Answer {
    if repository.is_empty() {
        return Err(Reply::error(404, "This repository is empty.", DOCUMENTATION));
    }
    if let Some(path) = path.strip_suffix('/') {
        let location = format!("{}/repositories/{}/contents/{path}", state.api, repository.id);
        return Err(
            Reply::raw(302, "text/html;charset=utf-8", Bytes::new()).with("location", location)
        );
    }
    let asked = request.query("ref").filter(|reference| !reference.is_empty());
    let reference = asked.unwrap_or_else(|| repository.default_reference().to_owned());
    let Some((_, tree)) = repository.resolve(&reference) else {
        return Err(Reply::error(
            404,
            format!("No commit found for the ref {reference}"),
            DOCUMENTATION,
        ));
    };
    let media = media(request.header("accept").unwrap_or_default());
    let at = RepositoryAt { state, repository, reference: &reference };
    match tree.get(path) {
        Some(placed) => item(&at, tree, path, placed, media),
        None => directory(&at, tree, path, media),
    }
}

fn media(accept: &str) -> Media {
    let is = |wanted: &str| accept.split([',', ';', '.', '+', ' ']).any(|part| part == wanted);
    match () {
        () if is("raw") => Media::Raw,
        () if is("object") => Media::Object,
        () => Media::Json,
    }
}

fn item(at: &RepositoryAt<'_>, tree: &Tree, path: &str, placed: &Placed, media: Media) -> Answer {
    match placed {
        Placed::File(content) => file(at, path, placed, content.clone(), media),
        Placed::Zeros(size) if *size <= MAX_FILE => {
            let content =
                usize::try_from(*size).map(|size| Bytes::from(vec![0; size])).unwrap_or_default();
            file(at, path, placed, content, media)
        }
        Placed::Zeros(_) => Err(too_large()),
        Placed::Symlink(target) => {
            match resolve(path, target).and_then(|path| tree.get_key_value(&path)) {
                // A link to a file in the repository is answered with the file it leads to.
                Some((path, placed @ (Placed::File(_) | Placed::Zeros(_)))) => {
                    item(at, tree, path, placed, media)
                }
                _ if media == Media::Raw => Ok(Reply::raw(200, RAW, target.clone())),
                _ => {
                    let mut shape = at.entry(path, "symlink", &placed.sha(), placed.size());
                    set(&mut shape, "target", json!(target));
                    Ok(Reply::json(200, shape))
                }
            }
        }
        Placed::Submodule(url) => {
            let mut shape = at.entry(path, "submodule", &placed.sha(), 0);
            set(&mut shape, "submodule_git_url", json!(url));
            Ok(Reply::json(200, shape))
        }
    }
}

const RAW: &str = "application/vnd.github.raw+json; charset=utf-8";

fn file(
    at: &RepositoryAt<'_>,
    path: &str,
    placed: &Placed,
    content: Bytes,
    media: Media,
) -> Answer {
    if media == Media::Raw {
        return Ok(Reply::raw(200, RAW, content));
    }
    let mut shape = at.entry(path, "file", &placed.sha(), placed.size());
    let large = placed.size() > MAX_JSON;
    set(&mut shape, "content", json!(if large { String::new() } else { base64_lines(&content) }));
    set(&mut shape, "encoding", json!(if large { "none" } else { "base64" }));
    Ok(Reply::json(200, shape))
}

/// Base64 with a line break after every 60 characters.
fn base64_lines(content: &[u8]) -> String {
    let mut lines = String::new();
    for (index, letter) in BASE64_STANDARD.encode(content).chars().enumerate() {
        if index > 0 && index % 60 == 0 {
            lines.push('\n');
        }
        lines.push(letter);
    }
    lines + "\n"
}

fn too_large() -> Reply {
    Reply::json(
        403,
        json!({
            "message": "This API returns blobs up to 100 MB in size. The requested blob is too large to fetch via the API.",
            "errors": [{"resource": "Blob", "field": "data", "code": "too_large"}],
            "documentation_url": DOCUMENTATION,
            "status": "403",
        }),
    )
}

/// The path that a link leads to; `None` if that is outside of the repository.
fn resolve(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut path: Vec<&str> = link.split('/').collect();
    path.pop();
    for step in target.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(path.pop()?),
            step => path.push(step),
        }
    }
    Some(path.join("/"))
}

fn directory(at: &RepositoryAt<'_>, tree: &Tree, path: &str, media: Media) -> Answer {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let mut entries: BTreeMap<&str, Value> = BTreeMap::new();
    for (file, placed) in
        tree.range(prefix.clone()..).take_while(|(file, _)| file.starts_with(&prefix))
    {
        let Some(below) = file.strip_prefix(&prefix) else { continue };
        let Some((name, _)) = below.split_once('/') else {
            let kind = match placed {
                Placed::File(_) | Placed::Zeros(_) => "file",
                Placed::Symlink(_) => "symlink",
                Placed::Submodule(_) => "submodule",
            };
            entries.insert(below, at.entry(file, kind, &placed.sha(), placed.size()));
            continue;
        };
        let child = format!("{prefix}{name}");
        entries.entry(name).or_insert_with(|| at.entry(&child, "dir", &tree_id(tree, &child), 0));
    }
    if entries.is_empty() && !path.is_empty() {
        return Err(Reply::not_found(DOCUMENTATION));
    }
    let listed: Vec<Value> = entries.into_values().take(MAX_ENTRIES).collect();
    if media != Media::Object {
        return Ok(Reply::json(200, listed.into()));
    }
    let mut shape = at.entry(path, "dir", &tree_id(tree, path), 0);
    set(&mut shape, "entries", listed.into());
    Ok(Reply::json(200, shape))
}

/// An id that changes with anything below the directory; not git's tree id.
pub(super) fn tree_id(tree: &Tree, path: &str) -> String {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let below =
        tree.iter().filter_map(|(file, placed)| Some((file.strip_prefix(&prefix)?, placed)));
    let text: String = below.map(|(file, placed)| format!("{file} {}\n", placed.sha())).collect();
    git_id("tree", text.as_bytes())
}

impl RepositoryAt<'_> {
    /// The fields that all kinds of items share.
    fn entry(&self, path: &str, kind: &str, sha: &str, size: u64) -> Value {
        let full_name =
            format!("{}/{}", self.state.login(self.repository.owner), self.repository.name);
        let (api, reference) = (format!("{}/repos/{full_name}", self.state.api), self.reference);
        let (leaf, branch) = if kind == "dir" { ("trees", "tree") } else { ("blobs", "blob") };
        let url = format!("{api}/contents/{path}?ref={reference}");
        let html = format!("https://github.com/{full_name}/{branch}/{reference}/{path}");
        let git = format!("{api}/git/{leaf}/{sha}");
        let raw = format!("https://raw.githubusercontent.com/{full_name}/{reference}/{path}");
        json!({
            "type": kind,
            "size": size,
            "name": path.rsplit('/').next().unwrap_or_default(),
            "path": path,
            "sha": sha,
            "url": url,
            "git_url": git,
            "html_url": html,
            "download_url": if matches!(kind, "file" | "symlink") { json!(raw) } else { Value::Null },
            "_links": {"git": git, "html": html, "self": url},
        })
    }
}

/// `PUT /repos/{owner}/{repo}/contents/{path}`
pub(super) fn put(
    state: &mut State,
    caller: &Caller,
    (id, path): (u64, &str),
    request: &Request,
) -> Answer {
    let documentation = RouteKind::PutContents.documentation();
    let now = state.now();
    let not_found = || Reply::not_found(documentation);
    let needed: &[(&str, &str)] = if path.starts_with(".github/workflows/") {
        &[("contents", "write"), ("workflows", "write")]
    } else {
        &[("contents", "write")]
    };
    let repository = state.repositories.get(&id).ok_or_else(not_found)?;
    caller::demand(state, caller, repository, needed)?;
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|_| Reply::error(400, "Problems parsing JSON", documentation))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let message = text("message")
        .ok_or_else(|| Reply::invalid("Commit", "message", "missing_field", documentation))?;
    let content = text("content").map(|content| content.replace('\n', ""));
    let content = content.and_then(|content| BASE64_STANDARD.decode(content).ok());
    let Some(content) = content.filter(|_| safe(path)) else {
        return Err(Reply::error(422, "content is not valid Base64", documentation));
    };
    let branch = text("branch").unwrap_or(&repository.default_branch).to_owned();
    let held = repository.head(&branch).and_then(|tree| tree.get(path)).map(Placed::sha);
    match (&held, text("sha")) {
        (Some(_), None) => {
            return Err(Reply::error(
                422,
                "Invalid request.\n\n\"sha\" wasn't supplied.",
                documentation,
            ));
        }
        (Some(held), Some(sha)) if held != sha => {
            return Err(Reply::error(409, format!("{path} does not match {sha}"), documentation));
        }
        _ => {}
    }
    let placed = Placed::File(content.into());
    let (sha, size) = (placed.sha(), placed.size());
    let repository = state.repositories.get_mut(&id).ok_or_else(not_found)?;
    let commit = repository.commit(&branch, path, Some(placed), now);
    let repository = state.repositories.get(&id).ok_or_else(not_found)?;
    let at = RepositoryAt { state, repository, reference: &branch };
    let body = json!({"content": at.entry(path, "file", &sha, size), "commit": {"sha": commit, "message": message}});
    Ok(Reply::json(if held.is_some() { 200 } else { 201 }, body))
}

fn safe(path: &str) -> bool {
    path.split('/').all(|segment| !matches!(segment, "" | "." | ".." | ".git"))
}

fn set(shape: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = shape {
        members.insert(name.into(), value);
    }
}
