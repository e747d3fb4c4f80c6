//! How one call ended without success: an answer that GitHub gave, or none.
//!
//! octocrab's errors end in this file. They are never shown with `Debug`, which resolves a
//! backtrace for a tenth of a second and more. GitHub's words are bounded here, and freed of
//! tokens.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::error::Cause;
use crate::{clock::UnixTime, egress};

/// The longest wait that an answer can impose: the window of GitHub's primary limit.
pub(super) const MAX_LIMIT: Duration = Duration::from_secs(3600);

/// How a call ended without success.
#[derive(Debug)]
pub(super) enum Failure {
    /// GitHub answered with a status that is not a success.
    Answered(Box<Answer>),
    /// There was no connection: GitHub has not seen the call.
    NotSent(Cause),
    /// The call was sent, and the connection closed before the whole answer had come.
    NoAnswer(Cause),
    /// The answer did not come in time.
    TimedOut,
    /// The answer is not what GitHub documents.
    Unexpected(Cause),
}

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// GitHub's words, on one line, without tokens, at most 256 bytes.
    pub(super) message: String,
    /// Whether GitHub says that the blob is too large for the endpoint.
    pub(super) too_large: bool,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<u64>,
    /// `x-ratelimit-remaining`.
    pub(super) remaining: Option<u64>,
    /// `x-ratelimit-reset`, in seconds since the epoch.
    pub(super) reset: Option<u64>,
    /// `Date`: GitHub's time.
    pub(super) date: Option<UnixTime>,
}

impl Failure {
    /// The status of the answer, if there is one.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answered(answer) => Some(answer.status),
            Self::NotSent(_) | Self::NoAnswer(_) | Self::TimedOut | Self::Unexpected(_) => None,
        }
    }

    /// Whether another attempt can do better.
    pub(super) fn is_repeatable(&self) -> bool {
        match self {
            Self::Answered(answer) => answer.is_outage(),
            Self::NotSent(_) | Self::NoAnswer(_) | Self::TimedOut => true,
            Self::Unexpected(_) => false,
        }
    }

    /// How long GitHub asks to wait.
    pub(super) fn server_wait(&self) -> Option<Duration> {
        match self {
            Self::Answered(answer) => answer.retry_after.map(Duration::from_secs),
            Self::NotSent(_) | Self::NoAnswer(_) | Self::TimedOut | Self::Unexpected(_) => None,
        }
    }
}

impl Answer {
    /// Whether GitHub's words contain `phrase`, in any letter case.
    pub(super) fn says(&self, phrase: &str) -> bool {
        self.message.to_ascii_lowercase().contains(&phrase.to_ascii_lowercase())
    }

    /// Whether GitHub, or a gateway before it, failed.
    pub(super) fn is_outage(&self) -> bool {
        (500..=504).contains(&self.status.as_u16())
    }

    /// What operators see of it.
    pub(super) fn cause(&self) -> Cause {
        format!("{}: {}", self.status.as_u16(), self.message).into()
    }
}

#[cfg(test)]
impl Answer {
    pub(super) fn for_test(status: u16, message: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        let message = message.to_owned();
        Self {
            status,
            message,
            too_large: false,
            retry_after: None,
            remaining: None,
            reset: None,
            date: None,
        }
    }
}

impl From<octocrab::Error> for Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "octocrab's enum is non-exhaustive")]
    fn from(error: octocrab::Error) -> Self {
        use egress::Error as E;
        match error {
            octocrab::Error::GitHub { source, .. } => {
                Self::Answered(Box::new(Answer::from(*source)))
            }
            octocrab::Error::Service { source, .. } => {
                let cause = || chain(source.as_ref()).into();
                match E::of(source.as_ref()) {
                    E::TooLarge => Self::Unexpected("the answer is too large".into()),
                    E::Encoding => Self::Unexpected("the answer is compressed".into()),
                    // The timeout of an attempt is not here: this one is the connection's.
                    E::Connect(_) | E::Certificate(_) | E::Refused | E::Url | E::Timeout => {
                        Self::NotSent(cause())
                    }
                    E::Closed | E::Broken | E::Status(_) => Self::NoAnswer(cause()),
                }
            }
            _ => Self::Unexpected("the call could not be made, or its answer not be read".into()),
        }
    }
}

impl From<octocrab::GitHubError> for Answer {
    fn from(error: octocrab::GitHubError) -> Self {
        let headers = error.headers.unwrap_or_default();
        let too_large = error
            .errors
            .iter()
            .flatten()
            .any(|e| e.get("code").is_some_and(|code| code == "too_large"));
        Self {
            status: error.status_code,
            message: one_line(&without_tokens(&error.message)),
            too_large,
            retry_after: number(&headers, header::RETRY_AFTER.as_str()),
            remaining: number(&headers, "x-ratelimit-remaining"),
            reset: number(&headers, "x-ratelimit-reset"),
            date: date(&headers),
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The time that GitHub put on a reply.
pub(super) fn date(headers: &HeaderMap) -> Option<UnixTime> {
    UnixTime::parse_http_date(headers.get(header::DATE)?.to_str().ok()?)
}

/// An error and what it came from, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    one_line(&text)
}

/// The text with every word hidden that may be a token: nothing that GitHub echoes gets into a
/// record.
fn without_tokens(text: &str) -> String {
    let is_token = |word: &str| word.contains("ghs_") || word.contains("eyJ");
    let hidden = |word| if is_token(word) { "[REDACTED]" } else { word };
    text.split(' ').map(hidden).collect::<Vec<_>>().join(" ")
}

/// The text without control characters, cut at 256 bytes.
pub(super) fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(256));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_github_echoes_are_hidden() {
        for (text, shown) in [
            ("Bad token ghs_abc.def-x given", "Bad token [REDACTED] given"),
            ("token=eyJhbGciOi.x.y", "[REDACTED]"),
            ("Not Found", "Not Found"),
        ] {
            assert_eq!(without_tokens(text), shown);
        }
    }
}
