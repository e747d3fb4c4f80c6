//! The file of Apps, or of their key, as it changes while the server runs.
//!
//! It is read whole every few seconds, with the key files that it names: a mounted file is replaced
//! by a link that moves (as in Kubernetes), which leaves no sign that is always there. After an
//! error the Apps stay as they are, and the log and a metric say so.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    config::{Apps, AppsFile},
    github::GitHub,
    telemetry::metric,
    yaml::Errors,
};

/// How often the file is read.
const INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the Apps as the file has them, until it is dropped. Ends immediately if there is no file.
pub(super) async fn run(apps: Apps, github: GitHub, clock: Arc<dyn Clock>) {
    let Some(file) = apps.file().cloned() else { return };
    let mut reload = Reload { apps, github, error: None };
    metrics::gauge!(metric::APPS_FILE_OK).set(1.0);
    loop {
        clock.sleep(INTERVAL).await;
        let reading = Arc::clone(&file);
        match tokio::task::spawn_blocking(move || reading.load()).await {
            Ok(outcome) => reload.compare(&file, outcome).await,
            Err(error) => tracing::error!(%error, "the file was not read"),
        }
    }
}

struct Reload {
    /// The Apps in use.
    apps: Apps,
    github: GitHub,
    /// What is wrong with the file, as far as it was logged.
    error: Option<Errors>,
}

impl Reload {
    async fn compare(&mut self, file: &Arc<AppsFile>, outcome: Result<Apps, Errors>) {
        metrics::gauge!(metric::APPS_FILE_OK).set(if outcome.is_ok() { 1.0 } else { 0.0 });
        let path = file.path().display();
        match outcome {
            Ok(apps) => {
                let apps = apps.of(Arc::clone(file));
                if apps != self.apps {
                    self.replace(apps);
                    tracing::info!(file = %path, apps = self.apps.iter().count(), "the changed file is in use for Apps");
                    super::prove_keys(&self.github).await.unwrap_or_else(|error| {
                        tracing::error!(file = %path, %error, "no key of the changed file signs");
                    });
                } else if self.error.is_some() {
                    tracing::info!(file = %path, "the file is again as it was before the error");
                }
                self.error = None;
            }
            Err(errors) if self.error.as_ref() != Some(&errors) => {
                let list: Vec<_> = errors.iter().map(ToString::to_string).collect();
                tracing::error!(file = %path, errors = list.join("; "), "the changed file cannot be used; Apps and keys stay as they were");
                self.error = Some(errors);
            }
            Err(_) => {}
        }
    }

    fn replace(&mut self, apps: Apps) {
        let apps = apps.with_signers_of(&self.apps);
        self.github.replace_pools(apps.pools(&self.apps));
        self.apps = apps;
    }
}
