//! Cases are data: what the contract allows and denies, asked of a real server on both wires.
//!
//! Each file in `tests/corpus` says how its cases read. Whatever is asked goes over gRPC and over
//! REST, and both must give the expected answer. A granted case has minted one token, with exactly
//! the permissions and repositories expected; a denied one has minted none, not even one to read a
//! policy with: those are minted before the first case.

mod differences;
mod issuers;
mod policies;
mod requests;
mod tokens;

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use http::Method;
use octo_sts::{
    admission::{self, Rate},
    clock::UnixTime,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::harness::{Answer, Ask, Check, Setup, World};

/// A file of the corpus.
fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "corpus", file].iter().collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap()
}

/// The cases of a file, values put for the stand-ins.
fn load<T: DeserializeOwned>(file: &str, stand_ins: &StandIns) -> Vec<T> {
    let options = serde_yaml::options! { budget: None };
    serde_yaml::from_str_with_options(&stand_ins.fill(&read(file)), options)
        .unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Values for `${NAME}`; `${NOW+5}` is a time in seconds, `${30*x}` a text repeated. What is not
/// known stays.
#[derive(Default)]
struct StandIns {
    now: i64,
    texts: BTreeMap<String, String>,
}

impl StandIns {
    fn at(now: UnixTime) -> Self {
        Self { now: now.as_secs(), texts: BTreeMap::new() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.texts.insert(name.to_owned(), value.into());
        self
    }

    fn fill(&self, text: &str) -> String {
        let mut parts = text.split("${");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let found =
                part.split_once('}').and_then(|(name, rest)| Some((self.value(name)?, rest)));
            match found {
                Some((value, rest)) => write!(filled, "{value}{rest}").unwrap(),
                None => write!(filled, "${{{part}").unwrap(),
            }
        }
        filled
    }

    fn value(&self, name: &str) -> Option<String> {
        if let Some((times, text)) = name.split_once('*') {
            return Some(text.repeat(times.parse().ok()?));
        }
        match name.strip_prefix("NOW") {
            Some("") => Some(self.now.to_string()),
            Some(offset) => Some((self.now + offset.parse::<i64>().ok()?).to_string()),
            None => self.texts.get(name).cloned(),
        }
    }
}

/// A world that does not mind many invalid tokens.
async fn setup() -> Setup {
    let mut setup = Setup::new().await;
    let wide = Rate::new(1_000_000, 1_000_000);
    setup.exchange().admission = admission::Settings {
        address: wide,
        caller: wide,
        owner: wide,
        process: wide,
        mints_per_minute: None,
    };
    setup.exchange().github_host = "github.com".into();
    setup
}

/// The answer that a case wants.
#[derive(Debug, Clone)]
struct Expected {
    /// `granted`, or code and reason: `16 TOKEN_EXPIRED`.
    verdict: String,
    /// The mint's body, where it is a grant.
    minted: Value,
    /// The conditions that failed.
    failed: Vec<String>,
    /// What the message has, each.
    says: Vec<String>,
}

impl Expected {
    /// `permissions` on `repositories`, an array or `all`, where the verdict is `granted`.
    fn new(verdict: &str, permissions: &Value, repositories: &Value) -> Self {
        let mut minted = json!({"permissions": permissions});
        if repositories.is_array() {
            minted["repositories"] = repositories.clone();
        }
        Self { verdict: verdict.to_owned(), minted, failed: Vec::new(), says: Vec::new() }
    }

    fn failing(self, failed: &[String]) -> Self {
        Self { failed: failed.to_vec(), ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Grpc,
    Rest,
}

const BOTH: [Wire; 2] = [Wire::Grpc, Wire::Rest];

/// Says in which case a panic came.
struct Naming<'a>(&'a str);

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the case {:?}", self.0);
        }
    }
}

/// Holds answers against what was expected, and keeps what was not.
struct Judge<'w> {
    world: &'w World,
    wrong: Vec<String>,
}

impl<'w> Judge<'w> {
    /// Asks in each scope for a policy that is not there, so that the tokens that read policies
    /// exist.
    async fn new(world: &'w World, scopes: &[&str]) -> Self {
        for scope in scopes {
            world.client.rest(&Ask::new(scope, "no-such-policy", &world.token(json!({})))).await;
        }
        Self { world, wrong: Vec::new() }
    }

    /// Asks on both wires: first whether it would be granted, and then for the token.
    async fn ask(&mut self, name: &str, expected: &Expected, ask: impl AsyncFn() -> Ask) {
        let answer = async |wire| {
            let check = self.check_first(wire, &ask().await).await;
            let ask = ask().await;
            let answer = match wire {
                Wire::Grpc => self.world.client.grpc(&ask).await,
                Wire::Rest => rest(self.world, &ask).await,
            };
            check.assert_agrees(&answer);
            compare_grant(&check, expected);
            answer
        };
        let wrong = self.hold(name, expected, answer).await;
        self.wrong.extend(wrong);
    }

    /// A check of what is to be asked. It mints nothing, not even to read policies with.
    async fn check_first(&self, wire: Wire, ask: &Ask) -> Check {
        let before = self.world.github.minted_count();
        let check = match wire {
            Wire::Grpc => self.world.client.check_grpc(ask).await,
            Wire::Rest => self.world.client.check_rest(ask).await,
        };
        assert_eq!(self.world.github.minted_count(), before, "a check minted");
        check
    }

