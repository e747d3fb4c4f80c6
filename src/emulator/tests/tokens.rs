//! Minting, narrowing, using and revoking installation tokens.

use super::*;
use crate::emulator::{ReplicationDelay, TokenFormat};

const PERMISSIONS: &str = "The permissions requested are not granted to this installation.";
const REPOSITORIES: &str = "There is at least one repository that does not exist or is not accessible to the parent installation.";

#[tokio::test]
async fn a_token_has_what_was_asked_for() {
    let world = World::new().await;
    let answer = world
        .try_mint(json!({"permissions": {"contents": "read"}, "repositories": ["HELLO"]}))
        .await;
    let body = answer.json();
    assert_eq!(
        body["permissions"],
        json!({"contents": "read", "metadata": "read"}),
        "metadata is added unasked"
    );
    assert_eq!(body["repositories"][0]["full_name"], "octo-org/hello");
    assert_eq!(
        (&body["repository_selection"], &body["expires_at"]),
        (&json!("selected"), &json!("2026-01-01T01:00:00Z"))
    );
    assert!(!answer.headers.contains_key("x-ratelimit-remaining"));

    let all = world.try_mint(Value::Null).await.json();
    assert_eq!(
        all["permissions"],
        json!({"contents": "write", "issues": "write", "metadata": "read"})
    );
    assert_eq!((&all["repository_selection"], &all["repositories"]), (&json!("all"), &Value::Null));
    assert_eq!(
        world.try_mint(json!({"permissions": {}})).await.json()["permissions"],
        all["permissions"]
    );

    let minted = world.github.minted();
    assert_eq!((minted.len(), minted[0].repositories.clone()), (3, Some(vec!["hello".to_owned()])));
    assert_eq!(
        minted[0].body,
        json!({"permissions": {"contents": "read"}, "repositories": ["HELLO"]})
    );
    assert_eq!(
        minted[0].sha256,
        hex::encode(keys::sha256(body["token"].as_str().unwrap().as_bytes()))
    );
}

#[tokio::test]
async fn what_cannot_be_minted() {
    let world = World::new().await;
    world.github.repo("other", "theirs", Visibility::Public);
    let many: Vec<String> = (0..501).map(|at| format!("r{at}")).collect();
    for (body, status, message) in [
        (json!({"permissions": {"test-permissions": "read"}}), 422, PERMISSIONS),
        (json!({"permissions": {"members": "read"}}), 422, PERMISSIONS),
        (json!({"permissions": {"contents": "admin"}}), 422, PERMISSIONS),
        (json!({"permissions": {"contents": "none"}}), 422, PERMISSIONS),
        (json!({"permissions": {"contents": 1}}), 422, PERMISSIONS),
        (json!({"repositories": ["nothing"]}), 422, REPOSITORIES),
        (json!({"repositories": ["theirs"]}), 422, REPOSITORIES),
        (json!({"repositories": ["octo-org/hello"]}), 422, REPOSITORIES),
        (json!({"repositories": [{}]}), 422, REPOSITORIES),
        (json!({"repository_ids": [1]}), 422, REPOSITORIES),
        (
            json!({"repositories": many}),
            422,
            "Too many repositories for installation: the maximum is 500.",
        ),
        (json!({"permissions": "read"}), 400, "Problems parsing JSON"),
        (json!({"repositories": "hello"}), 400, "Problems parsing JSON"),
        (json!([]), 400, "Body should be a JSON object"),
    ] {
        let answer = world.try_mint(body.clone()).await;
        assert_eq!((answer.status, answer.message().as_str()), (status, message), "{body}");
        assert!(
            answer.json()["documentation_url"]
                .as_str()
                .unwrap()
                .ends_with("#create-an-installation-access-token-for-an-app")
        );
    }
    world.github.set(|options| options.level_wording = true);
    let raised = world.try_mint(json!({"permissions": {"contents": "admin"}})).await;
    assert_eq!(
        raised.message(),
        "The level of access for permissions requested are not granted to this installation."
    );
    assert!(world.github.minted().is_empty() && world.github.unknown_requests().is_empty());
}

