//! git over HTTP: cloning, fetching and pushing, as far as a token may.
//!
//! The protocol is git's own `http-backend`, which is run as a CGI program (RFC 3875) on bare
//! copies of the repositories; see `disk`. Who may is decided here, from the state, before it runs.
//! A push that changes workflows needs no permission of its own, other than on GitHub.

mod disk;

use std::{path::PathBuf, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use tokio::{process::Command, sync::Mutex};

use super::super::server::Request;
use super::{
    GitHub, Shared,
    caller::{self, Caller},
    reply::Reply,
    state::{State, full_name},
};
use disk::Disk;

/// The copies; one request works on them at a time.
pub(super) type Copies = Arc<Mutex<Disk>>;

/// A request of git's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GitRequest {
    owner: String,
    name: String,
    /// The path behind the repository.
    rest: String,
    /// A push, also in its first step.
    writes: bool,
}

impl GitHub {
    /// Serves git at `/OWNER/REPO.git` too, with copies of the repositories in this folder: it is
    /// made, and removed with the emulator. Only the first call chooses the folder. Needs git on
    /// this machine.
    pub fn serve_git(&self, folder: PathBuf) {
        self.shared.copies.get_or_init(|| Arc::new(Mutex::new(Disk::at(folder))));
    }
}

impl GitRequest {
    /// What git asks for by this method, path and query; `None` if it is not git that asks.
    pub(super) fn parse(request: &Request) -> Option<Self> {
        let mut segments = request.path.strip_prefix('/')?.splitn(3, '/');
        let (owner, name, rest) = (segments.next()?, segments.next()?, segments.next()?);
        let service = match (&request.method, rest) {
            (&Method::GET, "info/refs") => request.query("service")?,
            (&Method::POST, service) => service.to_owned(),
            _ => return None,
        };
        let writes = match service.as_str() {
            "git-upload-pack" => false,
            "git-receive-pack" => true,
            _ => return None,
        };
        let name = name.strip_suffix(".git").unwrap_or(name);
        Some(Self { owner: owner.into(), name: name.into(), rest: rest.into(), writes })
    }
}

/// Answers git.
pub(super) async fn answer(
    shared: &Shared,
    copies: &Copies,
    asked: &GitRequest,
    request: &Request,
) -> (Reply, Caller) {
    let mut disk = copies.lock().await;
    let (caller, repository) = {
        let mut state = shared.lock();
        let caller = match authenticate(&mut state, request) {
            Ok(caller) => caller,
            Err(refused) => return (refused, Caller::Anonymous),
        };
        let allowed =
            authorize(&state, &caller, asked).map(|id| state.repositories.get(&id).cloned());
        match allowed {
            Ok(Some(repository)) => (caller, repository),
            Ok(None) => return (not_found(), caller),
            Err(refused) => return (refused, caller),
        }
    };
    let broken =
        |error: std::io::Error| Reply::raw(500, TEXT, format!("git on this machine: {error}\n"));
    let before = match disk.copy_in(&repository).await {
        Ok(branches) => branches,
        Err(error) => return (broken(error), caller),
    };
    let served = backend(&mut disk, repository.id, asked, request).await;
    if asked.writes && asked.rest != "info/refs" {
        match disk.copy_out(repository.id, &before).await {
            Ok(changes) => pushed(shared, repository.id, changes),
            Err(error) => return (broken(error), caller),
        }
    }
    (served.unwrap_or_else(broken), caller)
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Basic authentication (RFC 7617) with the token as the password. Nobody is asked for a token
/// before it matters.
fn authenticate(state: &mut State, request: &Request) -> Result<Caller, Reply> {
    let Some(header) = request.header("authorization") else { return Ok(Caller::Anonymous) };
    let basic = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let pair = basic.and_then(|(_, pair)| BASE64_STANDARD.decode(pair.trim()).ok());
    let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
    let token = pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, token)| token);
    let access = caller::by_token(state, token.ok_or_else(unauthorized)?);
    access
        .map(Caller::Token)
        .map_err(|refused| if refused.status == 401 { unauthorized() } else { forbidden() })
}

