//! Reading and writing files, entity tags, and repositories that move.

use super::*;
use crate::emulator::Placed;

const FILE: &str = "/repos/octo-org/hello/contents/.github/chainguard/ci.sts.yaml";
const PATH: &str = ".github/chainguard/ci.sts.yaml";

async fn reader() -> (World, String) {
    let world = World::new().await;
    world.github.put_file("octo-org", "hello", PATH, "issuer: x\n");
    let token =
        world.mint(json!({"repositories": ["hello"], "permissions": {"contents": "read"}})).await;
    (world, token)
}

#[tokio::test]
async fn a_file_as_json_and_raw() {
    let (world, token) = reader().await;
    let answer = world.get(&FILE.replace("octo-org", "OCTO-ORG"), &token).await;
    let body = answer.json();
    assert_eq!(
        (&body["type"], &body["encoding"], &body["content"]),
        (&json!("file"), &json!("base64"), &json!("aXNzdWVyOiB4Cg==\n"))
    );
    assert_eq!((&body["path"], &body["size"]), (&json!(PATH), &json!(10)));
    assert_eq!(body["sha"], "4625329ef2e6eaa4b8d71fd7fcefab89188945ce", "git's");
    let raw = world.get_with(FILE, &token, ("accept", "application/vnd.github.raw+json")).await;
    assert_eq!(
        (&raw.body[..], raw.header("content-type")),
        (&b"issuer: x\n"[..], "application/vnd.github.raw+json; charset=utf-8")
    );
    let long = "x".repeat(100);
    world.github.put_file("octo-org", "hello", "long", &long);
    let content =
        world.get("/repos/octo-org/hello/contents/long", &token).await.json()["content"].clone();
    assert_eq!(content.as_str().unwrap().lines().map(str::len).collect::<Vec<_>>(), [60, 60, 16]);
    for (path, message) in [
        ("/repos/octo-org/hello/contents/nothing", "Not Found"),
        ("/repos/octo-org/hello/contents/README.md/x", "Not Found"),
        ("/repos/octo-org/hello/contents/../README.md", "Not Found"),
        ("/repos/octo-org/hello/contents/README.md?ref=nope", "No commit found for the ref nope"),
    ] {
        let answer = world.get(path, &token).await;
        assert_eq!((answer.status, answer.message().as_str()), (404, message), "{path}");
    }
    world.github.empty_repo("octo-org", "void", Visibility::Public);
    assert_eq!(
        world.get("/repos/octo-org/void/contents/a", &token).await.message(),
        "This repository is empty."
    );
}

#[tokio::test]
async fn what_is_no_plain_file() {
    let (world, token) = reader().await;
    let place = |path: &str, placed| world.github.place("octo-org", "hello", path, placed);
    place("links/good", Placed::Symlink("../.github/chainguard/ci.sts.yaml".into()));
    place("links/out", Placed::Symlink("../../README.md".into()));
    place("links/dir", Placed::Symlink("../.github".into()));
    place("module", Placed::Submodule("https://github.com/octo-org/open.git".into()));
    place("mb", Placed::Zeros(1 << 20));
    place("mb1", Placed::Zeros((1 << 20) + 1));
    place("huge", Placed::Zeros((100 << 20) + 1));
    let get = async |path: &str| {
        world.get(&format!("/repos/octo-org/hello/contents/{path}"), &token).await
    };
    let good = get("links/good").await.json();
    assert_eq!(
        (&good["type"], &good["path"]),
        (&json!("file"), &json!(PATH)),
        "the file that it leads to"
    );
    for (path, target) in [("links/out", "../../README.md"), ("links/dir", "../.github")] {
        let body = get(path).await.json();
        assert_eq!((&body["type"], &body["target"]), (&json!("symlink"), &json!(target)));
    }
    assert_eq!(
        get("links/dir/chainguard").await.status,
        404,
        "a path does not lead through a link"
    );
    let module = get("module").await.json();
    assert_eq!(
        (&module["type"], &module["submodule_git_url"]),
        (&json!("submodule"), &json!("https://github.com/octo-org/open.git"))
    );
    assert_eq!(get("mb").await.json()["encoding"], "base64");
    let large = get("mb1").await.json();
    assert_eq!(
        (&large["encoding"], &large["content"], &large["size"]),
        (&json!("none"), &json!(""), &json!(1_048_577))
    );
    let huge = get("huge").await;
    assert_eq!((huge.status, &huge.json()["errors"][0]["code"]), (403, &json!("too_large")));
    let slash = get(".github/").await;
    let id = world.get("/repos/octo-org/hello", &token).await.json()["id"].clone();
    assert_eq!(
        (slash.status, slash.header("location").to_owned()),
        (302, format!("{}/repositories/{id}/contents/.github", world.github.url()))
    );
}

