//! Callers of issuers that nobody configured: what they are told, and what they may cost.

mod flood;

use http::{HeaderMap, Method};
use octo_sts::emulator::{
    Document, Fault, Fetches, Issuer, Misbehaviour, RouteKind, Selection, Visibility,
};
use serde_json::{Value, json};

use crate::harness::{Answer, Ask, DOMAIN, POLICY, Reply, Setup, World};

const ANSWER: &str = "issuer not trusted: check scope, identity, that the App is installed, and that the policy names this issuer";

/// A cluster's issuer, which `octo-org/hello`'s policy `pod` names.
async fn setup() -> (Setup, Issuer) {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.settings.github.first_backoff = std::time::Duration::from_millis(1);
    let tenant = setup.issuer.at("/tenant");
    setup.policy("hello", "pod", &policy(&format!("issuer: {}", tenant.url())));
    (setup, tenant)
}

fn policy(issuer: &str) -> String {
    format!("{issuer}\nsubject: system:serviceaccount:a:b\npermissions: {{contents: read}}\n")
}

fn claims() -> Value {
    json!({"sub": "system:serviceaccount:a:b", "aud": DOMAIN})
}

/// The answer of an exchange, which a check must give too, byte for byte.
async fn rest(world: &World, scope: &str, identity: &str, token: &str) -> Reply {
    let query = format!("scope={scope}&identity={identity}");
    let authorization = [("authorization", &*format!("Bearer {token}"))];
    let checked =
        world.client.send(Method::POST, &format!("/sts/check?{query}"), &authorization, "").await;
    let reply =
        world.client.send(Method::GET, &format!("/sts/exchange?{query}"), &authorization, "").await;
    assert_eq!(bare(checked), bare(reply.clone()), "{query}");
    reply
}

/// The reply without what differs for each request: the id and the time.
fn bare(mut reply: Reply) -> (u16, Vec<(String, String)>, String) {
    let mut id = String::new();
    let mut headers = Vec::new();
    for (name, value) in std::mem::replace(&mut reply.headers, HeaderMap::new()).iter() {
        match name.as_str() {
            "x-request-id" => id = value.to_str().unwrap().to_owned(),
            "date" => {}
            name => headers.push((name.to_owned(), value.to_str().unwrap().to_owned())),
        }
    }
    assert!(!id.is_empty());
    (reply.status, headers, String::from_utf8(reply.body.to_vec()).unwrap().replace(&id, "ID"))
}

#[track_caller]
fn is_the_answer(answer: &Answer) {
    assert_eq!(
        (answer.code, answer.reason.as_str(), answer.message.as_str()),
        (16, "ISSUER_NOT_TRUSTED", ANSWER)
    );
    assert!(
        answer.conditions.is_empty() && answer.failed.is_empty() && answer.retry_after.is_none()
    );
}

#[tokio::test]
async fn an_issuer_that_the_policy_names_exactly_is_admitted() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    for _ in 0..2 {
        let outcome = world.exchange("octo-org/hello", "pod", &tenant.sign(&claims())).await;
        for token in outcome.tokens() {
            assert_eq!(
                world.github.token(token).unwrap().body["permissions"],
                json!({"contents": "read"})
            );
        }
    }
    assert_eq!(tenant.fetches(), Fetches { discovery: 1, jwks: 1 });
    let records = world.stop().await.at_least(4).await;
    assert_eq!(
        (records[0]["verified"].as_bool(), records[0]["issuer"].as_str()),
        (Some(true), Some(tenant.url().as_str()))
    );
}

#[tokio::test]
async fn an_issuer_that_a_narrow_pattern_admits_is_admitted() {
    let (setup, tenant) = setup().await;
    let pattern = |tail: &str| format!("issuer_pattern: 'http://127\\.0\\.0\\.1:[0-9]+/{tail}'");
    setup.policy("hello", "narrow", &policy(&pattern("ten[a-z]+")));
    setup.policy("hello", "wide", &policy(&pattern("ten.*")));
    setup.policy("hello", "class", &policy(&pattern("ten[^x]+")));
    let world = setup.start().await;
    for identity in ["wide", "class"] {
        is_the_answer(
            &world.exchange("octo-org/hello", identity, &tenant.sign(&claims())).await.rest,
        );
    }
    assert_eq!(
        tenant.fetches(),
        Fetches::default(),
        "a pattern that can match `/` has nothing fetched"
    );
    world.exchange("octo-org/hello", "narrow", &tenant.sign(&claims())).await.tokens();
}

