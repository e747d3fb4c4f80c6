//! An attempt as it comes in, and the journal that makes one record of it.

use std::{marker::PhantomData, net::IpAddr, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    audit::{
        Audit, Record, Slot,
        record::{self, Operation, Outcome, PolicyRef, TokenRecord, cut},
    },
    clock::{Clock, Moment},
    events::{Events, ExchangeEvent},
    github::{IssuedToken, MintCalls, Route},
    name::{PolicyName, RequestId, Scope, Subject},
    oidc::{Unverified, VerifiedToken},
    policy::{Allowed, Denied, Narrowing, Permissions, Reach, Repositories},
    reason::{Condition, Reason, Refusal, Workload},
    store::{Found, Located},
    telemetry::{label, metric},
};

/// The caller, as far as the connection shows it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Our own, which the reply names.
    pub request_id: RequestId,
    /// The client's address, trusted proxy hops taken into account.
    pub address: IpAddr,
    /// As sent.
    pub user_agent: Option<String>,
    /// `grpc` or `rest`.
    pub protocol: &'static str,
    /// Cancelled when the deadline of the request has passed: the attempt ends then.
    pub expired: CancellationToken,
}

/// A request of which every part has been parsed.
#[derive(Debug)]
pub struct ParsedRequest {
    /// The credential.
    pub token: Unverified,
    /// For what.
    pub scope: Scope,
    /// By which policy.
    pub identity: PolicyName,
    /// How much of what the policy allows.
    pub narrowing: Narrowing,
}

impl ParsedRequest {
    /// What `checks: write` is routed by.
    pub(super) fn route<'a>(&'a self, subject: &'a Subject) -> Route<'a> {
        Route { scope: &self.scope, identity: &self.identity, subject: subject.as_str() }
    }
}

/// One attempt, well formed or not.
#[derive(Debug)]
pub struct Attempt {
    /// The caller.
    pub caller: Caller,
    /// The scope's text, for the record.
    pub scope: Option<String>,
    /// The identity's text, for the record.
    pub identity: Option<String>,
    /// The text of what narrows the permissions, for the record.
    pub cap: Option<String>,
    /// What the wire made of it.
    pub asked: Result<ParsedRequest, Refusal>,
}

/// What a token would be issued on.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Each condition of the policy, all satisfied, as this caller may be shown it.
    pub conditions: Vec<Condition>,
    /// What the token may do.
    pub permissions: Permissions,
    /// What it reaches.
    pub repositories: Repositories,
    /// The workload, if the caller is one of a Kubernetes cluster.
    pub workload: Option<Workload>,
}

/// What an attempt is for. It stands in the types of all that is made on its way, so that what was
/// decided for a check cannot be taken for a mint.
pub(super) trait Purpose {
    /// As in the record.
    const OPERATION: Operation;
    /// What a successful one ends with.
    type Outcome;

    /// The token that was issued, if one was.
    fn issued(outcome: &Self::Outcome) -> Option<&IssuedToken>;
}

/// To issue a token.
#[derive(Debug)]
pub(super) enum Issuing {}

impl Purpose for Issuing {
    const OPERATION: Operation = Operation::Exchange;
    type Outcome = IssuedToken;

    fn issued(outcome: &IssuedToken) -> Option<&IssuedToken> {
        Some(outcome)
    }
}

/// To say whether one would be.
#[derive(Debug)]
pub(super) enum Checking {}

impl Purpose for Checking {
    const OPERATION: Operation = Operation::Check;
    type Outcome = Terms;

    fn issued(_: &Terms) -> Option<&IssuedToken> {
        None
    }
}

/// Proof that the attempt has its slot in the audit queue. Nothing is minted without.
#[derive(Debug)]
pub(super) struct Recorded<P>(PhantomData<P>);

/// The record of one attempt under way. It is written when closed, or when dropped: a caller that
/// hangs up leaves a record too.
pub(super) struct Journal<'a, P: Purpose> {
    audit: &'a Audit,
    clock: &'a dyn Clock,
    began: Moment,
    expired: CancellationToken,
    record: Record,
    slot: Option<Slot>,
    mint_calls: MintCalls,
    /// What is sent as a CloudEvent, and where to.
    event: Option<(ExchangeEvent, &'a Reporter)>,
    written: bool,
    purpose: PhantomData<P>,
}

/// Where exchanges are sent as CloudEvents.
pub struct Reporter {
    /// The queue.
    pub events: Events,
    /// The name of a reason's gRPC code, as Go writes it.
    pub code: fn(Reason) -> &'static str,
}

impl Reporter {
    /// The error of an attempt that ended without an answer, or with this refusal.
    fn error(&self, refusal: &Refusal) -> String {
        format!("rpc error: code = {} desc = {}", (self.code)(refusal.reason), refusal.message)
    }
}

const CANCELLED: &str = "rpc error: code = Canceled desc = context canceled";

