//! Where audit records end up.

use std::io::{self, Write};

/// Takes audit records, one line each, newline included.
pub trait AuditSink: Send + 'static {
    /// Writes one line whole. May block: it is called on a thread of its own.
    ///
    /// # Errors
    /// The line was not taken; the same line will be offered again.
    fn write(&mut self, line: &[u8]) -> io::Result<()>;
}

/// The process's standard output. Logs go to standard error, so this stream is records alone.
#[derive(Debug, Default)]
pub struct Stdout;

impl AuditSink for Stdout {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(line)?;
        out.flush()
    }
}
