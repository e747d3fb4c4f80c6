//! Replay protection: each token is exchanged once.
//!
//! A token's use is claimed after everything that could refuse it, and before the first call that
//! could mint. The claim is released only if it is certain that nothing was minted, so an honest
//! retry works. What was used is remembered until the token has expired and could not be used
//! anyway.
//!
//! The memory is this process's. If it is full, a claim fails: forgetting an earlier use would
//! allow it again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};

use crate::{
    clock::UnixTime,
    name::Owner,
    oidc::{EXPIRY_LEEWAY, Replay, Unverified, VerifiedToken},
};

/// How many uses are remembered: about 30 MiB.
const CAPACITY: usize = 262_144;
/// How many of them may be one owner's.
const OWNER_CAPACITY: usize = CAPACITY / 4;
/// Expired uses are dropped at most this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// One use of a token.
#[derive(Debug, Clone)]
pub struct TokenUse {
    key: [u8; 32],
    until: UnixTime,
    /// What happens if it is not the first.
    pub protection: Replay,
}

impl TokenUse {
    /// The use of a verified token: by its issuer and `jti`, or without one by its signed text.
    /// The signature does not count: some algorithms have several for one text.
    pub fn of(token: &Unverified, verified: &VerifiedToken, protection: Replay) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(verified.issuer().as_str().as_bytes());
        match verified.id().filter(|id| !id.is_empty()) {
            Some(id) => {
                digest.update(b"\0jti\0");
                digest.update(id.as_bytes());
            }
            None => {
                digest.update(b"\0text\0");
                digest.update(token.signed_text().as_bytes());
            }
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest.finish().as_ref());
        Self { key, until: verified.expires_at().plus(EXPIRY_LEEWAY), protection }
    }
}

/// Why a use cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotClaimed {
    /// It is not the first.
    #[error("the token was used before")]
    Replayed,
    /// No more can be remembered, of this owner or at all.
    #[error("no more uses of tokens can be remembered")]
    Full,
}

/// What was used. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// The end of each use, and whose share it is of.
    uses: HashMap<[u8; 32], (UnixTime, Owner)>,
    of_owner: HashMap<Owner, usize>,
    swept_at: Option<UnixTime>,
}

/// A use that is nobody else's.
#[derive(Debug)]
pub struct Claim {
    key: [u8; 32],
    uses: Uses,
}

impl Uses {
    /// Claims a use for an exchange with this owner.
    ///
    /// # Errors
    /// It is not the first, or cannot be remembered.
    pub fn claim(
        &self,
        used: &TokenUse,
        owner: &Owner,
        now: UnixTime,
    ) -> Result<Claim, NotClaimed> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.sweep(now);
        if memory.uses.contains_key(&used.key) {
            return Err(NotClaimed::Replayed);
        }
        if memory.uses.len() >= CAPACITY
            || memory.of_owner.get(owner).is_some_and(|count| *count >= OWNER_CAPACITY)
        {
            return Err(NotClaimed::Full);
        }
        memory.uses.insert(used.key, (used.until, owner.clone()));
        *memory.of_owner.entry(owner.clone()).or_default() += 1;
        Ok(Claim { key: used.key, uses: self.clone() })
    }
}

impl Claim {
    /// Gives the use back: it is certain that nothing was minted.
    pub fn release(self) {
        let mut memory = self.uses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, owner)) = memory.uses.remove(&self.key) {
            memory.forget(&owner);
        }
    }
}

impl Memory {
    fn sweep(&mut self, now: UnixTime) {
        if self.swept_at.is_some_and(|last| now < last.plus(SWEEP_INTERVAL) && now >= last) {
            return;
        }
        self.swept_at = Some(now);
        let ended = self.uses.extract_if(|_, (until, _)| *until < now);
        let owners: Vec<_> = ended.map(|(_, (_, owner))| owner).collect();
        owners.iter().for_each(|owner| self.forget(owner));
    }

    fn forget(&mut self, owner: &Owner) {
        if let Some(count) = self.of_owner.get_mut(owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_owner.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(n: u32, until: i64) -> TokenUse {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        TokenUse { key, until: UnixTime::from_secs(until), protection: Replay::Enforce }
    }

    fn owner(name: &str) -> Owner {
        name.parse().unwrap()
    }

    #[test]
    fn a_use_is_remembered_until_its_token_has_expired_or_it_is_released() {
        let (uses, owner) = (Uses::default(), owner("octo-org"));
        let claim = |at| uses.claim(&used(1, 100), &owner, UnixTime::from_secs(at));
        let first = claim(0).unwrap();
        assert_eq!(claim(0).unwrap_err(), NotClaimed::Replayed);
        assert_eq!(claim(100).unwrap_err(), NotClaimed::Replayed);
        first.release();
        drop(claim(100).unwrap());
        assert_eq!(claim(100).unwrap_err(), NotClaimed::Replayed);
        // The machine's clock may be set back: nothing is forgotten by it.
        assert_eq!(claim(10).unwrap_err(), NotClaimed::Replayed);
        assert!(claim(111).is_ok());
    }

    #[test]
    fn a_full_memory_refuses_and_one_owner_cannot_fill_it() {
        let uses = Uses::default();
        let now = UnixTime::from_secs(0);
        let (one, other) = (owner("one"), owner("other"));
        let share = u32::try_from(OWNER_CAPACITY).unwrap();
        for n in 0..share {
            drop(uses.claim(&used(n, 100), &one, now).unwrap());
        }
        assert_eq!(uses.claim(&used(share, 100), &one, now).unwrap_err(), NotClaimed::Full);
        assert_eq!(uses.claim(&used(0, 100), &one, now).unwrap_err(), NotClaimed::Replayed);
        assert!(uses.claim(&used(share, 100), &other, now).is_ok());
        let later = UnixTime::from_secs(101);
        assert!(uses.claim(&used(share, 200), &one, later).is_ok());
        assert_eq!(uses.0.lock().unwrap().of_owner.len(), 1);
    }
}
