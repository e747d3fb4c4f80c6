//! GitHub says no: the answer counts, ends what is cached, keeps its cause in the record, and has
//! the same reason whichever call got it.

use octo_sts::emulator::{Fault, RouteKind};
use serde_json::json;

use super::{once, pass, same, setup};
use crate::harness::{Ask, POLICY, World};

const IP_ALLOW_LIST: &str = "Although you appear to have the correct authorization credentials, the `octo-org` \
    organization has an IP allow list enabled, and your IP address is not permitted to access this resource.";

/// Answers that are final, and what they come to when a policy is read.
const FINAL: [(u16, &str, (i32, &str)); 11] = [
    (451, "Repository access blocked", (7, "POLICY_FORBIDDEN")),
    (410, "Gone", (7, "POLICY_FORBIDDEN")),
    (409, "Git Repository is empty.", (7, "POLICY_FORBIDDEN")),
    (422, "Validation Failed", (7, "POLICY_FORBIDDEN")),
    (400, "Bad Request", (7, "POLICY_FORBIDDEN")),
    (403, "Resource not accessible by integration", (7, "POLICY_FORBIDDEN")),
    (403, "Forbidden", (7, "POLICY_FORBIDDEN")),
    (403, IP_ALLOW_LIST, (7, "POLICY_FORBIDDEN")),
    (403, "Sorry. Your account was suspended.", (7, "INSTALLATION_SUSPENDED")),
    (301, "Moved Permanently", (5, "REPOSITORY_NOT_ACCESSIBLE")),
    (505, "no", (14, "GITHUB_UNAVAILABLE")),
];

/// Reads of the usual policy.
fn reading() -> Fault {
    Fault::on(RouteKind::Contents).path_with("ci.sts.yaml")
}

async fn warm() -> World {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world
}

#[tokio::test]
async fn a_final_answer_ends_the_copy_and_no_outage_brings_it_back() {
    for (status, message, expected) in FINAL {
        for outage in
            [Fault::on(RouteKind::Contents).status(429), Fault::on(RouteKind::Contents).status(503)]
        {
            let world = warm().await;
            world.github.fault(reading().answer(status, json!({"message": message})));
            pass(&world, 61);
            same(&once(&world).await, expected);
            world.github.heal();
            world.github.fault(outage);
            pass(&world, 11);
            let answer = once(&world).await;
            assert!([8, 14].contains(&answer.code), "{status} {message}: {answer:?}");
            assert_eq!(
                world.issued().len(),
                1,
                "{status} {message}: nothing was minted by the copy"
            );
        }
    }
}

#[tokio::test]
async fn only_an_outage_leaves_the_copy_in_use() {
    let limit = json!({"message": "You have exceeded a secondary rate limit."});
    for fault in [
        reading().status(500),
        reading().html(502),
        reading().status(504),
        reading().cut(),
        reading().cut_body(),
        reading().status(429),
        reading().answer(403, limit),
        reading().status(403).header("x-ratelimit-remaining", "0"),
        reading().status(422).header("retry-after", "30"),
    ] {
        let world = warm().await;
        world.github.fault(fault.clone());
        pass(&world, 61);
        let answer = once(&world).await;
        assert_eq!(answer.code, 0, "{fault:?}: {answer:?}");
    }
    for fault in
        [reading().answer(200, json!("no file")), reading().answer(200, json!({"type": "file"}))]
    {
        let world = warm().await;
        world.github.fault(fault.clone());
        pass(&world, 61);
        same(&once(&world).await, super::DOWN);
    }
}

/// Each kind of call, with what makes the next exchange make it.
const CALLS: [(RouteKind, u64); 3] =
    [(RouteKind::UserInstallation, 3601), (RouteKind::Contents, 61), (RouteKind::Mint, 0)];

#[tokio::test]
async fn the_cause_is_in_the_record_and_not_in_the_reply() {
    for (kind, seconds) in CALLS {
        for (status, message, reason) in [
            (403, IP_ALLOW_LIST, "POLICY_FORBIDDEN"),
            (403, "Resource protected by organization SAML enforcement.", "POLICY_FORBIDDEN"),
            (451, "Repository access blocked", "POLICY_FORBIDDEN"),
            (403, "This installation has been suspended", "INSTALLATION_SUSPENDED"),
        ] {
            let world = warm().await;
            world.github.fault(Fault::on(kind).answer(status, json!({"message": message})));
            pass(&world, seconds);
            let outcome = world.usual().await;
            assert_eq!(outcome.reason(), reason, "{kind:?} {status} {message:.30}");
            for answer in [&outcome.rest, &outcome.grpc] {
                assert!(!answer.message.contains(&message[..20]), "{}", answer.message);
            }
            let record = world.audit.find(|record| record["reason"] == reason).await;
            let cause = record["cause"].as_str().unwrap();
            assert!(cause.contains(&message[..20]) && cause.len() <= 256, "{kind:?} {cause}");
            assert_eq!(world.issued().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_bad_credential_of_the_app_is_our_fault_at_every_call() {
    for message in
        ["A JSON web token could not be decoded", "Bad credentials", "Integration not found"]
    {
        for (kind, seconds) in [(RouteKind::UserInstallation, 3601), (RouteKind::Mint, 0)] {
            let world = warm().await;
            world.github.fault(Fault::on(kind).answer(401, json!({"message": message})));
            pass(&world, seconds);
            same(&once(&world).await, (13, "INTERNAL"));
            let record = world.audit.find(|record| record["reason"] == "INTERNAL").await;
            assert!(record["cause"].as_str().unwrap().contains(message), "{record}");
        }
    }
}

#[tokio::test]
async fn callers_whose_token_satisfies_the_policy_learn_what_the_installation_lacks() {
    let setup = setup().await;
    let wide =
        POLICY.replace("issues: write", "issues: write\n  deployments: read\n  members: read");
    setup.policy("hello", "wide", &wide);
    setup.policy(".github", "some", &format!("{POLICY}repositories: [hello, gone, other, lost]\n"));
    setup.policy(".github", "one", &format!("{POLICY}repositories: [gone]\n"));
    setup.github.set_permissions(
        setup.installation,
        &[("contents", "read"), ("issues", "read"), ("members", "read")],
    );
    let world = setup.start().await;
    let token = world.token(json!({}));
    let evil = world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}));
    let outcome = world.exchange("octo-org/hello", "wide", &token).await;
    assert_eq!((outcome.rest.code, outcome.reason()), (7, "PERMISSION_REFUSED"));
    let message = &outcome.rest.message;
    assert!(message.contains("deployments: read (it has none)"), "{message}");
    assert!(
        message.contains("issues: write (it has read)") && !message.contains("members"),
        "{message}"
    );

    world.github.set_permissions(world.installation, &[("contents", "write"), ("issues", "write")]);
    for (identity, names) in [("some", "gone, lost"), ("one", "gone")] {
        let outcome = world.exchange("octo-org", identity, &token).await;
        assert_eq!((outcome.rest.code, outcome.reason()), (7, "REPOSITORY_REFUSED"));
        assert!(
            outcome.rest.message.ends_with(&format!("does not see {names}")),
            "{}",
            outcome.rest.message
        );
        let outcome = world.exchange("octo-org", identity, &evil).await;
        assert_eq!(outcome.reason(), "POLICY_MISMATCH");
        assert!(!outcome.rest.message.contains("gone"));
    }
    assert!(world.issued().is_empty());
    assert_eq!(
        world.client.rest(&Ask::new("octo-org/hello", "wide", &evil)).await.reason,
        "POLICY_MISMATCH"
    );
}