#[tokio::test]
async fn only_repositories_that_the_installation_covers() {
    let world = World::new().await;
    let theirs = world.github.repo("other", "theirs", Visibility::Public);
    let (hello, open) = ("hello", world.github.repo("octo-org", "open", Visibility::Public));
    assert!(world.github.select(world.installation, &Selection::Only(vec![hello.into()])));
    for body in [
        json!({"repository_ids": [theirs]}),
        json!({"repository_ids": [open]}),
        json!({"repositories": ["open"]}),
    ] {
        let answer = world.try_mint(body.clone()).await;
        assert_eq!((answer.status, answer.message().as_str()), (422, REPOSITORIES), "{body}");
    }
    let selected = world.try_mint(Value::Null).await.json();
    assert_eq!(
        (&selected["repository_selection"], &selected["repositories"]),
        (&json!("selected"), &Value::Null)
    );
    assert_eq!(world.try_mint(json!({"repositories": [hello]})).await.status, 201);
    assert!(world.github.select(world.installation, &Selection::All));
    let by_id = world.try_mint(json!({"repository_ids": [open]})).await.json();
    assert_eq!(by_id["repositories"][0]["name"], "open");
}

#[tokio::test]
async fn only_through_ones_own_live_installation() {
    let world = World::new().await;
    let (other, _) = world.github.app("other-app");
    let foreign = world.github.install(other, "octo-org", &Selection::All, &GRANTED);
    let mint = async |id: u64| {
        let answer = world
            .as_app(Method::POST, &format!("/app/installations/{id}/access_tokens"), None)
            .await;
        (answer.status, answer.message())
    };
    assert_eq!(mint(foreign.0).await, (404, "Not Found".into()));
    assert_eq!(mint(1).await, (404, "Not Found".into()));
    let token = world.mint(Value::Null).await;
    assert!(world.github.suspend(world.installation));
    assert_eq!(
        mint(world.installation.0).await,
        (403, "This installation has been suspended".into())
    );
    assert_eq!(world.get("/repos/octo-org/hello", &token).await.status, 403);
    assert!(world.github.unsuspend(world.installation));
    assert_eq!(world.get("/repos/octo-org/hello", &token).await.status, 200);
    assert!(world.github.uninstall(world.installation));
    assert_eq!(mint(world.installation.0).await, (404, "Not Found".into()));
    assert_eq!(world.get("/repos/octo-org/hello", &token).await.message(), "Bad credentials");
    assert!(world.github.live_tokens().is_empty());
}

#[tokio::test]
async fn both_token_formats() {
    let world = World::new().await;
    let classic = world.mint(Value::Null).await;
    assert!(
        classic.len() == 40 && classic[4..].bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{classic}"
    );
    world.github.set(|options| options.token_format = TokenFormat::Stateless);
    let stateless = world.mint(Value::Null).await;
    assert!(stateless.starts_with(&format!("ghs_{}_ey", world.app)), "{stateless}");
    assert!(
        (480..600).contains(&stateless.len()) && stateless.matches('.').count() == 2,
        "{}",
        stateless.len()
    );
    for (header, length) in
        [("disabled", 40), ("enabled", stateless.len()), ("maybe", stateless.len())]
    {
        let request = http::Request::post(format!(
            "{}/app/installations/{}/access_tokens",
            world.github.url(),
            world.installation
        ))
        .header("user-agent", "test")
        .header("authorization", format!("Bearer {}", world.jwt()))
        .header("x-github-stateless-s2s-token", header);
        let answer = world.http.try_send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.json()["token"].as_str().unwrap().len(), length, "{header}");
    }
    for token in [&classic, &stateless] {
        assert_eq!(world.get("/repos/octo-org/hello", token).await.status, 200);
        assert_eq!(
            world
                .send(Method::DELETE, "/installation/token", &format!("token {token}"), None)
                .await
                .status,
            204
        );
        assert_eq!(world.get("/repos/octo-org/hello", token).await.message(), "Bad credentials");
        assert!(world.github.token(token).unwrap().revoked);
    }
    assert_eq!((world.github.live_tokens().len(), world.github.revoked_tokens().len()), (3, 2));
}

