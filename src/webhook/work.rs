//! Work after the reply: files of a push, checks, events; and what happens when it fails.

use std::time::Duration;

use super::{Inner, payload::Event, seen, verdict::PolicyChange};
use crate::{
    audit::record::{DeliveryOutcome, DeliveryRecord, cut},
    clock::Moment,
    events::{self, ChangeAction, PolicyEvent},
    github,
    store::{Change, Files, Push},
};

/// The wait before failed work is repeated; it grows fourfold up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(256);

impl Inner {
    /// Works on a delivery, and records how that ended.
    pub(super) async fn work(
        &self,
        digest: seen::Digest,
        event: Event,
        mut record: DeliveryRecord,
        began: Moment,
    ) {
        match self.retried(&event, &mut record).await {
            Ok(()) => {
                record.result = DeliveryOutcome::Done;
                self.seen.finish(digest);
            }
            Err(error) => {
                tracing::warn!(%error, delivery = record.delivery, "the work on a delivery failed");
                record.result = DeliveryOutcome::Failed;
                record.cause = Some(cut(&error.to_string()));
                self.seen.forget(digest);
            }
        }
        self.record(record, began).await;
    }

    /// The work, again after an outage or a limit: GitHub does not redeliver what was accepted.
    async fn retried(
        &self,
        event: &Event,
        record: &mut DeliveryRecord,
    ) -> Result<(), github::Error> {
        let mut wait = FIRST_RETRY;
        loop {
            match self.attempt(event, record).await {
                Err(error) if error.is_outage() && wait <= LAST_RETRY => {
                    tracing::warn!(%error, delivery = record.delivery, "the work on a delivery is repeated");
                    let wait_for = error.retry_after().unwrap_or_default().max(wait);
                    self.parts.clock.sleep(wait_for).await;
                    wait = wait.saturating_mul(4);
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(
        &self,
        event: &Event,
        record: &mut DeliveryRecord,
    ) -> Result<(), github::Error> {
        if let Some(push) = event.push.as_ref().filter(|_| !event.changes.is_empty()) {
            self.settle(push).await;
        }
        for subject in &event.checks {
            let Some(checked) = self.checker.check(subject, event.push.is_none()).await? else {
                continue;
            };
            record.checks.push(checked.run);
            // A merge changes files that none of its commits may list.
            let is_missed = event.changes.is_empty() && !checked.paths.is_empty();
            let Some(push) = &event.push else { continue };
            if is_missed {
                let push = Push { files: Files::Paths(checked.paths), ..push.clone() };
                record.invalidated += self.parts.store.invalidate(&Change::Files(push.clone()));
                self.settle(&push).await;
            }
            self.report(event, push, &checked.policies);
        }
        Ok(())
    }

    /// Reads what a push left. Without it, a file that is the same again waits for ten seconds.
    async fn settle(&self, push: &Push) {
        if let Err(error) = self.parts.store.settle(push).await {
            let (owner, repo) = (&push.owner, &push.repo);
            tracing::warn!(%error, %owner, %repo, "the files of a push were not read");
        }
    }

    /// Sends what a push changed as CloudEvents, if there is a sink.
    fn report(&self, event: &Event, push: &Push, policies: &[PolicyChange]) {
        let Some(events) = &self.parts.events else { return };
        let host = &self.settings.names.github_host;
        for (change_index, policy) in policies.iter().enumerate() {
            let is_gone = policy.action == ChangeAction::Deleted;
            let author = event.author.clone();
            let event = PolicyEvent {
                org: push.owner.to_string(),
                repo: push.repo.to_string(),
                r#ref: author.branch,
                commit: push.after.clone(),
                before: push.before.clone(),
                installation_id: event.installation.unwrap_or_default(),
                actor: author.actor,
                actor_id: author.actor_id,
                pusher: author.pusher,
                forced: author.forced,
                change: events::Change::new(&policy.path, policy.action),
                detection: "snapshot",
                change_index,
                change_count: policies.len(),
                valid: (!is_gone).then_some(policy.error.is_none()),
                error: policy.error.clone(),
                time: self.parts.clock.now().rfc3339_millis(),
            };
            events.send(event.into_event(host));
        }
    }
}
