//! Which installation reads, and which one mints.
//!
//! They are chosen apart, since which App a policy pins is known only after the policy was read.
//! Reading takes the first App of the pool's order that is installed. Minting is bound by the
//! policy's pin, and by `checks: write`: GitHub lets only the App that created a check run update
//! it, so the same workload must get the same App every time, from every replica. The choice is made
//! by rendezvous hashing over the Apps that are installed. It needs no memory, does not depend on
//! the order of the configuration, and moves only the routes of an App that comes or goes.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::{
    Inner,
    error::Error,
    installation::{self, Installation, Lookup},
    pool::{self, App, Purpose},
};
use crate::{
    cache::CallerTrust,
    name::{AppId, InstallationId, Owner, PolicyName, Scope},
    policy::{AppPin, Grant, Level, Permissions},
};

/// For whom a token is minted: what `checks: write` is routed by.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// What the request is about.
    pub scope: &'a Scope,
    /// The policy's name.
    pub identity: &'a PolicyName,
    /// The caller's `sub`.
    pub subject: &'a str,
}

/// Whether every mint of these permissions must be made by the same App.
pub fn is_bound_to_one_app(permissions: &Permissions) -> bool {
    permissions.get("checks").is_some_and(|level| *level >= Level::Write)
}

/// An installation to read with: one of `preferred` if it can be used, else the first of the pool's
/// order, without the Apps that are `passed_over`.
pub(super) async fn reader(
    inner: &Arc<Inner>,
    owner: &Owner,
    trust: CallerTrust,
    preferred: Option<InstallationId>,
    passed_over: &[AppId],
) -> Result<Installation, Error> {
    let pool = inner.pool(owner)?;
    let mut apps = pool::order(inner, &pool, owner, Purpose::Read);
    if let Some(preferred) = preferred {
        let is_preferred = |app: &Arc<App>| {
            installation::cached(inner, app, owner).is_some_and(|found| found.id() == preferred)
        };
        apps.sort_by_key(|app| !is_preferred(app));
    }
    let mut failure = None;
    for app in apps.iter().filter(|app| !passed_over.contains(&app.id())) {
        match installation::find(inner, app, owner, trust).await {
            Ok(found) => return Ok(found),
            Err(error) => failure = Some(graver(failure, error)),
        }
    }
    Err(failure.unwrap_or(Error::NotInstalled))
}

/// The installation that mints by the grant, without the Apps that are `passed_over`.
pub(super) async fn minter(
    inner: &Arc<Inner>,
    grant: &Grant,
    route: Route<'_>,
    passed_over: &[AppId],
) -> Result<Installation, Error> {
    let pool = inner.pool(grant.owner())?;
    let is_bound = is_bound_to_one_app(grant.permissions());
    let apps = if is_bound {
        pool.apps.clone()
    } else {
        pool::order(inner, &pool, grant.owner(), Purpose::Mint)
    };
    let eligible = |app: &&Arc<App>| {
        !passed_over.contains(&app.id()) && admits(grant.pin(), app) != Some(false)
    };
    // Before a pin counts as unsatisfied, GitHub is called once more to find the installation.
    let lookup = if grant.pin().is_some() { Lookup::Pinned } else { Lookup::Usual };
    let mut installed = Vec::new();
    let mut failure = None;
    for app in apps.iter().filter(eligible) {
        match installation::find_as(inner, app, grant.owner(), lookup).await {
            // The slug of an App without a name is known by now.
            Ok(_) if admits(grant.pin(), app) != Some(true) => {}
            Ok(found) if is_bound => installed.push(found),
            Ok(found) => return Ok(found),
            // Which App is the right one is not known without this answer.
            Err(error) if is_bound && !error.is_not_installed() => return Err(error),
            Err(error) => failure = Some(graver(failure, error)),
        }
    }
    if let Some(chosen) = installed.into_iter().max_by_key(|found| weight(route, found.app_id())) {
        return Ok(chosen);
    }
    match failure {
        None | Some(Error::NotInstalled) if grant.pin().is_some() => Err(Error::Pin),
        failure => Err(failure.unwrap_or(Error::NotInstalled)),
    }
}

