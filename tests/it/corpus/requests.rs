//! The contract of requests: `requests.yaml`. What a case writes in several ways must mean the same
//! in each: as a message, as a query, as a form, as JSON.

use octo_sts::proto::{octosts::v1::CheckRequest, oidc::ExchangeRequest};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::metadata::AsciiMetadataValue;

use super::{Expected, Judge, StandIns, Wire, http_status, load, setup};
use crate::harness::{Answer, Check, Reply, World};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// `authorization`, as often as it is sent.
    #[serde(default = "bearer")]
    authorization: Vec<String>,
    #[serde(default)]
    grpc: Option<Message>,
    #[serde(default)]
    rest: Vec<Rest>,
    expect: String,
    /// What GitHub is asked for.
    #[serde(default = "permissions")]
    permissions: Value,
    #[serde(default = "repositories")]
    repositories: Value,
}

fn permissions() -> Value {
    json!({"issues": "write"})
}

fn repositories() -> Value {
    json!(["hello"])
}

/// One header with the token that satisfies every policy of this world.
fn bearer() -> Vec<String> {
    vec!["Bearer ${TOKEN}".to_owned()]
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Message {
    aud: Vec<String>,
    scope: String,
    identity: String,
    cap: Vec<String>,
    identity_provider: String,
    scopes: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    query: String,
    /// The content type.
    #[serde(default, rename = "type")]
    content_type: Option<String>,
    #[serde(default)]
    body: String,
    /// The HTTP status of an answer that has no error of ours.
    #[serde(default)]
    status: Option<u16>,
}

fn get() -> String {
    "GET".to_owned()
}

/// The message of an exchange is one of a check.
async fn check_over_grpc(world: &World, authorization: &[String], message: &Message) -> Check {
    let Message { aud, scope, identity, cap, identity_provider, scopes } = message.clone();
    #[expect(deprecated, reason = "callers still send the singular scope")]
    let message = ExchangeRequest { aud, scope, identity, cap, identity_provider, scopes };
    let message = CheckRequest::decode(message.encode_to_vec().as_slice()).unwrap();
    world.client.check_raw(with(authorization, message)).await
}

fn with<T>(authorization: &[String], message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    for value in authorization {
        request
            .metadata_mut()
            .append("authorization", AsciiMetadataValue::try_from(value.as_str()).unwrap());
    }
    request
}

async fn over_grpc(world: &World, authorization: &[String], message: &Message) -> Answer {
    let Message { aud, scope, identity, cap, identity_provider, scopes } = message.clone();
    #[expect(deprecated, reason = "callers still send the singular scope")]
    let message = ExchangeRequest { aud, scope, identity, cap, identity_provider, scopes };
    world.client.grpc_raw(with(authorization, message)).await
}

async fn send(world: &World, authorization: &[String], rest: &Rest, path: &str) -> Reply {
    let mut headers: Vec<_> =
        authorization.iter().map(|value| ("authorization", value.as_str())).collect();
    headers.extend(rest.content_type.as_deref().map(|value| ("content-type", value)));
    let path = format!("{path}?{}", rest.query);
    world.client.send(rest.method.parse().unwrap(), &path, &headers, &rest.body).await
}

/// The answer, or `None` if the status was all that counts.
async fn over_rest(world: &World, authorization: &[String], rest: &Rest) -> Option<Answer> {
    let reply = send(world, authorization, rest, "/sts/exchange").await;
    if let Some(status) = rest.status {
        assert_eq!(reply.status, status);
        return None;
    }
    let answer = Answer::of_rest(&reply);
    assert_eq!(reply.status, http_status(answer.code));
    if answer.code == 0 {
        let json = reply.json();
        let (token, get) = (json["token"].clone(), rest.method == "GET");
        assert_eq!(json["access_token"], if get { token } else { Value::Null });
        assert_eq!(json["token_type"], if get { json!("Bearer") } else { Value::Null });
        assert_eq!(json["expires_in"].is_u64(), get);
        assert!(json["expiry"].is_string() && json["refreshToken"] == "");
    }
    Some(answer)
}

/// Every way in which the case asks must have the same answer.
async fn run(judge: &mut Judge<'_>, case: &Case, expected: &Expected) {
    let world = judge.world;
    let pairs = case.rest.iter().map(Some).chain(case.rest.is_empty().then_some(None));
    for rest in pairs {
        let _naming = super::Naming(&case.name);
        let before = world.github.minted_count();
        if let Some(rest @ Rest { status: Some(_), .. }) = rest {
            over_rest(world, &case.authorization, rest).await;
            assert_eq!(world.github.minted_count(), before, "{}", case.name);
            continue;
        }
        let answer = async |wire| match (wire, &case.grpc, rest) {
            (Wire::Grpc, Some(message), _) | (Wire::Rest, Some(message), None) => {
                over_grpc(world, &case.authorization, message).await
            }
            (_, _, Some(rest)) => over_rest(world, &case.authorization, rest).await.unwrap(),
            (_, None, None) => panic!("{} asks nothing", case.name),
        };
        let wrong = judge.hold(&case.name, expected, answer).await;
        judge.wrong.extend(wrong);
        check(world, case, rest).await;
    }
}

/// What is asked of an exchange by a message or a POST can be asked of a check, and is read alike.
async fn check(world: &World, case: &Case, rest: Option<&Rest>) {
    let before = world.github.minted_count();
    let checked = match (rest, &case.grpc) {
        (Some(rest), _) if rest.method == "POST" => {
            let reply = send(world, &case.authorization, rest, "/sts/check").await;
            Check::of_rest(&reply)
        }
        (None, Some(message)) => check_over_grpc(world, &case.authorization, message).await,
        _ => return,
    };
    assert_eq!(world.github.minted_count(), before, "a check minted");
    let answer = match (rest, &case.grpc) {
        (Some(rest), _) => over_rest(world, &case.authorization, rest).await.unwrap(),
        (None, Some(message)) => over_grpc(world, &case.authorization, message).await,
        (None, None) => return,
    };
    checked.assert_agrees(&answer);
}

#[tokio::test]
async fn requests_are_read_as_the_corpus_says() {
    let setup = setup().await;
    let policy = "issuer: ${ISSUER}\nsubject_pattern: '.*'\npermissions: {issues: write}\n";
    for name in ["ci", "nested/ci.v1", "-", "..."] {
        setup.policy("hello", name, policy);
    }
    setup.policy(".github", "ci", &format!("{policy}repositories: [hello]\n"));
    let wide = policy.replace("{issues: write}", "{contents: read, issues: write}");
    setup.policy("hello", "wide", &wide);
    setup.policy(".github", "wide", &wide);
    setup.policy(".github", "two", &format!("{wide}repositories: [hello, other]\n"));
    let world = setup.start().await;
    let token = world.token(json!({}));
    let altered = world.token(json!({"iss": "https://nobody.example"}));
    let stand_ins = StandIns::default().with("TOKEN", &token).with("UNTRUSTED", altered);
    let mut cases: Vec<Case> = load("requests.yaml", &stand_ins);
    let mut judge = Judge::new(&world, &["octo-org/hello", "octo-org"]).await;
    for case in &mut cases {
        for value in &mut case.authorization {
            *value = stand_ins.fill(value);
        }
        let expected = Expected::new(&case.expect, &case.permissions, &case.repositories);
        run(&mut judge, case, &expected).await;
    }
    judge.finish();
}
