//! GitHub's replies to the read of a file.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use octo_sts::github::{File, fuzzing::contents};
use octo_sts_fuzz::seed;
use serde_json::{Value, json};

const PATH: &str = ".github/chainguard/ci.sts.yaml";

fn seeds() {
    let file = json!({"type": "file", "path": PATH, "sha": "s", "size": 3, "encoding": "base64", "content": "YWJj\n"});
    let with = |name: &str, value: Value| {
        let mut file = file.clone();
        file[name] = value;
        file.to_string()
    };
    let odd = [
        with("type", json!("symlink")),
        with("type", json!("submodule")),
        with("path", json!("README.md")),
        with("encoding", json!("none")),
        with("size", json!(2)),
        with("content", json!("YWJj")),
        json!([file]).to_string(),
        file.to_string(),
    ];
    seed("contents", odd);
}

fuzz_target!(init: seeds(), |body: &[u8]| {
    if let Some(File::Present { bytes, .. }) = contents(Bytes::copy_from_slice(body), PATH) {
        let read: Value = serde_json::from_slice(body).unwrap();
        assert_eq!((read["type"].as_str(), read["path"].as_str()), (Some("file"), Some(PATH)));
        assert!(read["size"].as_u64().is_none_or(|size| size == bytes.len() as u64));
        assert!(bytes.len() <= body.len());
    }
});
