//! A GitHub API and an OIDC issuer on loopback, for `octo-sts dev`, tests and benches.
//!
//! [`GitHub`] keeps Apps, accounts, repositories, installations and tokens, and answers from that
//! state by GitHub's rules: nothing is scripted, each error arises because the state says so. What
//! it does not know it refuses with 501 and remembers, so that a test can insist that nothing was
//! asked beyond what is emulated. Misbehaviour (stalls, cut connections, replies wider than what
//! was asked) happens only where a [`Fault`] was put in on purpose.
//!
//! [`Issuer`] publishes discovery documents and keys, and signs whatever claims it is given.
//!
//! Both read the time from the [`crate::clock::Clock`] that is handed in, so expiry, rate windows
//! and token lifetimes can be tested without waiting.

pub mod claims;
mod github;
mod issuer;
mod keys;
mod server;

pub use github::{
    Call, Calls, CheckRunRecord, Fault, GitHub, InstallationState, Lie, LimitStyle, Options,
    Permissions, Placed, ReplicationDelay, RouteKind, Selection, TokenFormat, TokenRecord,
    Visibility,
};
pub use issuer::{Document, Fetches, Issuer, Misbehaviour};
pub use keys::{Alg, PublicKey, generate_rsa_pem};

#[cfg(test)]
mod tests;
