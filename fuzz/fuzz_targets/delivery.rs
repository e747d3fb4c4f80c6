//! Webhook deliveries that are signed, and files of examples. An input is an event's name, a line
//! break and the body; the body is also a file of examples.
#![no_main]

use libfuzzer_sys::fuzz_target;
use octo_sts::{policy::examples::Examples, webhook::fuzzing::delivery};
use octo_sts_fuzz::seed;
use serde_json::Value;

fn seeds() {
    let changes = include_str!("../../tests/corpus/webhook/changes.json");
    let changes: Vec<(String, bool, Value)> = serde_json::from_str(changes).unwrap();
    seed("delivery", changes.iter().map(|(event, _, body)| format!("{event}\n{body}")));
    let sha = "a".repeat(40);
    let about = r#""repository":{"name":"r","owner":{"login":"o"}},"installation":{"id":1}"#;
    seed("delivery", [
        format!(r#"pull_request\n{{"action":"opened","pull_request":{{"number":1,"head":{{"sha":"{sha}"}}}},{about}}}"#),
        format!(r#"check_suite\n{{"action":"rerequested","check_suite":{{"head_sha":"{sha}"}},{about}}}"#),
    ]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (event, body) = bytes.split_at(at);
    let body = body.get(1..).unwrap_or_default();
    drop(Examples::parse(body));
    let Ok(event) = std::str::from_utf8(event) else { return };
    let Some(read) = delivery(event, body) else { return };
    let text = String::from_utf8_lossy(body).to_lowercase();
    // Only what the body names is removed or checked.
    for name in &read.names {
        assert!(text.contains(&name.to_lowercase()), "{name}");
    }
    for commit in &read.commits {
        assert!(commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{commit}");
        assert!(text.contains(&commit.to_lowercase()), "{commit}");
    }
});
