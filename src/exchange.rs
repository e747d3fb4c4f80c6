//! One exchange, from a parsed request to an issued token: who are you, which policy, may you,
//! mint.
//!
//! [`Exchange::exchange`] is the whole of it: `decide`, top to bottom, then the mint. Each step
//! returns a value that the next one demands, so none can be left out: a token is evaluated only
//! when verified, minted only by a grant, handed over only when issued. Every attempt is recorded
//! once, whatever becomes of it. [`Exchange::check`] takes the same way, and its decision is of a
//! type that nothing can be minted by.

mod attempt;
mod decide;
mod identify;
mod refusal_step;
mod disclosure;

use std::{sync::Arc, time::Duration};

pub use attempt::{Attempt, Caller, ParsedRequest, Reporter, Terms};
use attempt::{Checking, Issuing, Journal, Purpose};
use decide::{Authorized, Decision};
#[cfg(test)]
pub(crate) use disclosure::github as refusal_of_github;
use refusal_step::RefusalSteps;

use tracing::{Instrument, debug_span};

use crate::{
    admission::{self, Admission},
    audit::{Audit, record::Operation},
    cache::CallerTrust,
    clock::Clock,
    cpu_limiter::{self, CpuLimiter},
    deny_file::Denials,
    github::{self, GitHub, Installation, IssuedToken, MintCalls},
    name::Owner,
    oidc::{Oidc, Replay, Unverified},
    policy::Repositories,
    reason::{Reason, Refusal},
    replay::{Claim, NotClaimed, Uses},
    store::Store,
    telemetry::trace,
};

/// Expensive matching: two pieces run concurrently, one of each owner. Each caller that waits keeps
/// a policy in memory, so few may.
const EXPENSIVE_MATCHING: cpu_limiter::Limits =
    cpu_limiter::Limits { concurrent: 2, per_owner: 3, total: 8 };

/// Decisions of one exchange. Each but the last was void before anything was handed over.
const MAX_DECISIONS: usize = 3;

/// What the core needs to know beside its parts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `STS_DOMAIN`: the audience that tokens have by default.
    pub domain: String,
    /// The configured GitHub's host, as in a repository's URL.
    pub github_host: String,
    /// `STS_OWNERS`: the owners that are served; all if unset.
    pub owners: Option<Vec<Owner>>,
    /// What an exchange may take, whatever happens: less than the 15 s of its request, so that it
    /// ends here, with a record that says why.
    pub deadline: Duration,
    /// What an attempt may cost before it is authorized.
    pub admission: admission::Settings,
    /// `STS_UNVERIFIED_REFUSAL_STEP`: a refusal that depends on what exists is sent at the next
    /// whole step after its request arrived. Zero delays nothing.
    pub refusal_step: Duration,
    /// `STS_REPLAY`: what happens when a token is exchanged a second time.
    pub replay: Replay,
}

impl Settings {
    /// The documented defaults.
    pub fn new(domain: String, github_host: String) -> Self {
        let (deadline, refusal_step) = (Duration::from_millis(14_500), Duration::from_secs(1));
        let admission = admission::Settings::default();
        let replay = Replay::Off;
        Self { domain, github_host, owners: None, deadline, admission, refusal_step, replay }
    }
}