#[tokio::test]
async fn a_directory_lists_what_is_in_it() {
    let (world, token) = reader().await;
    world.github.place("octo-org", "hello", ".github/sub", Placed::Submodule("x".into()));
    let listed = world.get("/repos/octo-org/hello/contents/.github", &token).await.json();
    let shown: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["type"].as_str().unwrap(), item["path"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("dir", ".github/chainguard"), ("file", ".github/sub")]);
    assert!(listed[0].get("content").is_none());
    let newer = ("x-github-api-version", "2026-03-10");
    let listed =
        world.get_with("/repos/octo-org/hello/contents/.github", &token, newer).await.json();
    assert_eq!(listed[1]["type"], "submodule");
    let object = world
        .get_with(
            "/repos/octo-org/hello/contents/.github",
            &token,
            ("accept", "application/vnd.github.object+json"),
        )
        .await
        .json();
    assert_eq!((&object["type"], object["entries"].as_array().unwrap().len()), (&json!("dir"), 2));
    for at in 0..1_001 {
        world.github.put_file("octo-org", "many", &format!("f{at}"), "");
    }
    let token = world.mint(Value::Null).await;
    let many = world.get("/repos/octo-org/many/contents", &token).await.json();
    assert_eq!(many.as_array().unwrap().len(), 1_000);
}

#[tokio::test]
async fn entity_tags_belong_to_one_token_and_unchanged_is_free() {
    let (world, token) = reader().await;
    let first = world.get(FILE, &token).await;
    let tag = first.header("etag").to_owned();
    let used = world.github.installation(world.installation).unwrap().quota_used;
    let unchanged = world.get_with(FILE, &token, ("if-none-match", &tag)).await;
    assert_eq!(
        (unchanged.status, unchanged.body.len(), unchanged.header("etag")),
        (304, 0, tag.as_str())
    );
    assert_eq!(unchanged.header("x-ratelimit-used"), used.to_string());
    let other =
        world.mint(json!({"repositories": ["hello"], "permissions": {"contents": "read"}})).await;
    assert_eq!(
        world.get_with(FILE, &other, ("if-none-match", &tag)).await.status,
        200,
        "another token"
    );
    let raw = world.get_with(FILE, &token, ("accept", "application/vnd.github.raw+json")).await;
    assert_ne!(raw.header("etag"), tag);
    world.github.put_file("octo-org", "hello", PATH, "issuer: y\n");
    let changed = world.get_with(FILE, &token, ("if-none-match", &tag)).await;
    assert_eq!(changed.status, 200);
    world.github.remove_file("octo-org", "hello", PATH);
    assert_eq!(world.get_with(FILE, &token, ("if-none-match", &tag)).await.status, 404);
}

