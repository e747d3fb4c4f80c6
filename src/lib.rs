//! A Security Token Service for GitHub: OIDC tokens in, short-lived GitHub App tokens out.
//!
//! # The journey of one exchange
//!
//! ```text
//! grpc | rest → bearer → exchange → oidc (who are you) → store (which policy) → policy (may you) → github (mint) → reply
//!                                                                                               ↘ audit (always)
//! ```
//!
//! [`transport`] accepts one credential and the request, and parses them into the types of
//! [`name`]. [`exchange`] runs all other steps, top to bottom. [`oidc`] verifies an
//! [`oidc::Unverified`] token and returns an [`oidc::VerifiedToken`]. If the token's issuer is
//! unknown, the organization's list and the policy must first admit it in [`policy::gate`], before
//! anything is fetched from an address that an unverified token names. [`admission`] decides what
//! all of this may cost before an attempt is authorized, and [`deny_file`] what the operator denies
//! for now. [`store`] finds the list and the policy in repositories. [`policy`] evaluates every
//! condition, and returns a [`policy::Allowed`], or a [`policy::Denied`] that can explain itself;
//! what was asked for of the former is a [`policy::Grant`]. [`replay`] remembers tokens that may be
//! exchanged once. [`github`] mints exactly what was granted, and returns a
//! [`github::IssuedToken`] only if GitHub's reply is not wider. [`audit`] records every attempt.
//!
//! Each of these types has private fields and is created only in the file that performs its check,
//! so code that skips a check does not compile. Each module has its own error type, which maps to a
//! [`reason::Reason`]. Only [`transport::reply`] knows the codes of a reason.
//!
//! [`webhook`] takes GitHub's deliveries: what they invalidate is gone before the reply.
//!
//! [`app`] assembles the parts from the settings that [`config`] reads from the environment, and
//! [`cli`] runs it. [`client`] is the other side: the workload that requests a token. [`clock`] is
//! the only source of time, and all outbound traffic uses [`egress`]. Each part owns its caches
//! (see [`cache`]); there are no global caches. The `emulator` feature adds a GitHub and an OIDC
//! issuer on loopback, for `octo-sts dev` and the tests.
//!
//! Modules are listed in rank order: a module may name only modules above it.

pub mod proto;
pub mod name;
pub mod clock;
pub mod reason;
pub mod telemetry;
pub mod environment;
pub mod cache;
pub mod cpu_limiter;
pub mod egress;
pub mod cloud;
pub mod pattern;
pub mod yaml;
pub mod claim;
pub mod oidc;
pub mod policy;
pub mod github;
pub mod store;
pub mod audit;
pub mod events;
pub mod admission;
pub mod deny_file;
pub mod replay;
pub mod exchange;
pub mod webhook;
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
