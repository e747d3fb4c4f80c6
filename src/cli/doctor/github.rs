//! The App's key, GitHub, the App, the clock, and where the App is installed.

use std::time::Duration;

use super::{
    super::Exit,
    finding::{Finding, Report},
};
use crate::{
    config::Config,
    github::{
        AboutApp, AboutInstallation, App, Error, GitHub, MAX_AHEAD, MAX_BEHIND, Refused,
        SignerErrorKind, WORTH_A_WARNING,
    },
    policy::{Level, Permissions},
};

/// So many accounts are named.
const MAX_NAMED: usize = 10;

/// Checks every App, and returns whether GitHub accepts the credential of each.
pub(super) async fn look(github: &GitHub, config: &Config, report: &mut Report) -> bool {
    let apps = github.apps();
    let mut are_in_order = true;
    let mut is_reached = false;
    for app in &apps {
        let named = Named { app, is_only: apps.len() == 1 };
        are_in_order &= check_app(github, config, &named, &mut is_reached, report).await;
    }
    are_in_order
}

/// An App in findings: with its id if there are several.
struct Named<'a> {
    app: &'a App,
    is_only: bool,
}

impl Named<'_> {
    fn what(&self, what: &str) -> String {
        if self.is_only { what.to_owned() } else { format!("App {}: {what}", self.app.id()) }
    }
}

async fn check_app(
    github: &GitHub,
    config: &Config,
    named: &Named<'_>,
    is_reached: &mut bool,
    report: &mut Report,
) -> bool {
    if let Err(error) = github.prove_key(named.app).await {
        report.add(no_signature(&error, named));
        return false;
    }
    report.add(Finding::ok(named.what("key"), "signs"));
    let about = github.about_app(named.app).await;
    // The server and the clock are the same for every App.
    if !std::mem::replace(is_reached, true) {
        report.add(reached(&about, config));
        report.add(clocks(github.clock_drift(), &about));
    }
    let app = match about {
        Ok(app) => app,
        Err(refused) => {
            refusal(&refused, named).into_iter().for_each(|finding| report.add(finding));
            return false;
        }
    };
    told(&app, named).into_iter().for_each(|finding| report.add(finding));
    report.add(installations(github.installations(named.app).await, &app.slug, named));
    true
}

/// Why the App's key does not sign, and what to do about it.
fn no_signature(error: &Error, named: &Named<'_>) -> Finding {
    let kind = if let Error::Signer(error) = error { Some(error.kind) } else { None };
    let (exit, todo) = match kind {
        Some(SignerErrorKind::Unavailable) => {
            (Exit::Unavailable, "look whether the key management service can be reached from here")
        }
        Some(SignerErrorKind::Denied) => (
            Exit::Refused,
            "let the server's identity sign with the key; docs/apps.md lists the permissions",
        ),
        Some(SignerErrorKind::Misconfigured) | None => (
            Exit::Refused,
            "give the App's private key, as GitHub let you download it, or correct the key's name \
             and the credentials for it; docs/apps.md describes both",
        ),
    };
    Finding::fail(exit, named.what("key"), error, todo)
}

/// Which GitHub it is, and whether it answers.
fn reached(about: &Result<AboutApp, Refused>, config: &Config) -> Finding {
    let api = &config.github.api;
    let which = match config.github.host.as_str() {
        "github.com" => "GitHub".to_owned(),
        host if host.ends_with(".ghe.com") => format!("GitHub Enterprise Cloud, {host}"),
        host => format!("the GitHub of {host}"),
    };
    match about {
        Err(Refused::Other(error)) => {
            let todo = "check GITHUB_BASE_URL, HTTPS_PROXY, the way out of this network, and that the server's CA is in \
                SSL_CERT_FILE";
            Finding::fail(
                Exit::Unavailable,
                "github",
                format_args!("{which}, {api}: {error}"),
                todo,
            )
        }
        Ok(_) | Err(_) => Finding::ok("github", format_args!("{which} answers at {api}")),
    }
}

