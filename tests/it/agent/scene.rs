//! A server that can go away and come back at its address, and a folder for files.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use octo_sts::{
    app::{Ambient, App, AppError, Settings},
    clock::{Clock, ManualClock, SystemClock},
    emulator::{GitHub, Issuer, TokenRecord, claims},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::harness::{AuditLines, DOMAIN, POLICY, Setup};

/// What the identity's token file is good for.
const IDENTITY_LIFE: i64 = 600;

/// Everything around an agent.
pub struct Scene {
    pub github: GitHub,
    pub issuer: Issuer,
    pub clock: ManualClock,
    pub address: SocketAddr,
    pub folder: PathBuf,
    settings: Settings,
    passed_by: AtomicU64,
    _ticking: Option<AbortOnDropHandle<()>>,
    serving: Option<(CancellationToken, JoinHandle<Result<(), AppError>>)>,
}

impl Scene {
    /// `octo-org/hello` with the policy `ci`, an identity in `FOLDER/id`, and the server up.
    pub async fn new(name: &str) -> Self {
        Self::of(name, Setup::with_policy(POLICY).await).await
    }

    /// The same under the machine's own clock, for processes.
    pub async fn real(name: &str) -> Self {
        let setup = Setup::with_policy(POLICY).await;
        setup.clock.set(SystemClock.now());
        let clock = setup.clock.clone();
        let ticking = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                clock.set(SystemClock.now());
            }
        });
        Self { _ticking: Some(AbortOnDropHandle::new(ticking)), ..Self::of(name, setup).await }
    }

    async fn of(name: &str, setup: Setup) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("agent-{name}"));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).unwrap();
        let Setup { settings, github, issuer, clock, .. } = setup;
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut scene = Self {
            github,
            issuer,
            clock,
            address,
            folder,
            settings,
            passed_by: 0.into(),
            _ticking: None,
            serving: None,
        };
        scene.show_identity();
        scene.up().await;
        scene
    }

    /// Listens at the server's address, whoever did before.
    pub async fn listen(&self) -> TcpListener {
        loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            if let Ok(listener) = socket.bind(self.address).and_then(|()| socket.listen(64)) {
                return listener;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The server comes up at its address.
    pub async fn up(&mut self) {
        let ambient =
            Ambient { clock: Arc::new(self.clock.clone()), sink: Box::new(AuditLines::default()) };
        let app = App::build(self.settings.clone(), ambient).await.unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(app.serve(self.listen().await, stop.clone()));
        self.serving = Some((stop, serving));
    }

    /// The server goes away; its address refuses.
    pub async fn down(&mut self) {
        let (stop, serving) = self.serving.take().unwrap();
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    pub fn is_up(&self) -> bool {
        self.serving.is_some()
    }

    /// Lets time pass while somebody works.
    pub fn pass_by(&self, time: Duration) {
        self.passed_by.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        self.clock.advance(time);
    }

    /// How much passed so, altogether.
    pub fn passed_by(&self) -> Duration {
        Duration::from_millis(self.passed_by.load(Ordering::SeqCst))
    }

    /// The policy is put back, or put in.
    pub fn policy(&self, text: &str) {
        let text = text.replace("${ISSUER}", &self.issuer.url());
        self.github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", &text);
    }

    pub fn id_file(&self) -> PathBuf {
        self.folder.join("id")
    }

    pub fn out(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// The identity's file rotates, as the kubelet does it.
    pub fn show_identity(&self) {
        let mut claims = claims::github_actions("octo-org", "hello", "refs/heads/main");
        claims["aud"] = json!(DOMAIN);
        claims["exp"] = json!(self.clock.now().as_secs() + IDENTITY_LIFE);
        let next = self.folder.join("id.next");
        fs::write(&next, self.issuer.sign(&claims)).unwrap();
        fs::rename(next, self.id_file()).unwrap();
    }

    /// The tokens that the policy grants, dead ones too; others only read policies.
    pub fn issued(&self) -> Vec<TokenRecord> {
        self.github.minted().into_iter().filter(is_issued).collect()
    }

    /// Those that still work.
    pub fn alive(&self) -> Vec<TokenRecord> {
        self.github.live_tokens().into_iter().filter(is_issued).collect()
    }

    /// What stands in the file: a token that GitHub knows and that lives, or there is no file.
    #[track_caller]
    pub fn held(&self) -> Option<TokenRecord> {
        let now = self.clock.now();
        let text = fs::read_to_string(self.out()).ok()?;
        let token = self
            .github
            .token(&text)
            .unwrap_or_else(|| panic!("{} bytes that are no token", text.len()));
        assert!(
            is_issued(&token) && !token.revoked && token.expires_at > now,
            "{token:?} at {now:?}"
        );
        Some(token)
    }

    /// Names of files beside the token.
    pub fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".token.octo-sts-")).collect()
    }
}

fn is_issued(token: &TokenRecord) -> bool {
    token.permissions.contains_key("issues")
}

/// Waits for what another task or process brings about.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("in half a minute it did not come about that {what}");
}

/// Something at the server's address that is no server.
pub struct Impostor {
    requests: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Impostor {
    /// Answers each connection's first request with `answer`, or, where that is empty, not at all.
    pub fn start(listener: TcpListener, answer: &'static str) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = vec![0; 16 << 10];
                if socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    if answer.is_empty() {
                        held.push(socket);
                    } else {
                        socket.write_all(answer.as_bytes()).await.ok();
                    }
                }
            }
        });
        Self { requests, _serving: AbortOnDropHandle::new(serving) }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A thread that reads the file all the time, and holds each token it sees against GitHub.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Reader {
    pub fn start(scene: &Scene) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, github, clock) = (scene.out(), scene.github.clone(), scene.clock.clone());
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut tokens = std::collections::BTreeSet::new();
            while !told.load(Ordering::SeqCst) {
                let before = clock.now();
                if let Ok(text) = fs::read_to_string(&path) {
                    let token = github
                        .token(&text)
                        .unwrap_or_else(|| panic!("{} bytes that are no token", text.len()));
                    assert!(token.expires_at > before, "a dead token: {token:?}");
                    tokens.insert(token.sha256);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            tokens.len()
        });
        Self { stop, thread: Some(thread) }
    }

    /// How many different tokens it saw.
    pub fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
