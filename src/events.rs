//! CloudEvents for a sink that the operator names: what was exchanged, and which policies changed.
//!
//! Events leave after the reply, through a bounded queue. A sink that is slow or down delays
//! nothing: events are repeated for a while, then dropped and counted. The audit record is written
//! in any case.
//!
//! The form is CloudEvents 1.0 in HTTP binary mode. Types and members are those of the Go service.

mod exchange;
mod policy;
mod sink;

use std::{sync::Arc, time::Duration};

use http::Uri;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::sink::Sink;
pub use self::{
    exchange::{Actor, ExchangeEvent},
    policy::{Change, ChangeAction, PolicyEvent},
};
use crate::{
    clock::{Clock, UnixTime},
    cloud::Access,
    egress::Egress,
    telemetry::{label, metric},
};

/// Events that may wait.
const MAX_WAITING: usize = 2048;
/// Events that are sent concurrently.
const CONCURRENT: usize = 4;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `ce-type`
    pub kind: &'static str,
    /// `ce-source`
    pub source: String,
    /// `ce-subject`
    pub subject: String,
    /// Extension attributes: lowercase letters and digits, and their values.
    pub extensions: Vec<(&'static str, String)>,
    /// The data, as JSON.
    pub data: String,
}

/// Sends events. Clones share the queue.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(Event, UnixTime)>,
    source: Arc<str>,
    clock: Arc<dyn Clock>,
    sending: TaskTracker,
    stop: CancellationToken,
}

impl Events {
    /// Starts the queue to a sink; `source` is the URL of this server. Must run within a tokio
    /// runtime.
    pub fn start(sink: Uri, source: &str, egress: &Egress, access: Access) -> Self {
        let clock = Arc::clone(&access.network.clock);
        let sink = Arc::new(Sink::new(sink, egress, access));
        let (queue, events) = mpsc::channel(MAX_WAITING);
        let (sending, stop) = (TaskTracker::new(), CancellationToken::new());
        sending.spawn(send_all(events, sink, sending.clone(), stop.clone()));
        Self { queue, source: source.into(), clock, sending, stop }
    }

    /// Queues an event; one that finds no room is dropped and counted.
    pub fn send(&self, event: Event) {
        if self.queue.try_send((event, self.clock.now())).is_err() {
            dropped("queue_full");
        }
    }

    /// The URL of this server.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Sends what is queued by now, for no longer than `within`.
    pub async fn close(&self, within: Duration) {
        self.stop.cancel();
        self.sending.close();
        if tokio::time::timeout(within, self.sending.wait()).await.is_err() {
            tracing::warn!("not all events could be sent before the end");
        }
    }
}

async fn send_all(
    mut events: mpsc::Receiver<(Event, UnixTime)>,
    sink: Arc<Sink>,
    sending: TaskTracker,
    stop: CancellationToken,
) {
    let concurrent = Arc::new(Semaphore::new(CONCURRENT));
    loop {
        let next = match stop.run_until_cancelled(events.recv()).await {
            Some(next) => next,
            None => events.try_recv().ok(),
        };
        let Some((event, at)) = next else { return };
        let permit = Arc::clone(&concurrent).acquire_owned().await;
        let sink = Arc::clone(&sink);
        sending.spawn(async move {
            let _permit = permit;
            match sink.deliver(&event, at).await {
                Ok(()) => count("sent", ""),
                Err(error) => {
                    tracing::warn!(%error, kind = event.kind, "an event was not accepted");
                    dropped("not_accepted");
                }
            }
        });
    }
}

fn dropped(cause: &'static str) {
    count("dropped", cause);
}

fn count(outcome: &'static str, cause: &'static str) {
    let labels = [(label::OUTCOME, outcome), (label::CAUSE, cause)];
    metrics::counter!(metric::EVENTS, &labels).increment(1);
}
