//! A pattern written for Go, in the words of Rust's engine.
//!
//! The pattern's syntax tree is walked once. A construct that both engines read alike stays; one
//! that can be said otherwise (`\d`, `\w`, `\s`, `\b`: ASCII in Go) is rewritten in place; any
//! other is refused. The walk also notes where a `/` can be matched, for the rules about issuers.

use regex_syntax::ast::{
    self, Assertion, AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSetBinaryOp, ClassSetItem, ClassUnicode,
    ClassUnicodeKind, Flag, Flags, FlagsItemKind, GroupKind, HexLiteralKind, Literal, LiteralKind, Repetition,
    RepetitionKind, RepetitionRange, Span, Visitor, parse::ParserBuilder,
};

use super::PatternError;

/// Go refuses counts, and products of nested counts, over this.
const MOST_REPEATS: u64 = 1000;

/// How a pattern can match the `/` of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slashes {
    /// `.` or a class can match one.
    pub(crate) by_class: bool,
    /// A written `/` stands under a repetition, an option or an alternation.
    pub(crate) optional: bool,
}

/// Rewrites a pattern, or says what is wrong with it.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other syntax errors are one to us")]
pub(super) fn translate(pattern: &str, most_nested: u32) -> Result<(String, Slashes), PatternError> {
    let tree =
        ParserBuilder::new().nest_limit(most_nested).build().parse(pattern).map_err(|error| match error.kind() {
            ast::ErrorKind::NestLimitExceeded(_) => PatternError::TooDeep,
            ast::ErrorKind::UnsupportedLookAround => NotSupported("look-around is not supported"),
            ast::ErrorKind::UnsupportedBackreference => NotSupported("back-references are not supported"),
            _ => PatternError::Malformed,
        })?;
    let mut walk = ast::visit(&tree, Walk { pattern, ..Walk::default() })?;
    walk.edits.sort_by_key(|(span, _)| span.start.offset);
    let (mut text, mut at) = (String::with_capacity(pattern.len()), 0);
    for (span, replacement) in &walk.edits {
        text.push_str(pattern.get(at..span.start.offset).ok_or(PatternError::Malformed)?);
        text.push_str(replacement);
        at = span.end.offset;
    }
    text.push_str(pattern.get(at..).ok_or(PatternError::Malformed)?);
    Ok((text, walk.slashes))
}

use PatternError::NotSupported;

#[derive(Default)]
struct Walk<'a> {
    pattern: &'a str,
    edits: Vec<(Span, String)>,
    /// The counts of the counted repetitions around this place.
    counts: Vec<u64>,
    /// Repetitions, options and alternations around this place.
    loose: usize,
    slashes: Slashes,
}

impl Visitor for Walk<'_> {
    type Output = Self;
    type Err = PatternError;

    fn finish(self) -> Result<Self, PatternError> {
        Ok(self)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is read alike by both engines")]
    fn visit_pre(&mut self, tree: &Ast) -> Result<(), PatternError> {
        match tree {
            Ast::ClassPerl(class) => {
                self.slashes.by_class |= class.negated;
                self.perl_class(class, false);
            }
            Ast::ClassUnicode(class) => {
                unicode_class(class)?;
                self.slashes.by_class |= self.class_has_slash(&class.span);
            }
            Ast::ClassBracketed(class) => self.slashes.by_class |= self.class_has_slash(&class.span),
            Ast::Dot(_) => self.slashes.by_class = true,
            Ast::Literal(literal) => {
                escape(literal)?;
                self.slashes.optional |= literal.c == '/' && self.loose > 0;
            }
            Ast::Flags(set) => flags(&set.flags)?,
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(set) => flags(set)?,
                GroupKind::CaptureName { name, .. } => group_name(&name.name)?,
                GroupKind::CaptureIndex(_) => {}
            },
            Ast::Assertion(assertion) => self.assertion(assertion)?,
            Ast::Repetition(repetition) => self.repetition(repetition)?,
            Ast::Alternation(_) => self.loose += 1,
            _ => {}
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these were counted on the way in")]
    fn visit_post(&mut self, tree: &Ast) -> Result<(), PatternError> {
        match tree {
            Ast::Repetition(repetition) => {
                self.loose -= 1;
                if matches!(repetition.op.kind, RepetitionKind::Range(_)) {
                    self.counts.pop();
                }
            }
            Ast::Alternation(_) => self.loose -= 1,
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), PatternError> {
        match item {
            ClassSetItem::Perl(class) => self.perl_class(class, true),
            ClassSetItem::Bracketed(_) => return Err(NotSupported("`[` inside a class is written `\\[`")),
            ClassSetItem::Literal(literal) => {
                escape(literal)?;
                let rest = self.pattern.get(literal.span.end.offset..).unwrap_or_default();
                if literal.c == '-' && literal.kind == LiteralKind::Verbatim && rest.starts_with('-') {
                    return Err(NotSupported("`--` inside a class is not supported; write `\\-`"));
                }
            }
            ClassSetItem::Range(range) => {
                escape(&range.start)?;
                escape(&range.end)?;
            }
            ClassSetItem::Unicode(class) => unicode_class(class)?,
            ClassSetItem::Empty(_) | ClassSetItem::Ascii(_) | ClassSetItem::Union(_) => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), PatternError> {
        Err(NotSupported("`&&`, `--` and `~~` inside a class are not supported; write `\\&`, `\\-`, `\\~`"))
    }
}

impl Walk<'_> {
    /// `\d`, `\s` and `\w` are ASCII, and `\s` is without `\v`. A negated class stays a nested one,
    /// which keeps Go's order under `(?i)`: fold, then negate.
    fn perl_class(&mut self, class: &ClassPerl, nested: bool) {
        let members = match class.kind {
            ClassPerlKind::Digit => "0-9",
            ClassPerlKind::Space => r"\t\n\x0C\r\x20",
            ClassPerlKind::Word => "0-9A-Za-z_",
        };
        let text = match (class.negated, nested) {
            (true, _) => format!("[^{members}]"),
            (false, true) => members.to_owned(),
            (false, false) => format!("[{members}]"),
        };
        self.edits.push((class.span, text));
    }

    fn assertion(&mut self, assertion: &Assertion) -> Result<(), PatternError> {
        match assertion.kind {
            AssertionKind::StartLine | AssertionKind::EndLine | AssertionKind::StartText | AssertionKind::EndText => {
                Ok(())
            }
            AssertionKind::WordBoundary => {
                self.edits.push((assertion.span, r"(?-u:\b)".to_owned()));
                Ok(())
            }
            AssertionKind::NotWordBoundary => Err(NotSupported(r"`\B` is not supported")),
            AssertionKind::WordBoundaryStart
            | AssertionKind::WordBoundaryEnd
            | AssertionKind::WordBoundaryStartAngle
            | AssertionKind::WordBoundaryEndAngle
            | AssertionKind::WordBoundaryStartHalf
            | AssertionKind::WordBoundaryEndHalf => Err(NotSupported(r"`\<`, `\>` and `\b{…}` are not supported")),
        }
    }

    fn repetition(&mut self, repetition: &Repetition) -> Result<(), PatternError> {
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return Err(NotSupported("one repetition directly after another is not supported"));
        }
        self.loose += 1;
        if let RepetitionKind::Range(range) = &repetition.op.kind {
            let count = match *range {
                RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n) => n,
                RepetitionRange::Bounded(least, most) => least.max(most),
            };
            self.counts.push(u64::from(count.max(1)));
            let product = self.counts.iter().fold(1, |product: u64, n| product.saturating_mul(*n));
            if product > MOST_REPEATS {
                return Err(NotSupported("repetition counts, nested ones multiplied, are at most 1000"));
            }
        }
        Ok(())
    }

    /// Whether a class of this pattern has `/` among its members. `/` has no other case and is
    /// ASCII, so the flags around the class and the engines' differences do not matter here. A
    /// class that cannot be read counts as having it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is no class counts as having a slash")]
    fn class_has_slash(&self, span: &Span) -> bool {
        let tree = self.pattern.get(span.start.offset..span.end.offset).map(regex_syntax::parse);
        let Some(Ok(tree)) = tree else { return true };
        match tree.kind() {
            regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
                class.ranges().iter().any(|range| range.start() <= '/' && '/' <= range.end())
            }
            regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Bytes(class)) => {
                class.ranges().iter().any(|range| range.start() <= b'/' && b'/' <= range.end())
            }
            regex_syntax::hir::HirKind::Literal(literal) => *literal.0 == *b"/",
            _ => true,
        }
    }
}

