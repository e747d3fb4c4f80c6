//! What the server says of its own HTTP routes.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{reason::Reason, transport::pages::OPENAPI};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// What stands in backticks.
fn ticked(text: &Value) -> BTreeSet<String> {
    text.as_str().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().unwrap().iter()
}

#[tokio::test]
async fn it_is_served() {
    let server = Server::start(Settings::default()).await;
    let reply = server.http1("GET /openapi.json", "").await;
    assert_eq!((reply.status, reply.json()), (200, document()));
}

#[test]
fn every_reason_stands_where_its_status_is_described() {
    let document = document();
    let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(document["components"]["schemas"]["Reason"]["enum"], serde_json::json!(words));
    let mut by_status: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (reason, _, status) in reply::table() {
        by_status.entry(status.to_string()).or_default().insert(reason.to_string());
    }
    let mut described = BTreeSet::new();
    for (_, item) in members(&document["paths"]) {
        for (_, operation) in members(item) {
            for (status, response) in members(&operation["responses"]) {
                let Some(pointer) =
                    response["$ref"].as_str().and_then(|link| link.strip_prefix('#'))
                else {
                    continue;
                };
                let response =
                    document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing"));
                if let Some(reasons) = by_status.get(status) {
                    assert_eq!(&ticked(&response["description"]), reasons, "{status}");
                    described.insert(status.clone());
                }
            }
        }
    }
    assert_eq!(described, by_status.into_keys().collect(), "statuses that no operation describes");
}

#[tokio::test]
async fn every_path_has_the_methods_that_it_is_said_to_have() {
    let server = Server::start(Settings::default()).await;
    for (path, item) in members(&document()["paths"]) {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let reply = server.http1(&format!("{method} {path}"), "").await;
            let described =
                item.get(method.to_lowercase()).map(|operation| &operation["responses"]);
            let Some(responses) = described else {
                assert_eq!(reply.status, 405, "{method} {path}");
                continue;
            };
            assert!(
                responses.get(reply.status.to_string()).is_some(),
                "{method} {path}: {}",
                reply.status
            );
            assert!(!matches!(reply.status, 404 | 405), "{method} {path}: {}", reply.status);
        }
    }
}
