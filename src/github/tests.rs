//! GitHub on loopback for these tests: what each one does not script is answered as GitHub would.

mod calls;
mod contents;
mod explain;
mod installation;
mod meaning;
mod mint;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::{ManualClock, UnixTime},
    egress,
    name::InstallationId,
    policy::{Level, Permissions, Repositories},
};

/// The moment at which each test begins: 2023-11-14T22:13:20Z.
const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
/// What must never be seen outside a request.
const TOKEN: &str = "ghs_canary0123456789abcdefghijklmnopqrstu";

/// A request as it arrived.
#[derive(Debug, Clone)]
struct Seen {
    /// `GET /path`.
    line: String,
    headers: HeaderMap,
    body: Value,
    /// How many of the same line came before.
    nth: usize,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What is answered.
struct Answered {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    after: Duration,
}

fn answer(status: u16, body: impl ToString) -> Answered {
    Answered { status, headers: Vec::new(), body: body.to_string(), after: Duration::ZERO }
}

/// An error in GitHub's form.
fn refusal(status: u16, message: &str) -> Answered {
    answer(
        status,
        json!({"message": message, "documentation_url": "https://docs.github.com", "status": status.to_string()}),
    )
}

impl Answered {
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn after(mut self, millis: u64) -> Self {
        self.after = Duration::from_millis(millis);
        self
    }
}

/// As GitHub answers when nothing is wrong.
fn healthy(seen: &Seen) -> Answered {
    let (method, path) = seen.line.split_once(' ').unwrap();
    match (method, path.split('/').skip(3).collect::<Vec<_>>().as_slice()) {
        ("GET", ["users", owner, "installation"]) => answer(200, installation_json(owner)),
        ("GET", ["app", "installations", _]) => answer(200, installation_json("octo-org")),
        ("GET", ["repos", owner, _, "installation"]) => answer(200, installation_json(owner)),
        ("POST", ["app", "installations", _, "access_tokens"]) => {
            answer(201, minted_json(&seen.body))
        }
        ("GET", ["repos", owner, repo, "contents", path @ ..]) => {
            answer(200, file_json(&path.join("/"), b"issuer: x\n"))
                .with("etag", format!("\"{owner}-{repo}\""))
        }
        ("GET", ["repos", owner, repo]) => {
            answer(200, json!({"full_name": format!("{owner}/{repo}")}))
        }
        ("DELETE", ["installation", "token"]) => answer(204, ""),
        _ => panic!("GitHub has no {}", seen.line),
    }
}

fn installation_json(owner: &str) -> Value {
    let account = json!({"id": 7, "login": owner});
    let permissions = json!({"contents": "read", "issues": "write", "metadata": "read"});
    json!({"id": 77, "app_id": 5, "app_slug": "sts", "account": account, "permissions": permissions, "suspended_at": null})
}

/// The reply to a mint that grants what was asked for.
fn minted_json(asked: &Value) -> Value {
    let mut permissions = asked["permissions"].clone();
    permissions["metadata"] = "read".into();
    let mut reply =
        json!({"token": TOKEN, "expires_at": "2023-11-14T23:13:20Z", "permissions": permissions});
    reply["repository_selection"] =
        if asked["repositories"].is_array() { "selected" } else { "all" }.into();
    if let Some(names) = asked["repositories"].as_array() {
        let one = |name: &Value| json!({"name": name, "full_name": format!("octo-org/{}", name.as_str().unwrap()), "private": false});
        reply["repositories"] = names.iter().map(one).collect();
    }
    reply
}

fn file_json(path: &str, content: &[u8]) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let packed = STANDARD.encode(content);
    let lines: Vec<&str> =
        packed.as_bytes().chunks(60).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let content_text = lines.join("\n") + "\n";
    json!({"type": "file", "path": path, "sha": "b10b", "size": content.len(), "encoding": "base64", "content": content_text})
}

type Script = dyn Fn(&Seen) -> Option<Answered> + Send + Sync;

/// GitHub, with `/api/v3` before each path, as an Enterprise Server has it.
struct Fake {
    api: Uri,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// Answers what `script` says, and as GitHub would where it says nothing.
    async fn start(script: impl Fn(&Seen) -> Option<Answered> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}/api/v3/", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        let router = axum::Router::new()
            .fallback(move |request| respond(request, Arc::clone(&log), Arc::clone(&script)));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { api, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests had a line that starts so.
    fn count(&self, line: &str) -> usize {
        self.seen().iter().filter(|seen| seen.line.starts_with(line)).count()
    }
}

async fn respond(request: Request, log: Arc<Mutex<Vec<Seen>>>, script: Arc<Script>) -> Response {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri.path());
    let body =
        serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or(Value::Null);
    let seen = {
        let mut log = log.lock().unwrap();
        let nth = log.iter().filter(|seen| seen.line == line).count();
        let seen = Seen { line, headers: head.headers, body, nth };
        log.push(seen.clone());
        seen
    };
    let answered = script(&seen).unwrap_or_else(|| healthy(&seen));
    tokio::time::sleep(answered.after).await;
    let mut response = Response::builder().status(StatusCode::from_u16(answered.status).unwrap());
    for (name, value) in answered.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answered.body)).unwrap()
}