#[tokio::test]
async fn a_pattern_that_can_match_a_slash_admits_known_issuers() {
    let (mut setup, tenant) = setup().await;
    setup.settings.oidc.configured = vec![tenant.url().parse().unwrap()];
    setup.policy("hello", "wide", &policy("issuer_pattern: 'http://.*'"));
    let world = setup.start().await;
    world.exchange("octo-org/hello", "wide", &tenant.sign(&claims())).await.tokens();
    let other = setup_other(&world);
    is_the_answer(&world.exchange("octo-org/hello", "wide", &other.sign(&claims())).await.rest);
    assert_eq!(other.fetches(), Fetches::default());
}

fn setup_other(world: &World) -> Issuer {
    world.issuer.at("/stranger")
}

#[tokio::test]
async fn the_gate_is_asked_every_time_also_where_keys_are_held() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    world.exchange("octo-org/hello", "pod", &tenant.sign(&claims())).await.tokens();
    // Elsewhere nobody named it.
    for (scope, identity) in [
        ("octo-org/hello", "ci"),
        ("octo-org/other", "pod"),
        ("octo-org", "pod"),
        ("evil/x", "pod"),
    ] {
        is_the_answer(&world.exchange(scope, identity, &tenant.sign(&claims())).await.rest);
    }
    world.github.remove_file("octo-org", "hello", ".github/chainguard/pod.sts.yaml");
    world.clock.advance(std::time::Duration::from_secs(60));
    is_the_answer(&world.exchange("octo-org/hello", "pod", &tenant.sign(&claims())).await.rest);
    assert_eq!(tenant.fetches().jwks, 1);
}

#[tokio::test]
async fn the_list_must_admit_it_too() {
    for (list, admitted) in [
        ("issuers: ['${ISSUER}', '${ISSUER}/tenant']\n", true),
        ("issuer_patterns: ['http://127\\.0\\.0\\.1:[0-9]+/ten[a-z]+']\n", true),
        ("issuers: ['${ISSUER}']\n", false),
        ("mode: audit\nissuers: ['${ISSUER}']\n", true),
        ("issuers: []\n", false),
    ] {
        let (setup, tenant) = setup().await;
        setup.list(list);
        let world = setup.start().await;
        let outcome = world.exchange("octo-org/hello", "pod", &tenant.sign(&claims())).await;
        if admitted {
            outcome.tokens();
        } else {
            is_the_answer(&outcome.rest);
            assert_eq!(tenant.fetches(), Fetches::default(), "{list}");
        }
    }
}

