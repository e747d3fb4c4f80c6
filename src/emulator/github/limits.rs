//! Rate limits: the hourly quota of an installation, and the undocumented one on minting.

use std::time::Duration;

use super::{options::LimitStyle, reply::Reply};
use crate::clock::UnixTime;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// The documentation link of rate limit errors.
const DOCS: &str = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api";

/// Requests counted in a window that starts with the first of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    start: Option<UnixTime>,
    used: u64,
}

impl Window {
    fn roll(&mut self, now: UnixTime, length: Duration) -> UnixTime {
        let start = self.start.filter(|start| now.since(*start) < length && now >= *start);
        if start.is_none() {
            self.used = 0;
        }
        *self.start.insert(start.unwrap_or(now))
    }

    /// Counts one more mint; refuses the one beyond `limit` within a minute.
    pub(super) fn take_in_minute(&mut self, now: UnixTime, limit: u32) -> bool {
        self.roll(now, MINUTE);
        if self.used >= u64::from(limit) {
            return false;
        }
        self.used += 1;
        true
    }
}

/// The primary limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quota(Window);

/// A quota, as the `x-ratelimit-*` headers report it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateLimit {
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) reset: UnixTime,
}

impl Quota {
    /// Limit, use and end of the present window.
    pub(super) fn rate_limit(&mut self, now: UnixTime, limit: u64) -> RateLimit {
        let start = self.0.roll(now, HOUR);
        RateLimit { limit, used: self.0.used, reset: start.plus(HOUR) }
    }

    pub(super) fn used(&self) -> u64 {
        self.0.used
    }

    /// Counts a request.
    pub(super) fn spend(&mut self, by: u64) {
        self.0.used = self.0.used.saturating_add(by);
    }
}

impl RateLimit {
    pub(super) fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    pub(super) fn headers(&self, reply: Reply) -> Reply {
        reply
            .with("x-ratelimit-limit", self.limit.to_string())
            .with("x-ratelimit-remaining", self.remaining().to_string())
            .with("x-ratelimit-reset", self.reset.as_secs().to_string())
            .with("x-ratelimit-used", self.used.min(self.limit).to_string())
            .with("x-ratelimit-resource", "core")
    }
}

/// The answer when the primary limit is used up; `whose` completes the message.
pub(super) fn primary(style: LimitStyle, whose: &str, now: UnixTime, rate: RateLimit) -> Reply {
    let reply = Reply::error(style.status, format!("API rate limit exceeded for {whose}."), DOCS);
    if style.retry_after {
        reply.with("retry-after", rate.reset.since(now).as_secs().to_string())
    } else {
        reply
    }
}

/// The answer when a secondary limit is exceeded.
pub(super) fn secondary(style: LimitStyle) -> Reply {
    let message =
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    let docs = format!("{DOCS}#about-secondary-rate-limits");
    let reply = Reply::error(style.status, message, &docs);
    if style.retry_after { reply.with("retry-after", MINUTE.as_secs().to_string()) } else { reply }
}
