use std::convert::Infallible;

use axum::{body::Body, middleware::from_fn_with_state, routing::any};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::{Code, Status, client::Grpc};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceExt;

use super::*;
use crate::proto::{
    octosts::v1::{CheckRequest, check_service_client::CheckServiceClient},
    oidc::{
        ExchangeRefreshTokenRequest, ExchangeRequest, RawToken,
        security_token_service_client::SecurityTokenServiceClient,
    },
    rpc,
};

fn reason(status: &Status) -> (Code, String) {
    let details = rpc::Status::decode(status.details()).unwrap().details;
    let info =
        details.iter().find(|any| any.type_url == "type.googleapis.com/google.rpc.ErrorInfo");
    let reason = info.map(|any| rpc::ErrorInfo::decode(any.value.as_slice()).unwrap().reason);
    (status.code(), reason.unwrap_or_default())
}

fn exchange_request(authorization: &[&str]) -> tonic::Request<ExchangeRequest> {
    let scopes = vec!["o/r".into()];
    let mut request =
        tonic::Request::new(ExchangeRequest { identity: "i".into(), scopes, ..Default::default() });
    for value in authorization {
        request.metadata_mut().append("authorization", value.parse().unwrap());
    }
    request
}

/// A call of any method with any bytes as its message.
async fn raw_call(server: &Server, path: &str, message: RawToken) -> Status {
    let mut client = Grpc::new(server.channel().await);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<RawToken, RawToken>::default();
    client.unary(tonic::Request::new(message), path.parse().unwrap(), codec).await.unwrap_err()
}

