//! The memory of a server process whose caches are full of hostile files, against the chart's
//! limit.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Stdio},
    sync::Arc,
};

use futures_util::future::join_all;
use octo_sts::{
    clock::SystemClock,
    emulator::{Alg, GitHub, Issuer, Selection, Visibility, claims},
    name::AppId,
};
use serde_json::{Map, Value, json};

use crate::harness::{APP_PERMISSIONS, Ask, Client, DOMAIN, process, signal};

/// Policies with many small patterns, each of which has many DFA states for its text.
const STATEFUL: usize = 40;
/// Owners with a policy and a list of the largest compiled size.
const OWNERS: usize = 12;
/// The bounds of the caches that are not filled here, of installations and of tokens, in MiB.
const OTHER_CACHES: usize = 16 + 1 + 24 + 1;
/// Claims in a token.
const CLAIMS: usize = 60;

struct World {
    github: GitHub,
    issuer: Issuer,
    app: AppId,
    server: Child,
    client: Client,
}

impl World {
    async fn start() -> Self {
        let clock = Arc::new(SystemClock);
        let github = GitHub::start(clock.clone()).await.unwrap();
        let issuer = Issuer::start(clock).await.unwrap();
        issuer.rotate(Alg::Es256);
        let (app, pem) = github.app("octo-sts");
        let environment = [
            ("STS_DOMAIN", DOMAIN),
            ("GITHUB_APP_IDS", &*app.to_string()),
            ("APP_SECRET_CERTIFICATE_ENV_VAR", &pem),
            ("GITHUB_BASE_URL", &github.url()),
            ("OIDC_ISSUERS", &issuer.url()),
            ("OIDC_ALLOW_PRIVATE_NETWORKS", "all"),
            ("PORT", "0"),
            ("METRICS", "false"),
        ];
        let mut server = process(&environment)
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let client = Client::new(address(&mut server));
        Self { github, issuer, app, server, client }
    }

    fn owner(&self, owner: &str) {
        self.github.org(owner);
        self.github.repo(owner, ".github", Visibility::Public);
        self.github.install(self.app, owner, &Selection::All, APP_PERMISSIONS);
    }

    fn policy(&self, owner: &str, name: &str, patterns: impl Iterator<Item = String>) {
        let patterns: String =
            patterns.enumerate().map(|(n, pattern)| format!("  c{n}: '{pattern}'\n")).collect();
        let issuer = self.issuer.url();
        let text = format!(
            "issuer: {issuer}\nsubject_pattern: '.*'\nclaim_pattern:\n{patterns}permissions: {{contents: read}}\n"
        );
        self.github.put_file(
            owner,
            ".github",
            &format!(".github/chainguard/{name}.sts.yaml"),
            &text,
        );
    }

    fn token(&self, issuer: &Issuer, text: impl Fn(usize) -> String) -> String {
        let mut claims = claims::github_actions("octo-org", "hello", "refs/heads/main");
        claims["aud"] = json!(DOMAIN);
        let texts: Map<String, Value> =
            (0..CLAIMS).map(|n| (format!("c{n}"), json!(text(n)))).collect();
        claims.as_object_mut().unwrap().extend(texts);
        issuer.sign(&claims)
    }

    /// Memory that the process cannot give back by dropping pages of files, in MiB.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    /// Asks for each of these, a few at a time, and returns the codes and the most memory seen.
    async fn ask(&self, asks: Vec<Ask>) -> (Vec<i32>, usize) {
        let (mut codes, mut most) = (Vec::new(), 0);
        for some in asks.chunks(4) {
            let answers = join_all(some.iter().map(|ask| self.client.rest(ask))).await;
            codes.extend(answers.into_iter().map(|answer| answer.code));
            most = most.max(self.memory());
        }
        (codes, most)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        signal(&self.server, "KILL");
        self.server.wait().unwrap();
    }
}

fn address(server: &mut Child) -> SocketAddr {
    let mut log = BufReader::new(server.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
        let entry: Value = serde_json::from_str(&line).unwrap();
        if entry["message"] == "serving" {
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            let port =
                entry["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
}

/// The limit that the chart sets, in MiB.
fn limit() -> usize {
    let values = include_str!("../../deploy/helm/octo-sts/values.yaml");
    let (_, limits) = values.split_once("\n  limits:\n    memory: ").unwrap();
    limits.split_once("Mi\n").unwrap().0.parse().unwrap()
}

/// A text of `a` and `b` in which no two stretches are alike, with an `a` where the pattern wants
/// it.
fn stateful_text(n: usize) -> String {
    let mut random = fastrand::Rng::with_seed(n as u64);
    let mut letters: Vec<char> = (0..300).map(|_| if random.bool() { 'a' } else { 'b' }).collect();
    letters[300 - 121] = 'a';
    letters.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_caches_of_hostile_files_stay_within_the_charts_limit() {
    let world = World::start().await;
    let large = || std::iter::repeat_n(r"\pL{1,50}.*".to_owned(), 5);
    for n in 0..OWNERS {
        let owner = format!("large-{n}");
        world.owner(&owner);
        let own = world.issuer.url();
        let patterns =
            (0..5).map(|n| format!(r"  - 'https://{n}\pL{{50}}'{}", '\n')).collect::<String>();
        let list = format!("issuers: ['{own}']\nissuer_patterns:\n{patterns}");
        world.github.put_file(
            &owner,
            ".github",
            ".github/chainguard/trusted-token-issuers.yaml",
            &list,
        );
        for name in ["verified", "unverified"] {
            world.policy(&owner, name, large());
        }
    }
    world.owner("stateful");
    for n in 0..STATEFUL {
        let pattern = |_| format!("[ab]*a[ab]{{120}}|{n}");
        world.policy("stateful", &format!("p{n}"), (0..CLAIMS).map(pattern));
    }

    let idle = world.memory();
    let token = world.token(&world.issuer, |_| "é".repeat(40));
    let of_large = |name, token: &str| {
        (0..OWNERS).map(|n| Ask::new(&format!("large-{n}"), name, token)).collect()
    };
    let unknown = world.issuer.at("/unknown");
    unknown.rotate(Alg::Es256);
    let (codes, unverified) =
        world.ask(of_large("unverified", &world.token(&unknown, |_| String::new()))).await;
    assert_eq!(codes, [16; OWNERS]);
    let (codes, verified) = world.ask(of_large("verified", &token)).await;
    assert_eq!(codes, [0; OWNERS]);
    let token = world.token(&world.issuer, stateful_text);
    let mut stateful = 0;
    // Twice, so that several threads have matched each.
    for _ in 0..2 {
        for n in 0..STATEFUL {
            let ask = Ask::new("stateful", &format!("p{n}"), &token);
            let (codes, memory) = world.ask(vec![ask.clone(), ask]).await;
            assert_eq!(codes, [0; 2]);
            stateful = stateful.max(memory);
        }
    }
    let report = format!(
        "MiB: idle {idle}, unverified {unverified}, verified {verified}, stateful {stateful}"
    );
    eprintln!("{report}");
    let most = unverified.max(verified).max(stateful);
    assert!(most + OTHER_CACHES < limit(), "{report}");
    assert!(most > idle + 60, "the caches are full: {report}");
}
