//! What is to be said about changed policy files: pure, from their bytes before and after.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::payload::FOLDER;
use crate::{
    events::ChangeAction,
    name::{Owner, PolicyName, RepoName, Scope},
    policy::{
        Access, Home, Permissions, Policy, PolicyKind, Rules, TrustedIssuers,
        examples::{ExampleContext, Examples},
        review::{Surroundings, review},
    },
    yaml::Errors,
};

pub(super) const SUFFIX: &str = ".sts.yaml";
pub(super) const EXAMPLES: &str = ".sts.test.yaml";
pub(super) const LIST: &str = "trusted-token-issuers.yaml";

/// What stands at a path at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing.
    Absent,
    /// A file.
    File(Bytes),
    /// Something that is not a regular file, or is too large for one.
    NotAFile,
}

/// A file that differs between two commits.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) path: String,
    pub(super) before: Content,
    pub(super) after: Content,
}

/// The repository whose files changed, and the server's names.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// `STS_DOMAIN`, if this process knows it.
    pub(super) domain: Option<String>,
    /// The host of the configured GitHub.
    pub(super) github_host: String,
    pub(super) owner: Owner,
    pub(super) repo: RepoName,
    /// The owner's policy repository.
    pub(super) policy_repo: RepoName,
    /// What the App's installation has there, if that is known.
    pub(super) granted: Option<Permissions>,
    /// What the operator allows policies to say.
    pub(super) rules: Arc<Rules>,
}

/// One thing to say about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) path: String,
    /// From 1; `None` is the whole file.
    pub(super) line: Option<u32>,
    pub(super) text: String,
    /// What to write instead.
    pub(super) fix: Option<String>,
}

/// What a policy gave before a change and gives after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccessChange {
    pub(super) path: String,
    pub(super) before: Option<Access>,
    pub(super) after: Option<Access>,
}

/// What happened to one policy or list, and why it is invalid now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyChange {
    pub(super) path: String,
    pub(super) action: ChangeAction,
    pub(super) error: Option<String>,
}

/// Everything that is to be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Policies and lists that changed.
    pub(super) checked: Vec<PolicyChange>,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    pub(super) access: Vec<AccessChange>,
}

/// What a file in the folder is, by its name.
enum Role<'a> {
    Policy(&'a str),
    List,
    Examples,
    /// It looks like a policy and is not read as one.
    Misnamed,
    Other,
}

impl Repository {
    fn kind(&self) -> PolicyKind {
        if self.repo == self.policy_repo {
            PolicyKind::Organization
        } else {
            PolicyKind::Repository
        }
    }

    fn role<'a>(&self, path: &'a str) -> Role<'a> {
        let Some(name) = path.strip_prefix(FOLDER) else { return Role::Other };
        let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
        if name.eq_ignore_ascii_case(LIST) {
            let is_list = self.kind() == PolicyKind::Organization && name == LIST;
            return if is_list { Role::List } else { Role::Misnamed };
        }
        match name.strip_suffix(SUFFIX) {
            _ if name.ends_with(EXAMPLES) => Role::Examples,
            Some(name) => Role::Policy(name),
            None if is_yaml => Role::Misnamed,
            None => Role::Other,
        }
    }
}

impl Verdict {
    /// Reads a changed file. This costs CPU, so call it off the threads that serve requests.
    pub(super) fn add(&mut self, file: &Changed, repository: &Repository) {
        let errors = self.errors.len();
        match repository.role(&file.path) {
            Role::Policy(name) => {
                self.policy(file, name, repository);
                self.checked(file, errors);
            }
            Role::List => {
                self.list(file);
                self.checked(file, errors);
            }
            Role::Misnamed if file.after != Content::Absent => self.misnamed(file),
            Role::Misnamed | Role::Examples | Role::Other => {}
        }
    }

    /// Notes a file of which the errors since the given number are.
    fn checked(&mut self, file: &Changed, errors: usize) {
        let action = match (&file.before, &file.after) {
            (_, Content::Absent) => ChangeAction::Deleted,
            (Content::Absent, _) => ChangeAction::Created,
            _ => ChangeAction::Updated,
        };
        let error = self.errors.get(errors).map(|error| error.text.clone());
        self.checked.push(PolicyChange { path: file.path.clone(), action, error });
    }

