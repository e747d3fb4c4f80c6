//! `octo-sts doctor` as a process: each thing that can be wrong is named, with what to do, and by
//! its exit code.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use octo_sts::{
    clock::{Clock, ManualClock, SystemClock},
    emulator::{
        Document, Fault, GitHub, Issuer, Misbehaviour, RouteKind, Selection, Visibility,
        generate_rsa_pem,
    },
    name::{AppId, InstallationId},
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::harness::{APP_PERMISSIONS, Folder, POLICY, process};

/// A server's surroundings, and the environment that leads to them.
struct Surroundings {
    github: GitHub,
    issuer: Issuer,
    app: AppId,
    installation: InstallationId,
    environment: BTreeMap<&'static str, String>,
}

/// What the doctor said.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Surroundings {
    async fn new() -> Self {
        Self::at(Arc::new(SystemClock)).await
    }

    /// With a GitHub that has another time.
    async fn at(clock: Arc<dyn Clock>) -> Self {
        let github = GitHub::start(clock).await.unwrap();
        let issuer = Issuer::start(Arc::new(SystemClock)).await.unwrap();
        let (app, pem) = github.app("octo-sts");
        github.org("octo-org");
        github.repo("octo-org", ".github", Visibility::Public);
        github.repo("octo-org", "hello", Visibility::Private);
        let installation = github.install(app, "octo-org", &Selection::All, APP_PERMISSIONS);
        let environment = [
            ("STS_DOMAIN", "sts.example.com".to_owned()),
            ("GITHUB_APP_IDS", app.to_string()),
            ("APP_SECRET_CERTIFICATE_ENV_VAR", pem),
            ("GITHUB_BASE_URL", github.url()),
            ("OIDC_ISSUERS", issuer.url()),
            ("OIDC_ALLOW_PRIVATE_NETWORKS", "known".to_owned()),
        ];
        Self { github, issuer, app, installation, environment: environment.into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.insert(name, value.into());
        self
    }

    async fn said(&self, arguments: &[&str]) -> Said {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut command = process(&environment);
        command.args(["doctor", "--skip-built-in"]).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let (text, errors) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(errors, "", "{text}");
        for secret in ["PRIVATE KEY", "eyJ", "ghs_"] {
            assert!(!text.contains(secret), "{text}");
        }
        Said { code: output.status.code(), text }
    }
}

