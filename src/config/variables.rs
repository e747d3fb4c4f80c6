//! Every environment variable there is, in one table.
//!
//! The rest of `config` names variables by these constants only. `octo-sts serve --help` prints
//! the table, and a test compares it with `docs/configuration.md`.

/// Where a variable comes from, which decides what may change about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Shared with the Go service octo-sts/app, whose deployments set it: name and meaning are
    /// fixed.
    Shared,
    /// Ours alone: it starts with `STS_`.
    Own,
    /// Of the commands for workloads: the server does not read it.
    Client,
    /// Accepted with a warning: its feature is not built into this version.
    Ignored {
        /// What is missing, as in "FEATURE is not built into this version".
        feature: &'static str,
    },
}

/// One environment variable.
#[derive(Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name. One ending in `*` stands for all that begin so.
    pub name: &'static str,
    /// What an unset variable means, spelled as an operator would; `None` if nothing stands in.
    pub default: Option<&'static str>,
    /// Where it comes from.
    pub origin: Origin,
    /// What it means, in a sentence.
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($name:ident $(= $default:literal)?, $origin:expr, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $name: Variable = Variable {
                name: stringify!($name),
                default: variables!(@default $($default)?),
                origin: $origin,
                meaning: $meaning,
            };
        )*

        /// All of them, in the order in which people should read them.
        pub const ALL: &[Variable] = &[$($name,)*];
    };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
}

use Origin::{Client, Ignored, Own, Shared};

/// What the exporters' variables ask for.
pub const EXPORT: &str = "export by OpenTelemetry";
const EXPORTER: Origin = Ignored { feature: EXPORT };

