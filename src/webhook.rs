//! GitHub's webhook: a verified delivery, what it invalidates, and the work that follows.
//!
//! ```text
//! headers → Head → body → Signed → Event → copies removed, reply → queue of the owner → audit
//! ```
//!
//! A delivery is believed in one thing only: that something changed. Copies of it are removed before
//! the reply, and decisions on them are void. Everything else is read from GitHub afterwards, in a
//! queue for each owner.

mod check;
mod payload;
mod queue;
mod report;
mod secret_names;
mod seen;
mod signature;
mod sweep;
mod verdict;
mod work;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use secrecy::SecretSlice;

pub use self::check::Names;
pub use self::secret_names::SecretName;
pub use self::signature::{EVENT, Head, MAX_BODY, NotADelivery, Secrets, Signed};
use self::{check::Checker, payload::Event, queue::Queue, seen::Seen};
use crate::{
    audit::{
        Audit,
        record::{DeliveryOutcome, DeliveryRecord, cut},
    },
    clock::{Clock, Moment},
    events::Events,
    github::GitHub,
    name::{Owner, RepoName},
    policy::Rules,
    store::Store,
    telemetry::{label, metric},
};

/// Where the secrets that sign deliveries are from.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// Given.
    Values(Vec<SecretSlice<u8>>),
    /// Named, at the secret manager of a cloud. They are read at start and every hour.
    Names(Vec<SecretName>),
}

/// What the webhook needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The secrets that sign deliveries.
    pub secrets: SecretSource,
    /// `GITHUB_WEBHOOK_ORGANIZATION_FILTER`: the owners whose deliveries count; all if empty.
    pub owners: Vec<Owner>,
    /// How policies name this server, for their examples.
    pub names: Names,
}

/// The parts that a delivery goes through.
pub struct Parts {
    /// Forgets what changed.
    pub store: Store,
    /// Checks, and the way to clouds.
    pub github: GitHub,
    /// What the operator allows policies to say.
    pub rules: Arc<Rules>,
    /// Records.
    pub audit: Audit,
    /// Where changed policies are sent as CloudEvents, if anywhere.
    pub events: Option<Events>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// How often secrets are read again.
const SECRETS_EVERY: Duration = Duration::from_secs(3600);
/// The first wait after secrets could not be read; it doubles up to [`SECRETS_EVERY`].
const SECRETS_RETRY: Duration = Duration::from_secs(2);

/// What became of a delivery, for the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// What it invalidates is gone, and its work, if any, is queued.
    Accepted,
    /// It is of an owner whose deliveries do not count.
    Filtered,
    /// It concerns nothing that is done here.
    Ignored,
    /// Its work is finished, or under way.
    Replayed,
    /// Too much waits for this owner, or no secret has been read yet. GitHub is asked to redeliver
    /// it later.
    Busy,
}

impl Received {
    /// As in the reply, the record and the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Filtered | Self::Ignored => "ignored",
            Self::Replayed => "replayed",
            Self::Busy => "busy",
        }
    }
}

/// Takes deliveries. Clones share everything.
#[derive(Clone)]
pub struct Webhook {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    secrets: Secrets,
    parts: Parts,
    checker: Checker,
    seen: Seen,
    /// Work on pushes. It never waits for quota: a change that no commit lists is found by it.
    pushes: Queue,
    /// All other work.
    others: Queue,
}

impl Webhook {
    /// Puts the parts together.
    pub fn new(settings: Settings, parts: Parts) -> Self {
        let secrets = match &settings.secrets {
            SecretSource::Values(values) => Secrets::new(values),
            SecretSource::Names(_) => Secrets::default(),
        };
        let checker = Checker {
            github: parts.github.clone(),
            policy_repo: parts.store.policy_repo().clone(),
            names: settings.names.clone(),
            rules: Arc::clone(&parts.rules),
            compiler: check::compiler(),
            recent: check::Recent::default(),
            clock: Arc::clone(&parts.clock),
        };
        let (seen, pushes, others) = (Seen::default(), Queue::new(), Queue::new());
        let inner = Inner { settings, secrets, parts, checker, seen, pushes, others };
        Self { inner: Arc::new(inner) }
    }

    /// Reads named secrets, again every hour and sooner after a failure. The ones that are known
    /// stay in use until all have been read.
    pub async fn reload_secrets(self) {
        let SecretSource::Names(names) = &self.inner.settings.secrets else { return };
        let Parts { github, clock, .. } = &self.inner.parts;
        let access = github.cloud();
        let mut retry = SECRETS_RETRY;
        loop {
            let reads = names.iter().map(|name| name.read(access));
            let wait = match try_join_all(reads).await {
                Ok(secrets) => {
                    self.inner.secrets.replace(&secrets);
                    retry = SECRETS_RETRY;
                    SECRETS_EVERY
                }
                Err(error) => {
                    tracing::error!(%error, "the webhook's secrets were not read");
                    retry = retry.saturating_mul(2).min(SECRETS_EVERY);
                    retry
                }
            };
            clock.sleep(wait).await;
        }
    }

    /// Has GitHub deliver again what was missed, at start and every five minutes.
    pub async fn sweep(self) {
        let Parts { github, clock, .. } = &self.inner.parts;
        sweep::run(github.clone(), clock.as_ref()).await;
    }

    /// Whether there is a secret that deliveries can be verified with.
    pub fn ready(&self) -> bool {
        !self.inner.secrets.is_empty() && self.inner.parts.audit.ready()
    }

