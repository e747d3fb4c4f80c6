//! The protos against the contract, and the routes against the protos.

use std::collections::BTreeSet;

use prost_reflect::{
    DescriptorPool, DynamicMessage, MethodDescriptor, ReflectMessage, Value as ProtoValue,
};
use tonic_reflection::pb::{v1, v1alpha};

use super::*;
use crate::{proto::DESCRIPTORS, transport::rest};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

const SERVICES: [&str; 2] =
    ["chainguard.platform.oidc.SecurityTokenService", "octosts.v1.CheckService"];

fn methods() -> Vec<MethodDescriptor> {
    SERVICES
        .iter()
        .flat_map(|name| pool().get_service_by_name(name).unwrap().methods().collect::<Vec<_>>())
        .collect()
}

/// The (HTTP method, path) pairs of a rule and of those added to it.
fn bindings(rule: &DynamicMessage) -> Vec<(String, String)> {
    let verb = rule
        .descriptor()
        .oneofs()
        .next()
        .unwrap()
        .fields()
        .find(|field| rule.has_field(field))
        .unwrap();
    let path = rule.get_field(&verb).as_str().unwrap().to_owned();
    let mut all = vec![(verb.name().to_uppercase(), path)];
    if let ProtoValue::List(more) = rule.get_field_by_name("additional_bindings").unwrap().as_ref()
    {
        all.extend(more.iter().flat_map(|rule| bindings(rule.as_message().unwrap())));
    }
    all
}

fn http_options() -> Vec<(String, String, String)> {
    let http = pool().get_extension_by_name("google.api.http").unwrap();
    let of_method = |method: MethodDescriptor| {
        let options = method.options();
        let rule = options.get_extension(&http).as_message().unwrap().clone();
        let name = method.name().to_owned();
        bindings(&rule).into_iter().map(move |(verb, path)| (name.clone(), verb, path))
    };
    methods().into_iter().flat_map(of_method).collect()
}

#[test]
fn the_options_are_the_contracts() {
    let expected = [
        ("Exchange", "POST", "/sts/exchange"),
        ("Exchange", "GET", "/sts/exchange"),
        ("ExchangeRefreshToken", "POST", "/sts/exchange_refresh_token"),
        ("Check", "POST", "/sts/check"),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(http_options(), expected);
}

#[tokio::test]
async fn the_routes_are_those_of_the_options() {
    let server = Server::start(Settings::default()).await;
    let options: BTreeSet<_> =
        http_options().into_iter().map(|(_, verb, path)| (verb, path)).collect();
    let served = [rest::EXCHANGE, rest::EXCHANGE_REFRESH_TOKEN, rest::CHECK];
    assert_eq!(
        options.iter().map(|(_, path)| path.as_str()).collect::<BTreeSet<_>>(),
        served.into()
    );
    for path in served {
        for verb in ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
            let status = server.http1(&format!("{verb} {path}"), "").await.status;
            let exists = options.contains(&(verb.to_owned(), path.to_owned()));
            assert_eq!(!matches!(status, 404 | 405), exists, "{verb} {path}: {status}");
        }
    }
}

/// `NAME TYPE NUMBER`, `*` where repeated, `!` where deprecated.
fn fields(message: &str) -> Vec<String> {
    let describe = |field: prost_reflect::FieldDescriptor| {
        let kind = format!("{:?}", field.kind()).to_lowercase();
        let many = if field.is_list() { "*" } else { "" };
        let old = if field.field_descriptor_proto().options.as_ref().is_some_and(|o| o.deprecated())
        {
            "!"
        } else {
            ""
        };
        format!("{} {kind}{many}{old} {}", field.name(), field.number())
    };
    let message = pool().get_message_by_name(message).unwrap();
    message.fields().map(describe).collect()
}

fn contract_fields(message: &str) -> Vec<String> {
    fields(&format!("chainguard.platform.oidc.{message}"))
}

