//! The text and its tokens, as far as Go's YAML parser reads them otherwise than ours.
//!
//! Go's parser is of YAML 1.1. What it refuses, or takes for something else, is refused here.

use serde_yaml::granit_parser::{ScalarStyle, Scanner, Span, StrInput, TokenType};

use super::{Invalid, Mark, tree};

/// Refuses what Go's parser would not read, or would read otherwise.
pub(super) fn check(text: &str) -> Result<(), Invalid> {
    line_ends(text)?;
    let mut tokens = Tokens {
        text,
        flow_depth: 0,
        open_end: None,
        last_line: 0,
        after_plain: false,
        has_begun: false,
        last_end: 0,
        after_property: false,
    };
    // The parser reports what the scanner cannot read.
    for token in Scanner::new(StrInput::new(text)).map_while(Result::ok) {
        let (span, token) = token.into_parts();
        tokens.check(&span, &token)?;
        tokens.last_line = span.end.line();
        tokens.last_end = tokens.last_end.max(span.end.byte_offset().unwrap_or_default());
        tokens.after_property = matches!(token, TokenType::Anchor(_) | TokenType::Tag(..));
        tokens.has_begun |= token != TokenType::StreamStart;
        tokens.after_plain = matches!(token, TokenType::Scalar(ScalarStyle::Plain, _));
    }
    Ok(())
}

/// U+0085, U+2028 and U+2029 end a line, and with it a comment, for YAML 1.1 and not for YAML 1.2.
fn line_ends(text: &str) -> Result<(), Invalid> {
    let (mut line, mut column, mut last) = (1, 1, ' ');
    for c in text.chars() {
        match c {
            '\u{85}' | '\u{2028}' | '\u{2029}' => {
                let rule = "YAML readers disagree on whether U+0085, U+2028 and U+2029 end a line; \
                            write them as escapes in double quotes";
                return Err(Invalid::at(Mark { line, column }, rule));
            }
            '\n' if last == '\r' => {}
            '\n' | '\r' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
        last = c;
    }
    Ok(())
}

const TAB: &str = "indentation is by spaces, not tabs";

struct Tokens<'a> {
    text: &'a str,
    flow_depth: u32,
    /// The last scalar, if it is a block scalar that keeps its last line break.
    open_end: Option<Mark>,
    /// The line on which the last token ends.
    last_line: usize,
    /// Whether the last token is a plain scalar.
    after_plain: bool,
    /// Whether the last token is an anchor or a tag.
    after_property: bool,
    /// The byte at which the last token ends.
    last_end: usize,
    /// Whether the document has begun.
    has_begun: bool,
}

