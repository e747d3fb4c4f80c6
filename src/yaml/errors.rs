//! All errors of one file: in the file's order, each place once, bounded in number and length.

use std::fmt;

use super::Invalid;
use crate::cache::{ALLOCATION_OVERHEAD, heap_bytes};

/// Errors that are kept of one file; that there are more is noted.
const MAX_ERRORS: usize = 16;
/// Bytes of the text that lists them. On gRPC it travels in a header.
const MAX_TEXT_BYTES: usize = 2 * 1024;

/// Why a file is refused: every rule that it breaks, at least one once `Errors::check` returned it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Errors {
    list: Vec<Invalid>,
    more: bool,
}

impl Errors {
    /// Adds an error. A second one at the same place follows from the first and is left out.
    pub(crate) fn push(&mut self, error: Invalid) {
        if error.at.is_some() && self.list.iter().any(|other| other.at == error.at) {
            return;
        }
        if !self.leave_out_rest() {
            self.list.push(error);
        }
    }

    /// The value of a result, its error noted.
    pub(crate) fn note<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// Whether the rest of a file need not be checked, since its errors would be left out. That
    /// there may be more is noted.
    pub(crate) fn leave_out_rest(&mut self) -> bool {
        let is_full = self.list.len() >= MAX_ERRORS;
        self.more |= is_full;
        is_full
    }

    /// Whether there is no error.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The errors: those with a place in the file's order, then those about the whole file.
    pub fn iter(&self) -> impl Iterator<Item = &Invalid> {
        self.list.iter()
    }

    /// Whether there may be more errors than [`Errors::iter`] has.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Ends the collection.
    ///
    /// # Errors
    /// There is at least one error; now they are in order.
    pub(crate) fn check(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self.in_order()) }
    }

    /// The same, in the file's order.
    pub(super) fn in_order(mut self) -> Self {
        self.list.sort_by_key(|error| (error.at.is_none(), error.line(), error.column()));
        self
    }

    /// The memory behind this value, in bytes, its own size included.
    pub(crate) fn heap_bytes(&self) -> usize {
        let texts = |error: &Invalid| heap_bytes(&error.rule) + error.fix().map_or(0, heap_bytes);
        let texts: usize = self.list.iter().map(texts).sum();
        size_of::<Self>() + texts + 2 * self.list.len() * size_of::<Invalid>() + ALLOCATION_OVERHEAD
    }
}

impl std::error::Error for Errors {}

impl From<Invalid> for Errors {
    fn from(error: Invalid) -> Self {
        Self { list: vec![error], more: false }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut shown = 0;
        for error in &self.list {
            let next = format!("{}{error}", if shown == 0 { "" } else { "; " });
            if shown > 0 && text.len() + next.len() > MAX_TEXT_BYTES {
                break;
            }
            text.push_str(&next);
            shown += 1;
        }
        f.write_str(&text)?;
        if self.more || shown < self.list.len() { f.write_str("; and more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    fn at(line: u32, column: u32, rule: &str) -> Invalid {
        Invalid::at(Mark { line, column }, rule.to_owned())
    }

    #[test]
    fn errors_are_listed_in_the_files_order() {
        let mut errors = Errors::default();
        for error in [
            Invalid::file("whole"),
            at(3, 1, "c"),
            at(1, 9, "b"),
            at(1, 2, "a"),
            at(1, 2, "follows"),
        ] {
            errors.push(error);
        }
        let text = errors.check().unwrap_err().to_string();
        assert_eq!(text, "line 1, column 2: a; line 1, column 9: b; line 3, column 1: c; whole");
        assert_eq!(Errors::default().check(), Ok(()));
    }

    #[test]
    fn number_and_length_are_bounded() {
        let mut errors = Errors::default();
        (1..100).for_each(|line| errors.push(at(line, 1, "x")));
        assert_eq!((errors.iter().count(), errors.has_more()), (MAX_ERRORS, true));
        assert!(
            errors.check().unwrap_err().to_string().ends_with("line 16, column 1: x; and more")
        );
        let mut long = Errors::default();
        (1..10).for_each(|line| long.push(at(line, 1, &"y".repeat(900))));
        let text = long.check().unwrap_err().to_string();
        assert!(text.len() < MAX_TEXT_BYTES + 16 && text.ends_with("; and more"), "{}", text.len());
    }
}
