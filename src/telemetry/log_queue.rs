//! The log's way to stderr: a queue of bounded size and one thread that writes.
//!
//! Writing a line never waits. If nobody reads stderr, the queue fills, and further lines are
//! dropped and counted: a log must not stop the program that it describes.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use super::metric;

/// How many bytes of lines may wait.
const MAX_BYTES: usize = 1 << 20;

/// Lines on their way to stderr.
#[derive(Clone)]
pub(super) struct LogQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
}

impl LogQueue {
    /// Starts the thread that writes to `out`. It runs until the process ends.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }));
        let lines = queue.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || lines.write_all_to(out))?;
        Ok(queue)
    }

    /// Waits until every line is written, or for `within`.
    pub(super) fn flush(&self, within: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(self.state(), within, is_busy));
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.bytes.saturating_add(line.len()) > MAX_BYTES {
            drop(state);
            return dropped(1);
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        drop(state);
        self.0.changed.notify_all();
    }

    fn write_all_to(&self, mut out: impl Write) {
        loop {
            let state = self.state();
            let waited = self.0.changed.wait_while(state, |state| state.lines.is_empty());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut state.lines);
            state.is_writing = true;
            drop(state);
            for line in &lines {
                if out.write_all(line).is_err() {
                    dropped(1);
                }
            }
            let mut state = self.state();
            // Until they are written, lines count: the bound is on all that is in memory.
            state.bytes = state.bytes.saturating_sub(lines.iter().map(Vec::len).sum());
            state.is_writing = false;
            drop(state);
            self.0.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dropped(lines: u64) {
    metrics::counter!(metric::LOG_LINES_DROPPED).increment(lines);
}

/// The formatter writes each line with one call.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogQueue {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::telemetry::Metrics;

    /// An output that accepts a line only when the test lets it.
    struct Held(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.1.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_nobody_reads_delays_no_line_and_what_does_not_fit_is_counted() {
        let (release, held) = channel();
        let (written, lines) = channel();
        let mut queue = LogQueue::start(Held(held, written)).unwrap();
        let (recorder, page) = Metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            for _ in 0..5 {
                queue.write_all(&[b'x'; MAX_BYTES / 4]).unwrap();
            }
        });
        assert!(page.render().contains("octosts_log_lines_dropped_total 1"), "{}", page.render());
        queue.flush(Duration::from_millis(20));
        assert!(lines.try_recv().is_err());
        for _ in 0..4 {
            release.send(()).unwrap();
        }
        queue.flush(Duration::from_secs(10));
        assert_eq!(lines.try_iter().count(), 4);
        queue.write_all(b"there is room again\n").unwrap();
        release.send(()).unwrap();
        queue.flush(Duration::from_secs(10));
        assert_eq!(lines.try_recv().unwrap(), b"there is room again\n");
    }
}
