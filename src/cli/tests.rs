use clap::CommandFactory;

use super::*;
use crate::config::variables::Origin;

fn exit(arguments: &[&str], environment: &[(&str, &str)]) -> Exit {
    let arguments = ["octo-sts"].iter().chain(arguments).map(OsString::from);
    run(arguments, &environment.iter().copied().collect())
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let codes =
        [Exit::Done, Exit::Usage, Exit::Unavailable, Exit::Internal, Exit::Refused].map(Exit::code);
    assert_eq!(codes, [0, 64, 69, 70, 77]);
}

#[test]
fn help_and_version_are_no_mistake() {
    for arguments in [&["--help"][..], &["-h"], &["--version"], &["serve", "--help"], &["help"]] {
        assert_eq!(exit(arguments, &[]), Exit::Done, "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_understood_is_a_mistake() {
    for arguments in [&["srve"][..], &["serve", "--port", "1"], &["--frobnicate"]] {
        assert_eq!(exit(arguments, &[]), Exit::Usage, "{arguments:?}");
    }
}

#[test]
fn without_a_command_the_environment_decides() {
    assert_eq!(exit(&[], &[]), Exit::Usage);
    assert!(asked(&[], &[]).is_none());
    assert!(asked(&[], &[("STS_DOMAIN", " ")]).is_none());
    assert!(matches!(asked(&[], &[("STS_DOMAIN", "sts.example.com")]), Some(Command::Serve)));
    assert!(matches!(asked(&[], &[("GITHUB_WEBHOOK_SECRET", "s")]), Some(Command::Serve)));
}

#[test]
fn a_server_that_is_not_configured_does_not_start() {
    assert_eq!(exit(&["serve"], &[]), Exit::Usage);
    assert_eq!(exit(&[], &[("STS_DOMAIN", "sts.example.com")]), Exit::Usage);
}

#[test]
fn help_lists_the_variables_that_do_something() {
    let help = help::serve();
    for variable in variables::table() {
        let of_serve = matches!(variable.origin, Origin::Shared | Origin::Own);
        assert_eq!(
            help.contains(&format!("  {}\n", variable.name))
                || help.contains(&format!("  {} [", variable.name)),
            of_serve,
            "{}",
            variable.name
        );
    }
}

#[test]
fn every_command_shows_an_example_and_no_line_is_too_wide() {
    let mut program = Cli::command();
    program.build();
    let mut names = vec![String::new()];
    names.extend(program.get_subcommands().map(|command| command.get_name().to_owned()));
    assert!(names.len() >= 8, "{names:?}");
    for name in names.iter().filter(|name| !["help", "man"].contains(&name.as_str())) {
        let command =
            if name.is_empty() { &mut program } else { program.find_subcommand_mut(name).unwrap() };
        let (short, long) =
            (command.render_help().to_string(), command.render_long_help().to_string());
        for help in [short, long] {
            assert!(help.contains("Examples:\n  "), "{name}:\n{help}");
            // A word that is wider is not broken.
            let wide =
                |line: &&str| line.chars().count() > help::MAX_WIDTH && line.trim().contains(' ');
            assert_eq!(help.lines().filter(wide).collect::<Vec<_>>(), [""; 0], "{name}");
        }
    }
}

#[test]
fn examples_are_command_lines_that_the_program_accepts() {
    let program = Cli::command();
    let helps =
        program.get_subcommands().chain([&program]).filter_map(|command| command.get_after_help());
    let mut count = 0;
    for help in helps.map(ToString::to_string) {
        let examples = help
            .split("Examples:\n")
            .nth(1)
            .unwrap()
            .split("\n\n")
            .next()
            .unwrap()
            .replace("\\\n", "");
        for call in
            examples.lines().filter_map(|line| line.split_once("octo-sts ")).map(|(_, call)| call)
        {
            let call = call.split([')', '#', '>', '\'']).next().unwrap();
            let mut words: Vec<_> =
                ["octo-sts"].into_iter().chain(call.split_whitespace()).collect();
            if words.get(1) == Some(&"git-credential") {
                words.push("get");
            }
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{words:?}: {error}");
            }
            count += 1;
        }
    }
    assert!(count >= 14, "{count}");
}

#[test]
fn the_version_says_what_was_built() {
    let version = Cli::command().render_version();
    assert!(
        version.starts_with(&format!("octo-sts {} (commit ", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
    let features =
        if cfg!(feature = "emulator") { "features: emulator)\n" } else { "features: none)\n" };
    assert!(version.ends_with(features), "{version}");
}

#[test]
fn the_commands_are_consistent() {
    Cli::command().debug_assert();
}

#[cfg(feature = "emulator")]
#[test]
fn the_arguments_of_dev() {
    let parsed = |arguments: &[&str]| match asked(arguments, &[]) {
        Some(Command::Dev(dev::DevArgs { once, policies, port, env, .. })) => {
            (once, policies, port, env)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(parsed(&["dev"]), (false, None, None, None));
    assert_eq!(
        parsed(&["dev", "--once", "--policies", "p", "--port", "0"]),
        (true, Some("p".into()), Some(0), None)
    );
    assert_eq!(parsed(&["dev", "--env", "e"]).3, Some("e".into()));
    // Nothing stays up that the file would be for.
    assert!(Cli::try_parse_from(["octo-sts", "dev", "--once", "--env", "e"]).is_err());
    for (text, secs) in
        [("1h", Some(3600)), ("30s", Some(30)), ("2h", None), ("1s", None), ("30", None)]
    {
        let parsed = Cli::try_parse_from(["octo-sts", "dev", "--token-life", text]).ok();
        let life = parsed.and_then(|cli| match cli.command {
            Some(Command::Dev(args)) => Some(args.token_life.as_secs()),
            _ => None,
        });
        assert_eq!(life, secs, "{text}");
    }
}

fn asked(arguments: &[&str], environment: &[(&str, &str)]) -> Option<Command> {
    let arguments = ["octo-sts"].iter().chain(arguments);
    Cli::try_parse_from(arguments).unwrap().command_in(&environment.iter().copied().collect())
}