variables! {
    STS_DOMAIN, Shared, "Required, unless only the webhook is served. The host by which callers reach this server, without scheme; also the audience that tokens must carry unless a policy says otherwise.";
    GITHUB_APP_IDS, Shared, "The ids of the GitHub Apps, comma separated. Required unless `APP_CONFIG_FILE` is set. Several Apps share the work and have the same private key.";
    APP_CONFIG_FILE, Shared, "A file of organizations and their Apps ([format](apps.md)). It replaces `GITHUB_APP_IDS` and the variables of keys, which are then ignored. A changed file is reloaded.";
    APP_SECRET_CERTIFICATE_FILE, Shared, "The file that holds the App's private key (PEM); a change is noticed within ten seconds. This, the next one or `KMS_KEYS` is required.";
    APP_SECRET_CERTIFICATE_ENV_VAR, Shared, "The App's private key itself (PEM; line ends may be written as `\\n`), despite its name.";
    KMS_KEYS, Shared, "Keys of Apps at a [key management service](apps.md#keys-at-a-key-management-service), in place of a PEM: one for each of `GITHUB_APP_IDS`, comma separated. An empty entry skips its App.";
    KMS_PROVIDER = "gcp", Shared, "The service of `KMS_KEYS` and of `kms_key` in the Apps file: `gcp`, `aws` or `akv`, in any letter case.";
    GITHUB_WEBHOOK_SECRET, Shared, "The secret of the App's webhook; set, deliveries are [taken](webhook.md). If it has commas, each part counts as a secret too. With `KMS_KEYS`: names in the provider's secret manager, comma separated, read at start and every hour. Without `STS_DOMAIN`, only the webhook is served.";
    GITHUB_WEBHOOK_ORGANIZATION_FILTER, Shared, "The owners whose deliveries count, comma separated; unset, all.";
    PORT = "8080", Shared, "The port for gRPC, REST, health and reflection; 0 takes any free one.";
    GITHUB_BASE_URL = "https://api.github.com", Shared, "The root of GitHub's API: `https://HOST/api/v3` for GitHub Enterprise Server, `https://api.SUBDOMAIN.ghe.com` with data residency.";
    ORG_POLICY_REPO = ".github", Shared, "The repository that holds an organization's own policies and its list of trusted issuers.";
    METRICS = "true", Shared, "Whether metrics are served for Prometheus.";
    METRICS_PORT = "2112", Shared, "The port for metrics.";
    EVENT_INGRESS_URI, Shared, "Where exchanges and changed policies are sent as [CloudEvents](operations.md#cloudevents): an `https` or `http` URL.";
    OIDC_ISSUERS, Shared, "More issuers that are known, beside the built-in ones: exact URLs, comma separated.";
    OIDC_ISSUERS_FILE, Shared, "A file of issuers as objects: their keys, how these are reached, and rules for their tokens. A changed file is picked up.";
    OIDC_ALLOW_PRIVATE_NETWORKS, Shared, "Whose keys may be fetched from private addresses: `known` for known issuers, `all` for any. Unset: nobody's.";
    KUBERNETES_SERVICE_HOST, Shared, "Set by Kubernetes in every pod: the API server, for `in_cluster` in the issuers file.";
    KUBERNETES_SERVICE_PORT = "443", Shared, "The port of that.";
    HTTPS_PROXY, Shared, "The proxy for GitHub, and for issuers whose entry in the issuers file says so, `http://HOST:PORT`. The lowercase spelling counts too.";
    NO_PROXY, Shared, "Hosts to reach without the proxy, comma separated. The lowercase spelling counts too.";
    SSL_CERT_FILE, Shared, "A file of CA certificates to trust in place of the system's.";
    SSL_CERT_DIR, Shared, "Folders of CA certificates to trust in place of the system's, colon separated.";
    RUST_LOG = "info", Shared, "Which log lines are written, as in `info,octo_sts=debug`.";
    OCTOSTS_QUOTA_FLOOR_HARD = "1500", Shared, "An App with fewer calls left in the hour for an owner is used only if no other App of the pool can be.";
    OCTOSTS_QUOTA_FLOOR_SOFT = "5000", Shared, "An App with at least so many calls left is preferred. At least the hard floor.";
    OCTOSTS_QUOTA_STALE = "5m", Shared, "How long after GitHub last reported a quota it counts. While a quota is unknown, the Apps of a pool take turns.";
    OCTOSTS_STICKY_STORE, Shared, "Without effect: the App that issues tokens with `checks: write` follows from the names of policy and caller, so no store is needed. `memory` is accepted, `firestore` is refused.";
    OCTOSTS_STICKY_STORE_FIRESTORE_PROJECT, Shared, "Without effect.";
    OCTOSTS_STICKY_STORE_FIRESTORE_COLLECTION, Shared, "Without effect.";
    OCTOSTS_STICKY_STORE_FIRESTORE_TTL, Shared, "Without effect.";

    STS_WEBHOOK_PORT, Own, "A separate port for deliveries, so that exchanges can stay private. Unset: they arrive at `PORT`.";
    STS_TLS_CERT_FILE, Own, "Serve TLS with this certificate chain (PEM); needs the next one. A changed file is picked up.";
    STS_TLS_KEY_FILE, Own, "The private key of that certificate (PEM).";
    STS_TRUSTED_PROXY_HOPS = "0", Own, "How many proxies in front of the server add to `X-Forwarded-For`; the client's address is taken from that far back.";
    STS_OWNERS, Own, "The owners that this server serves, comma separated; unset, all that have the App installed. Anyone can install a public App and then use this server.";
    STS_DENY_FILE, Own, "A file of [what is denied](operations.md#kill-switches) for now, whatever policies say: issuers, keys, subjects, owners, repositories, policies. A change is in force within a second.";
    STS_REPOSITORY_POLICY_ORG_PERMISSIONS, Own, "Permissions that a repository's own policy may grant beyond `read` although they govern the organization, or are not in the table of permissions; comma separated. Anyone who can write to any repository can then give themselves these.";
    STS_REQUIRE_REPOSITORIES = "false", Own, "Whether organization policies must list `repositories`. If so, a policy without the list, or with an empty one, is invalid.";
    STS_MAX_TOKEN_BYTES = "32768", Own, "The largest token that is taken.";
    STS_MAX_HEADER_BYTES = "65536", Own, "The largest header list that is taken; at least 4096 more than the token.";
    STS_MAX_CONNECTIONS = "4096", Own, "The maximum number of connections; fewer if the process may not open as many files. Idle ones give way to new ones, and one client address has a quarter at most unless proxies are trusted.";
    STS_SHUTDOWN_TIMEOUT = "25s", Own, "How long everything may take after SIGTERM; from `1s` to `10m`.";
    STS_DRAIN_DELAY = "0s", Own, "How long new connections are still served after SIGTERM, until load balancers notice; at most half of the shutdown timeout.";
    STS_CLOCK_LEEWAY = "60s", Own, "How far issuers' clocks may be off when `nbf` and `iat` are checked; at most `5m`.";
    STS_REPLAY = "off", Own, "Whether a token may be [exchanged more than once](operations.md#replay-protection): `off` (it may), `warn` (it may, and is recorded), `enforce` (it may not).";
    STS_POLICY_TTL = "60s", Own, "How long a policy is used before GitHub is called to see whether it changed; at most `1h`.";
    STS_POLICY_STALE = "5m", Own, "How long after GitHub last confirmed it a policy is still used while GitHub cannot be reached; at most `1h`.";
    STS_RATE_ADDRESS_PER_MINUTE = "60", Own, "Rate limit for each client address (IPv6: each /64; each /48 has thirty times as much), per minute: tokens of unknown issuers that turn out not to be valid.";
    STS_RATE_ADDRESS_BURST = "30", Own, "The burst of that.";
    STS_RATE_CALLER_PER_MINUTE = "60", Own, "Rate limit for each verified caller (issuer and subject), per minute: attempts that need lookups in GitHub and are not granted.";
    STS_RATE_CALLER_BURST = "30", Own, "The burst of that.";
    STS_RATE_OWNER_PER_MINUTE = "600", Own, "Rate limit for each owner, per minute: both of these together.";
    STS_RATE_OWNER_BURST = "600", Own, "The burst of that.";
    STS_RATE_PROCESS_PER_MINUTE = "3000", Own, "Rate limit for the process, per minute: both of these together.";
    STS_RATE_PROCESS_BURST = "3000", Own, "The burst of that.";
    STS_RATE_MINTS_PER_MINUTE, Own, "Rate limit for each App, per minute: tokens minted for callers. Unset: none but GitHub's.";
    STS_UNVERIFIED_REFUSAL_STEP = "1s", Own, "A refusal of an unverified caller that depends on what exists is sent at the next multiple of this after its request arrived; at most `5s`, and `0` delays nothing.";
    STS_LOG_FORMAT, Own, "`json` or `text`. Unset: `text` if stderr is a terminal, else `json`.";

    STS_SERVER, Client, "The server to call: `https://HOST`; without TLS on loopback only.";
    STS_SCOPE, Client, "What the token is for: `OWNER/REPO`, or `OWNER`.";
    STS_IDENTITY, Client, "The name of the trust policy.";
    STS_AUDIENCE, Client, "The audience to ask an identity for; unset, the server's host.";
    STS_TOKEN_FILE, Client, "The file that holds the workload's own OIDC token.";
    STS_ID_TOKEN, Client, "That token itself.";

}

