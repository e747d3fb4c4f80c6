//! Slips in conditions that their text alone shows: for hints, when a token does not match, and for
//! warnings, when a file is checked.

/// Without one of these, a pattern is the text itself.
pub(super) const SPECIAL: [char; 11] = ['.', '*', '+', '?', '(', '[', '{', '|', '^', '$', '\\'];

/// A pattern in which `*` stands for any text, as in a glob, with `.*` in its place; `None` if
/// every `*` repeats a `.`, a group or a class. `refs/heads/*` → `refs/heads/.*`.
pub(super) fn without_globs(pattern: &str) -> Option<String> {
    let mut repaired = String::with_capacity(pattern.len() + 4);
    let mut state = State::Start;
    let mut is_glob = false;
    for c in pattern.chars() {
        if c == '*' && matches!(state, State::Start | State::Literal) {
            repaired.push('.');
            is_glob = true;
        }
        repaired.push(c);
        state = state.next(c);
    }
    is_glob.then_some(repaired)
}

/// Where in a pattern the next character stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a pattern, a group or an alternative.
    Start,
    /// After a character that stands for itself.
    Literal,
    /// After `\`.
    Escape,
    /// Inside `[…]`.
    Class,
    Other,
}

impl State {
    fn next(self, c: char) -> Self {
        match (self, c) {
            (Self::Class, ']') | (Self::Escape, _) => Self::Other,
            (Self::Class, _) | (_, '[') => Self::Class,
            (_, '\\') => Self::Escape,
            (_, '(' | '|') => Self::Start,
            (_, c) if c.is_alphanumeric() || "/-_:@".contains(c) => Self::Literal,
            _ => Self::Other,
        }
    }
}

/// Whether a text has a place that a template engine would have filled in.
pub(super) fn is_template(text: &str) -> bool {
    (text.contains("{{") && text.contains("}}")) || text.contains("${") || text.contains("<%")
}

/// Whether an exact value was meant as a pattern: it has characters that no subject, issuer or
/// audience has by itself.
pub(super) fn is_pattern(exact: &str) -> bool {
    ["*", ".+", "\\", "(?", "[0-9", "[a-z", "|"].iter().any(|mark| exact.contains(mark))
        || exact.starts_with('^')
        || exact.ends_with('$')
}

/// Whether a claim's value is a file of a workflow and a ref: `OWNER/REPO/PATH@REF`.
pub(super) fn has_ref_suffix(claim: &str) -> bool {
    matches!(claim, "job_workflow_ref" | "workflow_ref")
}

/// Whether a pattern leaves out the `@REF` at the end of a workflow's file.
pub(super) fn lacks_ref(pattern: &str) -> bool {
    let end = pattern.trim_end_matches(['$', ')']);
    !pattern.contains('@') && ![".*", ".+", "]*", "]+"].iter().any(|any| end.ends_with(any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_after_a_literal_is_a_globs() {
        for (glob, repaired) in [
            ("refs/heads/*", "refs/heads/.*"),
            ("repo:acme/*:ref:refs/tags/.*", "repo:acme/.*:ref:refs/tags/.*"),
            ("acme/*/x-*", "acme/.*/x-.*"),
            ("(main|release-*)", "(main|release-.*)"),
            (r"a\.b*", r"a\.b.*"),
            ("*@example.com", ".*@example.com"),
        ] {
            assert_eq!(without_globs(glob).as_deref(), Some(repaired), "{glob}");
        }
        for pattern in [
            "",
            ".*",
            "x.*y",
            "[a-z/*]*",
            "(?:ab)*",
            r"\d*",
            r"a\*",
            r"x{2}*",
            "refs/heads/.*",
            "[^/]*",
        ] {
            assert_eq!(without_globs(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn templates_are_seen() {
        for text in ["repo:{{REPLACE:X}}:ref", "${repo}", "a/<%= x %>"] {
            assert!(is_template(text), "{text}");
        }
        for text in ["a{2}", "a{1,{2}", "x$", "[{]{1}"] {
            assert!(!is_template(text), "{text}");
        }
    }

    #[test]
    fn a_workflows_file_without_its_ref_is_seen() {
        for pattern in [
            "acme/mono/.github/workflows/x.yaml",
            r"a/b/\.github/workflows/(x|y)\.yaml",
            "^a/b/c.yml$",
        ] {
            assert!(lacks_ref(pattern), "{pattern}");
        }
        for pattern in ["acme/x.yaml@.*", "acme/.*", "acme/x.yaml.+$", "(acme/x.*)", "a/[^ ]+"] {
            assert!(!lacks_ref(pattern), "{pattern}");
        }
    }
}
