//! What was issued to whom: one record per attempt, exactly once, whatever the outcome.
//!
//! Records go through a queue of bounded places to one thread that writes them in batches, so a
//! slow sink delays no exchange. A verified attempt takes its slot before anything is minted: what
//! cannot be recorded is not issued. Attempts that end unverified may hold half of the places, so a
//! stranger's flood leaves room for the records that matter.

pub mod record;
mod sink;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use record::{DeliveryRecord, Record};
pub use sink::{AuditSink, Stdout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::telemetry::metric;

/// How much may wait to be written, and how long an attempt waits for a slot.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Places in the queue, at least two.
    pub places: u32,
    /// How long a verified attempt waits for a slot before it ends and readiness drops.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { places: 4096, patience: Duration::from_secs(1) }
    }
}

/// The queue is full: the attempt cannot be recorded now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit queue is full")]
pub struct Full;

/// A slot in the queue. One record can be written into it.
#[derive(Debug)]
pub struct Slot {
    _any: OwnedSemaphorePermit,
    _unverified: Option<OwnedSemaphorePermit>,
}

/// The queue's end at which attempts are recorded.
#[derive(Clone)]
pub struct Audit {
    queue: mpsc::UnboundedSender<Entry>,
    unverified: Arc<Semaphore>,
    state: Arc<State>,
    patience: Duration,
}

struct Entry {
    line: Vec<u8>,
    slot: Option<Slot>,
    written: Option<oneshot::Sender<()>>,
}

struct State {
    places: Arc<Semaphore>,
    capacity: usize,
    stalled: AtomicBool,
}

impl State {
    fn depth(&self) -> usize {
        self.capacity.saturating_sub(self.places.available_permits())
    }

    fn report_depth(&self) {
        metrics::gauge!(metric::AUDIT_QUEUE_DEPTH)
            .set(f64::from(u32::try_from(self.depth()).unwrap_or(u32::MAX)));
    }
}

impl Audit {
    /// Starts the thread that writes to `sink`. It ends when every `Audit` is gone and the queue is
    /// empty.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(settings: Settings, sink: Box<dyn AuditSink>) -> std::io::Result<Self> {
        let (queue, entries) = mpsc::unbounded_channel();
        let capacity = settings.places as usize;
        let places = Arc::new(Semaphore::new(capacity));
        let state = Arc::new(State { places, capacity, stalled: AtomicBool::new(false) });
        let audit = Self {
            queue,
            unverified: Arc::new(Semaphore::new((settings.places / 2) as usize)),
            state: Arc::clone(&state),
            patience: settings.patience,
        };
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(entries, sink, &state))?;
        Ok(audit)
    }

    /// A slot for an attempt whose token is verified; waits for one at most the patience.
    ///
    /// # Errors
    /// [`Full`]; readiness drops until a record is written again.
    pub async fn slot(&self) -> Result<Slot, Full> {
        let slot = Arc::clone(&self.state.places).acquire_owned();
        match tokio::time::timeout(self.patience, slot).await {
            Ok(Ok(permit)) => Ok(Slot { _any: permit, _unverified: None }),
            _ => {
                self.state.stalled.store(true, Ordering::Relaxed);
                Err(Full)
            }
        }
    }

    /// A slot for an attempt that ended unverified, if its half of the queue has one free.
    ///
    /// # Errors
    /// [`Full`]; the attempt is counted, not recorded.
    pub fn slot_unverified(&self) -> Result<Slot, Full> {
        let unverified = Arc::clone(&self.unverified).try_acquire_owned().map_err(|_| Full)?;
        let permit = Arc::clone(&self.state.places).try_acquire_owned().map_err(|_| Full)?;
        Ok(Slot { _any: permit, _unverified: Some(unverified) })
    }

    /// Queues a record in its slot.
    pub fn write(&self, record: &Record, slot: Slot) {
        self.queue_line(record.to_line(), slot);
    }

    /// Queues the record of a webhook delivery in its slot.
    pub fn write_delivery(&self, record: &DeliveryRecord, slot: Slot) {
        self.queue_line(record.to_line(), slot);
    }

    fn queue_line(&self, line: Vec<u8>, slot: Slot) {
        self.send(Entry { line, slot: Some(slot), written: None });
        self.state.report_depth();
    }

    /// Whether records can be written: false after an attempt found no slot, until there is one.
    pub fn ready(&self) -> bool {
        !self.state.stalled.load(Ordering::Relaxed) || self.state.places.available_permits() > 0
    }

    /// Ends when everything queued so far is written.
    pub async fn flush(&self) {
        let (written, done) = oneshot::channel();
        self.send(Entry { line: Vec::new(), slot: None, written: Some(written) });
        // The writer ends only after the queue is empty, so a closed channel means the same.
        done.await.ok();
    }

    /// How many records wait to be written, slots that are reserved for attempts included.
    pub fn depth(&self) -> usize {
        self.state.depth()
    }

    fn send(&self, entry: Entry) {
        // Fails only if the writer's thread is gone, which it is only when this sender is.
        if self.queue.send(entry).is_err() {
            self.state.stalled.store(true, Ordering::Relaxed);
        }
    }
}

