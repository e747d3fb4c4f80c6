//! A folder of policies on disk: which files are policies, of which kind, by which name, and what
//! is wrong with them, each finding with `FILE:LINE:COLUMN`.
//!
//! `DIR/NAME.sts.yaml` is a policy of a repository, `DIR/org/NAME.sts.yaml` one of the
//! organization, and `DIR/org/trusted-token-issuers.yaml` its list of trusted issuers. Folders
//! below are part of the name. A checkout works too: then `.github/chainguard` in it is read.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    name::PolicyName,
    policy::{PolicyKind, Rules, TrustedIssuers, lint::lint},
    yaml::Errors,
};

/// Where an organization's list of trusted issuers is, in its policies' folder.
const LIST: &str = "trusted-token-issuers.yaml";
const SUFFIX: &str = ".sts.yaml";
/// Examples beside a policy.
const EXAMPLES: &str = ".sts.test.yaml";
/// Folders inside each other.
const MAX_DEPTH: usize = 16;

/// What a folder holds.
#[derive(Debug, Default)]
pub(super) struct PolicyFolder {
    /// The valid policies, by path.
    pub(super) policies: Vec<PolicyFile>,
    /// The list of trusted issuers.
    pub(super) list: Option<String>,
    /// Files that look like policies and are not, by their name.
    pub(super) ignored: Vec<PathBuf>,
    /// Every error of every file.
    pub(super) errors: Vec<String>,
}

/// A valid policy.
#[derive(Debug)]
pub(super) struct PolicyFile {
    pub(super) path: PathBuf,
    pub(super) kind: PolicyKind,
    #[cfg_attr(not(feature = "emulator"), expect(dead_code, reason = "only dev serves it"))]
    pub(super) name: PolicyName,
    pub(super) text: String,
    /// What its author may not have meant.
    pub(super) warnings: Vec<String>,
}

impl PolicyFile {
    /// Where its examples are, if it has any.
    pub(super) fn examples_path(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(name.replace(SUFFIX, EXAMPLES))
    }
}

impl PolicyFolder {
    /// Reads a folder and everything below it, whose policies are of this kind.
    pub(super) fn read(folder: &Path, kind: PolicyKind) -> Self {
        let mut read = Self::default();
        let checkout = folder.join(".github/chainguard");
        let folder = if checkout.is_dir() { checkout.as_path() } else { folder };
        read.walk((kind, folder), folder, 0);
        if read.errors.is_empty() && read.policies.is_empty() {
            let none = format!(
                "{} holds no policy: no file NAME{SUFFIX}, nor org/NAME{SUFFIX}",
                folder.display()
            );
            read.errors.push(none);
        }
        read
    }

    /// Reads `folder`; names of policies start at `root`.
    fn walk(&mut self, (kind, root): (PolicyKind, &Path), folder: &Path, depth: usize) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(Result::ok),
            Err(error) => return self.errors.push(format!("{}: {error}", folder.display())),
        };
        // Links to folders are not followed: they may lead back here.
        let entries: BTreeSet<_> = entries
            .map(|entry| (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir())))
            .collect();
        for (path, is_folder) in entries {
            match is_folder {
                true if depth == MAX_DEPTH => {
                    self.errors.push(format!("{}: nested too deeply", path.display()))
                }
                true if kind == PolicyKind::Repository && path == root.join("org") => {
                    self.walk((PolicyKind::Organization, &path), &path, depth + 1);
                }
                true => self.walk((kind, root), &path, depth + 1),
                false => self.file(kind, root, &path),
            }
        }
    }

    fn file(&mut self, kind: PolicyKind, root: &Path, path: &Path) {
        let relative = path.strip_prefix(root).unwrap_or(path);
        let name = relative.to_str().unwrap_or_default();
        let is_list = kind == PolicyKind::Organization && name == LIST;
        if name.ends_with(EXAMPLES) {
            return;
        }
        if !is_list && !name.ends_with(SUFFIX) {
            let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
            self.ignored.extend(is_yaml.then(|| path.to_owned()));
            return;
        }
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.errors.push(format!("{}: {error}", path.display())),
        };
        if is_list {
            match TrustedIssuers::parse(&bytes) {
                Ok(_) => self.list = String::from_utf8(bytes).ok(),
                Err(errors) => self.errors.extend(lines(path, &errors)),
            }
            return;
        }
        self.policy((kind, name.strip_suffix(SUFFIX).unwrap_or(name)), path, bytes);
    }

    fn policy(&mut self, (kind, name): (PolicyKind, &str), path: &Path, bytes: Vec<u8>) {
        let name = name
            .parse::<PolicyName>()
            .map_err(|error| self.errors.push(format!("{}: {error}", path.display())));
        match lint(&bytes, kind, &Rules::default()) {
            Ok((_, warnings)) => {
                let Ok(name) = name else { return };
                let place = |line: Option<(u32, u32)>| match line {
                    Some((line, column)) => format!("{}:{line}:{column}", path.display()),
                    None => path.display().to_string(),
                };
                let warnings = warnings.into_iter().map(|warning| {
                    format!(
                        "{}: {}",
                        place(warning.mark.map(|mark| (mark.line, mark.column))),
                        warning.text
                    )
                });
                let text = String::from_utf8(bytes).unwrap_or_default();
                let (path, warnings) = (path.to_owned(), warnings.collect());
                self.policies.push(PolicyFile { path, kind, name, text, warnings });
            }
            Err(errors) => self.errors.extend(lines(path, &errors)),
        }
    }
}

