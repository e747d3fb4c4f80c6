//! The way to a decision, the same whatever the attempt is for: who are you, which policy, may you.
//!
//! [`Exchange::decide`] ends before the mint. What comes of it says by its type what it is for, and
//! only a decision made for an exchange gives out its grant.

use std::sync::Arc;

use tracing::{Instrument, debug_span};

use super::{
    Claimed, Exchange, Settings,
    attempt::{Checking, Issuing, Journal, ParsedRequest, Purpose, Recorded, Terms},
    disclosure::{self, Audience},
};
use crate::{
    admission::Account,
    cache::CallerTrust,
    clock::Moment,
    deny_file::{DeniedByOperator, DenyList, Facts, PolicyAt},
    github::{Installation, Scarce},
    name::{AccountId, Owner, PolicyName, Scope, Subject},
    oidc::{Replay, VerifiedToken},
    policy::{self, Allowed, Denied, Grant, TrustedIssuers, Verdict},
    reason::{Reason, Refusal, Workload},
    replay::TokenUse,
    store::{AsOf, Found, Located, PolicyFile},
    telemetry::{metric, trace},
};

/// A token may be issued: by which grant, through which installation.
pub(super) struct Decision<P> {
    grant: Grant,
    installation: Installation,
    subject: Subject,
    policy: PolicyProof,
    denials: Arc<DenyList>,
    used: Option<TokenUse>,
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
    /// Before which announced change the decision began.
    pub(super) as_of: AsOf,
}

/// All that a mint needs.
pub(super) struct Authorized {
    pub(super) grant: Grant,
    pub(super) installation: Installation,
    pub(super) subject: Subject,
    pub(super) policy: PolicyProof,
    /// What the operator denied when the decision began.
    pub(super) denials: Arc<DenyList>,
    /// Nothing is minted without.
    _recorded: Recorded<Issuing>,
}

impl Decision<Issuing> {
    /// The use of the token that must be claimed first, if there is replay protection.
    pub(super) fn used(&self) -> Option<&TokenUse> {
        self.used.as_ref()
    }

    /// Gives out what a mint needs.
    pub(super) fn authorized(self, _claimed: &Claimed) -> Authorized {
        let Self { grant, installation, subject, policy, denials, recorded, .. } = self;
        Authorized { grant, installation, subject, policy, denials, _recorded: recorded }
    }
}

