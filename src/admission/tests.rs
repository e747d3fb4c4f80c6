use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::FutureExt;

use super::*;
use crate::clock::{ManualClock, UnixTime};

const WIDE: Rate = Rate::new(60_000, 60_000);
/// Limits that take part in no test but their own.
const ROOMY: Settings =
    Settings { address: WIDE, caller: WIDE, owner: WIDE, process: WIDE, mints_per_minute: None };

fn admission(settings: Settings) -> (Admission, ManualClock) {
    let clock = ManualClock::at(UnixTime::from_secs(1_000_000));
    (Admission::new(settings, Arc::new(clock.clone())), clock)
}

/// A request for a policy of `owner`.
struct Request {
    scope: Scope,
    identity: PolicyName,
}

fn request(owner: &str) -> Request {
    Request { scope: format!("{owner}/repo").parse().unwrap(), identity: "ci".parse().unwrap() }
}

impl Request {
    fn open<'a>(&'a self, admission: &'a Admission, address: impl Into<IpAddr>) -> Account<'a> {
        admission.open(address.into(), &self.scope, &self.identity)
    }
}

fn issuer() -> Issuer {
    "https://idp.example.com".parse().unwrap()
}

fn subject(name: &str) -> Subject {
    name.parse().unwrap()
}

/// An unverified token comes to nothing: whether work was done for it.
fn spend(admission: &Admission, address: impl Into<IpAddr>, owner: &str) -> Result<(), Empty> {
    let request = request(owner);
    let mut account = request.open(admission, address);
    account.unverified().now_or_never().expect("nothing is outstanding")
}

/// A verified caller is not granted a token: whether lookups were made.
fn look_up(
    admission: &Admission,
    address: impl Into<IpAddr>,
    name: &str,
    owner: &str,
) -> Result<(), Empty> {
    let request = request(owner);
    let mut account = request.open(admission, address);
    account.verified(&issuer(), &subject(name));
    account.look_up().now_or_never().expect("nothing is outstanding")
}

/// A verified caller is granted a token.
fn grant(admission: &Admission, name: &str, owner: &str) {
    let request = request(owner);
    let mut account = request.open(admission, [198, 51, 100, 1]);
    account.verified(&issuer(), &subject(name));
    account.granted();
}

fn v4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(n)
}

fn v6(site: u16, network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, site, network, 0, 0, 0, host)
}

#[test]
fn a_bucket_refills_with_time_and_says_when() {
    let (admission, clock) = admission(Settings { address: Rate::new(20, 2), ..ROOMY });
    let spend = |host| spend(&admission, [192, 0, 2, host], "octo-org");
    assert!(spend(1).is_ok() && spend(1).is_ok());
    assert_eq!(spend(1), Err(Empty(Duration::from_secs(3))));
    assert!(spend(2).is_ok(), "each address by itself");
    clock.advance(Duration::from_secs(3));
    assert!(spend(1).is_ok());
    assert_eq!(spend(1), Err(Empty(Duration::from_secs(3))));
    clock.set_wall(UnixTime::from_secs(0));
    clock.advance(Duration::from_secs(3));
    assert!(spend(1).is_ok(), "the wall clock does not matter");
}

#[test]
fn an_empty_bucket_answers_the_same_for_every_owner() {
    let (admission, _) = admission(Settings::default());
    let answers =
        |owner| (0..40).map(|_| spend(&admission, [192, 0, 2, 1], owner)).collect::<Vec<_>>();
    assert_eq!(answers("octo-org").iter().filter(|answer| answer.is_ok()).count(), 30);
    assert_eq!(answers("octo-org")[39], answers("invented")[0]);
}

/// Everything that one source can do against `octo-org` and the process, for ten minutes, attempt
/// by attempt.
type Attack = fn(&Admission, u32);

const ATTACKS: [(&str, Attack); 6] = [
    ("one IPv4 address", |admission, _| {
        spend(admission, [10, 0, 0, 1], "octo-org").ok();
    }),
    ("one address in two forms", |admission, n| {
        let address = v4(0x0a00_0001);
        let form: IpAddr =
            if n.is_multiple_of(2) { address.into() } else { address.to_ipv6_mapped().into() };
        spend(admission, form, "octo-org").ok();
    }),
    ("one /64", |admission, n| {
        spend(admission, v6(0, 0, n as u16), "octo-org").ok();
    }),
    ("one /48", |admission, n| {
        spend(admission, v6(0, n as u16, 1), "octo-org").ok();
    }),
    ("one verified caller", |admission, n| {
        look_up(admission, v4(n), "evil", "octo-org").ok();
    }),
    ("one address with many subjects", |admission, n| {
        look_up(admission, [10, 0, 0, 1], &format!("evil-{n}"), "octo-org").ok();
    }),
];

