//! One exchange, from a parsed request to an issued token: who are you, which policy, may you, mint.
//!
//! [`Exchange::exchange`] is the whole of it, top to bottom. Each step returns a value that the next
//! one demands, so none can be left out: a token is evaluated only when verified, minted only by a
//! grant, handed over only when issued. Every attempt is recorded once, whatever becomes of it.

mod attempt;
mod matching;
mod refuse;
pub mod strangers;

use std::{sync::Arc, time::Duration};

pub use attempt::{Asked, Attempt, Caller};
use attempt::{Journal, Recorded};
use matching::Matching;
use refuse::Audience;
use strangers::Strangers;

use crate::{
    audit::Audit,
    cache::Standing,
    clock::Clock,
    github::{self, GitHub, IssuedToken},
    name::{PolicyName, Scope},
    oidc::{self, Oidc, Unverified, VerifiedToken},
    policy::{self, Denied, Grant, TrustedIssuers, Verdict},
    reason::{Reason, Refusal},
    store::{Found, Located, PolicyFile, Store},
};

/// What the core needs to know beside its parts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `STS_DOMAIN`: the audience that tokens have by default.
    pub domain: String,
    /// The configured GitHub's host, as in a repository's URL.
    pub github_host: String,
    /// What an exchange may take, whatever happens: less than the 15 s of its request, so that it
    /// ends here, with a record that says why.
    pub deadline: Duration,
    /// What a token of an issuer that nobody configured may cost.
    pub strangers: strangers::Settings,
}

impl Settings {
    /// The documented defaults.
    pub fn new(domain: String, github_host: String) -> Self {
        let (deadline, strangers) = (Duration::from_millis(14_500), strangers::Settings::default());
        Self { domain, github_host, deadline, strangers }
    }
}

/// The parts that an exchange goes through.
pub struct Parts {
    /// Who are you.
    pub oidc: Oidc,
    /// Which policy.
    pub store: Store,
    /// Mints.
    pub github: GitHub,
    /// Records.
    pub audit: Audit,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// The core: what both wires call.
pub struct Exchange {
    settings: Arc<Settings>,
    parts: Parts,
    strangers: Strangers,
    matching: Matching,
}

impl Exchange {
    /// Puts the parts together.
    pub fn new(settings: Settings, parts: Parts) -> Self {
        let strangers = Strangers::new(settings.strangers, Arc::clone(&parts.clock));
        Self { settings: Arc::new(settings), parts, strangers, matching: Matching::new() }
    }

    /// Reads a credential's header and issuer, and nothing else of it. No network.
    ///
    /// # Errors
    /// It is not a token that could ever be verified.
    pub fn read_token(&self, bearer: &str) -> Result<Unverified, Refusal> {
        self.parts.oidc.read(bearer).map_err(Refusal::from)
    }

    /// Whether exchanges can be served: records of them can be written.
    pub fn ready(&self) -> bool {
        self.parts.audit.ready()
    }

    /// One exchange, within the deadline, recorded once. A caller that hangs up ends it; what was
    /// minted for it by then is revoked.
    ///
    /// # Errors
    /// Why no token was issued, as this caller may know it.
    pub async fn exchange(&self, attempt: Attempt) -> Result<IssuedToken, Refusal> {
        let Attempt { caller, scope, identity, asked } = attempt;
        let mut journal = Journal::open(self, &caller, scope.as_deref(), identity.as_deref());
        let outcome = match asked {
            Ok(asked) => {
                let steps = Box::pin(self.steps(&asked, &caller, &mut journal));
                tokio::time::timeout(self.settings.deadline, steps)
                    .await
                    .unwrap_or_else(|_| Err(Refusal::new(Reason::Deadline, "the exchange took too long")))
            }
            Err(refusal) => Err(refusal),
        };
        journal.close(outcome)
    }

