//! How a verdict reads on GitHub: a check run's conclusion, title, summary and annotations.
//!
//! Everything in it may come from a pull request of anyone, so values stand in code spans, which
//! neither link nor mention.

use std::fmt::Write as _;

use super::verdict::{AccessChange, Finding, Verdict};
use crate::{
    github::{Annotation, CheckRun, MAX_SUMMARY, Output},
    policy::{Access, Reach},
};

/// The name of the check run. Branch protections refer to it.
pub(super) const NAME: &str = "Trust Policy Validation";
const VALID: &str = "Valid trust policy.";
const INVALID: &str = "Invalid trust policy.";
const QUEUED: &str = "Waiting for GitHub's rate limit.";
const OUTDATED: &str = "Not checked.";
/// Annotations of one check run. More lines help nobody.
const MAX_ANNOTATIONS: usize = 200;

/// A check run that waits.
pub(super) fn queued(commit: &str) -> CheckRun {
    let summary = "The check runs when enough of the App's hourly quota is left.".to_owned();
    let output = Output { title: QUEUED, summary, annotations: Vec::new() };
    run(commit, "queued", None, output)
}

/// A check that nobody waits for any more.
pub(super) fn outdated(commit: &str) -> CheckRun {
    let summary = "The pull request has another head by now.".to_owned();
    let output = Output { title: OUTDATED, summary, annotations: Vec::new() };
    run(commit, "completed", Some("cancelled"), output)
}

/// A check that could not be made.
pub(super) fn failed(commit: &str, why: &str) -> CheckRun {
    let summary = format!("Failed to validate trust policy.\n\n{}\n", code(why));
    let output = Output { title: INVALID, summary, annotations: Vec::new() };
    run(commit, "completed", Some("failure"), output)
}

/// The check run of a verdict.
pub(super) fn completed(commit: &str, verdict: &Verdict) -> CheckRun {
    let is_valid = verdict.errors.is_empty();
    let title = if is_valid { VALID } else { INVALID };
    let conclusion = if is_valid { "success" } else { "failure" };
    let output = Output { title, summary: summary(verdict), annotations: annotations(verdict) };
    run(commit, "completed", Some(conclusion), output)
}

fn run(
    commit: &str,
    status: &'static str,
    conclusion: Option<&'static str>,
    output: Output,
) -> CheckRun {
    CheckRun {
        name: NAME,
        head_sha: commit.to_owned(),
        external_id: commit.to_owned(),
        status,
        conclusion,
        output,
    }
}

fn annotations(verdict: &Verdict) -> Vec<Annotation> {
    let of = |level: &'static str| {
        move |finding: &Finding| {
            let line = finding.line.unwrap_or(1);
            let fix = finding.fix.as_ref().map(|fix| format!("\n\nSuggested fix: write {fix}"));
            Annotation {
                path: finding.path.clone(),
                start_line: line,
                end_line: line,
                annotation_level: level,
                message: format!("{}{}", finding.text, fix.unwrap_or_default()),
            }
        }
    };
    let errors = verdict.errors.iter().map(of("failure"));
    errors.chain(verdict.warnings.iter().map(of("warning"))).take(MAX_ANNOTATIONS).collect()
}

fn summary(verdict: &Verdict) -> String {
    let mut text = errors(&verdict.errors);
    if verdict.checked.is_empty() && verdict.warnings.is_empty() {
        text.push_str("No trust policy changed.\n");
    }
    if !verdict.warnings.is_empty() {
        text.push_str("### Please check\n\n");
        for finding in &verdict.warnings {
            let _ = writeln!(text, "- {}: {}", place(finding), plain(&finding.text));
        }
        text.push('\n');
    }
    if !verdict.access.is_empty() {
        text.push_str("### Access\n\n| | policy | who | may | on |\n|---|---|---|---|---|\n");
        verdict.access.iter().for_each(|change| text.push_str(&rows(change)));
    } else if !verdict.checked.is_empty() && verdict.errors.is_empty() {
        text.push_str("The access that the policies give does not change.\n");
    }
    cut(text)
}

/// In the form in which the Go service lists errors.
fn errors(errors: &[Finding]) -> String {
    if errors.is_empty() {
        return String::new();
    }
    let count = match errors.len() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    };
    let mut text = format!("Failed to validate trust policy.\n\n{count} occurred:\n");
    for Finding { path, line, text: why, .. } in errors {
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let _ = writeln!(text, "\t* {}: {line}{}", plain(path), plain(why));
    }
    text.push('\n');
    text
}

