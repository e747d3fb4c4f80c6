//! May you: `VerifiedToken` × `Policy` → `Allowed` | `Denied`, and `Allowed` × `Narrowing` → `Grant`.
//! Pure; no I/O, no clock.
//!
//! A policy's bytes go through [`yaml`](crate::yaml) (strict, with places), `document` (the keys),
//! `compile` (every rule of the language) and come out as a [`Policy`], which cannot exist half
//! checked. [`Policy::evaluate`] holds a verified token against all its conditions, and
//! [`Allowed::narrow`] grants what was asked for.
//! [`TrustedIssuers`] is the organization's list of issuers, and [`gate`] asks list and policy
//! together whether an unknown issuer may be contacted at all.

mod access;
mod compile;
mod cost;
mod coverage;
mod document;
mod evaluate;
pub mod examples;
pub mod gate;
mod hint;
pub mod lint;
mod narrow;
mod pattern_error;
pub mod permission;
pub mod review;
mod slip;
mod trusted_issuers;

pub use access::{Access, Reach};
pub use compile::{AppPin, Home, Policy, PolicyKind, Rules};
use coverage::Coverage;
pub use evaluate::{Context, Denied, Repositories};
pub use narrow::{Allowed, Grant, Narrowing, NarrowingError, NotCovered};
pub use permission::{Level, Permissions};
pub use trusted_issuers::{TrustedIssuers, Verdict};

#[cfg(test)]
mod tests;
