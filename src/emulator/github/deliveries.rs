//! Where an App's deliveries go, and which there were.

use serde_json::Value;

use crate::clock::UnixTime;

/// Where an App's deliveries go.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub(super) app: u64,
    pub(super) url: String,
    pub(super) secret: String,
}

/// One attempt to deliver.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) id: u64,
    pub(super) app: u64,
    pub(super) guid: String,
    pub(super) event: String,
    pub(super) body: Value,
    pub(super) delivered_at: UnixTime,
    pub(super) is_redelivery: bool,
    /// Nothing arrives.
    pub(super) is_lost: bool,
    /// The receiver's answer; 0 if there was none.
    pub(super) status: u16,
}
