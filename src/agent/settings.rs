//! The agent's file: several tokens from one server.
//!
//! Strict YAML. Relative paths start at the file's own folder. What the file leaves out, the
//! command line or the environment may say, except about a single token.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Command, Mode};
use crate::{
    client::{Server, Target, ambient::SourceKind},
    name::Audience,
    yaml::{self, At, Invalid},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `tokens`")]
struct Document {
    server: Option<At<String>>,
    audience: Option<At<String>>,
    source: Option<At<String>>,
    token_file: Option<At<String>>,
    tokens: At<Vec<At<Entry>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `scope`, `identity` and `out`")]
struct Entry {
    scope: At<String>,
    identity: At<String>,
    permissions: Option<At<BTreeMap<String, String>>>,
    repositories: Option<At<Vec<String>>>,
    out: At<String>,
    mode: Option<At<String>>,
    audience: Option<At<String>>,
    token_file: Option<At<String>>,
    on_renewal: Option<At<Vec<String>>>,
}

/// What the file says.
#[derive(Debug, Clone)]
pub struct File {
    /// Which server.
    pub server: Option<Server>,
    /// What identities are asked to say in `aud`, where a token has none of its own.
    pub audience: Option<Audience>,
    /// Where identities come from, where a token names no file.
    pub source: Option<SourceKind>,
    /// The file that holds the identity, likewise.
    pub token_file: Option<PathBuf>,
    /// At least one, each with a file of its own.
    pub tokens: Vec<FileToken>,
}

/// One token as the file has it.
#[derive(Debug, Clone)]
pub struct FileToken {
    /// What it is for, and how much of that.
    pub target: Target,
    /// Its file.
    pub out: PathBuf,
    /// Who may read it.
    pub mode: Mode,
    /// What the identity is asked to say in `aud`.
    pub audience: Option<Audience>,
    /// The file that holds the identity.
    pub token_file: Option<PathBuf>,
    /// What is run when the file holds a new token.
    pub on_renewal: Option<Command>,
}

impl File {
    /// Reads the file's text; `folder` is where the file is.
    ///
    /// # Errors
    /// The first error, with its place.
    pub fn parse(bytes: &[u8], folder: &Path) -> Result<Self, Invalid> {
        let document: Document = yaml::load(bytes)?;
        let mut tokens: Vec<FileToken> = Vec::new();
        for entry in &document.tokens.value {
            let token = token(&entry.value, folder)?;
            if tokens.iter().any(|other| other.out == token.out) {
                return Err(entry.value.out.refuse("another token is kept in this file"));
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Err(document.tokens.refuse("`tokens` is not empty"));
        }
        if let (Some(_), Some(file)) = (&document.source, &document.token_file) {
            return Err(file.refuse("`source` and `token_file` exclude each other"));
        }
        Ok(Self {
            server: optional(document.server.as_ref(), Server::parse)?,
            audience: optional(document.audience.as_ref(), str::parse)?,
            source: optional(document.source.as_ref(), source)?,
            token_file: document
                .token_file
                .as_ref()
                .map(|path| self::path(path, folder))
                .transpose()?,
            tokens,
        })
    }
}

fn token(entry: &Entry, folder: &Path) -> Result<FileToken, Invalid> {
    let command = |words: &At<Vec<String>>| {
        Command::new(words.value.iter().cloned()).map_err(|e| words.refuse(e.to_string()))
    };
    Ok(FileToken {
        target: target(entry)?,
        out: path(&entry.out, folder)?,
        mode: optional(entry.mode.as_ref(), str::parse)?.unwrap_or_default(),
        audience: optional(entry.audience.as_ref(), str::parse)?,
        token_file: entry.token_file.as_ref().map(|file| path(file, folder)).transpose()?,
        on_renewal: entry.on_renewal.as_ref().map(command).transpose()?,
    })
}

fn target(entry: &Entry) -> Result<Target, Invalid> {
    let mut target =
        Target::new(parsed(&entry.scope, str::parse)?, parsed(&entry.identity, str::parse)?);
    if let Some(list) = &entry.repositories {
        let names = list.value.iter().map(String::as_str);
        target = target.with_repositories(names).map_err(|error| list.refuse(error.to_string()))?;
        if list.value.is_empty() {
            return Err(list.refuse("expected at least one repository"));
        }
    }
    if let Some(map) = &entry.permissions {
        let entries: Vec<_> =
            map.value.iter().map(|(name, level)| format!("{name}:{level}")).collect();
        target = target
            .with_permissions(entries.iter().map(String::as_str))
            .map_err(|error| map.refuse(error.to_string()))?;
        if map.value.is_empty() {
            return Err(map.refuse("expected at least one permission"));
        }
    }
    Ok(target)
}

fn parsed<T, E: std::fmt::Display>(
    text: &At<String>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Invalid> {
    parse(&text.value).map_err(|wanted| text.refuse(wanted.to_string()))
}

fn optional<T, E: std::fmt::Display>(
    text: Option<&At<String>>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, Invalid> {
    text.map(|text| parsed(text, parse)).transpose()
}

fn source(name: &str) -> Result<SourceKind, String> {
    let names = || SourceKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    SourceKind::named(name).ok_or_else(|| format!("one of {} is expected here", names()))
}

fn path(text: &At<String>, folder: &Path) -> Result<PathBuf, Invalid> {
    if text.value.is_empty() {
        Err(text.refuse("a path is not empty"))
    } else {
        Ok(folder.join(&text.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(text.as_bytes(), Path::new("/etc/agent")).map_err(|error| error.to_string())
    }

    const ONE: &str = "tokens:\n  - scope: octo-org/hello\n    identity: ci\n    out: hello\n";

    #[test]
    fn a_token_needs_scope_identity_and_file() {
        let file = parse(ONE).unwrap();
        let [token] = &file.tokens[..] else { panic!("{file:?}") };
        assert_eq!(
            (token.target.scope().to_string(), token.target.identity().as_str()),
            ("octo-org/hello".into(), "ci")
        );
        assert_eq!(
            (token.out.as_path(), token.mode),
            (Path::new("/etc/agent/hello"), Mode::default())
        );
        assert!(file.server.is_none() && file.token_file.is_none() && token.on_renewal.is_none());
    }

    #[test]
    fn everything_can_be_said() {
        let file = parse(
            "server: https://sts.example.com\naudience: sts.example.com\ntoken_file: id/token\n\
             tokens:\n  - scope: octo-org\n    identity: deploy/blue\n    out: /tokens/org\n    mode: \"0640\"\n    \
             audience: other\n    token_file: /id\n    on_renewal: [reload, --soft]\n",
        )
        .unwrap();
        assert_eq!(file.server.unwrap().host(), "sts.example.com");
        assert_eq!(file.token_file.as_deref(), Some(Path::new("/etc/agent/id/token")));
        let token = &file.tokens[0];
        assert_eq!(
            (token.out.as_path(), token.mode),
            (Path::new("/tokens/org"), "640".parse().unwrap())
        );
        assert_eq!(token.on_renewal, Command::new(["reload".to_owned(), "--soft".to_owned()]).ok());
        assert_eq!(token.token_file.as_deref(), Some(Path::new("/id")));
    }

    #[test]
    fn a_token_can_be_for_less_than_the_policy_grants() {
        let less =
            "permissions: {contents: read, issues: write}\n    repositories: [a, octo-org/b]";
        let text = ONE.replace("octo-org/hello", "octo-org").replace("out: hello", less);
        let file = parse(&format!("{text}    out: hello\n")).unwrap();
        let expected = Target::new("octo-org".parse().unwrap(), "ci".parse().unwrap())
            .with_repositories(["a", "b"])
            .and_then(|target| target.with_permissions(["contents:read", "issues:write"]));
        assert_eq!(Ok(&file.tokens[0].target), expected.as_ref());
    }

    #[test]
    fn each_error_names_its_place() {
        let with = |line: &str| format!("{ONE}    {line}\n");
        let cases = [
            ("tokens: []\n".to_owned(), "line 1, column 9: `tokens` is not empty"),
            ("server: https://a.example\n".to_owned(), "line 1, column 1: `tokens` is missing"),
            (with("mode: \"0644\""), "line 5, column 11: a mode is 0600"),
            (with("mode: 0640"), "line 5, column 11: YAML readers disagree"),
            (with("on_renewal: []"), "line 5, column 17: a command is a list"),
            (with("on_renewal: reload now"), "line 5, column 17: "),
            (with("permissions: {}"), "line 5, column 18: expected at least one permission"),
            (with("permissions: {contents: all}"), "line 5, column 18: expected NAME:LEVEL"),
            (with("permissions: [contents]"), "line 5, column 18: "),
            (with("repositories: [a]"), "line 5, column 19: repositories narrow an organization's"),
            (
                with("repositories: []").replace("octo-org/hello", "octo-org"),
                "line 5, column 19: expected at least one repository",
            ),
            (
                with("repositories: [other/a]").replace("octo-org/hello", "octo-org"),
                "line 5, column 19: expected repositories of the scope's owner",
            ),
            (with("command: [x]"), "line 5, column 5: unknown key"),
            (with("token_file: \"\""), "line 5, column 17: a path is not empty"),
            (format!("server: ftp://a\n{ONE}"), "line 1, column 9: the server is a URL"),
            (format!("source: file\ntoken_file: x\n{ONE}"), "line 2, column 13: `source` and"),
            (format!("source: moon\n{ONE}"), "line 1, column 9: one of file, "),
            (ONE.replace("octo-org/hello", "a/b/c"), "line 2, column 12: "),
            (ONE.replace("ci", "../ci"), "line 3, column 15: "),
            (
                format!("{ONE}  - scope: octo-org\n    identity: ci\n    out: ./hello\n"),
                "line 7, column 10: another token",
            ),
        ];
        for (text, told) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(told), "{text}\n{error}");
        }
    }
}
