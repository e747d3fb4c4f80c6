//! A caller on both wires.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use octo_sts::proto::{
    octosts::v1::{
        CheckRequest, CheckResponse, Condition, KubernetesIdentity,
        check_service_client::CheckServiceClient,
    },
    oidc::{ExchangeRequest, RawToken, security_token_service_client::SecurityTokenServiceClient},
    rpc,
};
use prost::Message;
use serde_json::{Value, json};
use tonic::transport::Channel;

/// One question.
#[derive(Debug, Clone)]
pub struct Ask {
    pub scope: String,
    pub identity: String,
    /// The `authorization` header, if any.
    pub authorization: Option<String>,
    /// More scopes.
    pub scopes: Vec<String>,
    pub cap: Vec<String>,
}

impl Ask {
    pub fn new(scope: &str, identity: &str, token: &str) -> Self {
        Self {
            scope: scope.into(),
            identity: identity.into(),
            authorization: Some(format!("Bearer {token}")),
            scopes: Vec::new(),
            cap: Vec::new(),
        }
    }
}

/// What both wires said.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub grpc: Answer,
    pub rest: Answer,
}

/// What one wire said.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The gRPC code, 0 for a grant.
    pub code: i32,
    /// `ErrorInfo.reason`, empty for a grant.
    pub reason: String,
    pub message: String,
    /// `ErrorInfo.metadata.failed`.
    pub failed: Vec<String>,
    /// `ErrorInfo.metadata.may_have_minted`.
    pub may_have_minted: Option<String>,
    pub conditions: Vec<Condition>,
    pub retry_after: Option<Duration>,
    /// The token, of a grant.
    pub token: String,
    /// `X-Request-Id`.
    pub request_id: String,
}

/// What a check said, whichever way it came: a reply, or the error that an exchange would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The reply, for callers who are known.
    pub reply: Option<CheckResponse>,
    /// The error, for others.
    pub error: Option<Answer>,
    /// `X-Request-Id`.
    pub request_id: String,
}

impl Check {
    /// The reason, empty for a grant.
    pub fn reason(&self) -> &str {
        match (&self.reply, &self.error) {
            (Some(reply), None) => &reply.reason,
            (None, Some(error)) => &error.reason,
            both => panic!("neither a reply nor an error: {both:?}"),
        }
    }

    /// The reply.
    pub fn reply(&self) -> &CheckResponse {
        self.reply.as_ref().unwrap_or_else(|| panic!("{:?}", self.error))
    }

    fn of(request_id: String, outcome: Result<CheckResponse, Answer>) -> Self {
        let (reply, error) = match outcome {
            Ok(reply) => (Some(reply), None),
            Err(error) => (None, Some(error.shared())),
        };
        if let Some(reply) = &reply {
            assert_eq!(
                reply.granted,
                reply.reason.is_empty() && reply.message.is_empty(),
                "{reply:?}"
            );
            assert_eq!(reply.granted, !reply.permissions.is_empty(), "{reply:?}");
        }
        Self { reply, error, request_id }
    }

    /// Reads a REST reply as the contract has it.
    pub fn of_rest(reply: &Reply) -> Self {
        assert_eq!(reply.headers["cache-control"], "no-store");
        let request_id = text(reply.headers.get("x-request-id"));
        Self::of(
            request_id,
            if reply.status == 200 {
                Ok(check_response(&reply.json()))
            } else {
                Err(Answer::of_rest(reply))
            },
        )
    }

    /// What both wires must say alike.
    fn shared(&self) -> Self {
        Self { request_id: String::new(), ..self.clone() }
    }

    /// Agrees with what an exchange answered: granted if and only if it was, refused for the same
    /// reason in the same words, and the same is shown of the policy.
    pub fn assert_agrees(&self, answer: &Answer) {
        if let Some(error) = &self.error {
            assert_eq!(error, &answer.shared());
            return;
        }
        let reply = self.reply();
        assert_eq!(
            (reply.granted, &reply.reason, &reply.message),
            (answer.code == 0, &answer.reason, &answer.message)
        );
        assert!(
            ![4, 8, 13, 14, 16, 3].contains(&answer.code),
            "a check told {} in a reply",
            answer.reason
        );
        let failed = reply.conditions.iter().filter(|condition| !condition.satisfied);
        assert_eq!(
            failed.map(|condition| &condition.field).collect::<Vec<_>>(),
            answer.failed.iter().collect::<Vec<_>>()
        );
        for condition in &answer.conditions {
            assert!(reply.conditions.contains(condition), "{condition:?} is not in {reply:?}");
        }
    }
}

