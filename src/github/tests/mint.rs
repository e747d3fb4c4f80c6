//! Minting, the check of the reply, and what becomes of tokens that nobody gets.

use secrecy::ExposeSecret;

use super::*;
use crate::reason::Reason;

const REPOSITORY_TEXT: &str = "There is at least one repository that does not exist or is not accessible to the parent installation.";
/// What another server says that speaks GitHub's API.
const OTHER_REPOSITORY_TEXT: &str =
    "The repositories requested are not accessible to this installation.";
const PERMISSION_TEXT: &str = "The permissions requested are not granted to this installation.";
const LEVEL_TEXT: &str =
    "The level of access for permissions requested are not granted to this installation.";

/// A mint whose reply is changed by `change` before it is sent.
async fn mint_with(
    change: impl Fn(&mut Value) + Send + Sync + 'static,
) -> (World, Result<IssuedToken, Error>) {
    let world = World::new(on(MINT, move |seen| {
        let mut reply = minted_json(&seen.body);
        change(&mut reply);
        answer(201, reply)
    }))
    .await;
    let outcome = world.mint().await;
    (world, outcome)
}

async fn mint_by(world: &World, grant: &Grant) -> Result<IssuedToken, Error> {
    world.github.mint(grant, &world.installation().await, &MintCalls::default()).await
}

#[tokio::test]
async fn a_grant_becomes_a_request_and_a_token() {
    let world = World::new(|_| None).await;
    let token = world.mint().await.unwrap();
    let asked = world.fake.seen().pop().unwrap();
    assert_eq!(asked.body, json!({"repositories": ["hello"], "permissions": {"issues": "write"}}));
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!(token.expires_at(), NOW.plus(Duration::from_secs(3600)));
    assert_eq!(
        *token.permissions(),
        to_permissions(&[("issues", Level::Write), ("metadata", Level::Read)])
    );
    assert_eq!(token.repositories(), Some(&["hello".to_owned()][..]));
    assert_eq!(token.installation(), InstallationId(77));
    assert!(!format!("{token:?}").contains("canary"));
    assert_eq!(token.hand_over().0.expose_secret(), TOKEN);
}

#[tokio::test]
async fn a_grant_of_all_repositories_names_none() {
    let world = World::new(|_| None).await;
    let token = mint_by(&world, &grant(&[], &[("issues", Level::Read)])).await.unwrap();
    assert_eq!(world.fake.seen().pop().unwrap().body, json!({"permissions": {"issues": "read"}}));
    assert_eq!(token.repositories(), None);
}

#[tokio::test]
async fn digests_are_those_of_githubs_audit_log() {
    let (_world, token) = mint_with(|reply| reply["token"] = "abc".into()).await;
    let (hex, base64) = token.unwrap().digests();
    assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(base64, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
}

#[tokio::test]
async fn tokens_of_any_form_are_taken() {
    for token in [
        format!("ghs_5_{}.{}.{}", "a".repeat(200), "B-_".repeat(500), "c".repeat(300)),
        "x".to_owned(),
    ] {
        let sent = token.clone();
        let (_world, minted) = mint_with(move |reply| reply["token"] = sent.clone().into()).await;
        assert_eq!(minted.unwrap().hand_over().0.expose_secret(), token);
    }
}

#[tokio::test]
async fn a_wider_reply_is_refused_and_revoked() {
    let wider: [fn(&mut Value); 15] = [
        |reply| reply["permissions"]["contents"] = "read".into(),
        |reply| reply["permissions"]["issues"] = "admin".into(),
        |reply| reply["permissions"]["issues"] = "owner".into(),
        |reply| reply["permissions"]["metadata"] = "write".into(),
        |reply| _ = reply.as_object_mut().unwrap().remove("permissions"),
        |reply| reply["permissions"] = Value::Null,
        |reply| _ = reply.as_object_mut().unwrap().remove("repositories"),
        |reply| reply["repository_selection"] = "all".into(),
        |reply| reply["repositories"] = json!([]),
        |reply| reply["repositories"] = json!([{"name": "hello"}, {"name": "other"}]),
        |reply| reply["repositories"] = json!([{"name": "hello", "full_name": "evil/hello"}]),
        |reply| reply["repositories"][0]["name"] = "hell".into(),
        |reply| reply["repositories"] = json!([{"name": "hello"}]),
        |reply| reply["repositories"][0]["owner"] = json!({"login": "renamed"}),
        |reply| reply["repositories"] = json!([{"name": "hello", "owner": {"login": "renamed"}}]),
    ];
    for (row, change) in wider.into_iter().enumerate() {
        let (world, outcome) = mint_with(change).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Wider(_)), "{row}: {error}");
        assert_eq!(error.reason(), Reason::Internal);
        world.revocations(1).await;
    }
}

