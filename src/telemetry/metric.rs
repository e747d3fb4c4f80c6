//! The metrics.

/// Counter: exchanges and checks that ended, by [`super::label::OPERATION`], `RESULT`, `REASON`
/// and `PROTOCOL`.
pub const EXCHANGES: &str = "octosts_exchanges_total";
/// Histogram: seconds from a well-formed request to its reply, by [`super::label::OPERATION`].
pub const EXCHANGE_DURATION: &str = "octosts_exchange_duration_seconds";
/// Counter: tokens issued for all repositories that the installation sees.
pub const ALL_REPOSITORIES: &str = "octosts_all_repositories_tokens_total";
/// Counter: calls to GitHub, by [`super::label::KIND`] and `STATUS`.
pub const GITHUB_REQUESTS: &str = "octosts_github_requests_total";
/// Counter: calls to mint, by [`super::label::APP_ID`], `TIER` and `OUTCOME`.
pub const APP_MINTS: &str = "octosts_app_mints_total";
/// Counter: times that an App's own credential could not be had or was refused, by
/// [`super::label::APP_ID`] and `CAUSE`.
pub const APP_FAILURES: &str = "octosts_app_failures_total";
/// Gauge: 1 while the file of Apps is in use as it is, 0 after an error in it.
pub const APPS_FILE_OK: &str = "octosts_apps_file_ok";
/// Histogram: seconds that a signature for an App took, by [`super::label::APP_ID`].
pub const SIGNER_DURATION: &str = "octosts_signer_duration_seconds";
/// Gauge: when the App's JWT in use was signed, in seconds since 1970, by
/// [`super::label::APP_ID`].
pub const APP_JWT_SIGNED: &str = "octosts_app_jwt_signed_timestamp_seconds";
/// Gauge: when GitHub last reported the quota of an App's installation, in seconds since 1970,
/// by [`super::label::APP_ID`] and [`super::label::ORGANIZATION`].
pub const QUOTA_REPORTED: &str = "octosts_quota_reported_timestamp_seconds";
/// Gauge: calls per hour that GitHub allows an installation. This and the next six are named
/// and labelled as the Go service has them.
pub const GITHUB_LIMIT: &str = "github_rate_limit";
/// Gauge: calls that are left of them.
pub const GITHUB_LIMIT_REMAINING: &str = "github_rate_limit_remaining";
/// Gauge: when GitHub renews them, in seconds since 1970.
pub const GITHUB_LIMIT_RESET: &str = "github_rate_limit_reset";
/// Gauge: the part that is used, from 0 to 1.
pub const GITHUB_LIMIT_USED: &str = "github_rate_limit_used";
/// Gauge: minutes until GitHub renews them, as of the last answer.
pub const GITHUB_LIMIT_TIME_TO_RESET: &str = "github_rate_limit_time_to_reset";
/// Counter: answers that announced a limit.
pub const GITHUB_LIMIT_ERRORS: &str = "github_rate_limit_errors_total";
/// Gauge: the wait that the last such answer announced, in seconds.
pub const GITHUB_RETRY_AFTER: &str = "github_retry_after_seconds";
/// Counter: policy-read tokens given back to GitHub, by [`super::label::OUTCOME`].
pub const GITHUB_REVOCATIONS: &str = "octosts_github_revocations_total";
/// Gauge: seconds by which this machine's clock is ahead of GitHub's; negative if it is behind.
pub const CLOCK_DRIFT: &str = "octosts_clock_drift_seconds";
/// Counter: fetches of issuers' documents and keys, by [`super::label::OUTCOME`].
pub const ISSUER_FETCHES: &str = "octosts_issuer_fetches_total";
/// Gauge: 1 while the current issuers file is in use, 0 after an error in it.
pub const ISSUERS_FILE_OK: &str = "octosts_issuers_file_ok";
/// Gauge: 1 while the current deny file is in force, 0 after an error in it.
pub const DENY_FILE_OK: &str = "octosts_deny_file_ok";
/// Gauge: entries of the deny file in force, expired ones included.
pub const DENY_ENTRIES: &str = "octosts_deny_file_entries";
/// Counter: attempts that the deny file refused.
pub const DENIALS: &str = "octosts_operator_denials_total";
/// Counter: exchanges with a token that was exchanged before.
pub const REPLAYS: &str = "octosts_replayed_tokens_total";
/// Gauge: audit records that wait to be written.
pub const AUDIT_QUEUE_DEPTH: &str = "octosts_audit_queue_depth";
/// Counter: attempts that ended without a place in the audit queue.
pub const AUDIT_UNRECORDED: &str = "octosts_audit_unrecorded_total";
/// CloudEvents, by outcome and the cause of a drop.
pub const EVENTS: &str = "octosts_events_total";
/// Webhook deliveries, by result.
pub const DELIVERIES: &str = "octosts_webhook_deliveries_total";
/// Counter: the agent's attempts to renew a token, by [`super::label::FILE`] and `OUTCOME`.
pub const AGENT_RENEWALS: &str = "octosts_agent_renewals_total";
/// Gauge: when the token in a file ends, in seconds since 1970, 0 for none, by
/// [`super::label::FILE`].
pub const AGENT_TOKEN_EXPIRY: &str = "octosts_agent_token_expiry_timestamp_seconds";
/// Counter: commands that the agent ran on renewal, by [`super::label::OUTCOME`].
pub const AGENT_COMMANDS: &str = "octosts_agent_commands_total";
/// Counter: tokens that the agent gave back to GitHub, by [`super::label::OUTCOME`].
pub const AGENT_REVOCATIONS: &str = "octosts_agent_revocations_total";
/// Counter: connections that were ended in favour of others, by [`super::label::CAUSE`].
pub const CONNECTIONS_ENDED: &str = "octosts_connections_ended_total";
/// Counter: requests with `X-Forwarded-For` while no proxy is trusted.
pub const FORWARDED_UNTRUSTED: &str = "octosts_forwarded_untrusted_total";
/// Counter: log lines that were dropped because nobody reads stderr.
pub const LOG_LINES_DROPPED: &str = "octosts_log_lines_dropped_total";
/// Gauge, always 1: which build this is, by [`super::label::VERSION`].
pub const BUILD_INFO: &str = "octosts_build_info";
