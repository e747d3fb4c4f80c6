//! Deployments of the Go service, started unchanged: `tests/corpus/deployments`.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use http::Method;
use octo_sts::{
    clock::SystemClock,
    emulator::{Alg, GitHub, Issuer, Selection, Visibility, claims, generate_rsa_pem},
    name::AppId,
};
use serde_json::{Value, json};

use crate::{
    clouds::stand_in::{Clouds, WEBHOOK_SECRET},
    docs::root,
    harness::{
        APP_PERMISSIONS, Ask, Client, Folder, POLICY,
        delivery::{Delivery, push},
        process,
    },
};

/// What the deployments have in common: a GitHub with three Apps that accept one key, and an issuer.
struct Surroundings {
    github: GitHub,
    issuer: Issuer,
    apps: Vec<AppId>,
    pem: String,
    clouds: Clouds,
}

impl Surroundings {
    async fn new() -> Self {
        let clock = Arc::new(SystemClock);
        let github = GitHub::start(clock.clone()).await.unwrap();
        let issuer = Issuer::start(clock).await.unwrap();
        issuer.rotate(Alg::Es256);
        let (pem, public) = generate_rsa_pem();
        github.org("octo-org");
        github.repo("octo-org", ".github", Visibility::Public);
        github.repo("octo-org", "hello", Visibility::Private);
        let mut apps = Vec::new();
        for slug in ["first", "second", "third"] {
            let (app, _) = github.app(slug);
            github.add_key(app, public.clone());
            github.install(app, "octo-org", &Selection::All, APP_PERMISSIONS);
            apps.push(app);
        }
        let policy = POLICY.replace("${ISSUER}", &issuer.url());
        github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", &policy);
        let clouds = Clouds::start(&pem).await;
        Self { github, issuer, apps, pem, clouds }
    }

    /// The environment of a deployment, whose files go into `folder`. All that is replaced in a
    /// deployment or added to it is here.
    fn environment(&self, name: &str, folder: &Folder) -> Vec<(String, String)> {
        let fill = |text: &str, pem: &str| {
            let mut text = text.replace("@FOLDER@", folder.path().to_str().unwrap());
            for (n, app) in self.apps.iter().enumerate() {
                text = text.replace(&format!("@APP_{}@", n + 1), &app.to_string());
            }
            text.replace("@PEM@", pem)
        };
        let source = root().join("tests/corpus/deployments").join(name);
        let mut environment = Vec::new();
        for entry in fs::read_dir(source).unwrap() {
            let entry = entry.unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            if entry.file_name() == "environment" {
                let text = fill(&text, &self.pem.replace('\n', "\\n"));
                for line in text.lines().filter(|line| !line.starts_with('#')) {
                    let (name, value) = line.split_once('=').unwrap();
                    environment.push((name.to_owned(), value.to_owned()));
                }
            } else {
                folder.file(entry.file_name().to_str().unwrap(), &fill(&text, &self.pem));
            }
        }
        environment.retain(|(name, _)| !matches!(name.as_str(), "PORT" | "METRICS_PORT"));
        let metadata = &self.clouds.metadata.url;
        let emulators = [
            ("PORT", "0".to_owned()),
            ("METRICS_PORT", "0".to_owned()),
            ("GITHUB_BASE_URL", self.github.url()),
            ("OIDC_ISSUERS", self.issuer.url()),
            ("OIDC_ALLOW_PRIVATE_NETWORKS", "known".to_owned()),
            ("HTTPS_PROXY", self.clouds.proxy.clone()),
            ("SSL_CERT_FILE", self.clouds.root.display().to_string()),
            ("GCE_METADATA_HOST", metadata.trim_start_matches("http://").to_owned()),
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.clone()),
            ("AWS_ACCESS_KEY_ID", "AKIDENV".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ];
        environment.extend(emulators.map(|(name, value)| (name.to_owned(), value)));
        environment
    }

    /// A token of a workflow in `octo-org/hello`.
    fn token(&self) -> String {
        let mut claims = claims::github_actions("octo-org", "hello", "refs/heads/main");
        claims["aud"] = json!("octo-sts.example.com");
        self.issuer.sign(&claims)
    }
}

