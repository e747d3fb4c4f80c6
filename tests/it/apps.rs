//! Several Apps: which one serves which owner, and the file of Apps as it changes.

use std::time::Duration;

use octo_sts::{
    emulator::{Selection, TokenRecord, generate_rsa_pem},
    name::AppId,
    telemetry::Metrics,
};

use crate::harness::{APP_PERMISSIONS, DOMAIN, Folder, POLICY, Setup, World, settings};

/// A setup with a second App on `octo-org`, whose Apps come from a file.
struct Filed {
    setup: Setup,
    folder: Folder,
    keys: [(AppId, String); 2],
}

impl Filed {
    async fn new() -> Self {
        let mut setup = Setup::with_policy(POLICY).await;
        let first = setup.github.app("first");
        let second = setup.github.app("second");
        for (app, _) in [&first, &second] {
            setup.github.install(*app, "octo-org", &Selection::All, APP_PERMISSIONS);
        }
        let keys = [first, second];
        let folder = Folder::new();
        let file = folder.file("apps.yaml", &file(&[("octo-org", &keys[0])]));
        let from_file = settings(&[
            ("STS_DOMAIN", DOMAIN),
            ("APP_CONFIG_FILE", &file),
            ("GITHUB_BASE_URL", &setup.github.url()),
        ]);
        setup.settings.github = from_file.github;
        setup.settings.apps = from_file.apps;
        Self { setup, folder, keys }
    }
}

/// The text of a file with one App for each owner.
fn file(owners: &[(&str, &(AppId, String))]) -> String {
    let org = |(owner, (id, pem)): &(&str, &(AppId, String))| {
        let pem = pem.trim_end().replace('\n', "\n          ");
        format!(
            "  - name: '{owner}'\n    apps:\n      - app_id: {id}\n        private_key: |\n          {pem}\n"
        )
    };
    format!("orgs:\n{}", owners.iter().map(org).collect::<String>())
}

/// Who issued the last token for a caller.
fn last(issued: &[TokenRecord]) -> AppId {
    issued.last().unwrap().app
}

/// Moves the time until the file has been read again and `is_so`.
async fn reloaded(world: &World, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        world.clock.advance(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
        if is_so() {
            return;
        }
    }
    panic!("the file was not read again");
}

