//! Every state that an organization's list of trusted issuers can be in, and its verdict.

use octo_sts::emulator::{Fault, LimitStyle, ReplicationDelay, RouteKind, Selection, Visibility};

use super::{once, pass, same, setup};
use crate::harness::{Answer, Setup, World};

const LIST: &str = "trusted-token-issuers.yaml";
const PATH: &str = ".github/chainguard/trusted-token-issuers.yaml";
/// Lists the issuer of the usual token.
const OURS: &str = "issuers: ['${ISSUER}']\n";
/// Lists another one.
const OTHERS: &str = "issuers: ['https://other.example.com']\n";

const NOT_PERMITTED: (i32, &str) = (7, "ISSUER_NOT_PERMITTED");
const UNAVAILABLE: (i32, &str) = (14, "TRUSTED_ISSUERS_UNAVAILABLE");
const INVALID: (i32, &str) = (9, "TRUSTED_ISSUERS_INVALID");

const HOUR: u64 = 3600;

/// Reads of the list.
fn reading() -> Fault {
    Fault::on(RouteKind::Contents).path_with(LIST)
}

fn hide_policy_repo(world: &World) {
    world.github.select(world.installation, &Selection::Only(vec!["hello".into(), "other".into()]));
}

/// A world that has seen a list.
async fn seen(list: &str) -> (World, Answer) {
    let setup = setup().await;
    setup.list(list);
    let world = setup.start().await;
    let answer = once(&world).await;
    (world, answer)
}

async fn warm() -> World {
    let (world, answer) = seen(OURS).await;
    same(&answer, super::GRANTED);
    world
}

async fn private() -> Setup {
    let setup = setup().await;
    setup.github.set_visibility("octo-org", ".github", Visibility::Private);
    setup
}

fn lag(setup: &Setup, not_found: u32) {
    setup.github.set(|options| {
        options.replication_delay =
            ReplicationDelay::Requests { unauthorized: 0, forbidden: 0, not_found }
    });
}

#[tokio::test]
async fn a_listed_issuer_is_allowed_and_another_refused() {
    let (world, answer) = seen(OTHERS).await;
    same(&answer, NOT_PERMITTED);
    assert_eq!(answer.message, "issuer not permitted by organization policy");
    let records = world.stop().await.at_least(1).await;
    assert_eq!(
        (records[0]["trusted_issuers"].as_str(), records[0]["verified"].as_bool()),
        (Some("not listed"), Some(true))
    );
    warm().await;
}

#[tokio::test]
async fn in_audit_mode_another_issuer_is_allowed_and_recorded() {
    let (world, answer) = seen(&format!("mode: audit\n{OTHERS}")).await;
    same(&answer, super::GRANTED);
    let records = world.stop().await.at_least(1).await;
    assert_eq!(records[0]["trusted_issuers"], "not listed, audit only");
}

#[tokio::test]
async fn an_absent_list_in_a_private_repository_is_proven_despite_replication_lag() {
    let setup = private().await;
    // The policy's repository is private too: its file is there, and takes as long to be seen.
    setup.github.set_visibility("octo-org", "hello", Visibility::Public);
    lag(&setup, 3);
    let world = setup.start().await;
    same(&once(&world).await, super::GRANTED);
    let calls = world.github.calls();
    // The file, twice the repository in vain, the repository, the file again; and the policy.
    assert_eq!((calls.of(RouteKind::Repository), calls.of(RouteKind::Contents)), (3, 3));
}

#[tokio::test]
async fn lag_does_not_hide_a_list_that_forbids() {
    for not_found in 1..=4 {
        let setup = private().await;
        setup.list(OTHERS);
        lag(&setup, not_found);
        let world = setup.start().await;
        same(&once(&world).await, NOT_PERMITTED);
    }
}

#[tokio::test]
async fn an_absence_that_cannot_be_proven_is_no_absence() {
    let setup = private().await;
    lag(&setup, 1_000);
    let world = setup.start().await;
    same(&once(&world).await, UNAVAILABLE);
}

