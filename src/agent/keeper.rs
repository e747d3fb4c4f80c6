//! Keeps one token's file fresh.
//!
//! A turn does what is due: it removes a file whose token ends, writes again what could not be
//! written, or asks for a new token. Then it waits for the next of these, but never long: a machine
//! may have slept, and a clock may have been set. A token that was issued and cannot be written is
//! held and written later; asking for another would fix no disk.

use std::{io, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Failed, Shared, Token,
    command::{self, Renewed},
    file::TokenFile,
    schedule::{self, Life},
    status::{Phase, Status},
};
use crate::{
    client,
    clock::UnixTime,
    telemetry::{field, label, metric},
};

/// However far off the next thing to do is, the clock and the file are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long an identity and an exchange may take together.
const ATTEMPT: Duration = Duration::from_secs(60);

/// A clock that goes back by more was set by hand.
const SET_BACK: Duration = Duration::from_secs(5);

/// How long an exchange in flight may still take after the signal to stop: its token is then
/// revoked here. Later, the server finds that the caller is gone, and revokes the token.
const LAST_EXCHANGE: Duration = Duration::from_secs(3);

/// How long revoking may take, all tokens together.
const REVOKING: Duration = Duration::from_secs(5);

/// A token that was issued to us.
#[derive(Clone)]
struct HeldToken {
    token: SecretString,
    life: Life,
    renew_at: UnixTime,
}

/// One token's keeper.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    wanted: Arc<Token>,
    file: TokenFile,
    /// What stands in the file.
    in_file: Option<HeldToken>,
    /// What was issued and could not be written yet.
    unwritten: Option<HeldToken>,
    /// Everything that was issued and has not ended: to be revoked.
    alive: Vec<HeldToken>,
    failures: u32,
    /// When to ask or to write next.
    next: UnixTime,
    command: Option<AbortOnDropHandle<()>>,
    status: watch::Sender<Status>,
}

impl Keeper {
    /// Prepares the file.
    pub(super) fn new(shared: Arc<Shared>, wanted: Token) -> Result<Self, super::FileError> {
        let file = TokenFile::new(&wanted.out, wanted.mode)?;
        file.prepare()?;
        let next = shared.clock.now();
        Ok(Self {
            shared,
            file,
            wanted: Arc::new(wanted),
            in_file: None,
            unwritten: None,
            alive: Vec::new(),
            failures: 0,
            next,
            command: None,
            status: watch::Sender::new(Status::default()),
        })
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn file(&self) -> &TokenFile {
        &self.file
    }

    /// Keeps the file fresh until `stop`.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        self.adopt();
        while !stop.is_cancelled() {
            self.turn(&stop).await;
            stop.run_until_cancelled(self.wait()).await;
        }
        self.finish().await;
    }

    /// Asks once and writes once.
    pub(super) async fn once(mut self, stop: CancellationToken) -> Result<(), Failed> {
        let asked = self.ask(&stop).await.unwrap_or(Err(Failed::Stopped));
        let held = asked.inspect_err(|failed| self.tell_failure(failed, None))?;
        if let Err(error) = self.write(&held) {
            let failed = Failed::File(self.wanted.out.clone(), error);
            self.tell_failure(&failed, None);
            self.revoke().await;
            return Err(failed);
        }
        self.tell_success(&held, None);
        self.run_command(&held).await;
        Ok(())
    }

    /// Takes over what an earlier run left, until there is a new one.
    fn adopt(&mut self) {
        let Some(found) = self.file.found(self.shared.clock.now()) else { return };
        let life = Life::found(found.ends_at);
        let held = HeldToken { token: found.token, life, renew_at: self.next };
        tracing::info!(
            { field::FILE } = %self.file.path().display(),
            expires_at = life.ends_at().rfc3339(),
            "the file of an earlier run is kept until there is a new token, or its token ends"
        );
        self.alive.push(held.clone());
        self.in_file = Some(held);
    }

    /// Does what is due.
    async fn turn(&mut self, stop: &CancellationToken) {
        self.drop_what_ended();
        self.put_back();
        let now = self.shared.clock.now();
        if now < self.next {
            return;
        }
        let held = match self.unwritten.take().filter(|held| now < held.renew_at) {
            Some(held) => held,
            None => match self.ask(stop).await {
                Some(Ok(held)) => held,
                Some(Err(failed)) => return self.fail(failed),
                None => return,
            },
        };
        match self.write(&held) {
            Ok(()) => self.renewed(held),
            Err(error) => {
                self.unwritten = Some(held);
                self.fail(Failed::File(self.wanted.out.clone(), error));
            }
        }
    }