    /// Holds the answers of both wires against what was expected.
    async fn hold(
        &self,
        name: &str,
        expected: &Expected,
        answer: impl AsyncFn(Wire) -> Answer,
    ) -> Vec<String> {
        let _naming = Naming(name);
        let mut answers = Vec::new();
        let mut wrong = Vec::new();
        for wire in BOTH {
            let before = self.world.github.minted_count();
            let got = answer(wire).await;
            wrong.extend(
                self.check(expected, &got, before)
                    .err()
                    .map(|why| format!("{name} ({wire:?}): {why}")),
            );
            answers.push(got);
        }
        if answers[0].shared() != answers[1].shared() {
            wrong.push(format!("{name}: the wires disagree: {answers:#?}"));
        }
        wrong
    }

    /// One answer, and what was minted for it since `before` tokens had been.
    fn check(&self, expected: &Expected, got: &Answer, before: usize) -> Result<(), String> {
        let verdict = if got.code == 0 {
            "granted".to_owned()
        } else {
            format!("{} {}", got.code, got.reason)
        };
        if verdict != expected.verdict {
            return Err(format!("{verdict} ({}), not {}", got.message, expected.verdict));
        }
        if let Some(missing) = expected.says.iter().find(|text| !got.message.contains(*text)) {
            return Err(format!("{:?} does not say {missing:?}", got.message));
        }
        if got.failed != expected.failed {
            return Err(format!("failed {:?}, not {:?}", got.failed, expected.failed));
        }
        let minted: Vec<_> =
            self.world.github.minted().drain(before..).map(|token| token.body).collect();
        let wanted = if got.code == 0 { vec![expected.minted.clone()] } else { Vec::new() };
        if minted != wanted {
            return Err(format!("minted {}, not {}", json!(minted), json!(wanted)));
        }
        let handed = self.world.github.token(&got.token).map(|token| token.body);
        if handed.as_ref() != wanted.first() {
            return Err(format!("handed over {handed:?}, not {wanted:?}"));
        }
        Ok(())
    }

    /// Nothing was wrong, and nobody was asked for what they do not know.
    fn finish(self) {
        assert!(
            self.wrong.is_empty(),
            "{} of the answers:\n{}",
            self.wrong.len(),
            self.wrong.join("\n")
        );
        assert!(
            self.world.github.unknown_requests().is_empty(),
            "{:?}",
            self.world.github.unknown_requests()
        );
        assert!(
            self.world.issuer.unknown_requests().is_empty(),
            "{:?}",
            self.world.issuer.unknown_requests()
        );
    }
}

/// What a check said of the token is what is expected of the mint.
fn compare_grant(check: &Check, expected: &Expected) {
    let Some(reply) = check.reply.as_ref().filter(|reply| reply.granted) else { return };
    assert_eq!(json!(reply.permissions), expected.minted["permissions"]);
    let repositories = expected.minted.get("repositories").cloned().unwrap_or(json!([]));
    assert_eq!(json!(reply.repositories), repositories);
    assert!(
        reply.conditions.len() >= 3 && reply.conditions.iter().all(|condition| condition.satisfied)
    );
}

/// Asks over REST, by a GET; the status must be that of the code.
async fn rest(world: &World, ask: &Ask) -> Answer {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("scope", &ask.scope)
        .append_pair("identity", &ask.identity)
        .finish();
    let headers: Vec<_> =
        ask.authorization.iter().map(|value| ("authorization", value.as_str())).collect();
    let reply =
        world.client.send(Method::GET, &format!("/sts/exchange?{query}"), &headers, "").await;
    let answer = Answer::of_rest(&reply);
    assert_eq!(reply.status, http_status(answer.code));
    answer
}

/// The usual table of gateways.
fn http_status(code: i32) -> u16 {
    match code {
        0 => 200,
        3 | 9 => 400,
        16 => 401,
        7 => 403,
        5 => 404,
        8 => 429,
        12 => 501,
        14 => 503,
        4 => 504,
        _ => 500,
    }
}

/// The names of a corpus file's cases: each stands in quotes at the start of its case.
fn names(file: &str) -> Vec<String> {
    let text = read(file);
    let marked = text.lines().filter_map(|line| line.strip_prefix("- "));
    let quoted = marked
        .filter_map(|case| case.trim_start_matches('{').strip_prefix("name: \"")?.split_once('"'));
    quoted.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn cases_have_names_of_their_own() {
    for file in ["policies.yaml", "tokens.yaml", "requests.yaml", "issuers.yaml"] {
        let mut names = names(file);
        assert!(names.len() > 10, "{file}");
        names.sort();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{file}: {twice:?}");
    }
}

#[test]
fn stand_ins_are_filled() {
    let stand_ins = StandIns::at(UnixTime::from_secs(100)).with("A", "b");
    assert_eq!(
        stand_ins.fill("${A} ${NOW} ${NOW+5} ${NOW-5} ${3*xy} ${B} ${ $"),
        "b 100 105 95 xyxyxy ${B} ${ $"
    );
}