/// The most bytes of records that are written together.
const BATCH_BYTES: usize = 64 << 10;

/// How long to wait before the same records are offered to a failing sink again.
const RETRY: Duration = Duration::from_millis(100);

/// Writes what is queued, in batches, each until the sink has accepted it. A sink that fails holds
/// the queue up, the queue fills, and exchanges end before anything is minted: nothing is issued
/// unrecorded.
fn write_all(
    mut entries: mpsc::UnboundedReceiver<Entry>,
    mut sink: Box<dyn AuditSink>,
    state: &State,
) {
    while let Some(entry) = entries.blocking_recv() {
        let (mut lines, mut slots, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(entry);
        while let Some(entry) = next {
            lines.extend_from_slice(&entry.line);
            slots.extend(entry.slot);
            flushed.extend(entry.written);
            next = if lines.len() < BATCH_BYTES { entries.try_recv().ok() } else { None };
        }
        if !lines.is_empty() && !is_written(sink.as_mut(), &lines, &entries) {
            return;
        }
        drop(slots);
        state.stalled.store(false, Ordering::Relaxed);
        state.report_depth();
        for written in flushed {
            let _ = written.send(());
        }
    }
}

/// Offers the lines until the sink accepts them; false if it fails and the server has ended.
fn is_written(
    sink: &mut dyn AuditSink,
    lines: &[u8],
    entries: &mpsc::UnboundedReceiver<Entry>,
) -> bool {
    while let Err(error) = sink.write(lines) {
        tracing::error!(%error, "the audit sink refused records");
        if entries.is_closed() {
            return false;
        }
        std::thread::sleep(RETRY);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, mpsc::Receiver},
    };

    use super::*;
    use crate::clock::UnixTime;

    fn record() -> Record {
        Record::begin(
            UnixTime::from_secs(0),
            record::Operation::Exchange,
            "r".into(),
            "rest",
            "127.0.0.1".into(),
        )
    }

    /// A sink that takes a record only when the test lets it.
    struct Held(Receiver<io::Result<()>>, Arc<Mutex<Vec<u8>>>);

    impl AuditSink for Held {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            self.0.recv().unwrap_or(Ok(()))?;
            self.1.lock().unwrap().extend_from_slice(lines);
            Ok(())
        }
    }

    type Release = std::sync::mpsc::Sender<io::Result<()>>;

    fn held(places: u32) -> (Audit, Release, Arc<Mutex<Vec<u8>>>) {
        let (release, held) = std::sync::mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let settings = Settings { places, patience: Duration::from_millis(20) };
        (Audit::start(settings, Box::new(Held(held, written.clone()))).unwrap(), release, written)
    }

    #[tokio::test]
    async fn a_full_queue_ends_verified_attempts_and_readiness_until_a_record_is_written() {
        let (audit, release, written) = held(2);
        for _ in 0..2 {
            let slot = audit.slot().await.unwrap();
            audit.write(&record(), slot);
        }
        assert_eq!(audit.slot().await.unwrap_err(), Full);
        assert!(!audit.ready());
        // A sink that fails is offered the same record again.
        release.send(Err(io::Error::other("disk full"))).unwrap();
        release.send(Ok(())).unwrap();
        release.send(Ok(())).unwrap();
        tokio::time::timeout(Duration::from_secs(10), audit.flush()).await.unwrap();
        assert!(audit.ready());
        assert_eq!(written.lock().unwrap().iter().filter(|byte| **byte == b'\n').count(), 2);
        assert!(audit.slot().await.is_ok());
    }

    #[tokio::test]
    async fn records_that_wait_are_written_together() {
        let (audit, release, written) = held(100);
        for _ in 0..100 {
            audit.write(&record(), audit.slot().await.unwrap());
        }
        // The first write may have begun with any number of them.
        release.send(Ok(())).unwrap();
        release.send(Ok(())).unwrap();
        tokio::time::timeout(Duration::from_secs(10), audit.flush()).await.unwrap();
        assert_eq!(written.lock().unwrap().iter().filter(|byte| **byte == b'\n').count(), 100);
        assert_eq!(audit.depth(), 0);
    }

    #[tokio::test]
    async fn unverified_attempts_hold_half_of_the_queue_at_most() {
        let (audit, _release, _) = held(4);
        let unverified = [audit.slot_unverified().unwrap(), audit.slot_unverified().unwrap()];
        assert_eq!(audit.slot_unverified().unwrap_err(), Full);
        assert!(audit.slot().await.is_ok());
        assert!(audit.ready());
        drop(unverified);
        assert!(audit.slot_unverified().is_ok());
    }
}