/// Why a stranger was refused, how, and how often the issuer was asked although it should not be.
type Refusal = (&'static str, Reply, Fetches);

/// Refusals for what is not there, or is not for this issuer.
async fn of_what_exists() -> Vec<Refusal> {
    let (prepared, tenant) = setup().await;
    prepared.policy("hello", "invalid", "issuer: [");
    prepared.policy("hello", "other", &policy("issuer: https://other.example.com"));
    prepared.github.org("empty-org");
    prepared.github.repo("public-org", "hello", Visibility::Public);
    prepared.github.repo("octo-org", "hidden", Visibility::Private);
    let seen = ["hello", "other", ".github"].map(str::to_owned);
    prepared.github.select(prepared.installation, &Selection::Only(seen.into()));
    let world = prepared.start().await;
    let mut all = Vec::new();
    for (why, scope, identity) in [
        ("absent owner", "nobody/hello", "pod"),
        ("not installed", "empty-org/hello", "pod"),
        ("not installed, public", "public-org/hello", "pod"),
        ("absent repository", "octo-org/none", "pod"),
        ("hidden repository", "octo-org/hidden", "pod"),
        ("absent policy", "octo-org/hello", "none"),
        ("absent organization policy", "octo-org", "none"),
        ("invalid policy", "octo-org/hello", "invalid"),
        ("another issuer's policy", "octo-org/hello", "other"),
        ("a known issuer's policy", "octo-org/hello", "ci"),
    ] {
        all.push((
            why,
            rest(&world, scope, identity, &tenant.sign(&claims())).await,
            tenant.fetches(),
        ));
    }
    all
}

/// Refusals for what fails on the way.
async fn of_what_fails() -> Vec<Refusal> {
    type Change = (&'static str, fn(&Setup, &Issuer));
    let changes: [Change; 10] = [
        ("list refuses", |setup, _| setup.list("issuers: ['${ISSUER}']\n")),
        ("list is invalid", |setup, _| setup.list("issuers: 5\n")),
        ("suspended", |setup, _| assert!(setup.github.suspend(setup.installation))),
        ("GitHub is down", |setup, _| setup.github.fault(Fault::anything().status(503))),
        ("list unavailable", |setup, _| setup.github.fault(reads("trusted").status(500))),
        ("policy forbidden", |setup, _| setup.github.fault(reads("pod").status(403))),
        ("GitHub's limit", |setup, _| assert!(setup.github.spend_quota(setup.installation, 5_000))),
        ("mints limited", |setup, _| {
            setup.github.set(|options| options.mints_per_minute = Some(0))
        }),
        ("issuer is down", |_, tenant| tenant.misbehave(Document::Discovery, Misbehaviour::Cut)),
        ("issuer publishes nonsense", |_, tenant| {
            tenant.misbehave(Document::Jwks, Misbehaviour::Html)
        }),
    ];
    let mut all = Vec::new();
    for (why, change) in changes {
        let (setup, tenant) = setup().await;
        change(&setup, &tenant);
        let world = setup.start().await;
        let reply = rest(&world, "octo-org/hello", "pod", &tenant.sign(&claims())).await;
        let fetches = if why.starts_with("issuer") { Fetches::default() } else { tenant.fetches() };
        all.push((why, reply, fetches));
    }
    all
}

fn reads(path: &str) -> Fault {
    Fault::on(RouteKind::Contents).path_with(path)
}

/// Refusals for signatures that the admitted issuer's keys do not verify.
async fn of_bad_signatures() -> Vec<Refusal> {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    let mut all = Vec::new();
    for header in [json!({}), json!({"kid": tenant.header()["kid"]}), json!({"kid": null})] {
        let mut claims = claims();
        claims["iss"] = json!(tenant.url());
        let forged = world.issuer.at("/forger").sign_with(&header, &claims);
        all.push((
            "bad signature",
            rest(&world, "octo-org/hello", "pod", &forged).await,
            Fetches::default(),
        ));
    }
    all
}

#[tokio::test]
async fn one_answer_whatever_exists_byte_for_byte() {
    let mut refusals = of_what_exists().await;
    refusals.extend(of_what_fails().await);
    refusals.extend(of_bad_signatures().await);
    assert_eq!(refusals.len(), 23);
    let (_, model, _) = refusals[0].clone();
    is_the_answer(&Answer::of_rest(&model));
    let model = bare(model);
    assert_eq!(model.0, 401);
    for (why, reply, fetches) in refusals {
        assert_eq!(bare(reply), model, "{why}");
        assert_eq!(fetches, Fetches::default(), "{why}: the issuer was asked");
    }
}

#[tokio::test]
async fn both_wires_give_that_answer_and_the_record_has_the_truth() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    for scope in ["nobody/hello", "octo-org/none", "octo-org/hello"] {
        is_the_answer(&world.exchange(scope, "none", &tenant.sign(&claims())).await.rest);
    }
    let records = world.stop().await.at_least(6).await;
    let cause = |n: usize| records[n]["cause"].as_str().unwrap().to_owned();
    assert_eq!(cause(0), "the App is not installed for the owner");
    assert_eq!(cause(2), "the App does not see the repository");
    assert_eq!(cause(4), "no such policy");
    assert!(
        records.iter().all(|record| record["verified"] == false && record["subject"].is_null()),
        "{records:?}"
    );
}

#[tokio::test]
async fn a_check_tells_unknown_callers_what_an_exchange_would_on_both_wires() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    for (scope, identity) in
        [("nobody/hello", "pod"), ("octo-org/none", "pod"), ("octo-org/hello", "none")]
    {
        let checked = world.check(scope, identity, &tenant.sign(&claims())).await;
        is_the_answer(checked.error.as_ref().unwrap());
    }
    // Admitted and verified, it is told the truth.
    let token = tenant.sign(&json!({"sub": "system:serviceaccount:a:c", "aud": DOMAIN}));
    let checked = world.check("octo-org/hello", "pod", &token).await;
    assert_eq!(checked.reason(), "POLICY_MISMATCH");
    assert!(world.check("octo-org/hello", "pod", &tenant.sign(&claims())).await.reply().granted);
    // The same token in the wrong place: nothing, though its keys are held.
    is_the_answer(world.check("octo-org/hello", "ci", &token).await.error.as_ref().unwrap());
    let records = world.stop().await.at_least(12).await;
    assert!(
        records.iter().all(|record| record["operation"] == "check" && record["token"].is_null()),
        "{records:?}"
    );
}

