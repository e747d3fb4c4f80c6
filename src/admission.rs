//! What an attempt may cost before it is authorized.
//!
//! An unauthorized attempt makes the server call GitHub, fetch keys and check signatures. It is
//! charged before this work is done, to token buckets that [`Rate`]s describe, whatever the work
//! finds. A charge is returned when the attempt turns out to be honest, and spent otherwise:
//!
//! - **An unverified token of an unknown issuer** is charged to the client address (IPv6: the /64,
//!   and the /48 at thirty times its rate), to the owner that it names, and to the process. The
//!   charge is returned when its signature is verified.
//! - **A verified caller** (issuer and subject) whose attempt needs something that is not cached is
//!   charged to the caller, the owner and the process. The charge is returned when a token is
//!   granted. Attempts that need the lookups of one policy at the same time share them, and one is
//!   charged. A policy that granted a token within the last day is looked up again for nobody's
//!   charge: that is one lookup for each lifetime of its cache entry, however many callers name it.
//!
//! **One source cannot use up what it shares with others.** A source is a verified caller, a /48 or
//! an IPv4 address. Each source may use a quarter of an owner's bucket and a quarter of the
//! process's, because thirty times the address rate is more than either refills. Rates per minute
//! alone would still let one source use up GitHub's hourly quotas, so in an hour each source may
//! spend [`HOURLY`] tokens, and [`HOURLY_OF_OWNER`] on one owner. Verified callers count for their
//! network too, since one client can hold many subjects, but not for their address: behind a common
//! address one caller must not refuse the others.
//!
//! **Honest bursts wait, they are not refused.** If a bucket is empty only because of charges that
//! are still outstanding, the next charge waits for one of them to be returned.
//!
//! **Proven callers have a reserve.** A caller that was granted a token for an owner within the
//! last day may use a bucket that is charged for this pair alone, once its token is verified. If
//! the other buckets are empty, a token of an issuer that is proven for the owner is therefore
//! still checked with the cached keys. Only a good signature reaches the reserve, so no forged
//! token can empty it. A forged one gets the answer of the empty bucket and costs one check, as for
//! known issuers.
//!
//! Memory is bounded: at most 65,536 buckets that are not full, and 131,072 proven facts.

mod bucket;
mod proven;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bucket::{Buckets, Charge, Line, NotNow};
use proven::Proven;

pub use bucket::{Empty, Rate};

use crate::{
    clock::Clock,
    name::{AppId, Issuer, Owner, PolicyName, Scope, Subject},
};

/// The /48 of an IPv6 address has so many times the rate of the address.
const NETWORK_FACTOR: u32 = 30;
/// A source may use one part in so many of an owner's bucket, and of the process's.
const SOURCE_SHARE: NonZeroU32 = at_least_one(4);
/// Tokens that a source may spend in an hour. Each costs two calls with the App's credential at
/// most.
pub const HOURLY: NonZeroU32 = at_least_one(1_000);
/// Tokens that a source may spend on one owner in an hour.
pub const HOURLY_OF_OWNER: NonZeroU32 = at_least_one(400);

const fn at_least_one(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}

/// The rates.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For each client address (for IPv6, each /64).
    pub address: Rate,
    /// For each verified caller; also the reserve of a proven caller.
    pub caller: Rate,
    /// For each owner that a request names.
    pub owner: Rate,
    /// For all together.
    pub process: Rate,
    /// Mints a minute for each App, if they are limited.
    pub mints_per_minute: Option<NonZeroU32>,
}

impl Default for Settings {
    fn default() -> Self {
        let each = Rate::new(60, 30);
        Self {
            address: each,
            caller: each,
            owner: Rate::new(600, 600),
            process: Rate::new(3_000, 3_000),
            mints_per_minute: None,
        }
    }
}

