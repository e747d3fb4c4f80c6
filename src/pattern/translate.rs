//! A pattern written for Go, in the words of Rust's engine.
//!
//! The two engines decide alike but do not read alike: `a{1, 3}` is literal for one and a
//! repetition for the other. So the pattern is read here by the rules of Go's `regexp/syntax`, and
//! only what was understood is written down again, in syntax that the engine reads in one way.

use super::{
    PatternError, Slashes, class,
    cursor::Cursor,
    piece::{Count, Piece},
};
use PatternError::{Malformed, NotSupported};

/// Rewrites a pattern, or says what is wrong with it.
pub(super) fn translate(pattern: &str) -> Result<(String, Slashes), PatternError> {
    let mut reader = Reader {
        cursor: Cursor::new(pattern),
        flags: Flags::default(),
        outer: Vec::new(),
        open: Group::default(),
    };
    while !reader.cursor.rest().is_empty() {
        reader.step()?;
    }
    if !reader.outer.is_empty() {
        return Err(Malformed("a `(` has no `)`"));
    }
    let piece = reader.open.finish()?;
    Ok((piece.text, piece.slashes))
}

/// `U` is read and has no effect: whether a whole text matches does not depend on greed.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    /// `i`
    fold: bool,
    /// `m`
    lines: bool,
    /// `s`
    dot_matches_newline: bool,
}

/// A group that is being read.
#[derive(Debug, Default)]
struct Group {
    captures: bool,
    /// Finished alternatives.
    alternatives: Vec<Piece>,
    /// The pieces of the alternative that is being read.
    pieces: Vec<Piece>,
    /// The flags before this group.
    flags: Flags,
}

impl Group {
    fn end_alternative(&mut self) -> Result<(), PatternError> {
        let alternative = Piece::concatenation(&self.pieces)?;
        self.pieces.clear();
        self.alternatives.push(alternative);
        Ok(())
    }

    fn finish(mut self) -> Result<Piece, PatternError> {
        self.end_alternative()?;
        Piece::alternation(&self.alternatives)
    }
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    flags: Flags,
    /// The groups around the one that is being read.
    outer: Vec<Group>,
    open: Group,
}

