//! `octo-sts completions` and `octo-sts man`: files for shells and for man, made from the commands.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::CommandFactory;

use super::{Cli, Exit, say};

/// Arguments of `completions`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ManArgs {
    /// The folder to write the pages to; it is made if it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints a shell's completions.
pub(super) fn completions(args: CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "octo-sts", &mut script);
    let mut out = io::stdout().lock();
    ended("completions", out.write_all(&script).and_then(|()| out.flush()))
}

/// Writes a page for the program and one for each command.
pub(super) fn man(args: &ManArgs) -> Exit {
    ended("man", pages(&args.folder))
}

fn pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), folder)
}

fn ended(command: &str, outcome: io::Result<()>) -> Exit {
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => {
            say(format_args!("octo-sts {command}: the output cannot be written: {error}"));
            Exit::Internal
        }
    }
}
