//! Logs and metrics: how they are set up, and the names in them.
//!
//! Logs go to stderr, because stdout belongs to the audit record. They pass a queue, so that a line
//! never waits for its reader. A message can be read alone;
//! what one would search for stands in fields, and their names are the constants in [`field`], so
//! that every module calls a thing the same. Metrics are kept by a recorder that is rendered on
//! demand; who serves the page is not the business of this file. Nothing here ever holds a token:
//! labels come from closed sets, and no field carries a stranger's unbounded text as its name.

mod queue;
pub mod zero;

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
    time::Duration,
};

use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use queue::LogQueue;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

/// The fields of log lines.
pub mod field {
    /// The identifier of the request, ours.
    pub const REQUEST_ID: &str = "request_id";
    /// `grpc` or `rest`.
    pub const PROTOCOL: &str = "protocol";
    /// What the request is about, `OWNER` or `OWNER/REPO`.
    pub const SCOPE: &str = "scope";
    /// The name of the trust policy.
    pub const IDENTITY: &str = "identity";
    /// The token's issuer.
    pub const ISSUER: &str = "issuer";
    /// An account on GitHub.
    pub const OWNER: &str = "owner";
    /// A GitHub App's id.
    pub const APP_ID: &str = "app_id";
    /// The id of an App's installation.
    pub const INSTALLATION_ID: &str = "installation_id";
    /// The stable word of a refusal.
    pub const REASON: &str = "reason";
    /// What lies behind a refusal; for operators only.
    pub const CAUSE: &str = "cause";
    /// The file of a token that the agent keeps.
    pub const FILE: &str = "file";
    /// How long it took, in milliseconds.
    pub const DURATION_MS: &str = "duration_ms";
}

/// The metrics.
pub mod metric {
    /// Counter: exchanges and checks that ended, by [`super::label::OPERATION`], `RESULT`, `REASON`
    /// and `PROTOCOL`.
    pub const EXCHANGES: &str = "octosts_exchanges_total";
    /// Histogram: seconds from a well-formed request to its reply, by [`super::label::OPERATION`].
    pub const EXCHANGE_DURATION: &str = "octosts_exchange_duration_seconds";
    /// Counter: tokens issued for all repositories that the installation sees.
    pub const ALL_REPOSITORIES: &str = "octosts_all_repositories_tokens_total";
    /// Counter: calls to GitHub, by [`super::label::KIND`] and `STATUS`.
    pub const GITHUB_REQUESTS: &str = "octosts_github_requests_total";
    /// Counter: calls to mint, by [`super::label::APP_ID`], `TIER` and `OUTCOME`.
    pub const APP_MINTS: &str = "octosts_app_mints_total";
    /// Counter: times that an App's own credential could not be had or was refused, by
    /// [`super::label::APP_ID`] and `CAUSE`.
    pub const APP_FAILURES: &str = "octosts_app_failures_total";
    /// Gauge: 1 while the file of Apps is in use as it is, 0 after an error in it.
    pub const APPS_FILE_OK: &str = "octosts_apps_file_ok";
    /// Histogram: seconds that a signature for an App took, by [`super::label::APP_ID`].
    pub const SIGNER_DURATION: &str = "octosts_signer_duration_seconds";
    /// Gauge: when the App's JWT in use was signed, in seconds since 1970, by
    /// [`super::label::APP_ID`].
    pub const APP_JWT_SIGNED: &str = "octosts_app_jwt_signed_timestamp_seconds";
    /// Gauge: when GitHub last reported the quota of an App's installation, in seconds since 1970,
    /// by [`super::label::APP_ID`] and [`super::label::ORGANIZATION`].
    pub const QUOTA_REPORTED: &str = "octosts_quota_reported_timestamp_seconds";
    /// Gauge: calls per hour that GitHub allows an installation. This and the next six are named
    /// and labelled as the Go service has them.
    pub const GITHUB_LIMIT: &str = "github_rate_limit";
    /// Gauge: calls that are left of them.
    pub const GITHUB_LIMIT_REMAINING: &str = "github_rate_limit_remaining";
    /// Gauge: when GitHub renews them, in seconds since 1970.
    pub const GITHUB_LIMIT_RESET: &str = "github_rate_limit_reset";
    /// Gauge: the part that is used, from 0 to 1.
    pub const GITHUB_LIMIT_USED: &str = "github_rate_limit_used";
    /// Gauge: minutes until GitHub renews them, as of the last answer.
    pub const GITHUB_LIMIT_TIME_TO_RESET: &str = "github_rate_limit_time_to_reset";
    /// Counter: answers that announced a limit.
    pub const GITHUB_LIMIT_ERRORS: &str = "github_rate_limit_errors_total";
    /// Gauge: the wait that the last such answer announced, in seconds.
    pub const GITHUB_RETRY_AFTER: &str = "github_retry_after_seconds";
    /// Counter: policy-read tokens given back to GitHub, by [`super::label::OUTCOME`].
    pub const GITHUB_REVOCATIONS: &str = "octosts_github_revocations_total";
    /// Gauge: seconds by which this machine's clock is ahead of GitHub's; negative if it is behind.
    pub const CLOCK_DRIFT: &str = "octosts_clock_drift_seconds";
    /// Counter: fetches of issuers' documents and keys, by [`super::label::OUTCOME`].
    pub const ISSUER_FETCHES: &str = "octosts_issuer_fetches_total";
    /// Gauge: 1 while the issuers file is in use as it stands, 0 after a mistake in it.
    pub const ISSUERS_FILE_OK: &str = "octosts_issuers_file_ok";
    /// Gauge: audit records that wait to be written.
    pub const AUDIT_QUEUE_DEPTH: &str = "octosts_audit_queue_depth";
    /// Counter: attempts that ended without a place in the audit queue.
    pub const AUDIT_UNRECORDED: &str = "octosts_audit_unrecorded_total";
    /// Counter: the agent's attempts to renew a token, by [`super::label::FILE`] and `OUTCOME`.
    pub const AGENT_RENEWALS: &str = "octosts_agent_renewals_total";
    /// Gauge: when the token in a file ends, in seconds since 1970, 0 for none, by
    /// [`super::label::FILE`].
    pub const AGENT_TOKEN_EXPIRY: &str = "octosts_agent_token_expiry_timestamp_seconds";
    /// Counter: commands that the agent ran on renewal, by [`super::label::OUTCOME`].
    pub const AGENT_COMMANDS: &str = "octosts_agent_commands_total";
    /// Counter: tokens that the agent gave back to GitHub, by [`super::label::OUTCOME`].
    pub const AGENT_REVOCATIONS: &str = "octosts_agent_revocations_total";
    /// Counter: connections that were ended in favour of others, by [`super::label::CAUSE`].
    pub const CONNECTIONS_ENDED: &str = "octosts_connections_ended_total";
    /// Counter: requests with `X-Forwarded-For` while no proxy is trusted.
    pub const FORWARDED_UNTRUSTED: &str = "octosts_forwarded_untrusted_total";
    /// Counter: log lines that were dropped because nobody reads stderr.
    pub const LOG_LINES_DROPPED: &str = "octosts_log_lines_dropped_total";
    /// Gauge, always 1: which build this is, by [`super::label::VERSION`].
    pub const BUILD_INFO: &str = "octosts_build_info";
}