    fn policy(&mut self, file: &Changed, name: &str, repository: &Repository) {
        let home = Home { kind: repository.kind(), owner: Some(&repository.owner) };
        let surroundings =
            Surroundings { home, repo: &repository.repo, granted: repository.granted.as_ref() };
        let read = |bytes: &Bytes| review(bytes, surroundings, &repository.rules);
        let before = match &file.before {
            Content::File(bytes) => read(bytes).ok().map(|(policy, _)| policy.access()),
            Content::Absent | Content::NotAFile => None,
        };
        let mut after = None;
        match &file.after {
            Content::Absent => {}
            Content::NotAFile => self.error(&file.path, None, "not a file", None),
            Content::File(bytes) => {
                if let Err(error) = name.parse::<PolicyName>() {
                    self.error(
                        &file.path,
                        None,
                        &format!("no identity can have this name: {error}"),
                        None,
                    );
                }
                match read(bytes) {
                    Ok((policy, warnings)) => {
                        after = Some(policy.access());
                        self.warnings.extend(warnings.into_iter().map(|warning| Finding {
                            path: file.path.clone(),
                            line: warning.mark.map(|mark| mark.line),
                            text: warning.text,
                            fix: None,
                        }));
                    }
                    Err(errors) => self.errors(&file.path, &errors),
                }
            }
        }
        if before != after {
            self.access.push(AccessChange { path: file.path.clone(), before, after });
        }
    }

    /// Runs the examples in a file with the policy that they are for. This costs CPU too.
    pub(super) fn examples(
        &mut self,
        path: &str,
        file: &Content,
        policy: &Content,
        repository: &Repository,
    ) {
        let Content::File(bytes) = file else { return };
        let examples = match Examples::parse(bytes) {
            Ok(examples) => examples,
            Err(error) => return self.errors(path, &error.into()),
        };
        let Content::File(policy) = policy else {
            let text = "there is no policy that these tests are for".to_owned();
            return self.warnings.push(Finding {
                path: path.to_owned(),
                line: None,
                text,
                fix: None,
            });
        };
        let home = Home { kind: repository.kind(), owner: Some(&repository.owner) };
        let scope = format!("{}/{}", repository.owner, repository.repo).parse::<Scope>();
        // What is wrong with the policy is said of the policy.
        let (Ok(policy), Ok(scope)) = (Policy::parse(policy, home, &repository.rules), scope)
        else {
            return;
        };
        let context = ExampleContext {
            scope: &scope,
            domain: repository.domain.as_deref(),
            github_host: &repository.github_host,
            policy_repo: &repository.policy_repo,
        };
        for surprise in examples.run(&policy, context) {
            self.error(path, Some(surprise.mark.line), &surprise.text, None);
        }
    }

    fn list(&mut self, file: &Changed) {
        match &file.after {
            Content::Absent => {}
            Content::NotAFile => self.error(&file.path, None, "not a file", None),
            Content::File(bytes) => {
                if let Err(errors) = TrustedIssuers::parse(bytes) {
                    self.errors(&file.path, &errors);
                }
            }
        }
    }

    fn misnamed(&mut self, file: &Changed) {
        let text = format!(
            "this file is not read: policies are named NAME{SUFFIX}, and the trusted-issuer list is \
             {LIST} in the organization's policy repository"
        );
        self.warnings.push(Finding { path: file.path.clone(), line: None, text, fix: None });
    }

    fn errors(&mut self, path: &str, errors: &Errors) {
        for error in errors.iter() {
            self.error(path, error.line(), error.rule(), error.fix());
        }
        if errors.has_more() {
            self.error(path, None, "there are more errors", None);
        }
    }

    fn error(&mut self, path: &str, line: Option<u32>, text: &str, fix: Option<&str>) {
        let (path, text) = (path.to_owned(), text.to_owned());
        self.errors.push(Finding { path, line, text, fix: fix.map(str::to_owned) });
    }
}

/// The policy of an examples file, and the examples of a policy.
pub(super) fn partner(path: &str) -> Option<String> {
    if let Some(name) = path.strip_suffix(EXAMPLES) {
        return Some(format!("{name}{SUFFIX}"));
    }
    path.strip_suffix(SUFFIX).map(|name| format!("{name}{EXAMPLES}"))
}

/// Which paths differ, with the ids before and after.
pub(super) fn difference(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<(String, bool, bool)> {
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| before.get(*path) != after.get(*path));
    let side = |side: &BTreeMap<String, String>, path: &String| side.contains_key(path);
    paths.into_iter().map(|path| (path.clone(), side(before, path), side(after, path))).collect()
}
