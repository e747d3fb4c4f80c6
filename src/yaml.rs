//! Strict YAML: a text that could be read in two ways is refused.
//!
//! A trust policy decides who gets a token, so this loader refuses what others pass over: unknown
//! and duplicate keys, several documents, merge keys, tags, and whatever YAML 1.1 and 1.2, or two
//! programs, read differently. What is accepted, Go's parser reads in the same way. It builds a
//! small tree from the parser's events, since only there are a scalar's style and place both known,
//! and then hands the tree to serde. An error says where and which rule, and never repeats the
//! file's text: who may see where a policy is broken need not be who may read it.

mod de;
mod errors;
mod scalar;
mod source;
mod tree;

use std::{borrow::Cow, fmt};

use serde::{Deserialize, de::DeserializeOwned};

pub(crate) use de::{MARKED, is_near};
pub use errors::Errors;
pub(crate) use scalar::Scalar;
use tree::LetterKeys;

/// The largest file that is read.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// Reads one strict YAML document of at most 64 KiB.
///
/// Give the target types `#[serde(deny_unknown_fields)]`, and [`At`] where a later check should
/// be able to say where its value stands.
///
/// # Errors
/// [`Invalid`] names the first rule that the file breaks, and where.
pub fn load<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Invalid> {
    load_with(bytes, LetterKeys::Refused)
}

/// The same, for files that may hold JSON Web Keys: `n` and `y` are keys like others.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_with_web_keys<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Invalid> {
    load_with(bytes, LetterKeys::Text)
}

fn load_with<T: DeserializeOwned>(bytes: &[u8], letters: LetterKeys) -> Result<T, Invalid> {
    let first = |errors: Errors| errors.iter().next().cloned();
    let (root, error) = match tree_with(bytes, letters) {
        Ok((root, errors)) => (Some(root), errors.check().err().and_then(first)),
        Err(errors) => (None, first(errors)),
    };
    match (root, error) {
        (Some(root), None) => T::deserialize(&root),
        (_, error) => Err(error.unwrap_or_else(|| Invalid::file("the file cannot be read"))),
    }
}

/// Reads one strict YAML document of at most 64 KiB as a tree, for readers that report every error.
/// With the tree come the rules that single values break; it is good only if there are none.
pub(crate) fn tree(bytes: &[u8]) -> Result<(Node, Errors), Errors> {
    tree_with(bytes, LetterKeys::Refused)
}

fn tree_with(bytes: &[u8], letters: LetterKeys) -> Result<(Node, Errors), Errors> {
    let mut errors = Errors::default();
    match read_tree(bytes, letters, &mut errors) {
        Ok(root) => Ok((root, errors)),
        Err(last) => {
            errors.push(last);
            Err(errors.in_order())
        }
    }
}

fn read_tree(bytes: &[u8], letters: LetterKeys, errors: &mut Errors) -> Result<Node, Invalid> {
    if bytes.len() > MAX_BYTES {
        return Err(Invalid::file("the file is larger than 64 KiB"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Invalid::file("the file is not UTF-8"))?;
    source::check(text)?;
    let root = tree::parse(text, letters, errors)?;
    if matches!(root.value, Value::Scalar(Scalar::Null)) {
        return Err(Invalid::file("the file is empty"));
    }
    Ok(root)
}

/// Where in a file: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// Why a file is refused: a place and a rule, never the file's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    at: Option<Mark>,
    rule: Cow<'static, str>,
    fix: Option<Fix>,
}

/// What to write instead. It may repeat the file's text, so it is for those who have the file: it
/// is not part of any error text, and not even debug output shows it.
#[derive(Clone, PartialEq, Eq)]
struct Fix(Box<str>);

impl fmt::Debug for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fix(…)")
    }
}

impl Invalid {
    /// A rule broken by the file as a whole.
    pub(crate) fn file(rule: impl Into<Cow<'static, str>>) -> Self {
        Self { at: None, rule: rule.into(), fix: None }
    }

    /// A rule broken at a place.
    pub(crate) fn at(at: Mark, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { at: Some(at), rule: rule.into(), fix: None }
    }

    /// Adds what to write instead, cut to a bounded length.
    #[must_use]
    pub(crate) fn with_fix(mut self, fix: &str) -> Self {
        const MAX_BYTES: usize = 512;
        self.fix = fix.get(..fix.floor_char_boundary(MAX_BYTES)).map(|fix| Fix(fix.into()));
        self
    }

    /// What to write instead, for those who have the file.
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_ref().map(|fix| &*fix.0)
    }

    /// The line, from 1, if the rule is broken at one place.
    pub fn line(&self) -> Option<u32> {
        self.at.map(|at| at.line)
    }

    /// The column in characters, from 1, if the rule is broken at one place.
    pub fn column(&self) -> Option<u32> {
        self.at.map(|at| at.column)
    }

    /// The rule that is broken.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Places an error that does not say where.
    fn or_at(self, mark: Mark) -> Self {
        Self { at: self.at.or(Some(mark)), ..self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "line {}, column {}: {}", at.line, at.column, self.rule),
            None => f.write_str(&self.rule),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// Where.
    pub mark: Mark,
    /// What.
    pub value: T,
}

impl<T> At<T> {
    /// A rule that this value breaks.
    pub fn refuse(&self, rule: impl Into<Cow<'static, str>>) -> Invalid {
        Invalid::at(self.mark, rule)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Marked<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Marked<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut parts: A,
            ) -> Result<At<T>, A::Error> {
                let (Some(line), Some(column), Some(value)) =
                    (parts.next_element()?, parts.next_element()?, parts.next_element()?)
                else {
                    return Err(serde::de::Error::custom(
                        "only the strict YAML loader knows places",
                    ));
                };
                Ok(At { mark: Mark { line, column }, value })
            }
        }
        deserializer.deserialize_newtype_struct(MARKED, Marked(std::marker::PhantomData))
    }
}

/// For `#[serde(default, deserialize_with = "present")]`: a value that may be absent, but not null.
pub(crate) fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A part of the document and where it starts.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
}

impl Node {
    /// A rule that this part breaks.
    pub(crate) fn refuse(&self, rule: impl Into<Cow<'static, str>>) -> Invalid {
        Invalid::at(self.mark, rule)
    }

    /// The string that it stands for; `None` for null, lists and maps.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => scalar.text(),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Scalar::Null) => "null",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// What a part of the document is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// Keys are texts, each once, in the file's order.
    Map(Vec<(At<String>, Node)>),
}

#[cfg(test)]
mod tests;
