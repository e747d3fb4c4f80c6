//! `octo-sts policy`: checks policies on disk, by the engine of the server. Needs no server and no
//! network.

use std::{fmt::Display, path::PathBuf};

use super::{
    Exit,
    policy_folder::{PolicyFile, PolicyFolder},
    say,
};
use crate::{
    name::{RepoName, Scope},
    policy::{
        Home, Policy, PolicyKind, Rules,
        examples::{ExampleContext, Examples},
    },
    yaml::Invalid,
};

/// Arguments of `policy`.
#[derive(Debug, clap::Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PolicyCommand {
    /// Report every error of policies, and what their author may not have meant.
    Lint(Paths),
    /// Run the examples of policies: NAME.sts.test.yaml beside NAME.sts.yaml.
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
struct Paths {
    /// Folders of policies, or checkouts.
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// They are policies of an organization, as in its repository `.github`.
    #[arg(long)]
    organization: bool,
}

#[derive(Debug, clap::Args)]
struct TestArgs {
    #[command(flatten)]
    paths: Paths,
    /// The server's host, which is the default audience. Without it, a policy's default audience
    /// counts as satisfied.
    #[arg(long, value_name = "HOST")]
    domain: Option<String>,
    /// The repository that holds the policies: the scope of tests that name none.
    #[arg(long, value_name = "OWNER/REPO", default_value = "your-org/your-repo")]
    scope: Scope,
}

/// Checks policies.
pub(super) fn policy(args: &PolicyArgs) -> Exit {
    match &args.command {
        PolicyCommand::Lint(paths) => lint(paths),
        PolicyCommand::Test(args) => test(args),
    }
}

impl Paths {
    fn read(&self) -> Vec<PolicyFolder> {
        let kind =
            if self.organization { PolicyKind::Organization } else { PolicyKind::Repository };
        self.paths.iter().map(|path| PolicyFolder::read(path, kind)).collect()
    }
}

fn lint(paths: &Paths) -> Exit {
    let (mut policies, mut errors, mut warnings) = (0, 0, 0);
    for folder in paths.read() {
        for error in &folder.errors {
            print(error);
        }
        let ignored = folder.ignored.iter();
        let ignored = ignored.map(|path| {
            format!("{}: this file is not read: policies are named NAME.sts.yaml", path.display())
        });
        let said: Vec<String> =
            folder.policies.iter().flat_map(|file| file.warnings.clone()).chain(ignored).collect();
        said.iter().for_each(|warning| print(format_args!("warning: {warning}")));
        policies += folder.policies.len();
        errors += folder.errors.len();
        warnings += said.len();
    }
    print(format_args!("{policies} valid policies, {errors} lines of errors, {warnings} warnings"));
    if errors == 0 { Exit::Done } else { Exit::Usage }
}

fn test(args: &TestArgs) -> Exit {
    let (mut run, mut failed) = (0, 0);
    for folder in args.paths.read() {
        for error in &folder.errors {
            print(error);
            failed += 1;
        }
        for file in &folder.policies {
            match examples(file, args) {
                Ok((count, surprises)) => {
                    run += count;
                    failed += surprises.len();
                    surprises.iter().for_each(print);
                }
                Err(error) => {
                    print(error);
                    failed += 1;
                }
            }
        }
    }
    print(format_args!("{run} tests, {failed} failed"));
    if failed == 0 { Exit::Done } else { Exit::Internal }
}

/// How many examples a policy has, and those that come out otherwise.
fn examples(file: &PolicyFile, args: &TestArgs) -> Result<(usize, Vec<String>), String> {
    let path = file.examples_path();
    if !path.is_file() {
        return Ok((0, Vec::new()));
    }
    let at = |error: Invalid| match error.line() {
        Some(line) => format!("{}:{line}: {}", path.display(), error.rule()),
        None => format!("{}: {}", path.display(), error.rule()),
    };
    let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let examples = Examples::parse(&bytes).map_err(at)?;
    let home = Home { kind: file.kind, owner: Some(args.scope.owner()) };
    let policy = Policy::parse(file.text.as_bytes(), home, &Rules::default())
        .map_err(|error| format!("{}: {error}", file.path.display()))?;
    let usual: RepoName = ".github".parse().map_err(|_| "no policy repository".to_owned())?;
    // In an organization's folder, the repository that holds the policies is its policy repository.
    let policy_repo = match (file.kind, args.scope.repo()) {
        (PolicyKind::Organization, Some(repo)) => repo.clone(),
        _ => usual,
    };
    let context = ExampleContext {
        scope: &args.scope,
        domain: args.domain.as_deref(),
        github_host: "github.com",
        policy_repo: &policy_repo,
    };
    let surprises = examples.run(&policy, context).into_iter();
    let surprises = surprises.map(|it| format!("{}:{}: {}", path.display(), it.mark.line, it.text));
    Ok((examples.len(), surprises.collect()))
}

/// A line on stdout.
fn print(line: impl Display) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        say("octo-sts policy: stdout is closed");
    }
}