/// The default rates, and some with which the address's or the caller's rate exceeds the others.
fn rates() -> [Settings; 4] {
    let (defaults, small) = (Settings::default(), Rate::new(60, 40));
    [
        defaults,
        Settings { address: WIDE, caller: WIDE, ..defaults },
        Settings { owner: small, ..defaults },
        Settings { address: WIDE, caller: WIDE, owner: small, process: small, ..defaults },
    ]
}

#[test]
fn one_source_uses_up_no_more_than_a_quarter_of_what_others_need() {
    for (what, attack) in ATTACKS {
        for settings in rates() {
            let (admission, clock) = admission(settings);
            // A source that asks all the time, and then someone else who asks once.
            for n in 0..3_000 {
                attack(&admission, n);
                clock.advance(Duration::from_millis(20));
            }
            (0..3_000).for_each(|n| attack(&admission, n));
            let burst = settings.owner.burst.get().min(settings.process.burst.get());
            let others = (0..burst)
                .filter(|n| spend(&admission, v4(0xc000_0000 + n), "octo-org").is_ok())
                .count();
            assert!(
                others as u32 >= burst * 3 / 4,
                "{what}: {others} of {burst} with {settings:?}"
            );
        }
    }
}

#[test]
fn one_source_uses_up_no_more_than_a_part_of_an_hours_quota() {
    type Attempt = fn(&Admission, u32, &str) -> bool;
    let attempts: [(&str, Attempt); 3] = [
        ("address", |admission, _, owner| spend(admission, [10, 0, 0, 1], owner).is_ok()),
        ("/48", |admission, n, owner| spend(admission, v6(0, n as u16, 1), owner).is_ok()),
        ("caller", |admission, n, owner| look_up(admission, v4(n), "evil", owner).is_ok()),
    ];
    for (what, attempt) in attempts {
        for (is_one_owner, most) in [(false, HOURLY), (true, HOURLY_OF_OWNER)] {
            let (admission, clock) = admission(Settings::default());
            let mut worked = 0;
            for n in 0..18_000_u32 {
                let owner =
                    if is_one_owner { "octo-org".to_owned() } else { format!("invented-{n}") };
                worked += u32::from(attempt(&admission, n, &owner));
                clock.advance(Duration::from_millis(200));
            }
            // A full bucket, and what refills in the hour.
            assert!(worked <= 2 * most.get() + 1, "{what}: {worked}");
        }
    }
}

#[test]
fn a_48_has_thirty_times_the_rate_of_a_64() {
    let (admission, _) = admission(Settings { address: Rate::new(60, 2), ..ROOMY });
    let worked =
        |site| (0..1_000).filter(|n| spend(&admission, v6(site, *n, 1), "o").is_ok()).count();
    assert_eq!((worked(0), worked(1)), (60, 60));
}

#[test]
fn a_charge_is_returned_when_the_attempt_proves_honest_and_spent_otherwise() {
    let (admission, _) =
        admission(Settings { address: Rate::new(1, 1), caller: Rate::new(1, 1), ..ROOMY });
    let (request, address) = (request("o"), [192, 0, 2, 1]);
    // The signature is verified.
    for _ in 0..3 {
        let mut account = request.open(&admission, address);
        assert!(account.try_unverified());
        account.verified(&issuer(), &subject("a"));
    }
    // A token is granted, or would be.
    for is_check in [true, true, false] {
        let mut account = request.open(&admission, address);
        account.verified(&issuer(), &subject("a"));
        assert_eq!(account.look_up().now_or_never(), Some(Ok(())));
        if is_check { account.granted_check() } else { account.granted() }
    }
    // Neither.
    assert!(look_up(&admission, address, "b", "other").is_ok());
    assert!(look_up(&admission, address, "b", "other").is_err());
    assert!(spend(&admission, address, "o").is_ok());
    assert!(spend(&admission, address, "o").is_err());
}

