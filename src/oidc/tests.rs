//! The module as its callers use it, against an issuer on loopback.

pub(super) mod fixture;
mod keys;
mod lifetimes;
mod issuers_file;
mod tokens;
