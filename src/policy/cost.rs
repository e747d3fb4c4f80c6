//! What a policy and a list cost: memory while they are cached, CPU each time they are evaluated.
//!
//! Both are upper bounds. The cost of a match is the pattern's compiled size times the length of
//! the text that this pattern is matched against.

use super::{AppPin, Policy, TrustedIssuers, compile::Matcher};
use crate::{
    cache::{ALLOCATION_OVERHEAD, heap_bytes},
    claim,
    name::Issuer,
    oidc::VerifiedToken,
};

impl Policy {
    /// What [`Policy::evaluate`] costs for this token.
    pub fn cost(&self, token: &VerifiedToken) -> u64 {
        let issuer = self.issuer.cost(token.issuer().as_str());
        // Where it does not match, a hint matches it once more.
        let subject = self.subject.cost(token.subject().as_str()).saturating_mul(2);
        let audience = self.audience.iter().fold(0, |sum: u64, matcher| {
            token
                .audiences()
                .iter()
                .fold(sum, |sum, audience| sum.saturating_add(matcher.cost(audience.as_str())))
        });
        let claims = self.claims.iter().fold(0, |sum: u64, (name, pattern)| {
            let texts =
                claim::lookup(token.claims(), name).into_iter().flat_map(claim::text_lengths);
            texts.fold(sum, |sum, bytes| sum.saturating_add(pattern.cost(bytes)))
        });
        issuer.saturating_add(subject).saturating_add(audience).saturating_add(claims)
    }

    /// What [`Policy::admit`] costs for this issuer.
    pub fn issuer_cost(&self, issuer: &Issuer) -> u64 {
        self.issuer.cost(issuer.as_str())
    }

    /// The memory behind this value, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let matchers = [Some(&self.issuer), Some(&self.subject), self.audience.as_ref()];
        let conditions: usize = matchers.into_iter().flatten().map(Matcher::heap_bytes).sum();
        let claims: usize =
            self.claims.iter().map(|(name, pattern)| heap_bytes(name) + pattern.heap_bytes()).sum();
        let permissions: usize = self.permissions.keys().map(|name| heap_bytes(name)).sum();
        let pin = match &self.pin {
            None => 0,
            Some(AppPin::Exact(app)) => heap_bytes(app),
            Some(AppPin::Pattern(pattern)) => pattern.heap_bytes(),
        };
        let repositories = self.coverage.heap_bytes();
        let maps = map_bytes(&self.claims) + map_bytes(&self.permissions);
        conditions + claims + permissions + pin + repositories + maps
    }
}

impl Matcher {
    fn cost(&self, text: &str) -> u64 {
        match self {
            Self::Exact(_) => 0,
            Self::Pattern(pattern) => pattern.cost(text.len()),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(exact) => heap_bytes(exact),
            Self::Pattern(pattern) => pattern.heap_bytes(),
        }
    }
}

impl TrustedIssuers {
    /// What [`TrustedIssuers::verdict`] costs for this issuer.
    pub fn cost(&self, issuer: &Issuer) -> u64 {
        let bytes = issuer.as_str().len();
        self.patterns.iter().fold(0, |sum: u64, pattern| sum.saturating_add(pattern.cost(bytes)))
    }

    /// The memory behind this value, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let issuers: usize = self
            .issuers
            .iter()
            .map(|issuer| size_of::<Issuer>() + heap_bytes(issuer.as_str()))
            .sum();
        let patterns: usize =
            self.patterns.iter().map(|pattern| size_of_val(pattern) + pattern.heap_bytes()).sum();
        issuers + patterns + 2 * ALLOCATION_OVERHEAD
    }
}

/// The nodes of a map. A node has room for eleven entries, and all but the root are at least half
/// full.
fn map_bytes<K, V>(map: &std::collections::BTreeMap<K, V>) -> usize {
    const ROOM: usize = 11;
    let node = ROOM * (size_of::<K>() + size_of::<V>())
        + (ROOM + 1) * size_of::<usize>()
        + ALLOCATION_OVERHEAD;
    if map.is_empty() { 0 } else { (1 + map.len() / 4) * node }
}
