//! The spans of an exchange: one for each step that may wait for something.
//!
//! They are at the level `debug`. A span that is filtered out costs a comparison.

/// Finding out who the caller is.
pub const IDENTIFY: &str = "identify";
/// Reading the organization's list of trusted issuers.
pub const TRUSTED_ISSUERS: &str = "trusted_issuers";
/// Reading the policy.
pub const POLICY: &str = "policy";
/// Evaluating the policy.
pub const EVALUATE: &str = "evaluate";
/// Minting the token.
pub const MINT: &str = "mint";