#[tokio::test]
async fn a_changed_file_replaces_the_apps_and_an_error_does_not() {
    let (recorder, page) = Metrics::recorder().unwrap();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let Filed { setup, folder, keys } = Filed::new().await;
    let world = setup.start().await;
    let shows = |value: &str| page.render().contains(&format!("octosts_apps_file_ok {value}\n"));
    assert_eq!(world.usual().await.rest.code, 0);
    assert_eq!(last(&world.issued()), keys[0].0);

    let second = file(&[("OCTO-org", &keys[1])]);
    for broken in [&second[..second.len() / 2], "", "orgs: []\n", &format!("{second}---\n{second}")]
    {
        folder.file("apps.yaml", broken);
        reloaded(&world, || shows("0")).await;
        assert_eq!(world.usual().await.rest.code, 0);
        assert_eq!(last(&world.issued()), keys[0].0, "{broken}");
        folder.file("apps.yaml", &file(&[("octo-org", &keys[0])]));
        reloaded(&world, || shows("1")).await;
    }
    std::fs::remove_file(folder.path().join("apps.yaml")).unwrap();
    reloaded(&world, || shows("0")).await;
    assert_eq!(world.usual().await.rest.code, 0);
    assert_eq!(last(&world.issued()), keys[0].0);

    folder.file("apps.yaml", &second);
    reloaded(&world, || shows("1")).await;
    assert_eq!(world.usual().await.rest.code, 0);
    assert_eq!(last(&world.issued()), keys[1].0);

    // An owner that the file does not list any more.
    folder.file("apps.yaml", &file(&[("other-org", &keys[1])]));
    let issued = world.issued().len();
    for _ in 0..500 {
        world.clock.advance(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let answer = world.usual().await.rest;
        if answer.code != 0 {
            assert_eq!((answer.code, answer.reason.as_str()), (5, "NO_APP"));
            let after = world.issued().len();
            assert_eq!(world.usual().await.rest.reason, "NO_APP");
            assert_eq!(world.issued().len(), after, "a refusal mints nothing");
            assert!(after >= issued);
            return;
        }
    }
    panic!("the owner is served still");
}

/// The usual world, whose App's key is in a file that holds `pem`.
async fn with_key_file(pem: impl Fn(&Setup) -> String) -> (Setup, Folder) {
    let mut setup = Setup::with_policy(POLICY).await;
    let folder = Folder::new();
    let file = folder.file("app.pem", &pem(&setup));
    let read = settings(&[
        ("STS_DOMAIN", DOMAIN),
        ("GITHUB_APP_IDS", &setup.app.to_string()),
        ("APP_SECRET_CERTIFICATE_FILE", &file),
        ("GITHUB_BASE_URL", &setup.github.url()),
    ]);
    setup.settings.github = read.github;
    setup.settings.apps = read.apps;
    setup.settings.github.first_backoff = Duration::from_millis(1);
    (setup, folder)
}

#[tokio::test]
async fn a_changed_key_file_is_used_and_a_broken_one_is_not() {
    let (recorder, page) = Metrics::recorder().unwrap();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let shows = |value: &str| page.render().contains(&format!("octosts_apps_file_ok {value}\n"));
    let (old, old_public) = generate_rsa_pem();
    let (new, new_public) = generate_rsa_pem();
    let (setup, folder) = with_key_file(|_| old.clone()).await;
    setup.github.remove_keys(setup.app);
    setup.github.add_key(setup.app, old_public);
    let app = setup.app;
    let world = setup.start().await;
    assert_eq!(world.usual().await.rest.code, 0);
    for broken in ["", &new[..new.len() / 2], "-----BEGIN EC PRIVATE KEY-----"] {
        folder.file("app.pem", broken);
        reloaded(&world, || shows("0")).await;
        assert_eq!(world.usual().await.rest.code, 0, "the old key serves");
        folder.file("app.pem", &old);
        reloaded(&world, || shows("1")).await;
    }
    // GitHub has the new key alone: the old one is refused until the file is read again.
    world.github.remove_keys(app);
    world.github.add_key(app, new_public);
    folder.file("app.pem", &new);
    for _ in 0..500 {
        world.clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
        if world.usual().await.rest.code == 0 {
            return;
        }
    }
    panic!("the new key is not used");
}

#[tokio::test]
async fn during_a_rotation_whichever_key_github_has_signs() {
    let (first, first_public) = generate_rsa_pem();
    let (second, second_public) = generate_rsa_pem();
    let (setup, _folder) = with_key_file(|_| format!("{first}{second}")).await;
    let (github, app) = (setup.github.clone(), setup.app);
    let keep = |key: &octo_sts::emulator::PublicKey| {
        github.remove_keys(app);
        github.add_key(app, key.clone());
    };
    keep(&first_public);
    let world = setup.start().await;
    for key in [&first_public, &second_public, &second_public, &first_public] {
        keep(key);
        // A new JWT is needed, and the key of the last one may be refused.
        for _ in 0..3 {
            world.clock.advance(Duration::from_secs(9 * 60));
            let outcome = world.usual().await;
            assert_eq!(outcome.rest.code, 0, "{}", outcome.rest.message);
        }
    }
    // GitHub has neither: nobody gets a token, and no call goes round for ever.
    github.remove_keys(app);
    world.clock.advance(Duration::from_secs(9 * 60));
    let minted = github.minted().len();
    let calls = github.calls().total();
    let outcome = world.usual().await;
    assert_eq!(outcome.rest.code, 13, "{}", outcome.rest.message);
    assert_eq!(github.minted().len(), minted);
    assert!(github.calls().total() - calls <= 16, "{}", github.calls().total() - calls);
}

#[tokio::test]
async fn owners_that_are_not_listed_use_the_others_pool() {
    let Filed { setup, folder, keys } = Filed::new().await;
    for (owners, expected) in [
        (vec![("*", &keys[1])], Some(keys[1].0)),
        (vec![("other-org", &keys[0]), ("*", &keys[1])], Some(keys[1].0)),
        (vec![("octo-org", &keys[0]), ("*", &keys[1])], Some(keys[0].0)),
        (vec![("other-org", &keys[0])], None),
    ] {
        let file = folder.file("apps.yaml", &file(&owners));
        let read = settings(&[
            ("STS_DOMAIN", DOMAIN),
            ("APP_CONFIG_FILE", &file),
            ("GITHUB_BASE_URL", &setup.github.url()),
        ]);
        let mut again = Setup::with_policy(POLICY).await;
        again.settings.github = read.github;
        again.settings.apps = read.apps;
        again.settings.oidc = setup.settings.oidc.clone();
        again.github = setup.github.clone();
        again.issuer = setup.issuer.clone();
        again.clock = setup.clock.clone();
        let world = again.start().await;
        let before = world.issued().len();
        let answer = world.usual().await.rest;
        match expected {
            Some(app) => {
                assert_eq!(answer.code, 0, "{owners:?}: {}", answer.message);
                assert_eq!(last(&world.issued()), app);
            }
            None => {
                assert_eq!(answer.reason, "NO_APP");
                assert_eq!(world.issued().len(), before);
            }
        }
        world.stop().await;
    }
}
