//! Why a pattern is refused, in words that name the construct, and where exactly it is.
//!
//! The text names constructs of the pattern language, such as `*` or `(?=`, never the pattern.

use regex_syntax::ast::{ErrorKind, parse::Parser};

use crate::{
    pattern::{Pattern, PatternError},
    yaml::{At, Invalid, Mark},
};

/// The construct is searched for in patterns up to this length: the time grows with its square.
const MAX_SEARCHED_BYTES: usize = 256;

/// The error of a pattern that the file `text` has under `key`.
pub(super) fn explain(text: &str, source: &At<String>, key: &str, error: PatternError) -> Invalid {
    let pattern = source.value.as_str();
    let found = match error {
        PatternError::Malformed(_) => malformed(pattern).or_else(|| located(pattern, error)),
        PatternError::NotSupported(_) => located(pattern, error),
        PatternError::TooLong | PatternError::TooLarge | PatternError::TooDeep => None,
    };
    let Some((rule, offset)) = found else { return source.refuse(format!("`{key}`: {error}")) };
    match place(text, source, offset) {
        Some(mark) => Invalid::at(mark, format!("`{key}`: {rule}")),
        None => {
            let character = pattern.get(..offset).map_or(0, |before| before.chars().count()) + 1;
            source.refuse(format!("`{key}`: {rule} (character {character} of the pattern)"))
        }
    }
}

/// A syntax error with what to write instead, and the byte of the pattern where its construct
/// starts.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "for the other syntax errors, the error's own text is used"
)]
fn malformed(pattern: &str) -> Option<(String, usize)> {
    let error = Parser::new().parse(pattern).err()?;
    let offset = error.span().start.offset;
    let first = pattern
        .get(offset..)
        .and_then(|rest| rest.chars().next())
        .filter(char::is_ascii_punctuation);
    let rule = match error.kind() {
        ErrorKind::RepetitionMissing => match first {
            Some('*') => "`*` has nothing to repeat; for any text, write `.*`".to_owned(),
            Some(sign @ ('+' | '?')) => {
                format!("`{sign}` has nothing to repeat; for the character, write `\\{sign}`")
            }
            // A brace may be literal text.
            _ => return None,
        },
        ErrorKind::GroupUnclosed => "`(` is not closed; for the character, write `\\(`".to_owned(),
        ErrorKind::GroupUnopened => {
            "`)` has no `(` before it; for the character, write `\\)`".to_owned()
        }
        ErrorKind::ClassUnclosed => "`[` is not closed; for the character, write `\\[`".to_owned(),
        ErrorKind::ClassRangeInvalid
        | ErrorKind::ClassRangeLiteral
        | ErrorKind::ClassEscapeInvalid => {
            "the range in `[…]` is not valid; for the character `-`, write `\\-`".to_owned()
        }
        ErrorKind::EscapeUnexpectedEof => {
            "`\\` at the end escapes nothing; for the character, write `\\\\`".to_owned()
        }
        ErrorKind::UnsupportedLookAround => "look-around is not supported".to_owned(),
        ErrorKind::UnsupportedBackreference => "back-references are not supported".to_owned(),
        _ => return None,
    };
    Some((rule, offset))
}

/// The error's own text, and the byte of the pattern where its construct starts.
fn located(pattern: &str, error: PatternError) -> Option<(String, usize)> {
    locate(pattern, error).map(|offset| (error.to_string(), offset))
}

/// Where the construct starts that causes an error: it ends the shortest part from the start that
/// has the error, and it starts the shortest end of that part that still has it.
fn locate(pattern: &str, error: PatternError) -> Option<usize> {
    if pattern.len() > MAX_SEARCHED_BYTES {
        return None;
    }
    let has_error =
        |part: Option<&str>| part.is_some_and(|part| Pattern::check_syntax(part) == Err(error));
    let ends = pattern.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.into_iter().find(|end| has_error(pattern.get(..*end)))?;
    let mut starts = pattern.get(..end)?.char_indices().map(|(at, _)| at).rev();
    starts.find(|start| has_error(pattern.get(*start..end)))
}

/// The place in the file of a byte of a scalar, where the file has the scalar's text as it is up to
/// there: plain, or in quotes without escapes before that place.
fn place(text: &str, source: &At<String>, offset: usize) -> Option<Mark> {
    let Mark { line, column } = source.mark;
    let written = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let (start, _) = written.char_indices().nth(usize::try_from(column).ok()?.checked_sub(1)?)?;
    let written = written.get(start..)?;
    let (written, quotes) = match written.strip_prefix(['\'', '"']) {
        Some(rest) => (rest, 1),
        None => (written, 0),
    };
    let before = source.value.get(..offset)?;
    let here = source.value.get(offset..)?.chars().next();
    let is_same = written.starts_with(before)
        && written.get(offset..).and_then(|rest| rest.chars().next()) == here;
    let characters = u32::try_from(before.chars().count()).ok()?;
    (is_same && here.is_some()).then_some(Mark { line, column: column + quotes + characters })
}
