//! Strict YAML: a text that could be read in two ways is refused.
//!
//! A trust policy decides who gets a token, so this loader refuses what others pass over: unknown
//! and duplicate keys, several documents, merge keys, tags, and whatever YAML 1.1 and 1.2, or two
//! programs, read differently. What is accepted, Go's parser reads in the same way. It builds a small tree from the parser's events, since
//! only there are a scalar's style and place both known, and then hands the tree to serde.
//! An error says where and which rule, and never repeats the file's text: who may see where a
//! policy is broken need not be who may read it.

mod de;
mod scalar;
mod source;
mod tree;

use std::{borrow::Cow, fmt};

use serde::{Deserialize, de::DeserializeOwned};

pub(crate) use de::MARKED;
use scalar::Scalar;
use tree::LetterKeys;

/// The largest file that is read.
pub(crate) const MOST_BYTES: usize = 64 * 1024;

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
    if bytes.len() > MOST_BYTES {
        return Err(Invalid::file("the file is larger than 64 KiB"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Invalid::file("the file is not UTF-8"))?;
    source::check(text)?;
    let root = tree::parse(text, letters)?;
    if matches!(root.value, Value::Scalar(Scalar::Null)) {
        return Err(Invalid::file("the file is empty"));
    }
    T::deserialize(&root)
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
}

impl Invalid {
    /// A rule broken by the file as a whole.
    pub(crate) fn file(rule: impl Into<Cow<'static, str>>) -> Self {
        Self { at: None, rule: rule.into() }
    }

    /// A rule broken at a place.
    pub(crate) fn at(at: Mark, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { at: Some(at), rule: rule.into() }
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
        Self { at: self.at.or(Some(mark)), rule: self.rule }
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

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut parts: A) -> Result<At<T>, A::Error> {
                let (Some(line), Some(column), Some(value)) =
                    (parts.next_element()?, parts.next_element()?, parts.next_element()?)
                else {
                    return Err(serde::de::Error::custom("only the strict YAML loader knows places"));
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
struct Node {
    mark: Mark,
    value: Value,
}

/// What a part of the document is.
#[derive(Debug, Clone)]
enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// Keys are texts, each once, in the file's order.
    Map(Vec<(At<String>, Node)>),
}

#[cfg(test)]
mod tests;