#[tokio::test]
async fn credentials_are_judged_alike_on_both_wires() {
    let server = Server::start(Settings::default()).await;
    let mut client = SecurityTokenServiceClient::new(server.channel().await);
    let mut checks = CheckServiceClient::new(server.channel().await);
    for (values, status, code, word) in [
        (&[][..], 401, 16, "CREDENTIAL_MISSING"),
        (&["Basic dTpw"], 401, 16, "CREDENTIAL_MISSING"),
        (&["Bearer a.b.c", "Bearer d.e.f"], 401, 16, "CREDENTIAL_AMBIGUOUS"),
        (&["Bearer a.b.c, d.e.f"], 401, 16, "CREDENTIAL_AMBIGUOUS"),
        (&["Bearer x"], 400, 3, "TOKEN_MALFORMED"),
        (&["x"], 400, 3, "TOKEN_MALFORMED"),
    ] {
        let refused = client.exchange(exchange_request(values)).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::from(code), word.to_owned()), "{values:?}");
        let request = exchange_request(values).map(|asked| CheckRequest {
            identity: asked.identity,
            scopes: asked.scopes,
            ..Default::default()
        });
        let refused = checks.check(request).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::from(code), word.to_owned()), "check {values:?}");
        let headers: String =
            values.iter().map(|value| format!("\nauthorization: {value}")).collect();
        let (exchange, check) = (rest::EXCHANGE, rest::CHECK);
        for (method, path, body) in [
            ("GET", exchange, ""),
            ("POST", exchange, ""),
            ("POST", exchange, r#"{"scope":"o"}"#),
            ("POST", exchange, "{"),
            ("POST", check, ""),
            ("POST", check, "{"),
        ] {
            let head =
                format!("{method} {path}?identity=i{headers}\ncontent-type: application/json");
            let reply = server.http1(&head, body).await;
            assert_eq!(
                reply.error(),
                error(status, code.into(), word),
                "{method} {path} {values:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_sts_reply_is_not_stored_and_has_an_id_of_ours() {
    let server = Server::start(Settings::default()).await;
    let mut seen = std::collections::HashSet::new();
    for head in [
        "GET /sts/exchange",
        "HEAD /sts/exchange",
        "POST /sts/check",
        "HEAD /sts/check",
        "POST /sts/exchange_refresh_token",
        "GET /sts/nope",
    ] {
        let reply = server.http1(&format!("{head}\nx-request-id: theirs"), "").await;
        assert_eq!(
            reply.headers.get_all("cache-control").iter().collect::<Vec<_>>(),
            ["no-store"],
            "{head}"
        );
        assert_eq!(reply.headers.get_all("x-request-id").iter().count(), 1);
        assert!(uuid::Uuid::parse_str(reply.header("x-request-id")).is_ok());
        assert!(seen.insert(reply.header("x-request-id").to_owned()), "{head}");
    }
    let mut client = SecurityTokenServiceClient::new(server.channel().await);
    let mut request = exchange_request(&[]);
    request.metadata_mut().insert("x-request-id", "theirs".parse().unwrap());
    let refused = client.exchange(request).await.unwrap_err();
    assert_eq!(refused.metadata().get("cache-control").unwrap(), "no-store");
    let mut checks = CheckServiceClient::new(server.channel().await);
    let unchecked = checks.check(CheckRequest::default()).await.unwrap_err();
    assert_eq!(unchecked.metadata().get("cache-control").unwrap(), "no-store");
    assert!(
        uuid::Uuid::parse_str(refused.metadata().get("x-request-id").unwrap().to_str().unwrap())
            .is_ok()
    );
}

#[tokio::test]
async fn only_get_and_post_exchange() {
    let server = Server::start(Settings::default()).await;
    for method in ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"] {
        let head = format!("{method} /sts/exchange?scope=o&identity=i\nauthorization: Bearer x");
        let reply = server.http1(&head, "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, "GET, POST"), "{method}");
        if method == "HEAD" {
            assert_eq!(reply.body, "");
        } else {
            assert_eq!(reply.error(), error(405, 12, "UNIMPLEMENTED"), "{method}");
        }
    }
}

#[tokio::test]
async fn only_post_checks() {
    let server = Server::start(Settings::default()).await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = server
            .http1(&format!("{method} /sts/check?scope=o&identity=i\nauthorization: Bearer x"), "")
            .await;
        assert_eq!((reply.status, reply.header("allow")), (405, "POST"), "{method}");
    }
}

#[tokio::test]
async fn refresh_tokens_are_not_issued() {
    let server = Server::start(Settings::default()).await;
    let mut client = SecurityTokenServiceClient::new(server.channel().await);
    let refused =
        client.exchange_refresh_token(ExchangeRefreshTokenRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::Unimplemented, "UNIMPLEMENTED".to_owned()));
    assert_eq!(
        server.http1("POST /sts/exchange_refresh_token", "").await.error(),
        error(501, 12, "UNIMPLEMENTED")
    );
    let reply = server.http1("GET /sts/exchange_refresh_token", "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn what_is_not_there_is_told_in_the_words_of_its_wire() {
    let server = Server::start(Settings::default()).await;
    let service = "/chainguard.platform.oidc.SecurityTokenService";
    for path in ["/x.Y/Z".to_owned(), "/sts/nope".to_owned(), format!("{service}/Nope")] {
        assert_eq!(
            raw_call(&server, &path, RawToken::default()).await.code(),
            Code::Unimplemented,
            "{path}"
        );
    }
    for path in ["/nope", "/sts/exchange/", "/sts", "//", "/STS/exchange"] {
        assert_eq!(
            server.http1(&format!("GET {path}"), "").await.error(),
            error(404, 5, ""),
            "{path}"
        );
    }
    for content_type in ["application/json", "application/grpc-web", "application/grpc+json"] {
        let head = format!("POST {service}/Exchange\ncontent-type: {content_type}");
        assert_eq!(
            server.http1(&head, "{}").await.error(),
            error(415, 3, "REQUEST_INVALID"),
            "{content_type}"
        );
    }
    let reply =
        server.http1(&format!("GET {service}/Exchange\ncontent-type: application/grpc"), "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn paths_and_credentials_have_one_spelling() {
    let server = Server::start(Settings::default()).await;
    for path in ["/sts%2Fexchange", "/sts//exchange", "/sts/exchange:now"] {
        let reply = server
            .http1(&format!("GET {path}?scope=o/r&identity=i\nauthorization: Bearer a.b.c"), "")
            .await;
        assert_eq!(reply.status, 404, "{path}");
    }
    for header in
        ["grpc-metadata-authorization", "grpcgateway-authorization", "proxy-authorization"]
    {
        let reply = server
            .http1(&format!("GET /sts/exchange?scope=o/r&identity=i\n{header}: Bearer a.b.c"), "")
            .await;
        assert_eq!(
            reply.json().pointer("/details/0/reason").unwrap(),
            "CREDENTIAL_MISSING",
            "{header}"
        );
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_the_callers_fault() {
    let server = Server::start(Settings::default()).await;
    let path = "/chainguard.platform.oidc.SecurityTokenService/Exchange";
    let invalid = (Code::InvalidArgument, "REQUEST_INVALID".to_owned());
    // A RawToken's expiry is the message's reserved field 3; its refresh token is `scope`.
    let huge = RawToken { refresh_token: "x".repeat(70_000), ..Default::default() };
    // A fault of the credential is told first.
    let missing = (Code::Unauthenticated, "CREDENTIAL_MISSING".to_owned());
    for path in [path, "/octosts.v1.CheckService/Check"] {
        assert_eq!(reason(&raw_call(&server, path, huge.clone()).await), missing, "{path}");
    }
    let refresh = path.replace("/Exchange", "/ExchangeRefreshToken");
    assert_eq!(reason(&raw_call(&server, &refresh, huge).await), invalid);
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2kuZXhhbXBsZSJ9.c2ln";
    let head =
        format!("POST {path}\nauthorization: Bearer {token}\ncontent-type: application/grpc");
    let head = head.as_str();
    let reply = server.http1(head, "\0\0\0\0\u{2}\u{a}\u{7f}").await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, "3"));
    // More messages than the one.
    let reply = server.http1(head, &"\0".repeat(100_000)).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, "3"), "{reply:?}");
}

