//! Patterns: what Go's `regexp` (RE2) takes them to mean, or a refusal.
//!
//! Authors wrote for Go. Rust's engine reads some of the same texts otherwise, and nearly always
//! more widely: `\d` is every Unicode digit, `[a&&b]` an intersection, `a{1, 3}` a repetition. So a
//! pattern is parsed on its own by Go's rules and written anew in syntax that the engine reads in
//! one way. What Go refuses is refused. Only then is it tied to the whole text by `\A(?:…)\z`.
//! Parsing it alone first is what keeps `a)|(` from breaking out of the group.

mod class;
mod cursor;
mod piece;
mod translate;

use std::sync::Arc;

use regex_automata::{
    Anchored, Input,
    hybrid::dfa::{self, DFA},
    nfa::thompson::{
        self, NFA, State, WhichCaptures,
        backtrack::{self, BoundedBacktracker},
    },
    util::syntax,
};

use crate::cache::ALLOCATION_OVERHEAD;

/// The longest pattern, in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// The largest compiled pattern, in bytes.
pub(crate) const MAX_COMPILED: usize = 1 << 20;
/// The same for a pattern that only serves a hint.
const MAX_COMPILED_LIGHT: usize = 16 << 10;
/// Memory in which the backtracker marks what it visited, in bytes. It bounds one match to about
/// 130,000 steps; longer ones are the lazy DFA's.
const MAX_VISITED: usize = 16 << 10;
/// Memory of the lazy DFA's states during one match, in bytes. A large pattern needs more than this
/// for a few states, up to about twice its compiled size.
const DFA_CACHE: usize = 128 << 10;
/// What starting a match costs, in bytes of text.
const SETUP_BYTES: usize = 64;
/// The longest pattern in a list of trusted issuers, in characters.
const MAX_ISSUER_CHARS: usize = 256;
/// Groups and repetitions inside each other. Go's limit is a syntax tree of 1000 levels.
const MAX_DEPTH: u32 = 64;
/// Levels of the engine's syntax tree that one of ours can become: group, repetition, alternation,
/// concatenation.
const LEVELS_PER_DEPTH: u32 = 4;

/// A compiled pattern that matches whole texts only.
///
/// It keeps nothing of a match. What a match needs beside the pattern lives as long as the match,
/// so that the size of a cached pattern is known when it is compiled, however many threads use it.
#[derive(Debug, Clone)]
pub struct Pattern {
    engine: Arc<Engine>,
    source: Box<str>,
    slashes: Slashes,
}

/// One NFA and the two ways to run it.
#[derive(Debug)]
struct Engine {
    /// The faster one where the pattern times the text is small, as nearly always.
    backtracker: BoundedBacktracker,
    /// For the rest. Its time stays proportional to the pattern times the text.
    lazy_dfa: DFA,
    /// An upper bound of the NFA's memory.
    nfa_bytes: usize,
}

/// How a pattern can match the `/` of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slashes {
    /// `.` or a class can match one.
    pub(crate) by_class: bool,
    /// A written `/` stands under a repetition, an option or an alternation.
    pub(crate) optional: bool,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("a pattern is at most 8 KiB long")]
    TooLong,
    #[error("this pattern is too large when compiled (1 MiB)")]
    TooLarge,
    #[error("this is not a valid pattern: {0}")]
    Malformed(&'static str),
    #[error("this pattern is nested too deeply")]
    TooDeep,
    #[error("{0}")]
    NotSupported(&'static str),
}

impl Pattern {
    /// Compiles a pattern. Takes at most some milliseconds, whatever the pattern.
    pub(crate) fn compile(source: &str) -> Result<Self, PatternError> {
        Self::compile_within(source, MAX_COMPILED)
    }

    /// The same, if it comes to no more than 16 KiB: for matches that nobody has to make.
    pub(crate) fn compile_light(source: &str) -> Result<Self, PatternError> {
        Self::compile_within(source, MAX_COMPILED_LIGHT)
    }

    /// The same, for a list of trusted issuers. Such a pattern must not be open to a host of a
    /// stranger's choosing, so whatever could match a `/` by accident is refused.
    pub(crate) fn compile_for_issuers(source: &str) -> Result<Self, PatternError> {
        if source.is_empty() {
            return Err(PatternError::NotSupported("a pattern is not empty"));
        }
        if source.chars().count() > MAX_ISSUER_CHARS {
            return Err(PatternError::NotSupported(
                "a pattern of issuers is at most 256 characters",
            ));
        }
        let pattern = Self::compile(source)?;
        if pattern.slashes.by_class {
            let text =
                "`.` or a class can match `/` here; write `[^/]` or the letters that are meant";
            return Err(PatternError::NotSupported(text));
        }
        if pattern.slashes.optional {
            return Err(PatternError::NotSupported(
                "`/` stands under a repetition, an option or an alternation",
            ));
        }
        Ok(pattern)
    }

    fn compile_within(source: &str, max_compiled: usize) -> Result<Self, PatternError> {
        if source.len() > MAX_BYTES {
            return Err(PatternError::TooLong);
        }
        let (text, slashes) = translate::translate(source)?;
        let engine = Arc::new(Engine::compile(&format!(r"\A(?:{text})\z"), max_compiled)?);
        Ok(Self { engine, source: source.into(), slashes })
    }

    /// Whether the syntax of a pattern is accepted, without the cost of compiling it.
    pub(crate) fn check_syntax(source: &str) -> Result<(), PatternError> {
        translate::translate(source).map(drop)
    }

    /// Whether the pattern matches the text from its start to its end.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.engine.is_match(text)
    }

    /// The pattern as written.
    pub(crate) fn as_str(&self) -> &str {
        &self.source
    }

    /// Where the pattern can match a `/`.
    pub(crate) fn slashes(&self) -> Slashes {
        self.slashes
    }

    /// Bytes of the compiled form.
    pub(crate) fn compiled_bytes(&self) -> usize {
        self.engine.nfa().memory_usage()
    }

    /// What one match costs at most: compiled bytes times bytes of text.
    pub(crate) fn cost(&self, text_bytes: usize) -> u64 {
        let text = u64::try_from(text_bytes.saturating_add(SETUP_BYTES)).unwrap_or(u64::MAX);
        u64::try_from(self.compiled_bytes()).unwrap_or(u64::MAX).saturating_mul(text)
    }

    /// An upper bound of the memory behind this value, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.engine.nfa_bytes + size_of::<Engine>() + self.source.len() + 4 * ALLOCATION_OVERHEAD
    }
}

