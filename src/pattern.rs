//! Patterns: what Go's `regexp` (RE2) takes them to mean, or a refusal.
//!
//! Authors wrote for Go. Rust's engine reads some of the same texts otherwise, and nearly always
//! more widely: `\d` is every Unicode digit, `[a&&b]` an intersection. So a pattern is parsed on
//! its own, what differs is rewritten or refused, what Go refuses is refused, and only then is it
//! held to the whole text by `\A(?:…)\z`. Parsing it alone first is what keeps `a)|(` from
//! breaking out of the group.

mod translate;

use regex::{Regex, RegexBuilder};

pub(crate) use translate::Slashes;

/// The longest pattern, in bytes.
const MOST_BYTES: usize = 8 * 1024;
/// The largest compiled pattern, in bytes.
pub(crate) const MOST_COMPILED: u32 = 1 << 20;
/// Where the search for a pattern's compiled size starts.
const LEAST_COMPILED: u32 = 8 << 10;
/// The longest pattern in a list of trusted issuers, in characters.
const MOST_ISSUER_CHARS: usize = 256;
/// Groups and classes inside each other.
const MOST_NESTED: u32 = 64;

/// A compiled pattern that matches whole texts only.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    source: Box<str>,
    slashes: Slashes,
    compiled: u32,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("a pattern is at most 8 KiB long")]
    TooLong,
    #[error("this pattern is too large when compiled (1 MiB)")]
    TooLarge,
    #[error("this is not a valid pattern")]
    Malformed,
    #[error("this pattern is nested too deeply")]
    TooDeep,
    #[error("{0}")]
    NotSupported(&'static str),
}

impl Pattern {
    /// Compiles a pattern. Takes at most some milliseconds, whatever the pattern.
    pub(crate) fn compile(source: &str) -> Result<Self, PatternError> {
        Self::compile_within(source, MOST_COMPILED)
    }

    /// The same, if it comes to no more than 16 KiB: for matches that nobody has to make.
    pub(crate) fn compile_light(source: &str) -> Result<Self, PatternError> {
        Self::compile_within(source, 2 * LEAST_COMPILED)
    }

    /// The same, for a list of trusted issuers. Such a pattern must not be open to a host of a
    /// stranger's choosing, so whatever could match a `/` by accident is refused.
    pub(crate) fn compile_for_issuers(source: &str) -> Result<Self, PatternError> {
        if source.is_empty() {
            return Err(PatternError::NotSupported("a pattern is not empty"));
        }
        if source.chars().count() > MOST_ISSUER_CHARS {
            return Err(PatternError::NotSupported("a pattern of issuers is at most 256 characters"));
        }
        let pattern = Self::compile(source)?;
        if pattern.slashes.by_class {
            let text = "`.` or a class can match `/` here; write `[^/]` or the letters that are meant";
            return Err(PatternError::NotSupported(text));
        }
        if pattern.slashes.optional {
            return Err(PatternError::NotSupported("`/` stands under a repetition, an option or an alternation"));
        }
        Ok(pattern)
    }

    fn compile_within(source: &str, most: u32) -> Result<Self, PatternError> {
        if source.len() > MOST_BYTES {
            return Err(PatternError::TooLong);
        }
        let (text, slashes) = translate::translate(source, MOST_NESTED)?;
        let (regex, compiled) = compile_whole(&format!(r"\A(?:{text})\z"), most)?;
        Ok(Self { regex, source: source.into(), slashes, compiled })
    }

    /// Whether the pattern matches the text from its start to its end.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern as written.
    pub(crate) fn as_str(&self) -> &str {
        &self.source
    }

    /// Where the pattern can match a `/`.
    pub(crate) fn slashes(&self) -> Slashes {
        self.slashes
    }

    /// Bytes of the compiled form, at most twice the true figure, and at least 8 KiB.
    pub(crate) fn compiled(&self) -> u32 {
        self.compiled
    }

    /// The compiled form, for matching elsewhere.
    pub(crate) fn into_regex(self) -> Regex {
        self.regex
    }
}

/// Two are one if they are written alike.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

/// Compiles within the smallest sufficient size. The engine does not tell a size, only whether a
/// limit was kept; each step doubles, so all of them cost at most twice the last.
fn compile_whole(text: &str, most: u32) -> Result<(Regex, u32), PatternError> {
    let mut limit = LEAST_COMPILED;
    loop {
        let size = usize::try_from(limit).map_err(|_| PatternError::TooLarge)?;
        #[expect(clippy::disallowed_methods, reason = "the one place that compiles patterns")]
        let built =
            RegexBuilder::new(text).size_limit(size).dfa_size_limit(1 << 20).nest_limit(MOST_NESTED + 8).build();
        match built {
            Ok(regex) => return Ok((regex, limit)),
            Err(regex::Error::CompiledTooBig(_)) if limit < most => limit *= 2,
            Err(regex::Error::CompiledTooBig(_)) => return Err(PatternError::TooLarge),
            Err(_) => return Err(PatternError::Malformed),
        }
    }
}

/// Patterns as they are compiled, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::Pattern;

    /// The compiled form; whether a class, and whether an optional part, can match a `/`.
    pub fn compile(source: &str) -> Option<(regex::Regex, bool, bool)> {
        let pattern = Pattern::compile(source).ok()?;
        let slashes = pattern.slashes();
        Some((pattern.into_regex(), slashes.by_class, slashes.optional))
    }
}

#[cfg(test)]
mod tests;
