//! The JSON of accounts, repositories, installations, Apps and issues, with every field that
//! GitHub's OpenAPI description requires.

use serde_json::{Map, Value, json};

use super::super::keys::base64url;
use super::{
    files::{Issue, Repository},
    state::{Account, App, Installation, State},
};

/// Where pages (not the API) are.
const WEB: &str = "https://github.com";

pub(super) fn node_id(kind: &str, id: u64) -> String {
    base64url(format!("0:{kind}{id}"))
}

/// A `simple-user`.
pub(super) fn account(state: &State, account: &Account) -> Value {
    let (api, login) = (&state.api, &account.login);
    // A bot's login ends in `[bot]`, and its page is its App's.
    let own = format!("{api}/users/{}", login.replace('[', "%5B").replace(']', "%5D"));
    let page =
        login.strip_suffix("[bot]").map_or_else(|| login.clone(), |slug| format!("apps/{slug}"));
    let mut shape = json!({
        "login": login,
        "id": account.id,
        "node_id": node_id("User", account.id),
        "avatar_url": format!("{WEB}/images/{}.png", account.id),
        "gravatar_id": "",
        "url": own,
        "html_url": format!("{WEB}/{page}"),
        "gists_url": format!("{own}/gists{{/gist_id}}"),
        "starred_url": format!("{own}/starred{{/owner}}{{/repo}}"),
        "following_url": format!("{own}/following{{/other_user}}"),
        "events_url": format!("{own}/events{{/privacy}}"),
        "type": if account.is_org { "Organization" } else { "User" },
        "site_admin": false,
    });
    for name in ["followers", "subscriptions", "orgs", "repos", "received_events"] {
        let field =
            if name == "orgs" { "organizations_url".to_owned() } else { format!("{name}_url") };
        insert(&mut shape, &field, format!("{own}/{name}"));
    }
    shape
}

pub(super) fn account_by_id(state: &State, id: u64) -> Value {
    state.accounts.get(&id).map_or(Value::Null, |found| account(state, found))
}

/// A `minimal-repository` and what the `repository` schema requires beyond it.
pub(super) fn repository(state: &State, repository: &Repository) -> Value {
    let owner = state.login(repository.owner);
    let full_name = format!("{owner}/{}", repository.name);
    let (url, web) = (format!("{}/repos/{full_name}", state.api), format!("{WEB}/{full_name}"));
    let mut shape = json!({
        "id": repository.id,
        "node_id": node_id("Repository", repository.id),
        "name": repository.name,
        "full_name": full_name,
        "owner": account_by_id(state, repository.owner),
        "private": repository.private,
        "visibility": if repository.private { "private" } else { "public" },
        "html_url": web,
        "url": url,
        "git_url": format!("git://github.com/{full_name}.git"),
        "ssh_url": format!("git@github.com:{full_name}.git"),
        "clone_url": format!("{web}.git"),
        "svn_url": web,
        "default_branch": repository.default_branch,
        "created_at": repository.created_at.rfc3339(),
        "updated_at": repository.created_at.rfc3339(),
        "pushed_at": repository.pushed_at.rfc3339(),
        "size": 0,
        "topics": [],
        "open_issues": repository.issues.len(),
        "open_issues_count": repository.issues.len(),
    });
    for name in ["description", "homepage", "language", "license", "mirror_url"] {
        insert(&mut shape, name, Value::Null);
    }
    for (name, value) in
        [("fork", false), ("archived", false), ("disabled", false), ("is_template", false)]
    {
        insert(&mut shape, name, value);
    }
    for (name, value) in [
        ("issues", true),
        ("projects", true),
        ("wiki", true),
        ("pages", false),
        ("downloads", true),
        ("discussions", false),
    ] {
        insert(&mut shape, &format!("has_{name}"), value);
    }
    for name in ["forks", "forks_count", "stargazers_count", "watchers", "watchers_count"] {
        insert(&mut shape, name, 0);
    }
    insert_links(&mut shape, &url);
    shape
}

/// The link templates of a repository.
fn insert_links(shape: &mut Value, url: &str) {
    const LINKS: [(&str, &str); 38] = [
        ("archive", "/{archive_format}{/ref}"),
        ("assignees", "/assignees{/user}"),
        ("blobs", "/git/blobs{/sha}"),
        ("branches", "/branches{/branch}"),
        ("collaborators", "/collaborators{/collaborator}"),
        ("comments", "/comments{/number}"),
        ("commits", "/commits{/sha}"),
        ("compare", "/compare/{base}...{head}"),
        ("contents", "/contents/{+path}"),
        ("contributors", "/contributors"),
        ("deployments", "/deployments"),
        ("downloads", "/downloads"),
        ("events", "/events"),
        ("forks", "/forks"),
        ("git_commits", "/git/commits{/sha}"),
        ("git_refs", "/git/refs{/sha}"),
        ("git_tags", "/git/tags{/sha}"),
        ("hooks", "/hooks"),
        ("issue_comment", "/issues/comments{/number}"),
        ("issue_events", "/issues/events{/number}"),
        ("issues", "/issues{/number}"),
        ("keys", "/keys{/key_id}"),
        ("labels", "/labels{/name}"),
        ("languages", "/languages"),
        ("merges", "/merges"),
        ("milestones", "/milestones{/number}"),
        ("notifications", "/notifications{?since,all,participating}"),
        ("pulls", "/pulls{/number}"),
        ("releases", "/releases{/id}"),
        ("stargazers", "/stargazers"),
        ("statuses", "/statuses/{sha}"),
        ("subscribers", "/subscribers"),
        ("subscription", "/subscription"),
        ("tags", "/tags"),
        ("teams", "/teams"),
        ("trees", "/git/trees{/sha}"),
        ("mentions", "/mentions"),
        ("temp_clone", "/temp_clone"),
    ];
    for (name, path) in LINKS {
        insert(shape, &format!("{name}_url"), format!("{url}{path}"));
    }
}