/// What is charged and limited by itself.
#[derive(Hash)]
enum Key<'a> {
    Address(IpAddr),
    Source(Source<'a>),
    SourceHour(Source<'a>),
    SourceOfProcess(Source<'a>),
    SourceOfOwner(Source<'a>, &'a Owner),
    SourceHourOfOwner(Source<'a>, &'a Owner),
    Owner(&'a Owner),
    Process,
    Reserve(&'a Issuer, &'a Subject, &'a Owner),
    Mints(AppId),
}

/// Who causes work, as far as we can tell one from another.
#[derive(Hash, Clone, Copy)]
enum Source<'a> {
    Network(IpAddr),
    Caller(&'a Issuer, &'a Subject),
}

/// Decides what attempts may cost.
#[derive(Debug)]
pub struct Admission {
    settings: Settings,
    buckets: Arc<Buckets>,
    proven: Proven,
    /// Policies whose lookups an attempt is charged for at this moment.
    charged: Mutex<HashSet<u64>>,
}

impl Admission {
    /// Full buckets, and no caller is proven.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let buckets = Buckets::new(Arc::clone(&clock));
        Self { settings, buckets, proven: Proven::new(clock), charged: Mutex::default() }
    }

    /// Opens the account of an attempt.
    pub fn open<'a>(
        &'a self,
        address: IpAddr,
        scope: &'a Scope,
        identity: &'a PolicyName,
    ) -> Account<'a> {
        Account {
            admission: self,
            address,
            scope,
            identity,
            caller: None,
            unverified: None,
            lookups: None,
        }
    }

    /// Charges a mint.
    ///
    /// # Errors
    /// The App has minted as often as it may for now.
    pub fn mint(&self, app: AppId) -> Result<(), Empty> {
        let Some(per_minute) = self.settings.mints_per_minute else { return Ok(()) };
        let line = self.buckets.line(Key::Mints(app), Rate { per_minute, burst: per_minute });
        match self.buckets.try_charge(&[line]) {
            Ok(spent) => {
                drop(spent);
                Ok(())
            }
            Err(NotNow::Empty(empty)) => Err(empty),
            // Never: a mint's charge is not outstanding for longer than this function.
            Err(NotNow::Busy) => Ok(()),
        }
    }

    /// What `source` shares with others for work on `owner`.
    fn shares<'a>(&'a self, source: Source<'a>, owner: &'a Owner) -> [Line; 4] {
        let Settings { owner: of_owner, process, .. } = self.settings;
        [
            self.buckets.line(Key::SourceOfOwner(source, owner), of_owner.divided_by(SOURCE_SHARE)),
            self.buckets.line(Key::SourceOfProcess(source), process.divided_by(SOURCE_SHARE)),
            self.buckets.hourly(Key::SourceHourOfOwner(source, owner), HOURLY_OF_OWNER),
            self.buckets.hourly(Key::SourceHour(source), HOURLY),
        ]
    }

    fn charged(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.charged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owner_and_process(&self, owner: &Owner) -> [Line; 2] {
        let Settings { owner: of_owner, process, .. } = self.settings;
        [self.buckets.line(Key::Owner(owner), of_owner), self.buckets.line(Key::Process, process)]
    }
}

/// The account of one attempt. What it still holds when it is dropped is spent.
#[derive(Debug)]
pub struct Account<'a> {
    admission: &'a Admission,
    address: IpAddr,
    scope: &'a Scope,
    identity: &'a PolicyName,
    caller: Option<(Issuer, Subject)>,
    unverified: Option<Charge>,
    lookups: Option<(Charge, Lookups<'a>)>,
}

/// The lookups of one policy, charged to one attempt. Others that need them meanwhile share them.
#[derive(Debug)]
struct Lookups<'a> {
    admission: &'a Admission,
    policy: u64,
}

impl<'a> Lookups<'a> {
    fn new(admission: &'a Admission, policy: u64) -> Self {
        admission.charged().insert(policy);
        Self { admission, policy }
    }
}

impl Drop for Lookups<'_> {
    fn drop(&mut self) {
        self.admission.charged().remove(&self.policy);
    }
}

impl<'a> Account<'a> {
    /// Whether tokens of this issuer are proven for the owner: they are then checked with the
    /// cached keys even if [`Account::try_unverified`] fails.
    pub fn knows_issuer(&self, issuer: &Issuer) -> bool {
        self.admission.proven.knows_issuer(issuer, self.scope.owner())
    }

    /// Charges for work on an unverified token, if that is possible without waiting.
    pub fn try_unverified(&mut self) -> bool {
        if self.unverified.is_none() {
            self.unverified = self.admission.buckets.try_charge(&self.unverified_lines()).ok();
        }
        self.unverified.is_some()
    }

    /// Charges for work on an unverified token, once. May wait.
    ///
    /// # Errors
    /// A bucket is empty.
    pub async fn unverified(&mut self) -> Result<(), Empty> {
        if self.unverified.is_none() {
            let lines = self.unverified_lines();
            self.unverified = Some(self.admission.buckets.charge(&lines).await?);
        }
        Ok(())
    }