#[tokio::test]
async fn rest_is_served_over_http2_in_the_clear() {
    let server = Server::start(Settings::default()).await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{}/sts/exchange", server.address);
    let reply =
        client.send_request(http::Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["code"], 16);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let server = Server::start(Settings::default()).await;
    let body = format!(r#"{{"scope":"{}"}}"#, "x".repeat(64 << 10));
    // The stub's credential fault comes first; the reply shows that the body did not end the
    // connection.
    assert_eq!(
        server.http1("POST /sts/exchange", &body).await.error(),
        error(401, 16, "CREDENTIAL_MISSING")
    );
}

#[tokio::test]
async fn the_front_page_suits_its_reader() {
    let server = Server::start(Settings::default()).await;
    let program = server.http1("GET /\naccept: */*", "").await;
    assert!(program.json()["msg"].as_str().unwrap().contains("/sts/exchange"));
    let browser = server.http1("GET /\naccept: application/xhtml+xml, Text/HTML;q=0.9", "").await;
    assert!(
        browser.header("content-type").starts_with("text/html") && browser.body.contains("<h1>")
    );
    assert!(browser.header("content-security-policy").contains("default-src 'none'"));
    assert_eq!(server.http1("POST /", "").await.error(), error(405, 12, "UNIMPLEMENTED"));
    for path in ["/livez", "/readyz", "/healthcheck"] {
        assert_eq!(server.http1(&format!("GET {path}"), "").await.status, 200, "{path}");
        assert_eq!(server.http1(&format!("HEAD {path}"), "").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_server_told_to_stop_is_alive_but_not_ready() {
    let stop = CancellationToken::new();
    let router = router(&app(stop.clone())).unwrap();
    stop.cancel();
    for (path, status) in [("/livez", 200), ("/healthcheck", 200), ("/readyz", 503)] {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(
            router.clone().oneshot(request).await.unwrap().status().as_u16(),
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn health_over_grpc_follows_readiness() {
    let server = Server::start(Settings::default()).await;
    let mut client = HealthClient::new(server.channel().await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "chainguard.platform.oidc.SecurityTokenService", "octosts.v1.CheckService"]
    {
        assert_eq!(client.check(ask(service)).await.unwrap().into_inner().status, 1, "{service}");
    }
    assert_eq!(client.check(ask("nope")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = client.watch(ask("nope")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status, 3);
    let mut watched = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    server.stop.cancel();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 2);
    assert!(watched.message().await.unwrap().is_none());
    drop((watched, unknown, client));
    timeout(PATIENCE, server.served).await.unwrap().unwrap().unwrap();
}

/// A router whose one path answers by what it is called.
fn misbehaving(app: &Arc<Serving>, grpc: bool) -> Router {
    let router = Router::new()
        .route("/slow", any(std::future::pending::<()>))
        .route("/panic", any(async || -> Infallible { panic!("as it does") }));
    if grpc {
        router.layer(from_fn_with_state(Arc::clone(app), layers::grpc_bounds))
    } else {
        router.layer(from_fn_with_state(Arc::clone(app), layers::rest_bounds))
    }
}

#[tokio::test]
async fn deadlines_and_panics_are_told_in_the_words_of_their_wire() {
    let app = app(CancellationToken::new());
    for (path, status, code, word) in
        [("/slow", 504, 4, "DEADLINE"), ("/panic", 500, 13, "INTERNAL")]
    {
        let request =
            || http::Request::get(path).header("grpc-timeout", "50m").body(Body::empty()).unwrap();
        let rest = misbehaving(&app, false).oneshot(request()).await.unwrap();
        assert_eq!(rest.status().as_u16(), status);
        let body = rest.into_body().collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&json["code"], &json["details"][0]["reason"]), (&code.into(), &word.into()));
        let grpc = misbehaving(&app, true).oneshot(request()).await.unwrap();
        assert_eq!(grpc.headers()["content-type"], "application/grpc");
        let refused = Status::from_header_map(grpc.headers()).unwrap();
        assert_eq!(reason(&refused), (Code::from(code), word.to_owned()));
    }
}