impl Reader<'_> {
    /// Reads one element, with the repetition after it.
    fn step(&mut self) -> Result<(), PatternError> {
        let Some(c) = self.cursor.rest().chars().next() else { return Ok(()) };
        match c {
            '(' => self.open_group()?,
            ')' => self.close_group()?,
            '|' => {
                self.cursor.next();
                self.open.end_alternative()?;
            }
            '[' => {
                let class = class::bracketed(&mut self.cursor, self.flags.fold)?;
                self.open.pieces.push(class);
            }
            '\\' => self.escape()?,
            '^' | '$' | '.' => {
                self.cursor.next();
                self.open.pieces.push(self.symbol(c));
            }
            _ => {
                if let Some(count) = count(&mut self.cursor) {
                    return self.repeat(count);
                }
                self.cursor.next();
                self.open.pieces.push(Piece::literal(c, self.flags.fold));
            }
        }
        Ok(())
    }

    /// Repeats the last piece. Another repetition directly after it is an error.
    fn repeat(&mut self, count: Count) -> Result<(), PatternError> {
        self.cursor.eat("?");
        let Some(piece) = self.open.pieces.pop() else {
            return Err(Malformed("a repetition has nothing before it to repeat"));
        };
        self.open.pieces.push(piece.repeat(count)?);
        match self::count(&mut self.cursor) {
            Some(_) => Err(Malformed("a repetition stands directly after another")),
            None => Ok(()),
        }
    }

    fn symbol(&self, c: char) -> Piece {
        match (c, self.flags) {
            ('^', Flags { lines: true, .. }) => Piece::assertion("(?m:^)"),
            ('^', _) => Piece::assertion(r"\A"),
            ('$', Flags { lines: true, .. }) => Piece::assertion("(?m:$)"),
            ('$', _) => Piece::assertion(r"\z"),
            (_, Flags { dot_matches_newline: true, .. }) => Piece::class("(?s:.)".to_owned(), true),
            _ => Piece::class(r"[^\n]".to_owned(), true),
        }
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let letter = self.cursor.rest().chars().nth(1);
        let assertion = match letter {
            Some('A') => Some(r"\A"),
            Some('z') => Some(r"\z"),
            Some('b') => Some(r"(?-u:\b)"),
            Some('B') => Some(r"(?-u:\B)"),
            _ => None,
        };
        if let Some(text) = assertion {
            self.cursor.next();
            self.cursor.next();
            self.open.pieces.push(Piece::assertion(text));
            return Ok(());
        }
        if self.cursor.eat(r"\Q") {
            return self.quotation();
        }
        let piece = match class::escaped(&mut self.cursor, self.flags.fold)? {
            Some(class) => class,
            None => match char::from_u32(class::escape(&mut self.cursor)?) {
                Some(c) => Piece::literal(c, self.flags.fold),
                None => class::never(),
            },
        };
        self.open.pieces.push(piece);
        Ok(())
    }

    /// Everything up to `\E` is literal. Without `\E`, the `)` that Go puts after a pattern to
    /// match it whole would be literal too, so Go refuses it.
    fn quotation(&mut self) -> Result<(), PatternError> {
        let Some((text, rest)) = self.cursor.rest().split_once(r"\E") else {
            return Err(Malformed(r"a `\Q` has no `\E`"));
        };
        self.cursor.set_rest(rest);
        self.open.pieces.extend(text.chars().map(|c| Piece::literal(c, self.flags.fold)));
        Ok(())
    }

    fn open_group(&mut self) -> Result<(), PatternError> {
        let flags = self.flags;
        let captures = if self.cursor.eat("(?P<") || self.cursor.eat("(?<") {
            self.group_name()?;
            true
        } else if self.cursor.eat("(?") {
            if self.set_flags()? == ')' {
                return Ok(());
            }
            false
        } else {
            self.cursor.eat("(")
        };
        if self.outer.len() >= super::MAX_DEPTH as usize {
            return Err(PatternError::TooDeep);
        }
        let inner = Group { captures, flags, ..Group::default() };
        self.outer.push(std::mem::replace(&mut self.open, inner));
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), PatternError> {
        self.cursor.eat(")");
        let Some(outer) = self.outer.pop() else { return Err(Malformed("a `)` has no `(`")) };
        let group = std::mem::replace(&mut self.open, outer);
        let (captures, flags) = (group.captures, group.flags);
        self.open.pieces.push(group.finish()?.group(captures)?);
        self.flags = flags;
        Ok(())
    }

    fn group_name(&mut self) -> Result<(), PatternError> {
        if self.cursor.starts_with("=") || self.cursor.starts_with("!") {
            return Err(LOOK_AROUND);
        }
        let named = self.cursor.rest().split_once('>');
        let is_word = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match named.filter(|(name, _)| !name.is_empty() && is_word(name)) {
            Some((_, rest)) => {
                self.cursor.set_rest(rest);
                Ok(())
            }
            None => Err(Malformed("a group's name is of A-Z a-z 0-9 _ and ends with `>`")),
        }
    }

    /// The flags of `(?i-s:` or `(?i-s)`, and the character that ends them.
    fn set_flags(&mut self) -> Result<char, PatternError> {
        if self.cursor.starts_with("=") || self.cursor.starts_with("!") {
            return Err(LOOK_AROUND);
        }
        let (mut on, mut named_any) = (true, true);
        loop {
            match self.cursor.next() {
                Some('i') => self.flags.fold = on,
                Some('m') => self.flags.lines = on,
                Some('s') => self.flags.dot_matches_newline = on,
                Some('U') => {}
                Some('-') if on => {
                    (on, named_any) = (false, false);
                    continue;
                }
                Some(end @ (':' | ')')) if named_any => return Ok(end),
                _ => return Err(NotSupported("after `(?`, the flags i, m, s and U are supported")),
            }
            named_any = true;
        }
    }
}

const LOOK_AROUND: PatternError = NotSupported("look-around is not supported");

/// Reads `*`, `+`, `?`, `{2}`, `{2,}` or `{2,5}`, if that is next. Any other `{` is literal.
fn count(cursor: &mut Cursor<'_>) -> Option<Count> {
    if cursor.eat("*") {
        Some(Count { min: 0, max: None })
    } else if cursor.eat("+") {
        Some(Count { min: 1, max: None })
    } else if cursor.eat("?") {
        Some(Count { min: 0, max: Some(1) })
    } else {
        braces(cursor)
    }
}

fn braces(cursor: &mut Cursor<'_>) -> Option<Count> {
    let (inside, rest) = cursor.rest().strip_prefix('{')?.split_once('}')?;
    let (min, max) = match inside.split_once(',') {
        None => (number(inside)?, Some(number(inside)?)),
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    cursor.set_rest(rest);
    Some(Count { min, max })
}

/// Digits without a leading zero. A number that is too large stays too large for a count.
fn number(digits: &str) -> Option<u32> {
    let has_form =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    (has_form && !digits.is_empty()).then(|| digits.parse().unwrap_or(u32::MAX))
}
