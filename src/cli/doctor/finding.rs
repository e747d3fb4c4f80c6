//! What a check found, and how it is reported.

use std::{
    fmt::Display,
    io::{self, Write},
};

use serde::Serialize;

use super::super::Exit;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Perhaps not what was meant; exchanges can be served.
    Warn,
    /// Exchanges, or some of them, cannot be served; the program ends with this code.
    Fail(Exit),
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail(_) => "fail",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    level: Level,
    what: String,
    words: String,
    todo: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(what: impl Display, words: impl Display) -> Self {
        Self { level: Level::Ok, what: line(what), words: line(words), todo: None }
    }

    /// Something to think about.
    pub(super) fn warn(what: impl Display, words: impl Display, todo: impl Display) -> Self {
        Self { level: Level::Warn, todo: Some(line(todo)), ..Self::ok(what, words) }
    }

    /// Something to correct.
    pub(super) fn fail(
        exit: Exit,
        what: impl Display,
        words: impl Display,
        todo: impl Display,
    ) -> Self {
        Self { level: Level::Fail(exit), ..Self::warn(what, words, todo) }
    }

    /// The same, but no reason to end otherwise than with 0.
    pub(super) fn no_worse_than_a_warning(self) -> Self {
        let level = if self.level == Level::Ok { Level::Ok } else { Level::Warn };
        Self { level, ..self }
    }
}

/// On one line: some of it GitHub or an issuer wrote.
fn line(text: impl Display) -> String {
    text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Serialize)]
struct Json<'a> {
    level: &'static str,
    what: &'a str,
    words: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<&'a str>,
}

/// All findings. As text, each is printed immediately.
pub(super) struct Report {
    as_json: bool,
    findings: Vec<Finding>,
}

/// Which code wins where several things are wrong: what has to be mended here comes first.
const GRAVEST_FIRST: [Exit; 4] = [Exit::Usage, Exit::Refused, Exit::Unavailable, Exit::Internal];

impl Report {
    pub(super) fn new(as_json: bool) -> Self {
        Self { as_json, findings: Vec::new() }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if !self.as_json {
            let Finding { level, what, words, todo } = &finding;
            print(format_args!("{:4}  {what}  {words}", level.as_str()));
            if let Some(todo) = todo {
                print(format_args!("      to do: {todo}"));
            }
        }
        self.findings.push(finding);
    }

    /// The end: the code that the findings come to.
    pub(super) fn finish(self) -> Exit {
        let exit = self.exit();
        if self.as_json {
            let told: Vec<_> = self.findings.iter().map(Finding::to_json).collect();
            print(serde_json::json!({ "findings": told, "exit": exit.code() }));
        }
        exit
    }

    fn exit(&self) -> Exit {
        let is_found =
            |exit: &Exit| self.findings.iter().any(|finding| finding.level == Level::Fail(*exit));
        GRAVEST_FIRST.into_iter().find(is_found).unwrap_or(Exit::Done)
    }
}

impl Finding {
    fn to_json(&self) -> Json<'_> {
        Json {
            level: self.level.as_str(),
            what: &self.what,
            words: &self.words,
            todo: self.todo.as_deref(),
        }
    }
}

/// Nobody has to read it: a closed stdout is no error.
fn print(text: impl Display) {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_mended_here_decides_how_it_ends() {
        let end =
            |findings: &[Finding]| Report { as_json: false, findings: findings.to_vec() }.exit();
        let fail = |exit| Finding::fail(exit, "a", "b", "c");
        let (ok, warn) = (Finding::ok("a", "b"), Finding::warn("a", "b", "c"));
        assert_eq!(end(&[ok.clone(), warn]), Exit::Done);
        assert_eq!(end(&[fail(Exit::Unavailable), ok]), Exit::Unavailable);
        assert_eq!(end(&[fail(Exit::Unavailable), fail(Exit::Refused)]), Exit::Refused);
        assert_eq!(end(&[fail(Exit::Refused), fail(Exit::Usage)]), Exit::Usage);
        assert_eq!(end(&[fail(Exit::Usage).no_worse_than_a_warning()]), Exit::Done);
    }

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        assert_eq!(Finding::ok("a", "b\nfail  c\u{1b}[0m").words, "b fail  c [0m");
    }
}
