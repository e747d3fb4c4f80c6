//! Who may use up what: one source slows nobody else, honest bursts are served, and refusals of
//! unverified callers tell nothing by their time.

use std::time::Duration;

use http::Method;
use octo_sts::{
    emulator::{Alg, Issuer, RouteKind, Selection, Visibility},
    name::InstallationId,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{APP_PERMISSIONS, Answer, Ask, DOMAIN, POLICY, Setup, World};

/// `octo-org/hello` has the policy `ci` for Actions, and `pods` for every cluster of the emulator.
/// The server stands behind a proxy, so that callers can have any address.
async fn setup() -> Setup {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.settings.github.first_backoff = Duration::from_millis(1);
    setup.settings.transport.trusted_proxy_hops = 1;
    setup.policy(
        "hello",
        "pods",
        &policy("issuer_pattern: 'http://127\\.0\\.0\\.1:[0-9]+/cluster-[0-9]+'"),
    );
    setup
}

fn policy(issuer: &str) -> String {
    format!("{issuer}\nsubject: pod\npermissions: {{contents: read}}\n")
}

fn cluster(world: &World, n: usize) -> Issuer {
    world.issuer.at_with(&format!("/cluster-{n}"), Alg::Es256)
}

/// A token of a cluster of its own, whose keys the server has not seen.
fn honest(world: &World, n: usize) -> String {
    cluster(world, n).sign(&json!({"sub": "pod", "aud": DOMAIN}))
}

/// A token that claims to be of a cluster, with a signature of another.
fn forged(world: &World, n: usize) -> String {
    let claims = json!({"iss": cluster(world, n).url(), "sub": "pod", "aud": DOMAIN});
    world.issuer.at_with("/forger", Alg::Es256).sign(&claims)
}

/// Asks as the client behind the proxy at this address.
async fn from(
    world: &World,
    address: &str,
    (scope, identity): (&str, &str),
    token: &str,
) -> Answer {
    let path = format!("/sts/exchange?scope={scope}&identity={identity}");
    let headers = [("authorization", &*format!("Bearer {token}")), ("x-forwarded-for", address)];
    Answer::of_rest(&world.client.send(Method::GET, &path, &headers, "").await)
}

const PODS: (&str, &str) = ("octo-org/hello", "pods");

#[tokio::test]
async fn one_address_or_one_48_with_invalid_tokens_slows_nobody_else() {
    type Address = fn(usize) -> String;
    let attackers: [(&str, Address); 3] = [
        ("one address", |_| "10.0.0.1".into()),
        ("one /64", |n| format!("2001:db8::{n:x}")),
        ("one /48", |n| format!("2001:db8:0:{n:x}::1")),
    ];
    for (what, attacker) in attackers {
        let world = setup().await.start().await;
        let mut limited = 0;
        // More than an owner's bucket holds, for the owner and for others.
        for n in 0..400 {
            let owner = if n % 2 == 0 { "octo-org/hello" } else { "invented/x" };
            let answer = from(&world, &attacker(n), (owner, "pods"), &forged(&world, n % 7)).await;
            limited += usize::from(answer.reason == "RATE_LIMITED");
        }
        assert!(limited > 0, "{what}");
        for n in 0..19 {
            let answer =
                from(&world, &format!("192.0.2.{n}"), PODS, &honest(&world, 100 + n)).await;
            assert_eq!((answer.code, answer.reason.as_str()), (0, ""), "{what}: workload {n}");
        }
    }
}

#[tokio::test]
async fn one_verified_caller_makes_a_bounded_number_of_lookups_and_cold_organizations_are_served() {
    let setup = setup().await;
    setup.github.repo("acme", "hello", Visibility::Private);
    setup.github.install(setup.app, "acme", &Selection::All, APP_PERMISSIONS);
    let policy = POLICY.replace("${ISSUER}", &setup.issuer.url());
    setup.github.put_file("acme", "hello", ".github/chainguard/ci.sts.yaml", &policy);
    let world = setup.start().await;
    let caller = world.token(json!({"sub": "repo:evil/evil:ref:refs/heads/main"}));
    let mut limited = 0;
    for n in 0..301 {
        let answer = world.client.rest(&Ask::new(&format!("invented-{n}/x"), "ci", &caller)).await;
        assert!(["NOT_INSTALLED", "RATE_LIMITED"].contains(&&*answer.reason), "{answer:?}");
        limited += usize::from(answer.reason == "RATE_LIMITED");
    }
    assert_eq!((limited, world.github.calls().total()), (271, 60));
    // Invented policies of one organization, too: another caller, with a bucket of its own.
    let another = world.token(json!({"sub": "repo:evil/evil:ref:refs/heads/other"}));
    let before = world.github.calls();
    for n in 0..100 {
        world.client.rest(&Ask::new("octo-org/hello", &format!("invented-{n}"), &another)).await;
    }
    let reads = world.github.calls().since(&before).of(RouteKind::Contents);
    assert!(reads <= 30 * 2 + 1, "{reads} reads");
    // From the same address: a cold organization, and a warm one.
    for scope in ["acme/hello", "octo-org/hello"] {
        let answer = world.client.rest(&Ask::new(scope, "ci", &world.token(json!({})))).await;
        assert_eq!((answer.code, answer.reason.as_str()), (0, ""), "{scope}");
    }
    assert_eq!(
        world.client.rest(&Ask::new("invented-0/x", "ci", &another)).await.reason,
        "RATE_LIMITED"
    );
    // Cached entries cost nothing, for every caller.
    assert_eq!(
        world.client.rest(&Ask::new("octo-org/hello", "ci", &caller)).await.reason,
        "POLICY_MISMATCH"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_clusters_that_start_at_the_same_moment_are_all_served() {
    for address in
        [|_| "192.0.2.1".to_owned(), |n| format!("192.0.{}.{}", n / 200, n % 200) as String]
    {
        let address: fn(usize) -> String = address;
        let world = setup().await.start().await;
        let tokens: Vec<_> = (0..300).map(|n| honest(&world, n)).collect();
        let callers = tokens.iter().enumerate().map(|(n, token)| {
            let (world, address) = (&world, address(n));
            async move { from(world, &address, PODS, token).await }
        });
        let answers = futures_util::future::join_all(callers);
        let answers =
            tokio::time::timeout(Duration::from_secs(15), answers).await.expect("within 15 s");
        let refused: Vec<_> = answers.iter().filter(|answer| answer.code != 0).collect();
        assert!(refused.is_empty(), "{} of 300 refused: {:?}", refused.len(), refused.first());
    }
}

#[tokio::test]
async fn what_is_left_of_a_quota_is_kept_for_proven_callers() {
    let setup = setup().await;
    setup.policy("other", "ci", POLICY);
    setup.policy("other", "new", POLICY);
    let (github, installation) = (setup.github.clone(), setup.installation);
    let world = setup.start().await;
    let used = |github: &octo_sts::emulator::GitHub, id: InstallationId| {
        github.installation(id).unwrap().quota_used
    };
    world.usual().await.tokens();
    assert!(github.spend_quota(installation, 4_000 - used(&github, installation) - 1));
    // One more read says how much is left.
    let caller = world.token(json!({}));
    assert_eq!(world.client.rest(&Ask::new("octo-org/other", "ci", &caller)).await.code, 0);
    assert!(used(&github, installation) >= 4_000);
    let before = used(&github, installation);
    let unproven = world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}));
    for n in 0..10 {
        let outcome = world.exchange("octo-org/other", &format!("invented-{n}"), &unproven).await;
        assert_eq!((outcome.rest.code, outcome.reason()), (8, "RATE_LIMITED"));
        assert!(outcome.rest.retry_after.is_some_and(|wait| wait <= Duration::from_secs(3_600)));
        let forged = from(&world, "10.0.0.1", ("octo-org/other", "pods"), &forged(&world, n)).await;
        assert_eq!(
            forged.reason, "ISSUER_NOT_TRUSTED",
            "which installation it is shows in nothing"
        );
    }
    assert_eq!(used(&github, installation), before);
    assert_eq!(world.client.rest(&Ask::new("octo-org/other", "new", &caller)).await.code, 0);
    assert!(used(&github, installation) > before);
    // What is cached is for everyone.
    assert_eq!(world.exchange("octo-org/hello", "ci", &unproven).await.reason(), "POLICY_MISMATCH");
    world.clock.advance(Duration::from_secs(3_600));
    let unproven = world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}));
    assert_eq!(
        world.exchange("octo-org/other", "invented", &unproven).await.reason(),
        "POLICY_NOT_FOUND"
    );
}

