//! `octo-sts serve` as a process: its signals, its exit codes, and what it writes where.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    sync::mpsc::RecvTimeoutError,
    time::Duration,
};

use http::Method;
use octo_sts::emulator::{GitHub, generate_rsa_pem};
use serde_json::Value;

use crate::harness::{Client, Setup, process, signal};

/// A server process that has told its address, and the rest of what it logs.
struct Server {
    process: Child,
    log: BufReader<std::process::ChildStderr>,
    address: SocketAddr,
}

impl Server {
    fn start(github: &GitHub) -> Self {
        Self::start_with(github, &[])
    }

    fn start_with(github: &GitHub, more: &[(&str, &str)]) -> Self {
        let (app, pem) = github.app("octo-sts");
        let environment = [
            ("STS_DOMAIN", "sts.example.com"),
            ("GITHUB_APP_IDS", &app.to_string()),
            ("APP_SECRET_CERTIFICATE_ENV_VAR", &pem),
            ("GITHUB_BASE_URL", &github.url()),
            ("PORT", "0"),
            ("METRICS", "false"),
        ];
        let environment: Vec<(&str, &str)> =
            environment.into_iter().chain(more.iter().copied()).collect();
        let mut process = process(&environment)
            .arg("serve")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
            let entry: Value = serde_json::from_str(&line).unwrap();
            if entry["message"] == "serving" {
                let port =
                    entry["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
                break SocketAddr::from(([127, 0, 0, 1], port));
            }
        };
        Self { process, log, address }
    }

    /// The exit code, while nobody reads what it writes. Less than the 25 s that a shutdown may
    /// take.
    async fn end_unread(mut self) -> Option<i32> {
        let ended = tokio::task::spawn_blocking(move || self.process.wait().unwrap().code());
        tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .expect("the server ends")
            .unwrap()
    }

    /// Exit code, stdout and the rest of stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let status = self.process.wait().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.process.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.log.read_to_string(&mut err).unwrap();
        (status.code(), out, err)
    }
}

#[tokio::test]
async fn a_signal_ends_the_server_with_code_0() {
    let github = Setup::new().await.github;
    for name in ["TERM", "INT"] {
        let server = Server::start(&github);
        let reply = Client::new(server.address).send(Method::GET, "/readyz", &[], "").await;
        assert_eq!(reply.status, 200);
        signal(&server.process, name);
        let (code, _, log) = server.end();
        assert_eq!(code, Some(0), "SIG{name}: {log}");
        assert!(log.contains(&format!("SIG{name}")), "{log}");
    }
}

#[tokio::test]
async fn stdout_holds_audit_records_and_nothing_else() {
    let github = Setup::new().await.github;
    let server = Server::start(&github);
    let reply = Client::new(server.address).send(Method::GET, "/sts/exchange", &[], "").await;
    assert_eq!(reply.status, 401);
    signal(&server.process, "TERM");
    let (code, out, _) = server.end();
    assert_eq!(code, Some(0));
    let record: Value = serde_json::from_str(out.trim_end()).unwrap();
    assert_eq!(
        (&record["type"], &record["reason"]),
        (&"audit".into(), &"CREDENTIAL_MISSING".into())
    );
}

#[tokio::test]
async fn output_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let github = Setup::new().await.github;
    let server =
        Server::start_with(&github, &[("RUST_LOG", "trace"), ("STS_SHUTDOWN_TIMEOUT", "3s")]);
    let client = Client::new(server.address);
    // A pipe holds 64 KiB. Each request writes a record, and several lines at this level.
    for _ in 0..300 {
        assert_eq!(client.send(Method::GET, "/sts/exchange", &[], "").await.status, 401);
    }
    assert_eq!(client.send(Method::GET, "/livez", &[], "").await.status, 200);
    signal(&server.process, "TERM");
    assert_eq!(server.end_unread().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_server_immediately() {
    let github = Setup::new().await.github;
    let server = Server::start(&github);
    let mut running = TcpStream::connect(server.address).unwrap();
    let head = b"POST /sts/exchange HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    running.write_all(head).unwrap();
    let mut interim = [0; 25];
    running.read_exact(&mut interim).unwrap();
    signal(&server.process, "TERM");
    while TcpStream::connect(server.address).is_ok() {}
    signal(&server.process, "TERM");
    assert_eq!(server.end_unread().await, Some(70));
}

/// Starts, which must fail: the exit code and stderr. A server that starts is ended, and fails the
/// test.
fn refused(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let started = process(environment)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = started.id();
    let (ended, is_over) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if is_over.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            std::process::Command::new("kill").args(["-s", "KILL", &id.to_string()]).status().ok();
        }
    });
    let output = started.wait_with_output().unwrap();
    drop(ended);
    watch.join().unwrap();
    assert!(output.stdout.is_empty());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    (output.status.code(), errors)
}

