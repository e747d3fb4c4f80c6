//! Which operation a request asks for: method and path to a [`Route`], or nothing.

use http::Method;
use percent_encoding::percent_decode_str;

/// The operations that are emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// `GET /app`
    App,
    /// `GET /app/hook/config`
    HookConfig,
    /// `GET /app/hook/deliveries`
    Deliveries,
    /// `POST /app/hook/deliveries/{id}/attempts`
    Redeliver,
    /// `GET /app/installations`
    Installations,
    /// `GET /app/installations/{id}`
    Installation,
    /// `POST /app/installations/{id}/access_tokens`
    Mint,
    /// `GET /users/{login}/installation`
    UserInstallation,
    /// `GET /orgs/{login}/installation`
    OrgInstallation,
    /// `GET /repos/{owner}/{repo}/installation`
    RepoInstallation,
    /// `GET /installation/repositories`
    InstallationRepositories,
    /// `DELETE /installation/token`
    Revoke,
    /// `GET /repos/{owner}/{repo}`
    Repository,
    /// `GET /repos/{owner}/{repo}/contents/{path}`
    Contents,
    /// `PUT /repos/{owner}/{repo}/contents/{path}`
    PutContents,
    /// `GET /repos/{owner}/{repo}/issues`
    Issues,
    /// `POST /repos/{owner}/{repo}/issues`
    CreateIssue,
    /// `GET /repos/{owner}/{repo}/pulls`
    Pulls,
    /// `POST /repos/{owner}/{repo}/pulls`
    CreatePull,
    /// `GET /repos/{owner}/{repo}/pulls/{number}`
    Pull,
    /// `GET /repos/{owner}/{repo}/compare/{base}...{head}`
    Compare,
    /// `GET /repos/{owner}/{repo}/git/ref/{ref}`
    GitRef,
    /// `GET /repos/{owner}/{repo}/git/trees/{sha}`
    GitTree,
    /// `POST /repos/{owner}/{repo}/check-runs`
    CreateCheckRun,
    /// `PATCH /repos/{owner}/{repo}/check-runs/{id}`
    UpdateCheckRun,
    /// Git over HTTP: `/{owner}/{repo}.git/`
    Git,
    /// `GET /rate_limit`
    RateLimit,
    /// `GET /meta`
    Meta,
}

/// How a path names a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RepoRef {
    Name(String, String),
    Id(u64),
}

/// An operation with its path parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    App,
    HookConfig,
    Deliveries,
    Redeliver(u64),
    Installations,
    Installation(u64),
    Mint(u64),
    UserInstallation(String),
    OrgInstallation(String),
    InstallationRepositories,
    Revoke,
    RateLimit,
    Meta,
    /// An operation on a repository; `rest` is the part of the path behind the repository, as sent.
    Repo {
        on: RepoRef,
        action: RepoAction,
        rest: String,
    },
}

/// What is asked of a repository; a path is that of a file, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RepoAction {
    Get,
    Installation,
    Contents(String),
    PutContents(String),
    Issues,
    CreateIssue,
    Pulls,
    CreatePull,
    Pull(u64),
    /// Base and head.
    Compare(String, String),
    GitRef(String),
    GitTree(String),
    CreateCheckRun,
    UpdateCheckRun(u64),
}

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The App itself, by its JWT.
    App,
    /// An installation token.
    Installation,
    /// Anyone; an installation token sees more.
    Anyone,
}

impl Route {
    /// Reads method and path; `base` is the path before the API (`/api/v3` or nothing).
    pub(super) fn parse(method: &Method, path: &str, base: &str) -> Option<Self> {
        let path = path.strip_prefix(base)?.strip_prefix('/')?;
        let segments: Vec<&str> = path.split('/').collect();
        let get = method == Method::GET || method == Method::HEAD;
        match segments.as_slice() {
            ["app"] if get => Some(Self::App),
            ["app", "hook", "config"] if get => Some(Self::HookConfig),
            ["app", "hook", "deliveries"] if get => Some(Self::Deliveries),
            ["app", "hook", "deliveries", id, "attempts"] if method == Method::POST => {
                Some(Self::Redeliver(number(id)?))
            }
            ["app", "installations"] if get => Some(Self::Installations),
            ["app", "installations", id] if get => Some(Self::Installation(number(id)?)),
            ["app", "installations", id, "access_tokens"] if method == Method::POST => {
                Some(Self::Mint(number(id)?))
            }
            ["users", login, "installation"] if get => {
                Some(Self::UserInstallation(decoded(login)?))
            }
            ["orgs", login, "installation"] if get => Some(Self::OrgInstallation(decoded(login)?)),
            ["installation", "repositories"] if get => Some(Self::InstallationRepositories),
            ["installation", "token"] if method == Method::DELETE => Some(Self::Revoke),
            ["rate_limit"] if get => Some(Self::RateLimit),
            ["meta"] if get => Some(Self::Meta),
            ["repos", owner, repo, rest @ ..] => {
                Self::repository(method, RepoRef::Name(decoded(owner)?, decoded(repo)?), rest)
            }
            ["repositories", id, rest @ ..] => {
                Self::repository(method, RepoRef::Id(number(id)?), rest)
            }
            _ => None,
        }
    }

