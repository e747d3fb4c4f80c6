//! `octo-sts exchange`: one token for GitHub, for a workload that needs it now.
//!
//! stdout has the token in the requested form and nothing else; what went wrong is on stderr, and
//! the exit code says of which kind it is. With `--output env`, stdout then has a command that
//! fails with that code, because `eval "$(…)"` does not see the exit code of the program.

use std::{
    ffi::OsString,
    io::{self, Write},
};

use secrecy::ExposeSecret;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Exit, block_on, say,
    workload::{
        Failure, NarrowingArgs, Needed, Workload, WorkloadArgs, missing, outward, quoted, shown,
    },
};
use crate::{
    client::{Checked, Issued, Target},
    config::Environment,
};

/// In which form a token is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// The token and a line end.
    Token,
    /// The reply of the server.
    Json,
    /// Lines for a shell, which fail there if the exchange fails: `eval "$(octo-sts exchange
    /// --output env)"`.
    Env,
}

/// Arguments of `exchange`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ExchangeArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    less: NarrowingArgs,
    /// In which form the token is printed.
    #[arg(long, value_enum, default_value = "token")]
    output: Output,
    /// Ask whether the token would be granted, and why not; nothing is minted.
    #[arg(long)]
    check: bool,
}

/// Exchanges, or checks.
pub(super) fn exchange(args: &ExchangeArgs, environment: &Environment) -> Exit {
    block_on(async {
        match Box::pin(run(args, environment)).await {
            Ok(exit) => exit,
            Err(failure) => {
                let exit = failure.tell("exchange");
                if args.output == Output::Env {
                    fail_in_shell(exit);
                }
                exit
            }
        }
    })
}

/// Makes the shell that evaluates stdout fail with this exit code.
fn fail_in_shell(exit: Exit) {
    print(&format!("(exit {})\n", exit.code()));
}

/// The same for a command line that clap rejected, as far as it says that a shell evaluates stdout.
pub(super) fn fail_in_shell_of(arguments: &[OsString], exit: Exit) {
    let words = || arguments.iter().map(|argument| argument.to_string_lossy());
    let by_two =
        words().zip(words().skip(1)).any(|(flag, value)| flag == "--output" && value == "env");
    let is_exchange = arguments.get(1).is_some_and(|command| command == "exchange");
    if is_exchange && (by_two || words().any(|word| word == "--output=env")) {
        fail_in_shell(exit);
    }
}

async fn run(args: &ExchangeArgs, environment: &Environment) -> Result<Exit, Failure> {
    if args.check && args.output == Output::Env {
        // What a server says must not be evaluated by a shell.
        return Err(Failure::Usage(
            "--check has no output for a shell: expected --output token or json".to_owned(),
        ));
    }
    args.workload.require(&[Needed::Server, Needed::Scope, Needed::Identity], environment)?;
    let scope = args.workload.scope(environment)?;
    let workload = args.workload.workload(&outward(environment)?, environment)?;
    let scope = scope.ok_or_else(|| missing(&[Needed::Scope]))?;
    let target = workload.target(scope, &args.less)?;
    if args.check {
        return check(&workload, &target, args.output).await;
    }
    let issued = workload.exchange(&target).await?;
    Ok(print(&printed(&issued, args.output)))
}

async fn check(workload: &Workload, target: &Target, output: Output) -> Result<Exit, Failure> {
    let checked = workload.client.check(&workload.token().await?, target).await?;
    let text = match output {
        Output::Json => format!("{}\n", json_of(&checked)),
        Output::Token | Output::Env => words(&checked),
    };
    let exit = print(&text);
    Ok(if exit == Exit::Done && !checked.granted { Exit::Refused } else { exit })
}

/// A token in the requested format.
fn printed(issued: &Issued, output: Output) -> Zeroizing<String> {
    let token = issued.token.expose_secret();
    Zeroizing::new(match output {
        Output::Token => format!("{token}\n"),
        Output::Json => {
            format!(
                "{}\n",
                json!({"token": token, "refreshToken": "", "expiry": issued.expires_at.rfc3339()})
            )
        }
        Output::Env => format!("export GITHUB_TOKEN={0}\nexport GH_TOKEN={0}\n", quoted(token)),
    })
}

/// A check for people.
fn words(checked: &Checked) -> String {
    let mut text = if checked.granted {
        "would be granted\n".to_owned()
    } else {
        let reason =
            checked.reason.as_deref().map(|reason| format!("{reason}: ")).unwrap_or_default();
        format!("would not be granted: {reason}{}\n", checked.message)
    };
    for condition in &checked.conditions {
        text.push_str(&format!("{}\n", shown(condition)));
    }
    if checked.granted {
        let permissions: Vec<_> =
            checked.permissions.iter().map(|(name, level)| format!("{name}: {level}")).collect();
        text.push_str(&format!("  permissions: {}\n", permissions.join(", ")));
        let all = "all of the installation's".to_owned();
        let repositories =
            if checked.repositories.is_empty() { all } else { checked.repositories.join(", ") };
        text.push_str(&format!("  repositories: {repositories}\n"));
    }
    if let Some(id) = checked.request_id.as_ref().filter(|_| !checked.granted) {
        text.push_str(&format!("  request id: {id}\n"));
    }
    text
}

/// A check for programs, as the server words it.
fn json_of(checked: &Checked) -> serde_json::Value {
    let conditions: Vec<_> = checked
        .conditions
        .iter()
        .map(|condition| {
            json!({
                "field": condition.field,
                "satisfied": condition.satisfied,
                "got": condition.got,
                "wanted": condition.wanted,
                "hint": condition.hint,
            })
        })
        .collect();
    json!({
        "granted": checked.granted,
        "reason": checked.reason.as_deref().unwrap_or_default(),
        "message": checked.message,
        "conditions": conditions,
        "permissions": checked.permissions,
        "repositories": checked.repositories,
    })
}

/// Writes to stdout. If the token cannot be written, the command fails.
fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) => {
            say(format_args!("octo-sts exchange: stdout cannot be written: {}", error.kind()));
            Exit::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;

    #[test]
    fn a_token_is_printed_as_it_was_asked_for() {
        let issued =
            Issued { token: "ghs_a'b".into(), expires_at: UnixTime::from_secs(1_767_225_600) };
        assert_eq!(*printed(&issued, Output::Token), "ghs_a'b\n");
        assert_eq!(
            *printed(&issued, Output::Json),
            "{\"expiry\":\"2026-01-01T00:00:00Z\",\"refreshToken\":\"\",\"token\":\"ghs_a'b\"}\n"
        );
        assert_eq!(
            *printed(&issued, Output::Env),
            "export GITHUB_TOKEN='ghs_a'\\''b'\nexport GH_TOKEN='ghs_a'\\''b'\n"
        );
    }
}