#[test]
fn every_mistake_is_told_at_once() {
    let secret = "not-a-key-but-a-secret";
    let environment = [
        ("STS_DOMAIN", "https://sts.example.com"),
        ("GITHUB_APP_IDS", "twelve"),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", secret),
        ("PORT", "http"),
        ("OCTOSTS_STICKY_STORE", secret),
        ("STS_POLICY_TTL", "1"),
        ("OIDC_ISSUERS", "http://issuer.example.com"),
        ("STS_TLS_CERT_FILE", "/nowhere"),
        ("STS_TLS_KEY_FILE", "/nowhere"),
    ];
    let (code, errors) = refused(&environment, &["serve"]);
    assert_eq!(code, Some(64), "{errors}");
    for (variable, _) in environment {
        assert!(errors.contains(&format!("\n  {variable} ")), "{variable} is missing in\n{errors}");
    }
    assert!(!errors.contains(secret), "{errors}");
}

#[test]
fn each_mistake_alone_is_one() {
    let (pem, _) = generate_rsa_pem();
    let good = [
        ("STS_DOMAIN", "sts.example.com"),
        ("GITHUB_APP_IDS", "1"),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", pem.as_str()),
        ("PORT", "0"),
    ];
    let mistakes = [
        ("STS_DOMAIN", ""),
        ("GITHUB_APP_IDS", "1,,2"),
        ("KMS_KEYS", "key"),
        ("APP_CONFIG_FILE", "/nowhere.yaml"),
        ("APP_SECRET_CERTIFICATE_FILE", "/nowhere.pem"),
        ("GITHUB_BASE_URL", "ftp://github.example.com"),
        ("ORG_POLICY_REPO", "a/b"),
        ("OCTOSTS_STICKY_STORE", "firestore"),
        ("RUST_LOG", "=x="),
    ];
    for (variable, value) in mistakes {
        let mut environment: Vec<(&str, &str)> =
            good.into_iter().filter(|(name, _)| *name != variable).collect();
        environment.push((variable, value));
        let (code, errors) = refused(&environment, &["serve"]);
        assert_eq!(code, Some(64), "{variable}: {errors}");
        assert!(errors.contains(variable), "{variable}: {errors}");
    }
}

#[test]
fn nothing_configured_and_nothing_asked_for_shows_help() {
    let (code, errors) = refused(&[], &[]);
    assert_eq!(code, Some(64));
    assert!(errors.contains("serve") && errors.contains("dev"), "{errors}");
    assert_eq!(refused(&[], &["serve"]).0, Some(64));
    assert_eq!(refused(&[("STS_DOMAIN", "sts.example.com")], &[]).0, Some(64));
}

#[test]
fn a_port_in_use_is_named_with_its_variable() {
    let (pem, _) = generate_rsa_pem();
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let good = [
        ("STS_DOMAIN", "sts.example.com"),
        ("GITHUB_APP_IDS", "1"),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", pem.as_str()),
        ("PORT", "0"),
        ("METRICS_PORT", "0"),
    ];
    for variable in ["PORT", "METRICS_PORT"] {
        let mut environment: Vec<(&str, &str)> =
            good.into_iter().filter(|(name, _)| *name != variable).collect();
        environment.push((variable, &port));
        let (code, errors) = refused(&environment, &["serve"]);
        assert_eq!(code, Some(64), "{errors}");
        assert!(errors.contains(&format!("{variable}: cannot listen on port {port}")), "{errors}");
    }
}