#[tokio::test]
async fn a_moved_repository_redirects_until_its_name_is_taken() {
    let (world, token) = reader().await;
    let id = world.github.repo("octo-org", "hello", Visibility::Private);
    assert!(world.github.rename("octo-org", "hello", "renamed"));
    let moved = world.get(&format!("{FILE}?ref=main"), &token).await;
    let to = format!("{}/repositories/{id}/contents/{PATH}?ref=main", world.github.url());
    assert_eq!(
        (moved.status, moved.header("location"), &moved.json()["url"]),
        (301, to.as_str(), &json!(to))
    );
    assert_eq!(moved.message(), "Moved Permanently");
    let path = to.strip_prefix(&world.github.url()).unwrap();
    assert_eq!(world.get(path, &token).await.json()["path"], PATH);
    let posted = world
        .send(
            Method::POST,
            "/repos/octo-org/hello/issues",
            &format!("token {token}"),
            Some(json!({})),
        )
        .await;
    assert_eq!(posted.status, 307);
    assert_eq!(
        world.as_app(Method::GET, "/repos/octo-org/hello/installation", None).await.status,
        301
    );
    assert_eq!(
        world.get("/repos/octo-org/hello", "").await.status,
        404,
        "who may not see it learns nothing"
    );

    let taken = world.github.repo("octo-org", "hello", Visibility::Private);
    assert_ne!(taken, id);
    assert_eq!(
        world.get("/repos/octo-org/hello", &token).await.status,
        404,
        "another repository, not the token's"
    );
    assert!(world.github.delete_repo("octo-org", "hello"));
    assert_eq!(
        world.get("/repos/octo-org/hello", &token).await.status,
        404,
        "the redirect ended when the name was taken"
    );
    assert!(world.github.transfer("octo-org", "renamed", "elsewhere"));
    assert_eq!(world.get("/repos/elsewhere/renamed", &token).await.status, 404);
    assert!(world.github.delete_repo("elsewhere", "renamed"));
    assert!(!world.github.delete_repo("elsewhere", "renamed"));
}

#[tokio::test]
async fn writing_a_file() {
    let world = World::new().await;
    let token = world.mint(json!({"permissions": {"contents": "write"}})).await;
    let put = async |path: &str, body: Value| {
        world
            .send(
                Method::PUT,
                &format!("/repos/octo-org/hello/contents/{path}"),
                &format!("token {token}"),
                Some(body),
            )
            .await
    };
    let made = put("new.txt", json!({"message": "m", "content": "aGk="})).await;
    assert_eq!(made.status, 201);
    let sha = made.json()["content"]["sha"].clone();
    assert_eq!(put("new.txt", json!({"message": "m", "content": "aGk="})).await.status, 422);
    assert_eq!(
        put("new.txt", json!({"message": "m", "content": "aGk=", "sha": "0"})).await.status,
        409
    );
    assert_eq!(
        put("new.txt", json!({"message": "m", "content": "eW8=", "sha": sha})).await.status,
        200
    );
    assert_eq!(
        world.get("/repos/octo-org/hello/contents/new.txt", &token).await.json()["content"],
        "eW8=\n"
    );
    assert_eq!(put("a/../b", json!({"message": "m", "content": "aGk="})).await.status, 422);
    let workflow =
        put(".github/workflows/ci.yml", json!({"message": "m", "content": "aGk="})).await;
    assert_eq!(workflow.header("x-accepted-github-permissions"), "contents=write,workflows=write");
    let reader = world.mint(json!({"permissions": {"contents": "read"}})).await;
    let refused = world
        .send(
            Method::PUT,
            "/repos/octo-org/hello/contents/x",
            &format!("token {reader}"),
            Some(json!({})),
        )
        .await;
    assert_eq!(
        (refused.status, refused.header("x-accepted-github-permissions")),
        (403, "contents=write")
    );
}

#[tokio::test]
async fn a_renamed_account_answers_under_its_new_name() {
    let (world, token) = reader().await;
    assert!(world.github.rename_account("octo-org", "new-org"));
    assert_eq!(world.as_app(Method::GET, "/users/octo-org/installation", None).await.status, 404);
    let installation = world.as_app(Method::GET, "/orgs/new-org/installation", None).await.json();
    assert_eq!(
        (&installation["id"], &installation["account"]["login"]),
        (&json!(world.installation), &json!("new-org"))
    );
    assert_eq!(world.get(FILE, &token).await.status, 301);
    assert_eq!(world.get(&FILE.replace("octo-org", "new-org"), &token).await.status, 200);
    world.github.org("octo-org");
    assert!(!world.github.rename_account("new-org", "octo-org"), "taken");
}
