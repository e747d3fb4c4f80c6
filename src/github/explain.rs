//! What an installation lacks, when GitHub refuses to mint and does not say.
//!
//! GitHub's 422 says that a permission or a repository is missing, not which. Its own data does. An
//! answer here is best effort: it may be missing, it costs few calls, and it decides nothing.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};

use super::{
    Inner, about,
    client::{Call, Endpoint},
    error::Error,
    installation::Installation,
    limits::LimitKey,
    meaning::Meaning,
};
use crate::{
    cache::{Bounds, Cache, CallerTrust, Stamped, heap_bytes},
    clock::Clock,
    name::{InstallationId, RepoName},
    policy::{Permissions, Repositories},
};

/// An explanation may take so long.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A list of repositories that was checked is not checked again for so long.
const CHECKED_FOR: Duration = Duration::from_secs(60);
/// Memory for checked lists, in bytes. Unverified callers do not get here.
const BOUNDS: Bounds = Bounds { verified: 1 << 20, unverified: 0 };
/// At most so many repositories are checked.
const MAX_CHECKED: usize = 30;
const CONCURRENT_CHECKS: usize = 5;
/// At most so many names are given.
const MAX_NAMED: usize = 5;

/// Repositories that installations were found not to see, by installation and requested names.
pub(super) type Checked = Cache<(InstallationId, Vec<RepoName>), Arc<[RepoName]>, Error>;

pub(super) fn cache(clock: Arc<dyn Clock>) -> Checked {
    Cache::new(clock, BOUNDS, weigh)
}

fn weigh((_, requested): &(InstallationId, Vec<RepoName>), missing: &Arc<[RepoName]>) -> usize {
    let names = requested.iter().chain(missing.iter());
    names.map(|name| size_of::<RepoName>() + 2 * heap_bytes(name.as_str())).sum()
}

/// The requested permissions that the installation does not have, in words.
pub(super) async fn lacking_permissions(
    inner: &Inner,
    installation: &Installation,
    requested: &Permissions,
) -> Option<String> {
    let about =
        tokio::time::timeout(TIMEOUT, about::installation(inner, installation)).await.ok()?.ok()?;
    let lacking = requested.iter().filter_map(|(name, level)| {
        let has = about.permissions.get(name);
        let has_words = has.map_or("none", |level| level.as_str());
        has.is_none_or(|has| has < level)
            .then(|| format!("{name}: {} (it has {has_words})", level.as_str()))
    });
    in_words(lacking)
}

/// The requested repositories that the installation does not see, in words.
pub(super) async fn missing_repositories(
    inner: &Arc<Inner>,
    installation: &Installation,
    requested: &Repositories,
) -> Option<String> {
    let Repositories::These(names) = requested else { return None };
    let missing: Arc<[RepoName]> = if let [only] = names.as_slice() {
        Arc::new([only.clone()])
    } else {
        tokio::time::timeout(TIMEOUT, check_all(inner, installation, names)).await.ok()?.ok()?
    };
    in_words(missing.iter().map(|name| name.as_str().to_owned()))
}

async fn check_all(
    inner: &Arc<Inner>,
    installation: &Installation,
    names: &[RepoName],
) -> Result<Arc<[RepoName]>, Error> {
    let now = inner.gate.clock.monotonic();
    let fresh = |held: &Stamped<Arc<[RepoName]>>| now.since(held.at) < CHECKED_FOR;
    let (task, installation, names) = (Arc::clone(inner), installation.clone(), names.to_vec());
    let key = (installation.id(), names.clone());
    let load = |_| async move {
        let checks =
            stream::iter(names.into_iter().take(MAX_CHECKED)).map(|name| {
                let (task, installation) = (Arc::clone(&task), installation.clone());
                async move {
                    sees(&task, &installation, &name).await.map(|sees| (!sees).then_some(name))
                }
            });
        let checked: Vec<_> = checks.buffered(CONCURRENT_CHECKS).collect().await;
        let missing =
            checked.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
        Ok(missing.into())
    };
    Ok(inner.checked_repositories.get_or_load(key, CallerTrust::Verified, fresh, load).await?.value)
}

async fn sees(inner: &Inner, installation: &Installation, name: &RepoName) -> Result<bool, Error> {
    #[derive(serde::Deserialize)]
    struct Found {
        id: u64,
    }
    let app = installation.app();
    let path = format!("/repos/{}/{name}/installation", installation.owner());
    let call = Call::get(Endpoint::Installation, path, inner.app_header(app).await?);
    match inner.call_as(app, LimitKey::App(app.id()), &call).await {
        Ok(reply) => Ok(reply.json::<Found>()?.id == installation.id().0),
        Err(Meaning::NotFound(_) | Meaning::Moved(_)) => Ok(false),
        Err(meaning) => Err(meaning.into()),
    }
}

/// The first of them, and how many more there are; `None` for none.
fn in_words(all: impl Iterator<Item = String>) -> Option<String> {
    let mut all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(MAX_NAMED);
    all.truncate(MAX_NAMED);
    let words =
        if more > 0 { format!("{} and {more} more", all.join(", ")) } else { all.join(", ") };
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let words = |n: usize| in_words((0..n).map(|n| format!("r{n}")));
        assert_eq!(words(0), None);
        assert_eq!(words(2).as_deref(), Some("r0, r1"));
        assert_eq!(words(7).as_deref(), Some("r0, r1, r2, r3, r4 and 2 more"));
    }
}
