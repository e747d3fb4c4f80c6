//! The labels of metrics. Their values come from closed sets, never from a request.

/// `exchange` or `check`.
pub const OPERATION: &str = "operation";
/// `granted` or `denied`.
pub const RESULT: &str = "result";
/// The stable word of a refusal; empty for a grant.
pub const REASON: &str = "reason";
/// `grpc` or `rest`.
pub const PROTOCOL: &str = "protocol";
/// Which of GitHub's endpoints.
pub const KIND: &str = "kind";
/// The HTTP status, or why there was none.
pub const STATUS: &str = "status";
/// How a fetch ended.
pub const OUTCOME: &str = "outcome";
/// Why a connection was ended.
pub const CAUSE: &str = "cause";
/// A file that the agent keeps, as its configuration names it.
pub const FILE: &str = "file";
/// A GitHub App's id, of those that the operator configured.
pub const APP_ID: &str = "app_id";
/// How much is left of an App's quota: `comfortable`, `tight`, `last_resort` or `unknown`.
pub const TIER: &str = "tier";
/// The account of an installation.
pub const ORGANIZATION: &str = "organization";
/// An installation's id.
pub const INSTALLATION_ID: &str = "installation_id";
/// Which of GitHub's quotas.
pub const RESOURCE: &str = "resource";
/// `primary`, `secondary` or `unknown`.
pub const RATE_LIMIT_TYPE: &str = "rate_limit_type";
/// An HTTP status.
pub const CODE: &str = "code";
/// The version of this program.
pub const VERSION: &str = "version";
