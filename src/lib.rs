//! A Security Token Service for GitHub: OIDC tokens in, short-lived GitHub App tokens out.
//!
//! # The journey of one exchange
//!
//! ```text
//! grpc | rest → bearer → exchange → oidc (who are you) → store (which policy) → policy (may you) → github (mint) → reply
//!                                                                                               ↘ audit (always)
//! ```
//!
//! [`transport`] takes one credential and the request, and parses them into the types of [`name`].
//! [`exchange`] is the rest, top to bottom. [`oidc`] makes a [`oidc::VerifiedToken`] of an
//! [`oidc::Unverified`] one; if its issuer is not known, [`policy::gate`] asks the organization's
//! list and the policy first, before anything is fetched from an address that an unverified token names.
//! What all of this may cost before an attempt is authorized, [`admission`] decides.
//! [`store`] finds list and policy in repositories. [`policy`] holds the token against all
//! conditions and makes a [`policy::Grant`], or a [`policy::Denied`] that can explain itself.
//! [`github`] mints by that grant and nothing else, and what comes back is a
//! [`github::IssuedToken`] only if it is no wider. [`audit`] has a record of every attempt.
//!
//! Each of these values is made in the one file that does its check, with private fields, so a
//! check that is left out does not compile. Errors go the other way: each module's own type says
//! which [`reason::Reason`] it comes to, and [`transport::reply`] alone knows the codes of a reason.
//!
//! [`app`] puts the parts together by the settings that [`config`] reads from the environment, and
//! [`cli`] runs it. [`client`] is the other side: the workload that asks. Time comes from [`clock`],
//! bytes go out through [`egress`], and what is remembered is in a [`cache`] of the part that
//! remembers it: there are no globals. The `emulator` feature adds a GitHub and an OIDC issuer on
//! loopback, for `octo-sts dev` and the tests.
//!
//! Modules are listed in rank order: one names only those above it.

pub mod proto;
pub mod name;
pub mod clock;
pub mod reason;
pub mod telemetry;
pub mod cache;
pub mod cpu_limiter;
pub mod egress;
pub mod pattern;
pub mod yaml;
pub mod claim;
pub mod oidc;
pub mod policy;
pub mod github;
pub mod store;
pub mod audit;
pub mod admission;
pub mod exchange;
pub mod transport;
pub mod config;
pub mod client;
pub mod agent;
pub mod app;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod cli;

#[cfg(test)]
mod tests;
