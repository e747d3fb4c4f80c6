//! Several Apps in a pool: the trouble of one is not that of the others, and `checks: write` keeps
//! its App.

use std::{collections::BTreeMap, time::Duration};

use octo_sts::{
    emulator::{Fault, RouteKind, Selection, generate_rsa_pem},
    name::{AppId, InstallationId},
};
use serde_json::json;

use super::{LIMITED, once, pass, same};
use crate::harness::{APP_PERMISSIONS, Answer, Ask, DOMAIN, POLICY, Setup, World, settings};

const CHECKS: &str = "issuer: ${ISSUER}\nsubject_pattern: '.*'\npermissions:\n  checks: write\n";
const LIST: &str = ".github/chainguard/trusted-token-issuers.yaml";
const PIN_UNSATISFIED: (i32, &str) = (9, "APP_PIN_UNSATISFIED");

/// The usual world with three Apps, which have one key and are installed on `octo-org`.
struct Pool {
    setup: Setup,
    apps: Vec<(AppId, InstallationId)>,
    pem: String,
}

impl Pool {
    async fn new() -> Self {
        let setup = Setup::with_policy(POLICY).await;
        let (pem, public) = generate_rsa_pem();
        let apps = ["first", "second", "third"].map(|slug| {
            let (app, _) = setup.github.app(slug);
            setup.github.add_key(app, public.clone());
            (app, setup.github.install(app, "octo-org", &Selection::All, APP_PERMISSIONS))
        });
        Self { setup, apps: apps.to_vec(), pem }
    }

    /// A server that uses these Apps, in this order.
    async fn start(&self, order: &[usize]) -> World {
        let ids: Vec<_> = order.iter().map(|n| self.apps[*n].0.to_string()).collect();
        let changed = settings(&[
            ("STS_DOMAIN", DOMAIN),
            ("GITHUB_APP_IDS", &ids.join(",")),
            ("APP_SECRET_CERTIFICATE_ENV_VAR", &self.pem),
            ("GITHUB_BASE_URL", &self.setup.github.url()),
        ]);
        let mut setup = Setup {
            settings: self.setup.settings.clone(),
            github: self.setup.github.clone(),
            issuer: self.setup.issuer.clone(),
            clock: self.setup.clock.clone(),
            app: self.setup.app,
            installation: self.setup.installation,
        };
        setup.settings.github = changed.github;
        setup.settings.apps = changed.apps;
        setup.settings.github.first_backoff = Duration::from_millis(1);
        setup.start().await
    }
}

/// The App of each token that was issued from here on.
struct Since(usize);

impl Since {
    fn now(world: &World) -> Self {
        Self(world.issued().len())
    }

    fn apps(&self, world: &World) -> Vec<AppId> {
        world.issued()[self.0..].iter().map(|token| token.app).collect()
    }
}