    /// A token that has ended must not look alive.
    fn drop_what_ended(&mut self) {
        let now = self.shared.clock.now();
        self.alive.retain(|held| held.life.ends_at() > now);
        if self.in_file.as_ref().is_none_or(|held| held.life.file_ends_at() > now) {
            return;
        }
        match self.file.remove() {
            Ok(()) => {
                self.in_file = None;
                tracing::error!(
                    { field::SCOPE } = %self.wanted.target.scope(), { field::IDENTITY } = %self.wanted.target.identity(),
                    { field::FILE } = %self.file.path().display(),
                    "the token ended before there was a new one; its file is removed"
                );
            }
            Err(error) => tracing::error!(
                { field::FILE } = %self.file.path().display(), { field::CAUSE } = %error,
                "the token ended, but its file cannot be removed"
            ),
        }
        self.publish(Phase::Busy);
    }

    /// A file that another process removed is written again, as long as its token lives.
    fn put_back(&mut self) {
        let Some(held) = self.in_file.clone().filter(|_| !self.file.is_there()) else { return };
        let path = self.file.path().display();
        match self.file.write(&held.token, held.life.ends_at()) {
            Ok(()) => {
                tracing::warn!({ field::FILE } = %path, "the file was gone; it is written again")
            }
            Err(error) => {
                tracing::warn!({ field::FILE } = %path, { field::CAUSE } = %error, "the file is gone and cannot be written");
            }
        }
    }

    /// Asks for a token. Files end meanwhile as they do at any time. `None` if it is time to stop.
    async fn ask(&mut self, stop: &CancellationToken) -> Option<Result<HeldToken, Failed>> {
        let clock = Arc::clone(&self.shared.clock);
        let mut work: BoxFuture<'static, _> =
            Box::pin(ask_once(Arc::clone(&self.shared), Arc::clone(&self.wanted)));
        let mut limit = clock.sleep(ATTEMPT);
        loop {
            let file_ends =
                self.file_ends(clock.now()).map_or(LOOK_EVERY, |ends| ends.since(clock.now()));
            tokio::select! {
                biased;
                asked = &mut work => return Some(asked.map(|held| self.hold(held))),
                () = stop.cancelled() => break,
                () = &mut limit => return Some(Err(Failed::Slow)),
                () = clock.sleep(file_ends.min(LOOK_EVERY)) => self.drop_what_ended(),
            }
        }
        if !self.shared.keep_on_exit {
            self.remove_file();
            tokio::select! {
                asked = &mut work => { asked.ok().map(|held| self.hold(held)); }
                () = clock.sleep(LAST_EXCHANGE) => {}
            }
        }
        None
    }

    fn hold(&mut self, held: HeldToken) -> HeldToken {
        self.alive.push(held.clone());
        held
    }

    fn write(&mut self, held: &HeldToken) -> io::Result<()> {
        self.file.write(&held.token, held.life.ends_at())?;
        self.in_file = Some(held.clone());
        self.publish(Phase::Busy);
        Ok(())
    }

    fn renewed(&mut self, held: HeldToken) {
        self.failures = 0;
        self.next = held.renew_at;
        self.tell_success(&held, Some(self.next));
        let command = self.run_command(&held);
        self.command = Some(AbortOnDropHandle::new(tokio::spawn(command)));
    }

    fn run_command(&self, held: &HeldToken) -> impl Future<Output = ()> + use<> {
        let renewed = Renewed {
            file: self.file.path(),
            target: &self.wanted.target,
            ends_at: held.life.ends_at(),
        };
        let clock = Arc::clone(&self.shared.clock);
        let running =
            self.wanted.on_renewal.as_ref().map(|command| command::run(command, &renewed, clock));
        async {
            if let Some(running) = running {
                running.await;
            }
        }
    }

    fn fail(&mut self, failed: Failed) {
        self.failures = self.failures.saturating_add(1);
        let pause =
            schedule::pause(self.failures, failed.kind(), failed.retry_after(), fastrand::f64());
        self.next = self.shared.clock.now().plus(pause);
        self.tell_failure(&failed, Some(pause));
    }

    /// Until the next thing to do, or until it is time to look.
    async fn wait(&mut self) {
        let clock = Arc::clone(&self.shared.clock);
        let before = clock.now();
        let until = self.next.min(self.file_ends(before).unwrap_or(self.next));
        let looks_at = until.min(before.plus(LOOK_EVERY));
        self.publish(Phase::Waiting { until, looks_at });
        clock.sleep(looks_at.since(before)).await;
        self.publish(Phase::Busy);
        let now = clock.now();
        if now.plus(SET_BACK) < before {
            tracing::warn!("the machine's clock went back; a new token is requested immediately");
            self.next = now;
        }
    }

