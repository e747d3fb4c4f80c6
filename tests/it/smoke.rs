//! The way through the whole house.

use serde_json::json;

use crate::harness::{POLICY, Setup};

#[tokio::test]
async fn a_workflow_gets_a_token_with_exactly_the_policys_permissions() {
    let world = Setup::with_policy(POLICY).await.start().await;
    let outcome = world.usual().await;
    for token in outcome.tokens() {
        let minted = world.github.token(token).unwrap();
        assert_eq!(minted.body["permissions"], json!({"contents": "read", "issues": "write"}));
        assert_eq!(minted.body["repositories"], json!(["hello"]));
        assert!(!minted.revoked);
    }
    assert!(world.github.unknown_requests().is_empty());
    let audit = world.stop().await.at_least(2).await;
    assert_eq!(audit[0]["result"], "granted");
}

#[tokio::test]
async fn a_token_of_another_branch_is_refused_and_told_why() {
    let world = Setup::with_policy(POLICY).await.start().await;
    let token = world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}));
    let outcome = world.exchange("octo-org/hello", "ci", &token).await;
    assert_eq!((outcome.rest.code, outcome.reason()), (7, "POLICY_MISMATCH"));
    assert_eq!(outcome.rest.failed, ["subject"]);
    assert!(world.issued().is_empty());
}
