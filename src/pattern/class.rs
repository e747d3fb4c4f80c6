//! Character classes and escapes: `[…]`, `\d`, `\p{…}`, `\x{…}`, as Go's `regexp/syntax` reads
//! them.

use super::{PatternError, cursor::Cursor, piece::Piece};
use PatternError::{Malformed, NotSupported};

/// A class in the engine's words, as one may stand inside a bracketed class.
struct Members {
    text: String,
    has_slash: bool,
}

/// The class that has no members.
const NOTHING: &str = r"[^\x00-\x{10FFFF}]";
const INVALID_ESCAPE: PatternError = Malformed(r"this escape does not exist");

/// Reads a class from its `[` to its `]`.
///
/// Inside, `[` stands for itself unless `[:NAME:]` follows, and `&&`, `--` and `~~` have no
/// meaning.
pub(super) fn bracketed(cursor: &mut Cursor<'_>, fold: bool) -> Result<Piece, PatternError> {
    cursor.eat("[");
    let negated = cursor.eat("^");
    let mut all = Members { text: String::new(), has_slash: false };
    let mut first = true;
    while first || !cursor.starts_with("]") {
        first = false;
        let members = match named(cursor)? {
            Some(members) => members,
            None => match escaped_class(cursor)? {
                Some(members) => members,
                None => range(cursor)?,
            },
        };
        all.text.push_str(&members.text);
        all.has_slash |= members.has_slash;
    }
    cursor.eat("]");
    let text = format!("[{}{}]", if negated { "^" } else { "" }, all.text);
    Ok(Piece::class(in_any_case(text, fold), all.has_slash != negated))
}

/// Reads `\d`, `\s`, `\w`, `\pL`, `\p{…}` or a negation of one, if that is next.
pub(super) fn escaped(cursor: &mut Cursor<'_>, fold: bool) -> Result<Option<Piece>, PatternError> {
    let members = escaped_class(cursor)?;
    Ok(members.map(|members| {
        Piece::class(in_any_case(format!("[{}]", members.text), fold), members.has_slash)
    }))
}

/// A class without members: what a surrogate, which no text has, stands for.
pub(super) fn never() -> Piece {
    Piece::class(NOTHING.to_owned(), false)
}

/// The engine folds the members of a class first and negates it then, as Go does.
fn in_any_case(class: String, fold: bool) -> String {
    if fold { format!("(?i:{class})") } else { class }
}

/// `[:alpha:]` or `[:^alpha:]`. Whatever stands between `[:` and the next `:]` has to be a name.
fn named(cursor: &mut Cursor<'_>) -> Result<Option<Members>, PatternError> {
    let Some((name, rest)) =
        cursor.rest().strip_prefix("[:").and_then(|rest| rest.split_once(":]"))
    else {
        return Ok(None);
    };
    cursor.set_rest(rest);
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let members = match name {
        "alnum" => "0-9A-Za-z",
        "alpha" => "A-Za-z",
        "ascii" => r"\x00-\x7F",
        "blank" => r"\t\x20",
        "cntrl" => r"\x00-\x1F\x7F",
        "digit" => "0-9",
        "graph" => r"\x21-\x7E",
        "lower" => "a-z",
        "print" => r"\x20-\x7E",
        "punct" => r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E",
        "space" => r"\t-\r\x20",
        "upper" => "A-Z",
        "word" => "0-9A-Z_a-z",
        "xdigit" => "0-9A-Fa-f",
        _ => return Err(Malformed("there is no class of this name")),
    };
    let has_slash = matches!(name, "ascii" | "graph" | "print" | "punct");
    Ok(Some(Members { text: nested(members, negated), has_slash: has_slash != negated }))
}

/// `\d`, `\s` and `\w` are ASCII, and `\s` is without `\v`.
fn escaped_class(cursor: &mut Cursor<'_>) -> Result<Option<Members>, PatternError> {
    let mut chars = cursor.rest().chars();
    let (Some('\\'), Some(letter)) = (chars.next(), chars.next()) else { return Ok(None) };
    let members = match letter.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r"\t\n\x0C\r\x20",
        'w' => "0-9A-Z_a-z",
        'p' => {
            cursor.set_rest(chars.as_str());
            return unicode(cursor, letter == 'P').map(Some);
        }
        _ => return Ok(None),
    };
    cursor.set_rest(chars.as_str());
    let negated = letter.is_ascii_uppercase();
    Ok(Some(Members { text: nested(members, negated), has_slash: negated }))
}

