//! The stages in which a port ends.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How far the end has come. Each stage begins when its token is cancelled.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    /// The server is shutting down: it is not ready, and idle connections end.
    pub(super) begun: CancellationToken,
    /// The port is closed.
    pub(super) closed: CancellationToken,
    /// What still runs is cut off.
    pub(super) cut: CancellationToken,
}

/// The lengths of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// How long new connections are still served, until load balancers know that this server ends.
    pub drain_delay: Duration,
    /// How long running requests have, from the beginning.
    pub requests: Duration,
}

impl Shutdown {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { begun: stop, closed: CancellationToken::new(), cut: CancellationToken::new() }
    }

    /// Goes through the stages. Never returns: the server that it is for ends first.
    pub(super) async fn run(&self, stages: Stages) {
        self.begun.cancelled().await;
        let delay = stages.drain_delay.min(stages.requests);
        sleep(delay).await;
        self.closed.cancel();
        sleep(stages.requests.saturating_sub(delay)).await;
        self.cut.cancel();
        std::future::pending::<()>().await;
    }
}