#[tokio::test]
async fn three_hundred_honest_callers_wait_for_each_other_and_are_all_served_in_order() {
    for address in [|_| v4(1), v4 as fn(u32) -> Ipv4Addr] {
        let (admission, _) = admission(Settings::default());
        let request = request("octo-org");
        let mut waiting: std::collections::VecDeque<_> = (0..300)
            .map(|n| {
                let mut account = request.open(&admission, address(n));
                Box::pin(async move { account.unverified().await.map(|()| (n, account)) })
            })
            .collect();
        let mut served = Vec::new();
        let mut working = std::collections::VecDeque::new();
        // Time stands still: nothing but what is returned serves them.
        while served.len() < 300 {
            for _ in 0..waiting.len() {
                let mut caller = waiting.pop_front().unwrap();
                // Polling many callers in one task uses up what tokio lets a task do at a time.
                tokio::task::yield_now().await;
                match (&mut caller).now_or_never() {
                    Some(outcome) => working.push_back(outcome.unwrap()),
                    None => waiting.push_back(caller),
                }
            }
            let (n, mut account) = working.pop_front().expect("some are working");
            account.verified(&issuer(), &subject("a"));
            served.push(n);
        }
        assert!(served.is_sorted(), "{served:?}");
    }
}

#[tokio::test]
async fn a_waiting_charge_ends_with_the_charges_that_it_waits_for() {
    let (admission, clock) = admission(Settings { address: Rate::new(1, 1), ..ROOMY });
    let (request, address) = (request("o"), [192, 0, 2, 1]);
    let mut first = request.open(&admission, address);
    assert!(first.try_unverified());
    let mut second = request.open(&admission, address);
    let mut waiting = Box::pin(second.unverified());
    assert!((&mut waiting).now_or_never().is_none());
    drop(first);
    assert_eq!(
        waiting.now_or_never(),
        Some(Err(Empty(Duration::from_secs(60)))),
        "spent: nothing will come back"
    );

    clock.advance(Duration::from_secs(60));
    let mut first = request.open(&admission, address);
    assert!(first.try_unverified());
    let mut second = request.open(&admission, address);
    let mut waiting = Box::pin(second.unverified());
    assert!((&mut waiting).now_or_never().is_none());
    clock.advance(Duration::from_secs(10));
    assert!(waiting.now_or_never().unwrap().is_err(), "the wait is bounded");
}

