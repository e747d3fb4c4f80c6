//! One scope, and one policy in it: what an exchange would find there.

use super::{
    super::Exit,
    finding::{Finding, Report},
    github::listed,
};
use crate::{
    cache::CallerTrust,
    github::{AboutInstallation, Error, GitHub, Installation},
    name::{PolicyName, Scope},
    policy::{Level, Permissions, Policy},
    reason::Reason,
    store::{self, Found, Located, Store},
};

/// Looks at what an exchange for the scope goes through.
pub(super) async fn look(
    github: &GitHub,
    store: &Store,
    (scope, identity): (&Scope, Option<&PolicyName>),
    report: &mut Report,
) {
    let installed = installations(github, scope, report).await;
    if installed.is_empty() {
        return;
    }
    report.add(match store.trusted_issuers(scope.owner(), CallerTrust::Verified).await {
        Ok(None) => Finding::ok(
            "trusted issuers",
            format_args!("{} has no list: policies alone decide", scope.owner()),
        ),
        Ok(Some(_)) => Finding::ok(
            "trusted issuers",
            format_args!("{} has a list, and it is valid", scope.owner()),
        ),
        Err(error) => of_store("trusted issuers", &error),
    });
    let Some(identity) = identity else { return };
    match store.policy(scope, identity, CallerTrust::Verified).await {
        Ok(located) => {
            policy(&located, &installed).into_iter().for_each(|finding| report.add(finding));
        }
        Err(error) => report.add(of_store(&format!("policy {identity}"), &error)),
    }
    for (installation, _) in &installed {
        if let Some(left) = github.calls_left(installation) {
            let words = format!("App {} has {left} calls left this hour", installation.app_id());
            report.add(Finding::ok(format!("quota for {}", scope.owner()), words));
        }
    }
}

/// Every App that is installed for the owner, and what it may do there.
async fn installations(
    github: &GitHub,
    scope: &Scope,
    report: &mut Report,
) -> Vec<(Installation, AboutInstallation)> {
    let mut found: Vec<(Installation, AboutInstallation)> = Vec::new();
    let mut seen = Vec::new();
    loop {
        let next = match github.reader(scope.owner(), CallerTrust::Verified, None, &seen).await {
            Ok(installation) => {
                seen.push(installation.app_id());
                let about = github.about_installation(&installation).await;
                about.map(|about| (installation, about))
            }
            Err(error) => Err(error),
        };
        match next {
            Ok(next) => found.push(next),
            Err(error) if error.is_not_installed() && !found.is_empty() => break,
            Err(error) => {
                report.add(not_installed(&error, scope));
                break;
            }
        }
    }
    for (installation, about) in &found {
        report.add(as_finding(installation, about, found.len() == 1));
    }
    found
}

fn as_finding(installation: &Installation, about: &AboutInstallation, is_only: bool) -> Finding {
    let sees = if about.is_of_all { "all repositories" } else { "selected repositories" };
    let words = format!("for {}, on {sees}, with: {}", about.account, listed(&about.permissions));
    let what = if is_only {
        "installation".to_owned()
    } else {
        format!("App {}: installation", installation.app_id())
    };
    Finding::ok(what, words)
}

fn not_installed(error: &Error, scope: &Scope) -> Finding {
    let owner = scope.owner();
    let (exit, todo) = if matches!(error, Error::NotInstalled | Error::AccountMoved(_)) {
        (Exit::Refused, format!("install the App for {owner}, and check the spelling"))
    } else if matches!(error, Error::Suspended(_)) {
        (Exit::Refused, format!("unsuspend it in the settings of {owner}"))
    } else if matches!(error, Error::Refused(_) | Error::Forbidden(_)) {
        (
            Exit::Refused,
            format!(
                "let the App in: look at the IP allow list and the security settings of {owner}"
            ),
        )
    } else {
        let (exit, todo) = of_fault(error.reason());
        (exit, todo.to_owned())
    };
    Finding::fail(exit, "installation", format_args!("{owner}: {error}"), todo)
}

fn of_store(what: &str, error: &store::Error) -> Finding {
    let (exit, todo) = if error.reason() == Reason::TrustedIssuersInvalid {
        (Exit::Refused, "correct the organization's list: it refuses everybody")
    } else {
        of_fault(error.reason())
    };
    Finding::fail(exit, what, error, todo)
}

/// What is left: GitHub cannot be reached now, or something is wrong with us.
fn of_fault(reason: Reason) -> (Exit, &'static str) {
    if reason.is_fault() && reason != Reason::Internal {
        (Exit::Unavailable, "try again")
    } else {
        (Exit::Internal, "look at what is said of the App above")
    }
}

fn policy(located: &Located, installed: &[(Installation, AboutInstallation)]) -> Vec<Finding> {
    let Located { found, owner, repo, path, .. } = located;
    let what = format!("policy {path} in {owner}/{repo}");
    let fail = |words: String, todo: &str| vec![Finding::fail(Exit::Refused, &what, words, todo)];
    match found {
        Found::Present(file) => present(&what, &file.policy, installed),
        Found::Absent => fail(
            "is not there, on the default branch".into(),
            "put it there, or check the identity's spelling",
        ),
        Found::Invalid(invalid) => {
            fail(format!("breaks a rule: {invalid}"), "correct it; docs/policies.md has the rules")
        }
        Found::Inaccessible(cause) => fail(
            format!("the App's installation does not see the repository ({cause})"),
            "add it to the installation's repositories",
        ),
        Found::Forbidden(cause) => fail(
            format!("the App may not read the repository's contents ({cause})"),
            "give the App `contents: read`, and accept it there",
        ),
    }
}

/// The policy parses; whether an App can give what it promises.
fn present(
    what: &str,
    policy: &Policy,
    installed: &[(Installation, AboutInstallation)],
) -> Vec<Finding> {
    let asked = policy.permissions();
    let mut findings =
        vec![Finding::ok(what, format_args!("is valid, and gives: {}", listed(asked)))];
    let lacking: Vec<_> = installed
        .iter()
        .filter_map(|(installation, about)| {
            Some((installation.app_id(), lacking(asked, &about.permissions)?))
        })
        .collect();
    let todo = "give the App what is missing in its settings, and accept it where it is installed";
    for (app, words) in &lacking {
        let app = if installed.len() == 1 { "the App".to_owned() } else { format!("App {app}") };
        let words = format!("{app} lacks {words}");
        findings.push(if lacking.len() == installed.len() {
            Finding::fail(Exit::Refused, what, words, todo)
        } else {
            Finding::warn(what, format_args!("{words}; tokens come from the other Apps"), todo)
        });
    }
    findings
}

/// What an App lacks of the permissions of a policy.
fn lacking(asked: &Permissions, has: &Permissions) -> Option<String> {
    let lack = |(name, level): (&String, &Level)| {
        let own = has.get(name).map_or("none", |level| level.as_str());
        format!("{name} {} (it has {own})", level.as_str())
    };
    let lacking: Vec<_> = asked
        .iter()
        .filter(|(name, level)| has.get(*name).is_none_or(|has| has < *level))
        .map(lack)
        .collect();
    (!lacking.is_empty()).then(|| lacking.join(", "))
}
