//! `octo-sts doctor`: what is wrong with the configuration and with what it leads to, in words, and
//! what to do.
//!
//! It is made of the same parts as the server, by the same settings, so what it finds is what the
//! server would meet. It asks for nothing that an exchange does not ask for, but for what GitHub
//! says of the App itself. Each check is a [`Finding`]; nothing secret is ever in one.

mod finding;
mod github;
mod here;
mod issuers;
mod scope;
mod webhook;

use std::{sync::Arc, time::Duration};

use self::finding::{Finding, Report};
use super::{Exit, block_on};
use crate::{
    app::Settings,
    clock::{Clock, SystemClock},
    config::{Config, Environment},
    egress::Egress,
    github::GitHub,
    name::{PolicyName, Scope},
    oidc::{IssuerKind, Oidc},
    store::Store,
};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Look at this scope too: OWNER or OWNER/REPO.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Scope>,
    /// Look at this policy in the scope.
    #[arg(long, value_name = "NAME", requires = "scope")]
    identity: Option<PolicyName>,
    /// Do not ask the issuers that are built in, that of Actions among them, for networks from
    /// which they cannot be reached.
    #[arg(long)]
    skip_built_in: bool,
    /// Tell it as JSON.
    #[arg(long)]
    json: bool,
}

/// Checks one thing after the other, and ends with the gravest finding's code.
pub(super) fn doctor(args: &DoctorArgs, environment: &Environment) -> Exit {
    let mut report = Report::new(args.json);
    let config = match Config::read(environment) {
        Ok(config) => config,
        Err(errors) => {
            errors.0.iter().map(here::error).for_each(|finding| report.add(finding));
            return report.finish();
        }
    };
    block_on(async {
        here::look(&config, &SystemClock).into_iter().for_each(|finding| report.add(finding));
        match Parts::new(&config) {
            Ok(parts) => parts.look(args, &config, &mut report).await,
            Err(finding) => report.add(finding),
        }
        report.finish()
    })
}

/// What the server is made of, as far as it is looked at.
struct Parts {
    github: GitHub,
    oidc: Oidc,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Parts {
    fn new(config: &Config) -> Result<Self, Finding> {
        let settings = Settings::new(config);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let egress = Egress::new(settings.egress).map_err(|error| {
            let todo =
                "correct the certificates that SSL_CERT_FILE or SSL_CERT_DIR name, or HTTPS_PROXY";
            Finding::fail(Exit::Usage, "outbound connections", error, todo)
        })?;
        let github =
            GitHub::new(settings.github, &egress, Arc::clone(&clock)).map_err(|error| {
                Finding::fail(Exit::Usage, "github", error, "correct GITHUB_BASE_URL")
            })?;
        let oidc = Oidc::new(settings.oidc, egress, Arc::clone(&clock));
        let store = Store::new(settings.store, github.clone(), Arc::clone(&clock));
        Ok(Self { github, oidc, store, clock })
    }

    async fn look(&self, args: &DoctorArgs, config: &Config, report: &mut Report) {
        let is_app_in_order = github::look(&self.github, config, report).await;
        if config.webhook.is_some() {
            webhook::look(&self.github, self.clock.now(), report).await;
        }
        let asked = |kind: IssuerKind| !(args.skip_built_in && kind.is_built_in());
        let now = self.clock.now();
        self.oidc
            .diagnose(asked)
            .await
            .iter()
            .for_each(|diagnosis| report.add(issuers::tell(diagnosis, now)));
        match &args.scope {
            Some(scope) if is_app_in_order => {
                scope::look(&self.github, &self.store, (scope, args.identity.as_ref()), report)
                    .await;
                // What was minted to read with is given back.
                self.store.close();
                self.github.close(Duration::from_secs(3)).await;
            }
            Some(scope) => {
                let what = format!("scope {scope}");
                let todo = "first correct what was found about the App";
                report.add(Finding::warn(what, "was not looked at", todo));
            }
            None => {}
        }
    }
}