    /// Takes a delivery. When this returns, no decision is made any more by what it invalidates.
    ///
    /// # Errors
    /// The body is not signed, or is no event.
    pub async fn receive(
        &self,
        head: Head,
        body: Bytes,
        client_address: String,
    ) -> Result<Received, NotADelivery> {
        if self.inner.secrets.is_empty() {
            // They have not been read yet. GitHub delivers again what is not accepted.
            count(Received::Busy.as_str());
            return Ok(Received::Busy);
        }
        let began = self.inner.parts.clock.monotonic();
        let mut record = DeliveryRecord::begin(
            self.inner.parts.clock.now(),
            (&head.delivery, &head.event),
            client_address,
        );
        // A large body takes a tenth of a second to verify and parse.
        let (secrets, now) = (self.inner.secrets.clone(), self.inner.parts.clock.now());
        let read = tokio::task::spawn_blocking(move || {
            let signed = secrets.verify(head, &body)?;
            payload::read(&signed, now).map(|event| (signed.digest, event))
        });
        let outcome = match read.await.unwrap_or(Err(NotADelivery::Payload)) {
            Ok((digest, event)) => {
                record.action = event.action.as_deref().map(cut);
                record.installation = event.installation;
                record.owner = event.owner.as_ref().map(Owner::to_string);
                record.repository = event.repo.as_ref().map(RepoName::to_string);
                return Ok(self.take(digest, event, record, began).await);
            }
            Err(refused) => refused,
        };
        record.cause = Some(outcome.to_string());
        count("refused");
        self.inner.record(record, began).await;
        Err(outcome)
    }

    async fn take(
        &self,
        digest: seen::Digest,
        event: Event,
        mut record: DeliveryRecord,
        began: Moment,
    ) -> Received {
        let received = self.inner.begin(digest, &event, &mut record);
        if received != Received::Accepted {
            let is_replay = received == Received::Replayed;
            record.result =
                if is_replay { DeliveryOutcome::Replayed } else { DeliveryOutcome::Ignored };
            count(received.as_str());
            self.inner.record(record, began).await;
            return received;
        }
        let Some(owner) = event.owner.clone() else { return Received::Ignored };
        let (inner, mut rejected) = (Arc::clone(&self.inner), record.clone());
        let queue = if event.push.is_some() { &self.inner.pushes } else { &self.inner.others };
        let work = async move { inner.work(digest, event, record, began).await };
        if queue.push(&owner, Box::pin(work)) {
            count(Received::Accepted.as_str());
            return Received::Accepted;
        }
        count(Received::Busy.as_str());
        self.inner.seen.forget(digest);
        rejected.result = DeliveryOutcome::Busy;
        self.inner.record(rejected, began).await;
        Received::Busy
    }

    /// Finishes the work that is queued within a time, and ends the rest then.
    pub async fn close(&self, within: Duration) {
        let Inner { pushes, others, .. } = self.inner.as_ref();
        let (pushes, others) = tokio::join!(pushes.close(within), others.close(within));
        if !(pushes && others) {
            tracing::warn!("work on deliveries was left; they are redelivered at the next start");
        }
    }
}

impl Inner {
    /// Removes what the delivery invalidates, unless it was here before.
    fn begin(&self, digest: seen::Digest, event: &Event, record: &mut DeliveryRecord) -> Received {
        let Some(owner) = &event.owner else { return Received::Ignored };
        let owners = &self.settings.owners;
        if !owners.is_empty() && !owners.contains(owner) {
            return Received::Filtered;
        }
        if event.changes.is_empty() && event.push.is_none() && event.checks.is_empty() {
            return Received::Ignored;
        }
        if !self.seen.begin(digest) {
            return Received::Replayed;
        }
        for change in &event.changes {
            record.invalidated += self.parts.store.invalidate(change);
        }
        Received::Accepted
    }

    /// Records a delivery that has come to its end. A flood of unsigned ones leaves half of the
    /// audit queue to the records that matter.
    async fn record(&self, mut record: DeliveryRecord, began: Moment) {
        let Parts { audit, clock, .. } = &self.parts;
        record.took(clock.monotonic().since(began));
        let slot = if record.result == DeliveryOutcome::Refused {
            audit.slot_unverified()
        } else {
            audit.slot().await
        };
        match slot {
            Ok(slot) => audit.write_delivery(&record, slot),
            Err(_) => metrics::counter!(metric::AUDIT_UNRECORDED).increment(1),
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!(metric::DELIVERIES, label::RESULT => result).increment(1);
}

/// What is read of a delivery, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::payload::{self, Against};
    use crate::clock::UnixTime;

    /// What a delivery comes to.
    pub struct Read {
        /// Owners and repositories that changed or are checked.
        pub names: Vec<String>,
        /// Commits that are checked or compared with.
        pub commits: Vec<String>,
    }

    /// What a signed body says, if it is an event.
    pub fn delivery(event: &str, body: &[u8]) -> Option<Read> {
        let event = payload::parse(event, body, UnixTime::from_secs(0)).ok()?;
        let mut read = Read { names: Vec::new(), commits: Vec::new() };
        for change in &event.changes {
            read.names.push(change.owner().to_string());
            read.names.extend(change.repo().map(ToString::to_string));
        }
        for check in event.checks {
            read.names.extend([check.owner.to_string(), check.repo.to_string()]);
            read.commits.push(check.commit);
            if let Against::Commit(before) = check.against {
                read.commits.push(before);
            }
        }
        Some(read)
    }
}
