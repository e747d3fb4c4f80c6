//! Where audit records end up.

use std::io::{self, Write};

/// Accepts audit records, one line each, newline included.
pub trait AuditSink: Send + 'static {
    /// Writes one or more whole lines. May block: it is called on its own thread.
    ///
    /// # Errors
    /// The lines were not all accepted; the same lines will be offered again.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// The process's standard output. Logs go to standard error, so this stream is records alone.
#[derive(Debug, Default)]
pub struct Stdout {
    sink: Resumed<StdoutStream>,
}

impl AuditSink for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.sink.write(lines)
    }
}

#[derive(Debug, Default)]
struct StdoutStream;

impl Write for StdoutStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// A stream that continues where it failed when the same bytes are offered again, so that no record
/// is written twice.
#[derive(Debug, Default)]
struct Resumed<W> {
    out: W,
    accepted: usize,
}

impl<W: Write> Resumed<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        while let Some(rest) = lines.get(self.accepted..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(accepted) => self.accepted += accepted,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.flush()?;
        self.accepted = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that accepts three bytes at a time and fails every other call.
    #[derive(Default)]
    struct Failing {
        written: Vec<u8>,
        calls: usize,
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(2) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let accepted = bytes.len().min(3);
            self.written.extend_from_slice(&bytes[..accepted]);
            Ok(accepted)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_byte_is_written_twice_when_lines_are_offered_again() {
        let mut sink = Resumed::<Failing>::default();
        for lines in ["first\nsecond\n", "third\n"] {
            while sink.write(lines.as_bytes()).is_err() {}
        }
        assert_eq!(sink.out.written, b"first\nsecond\nthird\n");
    }
}