/// The labels of metrics. Their values come from closed sets, never from a request.
pub mod label {
    /// `exchange` or `check`.
    pub const OPERATION: &str = "operation";
    /// `granted` or `denied`.
    pub const RESULT: &str = "result";
    /// The stable word of a refusal; empty for a grant.
    pub const REASON: &str = "reason";
    /// `grpc` or `rest`.
    pub const PROTOCOL: &str = "protocol";
    /// Which of GitHub's endpoints.
    pub const KIND: &str = "kind";
    /// The HTTP status, or why there was none.
    pub const STATUS: &str = "status";
    /// How a fetch ended.
    pub const OUTCOME: &str = "outcome";
    /// Why a connection was ended.
    pub const CAUSE: &str = "cause";
    /// A file that the agent keeps, as its configuration names it.
    pub const FILE: &str = "file";
    /// A GitHub App's id, of those that the operator configured.
    pub const APP_ID: &str = "app_id";
    /// How much is left of an App's quota: `comfortable`, `tight`, `last_resort` or `unknown`.
    pub const TIER: &str = "tier";
    /// The account of an installation.
    pub const ORGANIZATION: &str = "organization";
    /// An installation's id.
    pub const INSTALLATION_ID: &str = "installation_id";
    /// Which of GitHub's quotas.
    pub const RESOURCE: &str = "resource";
    /// `primary`, `secondary` or `unknown`.
    pub const RATE_LIMIT_TYPE: &str = "rate_limit_type";
    /// An HTTP status.
    pub const CODE: &str = "code";
    /// The version of this program.
    pub const VERSION: &str = "version";
}

/// Bounds of the duration buckets, in seconds, up to the 15 s in which every exchange ends.
const DURATION_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The process has a log subscriber already.
    #[error("this process has a log subscriber already")]
    LogInstalled,
    /// The thread that writes the log cannot start.
    #[error("the thread that writes the log cannot start: {0}")]
    LogThread(io::Error),
    /// The process has a metrics recorder already.
    #[error("this process has a metrics recorder already")]
    MetricsInstalled,
    /// The buckets of a histogram are refused: our fault.
    #[error("the metrics recorder cannot be built")]
    Recorder,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    /// For people if stderr is a terminal, else for programs.
    pub fn of_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Which log lines are written: directives in the manner of `RUST_LOG`, known to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Reads directives such as `info,octo_sts=debug`; `None` if they do not parse.
    pub fn parse(directives: &str) -> Option<Self> {
        EnvFilter::try_new(directives).is_ok().then(|| Self(directives.to_owned()))
    }

    fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