/// The parts that an exchange goes through.
pub struct Parts {
    /// Who are you.
    pub oidc: Oidc,
    /// Which policy.
    pub store: Store,
    /// The operator's denials.
    pub denials: Denials,
    /// Mints.
    pub github: GitHub,
    /// Records.
    pub audit: Audit,
    /// Where exchanges are sent as CloudEvents, if anywhere.
    pub reporter: Option<Reporter>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What a check found for a caller who is known.
#[derive(Debug, Clone)]
pub enum Checked {
    /// An exchange would end with a token.
    Granted(Terms),
    /// It would be refused so.
    Refused(Refusal),
}

/// Proof that the token may be used: its use is claimed, or there is no replay protection that
/// refuses it. Nothing is minted without.
struct Claimed(Option<Claim>);

/// The core: what both wires call.
pub struct Exchange {
    settings: Arc<Settings>,
    parts: Parts,
    admission: Admission,
    refusal_steps: RefusalSteps,
    cpu: CpuLimiter,
    uses: Uses,
}

impl Exchange {
    /// Puts the parts together.
    pub fn new(settings: Settings, parts: Parts) -> Self {
        let admission = Admission::new(settings.admission, Arc::clone(&parts.clock));
        let refusal_steps = RefusalSteps::new(settings.refusal_step, Arc::clone(&parts.clock));
        Self {
            settings: Arc::new(settings),
            parts,
            admission,
            refusal_steps,
            cpu: CpuLimiter::new(EXPENSIVE_MATCHING),
            uses: Uses::default(),
        }
    }

    /// Reads a credential's header and issuer, and nothing else of it. No network.
    ///
    /// # Errors
    /// It is not a token that could ever be verified.
    pub fn read_token(&self, bearer: &str) -> Result<Unverified, Refusal> {
        self.parts.oidc.read(bearer).map_err(|error| disclosure::oidc(&error))
    }

    /// Whether exchanges can be served: records of them can be written.
    pub fn ready(&self) -> bool {
        self.parts.audit.ready()
    }

    /// Sends every refusal that is delayed, and delays no more of them.
    pub fn shut_down(&self) {
        self.refusal_steps.shut_down();
    }

    /// One exchange, within the deadline, recorded once. A caller that disconnects ends it; what
    /// was minted for it by then, or is minted later by a call in flight, is revoked.
    ///
    /// # Errors
    /// Why no token was issued, as this caller may know it, and whether GitHub may have minted one.
    pub async fn exchange(&self, attempt: Attempt) -> Result<IssuedToken, Refusal> {
        let mut journal = self.journal::<Issuing>(&attempt);
        let calls = journal.mint_calls();
        let mut claimed = None;
        let outcome = self
            .within_deadline(&attempt, async |asked| {
                let mut account =
                    self.admission.open(attempt.caller.address, &asked.scope, &asked.identity);
                // Again, if the owner's name changed hands since the policy was read, GitHub
                // announced a change to it, or the operator changed what is denied.
                for _ in 0..MAX_DECISIONS {
                    let decision = self.decide(asked, &mut account, &mut journal).await?;
                    let claimed = match &claimed {
                        Some(claimed) => claimed,
                        None => claimed.insert(self.claim(asked, &decision, &mut journal)?),
                    };
                    let minted = self.mint(asked, decision.authorized(claimed), &calls);
                    if let Some(token) = minted.instrument(debug_span!(trace::MINT)).await? {
                        account.granted();
                        self.refresh_in_background(asked);
                        return Ok(token);
                    }
                }
                Err(Refusal::new(Reason::GithubUnavailable, "GitHub is unavailable")
                    .because("the owner, the policy or the deny file changed again and again during the exchange")
                    .retry_after(Duration::from_secs(1)))
            })
            .await;
        // After the deadline a call may still begin.
        let is_certain = |refusal: &Refusal| refusal.reason != Reason::Deadline;
        if let Some(Claimed(Some(claim))) = claimed
            && outcome.as_ref().is_err_and(is_certain)
            && calls.minted_nothing()
        {
            claim.release();
        }
        journal.close(outcome)
    }

    /// Claims the use of the token, if there is replay protection.
    fn claim(
        &self,
        asked: &ParsedRequest,
        decision: &Decision<Issuing>,
        journal: &mut Journal<'_, Issuing>,
    ) -> Result<Claimed, Refusal> {
        let Some(used) = decision.used() else { return Ok(Claimed(None)) };
        let claimed = self.uses.claim(used, asked.scope.owner(), self.parts.clock.now());
        if matches!(claimed, Err(NotClaimed::Replayed)) {
            journal.replayed();
        }
        match claimed {
            Ok(claim) => Ok(Claimed(Some(claim))),
            Err(_) if used.protection == Replay::Warn => Ok(Claimed(None)),
            Err(why) => Err(disclosure::not_claimed(why)),
        }
    }

