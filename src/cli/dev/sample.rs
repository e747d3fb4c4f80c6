//! A text that a pattern matches, so that a token can be made up for a policy with patterns.

use regex_syntax::hir::{Class, Hir, HirKind};

/// A short text that `pattern` matches as a whole, if it is simple enough to tell; whoever uses it
/// finds out by matching.
pub(super) fn matching(pattern: &str) -> Option<String> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut text = String::new();
    write(&hir, &mut text)?;
    Some(text)
}

fn write(hir: &Hir, text: &mut String) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => text.push(member(class)?),
        // Once rather than not at all: an empty subject is none.
        HirKind::Repetition(repetition) => {
            let times = repetition.min.max(1).min(repetition.max.unwrap_or(u32::MAX));
            (0..times).try_for_each(|_| write(&repetition.sub, text))?;
        }
        HirKind::Capture(capture) => write(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, text))?,
        HirKind::Alternation(choices) => write(choices.first()?, text)?,
    }
    (text.len() <= 1024).then_some(())
}

/// A letter or digit of the class if it has one, else its first printable character.
fn member(class: &Class) -> Option<char> {
    let usual = ('a'..='z').chain('0'..='9').chain('A'..='Z').chain('!'..='~');
    let has = |c: char| match class {
        Class::Unicode(class) => {
            class.ranges().iter().any(|range| range.start() <= c && c <= range.end())
        }
        Class::Bytes(class) => class
            .ranges()
            .iter()
            .any(|range| char::from(range.start()) <= c && c <= char::from(range.end())),
    };
    usual.into_iter().find(|c| has(*c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_matches_its_pattern() {
        let cases = [
            (
                r"repo:octo-org/hello:ref:refs/heads/(main|release)",
                "repo:octo-org/hello:ref:refs/heads/main",
            ),
            (r".*@chainguard\.dev", "a@chainguard.dev"),
            (r"[0-9]+", "0"),
            (r"production-.*", "production-a"),
            (r"v\d{3}(?:-rc)?", "v000-rc"),
            (r"^exact$", "exact"),
        ];
        for (pattern, sample) in cases {
            assert_eq!(matching(pattern).as_deref(), Some(sample), "{pattern}");
        }
    }

    #[test]
    fn what_has_no_short_sample_has_none() {
        assert_eq!(matching("a{2000}"), None);
        assert_eq!(matching("("), None);
    }
}