/// What can happen to one App of a pool.
type Trouble = (&'static str, fn(&Pool, (AppId, InstallationId)));

const TROUBLES: [Trouble; 6] = [
    ("suspended", |pool, (_, installation)| {
        assert!(pool.setup.github.suspend(installation));
    }),
    ("uninstalled while cached", |pool, (_, installation)| {
        assert!(pool.setup.github.uninstall(installation));
    }),
    ("out of quota", |pool, (_, installation)| {
        assert!(pool.setup.github.spend_quota(installation, 5_000));
    }),
    ("its key is refused", |pool, (app, _)| {
        assert!(pool.setup.github.remove_keys(app));
        pool.setup.clock.advance(Duration::from_secs(9 * 60));
    }),
    ("without the repositories", |pool, (_, installation)| {
        assert!(pool.setup.github.select(installation, &Selection::Only(vec!["other".into()])));
    }),
    ("without the permissions", |pool, (_, installation)| {
        assert!(pool.setup.github.set_permissions(installation, &[("contents", "read")]));
    }),
];

#[tokio::test]
async fn the_trouble_of_one_app_is_not_that_of_the_others() {
    for (trouble, cause) in TROUBLES {
        for victim in 0..3 {
            let pool = Pool::new().await;
            let world = pool.start(&[0, 1, 2]).await;
            for _ in 0..6 {
                same(&once(&world).await, super::GRANTED);
            }
            cause(&pool, pool.apps[victim]);
            let since = Since::now(&world);
            for n in 0..12 {
                let answer = once(&world).await;
                let what = format!("{trouble}, App {victim}, exchange {n}");
                assert_eq!(
                    (answer.code, &*answer.reason),
                    super::GRANTED,
                    "{what}: {}",
                    answer.message
                );
                // Policies are read again as well.
                pass(&world, 20);
            }
            let used = since.apps(&world);
            assert_eq!(used.len(), 12);
            if trouble != "out of quota" {
                assert!(!used.contains(&pool.apps[victim].0), "{trouble}, App {victim}: {used:?}");
            }
        }
    }
}

#[tokio::test]
async fn if_every_app_is_in_trouble_the_caller_hears_of_it_and_nothing_is_minted() {
    for (trouble, expected) in [
        ("suspended", (7, "INSTALLATION_SUSPENDED")),
        ("uninstalled while cached", (5, "NOT_INSTALLED")),
        ("its key is refused", (13, "INTERNAL")),
        ("without the permissions", (7, "PERMISSION_REFUSED")),
    ] {
        let pool = Pool::new().await;
        let world = pool.start(&[0, 1, 2]).await;
        for _ in 0..6 {
            same(&once(&world).await, super::GRANTED);
        }
        let (_, cause) = TROUBLES.iter().find(|(name, _)| *name == trouble).unwrap();
        pool.apps.iter().for_each(|app| cause(&pool, *app));
        let issued = world.issued().len();
        let answer = once(&world).await;
        assert_eq!((answer.code, &*answer.reason), expected, "{trouble}: {}", answer.message);
        assert_eq!(world.issued().len(), issued, "{trouble}");
    }
}

/// A token with `checks: write` for a subject.
async fn checks(world: &World, subject: usize) -> Answer {
    let token = world.token(json!({ "sub": format!("job-{subject}") }));
    world.client.rest(&Ask::new("octo-org/hello", "checks", &token)).await
}

/// Which App each subject gets.
async fn routes(world: &World, subjects: usize) -> Vec<AppId> {
    let since = Since::now(world);
    for subject in 0..subjects {
        same(&checks(world, subject).await, super::GRANTED);
    }
    since.apps(world)
}

#[tokio::test]
async fn checks_are_written_by_the_same_app_from_every_replica_in_every_order() {
    let pool = Pool::new().await;
    pool.setup.policy("hello", "checks", CHECKS);
    let first = pool.start(&[0, 1, 2]).await;
    let expected = routes(&first, 24).await;
    assert_eq!(routes(&first, 24).await, expected);
    let used: BTreeMap<AppId, usize> = expected.iter().fold(BTreeMap::new(), |mut used, app| {
        *used.entry(*app).or_default() += 1;
        used
    });
    assert_eq!(used.len(), 3, "{used:?}");
    for order in [[2, 1, 0], [1, 2, 0]] {
        let other = pool.start(&order).await;
        assert_eq!(routes(&other, 24).await, expected);
    }

    // Without the third App, only its own routes move.
    let fewer = pool.start(&[1, 0]).await;
    let moved = routes(&fewer, 24).await;
    let third = pool.apps[2].0;
    for (before, after) in expected.iter().zip(&moved) {
        assert!(before == after || *before == third, "{expected:?} {moved:?}");
        assert_ne!(*after, third);
    }
}

#[tokio::test]
async fn checks_are_never_written_by_another_app_than_the_chosen_one() {
    let pool = Pool::new().await;
    pool.setup.policy("hello", "checks", CHECKS);
    let world = pool.start(&[0, 1, 2]).await;
    let [chosen] = routes(&world, 1).await[..] else { panic!("one exchange") };
    let issued = world.issued().len();
    // GitHub limits the mints of the chosen App alone.
    let (_, installation) = pool.apps.iter().find(|(app, _)| *app == chosen).unwrap();
    let path = format!("installations/{installation}/access_tokens");
    let limit = Fault::on(RouteKind::Mint)
        .path_with(&path)
        .answer(403, json!({ "message": "You have exceeded a secondary rate limit." }));
    world.github.fault(limit.header("retry-after", "60"));
    for _ in 0..2 {
        same(&checks(&world, 0).await, LIMITED);
    }
    assert_eq!(world.issued().len(), issued, "no other App minted");
    world.github.heal();
    pass(&world, 61);
    same(&checks(&world, 0).await, super::GRANTED);
    assert_eq!(world.issued().last().unwrap().app, chosen);
}

#[tokio::test]
async fn a_pin_is_satisfied_by_its_app_alone() {
    let pool = Pool::new().await;
    let [first, second, third] = pool.apps[..] else { unreachable!() };
    for (name, pin) in [
        ("slug", "app: second".to_owned()),
        ("number", format!("app: '{}'", second.0)),
        ("pattern", "app_pattern: sec.*".to_owned()),
        ("nobody", "app: fourth".to_owned()),
        ("no-number", format!("app_pattern: '{}'", second.0)),
        ("part", "app_pattern: econ".to_owned()),
    ] {
        pool.setup.policy("hello", name, &format!("{pin}\n{POLICY}"));
    }
    let world = pool.start(&[0, 1, 2]).await;
    let exchange = |name: &'static str| {
        let token = world.token(json!({}));
        let client = world.client.clone();
        async move { client.rest(&Ask::new("octo-org/hello", name, &token)).await }
    };
    for name in ["slug", "number", "pattern"] {
        let since = Since::now(&world);
        for _ in 0..4 {
            same(&exchange(name).await, super::GRANTED);
        }
        assert!(since.apps(&world).iter().all(|app| *app == second.0), "{name}");
    }
    let issued = world.issued().len();
    for name in ["nobody", "no-number", "part"] {
        same(&exchange(name).await, PIN_UNSATISFIED);
    }
    // The pinned App is in trouble: no other one stands in for it.
    world.github.uninstall(second.1);
    for name in ["slug", "number", "pattern"] {
        same(&exchange(name).await, PIN_UNSATISFIED);
    }
    assert_eq!(world.issued().len(), issued);
    // It is installed again: noticed within a minute.
    world.github.install(second.0, "octo-org", &Selection::All, APP_PERMISSIONS);
    pass(&world, 61);
    let since = Since::now(&world);
    same(&exchange("slug").await, super::GRANTED);
    assert_eq!(since.apps(&world), [second.0]);
    assert!(![first.0, third.0].contains(&second.0));
}

