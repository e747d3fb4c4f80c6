//! Counters at zero from the start: a rate, and an alert on it, needs a value before the first
//! event.
//!
//! This file lists every counter whose label values are known. A counter by file or by HTTP status
//! begins with its first event.

use super::{label, metric};
use crate::reason::Reason;

/// The counters of the server.
pub fn server() {
    for operation in ["exchange", "check"] {
        for protocol in ["grpc", "rest"] {
            exchanges(operation, "granted", "", protocol);
            exchanges(operation, "abandoned", "", protocol);
            for reason in Reason::ALL {
                exchanges(operation, "denied", reason.as_str(), protocol);
            }
        }
    }
    by(metric::GITHUB_REVOCATIONS, label::OUTCOME, &["done", "failed", "dropped"]);
    by(metric::ISSUER_FETCHES, label::OUTCOME, &["done", "failed"]);
    for (outcome, cause) in [("sent", ""), ("dropped", "queue_full"), ("dropped", "not_accepted")] {
        let labels = [(label::OUTCOME, outcome), (label::CAUSE, cause)];
        metrics::counter!(metric::EVENTS, &labels).absolute(0);
    }
    let received = ["accepted", "ignored", "replayed", "busy", "refused"];
    by(metric::DELIVERIES, label::RESULT, &received);
    by(metric::CONNECTIONS_ENDED, label::CAUSE, &["gave_way", "address"]);
    let unlabelled = [
        metric::ALL_REPOSITORIES,
        metric::AUDIT_UNRECORDED,
        metric::FORWARDED_UNTRUSTED,
        metric::LOG_LINES_DROPPED,
    ];
    for name in unlabelled {
        metrics::counter!(name).absolute(0);
    }
}

/// The counters of the agent.
pub fn agent() {
    by(metric::AGENT_COMMANDS, label::OUTCOME, &["done", "failed", "timed_out"]);
    by(metric::AGENT_REVOCATIONS, label::OUTCOME, &["done", "failed"]);
    metrics::counter!(metric::LOG_LINES_DROPPED).absolute(0);
}

fn exchanges(
    operation: &'static str,
    result: &'static str,
    reason: &'static str,
    protocol: &'static str,
) {
    let labels = [
        (label::OPERATION, operation),
        (label::RESULT, result),
        (label::REASON, reason),
        (label::PROTOCOL, protocol),
    ];
    metrics::counter!(metric::EXCHANGES, &labels).absolute(0);
}

fn by(name: &'static str, label: &'static str, values: &[&'static str]) {
    for value in values {
        metrics::counter!(name, label => *value).absolute(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn counters_are_there_before_the_first_event_and_do_not_lose_one() {
        let (recorder, page) = Metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!(metric::AUDIT_UNRECORDED).increment(2);
            server();
        });
        let page = page.render();
        for line in [
            r#"octosts_exchanges_total{operation="exchange",result="denied",reason="OVERLOADED",protocol="grpc"} 0"#,
            r#"octosts_exchanges_total{operation="check",result="granted",reason="",protocol="rest"} 0"#,
            r#"octosts_issuer_fetches_total{outcome="failed"} 0"#,
            "octosts_audit_unrecorded_total 2",
            "octosts_all_repositories_tokens_total 0",
            "octosts_forwarded_untrusted_total 0",
            "octosts_log_lines_dropped_total 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line:?} is not in\n{page}");
        }
    }
}