impl<'a, P: Purpose> Journal<'a, P> {
    pub(super) fn open(
        audit: &'a Audit,
        clock: &'a dyn Clock,
        reporter: Option<&'a Reporter>,
        attempt: &Attempt,
    ) -> Self {
        let Attempt { caller, scope, identity, cap, .. } = attempt;
        let id = caller.request_id.to_string();
        let address = caller.address.to_string();
        let mut record = Record::begin(clock.now(), P::OPERATION, id, caller.protocol, address);
        record.user_agent = caller.user_agent.as_deref().map(cut);
        record.scope = scope.as_deref().map(record::name);
        record.identity = identity.as_deref().map(record::name);
        record.cap = cap.as_deref().map(record::name);
        // A check is not an exchange, and a request without one scope is neither.
        let reporter = reporter.filter(|_| P::OPERATION == Operation::Exchange && scope.is_some());
        // The Go service's events have one scope; what narrows it is not a scope.
        let scope = attempt.asked.as_ref().ok().map(|asked| asked.scope.to_string());
        let event = reporter.map(|reporter| (event(&record, scope), reporter));
        Self {
            event,
            audit,
            clock,
            began: clock.monotonic(),
            expired: caller.expired.clone(),
            record,
            slot: None,
            mint_calls: MintCalls::default(),
            written: false,
            purpose: PhantomData,
        }
    }

    /// Where the calls to mint are counted. It is read when the record is written, however the
    /// attempt ends.
    pub(super) fn mint_calls(&self) -> MintCalls {
        self.mint_calls.clone()
    }

    /// When the request arrived.
    pub(super) fn arrived(&self) -> Moment {
        self.began
    }

    /// Notes what the token claims before anything of it is believed.
    pub(super) fn claims(&mut self, token: &Unverified) {
        self.record.issuer = Some(cut(token.issuer().as_str()));
    }

    /// Notes who it is, and takes a slot in the queue before anything more is done.
    pub(super) async fn verified(&mut self, token: &VerifiedToken) -> Result<Recorded<P>, Refusal> {
        self.record.verified = true;
        self.record.issuer = Some(token.issuer().as_str().to_owned());
        self.record.subject = Some(token.subject().as_str().to_owned());
        self.record.jti = token.id().map(cut);
        self.record.kubernetes = token.workload();
        if let Some((event, _)) = &mut self.event {
            event.actor.iss = token.issuer().as_str().to_owned();
            event.actor.sub = token.subject().as_str().to_owned();
        }
        let slot = self.audit.slot().await.map_err(|full| unrecorded().because(full))?;
        self.slot = Some(slot);
        Ok(Recorded(PhantomData))
    }

    /// Whether it was found out who it is.
    pub(super) fn is_verified(&self) -> bool {
        self.record.verified
    }

    pub(super) fn policy(&mut self, located: &Located) {
        let file = match &located.found {
            Found::Present(file) => Some(file),
            Found::Absent | Found::Invalid(_) | Found::Inaccessible(_) | Found::Forbidden(_) => {
                None
            }
        };
        if let (Some((event, _)), Some(file)) = (&mut self.event, file) {
            let mut members = file.policy.members();
            if file.policy.access().reach == Reach::Own {
                let repo = vec![serde_json::Value::from(located.repo.as_str())];
                members.insert("repositories".to_owned(), repo.into());
            }
            event.trust_policy = Some(members);
        }
        self.record.policy = Some(PolicyRef {
            repository: format!("{}/{}", located.owner, located.repo),
            path: located.path.clone(),
            blob: file.map(|file| file.blob.clone()),
            sha256: file.map(|file| file.sha256.clone()),
        });
    }

    /// Notes that the issuer is not on the organization's list, which is enforced or only recorded.
    pub(super) fn not_listed(&mut self, enforced: bool) {
        let verdict = if enforced { "not listed" } else { "not listed, audit only" };
        self.record.trusted_issuers = Some(verdict);
        if let Some((event, _)) = &mut self.event {
            event.not_listed(enforced);
        }
    }

    /// Notes that the token was exchanged before.
    pub(super) fn replayed(&mut self) {
        metrics::counter!(metric::REPLAYS).increment(1);
        self.record.replayed = true;
    }

    /// Notes each condition, satisfied or not.
    pub(super) fn evaluated(&mut self, outcome: &Result<Allowed, Denied>) {
        let conditions = match outcome {
            Ok(allowed) => allowed.conditions(),
            Err(denied) => denied.conditions(),
        };
        self.record.hold(conditions);
        let Some((event, _)) = &mut self.event else { return };
        // It is decided again if a change was announced meanwhile.
        event.actor.claims.clear();
        for condition in conditions {
            if let Some(name) = condition.field.strip_prefix("claim_pattern.")
                && let Some(got) = &condition.got
            {
                event.claim(name, got);
            }
        }
    }