    async fn steps(&self, asked: &Asked, caller: &Caller, journal: &mut Journal<'_>) -> Result<IssuedToken, Refusal> {
        journal.claims(&asked.token);
        let token = self.identify(asked, caller, journal).await?;
        let recorded = journal.verified(&token).await?;
        let list = self.trusted_issuers(&asked.scope).await?;
        self.permitted(list, &token, journal).await?;
        let located = self.locate(asked).await?;
        let audience = Audience::of(&token, &asked.scope, &located.found);
        journal.policy(&located);
        let file = present(&located, audience, &asked.identity)?;
        let evaluated = self.evaluate(file, token, &asked.scope).await?;
        journal.evaluated(&evaluated);
        let grant = evaluated.map_err(|denied| refuse::mismatch(&denied, audience))?;
        self.mint(&grant, recorded).await
    }

    /// Who is it: a verified token, by keys of a known issuer or of one that the gate admits.
    async fn identify(
        &self,
        asked: &Asked,
        caller: &Caller,
        journal: &mut Journal<'_>,
    ) -> Result<VerifiedToken, Refusal> {
        let oidc = &self.parts.oidc;
        if let Some(admission) = oidc.known(&asked.token)? {
            return oidc.verify(&asked.token, &admission).await.map_err(Refusal::from);
        }
        // Everything from here on, the time it takes included, ends in one answer for strangers.
        let within = self.settings.deadline.mul_f64(0.9);
        match tokio::time::timeout(within, self.identify_stranger(asked, caller, journal)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(refuse::stranger("the look-ups before verification took too long")),
        }
    }

    /// A token of an issuer that nobody configured: the organization's list and the policy must both
    /// admit the issuer before anything is fetched from it, every time.
    async fn identify_stranger(
        &self,
        asked: &Asked,
        caller: &Caller,
        journal: &mut Journal<'_>,
    ) -> Result<VerifiedToken, Refusal> {
        let oidc = &self.parts.oidc;
        let held = oidc.verify_with_held_keys(&asked.token);
        let standing = match &held {
            Some(_) => Standing::Verified,
            None => {
                self.strangers.draw(asked.scope.owner(), caller.address).map_err(refuse::too_many)?;
                // A signer that is down is told before anything is looked up, alike for every owner.
                self.parts.github.prove_key().await.map_err(|e| refuse::signer(e, asked.scope.owner()))?;
                Standing::Unverified
            }
        };
        let admission = self.gate(asked, standing, journal).await?;
        match held {
            Some(token) => Ok(token),
            None => oidc.verify(&asked.token, &admission).await.map_err(refuse::unverified),
        }
    }

    async fn gate(
        &self,
        asked: &Asked,
        standing: Standing,
        journal: &mut Journal<'_>,
    ) -> Result<oidc::Admission, Refusal> {
        let owner = asked.scope.owner();
        self.parts.github.installation(owner, standing).await.map_err(refuse::stranger)?;
        let list = self.parts.store.trusted_issuers(owner, standing).await.map_err(refuse::stranger)?;
        let located =
            self.parts.store.policy(&asked.scope, &asked.identity, standing).await.map_err(refuse::stranger)?;
        journal.policy(&located);
        let Found::Present(file) = &located.found else {
            return Err(refuse::stranger(refuse::not_present(&located.found)));
        };
        let (file, issuer) = (Arc::clone(file), asked.token.issuer().clone());
        let weight = file.policy.weight().saturating_add(list.as_ref().map_or(0, |list| list.weight()));
        let admits = move || policy::gate::admit(list.as_deref(), &file.policy, &issuer);
        let admission = self.matching.run(weight, asked.token.issuer().as_str().len(), admits).await;
        admission
            .map_err(refuse::unanswered)?
            .ok_or_else(|| refuse::stranger("the organization's list or the policy does not admit the issuer"))
    }

