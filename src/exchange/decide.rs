//! The way to a decision, the same whatever the attempt is for: who are you, which policy, may you.
//!
//! [`Exchange::decide`] ends before the mint. What comes of it says by its type what it is for, and
//! only a decision made for an exchange gives out its grant.

use std::sync::Arc;

use super::{
    Exchange, Settings,
    attempt::{Asked, Caller, Checking, Issuing, Journal, Purpose, Recorded, Terms},
    refuse::{self, Audience},
};
use crate::{
    cache::Standing,
    clock::Moment,
    github::{self, Installation},
    name::{AccountId, Owner, PolicyName, Scope},
    oidc::{self, VerifiedToken},
    policy::{self, Denied, Grant, TrustedIssuers, Verdict},
    reason::{Reason, Refusal, Workload},
    store::{Found, Located, PolicyFile},
};

/// A token may be issued: by which grant, through which installation.
pub(super) struct Decision<P> {
    grant: Grant,
    installation: Installation,
    policy: PolicyProof,
    audience: Audience,
    workload: Option<Workload>,
    recorded: Recorded<P>,
}

/// Whose policy decided, and as of when.
#[derive(Debug, Clone, Copy)]
pub(super) struct PolicyProof {
    /// The account that had the owner's name when the policy was read.
    pub(super) account: AccountId,
    /// When GitHub last showed the policy.
    pub(super) proven_at: Moment,
}

/// All that a mint needs.
pub(super) struct Authorized {
    pub(super) grant: Grant,
    pub(super) installation: Installation,
    pub(super) policy: PolicyProof,
    pub(super) recorded: Recorded<Issuing>,
}

impl Decision<Issuing> {
    /// Gives out what a mint needs.
    pub(super) fn authorized(self) -> Authorized {
        let Self { grant, installation, policy, recorded, .. } = self;
        Authorized { grant, installation, policy, recorded }
    }
}

impl Decision<Checking> {
    /// What may be told of it.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            conditions: refuse::shown(self.grant.conditions(), self.audience),
            permissions: self.grant.permissions().clone(),
            repositories: self.grant.repositories().clone(),
            workload: self.workload.clone(),
        }
    }
}

impl Exchange {
    /// The steps of an attempt, up to what is done by a grant.
    pub(super) async fn decide<P: Purpose>(
        &self,
        asked: &Asked,
        caller: &Caller,
        journal: &mut Journal<'_, P>,
    ) -> Result<Decision<P>, Refusal> {
        journal.claims(&asked.token);
        let token = self.identify(asked, caller, journal).await?;
        let recorded = journal.verified(&token).await?;
        self.served(asked.scope.owner())?;
        let list = self.trusted_issuers(&asked.scope).await?;
        self.permitted(list, (&asked.scope, &token), journal).await?;
        let located = self.locate(asked).await?;
        let audience = Audience::of(&token, &asked.scope, &located.found);
        journal.policy(&located);
        let file = present(&located, audience, &asked.identity)?;
        let workload = token.workload();
        let evaluated = self.evaluate(file, token, &asked.scope).await?;
        journal.evaluated(&evaluated);
        let grant = evaluated.map_err(|denied| refuse::mismatch(&denied, audience, workload.clone()))?;
        let installation = self.pinned(&grant).await?;
        let policy = PolicyProof { account: located.account, proven_at: located.proven_at };
        Ok(Decision { grant, installation, policy, audience, workload, recorded })
    }

    /// Whether this server serves the owner. Decided before anything is looked up at GitHub.
    fn served(&self, owner: &Owner) -> Result<(), Refusal> {
        let is_served = self.settings.owners.as_ref().is_none_or(|owners| owners.contains(owner));
        if is_served { Ok(()) } else { Err(refuse::not_served(owner)) }
    }

    /// The installation that mints by a grant, if it is of the App that the policy pins.
    async fn pinned(&self, grant: &Grant) -> Result<Installation, Refusal> {
        let refuse = |error: github::Error| error.refusal(grant.owner());
        let installation = self.parts.github.installation(grant.owner(), Standing::Verified).await.map_err(refuse)?;
        github::check_pin(grant, &installation).map_err(refuse)?;
        Ok(installation)
    }

    /// Who is it: a verified token, by keys of a known issuer or of one that the gate admits.
    async fn identify<P: Purpose>(
        &self,
        asked: &Asked,
        caller: &Caller,
        journal: &mut Journal<'_, P>,
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
    async fn identify_stranger<P: Purpose>(
        &self,
        asked: &Asked,
        caller: &Caller,
        journal: &mut Journal<'_, P>,
    ) -> Result<VerifiedToken, Refusal> {
        let oidc = &self.parts.oidc;
        let cached = oidc.verify_with_cached_keys(&asked.token, asked.scope.owner()).await;
        let standing = match &cached {
            Some(_) => Standing::Verified,
            None => {
                self.strangers.draw(asked.scope.owner(), caller.address).map_err(refuse::too_many)?;
                // A signer that is down is told before anything is looked up, alike for every owner.
                self.parts.github.prove_key().await.map_err(|e| refuse::signer(e, asked.scope.owner()))?;
                Standing::Unverified
            }
        };
        let not_served = |refusal: Refusal| refuse::stranger(refusal.cause.unwrap_or_default());
        self.served(asked.scope.owner()).map_err(not_served)?;
        let admission = self.gate(asked, standing, journal).await?;
        match cached {
            Some(cached) => oidc.confirm(&asked.token, cached, &admission).await.map_err(refuse::unverified),
            None => oidc.verify(&asked.token, &admission).await.map_err(refuse::unverified),
        }
    }

    async fn gate<P: Purpose>(
        &self,
        asked: &Asked,
        standing: Standing,
        journal: &mut Journal<'_, P>,
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
        let cost = file.policy.issuer_cost(&issuer).saturating_add(list.as_ref().map_or(0, |list| list.cost(&issuer)));
        let admitting = owner.clone();
        let admits = move || policy::gate::admit(list.as_deref(), &file.policy, &issuer, &admitting);
        let admission = self.cpu.run_by_cost(owner, cost, admits).await;
        admission
            .map_err(refuse::stranger)?
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
        let (cost, owner) = (file.policy.cost(&token), scope.owner().clone());
        let (settings, scope) = (Arc::clone(&self.settings), scope.clone());
        let policy_repo = self.parts.store.policy_repo().clone();
        let evaluate = move || {
            let Settings { domain, github_host, .. } = settings.as_ref();
            file.policy
                .evaluate(&token, &policy::Asked { scope: &scope, domain, github_host, policy_repo: &policy_repo })
        };
        self.cpu.run_by_cost(&owner, cost, evaluate).await.map_err(refuse::cpu)
    }

    /// What the organization says of the issuer.
    async fn permitted<P: Purpose>(
        &self,
        list: Option<Arc<TrustedIssuers>>,
        (scope, token): (&Scope, &VerifiedToken),
        journal: &mut Journal<'_, P>,
    ) -> Result<(), Refusal> {
        let Some(list) = list else { return Ok(()) };
        let (cost, issuer) = (list.cost(token.issuer()), token.issuer().clone());
        let verdict = self.cpu.run_by_cost(scope.owner(), cost, move || list.verdict(&issuer)).await;
        match verdict.map_err(refuse::cpu)? {
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
}

/// The policy, where there is one.
fn present(located: &Located, audience: Audience, identity: &PolicyName) -> Result<Arc<PolicyFile>, Refusal> {
    if let Found::Present(file) = &located.found {
        Ok(Arc::clone(file))
    } else {
        Err(refuse::policy(&located.found, audience, identity))
    }
}
