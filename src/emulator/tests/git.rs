//! git itself, cloning from and pushing to the emulated GitHub.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::*;
use crate::emulator::RouteKind;

/// A folder of this test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp").join(format!("git-{name}"));
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Whether it went well, and what it told.
async fn git(folder: &Folder, arguments: &str) -> (bool, String) {
    let mut git = Command::new("git");
    git.current_dir(&folder.0)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    git.env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "a")
        .env("GIT_AUTHOR_EMAIL", "a@b.example");
    git.env("GIT_COMMITTER_NAME", "a").env("GIT_COMMITTER_EMAIL", "a@b.example");
    let output = git.args(arguments.split(' ')).output().await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn remote(world: &World, token: &str, repo: &str) -> String {
    let root = world.github.url();
    format!(
        "http://x-access-token:{token}@{}/octo-org/{repo}.git",
        root.trim_start_matches("http://")
    )
}

async fn narrow(world: &World, level: &str) -> String {
    world.mint(json!({"repositories": ["hello"], "permissions": {"contents": level}})).await
}

#[tokio::test]
async fn what_is_pushed_is_there_for_the_api_and_the_other_way_round() {
    let (world, folder) = (World::new().await, Folder::new("both-ways"));
    world.github.serve_git(folder.0.join("served"));
    let token = narrow(&world, "write").await;
    let cloned = git(&folder, &format!("clone -q {} work", remote(&world, &token, "hello"))).await;
    assert_eq!(cloned, (true, String::new()));
    assert_eq!(std::fs::read_to_string(folder.0.join("work/README.md")).unwrap(), "# hello\n");

    std::fs::write(folder.0.join("work/new.txt"), "new\n").unwrap();
    for step in ["-C work add new.txt", "-C work commit -q -m new", "-C work push -q"] {
        assert_eq!(git(&folder, step).await, (true, String::new()), "{step}");
    }
    let file = world.get("/repos/octo-org/hello/contents/new.txt", &token).await.json();
    assert_eq!(file["content"], "bmV3Cg==\n");

    world.github.put_file("octo-org", "hello", "later.txt", "later\n");
    assert_eq!(git(&folder, "-C work pull -q").await, (true, String::new()));
    assert_eq!(std::fs::read_to_string(folder.0.join("work/later.txt")).unwrap(), "later\n");
    assert!(folder.0.join("work/new.txt").exists());
    assert!(world.github.calls().of(RouteKind::Git) > 6);
}

#[tokio::test]
async fn branches_come_and_go() {
    let (world, folder) = (World::new().await, Folder::new("branches"));
    world.github.serve_git(folder.0.join("served"));
    world.github.place_on(
        "octo-org",
        "hello",
        "dev",
        ("a/b.txt", crate::emulator::Placed::File("b".into())),
    );
    let token = narrow(&world, "write").await;
    assert!(
        git(&folder, &format!("clone -q -b dev {} work", remote(&world, &token, "hello"))).await.0
    );
    assert!(folder.0.join("work/a/b.txt").exists() && folder.0.join("work/README.md").exists());
    assert!(git(&folder, "-C work push -q origin dev:release :dev").await.0);
    let status = async |branch: &str| {
        world
            .get(&format!("/repos/octo-org/hello/contents/a/b.txt?ref={branch}"), &token)
            .await
            .status
    };
    assert_eq!((status("release").await, status("dev").await), (200, 404));
}

#[tokio::test]
async fn a_token_opens_what_it_was_minted_for() {
    let (world, folder) = (World::new().await, Folder::new("refused"));
    world.github.serve_git(folder.0.join("served"));
    let (reader, none) = (
        narrow(&world, "read").await,
        world.mint(json!({"permissions": {"issues": "write"}})).await,
    );
    assert!(git(&folder, &format!("clone -q {} work", remote(&world, &reader, "hello"))).await.0);
    assert!(git(&folder, "-C work commit -q --allow-empty -m more").await.0);
    let (pushed, told) = git(&folder, "-C work push -q").await;
    assert!(!pushed && told.contains("Write access to repository not granted"), "{told}");
    for (token, told) in [(none.as_str(), "not found"), ("ghs_made_up", "Authentication failed")] {
        let refused =
            git(&folder, &format!("clone -q {} other", remote(&world, token, "hello"))).await;
        assert!(!refused.0 && refused.1.contains(told), "{refused:?}");
    }
    let other =
        git(&folder, &format!("clone -q {} other", remote(&world, &reader, "absent"))).await;
    assert!(!other.0 && other.1.contains("not found"), "{other:?}");
    world.send(Method::DELETE, "/installation/token", &format!("token {reader}"), None).await;
    let (fetched, told) = git(&folder, "-C work fetch").await;
    assert!(!fetched && told.contains("Authentication failed"), "{told}");
}

#[tokio::test]
async fn what_is_public_is_for_everyone_to_read_under_old_names_too() {
    let (world, folder) = (World::new().await, Folder::new("public"));
    world.github.serve_git(folder.0.join("served"));
    assert!(world.github.rename("octo-org", "open", "opened"));
    let url = world.github.url();
    assert!(git(&folder, &format!("clone -q {url}/octo-org/open.git work")).await.0);
    let refused = world
        .http
        .get(&format!("{url}/octo-org/hello.git/info/refs?service=git-upload-pack"))
        .await;
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, "Basic realm=\"GitHub\"")
    );
    let (pushed, told) = git(&folder, "-C work push -q origin main:other").await;
    assert!(!pushed && told.contains("could not read Username"), "{told}");
}
