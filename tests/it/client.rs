//! The commands for workloads, and the places from which workloads get their identity: as processes
//! against the product, and against small servers that refuse what the real ones refuse.

mod ambient;
mod aws;
mod commands;
pub mod fake;
mod probe;
mod wire;