/// `OTEL_EXPORTER_…`: endpoints and their details.
pub const OTEL_EXPORTER: Variable = Variable {
    name: "OTEL_EXPORTER_*",
    default: None,
    origin: EXPORTER,
    meaning: "Where traces, metrics and logs are sent. Other `OTEL_` variables are ignored.",
};

/// The switches of the exporters; `none` is taken.
pub const OTEL_SWITCHES: &[Variable] = &[
    switch("OTEL_TRACES_EXPORTER"),
    switch("OTEL_METRICS_EXPORTER"),
    switch("OTEL_LOGS_EXPORTER"),
];

const fn switch(name: &'static str) -> Variable {
    Variable {
        name,
        default: Some("none"),
        origin: EXPORTER,
        meaning: "`none` is accepted without a warning.",
    }
}

/// The whole table: [`ALL`] and the variables of OpenTelemetry.
pub fn table() -> impl Iterator<Item = &'static Variable> {
    const WHERE_TO: &[Variable] = &[OTEL_EXPORTER];
    ALL.iter().chain(WHERE_TO).chain(OTEL_SWITCHES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../docs/configuration.md");

    fn row(variable: &Variable) -> String {
        let default = variable.default.map_or(String::new(), |default| format!("`{default}`"));
        let meaning = match variable.origin {
            Ignored { feature } => {
                format!("Without effect: {feature} is not built in. {}", variable.meaning)
            }
            Shared | Own | Client => variable.meaning.to_owned(),
        };
        format!("| `{}` | {default} | {meaning} |", variable.name)
    }

    #[test]
    fn the_page_has_the_table_of_the_code() {
        let rows: Vec<_> = PAGE.lines().filter(|line| line.starts_with("| `")).collect();
        let table: Vec<_> = table().map(row).collect();
        assert_eq!(
            rows.join("\n"),
            table.join("\n"),
            "docs/configuration.md should have:\n{}",
            table.join("\n")
        );
    }

    #[test]
    fn names_are_unique_and_ours_start_with_sts() {
        let names: BTreeSet<_> = table().map(|variable| variable.name).collect();
        assert_eq!(names.len(), table().count());
        for variable in table().filter(|variable| matches!(variable.origin, Own | Client)) {
            assert!(variable.name.starts_with("STS_"), "{}", variable.name);
        }
    }
}