#[tokio::test]
async fn mints_are_limited_for_each_app_and_for_every_owner() {
    let mut setup = setup().await;
    setup.exchange().admission.mints_per_minute = std::num::NonZeroU32::new(2);
    let world = setup.start().await;
    world.usual().await.tokens();
    let outcome = world.usual().await;
    assert_eq!((outcome.rest.code, outcome.reason()), (8, "RATE_LIMITED"));
    assert_eq!(outcome.rest.retry_after, Some(Duration::from_secs(30)));
    assert_eq!(world.issued().len(), 2);
    assert!(
        world.check("octo-org/hello", "ci", &world.token(json!({}))).await.reply().granted,
        "it mints nothing"
    );
    world.clock.advance(Duration::from_secs(60));
    world.usual().await.tokens();
}

/// A world in which unverified callers' refusals have their steps, with what they might ask for.
async fn stepped() -> World {
    let mut setup = setup().await;
    setup.exchange().refusal_step = Duration::from_secs(1);
    setup.policy("hello", "other", &policy("issuer: https://other.example.com"));
    setup.policy("hello", "invalid", "issuer: [");
    setup.github.org("empty-org");
    setup.start().await
}

/// Everything that may exist or not, for a token of an issuer that the policy admits, or not.
const PLACES: [(&str, &str); 8] = [
    ("invented/x", "pods"),
    ("empty-org/x", "pods"),
    ("octo-org/none", "pods"),
    ("octo-org/hello", "none"),
    ("octo-org", "none"),
    ("octo-org/hello", "invalid"),
    ("octo-org/hello", "other"),
    ("octo-org/hello", "pods"),
];

