//! Who is it: a verified token, by the keys of a known issuer or of one that the gate admits.
//!
//! Everything that can go wrong before the signature of an unknown issuer's token is verified has
//! one answer, sent at a time that says no more than the answer. What it may cost is decided by
//! [`admission`](crate::admission).

use std::sync::Arc;

use super::{
    Exchange,
    attempt::{Journal, ParsedRequest, Purpose},
    disclosure,
};
use crate::{
    admission::Account,
    cache::CallerTrust,
    deny_file::Facts,
    github::Scarce,
    oidc::{self, CachedVerification, VerifiedToken},
    policy::{self, TrustedIssuers},
    reason::{Reason, Refusal},
    store::{Found, Located},
};

/// What the gate has looked up. The decision uses the same, so that both judge the same files.
pub(super) struct Passed {
    pub(super) list: Option<Arc<TrustedIssuers>>,
    pub(super) located: Located,
    admission: oidc::Admission,
}

impl Exchange {
    /// Verifies the token. If its issuer is unknown, it must pass the gate first.
    pub(super) async fn identify<P: Purpose>(
        &self,
        asked: &ParsedRequest,
        account: &mut Account<'_>,
        journal: &mut Journal<'_, P>,
    ) -> Result<(VerifiedToken, Option<Passed>), Refusal> {
        let oidc = &self.parts.oidc;
        let known = oidc.known(&asked.token).map_err(|error| disclosure::oidc(&error))?;
        let (token, passed) = if let Some(admission) = known {
            self.not_denied(&self.parts.denials.current(), &Facts::of(&asked.token))
                .map_err(disclosure::not_trusted)?;
            let verified = oidc.verify(&asked.token, &admission).await;
            (verified.map_err(|error| disclosure::oidc(&error))?, None)
        } else {
            let (token, passed) = self.identify_unknown_issuer(asked, account, journal).await?;
            self.promote(asked);
            (token, Some(passed))
        };
        account.verified(token.issuer(), token.subject());
        Ok((token, passed))
    }

    async fn identify_unknown_issuer<P: Purpose>(
        &self,
        asked: &ParsedRequest,
        account: &mut Account<'_>,
        journal: &mut Journal<'_, P>,
    ) -> Result<(VerifiedToken, Passed), Refusal> {
        let arrived = journal.arrived();
        // Time enough is left for the refusal's step.
        let within =
            self.settings.deadline.saturating_sub(self.settings.refusal_step).mul_f64(0.95);
        let outcome =
            tokio::time::timeout(within, self.pass_and_verify(asked, account, journal)).await;
        match outcome.unwrap_or_else(|_| {
            Err(disclosure::not_trusted("the lookups before verification took too long"))
        }) {
            Err(refusal) if refusal.reason == Reason::IssuerNotTrusted => {
                Err(self.refusal_steps.delay(refusal, arrived).await)
            }
            outcome => outcome,
        }
    }

    /// The organization's list and the policy must both admit the issuer before anything is fetched
    /// from it, every time.
    async fn pass_and_verify<P: Purpose>(
        &self,
        asked: &ParsedRequest,
        account: &mut Account<'_>,
        journal: &mut Journal<'_, P>,
    ) -> Result<(VerifiedToken, Passed), Refusal> {
        let cached = self.verify_with_cached_keys(asked, account).await?;
        // Nothing connects other issuers with the owner yet: their callers learn nothing of it, and
        // the entries that are created for them evict no others.
        let is_proven = cached.is_some() && account.knows_issuer(asked.token.issuer());
        let trust = if is_proven { CallerTrust::Verified } else { CallerTrust::Unverified };
        let not_served =
            |refusal: Refusal| disclosure::not_trusted(refusal.cause.unwrap_or_default());
        self.served(asked.scope.owner()).map_err(not_served)?;
        let known = Facts { policy: Some(self.policy_at(asked)), ..Facts::of(&asked.token) };
        self.not_denied(&self.parts.denials.current(), &known).map_err(disclosure::not_trusted)?;
        match &cached {
            Some(token) if is_proven => {
                account.identified(token.issuer(), token.subject());
                self.charge_lookups(asked, account).await?;
            }
            Some(_) | None => self.check_before_lookups(asked).await?,
        }
        let passed = self.gate(asked, trust, journal).await?;
        let verified = match cached {
            Some(cached) => self.parts.oidc.confirm(&asked.token, cached, &passed.admission).await,
            None => self.parts.oidc.verify(&asked.token, &passed.admission).await,
        };
        verified.map(|token| (token, passed)).map_err(disclosure::unverified)
    }

