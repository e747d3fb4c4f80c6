//! Requests over both wires. An input is a query, a line break, one of `f`, `j` or another letter
//! for the body's type, and the body; it is also a protobuf message, a credential and an address.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use libfuzzer_sys::fuzz_target;
use octo_sts::{
    proto::oidc::ExchangeRequest,
    transport::fuzzing::{bearer, client_address, grpc, rest},
};
use octo_sts_fuzz::{cases, seed};
use prost::Message;
use serde_json::Value;

fn seeds() {
    for case in cases(include_str!("../../tests/corpus/requests.yaml")) {
        for request in case["rest"].as_array().into_iter().flatten() {
            let text = |name: &str| request[name].as_str().unwrap_or_default();
            let kind = if text("type").contains("form") { 'f' } else { 'j' };
            seed("request", [format!("{}\n{kind}{}", text("query"), text("body"))]);
        }
        let credentials = case["authorization"].as_array().into_iter().flatten();
        seed("request", credentials.filter_map(Value::as_str));
    }
    seed("request", ["203.0.113.1, [2001:db8::1]:443,::ffff:1.2.3.4", "Bearer a.b.c", "bEaReR\ta"]);
    let message = ExchangeRequest {
        identity: "ci".into(),
        scopes: vec!["octo-org/hello".into()],
        ..Default::default()
    };
    seed("request", [message.encode_to_vec()]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    header_fields(bytes);
    if let Ok(message) = ExchangeRequest::decode(bytes) {
        let given = (message.identity.clone(), message.scopes.clone());
        if let Ok((scope, identity)) = grpc(message) {
            assert_eq!(identity.as_str(), given.0);
            assert!(given.1.iter().all(|given| given.is_empty() || given.eq_ignore_ascii_case(&scope.to_string())));
        }
    }
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (query, rest) = bytes.split_at(at);
    let (kind, body) = rest.get(1..).and_then(<[u8]>::split_first).unwrap_or((&b'j', &[]));
    parameters(query, *kind, body);
});

fn parameters(query: &[u8], kind: u8, body: &[u8]) {
    let uri = [b"/sts/exchange?", query].concat();
    let content_type = match kind {
        b'f' => "application/x-www-form-urlencoded",
        b'j' => "application/json",
        _ => "text/plain",
    };
    let request = Request::post(uri.as_slice()).header(header::CONTENT_TYPE, content_type);
    let Ok((head, ())) = request.body(()).map(Request::into_parts) else { return };
    let Ok((scope, identity)) = rest(&head, Bytes::copy_from_slice(body)) else { return };
    // What other readers make of the same.
    let mut given: Vec<(String, String)> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    match kind {
        _ if body.is_empty() => {}
        b'f' => given.extend(url::form_urlencoded::parse(body).into_owned()),
        b'j' => given.extend(members(&serde_json::from_slice(body).unwrap())),
        _ => panic!("a body of no known type was taken"),
    }
    let values = |names: &[&str]| -> Vec<&str> {
        let named = given
            .iter()
            .filter(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
        named.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values(&["identity"]), [identity.as_str()]);
    let scopes = values(&["scope", "scopes"]);
    assert!(!scopes.is_empty());
    assert!(
        scopes.iter().all(|given| given.eq_ignore_ascii_case(&scope.to_string())),
        "{scopes:?} {scope}"
    );
}

fn members(message: &Value) -> Vec<(String, String)> {
    let texts = |value: &Value| match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(texts) => {
            texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    let members = message.as_object().unwrap().iter();
    members
        .flat_map(|(name, value)| texts(value).into_iter().map(|text| (name.clone(), text)))
        .collect()
}

fn header_fields(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(header::AUTHORIZATION, value.clone());
        headers.append("x-forwarded-for", value);
    }
    if let Ok(token) = bearer(&headers) {
        assert!(!token.is_empty() && token.trim() == token && !token.contains(','), "{token:?}");
        assert!(
            token.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)),
            "{token:?}"
        );
    }
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
    assert_eq!(client_address(&headers, peer, 0), peer);
    for hops in [1, 2, usize::MAX] {
        let address = client_address(&headers, peer, hops);
        assert_eq!(address, address.to_canonical());
    }
}
