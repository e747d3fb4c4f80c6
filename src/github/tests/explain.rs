//! What an installation lacks is named where GitHub does not say.

use super::*;

const PERMISSION_TEXT: &str = "The permissions requested are not granted to this installation.";
const REPOSITORY_TEXT: &str = "There is at least one repository that does not exist or is not accessible to the parent installation.";

async fn refused(world: &World, grant: &Grant) -> String {
    let error = world
        .github
        .mint(grant, &world.installation().await, &MintCalls::default())
        .await
        .unwrap_err();
    crate::exchange::refusal_of_github(&error, &owner()).message.into_owned()
}

#[tokio::test]
async fn permissions_are_compared_with_those_of_the_installation() {
    for text in [
        PERMISSION_TEXT,
        "The level of access for permissions requested are not granted to this installation.",
    ] {
        let world = World::new(on(MINT, move |_| refusal(422, text))).await;
        let wide = grant(
            &["hello"],
            &[("contents", Level::Write), ("deployments", Level::Read), ("issues", Level::Read)],
        );
        let message = refused(&world, &wide).await;
        assert!(
            message.ends_with(
                "which lacks contents: write (it has read), deployments: read (it has none)"
            ),
            "{message}"
        );
    }
}

#[tokio::test]
async fn repositories_are_looked_up_one_by_one_and_the_answer_is_cached() {
    let script = |seen: &Seen| match seen.line.as_str() {
        MINT => Some(refusal(422, REPOSITORY_TEXT)),
        "GET /api/v3/repos/octo-org/gone/installation" => Some(refusal(404, "Not Found")),
        "GET /api/v3/repos/octo-org/renamed/installation" => {
            Some(refusal(301, "Moved Permanently"))
        }
        _ => None,
    };
    let world = World::new(script).await;
    let some = grant(&["hello", "gone", "other", "renamed"], &[("issues", Level::Read)]);
    for _ in 0..3 {
        let message = refused(&world, &some).await;
        assert!(message.ends_with("which does not see gone, renamed"), "{message}");
    }
    assert_eq!(world.fake.count("GET /api/v3/repos/"), 4);
    world.clock.advance(Duration::from_secs(60));
    refused(&world, &some).await;
    assert_eq!(world.fake.count("GET /api/v3/repos/"), 8);
    let message = refused(&world, &grant(&["gone"], &[("issues", Level::Read)])).await;
    assert!(message.ends_with("which does not see gone"), "{message}");
    assert_eq!(world.fake.count("GET /api/v3/repos/"), 8, "it can only be the one");
}

#[tokio::test]
async fn a_refusal_without_an_explanation_is_still_one() {
    let script = |seen: &Seen| match seen.line.as_str() {
        MINT if seen.body["repositories"].as_array().is_some_and(|names| names.len() > 1) => {
            Some(refusal(422, REPOSITORY_TEXT))
        }
        MINT => Some(refusal(422, PERMISSION_TEXT)),
        LOOK_UP => None,
        _ => Some(refusal(500, "oops")),
    };
    let world = World::new(script).await;
    let message = refused(&world, &grant(&["hello"], &[("deployments", Level::Read)])).await;
    assert_eq!(message, "GitHub refuses the policy's permissions for this installation");
    let message = refused(&world, &grant(&["hello", "gone"], &[("issues", Level::Read)])).await;
    assert_eq!(message, "GitHub refuses the policy's repositories for this installation");
}