    /// Charges for the token, then checks it with the keys that are cached. If the charge cannot be
    /// made now, the token of an issuer that is proven for the owner is checked without.
    async fn verify_with_cached_keys(
        &self,
        asked: &ParsedRequest,
        account: &mut Account<'_>,
    ) -> Result<Option<CachedVerification>, Refusal> {
        let (oidc, owner) = (&self.parts.oidc, asked.scope.owner());
        if !account.try_unverified() && account.knows_issuer(asked.token.issuer()) {
            let verified = oidc.verify_with_cached_keys(&asked.token, owner).await;
            if verified.is_some() {
                return Ok(verified);
            }
        }
        account.unverified().await.map_err(disclosure::too_many)?;
        Ok(oidc.verify_with_cached_keys(&asked.token, owner).await)
    }

    /// Faults that are the same for every owner are reported before anything is looked up.
    async fn check_before_lookups(&self, asked: &ParsedRequest) -> Result<(), Refusal> {
        let owner = asked.scope.owner();
        self.parts
            .github
            .prove_any_key()
            .await
            .map_err(|error| disclosure::signer(error, owner))?;
        match self.parts.github.scarce(owner) {
            None => Ok(()),
            Some(Scarce::App(wait)) => Err(disclosure::scarce(wait)),
            Some(Scarce::Installation(_)) => {
                Err(disclosure::not_trusted("GitHub's quota is kept for proven callers"))
            }
        }
    }

    async fn gate<P: Purpose>(
        &self,
        asked: &ParsedRequest,
        trust: CallerTrust,
        journal: &mut Journal<'_, P>,
    ) -> Result<Passed, Refusal> {
        let owner = asked.scope.owner();
        let store = &self.parts.store;
        self.parts.github.account(owner, trust).await.map_err(disclosure::not_trusted)?;
        let list = store.trusted_issuers(owner, trust).await.map_err(disclosure::not_trusted)?;
        let located = store
            .policy(&asked.scope, &asked.identity, trust)
            .await
            .map_err(disclosure::not_trusted)?;
        journal.policy(&located);
        let Found::Present(file) = &located.found else {
            return Err(disclosure::not_trusted(disclosure::not_present(&located.found)));
        };
        let (file, issuer) = (Arc::clone(file), asked.token.issuer().clone());
        let cost = file
            .policy
            .issuer_cost(&issuer)
            .saturating_add(list.as_ref().map_or(0, |list| list.cost(&issuer)));
        let admitting = list.clone();
        let admitting_owner = owner.clone();
        let admits = move || {
            policy::gate::admit(admitting.as_deref(), &file.policy, &issuer, &admitting_owner)
        };
        let admission = self.cpu.run_by_cost(owner, cost, admits).await;
        let admission = admission.map_err(disclosure::not_trusted)?.ok_or_else(|| {
            disclosure::not_trusted(
                "the organization's list or the policy does not admit the issuer",
            )
        })?;
        Ok(Passed { list, located, admission })
    }

    /// Keeps what the gate looked up as if it had been looked up for a verified caller.
    fn promote(&self, asked: &ParsedRequest) {
        self.parts.github.promote_installation(asked.scope.owner());
        self.parts.store.promote(&asked.scope, &asked.identity);
    }
}