    /// Whether an exchange would end with a token now. It goes the same way, costs the same, and is
    /// recorded, but cannot mint.
    ///
    /// # Errors
    /// The caller is not known, or something failed, as in an exchange.
    pub async fn check(&self, attempt: Attempt) -> Result<Checked, Refusal> {
        let mut journal = self.journal::<Checking>(&attempt);
        let outcome = self
            .within_deadline(&attempt, async |asked| {
                let mut account =
                    self.admission.open(attempt.caller.address, &asked.scope, &asked.identity);
                let decision = self.decide(asked, &mut account, &mut journal).await?;
                account.granted_check();
                Ok(decision.terms())
            })
            .await;
        let is_verified = journal.is_verified();
        match journal.close(outcome) {
            Ok(terms) => Ok(Checked::Granted(terms)),
            Err(refusal) if is_verified && !refusal.reason.is_fault() => {
                Ok(Checked::Refused(refusal))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Records an attempt whose caller went away before the request was complete.
    pub fn abandoned(&self, attempt: &Attempt, operation: Operation) {
        match operation {
            Operation::Exchange => drop(self.journal::<Issuing>(attempt)),
            Operation::Check => drop(self.journal::<Checking>(attempt)),
        }
    }

    /// Opens the record of an attempt.
    fn journal<P: Purpose>(&self, attempt: &Attempt) -> Journal<'_, P> {
        let Parts { audit, clock, reporter, .. } = &self.parts;
        Journal::open(audit, clock.as_ref(), reporter.as_ref(), attempt)
    }

    /// Refreshes what a grant used, if its lifetime is nearly over. It is charged to nobody, and
    /// happens once for each lifetime: a refreshed entry is not due again.
    fn refresh_in_background(&self, asked: &ParsedRequest) {
        let (github, store) = (&self.parts.github, &self.parts.store);
        let owner = asked.scope.owner();
        if github.is_refresh_due(owner) {
            let (github, owner) = (github.clone(), owner.clone());
            tokio::spawn(async move { drop(github.refresh_installation(&owner).await) });
        }
        if store.is_refresh_due(&asked.scope, &asked.identity) {
            let (store, scope, identity) =
                (store.clone(), asked.scope.clone(), asked.identity.clone());
            tokio::spawn(async move { drop(store.refresh(&scope, &identity).await) });
        }
    }

    async fn within_deadline<T>(
        &self,
        attempt: &Attempt,
        steps: impl AsyncFnOnce(&ParsedRequest) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let asked = attempt.asked.as_ref().map_err(Refusal::clone)?;
        let steps = tokio::time::timeout(self.settings.deadline, Box::pin(steps(asked)));
        match attempt.caller.expired.run_until_cancelled(steps).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) | None => Err(attempt::deadline()),
        }
    }

    /// Mints by a decision. If the chosen App cannot mint for a reason of its own, and nothing was
    /// minted, the next App of the pool does, unless the token is bound to one App. `None`: the
    /// owner's name belongs to another account now, a change was announced, or the deny file
    /// changed, and the decision is void.
    async fn mint(
        &self,
        asked: &ParsedRequest,
        authorized: Authorized,
        calls: &MintCalls,
    ) -> Result<Option<IssuedToken>, Refusal> {
        let grant = &authorized.grant;
        let is_bound = github::is_bound_to_one_app(grant.permissions());
        let mut installation = authorized.installation.clone();
        let mut passed_over = Vec::new();
        loop {
            let (refusal, is_of_one_app) = match self.admission.mint(installation.app_id()) {
                Err(empty) => (disclosure::too_many_mints(empty), true),
                Ok(()) => match self.mint_through(asked, &authorized, &installation, calls).await {
                    // A token that a change overtook is revoked as it is dropped.
                    Ok(minted) => return Ok(minted.filter(|_| self.stands(asked, &authorized))),
                    // The pinned App was uninstalled a moment ago.
                    Err(github::Error::NotInstalled) if grant.pin().is_some() => {
                        (disclosure::github(&github::Error::Pin, grant.owner()), true)
                    }
                    Err(error) => {
                        (disclosure::github(&error, grant.owner()), error.is_of_one_app())
                    }
                },
            };
            if is_bound || !is_of_one_app || calls.may_have_minted() {
                return Err(refusal);
            }
            passed_over.push(installation.app_id());
            let route = asked.route(&authorized.subject);
            match self.parts.github.minter(grant, route, &passed_over).await {
                Ok(next) => installation = next,
                Err(_) => return Err(refusal),
            }
        }
    }