#[tokio::test]
async fn a_check_costs_github_what_an_exchange_does_without_its_mint() {
    for (scope, identity, good) in [
        ("octo-org/hello", "pod", true),
        ("octo-org/hello", "none", false),
        ("nobody/x", "pod", false),
    ] {
        let mut costs = Vec::new();
        for is_check in [true, false] {
            let (setup, tenant) = setup().await;
            let world = setup.start().await;
            let ask = Ask::new(scope, identity, &tenant.sign(&claims()));
            if is_check {
                world.client.check_rest(&ask).await;
            } else {
                world.client.rest(&ask).await;
            }
            let calls = world.github.calls();
            let of_the_caller = usize::from(good && !is_check);
            let (mints, all) =
                (calls.of(RouteKind::Mint) - of_the_caller, calls.total() - of_the_caller);
            costs.push((mints, all, tenant.fetches()));
        }
        assert_eq!(costs[0], costs[1], "{scope} {identity}");
    }
}

#[tokio::test]
async fn a_stall_before_verification_gives_that_answer_too() {
    let (mut setup, tenant) = setup().await;
    setup.exchange().deadline = std::time::Duration::from_millis(300);
    let world = setup.start().await;
    world.github.fault(Fault::anything().stall());
    is_the_answer(&world.exchange("octo-org/hello", "pod", &tenant.sign(&claims())).await.rest);
    world.github.heal();
    tenant.misbehave(Document::Discovery, Misbehaviour::Stall);
    is_the_answer(&world.exchange("octo-org/hello", "pod", &tenant.sign(&claims())).await.rest);
}

#[tokio::test]
async fn what_a_good_signature_earns_is_the_truth_about_the_token() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    let now = octo_sts::clock::Clock::now(&world.clock).as_secs();
    for (change, reason) in [
        (json!({"exp": now - 60}), "TOKEN_EXPIRED"),
        (json!({"nbf": now + 600}), "TOKEN_NOT_YET_VALID"),
        (json!({"sub": ""}), "TOKEN_CLAIMS_INVALID"),
        (json!({"sub": "system:serviceaccount:a:c"}), "POLICY_MISMATCH"),
        (json!({"aud": "https://elsewhere.example.com"}), "POLICY_MISMATCH"),
    ] {
        let mut claims = claims();
        change.as_object().unwrap().iter().for_each(|(name, value)| claims[name] = value.clone());
        let outcome = world.exchange("octo-org/hello", "pod", &tenant.sign(&claims)).await;
        assert_eq!(outcome.reason(), reason);
        // The same token in the wrong place: nothing.
        is_the_answer(&world.exchange("octo-org/hello", "ci", &tenant.sign(&claims)).await.rest);
    }
}

#[tokio::test]
async fn one_tenants_keys_verify_no_others_tokens() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    let neighbour = world.issuer.at("/neighbour");
    let mut forged = claims();
    forged["iss"] = json!(tenant.url());
    for header in [json!({}), json!({"kid": tenant.header()["kid"]})] {
        is_the_answer(
            &world
                .exchange("octo-org/hello", "pod", &neighbour.sign_with(&header, &forged))
                .await
                .rest,
        );
    }
    // An issuer that is almost the one named.
    for iss in [
        format!("{}/", tenant.url()),
        tenant.url().to_uppercase().replace("HTTP", "http"),
        format!("{}x", tenant.url()),
    ] {
        let mut claims = claims();
        claims["iss"] = json!(iss);
        let ask = Ask::new("octo-org/hello", "pod", &tenant.sign(&claims));
        is_the_answer(&world.client.rest(&ask).await);
    }
}
