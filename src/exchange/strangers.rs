//! What a stranger's token may cost us, before its signature is verified.
//!
//! A token of an issuer that nobody configured makes us look up an installation, a list and a
//! policy before we know anything about it. Such tokens draw on three buckets: of the owner that
//! they name, of the client's address, and of the process. What an empty bucket answers depends on
//! nothing that exists.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::Clock as GovernorClock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};

use crate::{
    clock::{Clock, UnixTime},
    name::Owner,
};

/// How fast a bucket refills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a minute in the long run.
    pub per_minute: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; zero counts as one.
    pub const fn new(per_minute: u32, burst: u32) -> Self {
        const fn at_least_one(n: u32) -> NonZeroU32 {
            match NonZeroU32::new(n) {
                Some(n) => n,
                None => NonZeroU32::MIN,
            }
        }
        Self { per_minute: at_least_one(per_minute), burst: at_least_one(burst) }
    }

    fn quota(self) -> Quota {
        Quota::per_minute(self.per_minute).allow_burst(self.burst)
    }
}

/// The three buckets' rates.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For each owner that is named.
    pub owner: Rate,
    /// For each client address (for IPv6, each /64).
    pub address: Rate,
    /// For all together.
    pub process: Rate,
}

impl Default for Settings {
    fn default() -> Self {
        Self { owner: Rate::new(60, 30), address: Rate::new(60, 30), process: Rate::new(600, 300) }
    }
}

/// A bucket is empty; a retry can help after this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty(pub Duration);

/// So many buckets of a kind are kept before the full ones among them are forgotten.
const MANY_KEYS: usize = 10_000;

/// Buckets of one kind.
struct Keyed<K: Hash + Eq + Clone> {
    buckets: RateLimiter<K, HashMapStateStore<K>, OurClock, NoOpMiddleware<Nanos>>,
    /// At how many buckets the next sweep is due.
    sweep_at: AtomicUsize,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(rate: Rate, clock: OurClock) -> Self {
        Self { buckets: RateLimiter::hashmap_with_clock(rate.quota(), clock), sweep_at: MANY_KEYS.into() }
    }

    /// Draws on the bucket of `key`. A sweep looks at every bucket, so the next one is due when there
    /// are twice as many as it left.
    fn draw(&self, key: &K) -> Result<(), NotUntil<Nanos>> {
        if self.buckets.len() > self.sweep_at.load(Ordering::Relaxed) {
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
            self.sweep_at.store(MANY_KEYS.max(self.buckets.len() * 2), Ordering::Relaxed);
        }
        self.buckets.check_key(key)
    }
}

/// The buckets.
pub struct Strangers {
    owner: Keyed<Owner>,
    address: Keyed<IpAddr>,
    process: RateLimiter<NotKeyed, InMemoryState, OurClock, NoOpMiddleware<Nanos>>,
    clock: OurClock,
}

impl Strangers {
    /// Full buckets.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let clock = OurClock { epoch: clock.now(), clock };
        Self {
            owner: Keyed::new(settings.owner, clock.clone()),
            address: Keyed::new(settings.address, clock.clone()),
            process: RateLimiter::direct_with_clock(settings.process.quota(), clock.clone()),
            clock,
        }
    }

    /// Draws on the buckets for one look-up.
    ///
    /// # Errors
    /// One of them is empty. The caller's own comes first, so one address empties no other's.
    pub fn draw(&self, owner: &Owner, address: IpAddr) -> Result<(), Empty> {
        let drawn = self.address.draw(&network(address)).and_then(|()| self.owner.draw(owner));
        drawn.and_then(|()| self.process.check()).map_err(|until| self.empty(&until))
    }

    fn empty(&self, until: &NotUntil<Nanos>) -> Empty {
        Empty(until.wait_time_from(self.clock.now()))
    }
}

/// The network that one client can freely choose addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Our clock as the limiter reads it.
#[derive(Clone)]
struct OurClock {
    clock: Arc<dyn Clock>,
    epoch: UnixTime,
}

impl GovernorClock for OurClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.clock.now().since(self.epoch).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn strangers(settings: Settings) -> (Strangers, ManualClock) {
        let clock = ManualClock::at(UnixTime::from_secs(1_000_000));
        (Strangers::new(settings, Arc::new(clock.clone())), clock)
    }

    const WIDE: Rate = Rate::new(60_000, 60_000);

    fn owner(name: &str) -> Owner {
        name.parse().unwrap()
    }

    #[test]
    fn a_bucket_refills_with_time_and_says_when() {
        let (strangers, clock) = strangers(Settings { owner: Rate::new(60, 2), address: WIDE, process: WIDE });
        let draw = || strangers.draw(&owner("Octo-Org"), [192, 0, 2, 1].into());
        assert!(draw().is_ok() && draw().is_ok());
        assert_eq!(draw(), Err(Empty(Duration::from_secs(1))));
        assert_eq!(strangers.draw(&owner("octo-org"), [192, 0, 2, 9].into()), Err(Empty(Duration::from_secs(1))));
        assert!(strangers.draw(&owner("other"), [192, 0, 2, 1].into()).is_ok());
        clock.advance(Duration::from_secs(1));
        assert!(draw().is_ok());
    }

    #[test]
    fn one_address_does_not_empty_the_owners_bucket() {
        let (strangers, _) = strangers(Settings { owner: Rate::new(60, 3), address: Rate::new(60, 1), process: WIDE });
        let noisy = "2001:db8::1".parse().unwrap();
        assert!(strangers.draw(&owner("o"), noisy).is_ok());
        for host in 2..100_u16 {
            let neighbour = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into();
            assert!(strangers.draw(&owner("o"), neighbour).is_err());
        }
        assert!(strangers.draw(&owner("o"), [192, 0, 2, 1].into()).is_ok());
    }

    #[test]
    fn the_process_has_a_bucket_of_its_own() {
        let (strangers, _) = strangers(Settings { owner: WIDE, address: WIDE, process: Rate::new(60, 5) });
        let served = (0..100_u8).filter(|n| strangers.draw(&owner(&format!("o{n}")), [10, 0, 0, *n].into()).is_ok());
        assert_eq!(served.count(), 5);
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let (strangers, clock) = strangers(Settings { owner: WIDE, address: Rate::new(60, 1), process: WIDE });
        let draw = |n: u32| strangers.draw(&owner("o"), std::net::Ipv4Addr::from_bits(n).into());
        (0..30_000).for_each(|n| assert!(draw(n).is_ok()));
        assert_eq!(strangers.address.buckets.len(), 30_000, "each still counts");
        assert!(draw(7).is_err());
        clock.advance(Duration::from_secs(2));
        (40_000..60_000).for_each(|n| assert!(draw(n).is_ok()));
        assert_eq!(strangers.address.buckets.len(), 20_000);
    }
}