    async fn trusted_issuers(&self, scope: &Scope) -> Result<Option<Arc<TrustedIssuers>>, Refusal> {
        let (owner, standing) = (scope.owner(), Standing::Verified);
        self.parts.github.installation(owner, standing).await.map_err(|e| e.refusal(owner))?;
        self.parts.store.trusted_issuers(owner, standing).await.map_err(|e| refuse::store(&e, owner))
    }

    async fn locate(&self, Asked { scope, identity, .. }: &Asked) -> Result<Located, Refusal> {
        self.parts.store.policy(scope, identity, Standing::Verified).await.map_err(|e| refuse::store(&e, scope.owner()))
    }

    async fn evaluate(
        &self,
        file: Arc<PolicyFile>,
        token: VerifiedToken,
        scope: &Scope,
    ) -> Result<Result<Grant, Denied>, Refusal> {
        let (weight, bytes) = (file.policy.weight(), token.size());
        let (settings, scope) = (Arc::clone(&self.settings), scope.clone());
        let policy_repo = self.parts.store.policy_repo().clone();
        let evaluate = move || {
            let Settings { domain, github_host, .. } = settings.as_ref();
            file.policy
                .evaluate(&token, &policy::Asked { scope: &scope, domain, github_host, policy_repo: &policy_repo })
        };
        self.matching.run(weight, bytes, evaluate).await
    }

    /// What the organization says of the issuer.
    async fn permitted(
        &self,
        list: Option<Arc<TrustedIssuers>>,
        token: &VerifiedToken,
        journal: &mut Journal<'_>,
    ) -> Result<(), Refusal> {
        let Some(list) = list else { return Ok(()) };
        let (weight, issuer) = (list.weight(), token.issuer().clone());
        match self.matching.run(weight, issuer.as_str().len(), move || list.verdict(&issuer)).await? {
            Verdict::Listed => Ok(()),
            Verdict::Unlisted { enforced: false } => {
                journal.trusted_issuers("not listed, audit only");
                Ok(())
            }
            Verdict::Unlisted { enforced: true } => {
                journal.trusted_issuers("not listed");
                Err(Refusal::new(Reason::IssuerNotPermitted, "issuer not permitted by organization policy"))
            }
        }
    }

    /// Mints. An installation id that GitHub no longer knows is looked up once more.
    async fn mint(&self, grant: &Grant, _recorded: Recorded) -> Result<IssuedToken, Refusal> {
        let github = &self.parts.github;
        let refuse = |error: github::Error| error.refusal(grant.owner());
        let installation = github.installation(grant.owner(), Standing::Verified).await.map_err(refuse)?;
        match github.mint(grant, &installation).await {
            Err(github::Error::Stale) => {
                github.forget_installation(grant.owner());
                let installation = github.installation(grant.owner(), Standing::Verified).await.map_err(refuse)?;
                github.mint(grant, &installation).await.map_err(refuse)
            }
            outcome => outcome.map_err(refuse),
        }
    }
}

/// The policy, where there is one.
fn present(located: &Located, audience: Audience, identity: &PolicyName) -> Result<Arc<PolicyFile>, Refusal> {
    if let Found::Present(file) = &located.found {
        Ok(Arc::clone(file))
    } else {
        Err(refuse::policy(&located.found, audience, identity))
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
        let github = github::Settings::new(http::Uri::from_static("http://127.0.0.1:1"), None);
        let github = GitHub::new(github, &egress, Arc::clone(&clock)).unwrap();
        let store = crate::store::Settings::new(".github".parse().unwrap());
        let store = Store::new(store, github.clone(), Arc::clone(&clock));
        let issuer = "https://token.actions.githubusercontent.com".parse().unwrap();
        let oidc = Oidc::new(oidc::Settings::new(issuer), egress, Arc::clone(&clock));
        let audit = Audit::start(Default::default(), Box::new(Nowhere)).unwrap();
        let settings = Settings::new("sts.example.com".into(), "github.com".into());
        Arc::new(Self::new(settings, Parts { oidc, store, github, audit, clock }))
    }
}
