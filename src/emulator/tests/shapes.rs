//! Answers have every field that GitHub's OpenAPI description (2022-11-28) requires.

use super::*;

const ACCOUNT: &str = "avatar_url events_url followers_url following_url gists_url gravatar_id html_url id node_id \
    login organizations_url received_events_url repos_url site_admin starred_url subscriptions_url type url";
const APP: &str = "id node_id owner name description external_url html_url created_at updated_at permissions events";
const INSTALLATION: &str = "id app_id app_slug target_id target_type single_file_name repository_selection \
    access_tokens_url html_url repositories_url events account permissions created_at updated_at suspended_by \
    suspended_at";
const FILE: &str = "_links git_url html_url download_url name path sha size type url content encoding _links/git _links/html _links/self";
const REPOSITORY: &str = "archive_url assignees_url blobs_url branches_url collaborators_url comments_url commits_url \
    compare_url contents_url contributors_url deployments_url description downloads_url events_url fork forks_url \
    full_name git_commits_url git_refs_url git_tags_url hooks_url html_url id node_id issue_comment_url \
    issue_events_url issues_url keys_url labels_url languages_url merges_url milestones_url name notifications_url \
    owner private pulls_url releases_url stargazers_url statuses_url subscribers_url subscription_url tags_url \
    teams_url trees_url url clone_url default_branch forks forks_count git_url has_issues has_projects has_wiki \
    has_pages has_discussions has_downloads homepage language archived disabled mirror_url open_issues \
    open_issues_count license pushed_at size ssh_url stargazers_count svn_url watchers watchers_count created_at \
    updated_at";
const ISSUE: &str = "assignee closed_at comments comments_url events_url html_url id node_id labels labels_url \
    milestone number repository_url state locked title url user created_at updated_at";

fn missing(body: &Value, fields: &str) -> Vec<String> {
    let absent = |field: &&str| body.pointer(&format!("/{field}")).is_none();
    fields.split_whitespace().filter(absent).map(str::to_owned).collect()
}

#[tokio::test]
async fn required_fields_are_there() {
    let world = World::new().await;
    let token = world.mint(Value::Null).await;
    let issue = Some(json!({"title": "t"}));
    let issue = world
        .send(Method::POST, "/repos/octo-org/hello/issues", &format!("token {token}"), issue)
        .await
        .json();
    let app = world.as_app(Method::GET, "/app", None).await.json();
    let installation = world.as_app(Method::GET, "/orgs/octo-org/installation", None).await.json();
    let minted = world.try_mint(json!({"repositories": ["hello"]})).await.json();
    let repository = world.get("/repos/octo-org/hello", &token).await.json();
    let file = world.get("/repos/octo-org/hello/contents/README.md", &token).await.json();
    let rate = world.get("/rate_limit", &token).await.json();
    for (body, fields) in [
        (&app, APP),
        (&app["owner"], ACCOUNT),
        (&installation, INSTALLATION),
        (&installation["account"], ACCOUNT),
        (&minted, "token expires_at permissions repository_selection repositories"),
        (&minted["repositories"][0], REPOSITORY),
        (&repository, REPOSITORY),
        (&repository, "network_count subscribers_count"),
        (&repository["owner"], ACCOUNT),
        (&file, FILE),
        (&issue, ISSUE),
        (&issue["user"], ACCOUNT),
        (&rate, "rate resources resources/core resources/search"),
        (&rate["rate"], "limit remaining reset used"),
    ] {
        assert_eq!(missing(body, fields), Vec::<String>::new(), "{body}");
    }
    assert_eq!(missing(&json!({"id": 1}), "id name"), ["name"]);
}
