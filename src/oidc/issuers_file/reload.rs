//! The issuers file as it changes while the server runs.
//!
//! It is read whole every few seconds, with the files that it names: a mounted file is replaced by
//! a link that moves (as in Kubernetes), which leaves no sign that is always there. After an error
//! the issuers stay as they were, and the log and a metric say so.

use std::time::Duration;

use super::{IssuersFile, KeysFrom, ListedIssuers};
use crate::{clock::UnixTime, oidc::Oidc, telemetry::metric, yaml::Invalid};

/// How often the file is read.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often the log warns that a key in the file expires soon.
const WARNING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before its end a key in the file expires soon.
pub(in crate::oidc) const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

impl Oidc {
    /// Replaces the issuers whenever the issuers file has changed, for as long as it runs. Ends at
    /// once if there is no file.
    pub async fn reload_issuers_file(self) {
        let Some((file, listed)) = self.inner.settings.issuers_file.clone() else { return };
        let mut watched = Watched { listed, error: None, warned_at: None };
        loop {
            watched.warn_of_ends(self.inner.clock.now());
            self.inner.clock.sleep(INTERVAL).await;
            let reading = file.clone();
            match tokio::task::spawn_blocking(move || reading.load()).await {
                Ok(outcome) => self.look(&mut watched, &file, outcome),
                Err(error) => tracing::error!(%error, "the issuers file was not read"),
            }
        }
    }

    fn look(
        &self,
        watched: &mut Watched,
        file: &IssuersFile,
        outcome: Result<ListedIssuers, Invalid>,
    ) {
        metrics::gauge!(metric::ISSUERS_FILE_OK).set(if outcome.is_ok() { 1.0 } else { 0.0 });
        let path = file.path.display();
        match outcome {
            Ok(listed) => {
                if listed != watched.listed {
                    self.inner.issuers.replace(&self.inner.settings, Some(&listed));
                    tracing::info!(file = %path, issuers = listed.entries.len(), "the changed issuers file is in use");
                    watched.warned_at = None;
                } else if watched.error.is_some() {
                    tracing::info!(file = %path, "the issuers file is again as it was before the error");
                }
                *watched = Watched { listed, error: None, ..*watched };
            }
            Err(error) if watched.error.as_ref() != Some(&error) => {
                tracing::error!(file = %path, %error, "the changed issuers file cannot be used; the issuers stay as they were");
                watched.error = Some(error);
            }
            Err(_) => {}
        }
    }
}

/// What is in use, and what was logged of it.
struct Watched {
    listed: ListedIssuers,
    error: Option<Invalid>,
    warned_at: Option<UnixTime>,
}

impl Watched {
    /// Warns, once a day, of keys that expire soon.
    fn warn_of_ends(&mut self, now: UnixTime) {
        if self.warned_at.is_some_and(|at| now.since(at) < WARNING_INTERVAL) {
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

impl ListedIssuers {
    /// Issuer, key id and expiry of each key in the file that has one.
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