    fn repository(method: &Method, on: RepoRef, segments: &[&str]) -> Option<Self> {
        let get = method == Method::GET || method == Method::HEAD;
        let action = match segments {
            [] if get => RepoAction::Get,
            ["installation"] if get => RepoAction::Installation,
            ["issues"] if get => RepoAction::Issues,
            ["issues"] if method == Method::POST => RepoAction::CreateIssue,
            ["pulls"] if get => RepoAction::Pulls,
            ["pulls"] if method == Method::POST => RepoAction::CreatePull,
            ["pulls", id] if get => RepoAction::Pull(number(id)?),
            ["compare", range @ ..] if get => {
                let range = joined(range)?;
                let (base, head) = range.split_once("...")?;
                RepoAction::Compare(base.into(), head.into())
            }
            ["git", "trees", sha] if get => RepoAction::GitTree(decoded(sha)?),
            ["git", "ref", name @ ..] if get => RepoAction::GitRef(joined(name)?),
            ["check-runs"] if method == Method::POST => RepoAction::CreateCheckRun,
            ["check-runs", id] if method == Method::PATCH => {
                RepoAction::UpdateCheckRun(number(id)?)
            }
            ["contents", file @ ..] if get || method == Method::PUT => {
                let path = joined(file)?;
                if get { RepoAction::Contents(path) } else { RepoAction::PutContents(path) }
            }
            _ => return None,
        };
        let rest = segments.iter().fold(String::new(), |rest, segment| rest + "/" + segment);
        Some(Self::Repo { on, action, rest })
    }

    pub(super) fn kind(&self) -> RouteKind {
        match self {
            Self::App => RouteKind::App,
            Self::HookConfig => RouteKind::HookConfig,
            Self::Deliveries => RouteKind::Deliveries,
            Self::Redeliver(_) => RouteKind::Redeliver,
            Self::Installations => RouteKind::Installations,
            Self::Installation(_) => RouteKind::Installation,
            Self::Mint(_) => RouteKind::Mint,
            Self::UserInstallation(_) => RouteKind::UserInstallation,
            Self::OrgInstallation(_) => RouteKind::OrgInstallation,
            Self::InstallationRepositories => RouteKind::InstallationRepositories,
            Self::Revoke => RouteKind::Revoke,
            Self::RateLimit => RouteKind::RateLimit,
            Self::Meta => RouteKind::Meta,
            Self::Repo { action, .. } => match action {
                RepoAction::Get => RouteKind::Repository,
                RepoAction::Installation => RouteKind::RepoInstallation,
                RepoAction::Contents(_) => RouteKind::Contents,
                RepoAction::PutContents(_) => RouteKind::PutContents,
                RepoAction::Issues => RouteKind::Issues,
                RepoAction::CreateIssue => RouteKind::CreateIssue,
                RepoAction::Pulls => RouteKind::Pulls,
                RepoAction::CreatePull => RouteKind::CreatePull,
                RepoAction::Pull(_) => RouteKind::Pull,
                RepoAction::Compare(..) => RouteKind::Compare,
                RepoAction::GitRef(_) => RouteKind::GitRef,
                RepoAction::GitTree(_) => RouteKind::GitTree,
                RepoAction::CreateCheckRun => RouteKind::CreateCheckRun,
                RepoAction::UpdateCheckRun(_) => RouteKind::UpdateCheckRun,
            },
        }
    }