/// The installation that checks a repository's policies: always the same, as for `checks: write`.
pub(super) async fn checker(inner: &Arc<Inner>, scope: &Scope) -> Result<Installation, Error> {
    let pool = inner.pool(scope.owner())?;
    let mut installed = Vec::new();
    let mut failure = None;
    for app in &pool.apps {
        match installation::find(inner, app, scope.owner(), CallerTrust::Verified).await {
            Ok(found) => installed.push(found),
            Err(error) if !error.is_not_installed() => return Err(error),
            Err(error) => failure = Some(graver(failure, error)),
        }
    }
    let chosen = installed.into_iter().max_by_key(|found| weigh((scope, "", ""), found.app_id()));
    chosen.ok_or_else(|| failure.unwrap_or(Error::NotInstalled))
}

/// Whether the pin is satisfied by the App. `None`: that depends on its slug, which GitHub has not
/// said yet.
fn admits(pin: Option<&AppPin>, app: &App) -> Option<bool> {
    let Some(pin) = pin else { return Some(true) };
    if matches!(pin, AppPin::Exact(pin) if *pin == app.id().to_string()) {
        return Some(true);
    }
    let name = app.pin_name()?;
    Some(match pin {
        AppPin::Exact(pin) => pin == name,
        AppPin::Pattern(pattern) => pattern.is_match(name),
    })
}

/// The App's weight for a route: the highest of the installed Apps mints. Every part is hashed with
/// its length, so that no two routes have the same text.
fn weight(route: Route<'_>, app: AppId) -> [u8; 32] {
    weigh((route.scope, route.identity.as_str(), route.subject), app)
}

fn weigh((scope, identity, subject): (&Scope, &str, &str), app: AppId) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let repo = scope.repo().map_or("", |repo| repo.key());
    let parts = ["octo-sts route 1", scope.owner().key(), repo, identity, subject];
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.update(&app.0.to_be_bytes());
    let mut weight = [0; 32];
    weight.copy_from_slice(context.finish().as_ref());
    weight
}

/// Of two reasons why there is no installation, the one that counts: as long as one App's answer is
/// missing, nothing is known of the owner.
fn graver(before: Option<Error>, error: Error) -> Error {
    match before {
        Some(before) if gravity(&before) >= gravity(&error) => before,
        Some(_) | None => error,
    }
}

fn gravity(error: &Error) -> u8 {
    if error.is_outage() {
        4
    } else if !error.is_not_installed() {
        3
    } else if matches!(error, Error::Suspended(_)) {
        2
    } else {
        u8::from(matches!(error, Error::AccountMoved(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn chosen(subject: usize, apps: &[u64]) -> u64 {
        let (scope, identity) = ("octo-org/app".parse().unwrap(), "ci".parse().unwrap());
        let subject = subject.to_string();
        let route = Route { scope: &scope, identity: &identity, subject: &subject };
        *apps.iter().max_by_key(|app| weight(route, AppId(**app))).unwrap()
    }

    #[test]
    fn an_app_that_leaves_moves_no_route_but_its_own() {
        let mut routes: HashMap<u64, usize> = HashMap::new();
        for subject in 0..1000 {
            let before = chosen(subject, &[1, 2, 3, 4]);
            assert_eq!(before, chosen(subject, &[4, 2, 1, 3]), "the order does not matter");
            let after = chosen(subject, &[1, 2, 4]);
            assert!(after == before || before == 3, "{subject}: {before} became {after}");
            *routes.entry(before).or_default() += 1;
        }
        assert!(routes.values().all(|count| (200..300).contains(count)), "{routes:?}");
    }

    #[test]
    fn every_part_of_a_route_counts() {
        let weigh = |scope: &str, identity: &str, subject: &str, app: u64| {
            let (scope, identity) = (scope.parse().unwrap(), identity.parse().unwrap());
            weight(Route { scope: &scope, identity: &identity, subject }, AppId(app))
        };
        let first = weigh("o/r", "i", "s", 1);
        assert_eq!(first, weigh("O/R", "i", "s", 1), "names have no letter case");
        for other in [
            weigh("o/r2", "i", "s", 1),
            weigh("o", "i", "s", 1),
            weigh("o/r", "i2", "s", 1),
            weigh("o/r", "i", "s2", 1),
            weigh("o/r", "i", "s", 2),
            weigh("o/ri", "s", "", 1),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn what_is_not_known_counts_more_than_what_is_missing() {
        let limited = || Error::RateLimited { retry_after: std::time::Duration::from_secs(1) };
        let suspended = || Error::Suspended("".into());
        assert_eq!(graver(Some(Error::NotInstalled), limited()), limited());
        assert_eq!(graver(Some(limited()), suspended()), limited());
        assert_eq!(graver(Some(Error::NotInstalled), suspended()), suspended());
        assert_eq!(graver(None, Error::NotInstalled), Error::NotInstalled);
    }
}