#[tokio::test]
async fn a_token_reaches_its_repositories_with_its_permissions() {
    let world = World::new().await;
    world.github.repo("octo-org", "second", Visibility::Private);
    let token =
        world.mint(json!({"repositories": ["hello"], "permissions": {"issues": "write"}})).await;
    let bearer = format!("Bearer {token}");
    let issue = Some(json!({"title": "It works"}));
    let made =
        world.send(Method::POST, "/repos/octo-org/hello/issues", &bearer, issue.clone()).await;
    assert_eq!((made.status, &made.json()["user"]["login"]), (201, &json!("octo-sts[bot]")));
    assert!(made.json()["user"]["url"].as_str().unwrap().ends_with("/users/octo-sts%5Bbot%5D"));
    assert_eq!(made.json()["user"]["html_url"], "https://github.com/apps/octo-sts");
    assert_eq!(
        world.get("/repos/octo-org/hello/issues", &token).await.json()[0]["title"],
        "It works"
    );

    let refused = world.get("/repos/octo-org/hello/contents/README.md", &token).await;
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (403, "Resource not accessible by integration")
    );
    assert_eq!(refused.header("x-accepted-github-permissions"), "contents=read");
    assert_eq!(world.get("/repos/octo-org/second", &token).await.message(), "Not Found");
    assert_eq!(
        world.get("/repos/octo-org/open/contents/README.md", &token).await.status,
        200,
        "public"
    );
    assert_eq!(
        world.send(Method::POST, "/repos/octo-org/open/issues", &bearer, issue).await.status,
        403
    );
    let listed = world.get("/installation/repositories", &token).await.json();
    assert_eq!(
        (&listed["total_count"], &listed["repositories"][0]["name"]),
        (&json!(1), &json!("hello"))
    );

    assert!(world.github.set_permissions(world.installation, &[]));
    assert_eq!(
        world.get("/repos/octo-org/hello/issues", &token).await.status,
        403,
        "the installation lost it"
    );
    assert!(world.github.select(world.installation, &Selection::Only(vec!["second".into()])));
    assert_eq!(world.get("/repos/octo-org/hello/issues", &token).await.status, 404);
}

#[tokio::test]
async fn tokens_end_after_an_hour() {
    let world = World::new().await;
    let token = world.mint(Value::Null).await;
    world.advance(3_599);
    assert_eq!(world.get("/repos/octo-org/hello", &token).await.status, 200);
    world.advance(1);
    assert_eq!(world.get("/repos/octo-org/hello", &token).await.message(), "Bad credentials");
    assert_eq!(
        world.get("/repos/octo-org/open", "ghs_nonsense").await.status,
        401,
        "public, but a bad token"
    );
    assert_eq!(
        world.get("/repos/octo-org/open", "").await.status,
        200,
        "nobody may read what is public"
    );
    assert_eq!(world.get("/repos/octo-org/hello", "").await.status, 404);
}

#[tokio::test]
async fn fresh_tokens_spread_slowly() {
    let world = World::new().await;
    world.github.set(|options| {
        options.replication_delay =
            ReplicationDelay::Requests { unauthorized: 1, forbidden: 1, not_found: 1 }
    });
    let token = world.mint(Value::Null).await;
    for status in [401, 403, 404, 200] {
        assert_eq!(
            world.get("/repos/octo-org/hello/contents/README.md", &token).await.status,
            status
        );
    }
    let second = Duration::from_secs(1);
    world.github.set(|options| {
        options.replication_delay =
            ReplicationDelay::Time { unauthorized: second, forbidden: second, not_found: second }
    });
    let token = world.mint(Value::Null).await;
    for (private, public) in [(401, 401), (403, 403), (404, 200), (200, 200)] {
        assert_eq!(world.get("/repos/octo-org/hello", &token).await.status, private);
        assert_eq!(world.get("/repos/octo-org/open", &token).await.status, public);
        world.advance(1);
    }
}

#[tokio::test]
async fn what_github_does_not_document_fails_loudly() {
    let world = World::new().await;
    let both = json!({"repositories": ["hello"], "repository_ids": [1]});
    assert_eq!(world.try_mint(both).await.status, 501);
    assert_eq!(world.try_mint(json!({"repositories": []})).await.status, 501);
    assert_eq!(world.get("/search/code?q=x", "").await.status, 501);
    assert_eq!(world.send(Method::PATCH, "/repos/octo-org/hello", "", None).await.status, 501);
    let mint = format!("POST /app/installations/{}/access_tokens", world.installation);
    assert_eq!(
        world.github.unknown_requests(),
        [&mint, &mint, "GET /search/code", "PATCH /repos/octo-org/hello"]
    );
    assert!(world.github.live_tokens().is_empty());
}
