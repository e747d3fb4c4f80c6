//! What stands below the options in each command's help: examples, and the variables that it reads.

use crate::config::variables::{self, Origin, Variable};

/// Help does not get wider than this on a wide terminal.
pub(super) const MAX_WIDTH: usize = 100;

/// The features that are built in.
#[cfg(feature = "emulator")]
const FEATURES: &str = "emulator";
#[cfg(not(feature = "emulator"))]
const FEATURES: &str = "none";

/// What `--version` prints: the version, the commit that was built, and the features that are built
/// in.
pub(super) fn version() -> String {
    format!(
        "{} (commit {}, features: {FEATURES})",
        env!("CARGO_PKG_VERSION"),
        env!("OCTO_STS_COMMIT")
    )
}

/// Examples of the program as a whole.
pub(super) const PROGRAM: &str = "\
Without a command, it serves if STS_DOMAIN or GITHUB_WEBHOOK_SECRET is set.

Examples:
  octo-sts serve                        # configured by variables, see octo-sts serve --help
  octo-sts doctor                       # what is wrong with that configuration, and what to do
  GH_TOKEN=\"$(octo-sts exchange --server https://octo-sts.example.com --scope your-org/your-repo \\
    --identity ci)\" gh issue list";

pub(super) const SERVE: &str = "\
Examples:
  export STS_DOMAIN=octo-sts.example.com GITHUB_APP_IDS=123456
  export APP_SECRET_CERTIFICATE_FILE=/etc/octo-sts/app.pem
  octo-sts serve";

pub(super) const DOCTOR: &str = "\
Examples:
  octo-sts doctor
  octo-sts doctor --scope your-org/your-repo --identity ci
  octo-sts doctor --json";

pub(super) const POLICY: &str = "\
Examples:
  octo-sts policy lint                  # the checkout in this folder
  octo-sts policy test .github/chainguard --domain octo-sts.example.com
  octo-sts policy lint --organization ../dot-github";

pub(super) const PROBE: &str = "\
Examples:
  octo-sts probe --config smoke-test.yaml
  octo-sts probe --config smoke-test.yaml --server https://octo-sts-staging.example.com";

#[cfg(feature = "emulator")]
pub(super) const DEV: &str = "\
Examples:
  octo-sts dev                          # the tour, then a server to try
  octo-sts dev --once
  octo-sts dev --policies .github/chainguard";

const EXCHANGE: &str = "\
Examples:
  octo-sts exchange --server https://octo-sts.example.com --scope your-org/your-repo --identity ci
  eval \"$(octo-sts exchange --output env)\" && gh issue list
  octo-sts exchange --check             # would it be granted? mints nothing";

const AGENT: &str = "\
Examples:
  octo-sts agent --scope your-org/your-repo --identity ci --out /tokens/hello
  octo-sts agent --config agent.yaml --listen 127.0.0.1:8081
  octo-sts agent --scope your-org --identity deploy --out /tokens/org -- /usr/local/bin/reload";

const GIT_CREDENTIAL: &str = "\
Examples:
  git config --global credential.https://github.com.helper \\
    '!octo-sts git-credential --server https://octo-sts.example.com --identity ci'
  git config --global credential.https://github.com.useHttpPath true";

pub(super) const COMPLETIONS: &str = "\
Examples:
  octo-sts completions bash > /etc/bash_completion.d/octo-sts
  octo-sts completions zsh > \"${fpath[1]}/_octo-sts\"
  octo-sts completions fish > ~/.config/fish/completions/octo-sts.fish";

/// For `serve --help`.
pub(super) fn serve() -> String {
    let variables = variables::table()
        .filter(|variable| matches!(variable.origin, Origin::Shared | Origin::Own));
    format!("{SERVE}\n\n{}", environment(variables))
}

pub(super) fn exchange() -> String {
    of_client(EXCHANGE)
}

pub(super) fn agent() -> String {
    of_client(AGENT)
}

pub(super) fn git_credential() -> String {
    of_client(GIT_CREDENTIAL)
}

/// For a command of workloads.
fn of_client(examples: &str) -> String {
    let own = variables::table().filter(|variable| variable.origin == Origin::Client);
    let variables = own.chain([
        &variables::GITHUB_BASE_URL,
        &variables::HTTPS_PROXY,
        &variables::NO_PROXY,
        &variables::SSL_CERT_FILE,
    ]);
    format!("{examples}\n\n{}", environment(variables))
}

fn environment<'v>(variables: impl IntoIterator<Item = &'v Variable>) -> String {
    let mut help = "Environment:\n".to_owned();
    for variable in variables {
        let default =
            variable.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
        help.push_str(&format!("  {}{default}\n          {}\n", variable.name, variable.meaning));
    }
    help
}
