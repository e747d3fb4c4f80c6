//! The issuers file as it changes while the server runs.
//!
//! It is read whole at every look, with the files that it names: how a mounted file is replaced (a
//! link that moves, as in Kubernetes) leaves no sign that is always there. After a mistake the old
//! set stays, and the log and a metric say so.

use std::time::Duration;

use super::{
    Oidc,
    listed::{IssuersFile, KeysFrom, Listed},
};
use crate::{clock::UnixTime, telemetry::metric, yaml::Invalid};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often it is said that a key that the operator has written down comes to its end, …
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// … and how long before.
pub(super) const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

impl Oidc {
    /// Takes up the issuers file whenever it says something else, for ever. Ends at once if there
    /// is none.
    pub async fn follow_issuers_file(self) {
        let Some((file, listed)) = self.inner.settings.issuers_file.clone() else { return };
        let mut followed = Followed { listed, mistake: None, warned_at: None };
        loop {
            followed.warn_of_ends(self.inner.clock.now());
            self.inner.clock.sleep(LOOK_EVERY).await;
            let reading = file.clone();
            match tokio::task::spawn_blocking(move || reading.load()).await {
                Ok(outcome) => self.look(&mut followed, &file, outcome),
                Err(error) => tracing::error!(%error, "the issuers file was not read"),
            }
        }
    }

    fn look(&self, followed: &mut Followed, file: &IssuersFile, outcome: Result<Listed, Invalid>) {
        metrics::gauge!(metric::ISSUERS_FILE_OK).set(if outcome.is_ok() { 1.0 } else { 0.0 });
        let path = file.path.display();
        match outcome {
            Ok(listed) => {
                if listed != followed.listed {
                    self.inner.issuers.replace(&self.inner.settings, Some(&listed));
                    tracing::info!(file = %path, issuers = listed.entries.len(), "the changed issuers file is in use");
                    followed.warned_at = None;
                } else if followed.mistake.is_some() {
                    tracing::info!(file = %path, "the issuers file is as it was before the mistake");
                }
                *followed = Followed { listed, mistake: None, ..*followed };
            }
            Err(mistake) if followed.mistake.as_ref() != Some(&mistake) => {
                tracing::error!(file = %path, %mistake, "the changed issuers file cannot be used; the old set stays");
                followed.mistake = Some(mistake);
            }
            Err(_) => {}
        }
    }
}

/// What is in use, and what was said of it.
struct Followed {
    listed: Listed,
    mistake: Option<Invalid>,
    warned_at: Option<UnixTime>,
}

impl Followed {
    /// Says, once a day, which keys come to their end.
    fn warn_of_ends(&mut self, now: UnixTime) {
        if self.warned_at.is_some_and(|at| now.since(at) < WARN_EVERY) {
            return;
        }
        self.warned_at = Some(now);
        for (issuer, key, ends_at) in
            self.listed.ends().filter(|(.., ends_at)| *ends_at < now.plus(WARN_BEFORE))
        {
            let ends_at = ends_at.rfc3339();
            tracing::warn!(
                issuer.url = issuer,
                key,
                ends_at,
                "a key of the issuers file ends, or has ended"
            );
        }
    }
}

impl Listed {
    /// Issuer, key id and end of each key that is written down with its end.
    fn ends(&self) -> impl Iterator<Item = (&str, &str, UnixTime)> {
        let fixed = self.entries.iter().filter_map(|entry| match &entry.keys {
            KeysFrom::Fixed(keys) => Some((entry.issuer.as_str(), &keys.set)),
            KeysFrom::Discovery(_) | KeysFrom::Address(..) => None,
        });
        fixed.flat_map(|(issuer, keys)| {
            keys.ends().map(move |(id, end)| (issuer, id.unwrap_or_default(), end))
        })
    }
}
