//! The product against its emulators, over real sockets: one binary, so that it links once.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "a test ends where something is not as it should be"
)]

mod dev;
mod docs;
mod harness;
mod serve;
mod arrows;
mod promises;
mod secrets;
    clippy::print_stderr,
mod corpus;
mod seeds;
mod smoke;
mod strangers;