    /// When the file must be gone; a file that should be and cannot be removed is tried again in a
    /// second.
    fn file_ends(&self, now: UnixTime) -> Option<UnixTime> {
        let ends = self.in_file.as_ref()?.life.file_ends_at();
        Some(if ends > now { ends } else { now.plus(Duration::from_secs(1)) })
    }

    fn publish(&self, phase: Phase) {
        let file_ends_at = self.in_file.as_ref().map(|held| held.life.file_ends_at());
        let ends_at = self.in_file.as_ref().map_or(0.0, |held| seconds(held.life.ends_at()));
        metrics::gauge!(metric::AGENT_TOKEN_EXPIRY, label::FILE => self.label()).set(ends_at);
        self.status.send_replace(Status { phase, file_ends_at, failures: self.failures });
    }

    fn label(&self) -> String {
        self.file.path().display().to_string()
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(metric::AGENT_RENEWALS, label::FILE => self.label(), label::OUTCOME => outcome).increment(1);
    }

    fn tell_success(&self, held: &HeldToken, next: Option<UnixTime>) {
        self.count("done");
        tracing::info!(
            { field::SCOPE } = %self.wanted.target.scope(), { field::IDENTITY } = %self.wanted.target.identity(),
            { field::FILE } = %self.file.path().display(),
            expires_at = held.life.ends_at().rfc3339(), renews_at = next.map(UnixTime::rfc3339),
            "a new token is in its file"
        );
    }

    fn tell_failure(&self, failed: &Failed, pause: Option<Duration>) {
        self.count(failed.outcome());
        tracing::warn!(
            { field::SCOPE } = %self.wanted.target.scope(), { field::IDENTITY } = %self.wanted.target.identity(),
            { field::FILE } = %self.file.path().display(), { field::CAUSE } = %failed,
            failures = self.failures, next_in_s = pause.map(|pause| pause.as_secs_f64()),
            file_holds_a_token = self.in_file.is_some(),
            "no new token"
        );
    }

    fn remove_file(&mut self) {
        self.in_file = None;
        if let Err(error) = self.file.remove() {
            tracing::error!(
                { field::FILE } = %self.file.path().display(), { field::CAUSE } = %error,
                "the file cannot be removed"
            );
        }
        self.publish(Phase::Busy);
    }

    /// Removes the token, unless the configuration says to keep it.
    async fn finish(mut self) {
        self.command = None;
        if !self.shared.keep_on_exit {
            self.remove_file();
            self.revoke().await;
        }
        self.publish(Phase::Ended);
    }

    /// Revokes everything that was issued and has not ended.
    async fn revoke(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let alive =
            std::mem::take(&mut self.alive).into_iter().filter(|held| held.life.ends_at() > now);
        let each: Vec<_> = alive.map(|held| revoke_one(Arc::clone(&shared), held)).collect();
        let revoking = join_all(each);
        tokio::select! {
            _ = revoking => {}
            () = shared.clock.sleep(REVOKING) => {
                tracing::warn!({ field::FILE } = %self.file.path().display(), "not every token could be revoked in time");
            }
        }
    }
}

/// Who we are, and a token for it.
async fn ask_once(shared: Arc<Shared>, wanted: Arc<Token>) -> Result<HeldToken, Failed> {
    let identity = wanted.source.token(&wanted.audience, &shared.egress, &shared.clock).await;
    let identity = identity.map_err(Failed::Identity)?;
    let asked_at = shared.clock.now();
    let issued =
        shared.client.exchange(&identity, &wanted.target).await.map_err(Failed::Exchange)?;
    match Life::new(asked_at, issued.expires_at) {
        Some(life) => {
            Ok(HeldToken { token: issued.token, life, renew_at: life.renewal(fastrand::f64()) })
        }
        None => {
            let told = issued.expires_at;
            // By the server's clock it may well be alive.
            client::revoke(&shared.github, &shared.egress, &issued.token).await.ok();
            Err(Failed::Clock { told, now: asked_at })
        }
    }
}

async fn revoke_one(shared: Arc<Shared>, held: HeldToken) {
    let done = client::revoke(&shared.github, &shared.egress, &held.token).await;
    let outcome = if done.is_ok() { "done" } else { "failed" };
    metrics::counter!(metric::AGENT_REVOCATIONS, label::OUTCOME => outcome).increment(1);
    if let Err(error) = done {
        tracing::warn!({ field::CAUSE } = %error, expires_at = held.life.ends_at().rfc3339(), "a token could not be revoked");
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
fn seconds(time: UnixTime) -> f64 {
    time.as_secs() as f64
}
