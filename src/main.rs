//! The program: its commands are in [`octo_sts::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    octo_sts::cli::main()
}