/// A server that was started, and ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Server {
    /// Starts, and returns the address and what was logged until then.
    fn start(environment: &[(String, String)]) -> (Self, SocketAddr, String) {
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut process = process(&environment)
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let server = Self(process);
        let mut log = String::new();
        loop {
            let mut line = String::new();
            let length = lines.read_line(&mut line).unwrap();
            assert!(length > 0, "the server ended: {log}");
            log.push_str(&line);
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            if entry["message"].as_str().is_some_and(|message| message.starts_with("serving")) {
                let address = entry["address"].as_str().unwrap();
                let port = address.rsplit(':').next().unwrap().parse().unwrap();
                std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
                return (server, SocketAddr::from(([127, 0, 0, 1], port)), log);
            }
        }
    }
}

// The stand-ins answer while the test waits for the server to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_the_go_service_starts_unchanged_and_issues_tokens() {
    let surroundings = Surroundings::new().await;
    let [first, second, third] = surroundings.apps[..] else { unreachable!() };
    for (name, apps, warned) in [
        ("readme", vec![first], &[][..]),
        ("pem-variable", vec![first], &[]),
        ("several-ids", vec![first, second, third], &[]),
        ("aws-kms", vec![first], &[]),
        ("google-kms", vec![first, third], &["KMS_KEYS"]),
        ("terraform", vec![first, second], &[]),
        ("terraform-pem", vec![first, second], &[]),
        ("cloud-run", vec![first], &["OTEL_TRACES_EXPORTER"]),
    ] {
        let folder = Folder::new();
        let environment = surroundings.environment(name, &folder);
        let (_server, address, log) = Server::start(&environment);
        for variable in warned {
            assert!(log.contains(variable), "{name}: {variable} is not mentioned: {log}");
        }
        assert_eq!(log.matches("\"WARN\"").count(), warned.len(), "{name}: {log}");
        let before = surroundings.github.minted().len();
        let client = Client::new(address);
        let token = surroundings.token();
        let mut used = Vec::new();
        for _ in 0..3 {
            let outcome = client.exchange(&Ask::new("octo-org/hello", "ci", &token)).await;
            assert_eq!(outcome.rest.code, 0, "{name}: {}", outcome.rest.message);
        }
        for minted in &surroundings.github.minted()[before..] {
            if minted.permissions.contains_key("issues") {
                used.push(minted.app);
            }
        }
        assert_eq!(used.len(), 6, "{name}: three exchanges on each wire");
        assert!(used.iter().all(|app| apps.contains(app)), "{name}: {used:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_deployment_of_the_go_service_starts_unchanged_and_takes_deliveries() {
    let surroundings = Surroundings::new().await;
    for (name, secrets) in [
        ("webhook-pem", &["s3cret,with,commas", "with"][..]),
        ("webhook-google-kms", &[WEBHOOK_SECRET]),
        ("webhook-aws-kms", &[WEBHOOK_SECRET, "the next one"]),
        ("webhook-azure-kms", &[WEBHOOK_SECRET]),
    ] {
        let folder = Folder::new();
        let environment = surroundings.environment(name, &folder);
        let (_server, address, log) = Server::start(&environment);
        assert!(log.contains("serving the webhook only"), "{log}");
        assert_eq!(log.matches("\"WARN\"").count(), 0, "{name}: {log}");
        let client = Client::new(address);
        let is_ready = async {
            while client.send(Method::GET, "/readyz", &[], "").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_ready).await.unwrap();
        for secret in secrets {
            let mut body = push("hello", json!([]));
            body["sender"] = json!(secret);
            let delivery = Delivery::new("push", body).secret(secret).path("/any/hook");
            assert_eq!(delivery.send(&client).await, (200, "accepted".into()), "{name}: {secret}");
        }
        let named = environment.iter().find(|(name, _)| name == "GITHUB_WEBHOOK_SECRET").unwrap();
        let by_name =
            Delivery::new("push", push("hello", json!([]))).secret(&format!("{}x", named.1));
        assert_eq!(by_name.send(&client).await.0, 400);
        if name != "webhook-pem" {
            let by_name = by_name.secret(&named.1);
            assert_eq!(by_name.send(&client).await.0, 400, "a name is never the secret");
        }
        assert_eq!(client.send(Method::GET, "/sts/exchange", &[], "").await.status, 404);
    }
}

#[test]
fn every_deployment_is_tested() {
    let source = include_str!("deployments.rs");
    for entry in fs::read_dir(root().join("tests/corpus/deployments")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            let name = entry.file_name().into_string().unwrap();
            assert!(
                source.contains(&format!("(\"{name}\", "))
                    || source.contains(&format!("\"{name}\",")),
                "{name}"
            );
        }
    }
}