/// Proto JSON of the message, no field of it left out but the optional ones, and none added.
fn check_response(json: &Value) -> CheckResponse {
    let names =
        json.as_object().unwrap().keys().map(String::as_str).filter(|name| *name != "kubernetes");
    let wanted = ["conditions", "granted", "message", "permissions", "reason", "repositories"];
    assert_eq!(names.collect::<Vec<_>>(), wanted);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let condition = |json: &Value| {
        let field = |name: &str| json.get(name).map(text);
        let known = ["field", "got", "hint", "satisfied", "wanted"];
        assert!(
            json.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())),
            "{json}"
        );
        Condition {
            field: field("field").unwrap(),
            satisfied: json["satisfied"].as_bool().unwrap(),
            got: field("got"),
            wanted: field("wanted"),
            hint: field("hint"),
        }
    };
    CheckResponse {
        granted: json["granted"].as_bool().unwrap(),
        reason: text(&json["reason"]),
        message: text(&json["message"]),
        conditions: json["conditions"].as_array().unwrap().iter().map(condition).collect(),
        permissions: json["permissions"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), text(v)))
            .collect(),
        repositories: json["repositories"].as_array().unwrap().iter().map(text).collect(),
        kubernetes: json.get("kubernetes").map(|json| KubernetesIdentity {
            namespace: text(&json["namespace"]),
            service_account: text(&json["serviceAccount"]),
            pod: text(&json["pod"]),
            node: text(&json["node"]),
        }),
    }
}

impl Outcome {
    /// The reason, empty for a grant.
    pub fn reason(&self) -> &str {
        &self.rest.reason
    }

    /// The tokens of a grant.
    pub fn tokens(&self) -> [&str; 2] {
        assert_eq!(self.reason(), "", "{}", self.rest.message);
        [&self.grpc.token, &self.rest.token]
    }
}