    /// Whether no change was announced since the decision began, and the operator denies the same
    /// as then.
    fn stands(&self, asked: &ParsedRequest, authorized: &Authorized) -> bool {
        self.parts.store.is_current(&asked.scope, authorized.policy.as_of)
            && self.parts.denials.is_current(&authorized.denials)
    }

    /// Mints through an installation of the very account whose policy decided. If GitHub no longer
    /// knows the installation, or its reply is for another account or wider than the request, the
    /// installation is looked up once more.
    async fn mint_through(
        &self,
        asked: &ParsedRequest,
        authorized: &Authorized,
        installation: &Installation,
        calls: &MintCalls,
    ) -> Result<Option<IssuedToken>, github::Error> {
        let Authorized { grant, policy, .. } = authorized;
        let github = &self.parts.github;
        let owner = grant.owner();
        let mut installation = installation.clone();
        // The reply to such a mint names no repository, and so no account.
        if *grant.repositories() == Repositories::All {
            let since = policy.proven_at;
            installation = github.installation_since(&installation, owner, since).await?;
        }
        if installation.account() != policy.account || !self.stands(asked, authorized) {
            return Ok(None);
        }
        let error = match github.mint(grant, &installation, calls).await {
            Err(error) if error.doubts_installation() => error,
            outcome => return outcome.map(Some),
        };
        github.forget_installation(&installation, owner);
        let trust = CallerTrust::Verified;
        let again = github.installation_again(&installation, owner, trust).await?;
        if again.account() != policy.account || !self.stands(asked, authorized) {
            return Ok(None);
        }
        if matches!(error, github::Error::Wider(_)) && again.id() == installation.id() {
            return Err(error);
        }
        github.mint(grant, &again, calls).await.map(Some)
    }
}

#[cfg(test)]
impl Exchange {
    /// A core with no App and nobody to ask, for tests of what stands in front of it.
    pub(crate) fn for_test() -> Arc<Self> {
        struct Nowhere;
        impl crate::audit::AuditSink for Nowhere {
            fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
                Ok(())
            }
        }
        let clock: Arc<dyn Clock> = Arc::new(crate::clock::SystemClock);
        let egress = crate::egress::Egress::new(Default::default()).unwrap();
        let github =
            github::Settings::new(http::Uri::from_static("http://127.0.0.1:1"), Default::default());
        let github = GitHub::new(github, &egress, Arc::clone(&clock)).unwrap();
        let store = crate::store::Settings::new(".github".parse().unwrap());
        let store = Store::new(store, github.clone(), Arc::clone(&clock));
        let issuer = "https://token.actions.githubusercontent.com".parse().unwrap();
        let oidc = Oidc::new(crate::oidc::Settings::new(issuer), egress, Arc::clone(&clock));
        let audit = Audit::start(Default::default(), Box::new(Nowhere)).unwrap();
        let settings = Settings::new("sts.example.com".into(), "github.com".into());
        Arc::new(Self::new(
            settings,
            Parts {
                oidc,
                store,
                denials: Denials::default(),
                github,
                audit,
                reporter: None,
                clock,
            },
        ))
    }
}