    /// The signature is verified by cached keys. Whether the issuer passes the gate is not known
    /// yet.
    pub fn identified(&mut self, issuer: &Issuer, subject: &Subject) {
        self.caller = Some((issuer.clone(), subject.clone()));
    }

    /// The signature is verified, and the issuer is known or passed the gate: what was charged for
    /// it is returned.
    pub fn verified(&mut self, issuer: &Issuer, subject: &Subject) {
        self.identified(issuer, subject);
        if let Some(charge) = self.unverified.take() {
            charge.give_back();
        }
    }

    /// Charges a verified caller for lookups, once, unless the charge for its token still stands or
    /// another attempt is charged for the same lookups. May wait.
    ///
    /// # Errors
    /// A bucket is empty, and the caller has no reserve left.
    pub async fn look_up(&mut self) -> Result<(), Empty> {
        let policy = self.admission.buckets.hash((self.scope, self.identity));
        let is_charged = self.unverified.is_some() || self.lookups.is_some();
        if is_charged || self.is_refresh() || self.admission.charged().contains(&policy) {
            return Ok(());
        }
        let buckets = &self.admission.buckets;
        let lines = self.lookup_lines();
        let charge = match self.reserve() {
            None => buckets.charge(&lines).await?,
            Some(reserve) => match buckets.try_charge(&lines) {
                Ok(charge) => charge,
                Err(_) => buckets.charge(&[reserve]).await?,
            },
        };
        self.lookups = Some((charge, Lookups::new(self.admission, policy)));
        Ok(())
    }

    /// Whether the lookups only refresh what a granted attempt used: they are charged to nobody.
    pub fn is_refresh(&self) -> bool {
        self.admission.proven.knows_policy(self.scope, self.identity)
    }

    /// Whether the caller was granted a token for this owner within the last day.
    pub fn is_proven(&self) -> bool {
        self.reserve().is_some()
    }

    /// A token was granted: all charges are returned, and the caller is proven.
    pub fn granted(mut self) {
        self.return_all();
        if let Some((issuer, subject)) = &self.caller {
            self.admission.proven.note((issuer, subject), self.scope, self.identity);
        }
    }

    /// A token would have been granted: all charges are returned.
    pub fn granted_check(mut self) {
        self.return_all();
    }

    fn return_all(&mut self) {
        let lookups = self.lookups.take().map(|(charge, _)| charge);
        [self.unverified.take(), lookups].into_iter().flatten().for_each(Charge::give_back);
    }

    fn reserve(&self) -> Option<Line> {
        let Admission { settings, buckets, proven, .. } = self.admission;
        let (issuer, subject) = self.caller.as_ref()?;
        let owner = self.scope.owner();
        proven
            .knows_caller((issuer, subject), owner)
            .then(|| buckets.line(Key::Reserve(issuer, subject, owner), settings.caller))
    }

    fn unverified_lines(&self) -> Vec<Line> {
        let Admission { settings, buckets, .. } = self.admission;
        let (address, network) = networks(self.address);
        let mut lines = vec![buckets.line(Key::Address(address), settings.address)];
        if address.is_ipv6() {
            let rate = settings.address.times(NETWORK_FACTOR);
            lines.push(buckets.line(Key::Source(Source::Network(network)), rate));
        }
        let owner = self.scope.owner();
        lines.extend(self.admission.shares(Source::Network(network), owner));
        lines.extend(self.admission.owner_and_process(owner));
        lines
    }

    fn lookup_lines(&self) -> Vec<Line> {
        let Admission { settings, buckets, .. } = self.admission;
        let (_, network) = networks(self.address);
        let owner = self.scope.owner();
        let mut lines = Vec::new();
        if let Some((issuer, subject)) = &self.caller {
            let caller = Source::Caller(issuer, subject);
            lines.push(buckets.line(Key::Source(caller), settings.caller));
            lines.extend(self.admission.shares(caller, owner));
        }
        lines.extend(self.admission.shares(Source::Network(network), owner));
        lines.extend(self.admission.owner_and_process(owner));
        lines
    }
}

/// The network that one client can freely choose addresses from, and the one that a site usually
/// has.
fn networks(address: IpAddr) -> (IpAddr, IpAddr) {
    let prefix = |v6: Ipv6Addr, bits: u32| {
        IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> bits)))
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => (v4.into(), v4.into()),
        IpAddr::V6(v6) => (prefix(v6, 64), prefix(v6, 48)),
    }
}