impl Decision<Checking> {
    /// What the reply to a check says of it.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            conditions: disclosure::shown(self.grant.conditions(), self.audience),
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
        asked: &ParsedRequest,
        account: &mut Account<'_>,
        journal: &mut Journal<'_, P>,
    ) -> Result<Decision<P>, Refusal> {
        journal.claims(&asked.token);
        let (as_of, denials) = (self.parts.store.as_of(), self.parts.denials.current());
        let identified = self.identify(asked, account, journal);
        let (token, passed) = identified.instrument(debug_span!(trace::IDENTIFY)).await?;
        let recorded = journal.verified(&token).await?;
        let used = self.token_use(asked, &token);
        let (subject, key_id) = (token.subject().clone(), token.key_id().cloned());
        let known = Facts {
            key_id: key_id.as_deref(),
            subject: Some(&subject),
            policy: Some(self.policy_at(asked)),
            ..Facts::of(&asked.token)
        };
        self.not_denied(&denials, &known).map_err(disclosure::denied_by_operator)?;
        self.served(asked.scope.owner())?;
        let (list, located) = match passed {
            Some(passed) => (passed.list, Some(passed.located)),
            None => {
                let list = self.trusted_issuers(asked, account);
                (list.instrument(debug_span!(trace::TRUSTED_ISSUERS)).await?, None)
            }
        };
        self.permitted(list, (&asked.scope, &token), journal).await?;
        let located = match located {
            Some(located) => located,
            None => self.locate(asked).instrument(debug_span!(trace::POLICY)).await?,
        };
        let audience = Audience::of(&token, &asked.scope, &located.found);
        journal.policy(&located);
        let file = present(&located, audience, &asked.identity)?;
        let workload = token.workload();
        let evaluated = self.evaluate(file, token, &asked.scope);
        let evaluated = evaluated.instrument(debug_span!(trace::EVALUATE)).await?;
        journal.evaluated(&evaluated);
        let grant = evaluated
            .map_err(|denied| disclosure::mismatch(&denied, audience, workload.clone()))?
            .narrow(&asked.narrowing)
            .map_err(disclosure::not_covered)?;
        let reached = Facts { repositories: Some(grant.repositories()), ..known };
        self.not_denied(&denials, &reached).map_err(disclosure::denied_by_operator)?;
        let installation = self.minter(&grant, asked, &subject).await?;
        let (account, proven_at) = (located.account, located.proven_at);
        let policy = PolicyProof { account, proven_at, as_of };
        Ok(Decision {
            grant,
            installation,
            subject,
            policy,
            denials,
            used,
            audience,
            workload,
            recorded,
        })
    }

    /// The use of the token, if there is replay protection for its issuer.
    fn token_use(&self, asked: &ParsedRequest, token: &VerifiedToken) -> Option<TokenUse> {
        let protection = token.replay().unwrap_or(self.settings.replay);
        (protection != Replay::Off).then(|| TokenUse::of(&asked.token, token, protection))
    }

    /// Whether a deny list says nothing against an attempt, as far as it is known.
    pub(super) fn not_denied(
        &self,
        denials: &DenyList,
        facts: &Facts<'_>,
    ) -> Result<(), DeniedByOperator> {
        denials.check(facts, self.parts.clock.now()).inspect_err(|_| {
            metrics::counter!(metric::DENIALS).increment(1);
        })
    }

    /// Where the policy of a request is.
    pub(super) fn policy_at<'a>(&'a self, asked: &'a ParsedRequest) -> PolicyAt<'a> {
        PolicyAt {
            owner: asked.scope.owner(),
            repo: asked.scope.repo().unwrap_or_else(|| self.parts.store.policy_repo()),
            name: &asked.identity,
        }
    }

    /// Whether this server serves the owner. Decided before anything is looked up at GitHub.
    pub(super) fn served(&self, owner: &Owner) -> Result<(), Refusal> {
        let is_served = self.settings.owners.as_ref().is_none_or(|owners| owners.contains(owner));
        if is_served { Ok(()) } else { Err(disclosure::not_served(owner)) }
    }

    /// The installation that mints by a grant: of the App that the policy pins, if it pins one.
    async fn minter(
        &self,
        grant: &Grant,
        asked: &ParsedRequest,
        subject: &Subject,
    ) -> Result<Installation, Refusal> {
        let route = asked.route(subject);
        let minter = self.parts.github.minter(grant, route, &[]).await;
        minter.map_err(|error| disclosure::github(&error, grant.owner()))
    }

    /// The organization's list, for a verified caller.
    async fn trusted_issuers(
        &self,
        asked: &ParsedRequest,
        account: &mut Account<'_>,
    ) -> Result<Option<Arc<TrustedIssuers>>, Refusal> {
        self.charge_lookups(asked, account).await?;
        let (owner, trust) = (asked.scope.owner(), CallerTrust::Verified);
        self.parts.github.account(owner, trust).await.map_err(|e| disclosure::github(&e, owner))?;
        self.parts
            .store
            .trusted_issuers(owner, trust)
            .await
            .map_err(|e| disclosure::store(&e, owner))
    }

    async fn locate(
        &self,
        ParsedRequest { scope, identity, .. }: &ParsedRequest,
    ) -> Result<Located, Refusal> {
        self.parts
            .store
            .policy(scope, identity, CallerTrust::Verified)
            .await
            .map_err(|e| disclosure::store(&e, scope.owner()))
    }

    /// Charges a verified caller for what is not cached, unless a granted attempt used it within
    /// the last day: then the lookup is a refresh, charged to nobody.
    pub(super) async fn charge_lookups(
        &self,
        asked: &ParsedRequest,
        account: &mut Account<'_>,
    ) -> Result<(), Refusal> {
        let (scope, trust) = (&asked.scope, CallerTrust::Verified);
        let github = &self.parts.github;
        let is_cached = github.is_installation_cached(scope.owner(), trust)
            && self.parts.store.is_cached(scope, &asked.identity, trust);
        if is_cached || account.is_refresh() {
            return Ok(());
        }
        match github.scarce(scope.owner()) {
            Some(Scarce::App(wait) | Scarce::Installation(wait)) if !account.is_proven() => {
                return Err(disclosure::scarce(wait));
            }
            Some(_) | None => {}
        }
        account.look_up().await.map_err(disclosure::too_many)
    }

    async fn evaluate(
        &self,
        file: Arc<PolicyFile>,
        token: VerifiedToken,
        scope: &Scope,
    ) -> Result<Result<Allowed, Denied>, Refusal> {
        let (cost, owner) = (file.policy.cost(&token), scope.owner().clone());
        let (settings, scope) = (Arc::clone(&self.settings), scope.clone());
        let policy_repo = self.parts.store.policy_repo().clone();
        let evaluate = move || {
            let Settings { domain, github_host, .. } = settings.as_ref();
            file.policy.evaluate(
                &token,
                &policy::Context { scope: &scope, domain, github_host, policy_repo: &policy_repo },
            )
        };
        self.cpu.run_by_cost(&owner, cost, evaluate).await.map_err(disclosure::cpu)
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
        let verdict =
            self.cpu.run_by_cost(scope.owner(), cost, move || list.verdict(&issuer)).await;
        match verdict.map_err(disclosure::cpu)? {
            Verdict::Listed => Ok(()),
            Verdict::Unlisted { enforced: false } => {
                journal.not_listed(false);
                Ok(())
            }
            Verdict::Unlisted { enforced: true } => {
                journal.not_listed(true);
                Err(Refusal::new(
                    Reason::IssuerNotPermitted,
                    "issuer not permitted by organization policy",
                ))
            }
        }
    }
}

/// The policy, where there is one.
fn present(
    located: &Located,
    audience: Audience,
    identity: &PolicyName,
) -> Result<Arc<PolicyFile>, Refusal> {
    if let Found::Present(file) = &located.found {
        Ok(Arc::clone(file))
    } else {
        Err(disclosure::policy(&located.found, audience, identity))
    }
}