/// The repository's id, if the caller may do that on it.
fn authorize(state: &State, caller: &Caller, asked: &GitRequest) -> Result<u64, Reply> {
    let anonymous = matches!(caller, Caller::Anonymous);
    let hidden = || if anonymous { unauthorized() } else { not_found() };
    let held = state.repository_id(&asked.owner, &asked.name);
    let id = held.or_else(|| state.moved.get(&full_name(&asked.owner, &asked.name)).copied());
    let repository = id.and_then(|id| state.repositories.get(&id)).ok_or_else(hidden)?;
    if !caller::sees(state, caller, repository)
        || caller::demand(state, caller, repository, &[("contents", "read")]).is_err()
    {
        return Err(hidden());
    }
    if asked.writes && caller::demand(state, caller, repository, &[("contents", "write")]).is_err()
    {
        return Err(if anonymous { unauthorized() } else { forbidden() });
    }
    if held.is_none() {
        let to =
            format!("/{}/{}.git/{}", state.login(repository.owner), repository.name, asked.rest);
        let service = if asked.writes { "git-receive-pack" } else { "git-upload-pack" };
        return Err(Reply::empty(301).with("location", format!("{to}?service={service}")));
    }
    Ok(repository.id)
}

fn unauthorized() -> Reply {
    Reply::raw(401, TEXT, "Invalid username or token.\n")
        .with("www-authenticate", "Basic realm=\"GitHub\"")
}

fn forbidden() -> Reply {
    Reply::raw(403, TEXT, "Write access to repository not granted.\n")
}

fn not_found() -> Reply {
    Reply::raw(404, TEXT, "Repository not found.\n")
}

/// Runs git on the copy.
async fn backend(
    disk: &mut Disk,
    id: u64,
    asked: &GitRequest,
    request: &Request,
) -> std::io::Result<Reply> {
    let mut git: Command = disk.git(&["http-backend"]);
    git.env("GIT_PROJECT_ROOT", disk.folder())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "x-access-token")
        .env("PATH_INFO", format!("/{id}.git/{}", asked.rest))
        .env("REQUEST_METHOD", request.method.as_str())
        .env("QUERY_STRING", &request.query)
        .env("CONTENT_LENGTH", request.body.len().to_string());
    for (variable, header) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        if let Some(value) = request.header(header) {
            git.env(variable, value);
        }
    }
    let output = disk.run(git, &request.body).await?;
    cgi(&output).ok_or_else(|| std::io::Error::other("http-backend gave no answer"))
}

/// What git answers with.
const TYPES: [&str; 5] = [
    "application/x-git-upload-pack-advertisement",
    "application/x-git-upload-pack-result",
    "application/x-git-receive-pack-advertisement",
    "application/x-git-receive-pack-result",
    "text/plain",
];

/// The answer in a CGI program's output (RFC 3875 section 6).
fn cgi(output: &[u8]) -> Option<Reply> {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = output.split_at(end);
    let mut reply = Reply::raw(200, TEXT, body.get(4..)?.to_vec());
    for line in std::str::from_utf8(head).ok()?.split("\r\n") {
        let (name, value) = line.split_once(": ")?;
        match name {
            "Status" => reply.status = value.split(' ').next()?.parse().ok()?,
            "Content-Type" => {
                reply = reply.of_type(TYPES.into_iter().find(|known| *known == value)?)
            }
            "Cache-Control" => reply.headers.push(("cache-control", value.into())),
            _ => {}
        }
    }
    Some(reply)
}

/// What was pushed is there for the API, too.
fn pushed(shared: &Shared, id: u64, changes: Vec<disk::Change>) {
    let mut state = shared.lock();
    let now = state.now();
    if let Some(repository) = state.repositories.get_mut(&id) {
        for change in changes {
            repository.set_branch(&change.branch, change.head, now);
        }
    }
}