#[test]
fn what_a_check_asks_can_be_sent_to_an_exchange() {
    let exchange: Vec<_> = contract_fields("ExchangeRequest")
        .into_iter()
        .map(|field| field.replace('!', ""))
        .collect();
    for field in fields("octosts.v1.CheckRequest") {
        assert!(exchange.contains(&field), "{field}");
    }
}

#[test]
fn the_messages_are_the_contracts() {
    let exchange = [
        "aud string* 1",
        "scope string! 2",
        "identity string 4",
        "cap string* 5",
        "identity_provider string 7",
        "scopes string* 8",
    ];
    assert_eq!(contract_fields("ExchangeRequest"), exchange);
    let refresh = ["aud string* 1", "scope string! 2", "cap string* 3", "scopes string* 4"];
    assert_eq!(contract_fields("ExchangeRefreshTokenRequest"), refresh);
    let token = ["token string 1", "refresh_token string 2", "expiry google.protobuf.timestamp 3"];
    assert_eq!(contract_fields("RawToken").map_type(), token);
    let raw = "chainguard.platform.oidc.rawtoken";
    assert_eq!(
        contract_fields("TokenPair").map_type(),
        [format!("token {raw} 1"), format!("refresh_token {raw} 2")]
    );
    let request = pool().get_message_by_name("chainguard.platform.oidc.ExchangeRequest").unwrap();
    assert_eq!(request.reserved_names().collect::<Vec<_>>(), ["cluster", "include_upstream_token"]);
    assert_eq!(request.reserved_ranges().collect::<Vec<_>>(), [3..4, 6..7]);
}

trait MapType {
    fn map_type(self) -> Vec<String>;
}

impl MapType for Vec<String> {
    /// `message(NAME)` as `NAME`.
    fn map_type(self) -> Vec<String> {
        self.iter()
            .map(|text| {
                text.replace("messagedescriptor(", "").replace("message(", "").replace(')', "")
            })
            .collect()
    }
}

#[test]
fn capabilities_refer_to_their_resource() {
    let extension = pool().get_extension_by_name("google.api.resource_reference").unwrap();
    for message in ["ExchangeRequest", "ExchangeRefreshTokenRequest"] {
        let message =
            pool().get_message_by_name(&format!("chainguard.platform.oidc.{message}")).unwrap();
        let options = message.get_field_by_name("cap").unwrap().options();
        let reference = options.get_extension(&extension);
        let kind = reference.as_message().unwrap().get_field_by_name("type").unwrap().into_owned();
        assert_eq!(kind.as_str(), Some("chainguard.capabilities/Capability"));
    }
}

macro_rules! reflects {
    ($test:ident, $version:ident) => {
        #[tokio::test]
        async fn $test() {
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let server = Server::start(Settings::default()).await;
            let mut client = ServerReflectionClient::new(server.channel().await);
            let symbol = "chainguard.platform.oidc.SecurityTokenService".to_owned();
            let asked = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol(symbol),
            ];
            let asked = asked.map(|message| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message),
            });
            let mut replies = client
                .server_reflection_info(futures_util::stream::iter(asked))
                .await
                .unwrap()
                .into_inner();
            let listed = replies.message().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::ListServicesResponse(listed) = listed else {
                panic!("{listed:?}")
            };
            let names: BTreeSet<_> =
                listed.service.iter().map(|service| service.name.as_str()).collect();
            for name in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
                assert!(names.contains(name), "{names:?}");
            }
            let file = replies.message().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::FileDescriptorResponse(file) = file else { panic!("{file:?}") };
            let file = &file.file_descriptor_proto[0];
            assert!(
                file.windows(13).any(|part| part == b"/sts/exchange"),
                "the http options are gone"
            );
        }
    };
}

reflects!(reflection_v1_serves_the_http_options, v1);
reflects!(reflection_v1alpha_serves_the_http_options, v1alpha);
