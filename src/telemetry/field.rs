//! The fields of log lines.

/// The identifier of the request, ours.
pub const REQUEST_ID: &str = "request_id";
/// `grpc` or `rest`.
pub const PROTOCOL: &str = "protocol";
/// What the request is about, `OWNER` or `OWNER/REPO`.
pub const SCOPE: &str = "scope";
/// The name of the trust policy.
pub const IDENTITY: &str = "identity";
/// The token's issuer.
pub const ISSUER: &str = "issuer";
/// An account on GitHub.
pub const OWNER: &str = "owner";
/// A GitHub App's id.
pub const APP_ID: &str = "app_id";
/// The id of an App's installation.
pub const INSTALLATION_ID: &str = "installation_id";
/// The stable word of a refusal.
pub const REASON: &str = "reason";
/// What lies behind a refusal; for operators only.
pub const CAUSE: &str = "cause";
/// The file of a token that the agent keeps.
pub const FILE: &str = "file";
/// How long it took, in milliseconds.
pub const DURATION_MS: &str = "duration_ms";