fn nested(members: &str, negated: bool) -> String {
    if negated { format!("[^{members}]") } else { members.to_owned() }
}

/// The rest of `\pL`, `\p{Greek}`, `\p{^Greek}` or `\P{…}`.
fn unicode(cursor: &mut Cursor<'_>, negated: bool) -> Result<Members, PatternError> {
    const UNKNOWN: PatternError = NotSupported("there is no Unicode class of this name");
    let rest = cursor.rest();
    let name = match rest.strip_prefix('{').map(|inner| inner.split_once('}')) {
        Some(Some((name, rest))) => {
            cursor.set_rest(rest);
            name
        }
        Some(None) => return Err(UNKNOWN),
        None => {
            cursor.next();
            rest.get(..rest.len() - cursor.rest().len()).unwrap_or_default()
        }
    };
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, !negated),
        None => (name, negated),
    };
    let name = canonical(name);
    let property = match &*name {
        "Any" | "Assigned" | "Ascii" => name.clone(),
        // Text has no surrogates.
        "Cs" | "Surrogate" => {
            let text = if negated { r"\x00-\x{10FFFF}" } else { NOTHING };
            return Ok(Members { text: text.to_owned(), has_slash: negated });
        }
        _ if CATEGORIES.split(' ').any(|known| known == name) => format!("gc={name}"),
        _ if SCRIPTS.split(' ').any(|known| known == name) => format!("sc={name}"),
        _ => return Err(UNKNOWN),
    };
    let has_slash = SLASH_CLASSES.contains(&&*name);
    let letter = if negated { 'P' } else { 'p' };
    Ok(Members { text: format!("\\{letter}{{{property}}}"), has_slash: has_slash != negated })
}

/// Go's key for a name: an uppercase letter, then lowercase ones, without `_`, `-` and blanks.
fn canonical(name: &str) -> String {
    let mut letters = name.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters.map(|c| c.to_ascii_lowercase())).collect()
}

/// A character, or a range of them.
fn range(cursor: &mut Cursor<'_>) -> Result<Members, PatternError> {
    let low = class_char(cursor)?;
    let mut high = low;
    let is_range = cursor
        .rest()
        .strip_prefix('-')
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(']'));
    if is_range {
        cursor.eat("-");
        high = class_char(cursor)?;
        if high < low {
            return Err(Malformed("a range of a class ends before it begins"));
        }
    }
    let has_slash = (low..=high).contains(&u32::from('/'));
    Ok(Members { text: range_text(low, high), has_slash })
}

/// Surrogates are left out: text has none.
fn range_text(low: u32, high: u32) -> String {
    let low = if (0xD800..=0xDFFF).contains(&low) { 0xE000 } else { low };
    let high = if (0xD800..=0xDFFF).contains(&high) { 0xD7FF } else { high };
    if high < low { NOTHING.to_owned() } else { format!(r"\x{{{low:X}}}-\x{{{high:X}}}") }
}

fn class_char(cursor: &mut Cursor<'_>) -> Result<u32, PatternError> {
    match cursor.rest().chars().next() {
        None => Err(Malformed("a `[` has no `]`")),
        Some('\\') => escape(cursor),
        Some(c) => {
            cursor.next();
            Ok(c.into())
        }
    }
}

/// Reads an escape that stands for one character: any ASCII punctuation, a C escape, octal or
/// hexadecimal digits.
pub(super) fn escape(cursor: &mut Cursor<'_>) -> Result<u32, PatternError> {
    cursor.eat("\\");
    let Some(c) = cursor.next() else { return Err(Malformed(r"a `\` stands at the end")) };
    match c {
        '1'..='7' if !cursor.rest().starts_with(|c| matches!(c, '0'..='7')) => {
            Err(NotSupported("back-references are not supported"))
        }
        '0'..='7' => {
            let mut value = c.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let Some(digit) = cursor.rest().chars().next().and_then(|c| c.to_digit(8)) else {
                    break;
                };
                cursor.next();
                value = value * 8 + digit;
            }
            Ok(value)
        }
        'x' => hexadecimal(cursor).ok_or(INVALID_ESCAPE),
        'a' => Ok(0x07),
        'f' => Ok(0x0C),
        'n' => Ok(0x0A),
        'r' => Ok(0x0D),
        't' => Ok(0x09),
        'v' => Ok(0x0B),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c.into()),
        _ => Err(INVALID_ESCAPE),
    }
}