/// The queue of the installed log. A subscriber is the process's own too.
static LOG: OnceLock<LogQueue> = OnceLock::new();

/// Sends the log of the whole process to stderr.
///
/// # Errors
/// [`TelemetryError::LogInstalled`] if something did so before; [`TelemetryError::LogThread`].
pub fn install_log(filter: &LogFilter, format: LogFormat) -> Result<(), TelemetryError> {
    let queue = LogQueue::start(io::stderr()).map_err(TelemetryError::LogThread)?;
    subscriber(filter, format, queue.clone())
        .try_init()
        .map_err(|_| TelemetryError::LogInstalled)?;
    LOG.set(queue).map_err(|_| TelemetryError::LogInstalled)
}

/// Waits until the installed log is written, or for `within`: at the end of the process.
pub fn flush_log(within: Duration) {
    if let Some(queue) = LOG.get() {
        queue.flush(within);
    }
}

/// Tells panics in the log, by their place alone. What a panic says may hold what it stumbled over,
/// a token for one, and the standard hook prints it.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a fault in the program");
    }));
}

/// A subscriber that writes to `writer`. A line that cannot be written is lost in silence: to
/// complain on a stderr that is gone would panic.
fn subscriber<W>(
    filter: &LogFilter,
    format: LogFormat,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    let base = registry().with(filter.to_env_filter());
    match format {
        LogFormat::Json => {
            Box::new(base.with(lines.json().flatten_event(true).with_span_list(false)))
        }
        LogFormat::Text => Box::new(base.with(lines.with_ansi(io::stderr().is_terminal()))),
    }
}

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
    (metric::AUDIT_UNRECORDED, "Attempts without a place in the audit queue"),
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let sink = lines.clone();
        let subscriber =
            subscriber(&LogFilter::parse(filter).unwrap(), format, move || sink.clone());
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_has_its_fields_beside_the_message() {
        let text = logged("info", LogFormat::Json, || {
            tracing::info!({ field::ISSUER } = "https://issuer.example", "keys fetched");
            tracing::debug!("not asked for");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "keys fetched");
        assert_eq!(line[field::ISSUER], "https://issuer.example");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_text_line_reads_alone() {
        let text = logged("warn", LogFormat::Text, || {
            tracing::warn!({ field::REASON } = "RATE_LIMITED", "an exchange was refused");
            tracing::info!("not asked for");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("WARN") && text.contains("an exchange was refused"), "{text}");
        assert!(text.contains("RATE_LIMITED"), "{text}");
    }

    #[test]
    fn a_panic_is_told_by_its_place_alone() {
        let standard = std::panic::take_hook();
        install_panic_hook();
        let text = logged("error", LogFormat::Json, || {
            let token = "eyJ.SECRET.x";
            let _ = std::panic::catch_unwind(|| panic!("stumbled over {token}"));
        });
        std::panic::set_hook(standard);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(line["place"].as_str().unwrap().contains("telemetry.rs"), "{line}");
        assert!(!text.contains("SECRET") && !text.contains("stumbled"), "{text}");
    }

    #[test]
    fn directives_that_do_not_parse_are_refused() {
        assert!(LogFilter::parse("info,octo_sts=debug").is_some());
        assert!(LogFilter::parse("octo_sts=loud").is_none());
    }

    #[test]
    fn the_page_describes_what_was_recorded() {
        let (recorder, page) = Metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!(metric::EXCHANGES, label::RESULT => "granted", label::REASON => "", label::PROTOCOL => "rest")
                .increment(2);
            metrics::histogram!(metric::EXCHANGE_DURATION, label::OPERATION => "exchange")
                .record(0.02);
        });
        let page = page.render();
        for line in [
            "# TYPE octosts_exchanges_total counter",
            r#"octosts_exchanges_total{result="granted",reason="",protocol="rest"} 2"#,
            r#"octosts_exchange_duration_seconds_bucket{operation="exchange",le="0.01"} 0"#,
            r#"octosts_exchange_duration_seconds_bucket{operation="exchange",le="0.025"} 1"#,
            r#"octosts_exchange_duration_seconds_count{operation="exchange"} 1"#,
            concat!(r#"octosts_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(page.lines().any(|l| l == line), "{line:?} is not in\n{page}");
        }
    }

    #[test]
    fn a_second_install_is_an_error() {
        let first = Metrics::install();
        assert!(matches!((first, Metrics::install()), (_, Err(TelemetryError::MetricsInstalled))));
        let filter = LogFilter::parse("off").unwrap();
        let first = install_log(&filter, LogFormat::Json);
        assert!(matches!(
            (first, install_log(&filter, LogFormat::Json)),
            (_, Err(TelemetryError::LogInstalled))
        ));
    }
}
