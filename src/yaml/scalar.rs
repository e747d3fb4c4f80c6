//! What a scalar says, in words that every YAML version agrees on.
//!
//! YAML 1.1 and 1.2 give types to plain scalars, and not the same ones: `no` is a boolean to one
//! and a text to the other, `010` is eight or ten. Those that all read alike are taken, the rest
//! must be quoted.

use std::sync::LazyLock;

use crate::pattern::Pattern;

/// A scalar's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    /// Unquoted `true` or `false`.
    Bool(bool),
    /// Unquoted `0` or `-?[1-9][0-9]*`, of any length, as written.
    Integer(String),
    /// Any other text.
    Text(String),
}

/// Why a plain scalar is refused.
pub(super) const AMBIGUOUS: &str = "YAML readers disagree on this unquoted value (a number, date, boolean or key to some); put it in quotes";

impl Scalar {
    /// What an unquoted scalar means, or `None` if that depends on the reader.
    pub(super) fn plain(text: &str) -> Option<Self> {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Some(Self::Null),
            "true" => Some(Self::Bool(true)),
            "false" => Some(Self::Bool(false)),
            _ if is_integer(text) => Some(Self::Integer(text.into())),
            // Inside `[…]` and `{…}`, libyaml and Go take a `?` for the mark of a key without a
            // blank behind it.
            _ if text.starts_with('?') || is_typed(text) => None,
            _ => Some(Self::Text(text.into())),
        }
    }

    /// The text that this scalar stands for where a text is wanted.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Null => None,
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Integer(text) | Self::Text(text) => Some(text),
        }
    }
}

/// `0` or `-?[1-9][0-9]*`: what every reader takes for the same integer.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text == "0"
        || (digits.bytes().all(|b| b.is_ascii_digit())
            && matches!(digits.bytes().next(), Some(b'1'..=b'9')))
}

/// Whether a YAML version, or a reader of one, gives the text a type.
fn is_typed(text: &str) -> bool {
    // Go takes underscores out of numbers wherever they stand behind the first character.
    let digits = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    WORD.is_match(text) || digits && NUMBER.is_match(&text.replace('_', ""))
}

/// What the type repository of YAML 1.1 or the core schema of YAML 1.2 gives a type, but for
/// numbers.
static WORD: LazyLock<Pattern> = LazyLock::new(|| {
    compile(&[
        // booleans
        "y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        // dates and times
        r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?)?",
        // merge and default values
        "<<|=",
    ])
});

/// Numbers without their underscores, with a base in either case.
static NUMBER: LazyLock<Pattern> = LazyLock::new(|| {
    compile(&[
        // integers: binary, octal, hexadecimal, base 60
        "[-+]?0[bB][01]+|[-+]?0[oO][0-7]+|[-+]?0[xX][0-9A-Fa-f]+|[-+]?[0-9]+(:[0-5]?[0-9])+",
        // integers and floats: decimal, base 60, the special ones
        r"[-+]?([0-9]+\.?|[0-9]*\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+(:[0-5]?[0-9])+\.[0-9]*",
        r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ])
});

fn compile(alternatives: &[&str]) -> Pattern {
    #[expect(clippy::expect_used, reason = "constants; every test of this module compiles them")]
    Pattern::compile(&alternatives.join("|")).expect("a constant pattern")
}