    /// Writes the record. A refusal that finds no slot is answered as such; an issued token has
    /// had its slot since before it was minted.
    pub(super) fn close(
        mut self,
        outcome: Result<P::Outcome, Refusal>,
    ) -> Result<P::Outcome, Refusal> {
        let may_have_minted = self.mint_calls.may_have_minted();
        let outcome = outcome.map_err(|refusal| Refusal { may_have_minted, ..refusal });
        match &outcome {
            Ok(outcome) => {
                self.record.result = Outcome::Granted;
                let issued = P::issued(outcome);
                if issued.is_some_and(|issued| issued.repositories().is_none()) {
                    metrics::counter!(metric::ALL_REPOSITORIES).increment(1);
                }
                self.record.token = issued.map(token_record);
                self.report(None);
            }
            Err(refusal) => self.deny(refusal),
        }
        if self.slot.is_none() && !self.record.verified {
            self.slot = self.audit.slot_unverified().ok();
        }
        let recorded = self.slot.is_some();
        self.write();
        match outcome {
            Err(_) if !recorded && !self.record.verified => {
                Err(Refusal::new(Reason::RateLimited, "too many requests")
                    .retry_after(Duration::from_secs(1)))
            }
            outcome => outcome,
        }
    }

    fn deny(&mut self, refusal: &Refusal) {
        self.record.deny(refusal);
        self.report(Some(refusal));
    }

    /// Sends the CloudEvent, if there is a sink: once, since it is taken.
    fn report(&mut self, refusal: Option<&Refusal>) {
        let Some((mut event, reporter)) = self.event.take() else { return };
        if let Some(token) = &self.record.token {
            event.installation_id = token.installation;
            event.token_sha256.clone_from(&token.sha256);
        }
        event.error = match (self.record.result, refusal) {
            (_, Some(refusal)) => Some(reporter.error(refusal)),
            (Outcome::Granted, None) => None,
            (Outcome::Denied | Outcome::Abandoned, None) => Some(CANCELLED.to_owned()),
        };
        reporter.events.send(event.into_event(reporter.events.source()));
    }

    fn write(&mut self) {
        self.written = true;
        self.report(None);
        let took = self.clock.monotonic().since(self.began);
        self.record.took(took);
        self.record.minting(self.mint_calls.made(), self.mint_calls.may_have_minted());
        let operation = P::OPERATION.as_str();
        let labels = [
            (label::OPERATION, operation),
            (label::RESULT, self.record.result.as_str()),
            (label::REASON, self.record.reason.unwrap_or("")),
            (label::PROTOCOL, self.record.protocol),
        ];
        metrics::counter!(metric::EXCHANGES, &labels).increment(1);
        metrics::histogram!(metric::EXCHANGE_DURATION, label::OPERATION => operation).record(took);
        match self.slot.take() {
            Some(slot) => self.audit.write(&self.record, slot),
            None => metrics::counter!(metric::AUDIT_UNRECORDED).increment(1),
        }
        tracing::debug!(
            request_id = %self.record.request_id,
            result = self.record.result.as_str(),
            reason = self.record.reason,
            cause = self.record.cause,
            operation,
            "attempt"
        );
    }
}

impl<P: Purpose> Drop for Journal<'_, P> {
    fn drop(&mut self) {
        if !self.written {
            // The caller gets these answers from the layers around the core.
            if std::thread::panicking() {
                self.deny(
                    &Refusal::new(Reason::Internal, "internal error")
                        .because("the handler panicked"),
                );
            } else if self.expired.is_cancelled() {
                self.deny(&deadline());
            }
            if self.slot.is_none() {
                self.slot = self.audit.slot_unverified().ok();
            }
            self.write();
        }
    }
}

/// What is known of an attempt when it begins.
fn event(record: &Record, scope: Option<String>) -> ExchangeEvent {
    ExchangeEvent {
        scope: scope.or_else(|| record.scope.clone()).unwrap_or_default(),
        identity: record.identity.clone().unwrap_or_default(),
        user_agent: record.user_agent.clone().unwrap_or_default(),
        time: record.time.clone(),
        request_id: record.request_id.clone(),
        ..ExchangeEvent::default()
    }
}

/// The answer to an attempt that took too long.
pub(super) fn deadline() -> Refusal {
    Refusal::new(Reason::Deadline, "the exchange took too long")
}

fn unrecorded() -> Refusal {
    Refusal::new(Reason::AuditUnavailable, "the attempt cannot be recorded now")
        .retry_after(Duration::from_secs(1))
}

fn token_record(issued: &IssuedToken) -> TokenRecord {
    let (sha256, sha256_base64) = issued.digests();
    TokenRecord {
        installation: issued.installation().0,
        sha256,
        sha256_base64,
        expires_at: issued.expires_at().rfc3339(),
        permissions: issued
            .permissions()
            .iter()
            .map(|(name, level)| (name.clone(), level.as_str()))
            .collect(),
        repositories: issued.repositories().map(<[String]>::to_vec),
    }
}