/// A caller with a forged token that waits for its answer.
fn waiting(world: &World, (scope, identity): (&str, &str)) -> JoinHandle<Answer> {
    let (client, ask) = (world.client.clone(), Ask::new(scope, identity, &forged(world, 1)));
    tokio::spawn(async move { client.rest(&ask).await })
}

/// Lets everything happen that needs no time: requests that were sent before have come as far as
/// they can once these have been answered.
async fn settle(world: &World) {
    for _ in 0..5 {
        assert_eq!(
            world
                .client
                .rest(&Ask::new("octo-org/hello", "ci", &world.token(json!({}))))
                .await
                .code,
            0
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn refusals_leave_at_the_same_step_whatever_exists_cold_and_warm() {
    let world = stepped().await;
    for state in ["cold", "warm", "absences are forgotten"] {
        for place in PLACES {
            let refused = waiting(&world, place);
            settle(&world).await;
            world.clock.advance(Duration::from_millis(999));
            settle(&world).await;
            assert!(!refused.is_finished(), "{state}: {place:?} left early");
            world.clock.advance(Duration::from_millis(1));
            let answer = tokio::time::timeout(Duration::from_secs(10), refused).await;
            let answer = answer.unwrap_or_else(|_| panic!("{state}: {place:?} left late")).unwrap();
            assert_eq!(
                (answer.code, answer.reason.as_str()),
                (16, "ISSUER_NOT_TRUSTED"),
                "{state}: {place:?}"
            );
        }
        if state == "warm" {
            world.clock.advance(Duration::from_secs(30));
        }
    }
}

#[tokio::test]
async fn nothing_is_delayed_during_shutdown() {
    let world = stepped().await;
    let refused: Vec<_> = PLACES.map(|place| waiting(&world, place)).into();
    settle(&world).await;
    assert!(refused.iter().all(|refused| !refused.is_finished()));
    world.terminate();
    for refused in refused {
        let answer = tokio::time::timeout(Duration::from_secs(10), refused)
            .await
            .expect("it is sent")
            .unwrap();
        assert_eq!(answer.reason, "ISSUER_NOT_TRUSTED");
    }
    let records = world.stop().await.at_least(13).await;
    assert!(
        records.iter().filter(|record| record["reason"] == "ISSUER_NOT_TRUSTED").count()
            == PLACES.len()
    );
}

#[tokio::test]
async fn what_unverified_callers_cause_is_cached_as_long_whether_present_or_absent() {
    const OWNER: &str = "/users/octo-org/installation";
    const LIST: &str = "trusted-token-issuers.yaml";
    // Each lookup by itself: one that is repeated too late must not hide behind the others.
    let cases: [((&str, &str), &[&str]); 4] = [
        (("invented/x", "pods"), &["/users/invented/installation"]),
        (("octo-org/none", "pods"), &[OWNER, LIST, "/access_tokens"]),
        (("octo-org/hello", "none"), &[OWNER, LIST, "none.sts.yaml"]),
        (("octo-org/hello", "pods"), &[OWNER, LIST, "pods.sts.yaml"]),
    ];
    for has_list in [false, true] {
        let setup = setup().await;
        if has_list {
            setup.list("mode: audit\nissuers: ['https://idp.example.com']\n");
        }
        let world = setup.start().await;
        let lookups = async |place| {
            let before = world.github.log().len();
            from(&world, "10.0.0.1", place, &forged(&world, 1)).await;
            world.github.log().iter().skip(before).map(|call| call.path.clone()).collect::<Vec<_>>()
        };
        for (place, expected) in cases {
            for round in 0..3 {
                let made = lookups(place).await;
                for part in expected {
                    let is_made = made.iter().any(|path| path.contains(part));
                    assert!(
                        is_made,
                        "{place:?}, {part} in round {round}, list {has_list}: {made:?}"
                    );
                }
                world.clock.advance(Duration::from_secs(9));
                assert_eq!(
                    lookups(place).await,
                    [""; 0],
                    "{place:?}, list {has_list}: it is cached"
                );
                world.clock.advance(Duration::from_secs(1));
            }
        }
    }
}

#[tokio::test]
async fn a_proven_caller_is_served_while_its_address_is_used_up_and_others_learn_nothing_of_it() {
    let world = setup().await.start().await;
    let flood = async || {
        let mut answers = Vec::new();
        for _ in 0..40 {
            answers.push(from(&world, "10.0.0.1", PODS, &forged(&world, 1)).await);
        }
        answers
    };
    assert_eq!(from(&world, "10.0.0.1", PODS, &honest(&world, 1)).await.code, 0);
    flood().await;
    for _ in 0..40 {
        assert_eq!(from(&world, "10.0.0.1", PODS, &honest(&world, 1)).await.code, 0);
    }
    // A forged token of the proven issuer, one of another, and one for an owner that does not
    // exist.
    let places = [(1, PODS), (2, PODS), (1, ("invented/x", "pods"))];
    let mut answers = Vec::new();
    for (n, place) in places {
        let answer = from(&world, "10.0.0.1", place, &forged(&world, n)).await;
        answers.push((answer.code, answer.reason, answer.message, answer.retry_after));
    }
    assert_eq!(answers[0].1, "RATE_LIMITED");
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}
