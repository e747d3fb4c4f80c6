//! The App's key, GitHub, the App, the clock, and where the App is installed.

use std::time::Duration;

use super::{
    super::Exit,
    finding::{Finding, Report},
};
use crate::{
    config::Config,
    github::{
        AboutApp, AboutInstallation, Error, GitHub, MAX_AHEAD, MAX_BEHIND, Refused, WORTH_A_WARNING,
    },
    policy::{Level, Permissions},
};

/// So many accounts are named.
const MAX_NAMED: usize = 10;

/// Looks, and says whether GitHub takes the App's credential.
pub(super) async fn look(github: &GitHub, config: &Config, report: &mut Report) -> bool {
    if let Err(error) = github.prove_key().await {
        report.add(Finding::fail(
            Exit::Refused,
            "key",
            error,
            "give the App's private key, as GitHub let you download it",
        ));
        return false;
    }
    report.add(Finding::ok("key", "signs"));
    let about = github.about_app().await;
    report.add(reached(&about, config));
    report.add(clocks(github.clock_drift(), &about));
    let app = match about {
        Ok(app) => app,
        Err(refused) => {
            refusal(&refused, config).into_iter().for_each(|finding| report.add(finding));
            return false;
        }
    };
    told(&app, config).into_iter().for_each(|finding| report.add(finding));
    report.add(installations(github.installations().await, &app.slug));
    true
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
fn refusal(refused: &Refused, config: &Config) -> Option<Finding> {
    let id = config.app.id;
    let (words, todo) = match refused {
        Refused::Key(cause) => (
            format!("GitHub does not take the key for the App {id} ({cause})"),
            "download a private key of this very App from its settings, or correct GITHUB_APP_IDS; a key that was \
                deleted there no longer works",
        ),
        Refused::Id(cause) => (
            format!("GitHub knows no App {id} ({cause})"),
            "set GITHUB_APP_IDS to the number that the App's settings show as App ID (not the client id, not an \
                installation's id)",
        ),
        Refused::Clock(_) | Refused::Other(_) => return None,
    };
    Some(Finding::fail(Exit::Refused, "app", words, todo))
}

/// What GitHub says of the App.
fn told(app: &AboutApp, config: &Config) -> Vec<Finding> {
    let AboutApp { id, slug, permissions } = app;
    if *id != config.app.id.0 {
        let words = format!("GitHub answered with another App, {slug} ({id})");
        return vec![Finding::fail(Exit::Refused, "app", words, "correct GITHUB_BASE_URL")];
    }
    let words = format!("is {slug} ({id}), which may have: {}", listed(permissions));
    let mut findings = vec![Finding::ok("app", words)];
    if permissions.get("contents").is_none() {
        let words = "does not ask for `contents: read`, without which no policy can be read";
        findings.push(Finding::fail(
            Exit::Refused,
            "app",
            words,
            "add it in the App's settings, and accept it where it is installed",
        ));
    }
    if permissions.values().any(|level| *level == Level::Admin) {
        let words = "asks for administration; policies can hand that on";
        findings.push(Finding::warn("app", words, "give the App no more than policies need"));
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
fn installations(found: Result<(Vec<AboutInstallation>, bool), Error>, slug: &str) -> Finding {
    let (all, has_more) = match found {
        Ok(found) => found,
        Err(error) => return Finding::fail(Exit::Unavailable, "installations", error, "try again"),
    };
    if all.is_empty() {
        let todo =
            format!("install it for an organization: the App's page, {slug}, has a button for it");
        return Finding::warn("installations", "the App is installed nowhere", todo);
    }
    let name = |about: &AboutInstallation| {
        let suspended = if about.is_suspended { " (suspended)" } else { "" };
        format!("{}{suspended}", about.account)
    };
    let mut named: Vec<_> = all.iter().take(MAX_NAMED).map(name).collect();
    if all.len() > MAX_NAMED || has_more {
        named.push("…".to_owned());
    }
    let count = if has_more { format!("more than {}", all.len()) } else { all.len().to_string() };
    Finding::ok("installations", format_args!("{count}: {}", named.join(", ")))
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