/// A `full-repository`.
pub(super) fn full_repository(state: &State, found: &Repository) -> Value {
    let mut shape = repository(state, found);
    insert(&mut shape, "network_count", 0);
    insert(&mut shape, "subscribers_count", 0);
    shape
}

/// An `installation`.
pub(super) fn installation(state: &State, found: &Installation) -> Value {
    let app = state.apps.get(&found.app);
    let account = state.accounts.get(&found.account);
    let is_org = account.is_some_and(|account| account.is_org);
    let settings = if is_org {
        format!("{WEB}/organizations/{}/settings", state.login(found.account))
    } else {
        format!("{WEB}/settings")
    };
    json!({
        "id": found.id,
        "account": account_by_id(state, found.account),
        "app_id": found.app,
        "app_slug": app.map(|app| &app.slug),
        "client_id": app.map(|app| &app.client_id),
        "target_id": found.account,
        "target_type": if is_org { "Organization" } else { "User" },
        "repository_selection": if found.only.is_some() { "selected" } else { "all" },
        "access_tokens_url": format!("{}/app/installations/{}/access_tokens", state.api, found.id),
        "repositories_url": format!("{}/installation/repositories", state.api),
        "html_url": format!("{settings}/installations/{}", found.id),
        "permissions": found.permissions,
        "events": [],
        "created_at": found.created_at.rfc3339(),
        "updated_at": found.updated_at.rfc3339(),
        "single_file_name": null,
        "has_multiple_single_files": false,
        "single_file_paths": [],
        "suspended_by": found.suspended_at.map(|_| account_by_id(state, found.account)),
        "suspended_at": found.suspended_at.map(crate::clock::UnixTime::rfc3339),
    })
}

/// An `integration`.
pub(super) fn app(state: &State, app: &App) -> Value {
    json!({
        "id": app.id,
        "slug": app.slug,
        "node_id": node_id("Integration", app.id),
        "client_id": app.client_id,
        "owner": account_by_id(state, app.owner),
        "name": app.slug,
        "description": null,
        "external_url": "https://example.com",
        "html_url": format!("{WEB}/apps/{}", app.slug),
        "created_at": app.created_at.rfc3339(),
        "updated_at": app.created_at.rfc3339(),
        "permissions": app.permissions,
        "events": app.events,
        "installations_count": state.installations.values().filter(|found| found.app == app.id).count(),
    })
}

/// An `issue`; `number` counts from 1.
pub(super) fn issue(state: &State, repository: &Repository, number: usize, issue: &Issue) -> Value {
    let full_name = format!("{}/{}", state.login(repository.owner), repository.name);
    let repository_url = format!("{}/repos/{full_name}", state.api);
    let url = format!("{repository_url}/issues/{number}");
    let slug = state.apps.get(&issue.by_app).map_or("ghost", |app| &app.slug);
    let bot = Account { id: issue.by_app, login: format!("{slug}[bot]"), is_org: false };
    let mut user = account(state, &bot);
    insert(&mut user, "type", "Bot");
    json!({
        "id": repository.id.saturating_mul(1_000).saturating_add(number as u64),
        "node_id": node_id("Issue", number as u64),
        "number": number,
        "title": issue.title,
        "body": issue.body,
        "state": "open",
        "locked": false,
        "user": user,
        "labels": [],
        "assignee": null,
        "assignees": [],
        "milestone": null,
        "comments": 0,
        "closed_at": null,
        "created_at": issue.created_at.rfc3339(),
        "updated_at": issue.created_at.rfc3339(),
        "author_association": "NONE",
        "url": url,
        "repository_url": repository_url,
        "labels_url": format!("{url}/labels{{/name}}"),
        "comments_url": format!("{url}/comments"),
        "events_url": format!("{url}/events"),
        "html_url": format!("{WEB}/{full_name}/issues/{number}"),
    })
}

fn insert(shape: &mut Value, name: &str, value: impl Into<Value>) {
    shape
        .as_object_mut()
        .map_or(&mut Map::new(), |members| members)
        .insert(name.into(), value.into());
}