/// What was translated is read, so this is a fault of the translation.
const UNREAD: PatternError = PatternError::Malformed("the engine does not read it");

impl Engine {
    /// Compiles a text that both ends of the haystack anchor.
    fn compile(text: &str, max_compiled: usize) -> Result<Self, PatternError> {
        let nfa = thompson::Compiler::new()
            .syntax(syntax::Config::new().nest_limit((MAX_DEPTH + 2) * LEVELS_PER_DEPTH))
            .configure(
                thompson::Config::new()
                    .which_captures(WhichCaptures::None)
                    .nfa_size_limit(Some(max_compiled)),
            )
            .build(text)
            .map_err(|error| match error.size_limit() {
                Some(_) => PatternError::TooLarge,
                None => UNREAD,
            })?;
        let allocations =
            nfa.states().iter().filter(|state| !matches!(state, State::ByteRange { .. })).count();
        // The list of states may have grown to twice its length.
        let nfa_bytes =
            nfa.memory_usage() + size_of_val(nfa.states()) + allocations * ALLOCATION_OVERHEAD;
        let backtracker = BoundedBacktracker::builder()
            .configure(backtrack::Config::new().visited_capacity(MAX_VISITED))
            .build_from_nfa(nfa.clone())
            .map_err(|_| UNREAD)?;
        let lazy_dfa = DFA::builder()
            .configure(dfa::Config::new().cache_capacity(DFA_CACHE).skip_cache_capacity_check(true))
            .build_from_nfa(nfa)
            .map_err(|_| UNREAD)?;
        Ok(Self { backtracker, lazy_dfa, nfa_bytes })
    }

    fn nfa(&self) -> &NFA {
        self.backtracker.get_nfa()
    }

    /// An engine that gives up, which neither does within its limits, has found no match.
    fn is_match(&self, text: &str) -> bool {
        let input = Input::new(text).anchored(Anchored::Yes);
        if text.len() <= self.backtracker.max_haystack_len() {
            let mut visited = self.backtracker.create_cache();
            return self.backtracker.try_is_match(&mut visited, input).unwrap_or(false);
        }
        let mut states = self.lazy_dfa.create_cache();
        self.lazy_dfa.try_search_fwd(&mut states, &input).is_ok_and(|end| end.is_some())
    }
}

/// Two are one if they are written alike.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

/// Patterns as they are compiled, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::Pattern;

    /// The text that the engine compiles; whether a class, and whether an optional part, can match
    /// a `/`; the match.
    pub fn compile(source: &str) -> Option<(String, bool, bool, impl Fn(&str) -> bool)> {
        let pattern = Pattern::compile(source).ok()?;
        let (text, slashes) = super::translate::translate(source).ok()?;
        let is_match = move |text: &str| pattern.is_match(text);
        Some((format!(r"\A(?:{text})\z"), slashes.by_class, slashes.optional, is_match))
    }
}

#[cfg(test)]
mod tests;
