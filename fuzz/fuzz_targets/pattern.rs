//! Patterns: held to the whole text, and every way to match a `/` is seen. The oracle looks at the
//! compiled form (HIR), while the product looks at the syntax tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use octo_sts::pattern::fuzzing::compile;
use octo_sts_fuzz::seed;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

fn seeds() {
    let patterns = include_str!("../../tests/fixtures/re2/patterns.jsonl").lines();
    let patterns = patterns.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    seed(
        "pattern",
        patterns.map(|line| format!("{}\nrefs/heads/main", line["pattern"].as_str().unwrap())),
    );
}

fuzz_target!(init: seeds(), |input: &str| {
    let (pattern, text) = input.split_once('\n').unwrap_or((input, "main"));
    let Some((regex, by_class, optional, is_match)) = compile(pattern) else { return };
    is_match(text);
    // Both ends are anchored, so a match is the whole text.
    let hir = regex_syntax::ParserBuilder::new().nest_limit(1000).build().parse(&regex).unwrap();
    let properties = hir.properties();
    assert!(properties.look_set_prefix().contains(Look::Start), "{regex}");
    assert!(properties.look_set_suffix().contains(Look::End), "{regex}");
    let seen = Slashes::of(&hir, false);
    assert!(!seen.by_class || by_class || optional, "{regex}: a class");
    assert!(!seen.optional || by_class || optional, "{regex}: an optional part");
});

#[derive(Default)]
struct Slashes {
    by_class: bool,
    optional: bool,
}

impl Slashes {
    fn of(hir: &Hir, loose: bool) -> Self {
        let all = |parts: &[Hir], loose| {
            parts.iter().fold(Self::default(), |seen, part| {
                let here = Self::of(part, loose);
                Self {
                    by_class: seen.by_class | here.by_class,
                    optional: seen.optional | here.optional,
                }
            })
        };
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::default(),
            HirKind::Literal(literal) => {
                Self { optional: loose && literal.0.contains(&b'/'), ..Self::default() }
            }
            HirKind::Class(Class::Unicode(class)) => {
                let by_class =
                    class.iter().any(|range| (range.start()..=range.end()).contains(&'/'));
                Self { by_class, ..Self::default() }
            }
            HirKind::Class(Class::Bytes(_)) => panic!("a pattern matches characters"),
            HirKind::Repetition(repetition) => Self::of(&repetition.sub, true),
            HirKind::Capture(capture) => Self::of(&capture.sub, loose),
            HirKind::Concat(parts) => all(parts, loose),
            HirKind::Alternation(parts) => all(parts, true),
        }
    }
}