#[tokio::test]
async fn a_reply_that_is_no_wider_is_taken() {
    let fitting: [fn(&mut Value); 5] = [
        |reply| reply["permissions"]["issues"] = "read".into(),
        |reply| _ = reply["permissions"].as_object_mut().unwrap().remove("metadata"),
        |reply| reply["repositories"] = json!([{"name": "HELLO", "full_name": "Octo-Org/HELLO"}]),
        |reply| reply["repositories"] = json!([{"name": "hello", "owner": {"login": "Octo-Org"}}]),
        |reply| reply["news"] = json!({"since": 2027}),
    ];
    for (row, change) in fitting.into_iter().enumerate() {
        let (_world, outcome) = mint_with(change).await;
        assert!(outcome.is_ok(), "{row}");
    }
}

#[tokio::test]
async fn an_odd_reply_is_revoked_and_not_quoted() {
    let odd: [fn(&mut Value); 3] = [
        |reply| reply["expires_at"] = "soon".into(),
        |reply| reply["expires_at"] = json!({"ghs_canary": "ghs_canary"}),
        |reply| reply["permissions"] = "ghs_canary".into(),
    ];
    for change in odd {
        let (world, outcome) = mint_with(change).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Unexpected(_)));
        assert!(
            !format!(
                "{error} {error:?} {:?}",
                crate::exchange::refusal_of_github(&error, &owner())
            )
            .contains("canary")
        );
        world.revocations(1).await;
    }
}

#[tokio::test]
async fn refusals_of_a_mint() {
    for (status, message, minting, reading) in [
        (422, PERMISSION_TEXT, Reason::PermissionRefused, Reason::PolicyForbidden),
        (422, LEVEL_TEXT, Reason::PermissionRefused, Reason::PolicyForbidden),
        (422, REPOSITORY_TEXT, Reason::RepositoryRefused, Reason::RepositoryNotAccessible),
        (422, OTHER_REPOSITORY_TEXT, Reason::RepositoryRefused, Reason::RepositoryNotAccessible),
        (
            422,
            "Too many repositories for installation",
            Reason::RepositoryRefused,
            Reason::PolicyForbidden,
        ),
        (422, "Validation Failed", Reason::PermissionRefused, Reason::PolicyForbidden),
        (
            403,
            "This installation has been suspended",
            Reason::InstallationSuspended,
            Reason::InstallationSuspended,
        ),
        (
            403,
            "Resource not accessible by integration",
            Reason::PermissionRefused,
            Reason::PolicyForbidden,
        ),
        (401, "Bad credentials", Reason::Internal, Reason::Internal),
        (401, "A JSON web token could not be decoded", Reason::Internal, Reason::Internal),
        (404, "Integration not found", Reason::Internal, Reason::Internal),
        (400, "Problems parsing JSON", Reason::PolicyForbidden, Reason::PolicyForbidden),
        (
            307,
            "Moved Permanently",
            Reason::RepositoryNotAccessible,
            Reason::RepositoryNotAccessible,
        ),
    ] {
        let world = World::new(on(MINT, move |_| refusal(status, message))).await;
        let error = world.mint().await.unwrap_err();
        assert_eq!(error.reason(), minting, "{message}");
        let installation = world.installation().await;
        let error =
            world.github.read_token(&installation, &"hello".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.reason(), reading, "{message}");
        assert_eq!(world.fake.count(MINT), 2);
    }
}

