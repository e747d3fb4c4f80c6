//! What the App itself asks: who it is, where it is installed; and what an installation covers.

use serde_json::{Value, json};

use super::super::server::Request;
use super::{
    caller::Access,
    reply::{Answer, Reply},
    route::RouteKind,
    shapes,
    state::State,
};

/// `GET /app`
pub(super) fn app(state: &State, id: u64) -> Answer {
    let app =
        state.apps.get(&id).ok_or_else(|| Reply::not_found(RouteKind::App.documentation()))?;
    Ok(Reply::json(200, shapes::app(state, app)))
}

/// `GET /app/installations`
pub(super) fn installations(state: &State, app: u64, request: &Request) -> Answer {
    let own: Vec<Value> = state
        .installations
        .values()
        .filter(|found| found.app == app)
        .map(|found| shapes::installation(state, found))
        .collect();
    let page = Page::of(request);
    let link = page.link(&format!("{}/app/installations", state.api), own.len());
    let reply = Reply::json(200, page.cut(own).into());
    Ok(match link {
        Some(link) => reply.with("link", link),
        None => reply,
    })
}

/// `GET /app/installations/{id}`
pub(super) fn installation(state: &State, app: u64, id: u64) -> Answer {
    let found = state.installations.get(&id).filter(|found| found.app == app);
    let found = found.ok_or_else(|| Reply::not_found(RouteKind::Installation.documentation()))?;
    Ok(Reply::json(200, shapes::installation(state, found)))
}

/// `GET /users/{login}/installation`, which answers for organizations too, and
/// `GET /orgs/{login}/installation`, which answers for nothing else.
pub(super) fn of_account(state: &State, app: u64, login: &str, kind: RouteKind) -> Answer {
    let account = state
        .account(login)
        .filter(|account| account.is_org || kind == RouteKind::UserInstallation);
    let found = account.and_then(|account| state.installation_of(app, account.id));
    let found = found.ok_or_else(|| Reply::not_found(kind.documentation()))?;
    Ok(Reply::json(200, shapes::installation(state, found)))
}

/// `GET /installation/repositories`
pub(super) fn repositories(state: &State, access: &Access, request: &Request) -> Answer {
    let documentation = RouteKind::InstallationRepositories.documentation();
    let installation = state
        .installations
        .get(&access.installation)
        .ok_or_else(|| Reply::not_found(documentation))?;
    let reached: Vec<Value> = state
        .covered(installation)
        .filter(|repository| access.reaches(state, repository))
        .map(|repository| shapes::repository(state, repository))
        .collect();
    let (total, page) = (reached.len(), Page::of(request));
    let narrowed = installation.only.is_some() || access.repositories.is_some();
    let body = json!({
        "total_count": total,
        "repository_selection": if narrowed { "selected" } else { "all" },
        "repositories": page.cut(reached),
    });
    let reply = Reply::json(200, body);
    Ok(match page.link(&format!("{}/installation/repositories", state.api), total) {
        Some(link) => reply.with("link", link),
        None => reply,
    })
}

/// A page of a list: from 1, 30 items unless asked otherwise, 100 at most.
#[derive(Debug, Clone, Copy)]
struct Page {
    number: usize,
    size: usize,
}

impl Page {
    fn of(request: &Request) -> Self {
        let asked = |name: &str| request.query(name)?.parse().ok().filter(|number| *number > 0);
        Self { number: asked("page").unwrap_or(1), size: asked("per_page").unwrap_or(30).min(100) }
    }

    fn cut(self, items: Vec<Value>) -> Vec<Value> {
        items
            .into_iter()
            .skip(self.number.saturating_sub(1).saturating_mul(self.size))
            .take(self.size)
            .collect()
    }

    /// The `Link` header (RFC 8288), where there is another page.
    fn link(self, url: &str, total: usize) -> Option<String> {
        let last = total.div_ceil(self.size).max(1);
        let to = |page: usize, relation: &str| {
            format!("<{url}?per_page={}&page={page}>; rel=\"{relation}\"", self.size)
        };
        let mut links = Vec::new();
        if self.number > 1 {
            links.push(to(self.number - 1, "prev"));
            links.push(to(1, "first"));
        }
        if self.number < last {
            links.push(to(self.number + 1, "next"));
            links.push(to(last, "last"));
        }
        (!links.is_empty()).then(|| links.join(", "))
    }
}
