//! The product against its emulators, over real sockets: one binary, so that it links once.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test ends where something is not as it should be, and says what it left out"
)]

mod admission;
mod agent;
mod apps;
mod arrows;
mod client;
mod checking;
mod cloud_events;
mod clouds;
mod corpus;
mod deploy;
mod deployments;
mod dev;
mod docs;
mod doctor;
mod harness;
mod kubernetes;
mod memory;
mod missed_deliveries;
mod operator;
mod policy_checks;
mod policy_command;
mod promises;
mod secrets;
mod seeds;
mod serve;
mod smoke;
mod unknown_issuers;