#[tokio::test]
async fn an_answer_that_doubts_the_installation_says_so() {
    for (status, message) in [(404, "Not Found"), (401, "Requires authentication")] {
        let world = World::new(on(MINT, move |_| refusal(status, message))).await;
        let error = world.mint().await.unwrap_err();
        assert!(error.doubts_installation() && error.to_string().contains(message), "{error}");
    }
    let (_world, outcome) =
        mint_with(|reply| reply["repositories"][0]["full_name"] = "renamed/hello".into()).await;
    assert!(outcome.unwrap_err().doubts_installation());
}

#[tokio::test]
async fn a_refusal_with_the_headers_of_a_limit_is_a_limit() {
    for header in ["retry-after", "x-ratelimit-remaining"] {
        let world =
            World::new(on(MINT, move |_| refusal(422, REPOSITORY_TEXT).with(header, 0))).await;
        let error = world
            .github
            .read_token(&world.installation().await, &"hello".parse().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.reason(), Reason::GithubRateLimited, "{header}");
    }
}

#[tokio::test]
async fn an_empty_request_is_never_sent() {
    let world = World::new(|_| None).await;
    let none = Grant::for_test(
        "octo-org",
        Repositories::These(Vec::new()),
        to_permissions(&[("issues", Level::Read)]),
    );
    for grant in [grant(&["hello"], &[]), none] {
        assert!(matches!(mint_by(&world, &grant).await.unwrap_err(), Error::Wider(_)));
    }
    assert_eq!(world.fake.count(MINT), 0);
}

#[tokio::test]
async fn another_owners_installation_does_not_mint() {
    let world = World::new(|_| None).await;
    let other =
        Grant::for_test("other-org", Repositories::All, to_permissions(&[("issues", Level::Read)]));
    let error = mint_by(&world, &other).await.unwrap_err();
    assert!(matches!(error, Error::Wider(_)));
    assert_eq!(world.fake.count(MINT), 0);
}

#[tokio::test]
async fn a_token_that_is_dropped_is_revoked_and_one_that_is_handed_over_is_not() {
    let world = World::new(|_| None).await;
    drop(world.mint().await.unwrap());
    world.mint().await.unwrap().hand_over();
    world.github.close(Duration::from_secs(5)).await;
    world.revocations(1).await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_no_token_behind() {
    let world = World::new(on(MINT, |seen| healthy(seen).after(800))).await;
    let installation = world.installation().await;
    let grant = grant(&["hello"], &[("issues", Level::Write)]);
    let calls = MintCalls::default();
    let minting = world.github.mint(&grant, &installation, &calls);
    let hung_up = tokio::time::timeout(Duration::from_millis(30), minting).await;
    assert!(hung_up.is_err());
    world.revocations(1).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_mints_and_revocations() {
    let world = World::new(|seen| {
        matches!(seen.line.as_str(), MINT | REVOKE).then(|| healthy(seen).after(500))
    })
    .await;
    let installation = world.installation().await;
    let grant = grant(&["hello"], &[("issues", Level::Write)]);
    let calls = MintCalls::default();
    let mut minting = Box::pin(world.github.mint(&grant, &installation, &calls));
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut minting).await.is_err());
    drop(minting);
    world.github.close(Duration::from_secs(10)).await;
    assert_eq!(world.fake.count(REVOKE), 1);
    // What is dropped now is not revoked, and disturbs nobody.
    drop(world.mint().await.unwrap());
}

#[tokio::test]
async fn a_token_that_has_yet_to_spread_is_revoked_when_it_has() {
    let lagging =
        |seen: &Seen| if seen.nth < 3 { refusal(401, "Bad credentials") } else { healthy(seen) };
    let world = World::new(on(REVOKE, lagging)).await;
    drop(world.mint().await.unwrap());
    world.revocations(4).await;
    // An older token that GitHub does not know has ended, and is left alone.
    let world = World::new(on(REVOKE, |_| refusal(401, "Bad credentials"))).await;
    let token = world.mint().await.unwrap();
    world.clock.advance(Duration::from_secs(10));
    drop(token);
    world.github.close(Duration::from_secs(5)).await;
    world.revocations(1).await;
}