#[tokio::test]
async fn a_list_that_one_app_sees_counts_for_all() {
    // Whichever App is tried first, one that sees the repository decides.
    for seeing in 0..3 {
        for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
            let pool = Pool::new().await;
            pool.setup.github.put_file(
                "octo-org",
                ".github",
                LIST,
                "issuers: ['https://other.example.com']\n",
            );
            let visibility = octo_sts::emulator::Visibility::Private;
            pool.setup.github.set_visibility("octo-org", ".github", visibility);
            for (n, (_, installation)) in pool.apps.iter().enumerate() {
                if n != seeing {
                    let only = Selection::Only(vec!["hello".into()]);
                    pool.setup.github.select(*installation, &only);
                }
            }
            let world = pool.start(&order).await;
            let issued = world.issued().len();
            for _ in 0..3 {
                same(&once(&world).await, (7, "ISSUER_NOT_PERMITTED"));
                pass(&world, 90);
            }
            assert_eq!(world.issued().len(), issued);
        }
    }
}

#[tokio::test]
async fn a_list_counts_as_absent_only_if_every_app_says_so() {
    let pool = Pool::new().await;
    let visibility = octo_sts::emulator::Visibility::Private;
    pool.setup.github.set_visibility("octo-org", ".github", visibility);
    for (_, installation) in &pool.apps {
        pool.setup.github.select(*installation, &Selection::Only(vec!["hello".into()]));
    }
    let world = pool.start(&[0, 1, 2]).await;
    same(&once(&world).await, super::GRANTED);

    // The answer of one is missing: nothing is known.
    let other = pool.start(&[0, 1, 2]).await;
    let (_, installation) = pool.apps[1];
    let path = format!("installations/{installation}/access_tokens");
    other.github.fault(Fault::on(RouteKind::Mint).path_with(&path).status(502));
    let issued = other.issued().len();
    for _ in 0..3 {
        let answer = once(&other).await;
        assert_eq!((answer.code, &*answer.reason), (14, "TRUSTED_ISSUERS_UNAVAILABLE"));
    }
    assert_eq!(other.issued().len(), issued);
    other.github.heal();
    same(&once(&other).await, super::GRANTED);
}

#[tokio::test]
async fn the_app_with_the_most_calls_left_mints() {
    let pool = Pool::new().await;
    let world = pool.start(&[0, 1, 2]).await;
    pool.setup.github.set(|options| options.hourly_limit = 15_000);
    for (n, (_, installation)) in pool.apps.iter().enumerate() {
        // 14,000, 4,000 and 1,000 calls are left.
        pool.setup.github.spend_quota(*installation, [1_000, 11_000, 14_000][n]);
    }
    // Until each App's quota is known, they take turns at reading.
    for n in 0..12 {
        let name = format!("ci-{n}");
        pool.setup.policy("hello", &name, POLICY);
        let token = world.token(json!({}));
        world.client.rest(&Ask::new("octo-org/hello", &name, &token)).await;
    }
    let since = Since::now(&world);
    for _ in 0..6 {
        same(&once(&world).await, super::GRANTED);
    }
    let used = since.apps(&world);
    assert!(used.iter().all(|app| *app == pool.apps[0].0), "{used:?}");
}
