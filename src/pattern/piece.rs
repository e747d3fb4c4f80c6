//! Pieces of a translated pattern, and how they are put together.
//!
//! A piece is text that Rust's engine reads in one way only, with what the limits and the rules
//! about `/` need to know of it. Groups capture nothing and repetitions are greedy: a pattern is
//! only asked whether it matches the whole text.

use super::{PatternError, Slashes};

/// Go refuses counts, and products of nested counts, over this.
const MAX_REPEATS: u32 = 1000;
/// Go refuses patterns of more instructions than this: 128 MiB of 40 bytes each.
const MAX_SIZE: u64 = (128 << 20) / 40;

/// A translated part of a pattern.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) slashes: Slashes,
    /// Whether a `/` is written in it.
    writes_slash: bool,
    /// Groups and repetitions inside each other.
    depth: u32,
    /// The largest product of nested repetition counts.
    repeats: u32,
    /// Instructions, as Go counts them.
    size: u64,
}

/// How often a repetition repeats. No `max` stands for any number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) min: u32,
    pub(super) max: Option<u32>,
}

impl Piece {
    fn new(text: String) -> Self {
        Self {
            text,
            slashes: Slashes::default(),
            writes_slash: false,
            depth: 0,
            repeats: 1,
            size: 1,
        }
    }

    /// One character, in any letter case if `fold`.
    pub(super) fn literal(c: char, fold: bool) -> Self {
        let escaped = regex_syntax::escape(c.encode_utf8(&mut [0; 4]));
        let has_case = fold && (c.is_ascii_alphabetic() || !c.is_ascii());
        let text = if has_case { format!("(?i:{escaped})") } else { escaped };
        Self { writes_slash: c == '/', ..Self::new(text) }
    }

    /// A condition on the place between two characters, in the engine's words.
    pub(super) fn assertion(text: &str) -> Self {
        Self::new(text.to_owned())
    }

    /// One character of a class, in the engine's words.
    pub(super) fn class(text: String, has_slash: bool) -> Self {
        let slashes = Slashes { by_class: has_slash, optional: false };
        Self { slashes, ..Self::new(text) }
    }

    /// Pieces one after the other.
    pub(super) fn concatenation(pieces: &[Self]) -> Result<Self, PatternError> {
        let size = pieces.iter().map(|piece| piece.size).sum();
        Self { size, ..Self::join(pieces, "") }.within_limits()
    }

    /// One of several pieces.
    pub(super) fn alternation(pieces: &[Self]) -> Result<Self, PatternError> {
        let [_, others @ ..] = pieces else { return Ok(Self::new(String::new())) };
        let size = pieces.iter().map(|piece| piece.size).sum::<u64>() + others.len() as u64;
        let mut joined = Self::join(pieces, "|");
        joined.slashes.optional |= joined.writes_slash && !others.is_empty();
        Self { size, ..joined }.within_limits()
    }

    /// A piece in parentheses.
    pub(super) fn group(self, captures: bool) -> Result<Self, PatternError> {
        let size = self.size + if captures { 2 } else { 0 };
        Self { text: format!("(?:{})", self.text), depth: self.depth + 1, size, ..self }
            .within_limits()
    }

    /// A piece repeated by `*`, `+`, `?` or `{…}`.
    pub(super) fn repeat(self, count: Count) -> Result<Self, PatternError> {
        let Count { min, max } = count;
        if min > MAX_REPEATS || max.is_some_and(|max| max > MAX_REPEATS || max < min) {
            return Err(PatternError::Malformed(
                "repetition counts are at most 1000, the smaller one first",
            ));
        }
        let times = max.unwrap_or(min);
        let repeats = if max == Some(0) { 1 } else { self.repeats.saturating_mul(times.max(1)) };
        if repeats > MAX_REPEATS {
            return Err(PatternError::Malformed(
                "repetition counts, nested ones multiplied, are at most 1000",
            ));
        }
        let size = match max {
            Some(max) => u64::from(max) * self.size + u64::from(max - min),
            None if min == 0 => self.size + 2,
            None => u64::from(min) * self.size + 1,
        };
        let range = match max {
            Some(max) => format!("{{{min},{max}}}"),
            None => format!("{{{min},}}"),
        };
        let mut slashes = self.slashes;
        slashes.optional |= self.writes_slash;
        let text = format!("(?:{}){range}", self.text);
        Self { text, slashes, depth: self.depth + 1, repeats, size, ..self }.within_limits()
    }

    fn join(pieces: &[Self], separator: &str) -> Self {
        let mut joined = Self::new(String::new());
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                joined.text.push_str(separator);
            }
            joined.text.push_str(&piece.text);
            joined.slashes.by_class |= piece.slashes.by_class;
            joined.slashes.optional |= piece.slashes.optional;
            joined.writes_slash |= piece.writes_slash;
            joined.depth = joined.depth.max(piece.depth);
            joined.repeats = joined.repeats.max(piece.repeats);
        }
        joined
    }

    fn within_limits(self) -> Result<Self, PatternError> {
        if self.depth > super::MAX_DEPTH {
            return Err(PatternError::TooDeep);
        }
        if self.size.max(1) > MAX_SIZE {
            return Err(PatternError::TooLarge);
        }
        Ok(Self { size: self.size.max(1), ..self })
    }
}