#[tokio::test]
async fn while_github_limits_revocations_none_is_sent() {
    let world = World::new(on(REVOKE, |_| refusal(429, "slow down"))).await;
    drop(world.mint().await.unwrap());
    world.revocations(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(world.mint().await.unwrap());
    world.github.close(Duration::from_secs(5)).await;
    world.revocations(1).await;
}

#[tokio::test]
async fn a_shutdown_ends_in_time() {
    let world = World::new(on(REVOKE, |seen| healthy(seen).after(60_000))).await;
    drop(world.mint().await.unwrap());
    let closing = world.github.close(Duration::from_millis(50));
    tokio::time::timeout(Duration::from_secs(5), closing).await.unwrap();
}

/// How a mint ended whose calls are answered so, one after the other: the calls that were made, and
/// whether one of them may have minted.
async fn counted(answers: &'static [u16]) -> (Result<IssuedToken, Error>, u32, bool) {
    let script = |seen: &Seen| match answers.get(seen.nth) {
        Some(201) | None => healthy(seen),
        Some(status) => refusal(*status, "literally"),
    };
    let world = World::new(on(MINT, script)).await;
    let calls = MintCalls::default();
    let outcome = world.mint_counted(&calls).await;
    assert_eq!(world.fake.count(MINT), calls.made() as usize, "{answers:?}");
    (outcome, calls.made(), calls.may_have_minted())
}

#[tokio::test]
async fn calls_to_mint_are_counted_and_at_most_two_have_an_unknown_outcome() {
    for (answers, granted, made, may_have_minted) in [
        (&[201][..], true, 1, false),
        (&[502, 201], true, 2, true),
        (&[502, 503, 201], false, 2, true),
        (&[504, 422], false, 2, true),
        (&[520], false, 1, true),
        (&[422], false, 1, false),
        (&[403], false, 1, false),
        (&[429], false, 1, false),
        (&[404], false, 1, false),
    ] {
        let (outcome, calls, unknown) = counted(answers).await;
        assert_eq!(
            (outcome.is_ok(), calls, unknown),
            (granted, made, may_have_minted),
            "{answers:?}"
        );
        outcome.into_iter().for_each(|token| drop(token.hand_over()));
    }
}

#[tokio::test]
async fn the_calls_of_one_exchange_are_counted_together() {
    let world = World::new(on(MINT, |_| refusal(502, "Server Error"))).await;
    let calls = MintCalls::default();
    world.mint_counted(&calls).await.unwrap_err();
    assert!(world.mint_counted(&calls).await.unwrap_err().is_outage());
    assert_eq!((world.fake.count(MINT), calls.made()), (2, 2));
}

#[tokio::test]
async fn a_mint_is_waited_for_beyond_the_timeout_of_other_calls() {
    let script = on(MINT, |seen| healthy(seen).after(500));
    let world =
        World::with(script, |settings| settings.try_timeout = Duration::from_millis(100)).await;
    world.mint().await.unwrap().hand_over();
    assert_eq!(world.fake.count(MINT), 1);
}

#[tokio::test]
async fn a_reply_without_its_token_may_have_minted_and_is_not_repeated() {
    for body in ["", "{}", "{\"token\": \"\"}", "<html>"] {
        let world = World::new(on(MINT, move |_| answer(201, body))).await;
        let calls = MintCalls::default();
        world.mint_counted(&calls).await.unwrap_err();
        assert_eq!((world.fake.count(MINT), calls.may_have_minted()), (1, true), "{body}");
    }
}

#[tokio::test]
async fn a_call_that_was_not_sent_minted_nothing() {
    let world = World::new(|_| None).await;
    let installation = world.installation().await;
    let nowhere =
        World::with(|_| None, |settings| settings.api = Uri::from_static("http://127.0.0.1:1"))
            .await;
    let calls = MintCalls::default();
    let grant = grant(&["hello"], &[("issues", Level::Write)]);
    let error = nowhere.github.mint(&grant, &installation, &calls).await.unwrap_err();
    assert!(error.is_outage(), "{error}");
    assert_eq!((calls.made(), calls.may_have_minted()), (0, false));
}