#[tokio::test]
async fn a_waiting_charge_is_served_by_the_refill() {
    let (admission, clock) = admission(Settings { address: Rate::new(60, 1), ..ROOMY });
    let (request, address) = (request("o"), [192, 0, 2, 1]);
    let mut first = request.open(&admission, address);
    assert!(first.try_unverified());
    let mut second = request.open(&admission, address);
    let mut waiting = Box::pin(second.unverified());
    assert!((&mut waiting).now_or_never().is_none());
    clock.advance(Duration::from_secs(1));
    assert_eq!(waiting.now_or_never(), Some(Ok(())));
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_waits_holds_up_nobody() {
    let (admission, _) = admission(Settings { address: Rate::new(1, 1), ..ROOMY });
    let (request, address) = (request("o"), [192, 0, 2, 1]);
    let mut first = request.open(&admission, address);
    assert!(first.try_unverified());
    let mut accounts: Vec<_> = (0..3).map(|_| request.open(&admission, address)).collect();
    let mut waiting: Vec<_> =
        accounts.iter_mut().map(|account| Box::pin(account.unverified())).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    drop(waiting.remove(0));
    first.verified(&issuer(), &subject("a"));
    assert_eq!(waiting.remove(0).now_or_never(), Some(Ok(())));
}

#[tokio::test]
async fn the_number_of_waiting_charges_is_bounded() {
    let (admission, _) = admission(Settings { address: Rate::new(1, 1), ..ROOMY });
    let (request, address) = (request("o"), [192, 0, 2, 1]);
    let mut first = request.open(&admission, address);
    assert!(first.try_unverified());
    let mut accounts: Vec<_> = (0..2_000).map(|_| request.open(&admission, address)).collect();
    let mut waiting: Vec<_> =
        accounts.iter_mut().map(|account| Box::pin(account.unverified())).collect();
    let refused =
        waiting.iter_mut().filter_map(|waiting| waiting.now_or_never()).collect::<Vec<_>>();
    assert_eq!(refused, vec![Err(Empty(Duration::from_secs(1))); 2_000 - 1_024]);
}

#[test]
fn a_proven_caller_has_a_reserve_that_nobody_else_can_empty() {
    let (admission, clock) = admission(Settings::default());
    grant(&admission, "honest", "octo-org");
    clock.advance(Duration::from_secs(23 * 60 * 60));
    // All that the others can use up: many networks, and many callers of the same owner.
    for n in 0..10_000 {
        spend(&admission, v4(n), "octo-org").ok();
        look_up(&admission, v4(n), &format!("evil-{n}"), "octo-org").ok();
        spend(&admission, v4(n + 10_000), &format!("invented-{n}")).ok();
    }
    assert!(spend(&admission, v4(30_000), "another-org").is_err(), "the process's bucket is empty");
    let fresh = |name: &str, owner: &str| {
        let request = Request { identity: "another".parse().unwrap(), ..request(owner) };
        let mut account = request.open(&admission, [10, 0, 0, 1]);
        assert!(!account.try_unverified());
        account.identified(&issuer(), &subject(name));
        account.look_up().now_or_never().unwrap().is_ok()
    };
    assert!(!fresh("other", "octo-org") && !fresh("honest", "another-org"));
    let account = |owner| request(owner).open(&admission, [10, 0, 0, 1]).knows_issuer(&issuer());
    assert!(account("octo-org") && !account("another-org"));
    assert_eq!(
        (0..100).filter(|_| fresh("honest", "octo-org")).count(),
        30,
        "the reserve is the caller's own rate"
    );
    clock.advance(Duration::from_secs(60 * 60));
    assert!(!account("octo-org"), "for a day");
}

#[test]
fn attempts_that_share_lookups_are_charged_once() {
    let (admission, _) = admission(Settings { owner: Rate::new(1, 1), ..ROOMY });
    let request = request("octo-org");
    let look_up = |name: &str| {
        let mut account = request.open(&admission, [192, 0, 2, 1]);
        account.verified(&issuer(), &subject(name));
        (account.look_up().now_or_never(), account)
    };
    let first = look_up("a");
    assert_eq!(
        (&first.0, look_up("b").0, look_up("c").0),
        (&Some(Ok(())), Some(Ok(())), Some(Ok(())))
    );
    drop(first);
    assert!(
        matches!(look_up("b").0, Some(Err(_))),
        "the charge is spent, and its lookups are over"
    );
}

#[test]
fn a_policy_that_granted_a_token_is_looked_up_again_for_nobodys_charge() {
    let (admission, clock) = admission(Settings { caller: Rate::new(1, 1), ..ROOMY });
    grant(&admission, "honest", "octo-org");
    assert!((0..100).all(|_| look_up(&admission, v4(1), "other", "octo-org").is_ok()));
    clock.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(
        (0..100).filter(|_| look_up(&admission, v4(1), "other", "octo-org").is_ok()).count(),
        1
    );
}

#[test]
fn mints_are_limited_for_each_app_if_the_operator_says_so() {
    let (unlimited, _) = admission(Settings::default());
    assert!((0..10_000).all(|_| unlimited.mint(AppId(1)).is_ok()));
    let (limited, clock) = admission(Settings { mints_per_minute: NonZeroU32::new(20), ..ROOMY });
    assert_eq!((0..100).filter(|_| limited.mint(AppId(1)).is_ok()).count(), 20);
    assert_eq!(limited.mint(AppId(1)), Err(Empty(Duration::from_secs(3))));
    assert!(limited.mint(AppId(2)).is_ok());
    clock.advance(Duration::from_secs(3));
    assert!(limited.mint(AppId(1)).is_ok());
}

#[test]
fn buckets_that_are_full_again_take_no_room_and_the_others_are_bounded() {
    let (admission, clock) = admission(Settings::default());
    let mut most = 0;
    for n in 0..60_000_u32 {
        spend(&admission, v4(n), &format!("o{n}")).ok();
        clock.advance(Duration::from_millis(1));
        most = most.max(admission.buckets.len());
    }
    assert!(most < 1 << 16, "{most}");

    // With rates that no bucket refills by, there is no room at some point, and work ends.
    let slow =
        Settings { address: Rate::new(1, 1), process: Rate::new(1_000_000, 1_000_000), ..ROOMY };
    let (admission, _) = self::admission(slow);
    let worked = (0..100_000).filter(|n| spend(&admission, v4(*n), "octo-org").is_ok()).count();
    assert!(admission.buckets.len() <= 1 << 16 && worked < 100_000, "{worked}");
}
