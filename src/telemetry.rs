//! Logs, metrics and traces: how they are set up, and the names in them.
//!
//! Logs go to stderr, because stdout belongs to the audit record. A message can be read alone; what
//! one would search for is in fields, whose names are the constants in [`field`], so that every
//! module uses the same names. Metrics are kept by a recorder that is rendered on demand; who serves
//! the page is not the business of this module. Nothing here ever holds a token: labels come from
//! closed sets, and no field carries a caller's unbounded text as its name.

pub mod field;
pub mod label;
mod log;
mod log_queue;
pub mod metric;
mod recorder;
pub mod trace;
pub mod zero;

use std::io;

pub use self::{
    log::{LogFilter, LogFormat, flush_log, install_log, install_panic_hook},
    recorder::Metrics,
};

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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{log::subscriber, *};

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
