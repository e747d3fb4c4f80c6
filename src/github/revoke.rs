//! Tokens that nobody was given are taken back.
//!
//! A minted token lives for an hour unless it is revoked. One that was not handed over, because the
//! caller hung up or because it was wider than asked, and one that only read policies, goes into a
//! queue when it is dropped. Revoking delays nobody. The queue is bounded: what does not fit is
//! counted, and ends by itself within the hour.

use std::{fmt, sync::Arc};

use http::Method;
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{Call, Endpoint},
    jwt::bearer,
    limits::{Gate, LimitKey},
    meaning::Meaning,
    replication,
};
use crate::{
    clock::UnixTime,
    name::InstallationId,
    telemetry::{label, metric},
};

/// Tokens that wait for their revocation.
const QUEUE: usize = 4096;
/// Concurrent revocations.
const MAX_CONCURRENT: usize = 8;

/// A token to revoke.
struct PendingRevocation {
    token: SecretString,
    installation: InstallationId,
    issued_at: UnixTime,
}

/// Takes tokens to revoke.
#[derive(Clone)]
pub(super) struct Revoker {
    queue: mpsc::Sender<PendingRevocation>,
    closing: CancellationToken,
    worker: TaskTracker,
}

impl Revoker {
    /// Starts the worker; must run within a tokio runtime.
    pub(super) fn start(gate: Arc<Gate>) -> Self {
        let (queue, tokens) = mpsc::channel(QUEUE);
        let (closing, worker) = (CancellationToken::new(), TaskTracker::new());
        worker.spawn(work(gate, tokens, closing.clone()));
        worker.close();
        Self { queue, closing, worker }
    }

    /// Revokes what is in the queue, and takes nothing more.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.worker.wait().await;
    }

    fn revoke(&self, pending: PendingRevocation) {
        if self.queue.try_send(pending).is_err() {
            metrics::counter!(metric::GITHUB_REVOCATIONS, label::OUTCOME => "dropped").increment(1);
            tracing::warn!(
                "a token that nobody was given is not revoked: the queue is full or closed"
            );
        }
    }
}

async fn work(
    gate: Arc<Gate>,
    mut tokens: mpsc::Receiver<PendingRevocation>,
    closing: CancellationToken,
) {
    let mut running = JoinSet::new();
    loop {
        let next = tokio::select! {
            biased;
            () = closing.cancelled(), if !tokens.is_closed() => {
                tokens.close();
                continue;
            }
            next = tokens.recv() => next,
        };
        let Some(token) = next else { break };
        while running.len() >= MAX_CONCURRENT {
            running.join_next().await;
        }
        running.spawn(revoke(Arc::clone(&gate), token));
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

async fn revoke(gate: Arc<Gate>, pending: PendingRevocation) {
    let Some(authorization) = bearer(pending.token.expose_secret()) else { return };
    let call = Call {
        method: Method::DELETE,
        ..Call::get(Endpoint::Revoke, "/installation/token".into(), authorization)
    };
    let PendingRevocation { installation, issued_at, .. } = pending;
    let done = match replication::call(&gate, LimitKey::Revoke(installation), &call, issued_at)
        .await
    {
        Ok(_) => true,
        // The token has ended already, or an earlier try revoked it; unless it has yet to arrive.
        Err(meaning) => {
            matches!(meaning, Meaning::Unauthorized(_)) && !replication::is_young(&gate, issued_at)
        }
    };
    metrics::counter!(metric::GITHUB_REVOCATIONS, label::OUTCOME => if done { "done" } else { "failed" }).increment(1);
    if !done {
        tracing::warn!("a token that nobody was given could not be revoked");
    }
}

/// A token that is revoked when it is dropped, unless it is released.
pub(super) struct RevokeOnDrop {
    token: SecretString,
    installation: InstallationId,
    issued_at: UnixTime,
    revoker: Option<Revoker>,
}

impl RevokeOnDrop {
    pub(super) fn new(
        token: String,
        installation: InstallationId,
        issued_at: UnixTime,
        revoker: Revoker,
    ) -> Self {
        Self { token: token.into(), installation, issued_at, revoker: Some(revoker) }
    }

    /// The token, for a call or a digest.
    pub(super) fn expose(&self) -> &str {
        self.token.expose_secret()
    }

    /// When it was minted, by our clock.
    pub(super) fn issued_at(&self) -> UnixTime {
        self.issued_at
    }

    /// Gives the token away: it is not revoked.
    pub(super) fn release(mut self) -> SecretString {
        self.revoker = None;
        self.token.clone()
    }
}

impl Drop for RevokeOnDrop {
    fn drop(&mut self) {
        if let Some(revoker) = self.revoker.take() {
            let Self { installation, issued_at, .. } = *self;
            revoker.revoke(PendingRevocation {
                token: self.token.clone(),
                installation,
                issued_at,
            });
        }
    }
}

impl fmt::Debug for RevokeOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevokeOnDrop([REDACTED])")
    }
}