/// `\u` and `\U` are not RE2; the other escapes mean the same in both.
fn escape(literal: &Literal) -> Result<(), PatternError> {
    match literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
        | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
            Err(NotSupported(r"`\u` and `\U` are not supported; write `\x{…}`"))
        }
        LiteralKind::Octal => Err(NotSupported(r"octal escapes are not supported; write `\x{…}`")),
        LiteralKind::Verbatim
        | LiteralKind::Meta
        | LiteralKind::Superfluous
        | LiteralKind::HexFixed(HexLiteralKind::X)
        | LiteralKind::HexBrace(HexLiteralKind::X)
        | LiteralKind::Special(_) => Ok(()),
    }
}

fn flags(set: &Flags) -> Result<(), PatternError> {
    let known = set.items.iter().all(|item| match item.kind {
        FlagsItemKind::Flag(Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed) => {
            true
        }
        FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace) => false,
        FlagsItemKind::Negation => true,
    });
    if known { Ok(()) } else { Err(NotSupported("of the flags, i, m, s and U are supported")) }
}

fn group_name(name: &str) -> Result<(), PatternError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain { Ok(()) } else { Err(NotSupported("a group's name is of A-Z a-z 0-9 _")) }
}

/// General categories and the common scripts, under the names that Go knows.
fn unicode_class(class: &ClassUnicode) -> Result<(), PatternError> {
    let mut letter = [0; 4];
    let name = match &class.kind {
        ClassUnicodeKind::OneLetter(c) => c.encode_utf8(&mut letter),
        ClassUnicodeKind::Named(name) => name.as_str(),
        ClassUnicodeKind::NamedValue { .. } => "",
    };
    if UNICODE_CLASSES.contains(&name) { Ok(()) } else { Err(NotSupported("this Unicode class is not supported")) }
}

const UNICODE_CLASSES: &[&str] = &[
    "Any",
    "Cc",
    "Cf",
    "Co",
    "L",
    "Ll",
    "Lm",
    "Lo",
    "Lt",
    "Lu",
    "M",
    "Mc",
    "Me",
    "Mn",
    "N",
    "Nd",
    "Nl",
    "No",
    "P",
    "Pc",
    "Pd",
    "Pe",
    "Pf",
    "Pi",
    "Po",
    "Ps",
    "S",
    "Sc",
    "Sk",
    "Sm",
    "So",
    "Z",
    "Zl",
    "Zp",
    "Zs",
    "Arabic",
    "Armenian",
    "Bengali",
    "Common",
    "Cyrillic",
    "Devanagari",
    "Georgian",
    "Greek",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Inherited",
    "Katakana",
    "Latin",
    "Tamil",
    "Thai",
];
