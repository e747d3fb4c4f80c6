//! The module as its callers use it, against an issuer on loopback.

mod fixture;
mod keys;
mod lifetimes;
mod tokens;