/// A raw REST reply.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Connections of its own to one server.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: HttpClient<HttpConnector, Full<Bytes>>,
    grpc: SecurityTokenServiceClient<Channel>,
    checks: CheckServiceClient<Channel>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let base = format!("http://{address}");
        let channel = Channel::from_shared(base.clone()).unwrap().connect_lazy();
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        let checks = CheckServiceClient::new(channel.clone());
        Self { base, http, grpc: SecurityTokenServiceClient::new(channel), checks }
    }

    /// Asks on both wires, which must agree on everything but the token and the request's id.
    pub async fn exchange(&self, ask: &Ask) -> Outcome {
        let (grpc, rest) = (self.grpc(ask).await, self.rest(ask).await);
        assert_eq!(grpc.shared(), rest.shared(), "the wires disagree about {ask:?}");
        Outcome { grpc, rest }
    }

    /// Asks over gRPC.
    pub async fn grpc(&self, ask: &Ask) -> Answer {
        #[expect(deprecated, reason = "callers still send the singular scope")]
        let message = ExchangeRequest {
            scope: ask.scope.clone(),
            identity: ask.identity.clone(),
            scopes: ask.scopes.clone(),
            cap: ask.cap.clone(),
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        if let Some(value) = &ask.authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        Answer::of_grpc(self.grpc.clone().exchange(request).await)
    }

    /// Asks over gRPC with a message and metadata of the caller's making.
    pub async fn grpc_raw(&self, request: tonic::Request<ExchangeRequest>) -> Answer {
        Answer::of_grpc(self.grpc.clone().exchange(request).await)
    }

    /// Asks over REST, by a GET.
    pub async fn rest(&self, ask: &Ask) -> Answer {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("scope", &ask.scope)
            .append_pair("identity", &ask.identity)
            .extend_pairs(ask.scopes.iter().map(|scope| ("scopes", scope)))
            .extend_pairs(ask.cap.iter().map(|cap| ("cap", cap)))
            .finish();
        let headers: Vec<_> =
            ask.authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let reply = self.send(Method::GET, &format!("/sts/exchange?{query}"), &headers, "").await;
        Answer::of_rest(&reply)
    }

    /// Asks on both wires whether it would be granted; they must agree.
    pub async fn check(&self, ask: &Ask) -> Check {
        let [grpc, rest] = self.check_each(ask).await;
        assert_ne!(grpc.request_id, rest.request_id);
        grpc
    }

    /// As [`Client::check`], each wire's own.
    pub async fn check_each(&self, ask: &Ask) -> [Check; 2] {
        let (grpc, rest) = (self.check_grpc(ask).await, self.check_rest(ask).await);
        assert_eq!(grpc.shared(), rest.shared(), "the wires disagree about a check of {ask:?}");
        [grpc, rest]
    }

    /// Asks over gRPC whether it would be granted.
    pub async fn check_grpc(&self, ask: &Ask) -> Check {
        let Ask { scope, identity, scopes, cap, .. } = ask.clone();
        let message = CheckRequest { scope, identity, scopes, cap };
        let mut request = tonic::Request::new(message);
        if let Some(value) = &ask.authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        self.check_raw(request).await
    }

    /// Asks for a check with a message and metadata of the caller's making.
    pub async fn check_raw(&self, request: tonic::Request<CheckRequest>) -> Check {
        match self.checks.clone().check(request).await {
            Ok(reply) => {
                Check::of(text(reply.metadata().get("x-request-id")), Ok(reply.into_inner()))
            }
            Err(status) => {
                let error = Answer::of_status(&status);
                Check::of(error.request_id.clone(), Err(error))
            }
        }
    }

    /// Asks over REST whether it would be granted, by a POST of JSON.
    pub async fn check_rest(&self, ask: &Ask) -> Check {
        let Ask { scope, identity, scopes, cap, .. } = ask;
        let body = json!({"scope": scope, "identity": identity, "scopes": scopes, "cap": cap});
        let body = body.to_string();
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(ask.authorization.iter().map(|value| ("authorization", value.as_str())));
        Check::of_rest(&self.send(Method::POST, "/sts/check", &headers, &body).await)
    }

    /// Any request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply =
            self.http.request(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap();
        let (head, body) = reply.into_parts();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

fn text<V: AsRef<[u8]>>(value: Option<&V>) -> String
where
{
    value.map(|value| String::from_utf8_lossy(value.as_ref()).into_owned()).unwrap_or_default()
}

impl Answer {
    /// What must be the same on both wires: all but the token, the request's id and how long to
    /// wait.
    pub fn shared(&self) -> Self {
        let retry_after = self.retry_after.map(|_| Duration::ZERO);
        Self { token: String::new(), request_id: String::new(), retry_after, ..self.clone() }
    }

    fn granted(token: String) -> Self {
        assert!(!token.is_empty());
        Self { token, ..Self::refused(0, "", &[]) }
    }

    fn refused(code: i32, message: &str, details: &[(String, Vec<u8>)]) -> Self {
        let mut answer = Self {
            code,
            reason: String::new(),
            message: message.into(),
            failed: Vec::new(),
            may_have_minted: None,
            conditions: Vec::new(),
            retry_after: None,
            token: String::new(),
            request_id: String::new(),
        };
        for (url, value) in details {
            match url.rsplit('/').next().unwrap() {
                "google.rpc.ErrorInfo" => {
                    let info = rpc::ErrorInfo::decode(value.as_slice()).unwrap();
                    assert_eq!(info.domain, "octo-sts");
                    answer.reason = info.reason;
                    answer.may_have_minted = info.metadata.get("may_have_minted").cloned();
                    let failed =
                        info.metadata.get("failed").map(String::as_str).unwrap_or_default();
                    answer.failed = failed
                        .split(',')
                        .filter(|field| !field.is_empty())
                        .map(str::to_owned)
                        .collect();
                }
                "google.rpc.RetryInfo" => {
                    let info = rpc::RetryInfo::decode(value.as_slice()).unwrap();
                    answer.retry_after =
                        info.retry_delay.map(|delay| Duration::from_secs(delay.seconds as u64));
                }
                "octosts.v1.Condition" => {
                    answer.conditions.push(Condition::decode(value.as_slice()).unwrap())
                }
                other => panic!("a detail of an unknown type: {other}"),
            }
        }
        answer
    }

    /// Reads a gRPC reply as the contract has it.
    fn of_grpc(reply: Result<tonic::Response<RawToken>, tonic::Status>) -> Self {
        match reply {
            Ok(reply) => {
                let request_id = text(reply.metadata().get("x-request-id"));
                Self { request_id, ..Self::granted(reply.into_inner().token) }
            }
            Err(status) => Self::of_status(&status),
        }
    }

    fn of_status(status: &tonic::Status) -> Self {
        let details = rpc::Status::decode(status.details()).unwrap();
        let details: Vec<_> =
            details.details.into_iter().map(|any| (any.type_url, any.value)).collect();
        let request_id = text(status.metadata().get("x-request-id"));
        Self { request_id, ..Self::refused(status.code() as i32, status.message(), &details) }
    }

    /// Reads a REST reply as the contract has it.
    pub fn of_rest(reply: &Reply) -> Self {
        let request_id = text(reply.headers.get("x-request-id"));
        assert_eq!(reply.headers["cache-control"], "no-store");
        let body = reply.json();
        if reply.status == 200 {
            return Self {
                request_id,
                ..Self::granted(body["token"].as_str().unwrap().to_owned())
            };
        }
        let code = i32::try_from(body["code"].as_i64().unwrap()).unwrap();
        let mut answer = Self::refused(code, body["message"].as_str().unwrap(), &[]);
        answer.request_id = request_id;
        for detail in body["details"].as_array().unwrap() {
            answer.read_json(detail);
        }
        if let Some(wait) = reply.headers.get("retry-after") {
            answer.retry_after = Some(Duration::from_secs(wait.to_str().unwrap().parse().unwrap()));
        }
        answer
    }

    fn read_json(&mut self, detail: &Value) {
        let field = |name: &str| detail[name].as_str().map(str::to_owned);
        match detail["@type"].as_str().unwrap().rsplit('/').next().unwrap() {
            "google.rpc.ErrorInfo" => {
                self.reason = field("reason").unwrap();
                self.may_have_minted =
                    detail["metadata"]["may_have_minted"].as_str().map(str::to_owned);
                let failed = detail["metadata"]["failed"].as_str().unwrap_or_default();
                self.failed = failed
                    .split(',')
                    .filter(|field| !field.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            "octosts.v1.Condition" => self.conditions.push(Condition {
                field: field("field").unwrap(),
                satisfied: detail["satisfied"].as_bool().unwrap_or_default(),
                got: field("got"),
                wanted: field("wanted"),
                hint: field("hint"),
            }),
            "google.rpc.RetryInfo" => {}
            other => panic!("a detail of an unknown type: {other}"),
        }
    }
}
