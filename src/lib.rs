//! A Security Token Service for GitHub.

pub mod proto;
pub mod name;
pub mod clock;
pub mod reason;
pub mod telemetry;
pub mod cache;
pub mod egress;
pub mod oidc;
pub mod policy;
pub mod github;
pub mod store;
pub mod audit;
pub mod exchange;
pub mod transport;
pub mod config;
pub mod app;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod cli;