/// Two digits, or any number of them in braces.
fn hexadecimal(cursor: &mut Cursor<'_>) -> Option<u32> {
    if !cursor.eat("{") {
        let high = cursor.next()?.to_digit(16)?;
        let low = cursor.next()?.to_digit(16)?;
        return Some(high * 16 + low);
    }
    let (digits, rest) = cursor.rest().split_once('}')?;
    let value = digits.chars().try_fold(0, |value: u32, c| {
        let value = value * 16 + c.to_digit(16)?;
        (value <= u32::from(char::MAX)).then_some(value)
    })?;
    cursor.set_rest(rest);
    (!digits.is_empty()).then_some(value)
}

/// Classes that have `/` among their members.
const SLASH_CLASSES: &[&str] =
    &["Any", "Ascii", "Assigned", "Common", "Otherpunctuation", "P", "Po", "Punct", "Punctuation"];

/// General categories and their long names, in canonical spelling, as far as Go has them.
const CATEGORIES: &str = "\
    C Casedletter Cc Cf Closepunctuation Cn Cntrl Co Combiningmark Connectorpunctuation Control \
    Currencysymbol Dashpunctuation Decimalnumber Digit Enclosingmark Finalpunctuation Format \
    Initialpunctuation L Lc Letter Letternumber Lineseparator Ll Lm Lo Lowercaseletter Lt Lu M Mark \
    Mathsymbol Mc Me Mn Modifierletter Modifiersymbol N Nd Nl No Nonspacingmark Number Openpunctuation \
    Other Otherletter Othernumber Otherpunctuation Othersymbol P Paragraphseparator Pc Pd Pe Pf Pi Po \
    Privateuse Ps Punct Punctuation S Sc Separator Sk Sm So Spaceseparator Spacingmark Symbol \
    Titlecaseletter Unassigned Uppercaseletter Z Zl Zp Zs";

/// Scripts that Go finds by their canonical name. It finds none whose name has several words.
const SCRIPTS: &str = "\
    Adlam Ahom Arabic Armenian Avestan Balinese Bamum Batak Bengali Bhaiksuki Bopomofo Brahmi Braille \
    Buginese Buhid Carian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot Cyrillic \
    Deseret Devanagari Dogra Duployan Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek \
    Gujarati Gurmukhi Han Hangul Hanunoo Hatran Hebrew Hiragana Inherited Javanese Kaithi Kannada \
    Katakana Kawi Kharoshthi Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Lisu Lycian Lydian Mahajani \
    Makasar Malayalam Mandaic Manichaean Marchen Medefaidrin Miao Modi Mongolian Mro Multani Myanmar \
    Nabataean Nandinagari Newa Nko Nushu Ogham Oriya Osage Osmanya Palmyrene Phoenician Rejang Runic \
    Samaritan Saurashtra Sharada Shavian Siddham Sinhala Sogdian Soyombo Sundanese Syriac Tagalog \
    Tagbanwa Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai \
    Vithkuqi Wancho Yezidi Yi";

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `/` is in the class that is read, to the engine and to the rules about it.
    fn has_slash(pattern: &str) -> Option<(bool, bool)> {
        let piece = escaped(&mut Cursor::new(pattern), false).ok()??;
        let hir = regex_syntax::parse(&format!(r"[{}&&/]", piece.text)).unwrap();
        Some((hir.properties().minimum_len().is_some(), piece.slashes.by_class))
    }

    #[test]
    fn every_unicode_class_of_go_is_known_and_its_slash_too() {
        for name in ["Any", "Assigned", "ASCII"]
            .into_iter()
            .chain(CATEGORIES.split(' '))
            .chain(SCRIPTS.split(' '))
        {
            for pattern in
                [format!(r"\p{{{name}}}"), format!(r"\P{{{name}}}"), format!(r"\p{{^{name}}}")]
            {
                let (found, noted) = has_slash(&pattern).unwrap_or_else(|| panic!("{pattern}"));
                assert_eq!(found, noted, "{pattern}");
            }
        }
    }

    #[test]
    fn names_are_found_in_any_spelling_and_others_are_not() {
        for name in [
            "Greek",
            "greek",
            "GREEK",
            "Uppercase_Letter",
            "uppercaseletter",
            "upper-case letter",
            "Nko",
        ] {
            assert!(has_slash(&format!(r"\p{{{name}}}")).is_some(), "{name}");
        }
        for name in
            ["", "^", "Old_Italic", "Garay", "Grek", "Alphabetic", "sc=Greek", "L&", "IsGreek"]
        {
            assert!(has_slash(&format!(r"\p{{{name}}}")).is_none(), "{name}");
        }
    }
}
