//! A whole warm exchange over a socket, as a caller and an operator feel it: exchanges a second,
//! the server's own CPU time for each, and GitHub calls for each. `cargo bench --bench exchange`.
//!
//! The server is a process of its own, so that its CPU time is not mixed up with that of the load
//! and of the emulated GitHub, which share the machine with it and take most of it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark ends where something is not as it should be"
)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use octo_sts::{
    clock::{Clock, SystemClock, UnixTime},
    emulator::{GitHub, Issuer, Selection, Visibility, claims},
    proto::oidc::{ExchangeRequest, security_token_service_client::SecurityTokenServiceClient},
};
use serde_json::{Value, json};
use tonic::transport::Channel;

const CALLERS: usize = 32;

/// The server's process; it ends with the benchmark.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Server {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_octo-sts"))
            .arg("serve")
            .env_clear()
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            line["address"].as_str()?.rsplit(':').next().map(str::to_owned)
        });
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address: format!("127.0.0.1:{}", port.unwrap()) }
    }

    /// CPU time so far, user and system, of all threads.
    fn cpu(&self) -> Duration {
        const TICKS_A_SECOND: u64 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
    }

    fn resident_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

struct World {
    github: GitHub,
    server: Server,
    token: String,
}

async fn prepare() -> World {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let github = GitHub::start(Arc::clone(&clock)).await.unwrap();
    let issuer = Issuer::start(Arc::clone(&clock)).await.unwrap();
    let (app, pem) = github.app("octo-sts");
    github.org("octo-org");
    github.repo("octo-org", ".github", Visibility::Public);
    github.repo("octo-org", "hello", Visibility::Private);
    github.install(app, "octo-org", &Selection::All, &[("contents", "read"), ("issues", "write")]);
    let policy = format!(
        "issuer: {}\nsubject_pattern: repo:octo-org/hello:ref:refs/heads/.*\npermissions:\n  contents: read\n  issues: write\n",
        issuer.url()
    );
    github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", &policy);
    let server = Server::start(&[
        ("STS_DOMAIN", "sts.example.com"),
        ("PORT", "0"),
        ("METRICS", "false"),
        ("STS_LOG_FORMAT", "json"),
        ("GITHUB_APP_IDS", &app.to_string()),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", &pem),
        ("GITHUB_BASE_URL", &github.url()),
        ("OIDC_ISSUERS", &issuer.url()),
        ("OIDC_ALLOW_PRIVATE_NETWORKS", "known"),
    ]);
    let mut claims = claims::github_actions("octo-org", "hello", "refs/heads/main");
    claims["aud"] = json!("sts.example.com");
    claims["exp"] = json!(clock.now().plus(Duration::from_secs(3600)).as_secs());
    let token = issuer.sign(&claims);
    std::mem::forget(issuer);
    World { github, server, token }
}

/// One REST exchange after another on a connection of its own.
async fn rest(address: String, token: String, exchanges: usize) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for _ in 0..exchanges {
        let request =
            Request::get(format!("http://{address}/sts/exchange?scope=octo-org/hello&identity=ci"))
                .header("authorization", format!("Bearer {token}"))
                .body(Full::default())
                .unwrap();
        let reply = client.request(request).await.unwrap();
        let status = reply.status();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{}", String::from_utf8_lossy(&body));
    }
}

/// One gRPC exchange after another, on a connection that all callers share.
async fn grpc(client: SecurityTokenServiceClient<Channel>, token: String, exchanges: usize) {
    let authorization: tonic::metadata::MetadataValue<_> =
        format!("Bearer {token}").parse().unwrap();
    for _ in 0..exchanges {
        let message = ExchangeRequest {
            scopes: vec!["octo-org/hello".into()],
            identity: "ci".into(),
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", authorization.clone());
        client.clone().exchange(request).await.unwrap();
    }
}

async fn measure(wire: &str, world: &World, exchanges: usize) {
    let clock = SystemClock;
    let channel =
        Channel::from_shared(format!("http://{}", world.server.address)).unwrap().connect_lazy();
    let grpc_client = SecurityTokenServiceClient::new(channel);
    let run = async |each: usize| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| match wire {
                "REST" => {
                    tokio::spawn(rest(world.server.address.clone(), world.token.clone(), each))
                }
                _ => tokio::spawn(grpc(grpc_client.clone(), world.token.clone(), each)),
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    };
    run(20).await;
    let (cpu, calls, began): (_, _, UnixTime) =
        (world.server.cpu(), world.github.calls().total(), clock.now());
    let each = exchanges / CALLERS;
    run(each).await;
    let done = (each * CALLERS) as f64;
    let (took, cpu) = (clock.now().since(began), world.server.cpu() - cpu);
    println!(
        "{wire}: {:6.0} exchanges/s beside load and GitHub; server CPU {:5.1} us each; GitHub calls {:.3} each",
        done / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / done,
        (world.github.calls().total() - calls) as f64 / done,
    );
}

fn main() {
    // `cargo test --benches` only wants to see that it runs.
    let short = !std::env::args().any(|argument| argument == "--bench");
    let exchanges = if short { 64 } else { 20_000 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = prepare().await;
        println!(
            "server: {:.1} MB resident when idle",
            world.server.resident_kib() as f64 / 1024.0
        );
        for wire in ["REST", "gRPC"] {
            measure(wire, &world, exchanges).await;
        }
        println!("server: {:.1} MB resident after", world.server.resident_kib() as f64 / 1024.0);
    });
}