#[tokio::test]
async fn a_missing_policy_needs_the_same_proof() {
    let setup = setup().await;
    lag(&setup, 3);
    let world = setup.start().await;
    same(&once(&world).await, super::GRANTED);

    let setup = super::setup().await;
    lag(&setup, 1_000);
    let world = setup.start().await;
    same(&once(&world).await, super::DOWN);
    world.github.set(|options| options.replication_delay = ReplicationDelay::None);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_policy_repository_that_the_app_does_not_see_means_all_issuers() {
    let setup = setup().await;
    setup.list(OTHERS);
    let world = setup.start().await;
    hide_policy_repo(&world);
    same(&once(&world).await, super::GRANTED);
    let calls = world.github.calls();
    // Two looks at the list, each with an installation that was just looked up; then policy and
    // token.
    assert_eq!((calls.of(RouteKind::UserInstallation), calls.of(RouteKind::Mint)), (2, 4));
    // The App is let in: the list counts within the TTL.
    world.github.select(world.installation, &Selection::All);
    pass(&world, 60);
    same(&once(&world).await, NOT_PERMITTED);
}

#[tokio::test]
async fn hiding_the_policy_repository_does_not_lift_a_list_that_was_seen_within_the_hour() {
    let setup = private().await;
    setup.list(OTHERS);
    let world = setup.start().await;
    same(&once(&world).await, NOT_PERMITTED);
    hide_policy_repo(&world);
    for seconds in [61, HOUR - 62] {
        pass(&world, seconds);
        same(&once(&world).await, NOT_PERMITTED);
    }
    pass(&world, 1);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_422_with_a_limits_headers_is_a_limit() {
    let refusal = "There is at least one repository that does not exist or is not accessible to the parent installation.";
    for (header, value, wait) in [("retry-after", "30", 30), ("x-ratelimit-remaining", "0", 60)] {
        let world = setup().await.start().await;
        let fault = Fault::on(RouteKind::Mint).answer(422, serde_json::json!({"message": refusal}));
        world.github.fault(fault.header(header, value));
        let answer = once(&world).await;
        same(&answer, super::LIMITED);
        assert_eq!(answer.retry_after.unwrap().as_secs(), wait);
        assert_eq!(answer.message, "organization trusted-issuer lookup rate limited");
    }
}

/// Ways in which a read fails without saying what the list is.
fn failures() -> [Fault; 5] {
    [
        reading().status(403),
        reading().status(500),
        reading().html(502),
        reading().truncated(),
        reading().answer(200, serde_json::json!({"type": "file", "path": PATH, "sha": "0", "size": 9, "encoding": "base64", "content": "aXNz"})),
    ]
}

#[tokio::test]
async fn a_failed_read_without_a_last_known_list_is_a_refusal() {
    for fault in failures() {
        let setup = setup().await;
        setup.list(OURS);
        let world = setup.start().await;
        world.github.fault(fault.clone());
        let answer = once(&world).await;
        assert_eq!((answer.code, answer.reason.as_str()), UNAVAILABLE, "{fault:?}");
        assert_eq!(answer.message, "organization trusted-issuer lookup unavailable");
    }
}

#[tokio::test]
async fn a_failed_read_leaves_the_last_known_state_in_force_for_an_hour() {
    for fault in failures() {
        for (list, verdict) in
            [(Some(OURS), super::GRANTED), (Some(OTHERS), NOT_PERMITTED), (None, super::GRANTED)]
        {
            let setup = setup().await;
            list.into_iter().for_each(|list| setup.list(list));
            let world = setup.start().await;
            same(&once(&world).await, verdict);
            world.github.put_file(
                "octo-org",
                ".github",
                PATH,
                "issuers: ['https://new.example.com']\n",
            );
            world.github.fault(fault.clone());
            for seconds in [60, HOUR - 61] {
                pass(&world, seconds);
                same(&once(&world).await, verdict);
            }
            pass(&world, 1);
            same(&once(&world).await, UNAVAILABLE);
        }
    }
}

#[tokio::test]
async fn a_limited_read_leaves_the_last_known_state_in_force() {
    let world = warm().await;
    world.github.set(|options| options.limit_style = LimitStyle { status: 429, retry_after: true });
    pass(&world, 59);
    world.github.spend_quota(world.installation, 5_000);
    pass(&world, 1);
    same(&once(&world).await, super::GRANTED);
    // The policy's bound ends first; the list is not what refuses then.
    pass(&world, 299);
    let answer = once(&world).await;
    same(&answer, super::LIMITED);
    assert_eq!(answer.message, "GitHub's rate limit is reached");
}

/// What a list can be that says nothing.
const NONSENSE: [&str; 5] =
    ["issuers: []\n", "", "issuers: 5\n", "mode: enforce\n", "issuers: ['http://x.example.com']\n"];

#[tokio::test]
async fn an_invalid_list_is_a_refusal() {
    for text in NONSENSE {
        let (_, answer) = seen(text).await;
        same(&answer, INVALID);
        assert_eq!(answer.message, "organization trusted-issuer configuration is invalid");
    }
    let setup = setup().await;
    setup.github.put_file("octo-org", ".github", &format!("{PATH}/README.md"), "a directory");
    same(&once(&setup.start().await).await, INVALID);
}

#[tokio::test]
async fn a_list_that_became_invalid_leaves_the_last_one_in_force_for_an_hour() {
    for (list, verdict) in [(OURS, super::GRANTED), (OTHERS, NOT_PERMITTED)] {
        for text in NONSENSE {
            let (world, answer) = seen(list).await;
            same(&answer, verdict);
            world.github.put_file("octo-org", ".github", PATH, text);
            for seconds in [60, HOUR - 61] {
                pass(&world, seconds);
                same(&once(&world).await, verdict);
            }
            pass(&world, 1);
            same(&once(&world).await, INVALID);
        }
    }
}

#[tokio::test]
async fn a_directory_in_its_place_leaves_the_last_list_in_force_too() {
    let world = warm().await;
    world.github.remove_file("octo-org", ".github", PATH);
    world.github.put_file("octo-org", ".github", &format!("{PATH}/README.md"), "a directory");
    pass(&world, 60);
    same(&once(&world).await, super::GRANTED);
    pass(&world, HOUR);
    same(&once(&world).await, INVALID);
}

#[tokio::test]
async fn an_absence_is_no_last_known_list_for_an_invalid_one() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.put_file("octo-org", ".github", PATH, "issuers: []\n");
    pass(&world, 60);
    same(&once(&world).await, INVALID);
}

#[tokio::test]
async fn a_mended_list_counts_within_seconds_and_a_deleted_one_within_the_ttl() {
    let (world, answer) = seen("issuers: []\n").await;
    same(&answer, INVALID);
    world.github.put_file(
        "octo-org",
        ".github",
        PATH,
        &OURS.replace("${ISSUER}", &world.issuer.url()),
    );
    pass(&world, 10);
    same(&once(&world).await, super::GRANTED);
    world.github.put_file("octo-org", ".github", PATH, OTHERS);
    pass(&world, 60);
    same(&once(&world).await, NOT_PERMITTED);
    world.github.remove_file("octo-org", ".github", PATH);
    pass(&world, 60);
    same(&once(&world).await, super::GRANTED);
}
