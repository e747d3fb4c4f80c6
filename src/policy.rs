//! May you: `VerifiedToken` × `Policy` → `Grant` | `Denied`. Pure; no I/O, no clock.
//!
//! A policy's bytes go through [`yaml`] (strict, with places), `document` (the keys), `compile`
//! (every rule of the language) and come out as a [`Policy`], which cannot exist half checked.
//! [`Policy::evaluate`] holds a verified token against all its conditions. [`TrustedIssuers`] is
//! the organization's list of issuers, and [`gate`] asks list and policy together whether an
//! unknown issuer may be contacted at all.

pub mod claim;
mod compile;
mod document;
mod evaluate;
pub mod gate;
mod hint;
mod pattern;
pub mod permission;
mod trusted_issuers;
pub mod yaml;

pub use compile::{AppPin, Kind, Policy, Rules};
pub use evaluate::{Asked, Denied, Grant, Repositories};
pub use permission::{Level, Permissions};
pub use trusted_issuers::{TrustedIssuers, Verdict};
pub use yaml::Invalid;

/// Patterns as they are compiled, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::pattern::Pattern;

    /// The compiled form; whether a class, and whether an optional part, can match a `/`.
    pub fn compile(source: &str) -> Option<(regex::Regex, bool, bool)> {
        let pattern = Pattern::compile(source).ok()?;
        let slashes = pattern.slashes();
        Some((pattern.into_regex(), slashes.by_class, slashes.optional))
    }
}

#[cfg(test)]
mod tests;
