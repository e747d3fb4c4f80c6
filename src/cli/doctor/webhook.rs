//! The App's webhook: where it leads, what GitHub sends there, and what did not arrive.

use std::time::Duration;

use super::finding::{Finding, Report};
use crate::{
    clock::UnixTime,
    github::{AboutApp, App, DeliveryAttempt, Error, GitHub, HookConfig},
    policy::Level,
};

/// Events, and what does not work without them.
const EVENTS: [(&str, &str); 7] = [
    ("push", "changed policies take effect only when their copies expire"),
    ("pull_request", "pull requests get no check"),
    ("check_run", "a check cannot be requested again"),
    ("check_suite", "all checks of a commit cannot be requested again"),
    ("repository", "renamed and deleted repositories are noticed only when copies expire"),
    ("organization", "renamed organizations are noticed only when copies expire"),
    ("merge_group", "commits of a merge queue get no check"),
];
/// Permissions that checks need.
const PERMISSIONS: [(&str, Level); 2] = [("checks", Level::Write), ("pull_requests", Level::Read)];
/// Failures that are older are history.
const RECENT: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks the webhook of every App.
pub(super) async fn look(github: &GitHub, now: UnixTime, report: &mut Report) {
    let apps = github.apps();
    for app in &apps {
        let what = match apps.len() {
            1 => "webhook".to_owned(),
            _ => format!("App {}: webhook", app.id()),
        };
        // What is wrong with the App itself has its finding already.
        let Ok(about) = github.about_app(app).await else { continue };
        let findings = [
            leads(&what, &github.hook_config(app).await),
            sends(&what, &about),
            may(&what, &about),
            failures(&what, github, app, now).await,
        ];
        findings.into_iter().flatten().for_each(|finding| report.add(finding));
    }
}

/// Where deliveries go.
fn leads(what: &str, config: &Result<HookConfig, Error>) -> Option<Finding> {
    let todo = "set Webhook URL to https://HOST/webhook in the App's settings, switch Active on, and set \
                the secret of GITHUB_WEBHOOK_SECRET";
    Some(match config {
        Err(error) => {
            Finding::warn(what, format_args!("GitHub does not show where it leads: {error}"), todo)
        }
        Ok(HookConfig { url, .. }) if url.is_empty() => Finding::warn(what, "leads nowhere", todo),
        Ok(HookConfig { url, secret: None }) => {
            let words = format!("leads to {url} and has no secret, so every delivery is refused");
            Finding::warn(what, words, todo)
        }
        Ok(HookConfig { url, .. }) => Finding::ok(what, format_args!("leads to {url}")),
    })
}

/// Which events GitHub sends.
fn sends(what: &str, about: &AboutApp) -> Option<Finding> {
    let missing = EVENTS.iter().filter(|(event, _)| !about.events.iter().any(|own| own == event));
    let missing: Vec<String> =
        missing.map(|(event, effect)| format!("{event} ({effect})")).collect();
    (!missing.is_empty()).then(|| {
        let words = format!("GitHub does not send {}", missing.join(", "));
        Finding::warn(
            what,
            words,
            "subscribe to these events under Permissions & events of the App",
        )
    })
}

/// Whether the App may write checks.
fn may(what: &str, about: &AboutApp) -> Option<Finding> {
    let lacks = |(name, level): &&(&str, Level)| {
        about.permissions.get(*name).is_none_or(|held| held < level)
    };
    let missing = PERMISSIONS.iter().filter(lacks);
    let missing: Vec<String> =
        missing.map(|(name, level)| format!("`{name}: {}`", level.as_str())).collect();
    (!missing.is_empty()).then(|| {
        let words =
            format!("pull requests get no check: the App does not have {}", missing.join(", "));
        let todo =
            "give the App these permissions in its settings, and accept them in each installation";
        Finding::warn(what, words, todo)
    })
}

/// What did not arrive.
async fn failures(what: &str, github: &GitHub, app: &App, now: UnixTime) -> Option<Finding> {
    let page = github.deliveries(app, true, None).await.ok()?;
    let is_recent = |attempt: &&DeliveryAttempt| {
        attempt.delivered_at().is_some_and(|at| at >= now.minus(RECENT))
    };
    let recent: Vec<_> = page.attempts.iter().filter(is_recent).collect();
    let last = recent.first()?;
    let more = if page.next.is_some() { " or more" } else { "" };
    let answer = match last.status_code {
        0 => "no answer".to_owned(),
        status => format!("status {status}"),
    };
    let words = format!(
        "{} deliveries{more} failed in the last 24 hours, the last one ({}) with {answer}",
        recent.len(),
        last.event
    );
    let todo = "look at Advanced, Recent Deliveries in the App's settings; status 400 means that the secret \
                differs, no answer that the URL is wrong or the server was down";
    Some(Finding::warn(what, words, todo))
}