/// Our clock against GitHub's.
fn clocks(drift: Option<i64>, about: &Result<AboutApp, Refused>) -> Finding {
    let Some(drift) = drift else {
        return Finding::warn("clock", "could not be compared with GitHub's", "check GitHub first");
    };
    let off = Duration::from_secs(drift.unsigned_abs());
    let (which, most) = if drift > 0 { ("ahead of", MAX_AHEAD) } else { ("behind", MAX_BEHIND) };
    let words = format!("this machine's is {} s {which} GitHub's", off.as_secs());
    let todo = "set the clock by NTP";
    if off > most || matches!(about, Err(Refused::Clock(_))) {
        let words =
            format!("{words}; GitHub takes the App's credential up to {} s", most.as_secs());
        Finding::fail(Exit::Refused, "clock", words, todo)
    } else if off >= WORTH_A_WARNING {
        Finding::warn("clock", words, todo)
    } else {
        Finding::ok("clock", "is GitHub's to within 30 s")
    }
}

/// Why GitHub does not say who the App is; the clock has its own finding.
fn refusal(refused: &Refused, named: &Named<'_>) -> Option<Finding> {
    let id = named.app.id();
    let (words, todo) = match refused {
        Refused::Key(cause) => (
            format!("GitHub does not take the key for the App {id} ({cause})"),
            "download a private key of this very App from its settings, or correct the id in GITHUB_APP_IDS or in the file of Apps; a key that was \
                deleted there no longer works",
        ),
        Refused::Id(cause) => (
            format!("GitHub knows no App {id} ({cause})"),
            "set the id (in GITHUB_APP_IDS or the file of Apps) to the number that the App's settings show as App ID (not the client id, not an \
                installation's id)",
        ),
        Refused::Clock(_) | Refused::Other(_) => return None,
    };
    Some(Finding::fail(Exit::Refused, named.what("app"), words, todo))
}

/// What GitHub says of the App.
fn told(app: &AboutApp, named: &Named<'_>) -> Vec<Finding> {
    let AboutApp { id, slug, permissions, .. } = app;
    if *id != named.app.id().0 {
        let words = format!("GitHub answered with another App, {slug} ({id})");
        return vec![Finding::fail(
            Exit::Refused,
            named.what("app"),
            words,
            "correct GITHUB_BASE_URL",
        )];
    }
    let words = format!("is {slug} ({id}), which may have: {}", listed(permissions));
    let mut findings = vec![Finding::ok(named.what("app"), words)];
    if permissions.get("contents").is_none() {
        let words = "does not ask for `contents: read`, without which no policy can be read";
        findings.push(Finding::fail(
            Exit::Refused,
            named.what("app"),
            words,
            "add it in the App's settings, and accept it where it is installed",
        ));
    }
    if permissions.values().any(|level| *level == Level::Admin) {
        let words = "asks for administration; policies can hand that on";
        findings.push(Finding::warn(
            named.what("app"),
            words,
            "give the App no more than policies need",
        ));
    }
    findings
}

/// Permissions in words.
pub(super) fn listed(permissions: &Permissions) -> String {
    let all: Vec<_> =
        permissions.iter().map(|(name, level)| format!("{name} {}", level.as_str())).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// Where the App is installed.
fn installations(
    found: Result<(Vec<AboutInstallation>, bool), Error>,
    slug: &str,
    named: &Named<'_>,
) -> Finding {
    let (all, has_more) = match found {
        Ok(found) => found,
        Err(error) => {
            return Finding::fail(
                Exit::Unavailable,
                named.what("installations"),
                error,
                "try again",
            );
        }
    };
    if all.is_empty() {
        let todo =
            format!("install it for an organization: the App's page, {slug}, has a button for it");
        return Finding::warn(named.what("installations"), "the App is installed nowhere", todo);
    }
    let name = |about: &AboutInstallation| {
        let suspended = if about.is_suspended { " (suspended)" } else { "" };
        format!("{}{suspended}", about.account)
    };
    let mut accounts: Vec<_> = all.iter().take(MAX_NAMED).map(name).collect();
    if all.len() > MAX_NAMED || has_more {
        accounts.push("…".to_owned());
    }
    let count = if has_more { format!("more than {}", all.len()) } else { all.len().to_string() };
    Finding::ok(named.what("installations"), format_args!("{count}: {}", accounts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_off_as_far_as_the_apps_credential_bears_it() {
        let found =
            |seconds: i64| format!("{:?}", clocks(Some(seconds), &Err(Refused::Key("".into()))));
        for (seconds, level) in [
            (0, "Ok"),
            (29, "Ok"),
            (30, "Warn"),
            (31, "Fail"),
            (-29, "Ok"),
            (-30, "Warn"),
            (-90, "Warn"),
            (-91, "Fail"),
        ] {
            assert!(
                found(seconds).contains(&format!("level: {level}")),
                "{seconds}: {}",
                found(seconds)
            );
        }
    }
}