    pub(super) fn audience(&self) -> Audience {
        match self.kind() {
            RouteKind::App
            | RouteKind::HookConfig
            | RouteKind::Deliveries
            | RouteKind::Redeliver
            | RouteKind::Installations
            | RouteKind::Installation
            | RouteKind::Mint
            | RouteKind::UserInstallation
            | RouteKind::OrgInstallation
            | RouteKind::RepoInstallation => Audience::App,
            RouteKind::InstallationRepositories
            | RouteKind::Revoke
            | RouteKind::PutContents
            | RouteKind::CreateIssue
            | RouteKind::CreatePull
            | RouteKind::CreateCheckRun
            | RouteKind::UpdateCheckRun => Audience::Installation,
            RouteKind::Repository
            | RouteKind::Contents
            | RouteKind::Issues
            | RouteKind::Pulls
            | RouteKind::Pull
            | RouteKind::Compare
            | RouteKind::GitRef
            | RouteKind::GitTree
            | RouteKind::Git
            | RouteKind::RateLimit
            | RouteKind::Meta => Audience::Anyone,
        }
    }
}

impl RouteKind {
    /// Where GitHub documents the operation; its errors link there.
    pub(super) fn documentation(self) -> &'static str {
        match self {
            Self::App => "https://docs.github.com/rest/apps/apps#get-the-authenticated-app",
            Self::HookConfig => {
                "https://docs.github.com/rest/apps/webhooks#get-a-webhook-configuration-for-an-app"
            }
            Self::Deliveries => {
                "https://docs.github.com/rest/apps/webhooks#list-deliveries-for-an-app-webhook"
            }
            Self::Redeliver => {
                "https://docs.github.com/rest/apps/webhooks#redeliver-a-delivery-for-an-app-webhook"
            }
            Self::Installations => {
                "https://docs.github.com/rest/apps/apps#list-installations-for-the-authenticated-app"
            }
            Self::Installation => {
                "https://docs.github.com/rest/apps/apps#get-an-installation-for-the-authenticated-app"
            }
            Self::Mint => {
                "https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app"
            }
            Self::UserInstallation => {
                "https://docs.github.com/rest/apps/apps#get-a-user-installation-for-the-authenticated-app"
            }
            Self::OrgInstallation => {
                "https://docs.github.com/rest/apps/apps#get-an-organization-installation-for-the-authenticated-app"
            }
            Self::RepoInstallation => {
                "https://docs.github.com/rest/apps/apps#get-a-repository-installation-for-the-authenticated-app"
            }
            Self::InstallationRepositories => {
                "https://docs.github.com/rest/apps/installations#list-repositories-accessible-to-the-app-installation"
            }
            Self::Revoke => {
                "https://docs.github.com/rest/apps/installations#revoke-an-installation-access-token"
            }
            Self::Repository => "https://docs.github.com/rest/repos/repos#get-a-repository",
            Self::Contents => "https://docs.github.com/rest/repos/contents#get-repository-content",
            Self::PutContents => {
                "https://docs.github.com/rest/repos/contents#create-or-update-file-contents"
            }
            Self::Issues => "https://docs.github.com/rest/issues/issues#list-repository-issues",
            Self::CreateIssue => "https://docs.github.com/rest/issues/issues#create-an-issue",
            Self::Pulls => "https://docs.github.com/rest/pulls/pulls#list-pull-requests",
            Self::CreatePull => "https://docs.github.com/rest/pulls/pulls#create-a-pull-request",
            Self::Pull => "https://docs.github.com/rest/pulls/pulls#get-a-pull-request",
            Self::Compare => "https://docs.github.com/rest/commits/commits#compare-two-commits",
            Self::GitTree => "https://docs.github.com/rest/git/trees#get-a-tree",
            Self::GitRef => "https://docs.github.com/rest/git/refs#get-a-reference",
            Self::CreateCheckRun => "https://docs.github.com/rest/checks/runs#create-a-check-run",
            Self::UpdateCheckRun => "https://docs.github.com/rest/checks/runs#update-a-check-run",
            Self::Git => "https://docs.github.com/get-started/git-basics/about-remote-repositories",
            Self::RateLimit => {
                "https://docs.github.com/rest/rate-limit/rate-limit#get-rate-limit-status-for-the-authenticated-user"
            }
            Self::Meta => "https://docs.github.com/rest/meta/meta#get-apiname-meta-information",
        }
    }
}

/// Segments of a path, decoded.
fn joined(segments: &[&str]) -> Option<String> {
    let decoded = segments.iter().map(|segment| decoded(segment));
    Some(decoded.collect::<Option<Vec<_>>>()?.join("/"))
}

fn number(segment: &str) -> Option<u64> {
    segment.bytes().all(|byte| byte.is_ascii_digit()).then(|| segment.parse().ok()).flatten()
}

fn decoded(segment: &str) -> Option<String> {
    percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