fn place(finding: &Finding) -> String {
    match finding.line {
        Some(line) => format!("{} line {line}", code(&finding.path)),
        None => code(&finding.path),
    }
}

fn rows(change: &AccessChange) -> String {
    let row = |sign: &str, access: &Access| {
        let who = access.who.iter().map(|(name, value)| format!("{name} {}", code(value)));
        let may = access.permissions.iter();
        let may = may.map(|(name, level)| code(&format!("{name}: {}", level.as_str())));
        let mut on = match &access.reach {
            Reach::Own => "this repository".to_owned(),
            Reach::All => "**every repository** that the installation sees".to_owned(),
            Reach::These(names) => {
                names.iter().map(|name| code(name)).collect::<Vec<_>>().join(" ")
            }
        };
        if let Some(pin) = &access.pin {
            let _ = write!(on, "<br>by App {}", code(pin));
        }
        let join = |parts: Vec<String>| parts.join("<br>");
        format!(
            "| {sign} | {} | {} | {} | {on} |\n",
            code(&change.path),
            join(who.collect()),
            join(may.collect())
        )
    };
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => row("before", before) + &row("after", after),
        (Some(before), None) => row("removed", before),
        (None, Some(after)) => row("added", after),
        (None, None) => String::new(),
    }
}

/// A code span that fits into a table's cell, whatever the text. Its fence is longer than any run
/// of backticks in it.
fn code(text: &str) -> String {
    let text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    let text = text.replace('|', "\\|");
    let longest = text.split(|it| it != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    let needs_space = text.starts_with('`') || text.ends_with('`') || text.is_empty();
    let space = if needs_space { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

/// Text of our own, in which values of the file may stand: nothing in it starts a line, a link, a
/// mention or HTML.
fn plain(text: &str) -> String {
    let text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    [("<", "&lt;"), ("@", "&#64;"), ("](", "]&#40;"), ("://", ":&#47;&#47;"), ("www.", "www&#46;")]
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
}

/// At most what GitHub takes.
fn cut(mut text: String) -> String {
    const MORE: &str = "\n\n… and more";
    if text.len() > MAX_SUMMARY {
        text.truncate(text.floor_char_boundary(MAX_SUMMARY - MORE.len()));
        text.push_str(MORE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_code_spans_whatever_they_are() {
        for (text, span) in [
            ("plain", "`plain`"),
            ("a|b", "`a\\|b`"),
            ("a`b", "``a`b``"),
            ("``", "``` `` ```"),
            ("", "`  `"),
            ("a\nb", "`a b`"),
            ("@octo-org/team <b>", "`@octo-org/team <b>`"),
        ] {
            assert_eq!(code(text), span);
        }
    }

    #[test]
    fn what_the_author_wrote_neither_links_nor_mentions_nor_is_markup() {
        let hostile = "@octo-org/team <img src=x> [x](//e) https://e www.e.com ![x](y)";
        let finding = Finding {
            path: format!(".github/chainguard/{hostile}.sts.yaml"),
            line: None,
            text: format!("test {hostile:?}: no"),
            fix: None,
        };
        let (errors, warnings) = (vec![finding.clone()], vec![finding]);
        let verdict = Verdict { errors, warnings, ..Verdict::default() };
        let summary = completed("a", &verdict).output.summary;
        // What stands in code spans is text.
        let outside: String = summary.split('`').step_by(2).collect();
        for markup in ["@octo", "<img", "](", "://", "www."] {
            assert!(!outside.contains(markup), "{markup}: {outside}");
        }
    }

    #[test]
    fn a_summary_is_not_longer_than_github_takes() {
        let finding = |n: usize| Finding {
            path: format!(".github/chainguard/{n}.sts.yaml"),
            line: Some(1),
            text: "ü".repeat(200),
            fix: None,
        };
        let verdict = Verdict { errors: (0..500).map(finding).collect(), ..Verdict::default() };
        let run = completed("a", &verdict);
        assert!(run.output.summary.len() <= MAX_SUMMARY);
        assert!(run.output.summary.ends_with("… and more"));
        assert_eq!(run.output.annotations.len(), MAX_ANNOTATIONS);
    }
}