impl Said {
    /// That one finding is so, and has something to do where it is not in order; every other is in
    /// order.
    #[track_caller]
    fn only(&self, code: i32, level: &str, what: &str, words: &[&str]) {
        let lines: Vec<&str> = self.text.lines().collect();
        let wrong: Vec<_> =
            lines.iter().enumerate().filter(|(_, line)| !line.starts_with("ok ")).collect();
        assert_eq!(wrong.len(), 2, "{}", self.text);
        let (at, line) = wrong[0];
        assert!(line.starts_with(&format!("{level}  {what}")), "{}", self.text);
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{words:?} are not all in\n{}",
            self.text
        );
        assert_eq!(wrong[1].0, at + 1);
        assert!(wrong[1].1.starts_with("      to do: "), "{}", self.text);
        assert_eq!(self.code, Some(code), "{}", self.text);
    }

    #[track_caller]
    fn has(&self, line: &str) {
        assert!(
            self.text.lines().any(|found| found.starts_with(line)),
            "{line:?} is not in\n{}",
            self.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong() {
    let surroundings = Surroundings::new().await;
    let said = surroundings.said(&[]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.lines().all(|line| line.starts_with("ok    ")), "{}", said.text);
    said.has("ok    key  signs");
    said.has("ok    clock  ");
    said.has(&format!("ok    app  is octo-sts ({})", surroundings.app));
    said.has("ok    installations  1: octo-org");
    said.has(&format!("ok    issuer {}  has 1 key for RS256", surroundings.issuer.url()));
    assert_eq!(surroundings.github.minted_count(), 0);
    assert_eq!(surroundings.github.unknown_requests(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_json_it_says_the_same() {
    let surroundings = Surroundings::new().await.with("STS_DOMAIN", "localhost");
    let said = surroundings.said(&["--json"]).await;
    let told: Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!((&told["exit"], said.code), (&json!(0), Some(0)));
    let findings = told["findings"].as_array().unwrap();
    let domain = findings.iter().find(|finding| finding["what"] == "domain").unwrap();
    assert_eq!(domain["level"], "warn");
    assert!(domain["todo"].as_str().unwrap().contains("without https://"));
    assert!(findings.iter().all(|finding| finding["words"].is_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_the_configuration_are_told_at_once() {
    let surroundings =
        Surroundings::new().await.with("GITHUB_APP_IDS", "x").with("STS_POLICY_TTL", "soon");
    let said = surroundings.said(&[]).await;
    assert_eq!(said.code, Some(64));
    for variable in ["GITHUB_APP_IDS", "STS_POLICY_TTL"] {
        said.has(&format!("fail  configuration  {variable} "));
    }
    assert_eq!(surroundings.github.calls().total(), 0);
}

/// Ports and ids differ from run to run.
fn without_numbers(text: &str) -> String {
    let mut fixed = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if fixed.ends_with('0') => {}
            true => fixed.push('0'),
            false => fixed.push(c),
        }
    }
    fixed
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documentation_shows_is_what_it_says() {
    let surroundings = Surroundings::new().await;
    surroundings.issuer.misbehave(Document::Discovery, Misbehaviour::Status(403));
    let policy =
        "issuer: https://i.example\nsubject: s\npermissions: {contents: read, packages: write}\n";
    surroundings.github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", policy);
    let said = surroundings.said(&["--scope", "octo-org/hello", "--identity", "ci"]).await;
    let shown = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md"))
        .unwrap();
    let shown = shown.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(
        without_numbers(shown),
        without_numbers(&said.text),
        "the documentation should show\n{}",
        said.text
    );
    assert_eq!(said.code, Some(77));
}

#[test]
fn arguments_that_do_not_fit_are_a_mistake() {
    for arguments in
        [&["--identity", "ci"][..], &["--scope", "a/b/c"], &["--scope", "o", "--identity", "../x"]]
    {
        let output = process(&[]).arg("doctor").args(arguments).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_app() {
    let surroundings = Surroundings::new().await;
    let (pem, _) = generate_rsa_pem();
    let said = surroundings.with("APP_SECRET_CERTIFICATE_ENV_VAR", pem).said(&[]).await;
    said.only(77, "fail", "app", &["does not take the key", "401"]);
    said.has("ok    key  signs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_no_app() {
    let surroundings = Surroundings::new().await.with("GITHUB_APP_IDS", "999999");
    let said = surroundings.said(&["--scope", "octo-org/hello"]).await;
    assert_eq!(said.code, Some(77));
    said.has("fail  app  GitHub knows no App 999999");
    said.has("warn  scope octo-org/hello  was not looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_github_that_does_not_answer() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let surroundings =
        Surroundings::new().await.with("GITHUB_BASE_URL", format!("http://127.0.0.1:{port}"));
    let said = surroundings.said(&[]).await;
    assert_eq!(said.code, Some(69), "{}", said.text);
    said.has("fail  github  the GitHub of 127.0.0.1");
    said.has("warn  clock  could not be compared");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_github_that_fails() {
    let surroundings = Surroundings::new().await;
    surroundings.github.fault(Fault::on(RouteKind::App).status(503));
    let said = surroundings.said(&[]).await;
    said.only(69, "fail", "github", &["503"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off() {
    let now = SystemClock.now();
    let minutes = |n: u64| Duration::from_secs(n * 60);
    for (theirs, code, level, words) in [
        (now.plus(minutes(1)), 0, "warn", "s behind GitHub's"),
        (
            now.plus(minutes(5)),
            77,
            "fail",
            "s behind GitHub's; GitHub takes the App's credential up to 90 s",
        ),
        (
            now.minus(minutes(5)),
            77,
            "fail",
            "s ahead of GitHub's; GitHub takes the App's credential up to 30 s",
        ),
    ] {
        let surroundings = Surroundings::at(Arc::new(ManualClock::at(theirs))).await;
        surroundings.said(&[]).await.only(code, level, "clock", &[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_installed_nowhere() {
    let surroundings = Surroundings::new().await;
    surroundings.github.uninstall(surroundings.installation);
    surroundings.said(&[]).await.only(0, "warn", "installations", &["nowhere"]);
}

/// What is wrong with the issuer, by what its documents do.
async fn of_issuer(document: Document, how: Misbehaviour) -> (Surroundings, Said) {
    let surroundings = Surroundings::new().await;
    surroundings.issuer.misbehave(document, how);
    let said = surroundings.said(&[]).await;
    (surroundings, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_keys_sit_behind_authentication() {
    for (document, words) in
        [(Document::Discovery, "discovery document"), (Document::Jwks, "key set")]
    {
        for status in [401, 403] {
            let (_, said) = of_issuer(document, Misbehaviour::Status(status)).await;
            said.only(77, "fail", "issuer", &[words, &format!("the answer has status {status}")]);
            assert!(said.text.contains("bearer_token_file"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_document_names_another() {
    let how = Misbehaviour::Member("issuer".into(), json!("https://kubernetes.default.svc"));
    let (surroundings, said) = of_issuer(Document::Discovery, how).await;
    let words = "names another issuer: https://kubernetes.default.svc";
    said.only(77, "fail", "issuer", &[words, &surroundings.issuer.url()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_publishes_something_else() {
    for (document, how, words) in [
        (Document::Discovery, Misbehaviour::Status(404), "the answer has status 404"),
        (Document::Discovery, Misbehaviour::Html, "not a discovery document"),
        (Document::Jwks, Misbehaviour::Html, "not a key set"),
        (
            Document::Discovery,
            Misbehaviour::Redirect("https://login.example.com".into()),
            "the answer has status 302",
        ),
        (
            Document::Jwks,
            Misbehaviour::Replace(json!({"keys": []})),
            "no key that can verify a token",
        ),
        (Document::Jwks, Misbehaviour::Cut, "key set"),
    ] {
        let (_, said) = of_issuer(document, how).await;
        said.only(69, "fail", "issuer", &[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_does_not_answer_in_time() {
    let (_, said) = of_issuer(Document::Discovery, Misbehaviour::Stall).await;
    said.only(69, "fail", "issuer", &["timed out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_the_address_rule_refuses() {
    let surroundings = Surroundings::new().await.with("OIDC_ALLOW_PRIVATE_NETWORKS", "");
    let said = surroundings.with("OIDC_ISSUERS", "https://10.0.0.1").said(&[]).await;
    said.only(77, "fail", "issuer", &["refused by the address rule"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_with_a_certificate_of_an_unknown_ca() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let tls =
        tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(socket).await {
                stream.read_u8().await.ok();
            }
        }
    });
    let said = Surroundings::new().await.with("OIDC_ISSUERS", &url).said(&[]).await;
    said.only(
        69,
        "fail",
        &format!("issuer {url}"),
        &["issued by an authority that is not trusted here"],
    );
    assert!(said.text.contains("ca_file"));
    serving.abort();
}

/// A folder of its own for the issuers file and what it names.
fn folder(name: &str) -> std::path::PathBuf {
    let folder =
        std::env::temp_dir().join(format!("octo-sts-doctor-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_entry_gives_a_credential() {
    let (surroundings, folder) = (Surroundings::new().await, folder("bearer"));
    surroundings.issuer.require_bearer(Some("reviewer"));
    let entry = format!(
        "issuers:\n  - issuer: {}\n    private_network: true\n    bearer_token_file: token\n",
        surroundings.issuer.url()
    );
    let file = folder.join("issuers.yaml");
    std::fs::write(&file, entry).unwrap();
    let surroundings =
        surroundings.with("OIDC_ISSUERS", "").with("OIDC_ISSUERS_FILE", file.to_str().unwrap());
    let said = surroundings.said(&[]).await;
    said.has(
        "fail  configuration  OIDC_ISSUERS_FILE names a file with an error: line 4, column 24: ",
    );
    assert_eq!(said.code, Some(64));
    std::fs::write(folder.join("token"), "reviewer").unwrap();
    let said = surroundings.said(&[]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    std::fs::write(folder.join("token"), "somebody-else").unwrap();
    let said = surroundings.said(&[]).await;
    said.only(77, "fail", "issuer", &["the answer has status 401"]);
    assert!(!said.text.contains("somebody-else"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends() {
    let folder = folder("tls");
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    for (year, code, level) in [(4000, 0, "ok  "), (2020, 64, "fail")] {
        let mut parameters =
            rcgen::CertificateParams::new(vec!["sts.example.com".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let signing = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&chain, parameters.self_signed(&signing).unwrap().pem()).unwrap();
        std::fs::write(&key, signing.serialize_pem()).unwrap();
        let surroundings =
            Surroundings::new().await.with("STS_TLS_CERT_FILE", chain.to_str().unwrap());
        let said = surroundings.with("STS_TLS_KEY_FILE", key.to_str().unwrap()).said(&[]).await;
        assert_eq!(said.code, Some(code), "{}", said.text);
        said.has(&format!("{level}  tls  the certificate "));
        assert!(said.text.contains(&format!("{year}-01-01T00:00:00Z")), "{}", said.text);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_keys_are_written_down() {
    let (surroundings, folder) = (Surroundings::new().await, folder("fixed"));
    let file = folder.join("issuers.yaml");
    let issuer = surroundings.issuer.clone();
    let write = |end: i64| {
        let mut keys = issuer.jwks();
        keys["keys"][0]["exp"] = json!(end);
        std::fs::write(folder.join("keys.json"), keys.to_string()).unwrap();
        std::fs::write(
            &file,
            "issuers:\n  - issuer: https://cluster.internal\n    jwks_file: keys.json\n",
        )
        .unwrap();
    };
    let (now, day) = (SystemClock.now().as_secs(), 86_400);
    write(now + 100 * day);
    let surroundings =
        surroundings.with("OIDC_ISSUERS", "").with("OIDC_ISSUERS_FILE", file.to_str().unwrap());
    let said = surroundings.said(&[]).await;
    said.has(
        "ok    issuer https://cluster.internal  has 1 key for RS256, supplied by the operator",
    );
    write(now + day);
    surroundings.said(&[]).await.only(
        0,
        "warn",
        "issuer https://cluster.internal",
        &["ends, or has ended, at"],
    );
    assert_eq!(surroundings.issuer.fetches(), Default::default());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_and_a_policy_that_are_in_order() {
    let surroundings = Surroundings::new().await;
    let policy = POLICY.replace("${ISSUER}", &surroundings.issuer.url());
    surroundings.github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", &policy);
    let said = surroundings.said(&["--scope", "octo-org/hello", "--identity", "ci"]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has(
        "ok    installation  for octo-org, on all repositories, with: checks write, contents write",
    );
    said.has("ok    trusted issuers  octo-org has no list");
    said.has("ok    policy .github/chainguard/ci.sts.yaml in octo-org/hello  is valid, and gives: contents read");
    // What it read with is revoked.
    for token in surroundings.github.minted() {
        assert!(token.revoked, "{token:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_scope_or_its_policy() {
    type Change = fn(&Surroundings);
    let cases: [(&str, &str, &str, Change); 6] = [
        ("nobody/hello", "installation", "nobody: the App is not installed", |_| {}),
        ("octo-org/hello", "installation", "suspended", |surroundings| {
            assert!(surroundings.github.suspend(surroundings.installation));
        }),
        ("octo-org/hello", "policy", "is not there", |_| {}),
        ("octo-org/hello", "policy", "breaks a rule: line 1", |surroundings| {
            surroundings.github.put_file(
                "octo-org",
                "hello",
                ".github/chainguard/ci.sts.yaml",
                "issuer: [",
            );
        }),
        ("octo-org/hello", "policy", "the App lacks packages write (it has none)", |s| {
            let text = "issuer: https://i.example\nsubject: s\npermissions: {packages: write, contents: write}\n";
            s.github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", text);
        }),
        ("octo-org/hello", "trusted issuers", "line", |surroundings| {
            let path = ".github/chainguard/trusted-token-issuers.yaml";
            surroundings.github.put_file("octo-org", ".github", path, "issuers: 5\n");
            let text = "issuer: https://i.example\nsubject: s\npermissions: {contents: read}\n";
            surroundings.github.put_file(
                "octo-org",
                "hello",
                ".github/chainguard/ci.sts.yaml",
                text,
            );
        }),
    ];
    for (scope, what, words, change) in cases {
        let surroundings = Surroundings::new().await;
        change(&surroundings);
        let said = surroundings.said(&["--scope", scope, "--identity", "ci"]).await;
        said.only(77, "fail", what, &[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_held_against_every_app_of_the_pool() {
    let surroundings = Surroundings::new().await;
    let (pem, public) = octo_sts::emulator::generate_rsa_pem();
    let apps: Vec<_> = ["first", "second"]
        .map(|slug| {
            let (app, _) = surroundings.github.app(slug);
            surroundings.github.add_key(app, public.clone());
            app
        })
        .into();
    let text =
        "issuer: https://i.example\nsubject: s\npermissions: {issues: write, contents: read}\n";
    surroundings.github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", text);
    surroundings.github.install(apps[0], "octo-org", &Selection::All, APP_PERMISSIONS);
    let few =
        surroundings.github.install(apps[1], "octo-org", &Selection::All, &[("contents", "read")]);
    let folder = Folder::new();
    let key = folder.file("app.pem", &pem);
    let surroundings = surroundings
        .with("GITHUB_APP_IDS", format!("{},{}", apps[0], apps[1]))
        .with("APP_SECRET_CERTIFICATE_ENV_VAR", String::new())
        .with("APP_SECRET_CERTIFICATE_FILE", key);
    let said = surroundings.said(&["--scope", "octo-org/hello", "--identity", "ci"]).await;
    for app in &apps {
        said.has(&format!("ok    App {app}: installation  for octo-org, on all repositories"));
    }
    let what = "policy .github/chainguard/ci.sts.yaml in octo-org/hello";
    said.has(&format!("warn  {what}  App {} lacks issues write (it has none)", apps[1]));
    said.has("ok    quota for octo-org  App ");
    assert_eq!(said.code, Some(0), "{}", said.text);

    // If no App can give the permissions, the policy is of no use.
    surroundings.github.install(apps[0], "octo-org", &Selection::All, &[("contents", "read")]);
    let said = surroundings.said(&["--scope", "octo-org/hello", "--identity", "ci"]).await;
    said.has(&format!("fail  {what}  App {} lacks issues write", apps[0]));
    assert_eq!(said.code, Some(77), "{}", said.text);
    assert!(surroundings.github.suspend(few));
}

/// A file with twelve Apps in two pools, the last of which has the key of another App.
#[tokio::test(flavor = "multi_thread")]
async fn each_app_of_each_pool_is_checked() {
    let surroundings = Surroundings::new().await;
    let apps: Vec<_> = (0..12).map(|n| surroundings.github.app(&format!("app-{n}"))).collect();
    let folder = Folder::new();
    let org = |name: &str, range: std::ops::Range<usize>| {
        let entries = range.map(|n| {
            // GitHub knows the last App by another key.
            let pem = &apps[if n == 11 { 10 } else { n }].1;
            let key = folder.file(&format!("{n}.pem"), pem);
            format!("      - app_id: {}\n        private_key_file: {key}\n", apps[n].0)
        });
        format!("  - name: '{name}'\n    apps:\n{}", entries.collect::<String>())
    };
    let text = format!("orgs:\n{}{}", org("octo-org", 0..4), org("*", 4..12));
    let file = folder.file("apps.yaml", &text);
    for (app, _) in &apps[..4] {
        surroundings.github.install(*app, "octo-org", &Selection::All, APP_PERMISSIONS);
    }
    let surroundings = surroundings.with("APP_CONFIG_FILE", file);
    let said = surroundings.said(&[]).await;
    for (n, (app, _)) in apps.iter().enumerate() {
        said.has(&format!("ok    App {app}: key  signs"));
        match n {
            0..4 => said.has(&format!("ok    App {app}: installations  1: octo-org")),
            4..11 => {
                said.has(&format!("warn  App {app}: installations  the App is installed nowhere"))
            }
            _ => said.has(&format!("fail  App {app}: app  GitHub does not take the key")),
        }
    }
    for once in ["ok    github  ", "ok    clock  "] {
        assert_eq!(said.text.matches(once).count(), 1, "{}", said.text);
    }
    assert_eq!(said.code, Some(77), "{}", said.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_of_an_app_that_was_made_for_something_else() {
    const EVENTS: [&str; 7] = [
        "push",
        "pull_request",
        "check_run",
        "check_suite",
        "repository",
        "organization",
        "merge_group",
    ];
    let surroundings = Surroundings::new().await.with("GITHUB_WEBHOOK_SECRET", "s3cret");
    let (github, app) = (surroundings.github.clone(), surroundings.app);
    github.subscribe(app, &EVENTS);
    let said = surroundings.said(&[]).await;
    said.only(0, "warn", "webhook", &["GitHub does not show where it leads"]);

    github.set_webhook(app, "https://sts.example.com/hook", "s3cret");
    let said = surroundings.said(&[]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has("ok    webhook  leads to https://sts.example.com/hook");

    github.subscribe(app, &EVENTS[2..]);
    let words = ["push (changed policies take effect", "pull_request (pull requests get no check)"];
    surroundings.said(&[]).await.only(0, "warn", "webhook", &words);
    github.subscribe(app, &EVENTS);

    github.lose(app, "push", json!({})).await;
    let words = ["1 deliveries failed", "(push) with no answer"];
    surroundings.said(&[]).await.only(0, "warn", "webhook", &words);
    assert_eq!(github.unknown_requests(), [""; 0]);
}
