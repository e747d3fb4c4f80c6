//! The metrics of the process: their recorder, and what each of them means.

use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::{TelemetryError, label, metric};

/// Bounds of the duration buckets, in seconds, up to the 15 s in which every exchange ends.
const DURATION_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];

/// The metrics of this process, to be rendered.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes a recorder the process's own.
    ///
    /// # Errors
    /// [`TelemetryError::MetricsInstalled`] if the process has one already.
    pub fn install() -> Result<Self, TelemetryError> {
        let (recorder, metrics) = Self::recorder()?;
        metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::MetricsInstalled)?;
        Ok(metrics)
    }

    /// A recorder that is not the process's own, for [`metrics::with_local_recorder`].
    ///
    /// # Errors
    /// [`TelemetryError::Recorder`] if the exporter refuses the buckets.
    pub fn recorder() -> Result<(PrometheusRecorder, Self), TelemetryError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Full(metric::EXCHANGE_DURATION.to_owned()),
                DURATION_BUCKETS,
            )
            .and_then(|builder| {
                let name = Matcher::Full(metric::SIGNER_DURATION.to_owned());
                builder.set_buckets_for_metric(name, DURATION_BUCKETS)
            })
            .map_err(|_| TelemetryError::Recorder)?
            .build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, describe);
        Ok((recorder, Self(handle)))
    }

    /// Everything recorded so far, in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds the histograms' raw samples together. Rendering does so too; where nobody scrapes,
    /// call this every few seconds, or the samples pile up.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// What each counter means.
const COUNTERS: &[(&str, &str)] = &[
    (metric::EXCHANGES, "Exchanges that ended, by result, reason and protocol"),
    (metric::ALL_REPOSITORIES, "Tokens issued for all repositories of an installation"),
    (metric::GITHUB_REQUESTS, "Calls to GitHub, by kind and status"),
    (metric::GITHUB_REVOCATIONS, "Tokens given back to GitHub, by outcome"),
    (metric::ISSUER_FETCHES, "Fetches from issuers, by outcome"),
    (metric::REPLAYS, "Exchanges with a token that was exchanged before, refused or not"),
    (metric::DENIALS, "Attempts that the deny file refused"),
    (metric::AUDIT_UNRECORDED, "Attempts without a place in the audit queue"),
    (
        metric::DELIVERIES,
        "Webhook deliveries, by result: accepted, ignored, replayed, busy or refused",
    ),
    (metric::AGENT_RENEWALS, "The agent's attempts to renew a token, by file and outcome"),
    (metric::AGENT_COMMANDS, "Commands that the agent ran on renewal, by outcome"),
    (metric::AGENT_REVOCATIONS, "Tokens that the agent gave back to GitHub, by outcome"),
    (metric::CONNECTIONS_ENDED, "Connections ended in favour of others, by cause"),
    (
        metric::FORWARDED_UNTRUSTED,
        "Requests with X-Forwarded-For while STS_TRUSTED_PROXY_HOPS is 0",
    ),
    (metric::LOG_LINES_DROPPED, "Log lines dropped because nobody reads stderr"),
    (metric::APP_MINTS, "Calls to mint, by App, tier and outcome"),
    (
        metric::APP_FAILURES,
        "Times that an App's own credential was not available or was refused, by App and cause",
    ),
];

/// What each gauge means.
const GAUGES: &[(&str, &str)] = &[
    (metric::CLOCK_DRIFT, "How far this clock is ahead of GitHub's, in seconds"),
    (metric::AUDIT_QUEUE_DEPTH, "Audit records that wait to be written"),
    (metric::AGENT_TOKEN_EXPIRY, "When the token in a file ends, in seconds since 1970; 0: none"),
    (metric::BUILD_INFO, "Which build this is; always 1"),
    (
        metric::APPS_FILE_OK,
        "0 while the file of Apps, or of their key, is invalid and the previous ones stay in use",
    ),
    (
        metric::DENY_FILE_OK,
        "0 while the deny file is missing or invalid and the previous entries stay in force",
    ),
    (metric::DENY_ENTRIES, "Entries of the deny file in force, expired ones included"),
    (metric::APP_JWT_SIGNED, "When the App's JWT in use was signed, in seconds since 1970"),
    (
        metric::QUOTA_REPORTED,
        "When GitHub last reported the quota of an App's installation, in seconds since 1970",
    ),
];

/// What each histogram means.
const HISTOGRAMS: &[(&str, &str)] = &[
    (metric::EXCHANGE_DURATION, "Time to answer an exchange, in seconds"),
    (metric::SIGNER_DURATION, "Time to sign for an App, in seconds"),
];

/// Tells the recorder what each metric means.
fn describe() {
    for (name, text) in COUNTERS {
        metrics::describe_counter!(*name, *text);
    }
    for (name, text) in GAUGES {
        metrics::describe_gauge!(*name, *text);
    }
    for (name, text) in HISTOGRAMS {
        metrics::describe_histogram!(*name, *text);
    }
    metrics::gauge!(metric::BUILD_INFO, label::VERSION => env!("CARGO_PKG_VERSION")).set(1.0);
}