/// The errors of a file, one line each, and below each what to write instead.
fn lines(path: &Path, errors: &Errors) -> Vec<String> {
    let path = path.display();
    let mut lines = Vec::new();
    for error in errors.iter() {
        let place = match (error.line(), error.column()) {
            (Some(line), Some(column)) => format!("{path}:{line}:{column}"),
            _ => path.to_string(),
        };
        lines.push(format!("{place}: {}", error.rule()));
        lines.extend(error.fix().map(|fix| format!("{place}: write {fix}")));
    }
    if errors.has_more() {
        lines.push(format!("{path}: there are more errors"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authored() -> PolicyFolder {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/authored"));
        PolicyFolder::read(folder, PolicyKind::Repository)
    }

    /// What is said about a file, by the start of its name.
    fn about<'a>(said: impl Iterator<Item = &'a String>, file: &str) -> String {
        said.filter(|line| line.contains(&format!("/{file}-")))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn policies_as_people_write_them() {
        let folder = authored();
        let mut valid: Vec<&str> =
            folder.policies.iter().map(|file| &file.name.as_str()[..2]).collect();
        // Whether `{{` is valid is a matter of patterns.
        valid.retain(|file| *file != "05");
        assert_eq!(valid, ["06", "07", "01", "02"]);
        for (file, says) in [
            (
                "03",
                vec![":7:9: `claim_pattern`: `*` has nothing to repeat; for any text, write `.*`"],
            ),
            (
                "04",
                vec![
                    ":8:12: `members`",
                    "policy repository",
                    "STS_REPOSITORY_POLICY_ORG_PERMISSIONS",
                ],
            ),
            (
                "08",
                vec![
                    ":5:3: GitHub documents no permission of this name; did you mean `pull_requests`?",
                    ":6:3: GitHub documents no permission of this name; did you mean `workflows`?",
                    ":7:3: GitHub documents no permission of this name; a repository",
                ],
            ),
            ("09", vec![":5:3: `id-token` is a permission of workflows"]),
            (
                "10",
                vec![
                    ":3:1: `base_ref` is a claim; put it under `claim_pattern`",
                    ":4:1: `actor` is a claim",
                ],
            ),
        ] {
            let said = about(folder.errors.iter(), file);
            for text in says {
                assert!(said.contains(text), "{file}: {said}");
            }
        }
    }

    #[test]
    fn warnings_about_policies_as_people_write_them() {
        let folder = authored();
        let is_template_valid =
            folder.policies.iter().any(|file| file.name.as_str().starts_with("05"));
        let warnings: Vec<String> =
            folder.policies.into_iter().flat_map(|file| file.warnings).collect();
        for (file, says) in [
            (
                "06",
                vec![
                    ":2:18: `subject_pattern`: this reads like a glob",
                    "repo:acme/.*:ref:refs/tags/.*",
                ],
            ),
            (
                "07",
                vec![
                    ":4:8: `claim_pattern.ref`: this reads like a glob",
                    ":5:21: `claim_pattern.job_workflow_ref`",
                ],
            ),
        ] {
            let said = about(warnings.iter(), file);
            for text in says {
                assert!(said.contains(text), "{file}: {said}");
            }
        }
        assert_eq!(
            about(warnings.iter(), "05").contains("this looks like a template"),
            is_template_valid
        );
        assert_eq!(about(warnings.iter(), "01") + &about(warnings.iter(), "02"), "");
    }
}
