//! Time: the only file that reads it.
//!
//! The freshness of caches and the times in tokens are decided by a [`Clock`] that is passed in, so
//! a test can move through hours in no time and nothing else in the crate depends on when it runs.
//!
//! There are two readings. [`UnixTime`] is the wall clock: it is for claims, expiry times and
//! records, and an operator or NTP can set it back. [`Moment`] only moves forward: freshness,
//! deadlines and token buckets use it.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// A moment: microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The moment that many whole seconds after the epoch; beyond the representable, the last one.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Seconds since the epoch, as metrics have them; 0 before it.
    pub fn as_secs_f64(self) -> f64 {
        Duration::from_micros(u64::try_from(self.0).unwrap_or(0)).as_secs_f64()
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The moment `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// The moment `by` earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with whole seconds: `2026-01-01T00:00:00Z`.
    pub fn rfc3339(self) -> String {
        self.timestamp().map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
    }

    /// RFC 3339 in UTC with milliseconds, for records.
    pub fn rfc3339_millis(self) -> String {
        self.timestamp()
            .map(|t| t.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
            .unwrap_or_default()
    }

    /// The `Date` of an HTTP reply: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
    pub fn http_date(self) -> String {
        self.timestamp()
            .map(|t| t.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
            .unwrap_or_default()
    }

    /// Reads the `Date` of an HTTP reply.
    pub fn parse_http_date(text: &str) -> Option<Self> {
        static PARSER: jiff::fmt::rfc2822::DateTimeParser =
            jiff::fmt::rfc2822::DateTimeParser::new();
        PARSER.parse_timestamp(text).ok().map(|t| Self(t.as_microsecond()))
    }

    /// Reads RFC 3339, as GitHub writes it.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_microsecond()))
    }

    fn timestamp(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_microsecond(self.0).ok()
    }
}

/// A reading of the monotonic clock: the time since an arbitrary start. It never goes back,
/// whatever happens to the wall clock, and means nothing outside this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The time since the clock's start.
    pub fn since_start(self) -> Duration {
        self.0
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A span of time as Go writes it (`time.ParseDuration`) without a sign: numbers with units, one
/// after the other, such as `1h30m`, or `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = None;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| c != '.' && !c.is_ascii_digit())?);
        let (unit, after) = after
            .split_at(after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len()));
        let seconds = number.parse::<f64>().ok()? * unit_seconds(unit)?;
        let part = Duration::try_from_secs_f64(seconds).ok()?;
        total = Some(total.unwrap_or(Duration::ZERO).checked_add(part)?);
        rest = after;
    }
    total
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

/// A span of time in whole seconds, minutes or hours, as [`parse_duration`] reads it.
pub fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        hours if hours >= 3600 && hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes >= 60 && minutes % 60 == 0 => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}

/// Reads the time and waits for it.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It can be set back.
    fn now(&self) -> UnixTime;

    /// The monotonic clock.
    fn monotonic(&self) -> Moment;

    /// Ends when `duration` has passed on this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn now(&self) -> UnixTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime(micros(since_epoch))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn monotonic(&self) -> Moment {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Moment(Instant::now().saturating_duration_since(*START))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until it is moved. For tests and the emulator.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<(UnixTime, Moment)>>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: UnixTime) -> Self {
        Self(Arc::new(watch::Sender::new((now, Moment::default()))))
    }

    /// Moves both readings forward and wakes everything that slept until then.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|(now, moment)| (*now, *moment) = (now.plus(by), moment.plus(by)));
    }

    /// Goes to `now`. If that is later, the monotonic reading moves as far; it never goes back.
    pub fn set(&self, now: UnixTime) {
        self.0.send_modify(|(before, moment)| {
            (*before, *moment) = (now, moment.plus(now.since(*before)))
        });
    }

    /// Sets the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, now: UnixTime) {
        self.0.send_modify(|(before, _)| *before = now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        self.0.borrow().0
    }

    fn monotonic(&self) -> Moment {
        self.0.borrow().1
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut time = self.0.subscribe();
        let until = self.monotonic().plus(duration);
        Box::pin(async move {
            // The sender outlives every sleeper that anyone still waits for; if it is gone, so is
            // the test.
            if time.wait_for(|(_, now)| *now >= until).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_reply_is_read_as_it_is_written() {
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        let moment = UnixTime::from_secs(784_111_777);
        assert_eq!(
            (UnixTime::parse_http_date(text), moment.http_date().as_str()),
            (Some(moment), text)
        );
        assert_eq!(UnixTime::parse_http_date("yesterday"), None);
    }

    #[test]
    fn moments_as_text() {
        let moment = UnixTime::from_secs(1_767_225_600);
        assert_eq!(moment.rfc3339(), "2026-01-01T00:00:00Z");
        assert_eq!(
            moment.plus(Duration::from_millis(5)).rfc3339_millis(),
            "2026-01-01T00:00:00.005Z"
        );
        assert_eq!(UnixTime::parse_rfc3339("2026-01-01T00:00:00Z"), Some(moment));
        assert_eq!(UnixTime::parse_rfc3339("soon"), None);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixTime::from_secs(1).since(UnixTime::from_secs(2)), Duration::ZERO);
        assert!(UnixTime::from_secs(i64::MAX).plus(Duration::MAX) > UnixTime::from_secs(0));
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers() {
        let clock = ManualClock::at(UnixTime::from_secs(0));
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(60)));
        clock.advance(Duration::from_secs(60));
        sleeper.await.unwrap();
    }

    #[test]
    fn setting_the_wall_clock_back_does_not_move_the_monotonic_one() {
        let clock = ManualClock::at(UnixTime::from_secs(1000));
        clock.advance(Duration::from_secs(60));
        let before = clock.monotonic();
        clock.set_wall(UnixTime::from_secs(0));
        assert_eq!((clock.now(), clock.monotonic()), (UnixTime::from_secs(0), before));
        assert_eq!(before.since_start(), Duration::from_secs(60));
        assert!(SystemClock.monotonic() <= SystemClock.monotonic());
    }
}