impl Tokens<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "both parsers read the other tokens alike")]
    fn check(&mut self, span: &Span, token: &TokenType<'_>) -> Result<(), Invalid> {
        let mark = tree::mark(span);
        if self.is_indented_by_tab(span)
            || *token == TokenType::BlockEntry && self.is_tab_behind(span)
        {
            return Err(Invalid::at(mark, TAB));
        }
        if self.flow_depth > 0 && self.after_property && span.start.line() != self.last_line {
            return Err(Invalid::at(
                mark,
                "inside [] and {}, an anchor or tag and its value stand on one line",
            ));
        }
        match token {
            TokenType::FlowSequenceStart | TokenType::FlowMappingStart => self.flow_depth += 1,
            TokenType::FlowSequenceEnd | TokenType::FlowMappingEnd => {
                self.flow_depth = self.flow_depth.saturating_sub(1);
            }
            TokenType::VersionDirective(1, 1) => {}
            TokenType::VersionDirective(..)
            | TokenType::TagDirective(..)
            | TokenType::ReservedDirective(..) => {
                return Err(Invalid::at(mark, "of the directives, only `%YAML 1.1` is supported"));
            }
            TokenType::Anchor(name) | TokenType::Alias(name) if !is_word(name) => {
                return Err(Invalid::at(mark, "an anchor's name is of A-Z a-z 0-9 _ -"));
            }
            TokenType::Anchor(_) if self.follows(span, |c| matches!(c, '[' | '{')) => {
                return Err(Invalid::at(
                    mark,
                    "an anchor's name is of A-Z a-z 0-9 _ -, and a blank follows it",
                ));
            }
            TokenType::Value if self.flow_depth > 0 => self.flow_value(span, mark)?,
            TokenType::Scalar(style, value) => self.scalar(span, *style, value)?,
            TokenType::DocumentEnd if !self.has_begun => {
                return Err(Invalid::at(mark, "`...` ends a document that has not begun"));
            }
            TokenType::DocumentEnd => self.open_end = None,
            TokenType::StreamEnd if self.text.ends_with([' ', '\t']) => {
                return Err(Invalid::at(
                    mark,
                    "YAML readers disagree on a blank at the end; end the file with a line break",
                ));
            }
            TokenType::StreamEnd if !self.text.ends_with(['\n', '\r']) => {
                if let Some(mark) = self.open_end {
                    let rule = "YAML readers disagree on the end of this text; end the file with a line break";
                    return Err(Invalid::at(mark, rule));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn scalar(&mut self, span: &Span, style: ScalarStyle, value: &str) -> Result<(), Invalid> {
        let mark = tree::mark(span);
        let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        self.open_end = (is_block && value.ends_with('\n')).then_some(mark);
        let is_indented_by_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
        if is_block
            && span
                .slice(self.text)
                .is_none_or(|text| text.split(['\n', '\r']).any(is_indented_by_tab))
        {
            return Err(Invalid::at(mark, TAB));
        }
        if style == ScalarStyle::Plain
            && self.flow_depth > 0
            && (value.starts_with(':') || value.contains('?'))
        {
            let rule = "YAML readers disagree on `?` and a leading `:` inside [] and {}; put the value in quotes";
            return Err(Invalid::at(mark, rule));
        }
        if style == ScalarStyle::DoubleQuoted
            && span.slice(self.text).is_none_or(has_escape_of_json)
        {
            let rule =
                "the escape `\\/` and surrogate pairs are not of YAML 1.1; write `/` and `\\U`";
            return Err(Invalid::at(mark, rule));
        }
        Ok(())
    }

    /// Inside `[]` and `{}`, Go's parser takes `a:}` for text and wants a key and its `:` on one
    /// line.
    fn flow_value(&self, span: &Span, mark: Mark) -> Result<(), Invalid> {
        let follows_key = span.start.line() == self.last_line;
        let is_glued = self.after_plain && self.follows_colon(span, |c| !c.is_whitespace());
        if follows_key && !is_glued {
            return Ok(());
        }
        Err(Invalid::at(
            mark,
            "YAML readers disagree on this `:`; a key stands before it on the line, a blank after it",
        ))
    }

    fn follows_colon(&self, span: &Span, is: impl Fn(char) -> bool) -> bool {
        let after =
            span.start.byte_offset().and_then(|start| self.text.get(start..)?.strip_prefix(':'));
        after.and_then(|after| after.chars().next()).is_some_and(is)
    }

    fn follows(&self, span: &Span, is: impl Fn(char) -> bool) -> bool {
        let after = span.end.byte_offset().and_then(|end| self.text.get(end..));
        after.and_then(|after| after.chars().next()).is_some_and(is)
    }

    /// Whether a tab stands at the start of a line between the last token and this one.
    fn is_indented_by_tab(&self, span: &Span) -> bool {
        let gap = span
            .start
            .byte_offset()
            .and_then(|start| self.text.get(self.last_end..start))
            .unwrap_or_default();
        let starts_with_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
        let first_line = usize::from(self.last_end > 0);
        gap.split(['\n', '\r']).skip(first_line).any(starts_with_tab)
    }

    /// Whether a tab stands behind the `-` of an entry. The token's place is behind the blanks.
    fn is_tab_behind(&self, span: &Span) -> bool {
        let Some((before, after)) =
            span.start.byte_offset().and_then(|start| self.text.split_at_checked(start))
        else {
            return true;
        };
        let blanks_before =
            before.get(before.trim_end_matches([' ', '\t']).len()..).unwrap_or_default();
        let after = after.strip_prefix('-').unwrap_or_default();
        blanks_before.contains('\t') || after.trim_start_matches(' ').starts_with('\t')
    }
}

fn is_word(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Whether a double-quoted scalar has an escape that JSON has and YAML 1.1 has not.
fn has_escape_of_json(quoted: &str) -> bool {
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        let digits = match chars.next() {
            Some('/') => return true,
            Some('u') => chars.as_str().get(..4).unwrap_or_default(),
            _ => continue,
        };
        if u32::from_str_radix(digits, 16).is_ok_and(|unit| (0xD800..=0xDFFF).contains(&unit)) {
            return true;
        }
    }
    false
}