/// Signs with fixed bytes, slowly, and counts.
#[derive(Default)]
struct CountingSigner {
    signatures: AtomicUsize,
    broken: AtomicBool,
    hangs: AtomicBool,
}

impl Signer for CountingSigner {
    fn sign<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        Box::pin(async {
            self.signatures.fetch_add(1, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.broken.load(Ordering::SeqCst) {
                Err(SignerError::unavailable("key service down"))
            } else {
                Ok(vec![1, 2, 3])
            }
        })
    }
}

/// Our side and GitHub's, and the time.
struct World {
    fake: Fake,
    github: GitHub,
    clock: ManualClock,
    signer: Arc<CountingSigner>,
}

impl World {
    async fn new(script: impl Fn(&Seen) -> Option<Answered> + Send + Sync + 'static) -> Self {
        Self::with(script, |_| {}).await
    }

    async fn with(
        script: impl Fn(&Seen) -> Option<Answered> + Send + Sync + 'static,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let (fake, clock, signer) =
            (Fake::start(script).await, ManualClock::at(NOW), Arc::new(CountingSigner::default()));
        let app =
            AppSettings { id: AppId(5), name: None, signer: SignerSource::Ready(signer.clone()) };
        let pools = Pools::for_every_owner(vec![app]);
        let mut settings = Settings::new(fake.api.clone(), pools);
        settings.first_backoff = Duration::from_millis(1);
        settings.max_body = 64 << 10;
        change(&mut settings);
        let egress = Egress::new(egress::Settings::default()).unwrap();
        let github = GitHub::new(settings, &egress, Arc::new(clock.clone())).unwrap();
        Self { fake, github, clock, signer }
    }

    async fn look_up(&self, trust: CallerTrust) -> Result<Installation, Error> {
        self.github.reader(&owner(), trust, None, &[]).await
    }

    async fn installation(&self) -> Installation {
        self.look_up(CallerTrust::Verified).await.unwrap()
    }

    async fn installation_since(&self, since: Moment) -> Result<Installation, Error> {
        let before = self.installation().await;
        self.github.installation_since(&before, &owner(), since).await
    }

    async fn read_token(&self) -> ReadToken {
        self.github.read_token(&self.installation().await, &"hello".parse().unwrap()).await.unwrap()
    }

    async fn mint(&self) -> Result<IssuedToken, Error> {
        self.mint_counted(&MintCalls::default()).await
    }

    async fn mint_counted(&self, calls: &MintCalls) -> Result<IssuedToken, Error> {
        let installation = self.installation().await;
        self.github
            .mint(&grant(&["hello"], &[("issues", Level::Write)]), &installation, calls)
            .await
    }

    /// Waits until GitHub has seen that many revocations of [`TOKEN`], and no more.
    async fn revocations(&self, expected: usize) {
        for _ in 0..1000 {
            if self.fake.count(REVOKE) >= expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let seen = self.fake.seen();
        let revoked: Vec<&Seen> = seen.iter().filter(|seen| seen.line == REVOKE).collect();
        assert_eq!(revoked.len(), expected);
        assert!(
            revoked.iter().all(|seen| seen.header("authorization") == format!("Bearer {TOKEN}"))
        );
    }
}

const ORG_LOOK_UP: &str = "GET /api/v3/orgs/octo-org/installation";
const LOOK_UP: &str = "GET /api/v3/users/octo-org/installation";
const MINT: &str = "POST /api/v3/app/installations/77/access_tokens";
const REVOKE: &str = "DELETE /api/v3/installation/token";
const FILE: &str = "GET /api/v3/repos/octo-org/hello/contents/.github/chainguard/ci.sts.yaml";
const FILE_PATH: &str = ".github/chainguard/ci.sts.yaml";
const REPOSITORY: &str = "GET /api/v3/repos/octo-org/hello";

/// Answers one line by `then`, and leaves the others to GitHub's manners.
fn on(
    line: &'static str,
    then: impl Fn(&Seen) -> Answered + Send + Sync,
) -> impl Fn(&Seen) -> Option<Answered> + Send + Sync {
    move |seen| (seen.line == line).then(|| then(seen))
}

fn owner() -> Owner {
    "octo-org".parse().unwrap()
}

fn grant(repositories: &[&str], permissions: &[(&str, Level)]) -> Grant {
    let names: Vec<RepoName> = repositories.iter().map(|name| name.parse().unwrap()).collect();
    let repositories =
        if names.is_empty() { Repositories::All } else { Repositories::These(names) };
    Grant::for_test("octo-org", repositories, to_permissions(permissions))
}

fn to_permissions(permissions: &[(&str, Level)]) -> Permissions {
    permissions.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect::<BTreeMap<_, _>>()
}
