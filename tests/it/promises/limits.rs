//! GitHub announces a limit: no further call of that kind until it is over, and callers hear what
//! is left.

use std::time::Duration;

use octo_sts::emulator::{LimitStyle, RouteKind};

use super::{count, once, pass, same, setup};

/// Every way in which GitHub tells a limit.
const STYLES: [LimitStyle; 4] = [
    LimitStyle { status: 403, retry_after: false },
    LimitStyle { status: 403, retry_after: true },
    LimitStyle { status: 429, retry_after: false },
    LimitStyle { status: 429, retry_after: true },
];

#[tokio::test]
async fn a_used_up_quota_ends_reads_until_its_window_does() {
    for style in STYLES {
        let setup = setup().await;
        setup.github.set(|options| options.limit_style = style);
        setup.github.spend_quota(setup.installation, 5_000);
        let world = setup.start().await;
        let answer = once(&world).await;
        same(&answer, super::LIMITED);
        assert_eq!(answer.message, "organization trusted-issuer lookup rate limited");
        assert_eq!(answer.retry_after, Some(Duration::from_secs(3600)), "{style:?}");
        let asked = count(&world, RouteKind::Contents);
        assert_eq!(asked, 1, "a limit is not tried again");
        pass(&world, 600);
        for _ in 0..10 {
            let answer = once(&world).await;
            same(&answer, super::LIMITED);
            assert_eq!(answer.retry_after, Some(Duration::from_secs(3000)), "{style:?}");
        }
        assert_eq!(count(&world, RouteKind::Contents), asked, "{style:?}");
        pass(&world, 3000);
        same(&once(&world).await, super::GRANTED);
    }
}

#[tokio::test]
async fn a_secondary_limit_on_mints_ends_mints_until_it_is_over() {
    for style in STYLES {
        let setup = setup().await;
        setup
            .github
            .set(|options| (options.limit_style, options.mints_per_minute) = (style, Some(3)));
        let world = setup.start().await;
        same(&once(&world).await, super::GRANTED);
        let answer = once(&world).await;
        same(&answer, super::LIMITED);
        assert_eq!(answer.retry_after, Some(Duration::from_secs(60)), "{style:?}");
        let asked = count(&world, RouteKind::Mint);
        pass(&world, 20);
        for _ in 0..10 {
            let answer = once(&world).await;
            same(&answer, super::LIMITED);
            assert_eq!(answer.retry_after, Some(Duration::from_secs(40)), "{style:?}");
        }
        assert_eq!(count(&world, RouteKind::Mint), asked, "{style:?}");
        pass(&world, 40);
        same(&once(&world).await, super::GRANTED);
    }
}

#[tokio::test]
async fn one_installations_limit_is_no_others() {
    use octo_sts::emulator::{Selection, Visibility};

    use crate::harness::{APP_PERMISSIONS, Ask, POLICY};
    let setup = setup().await;
    setup.github.repo("acme", "hello", Visibility::Private);
    setup.github.repo("acme", ".github", Visibility::Public);
    setup.github.install(setup.app, "acme", &Selection::All, APP_PERMISSIONS);
    let policy = POLICY.replace("${ISSUER}", &setup.issuer.url());
    setup.github.put_file("acme", "hello", ".github/chainguard/ci.sts.yaml", &policy);
    setup.github.spend_quota(setup.installation, 5_000);
    let world = setup.start().await;
    same(&once(&world).await, super::LIMITED);
    let acme = Ask::new("acme/hello", "ci", &world.token(serde_json::json!({})));
    same(&world.client.rest(&acme).await, super::GRANTED);
}

#[tokio::test]
async fn a_limit_on_reads_leaves_what_is_cached_and_the_mints_alone() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.spend_quota(world.installation, 5_000);
    pass(&world, 61);
    same(&once(&world).await, super::GRANTED);
    pass(&world, 240);
    same(&once(&world).await, super::LIMITED);
}
