//! Settings of the emulated GitHub: token format and life, replication delay, rate limits.

use std::time::Duration;

/// The form of minted tokens, where the request does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// `ghs_` and 36 letters and digits.
    Classic,
    /// `ghs_APPID_` and a JWT: about 520 characters.
    Stateless,
}

/// How long a new token takes to reach all of GitHub. Each span follows the one before: first the
/// token is unknown (401), then its permissions are (403), then private repositories do not see it
/// (404).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicationDelay {
    /// No delay.
    None,
    /// By requests with the token.
    Requests {
        /// Requests answered 401.
        unauthorized: u32,
        /// Requests answered 403.
        forbidden: u32,
        /// Requests during which private repositories are answered 404.
        not_found: u32,
    },
    /// By the emulator's clock.
    Time {
        /// How long it is 401.
        unauthorized: Duration,
        /// How long it is 403.
        forbidden: Duration,
        /// How long it is 404.
        not_found: Duration,
    },
}

/// The status and headers of an answer beyond a rate limit: GitHub uses either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitStyle {
    /// 403 or 429.
    pub status: u16,
    /// Whether `Retry-After` is sent.
    pub retry_after: bool,
}

/// Settings of the emulated GitHub; [`super::GitHub::set`] changes them while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Enterprise Server: the API below `/api/v3`, no rate limits, the version in headers and
    /// `/meta`.
    pub enterprise_server: bool,
    /// The form of minted tokens, where the request does not say.
    pub token_format: TokenFormat,
    /// How long a token lives.
    pub token_life: Duration,
    /// How long new tokens take to reach all of GitHub.
    pub replication_delay: ReplicationDelay,
    /// Requests an hour for each installation without a limit of its own; see
    /// [`super::GitHub::set_hourly_limit`].
    pub hourly_limit: u64,
    /// Requests an hour without a token.
    pub anonymous_limit: u64,
    /// Mints a minute for each App without a limit of its own; beyond that, the secondary limit.
    /// See [`super::GitHub::set_mints_per_minute`].
    pub mints_per_minute: Option<u32>,
    /// Entries of a tree beyond which the reply is truncated; `None`: GitHub\'s own limit.
    pub max_tree_entries: Option<usize>,
    /// The form of answers beyond a limit.
    pub limit_style: LimitStyle,
    /// The newer message where a level, not a permission, is missing.
    pub level_wording: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enterprise_server: false,
            token_format: TokenFormat::Classic,
            token_life: Duration::from_secs(3600),
            replication_delay: ReplicationDelay::None,
            hourly_limit: 5_000,
            anonymous_limit: 60,
            mints_per_minute: None,
            max_tree_entries: None,
            limit_style: LimitStyle { status: 403, retry_after: false },
            level_wording: false,
        }
    }
}

impl Options {
    /// The part of the URL before the API's paths.
    pub(super) fn base_path(&self) -> &'static str {
        if self.enterprise_server { "/api/v3" } else { "" }
    }
}
