//! Why there is no token: the server's own words, or why there are none.

use std::{fmt, time::Duration};

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::{
    cloud,
    egress::{self, Answer},
    reason::Condition,
};

/// The maximum number of characters of a server's text that are repeated.
const MAX_CHARS: usize = 512;
/// At most so many conditions.
const MAX_CONDITIONS: usize = 128;

/// gRPC codes that this module gives out by itself.
const UNKNOWN: i32 = 2;
const DEADLINE_EXCEEDED: i32 = 4;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

/// What the user can do about an error: the exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The command line or the configuration is wrong.
    Usage,
    /// What is needed cannot be reached now, or asks to be left alone for a while.
    Unavailable,
    /// The answer is no.
    Refused,
    /// Anything else.
    Internal,
}

/// Why there is no token. Texts are the server's, without control characters, cut, and without the
/// token that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The gRPC code: that of the reply's body, or the one that its HTTP status has; 14 for no
    /// connection, 4 for no answer in time.
    pub code: i32,
    /// The stable word of the contract, if the server gave one.
    pub reason: Option<String>,
    /// What happened, in words.
    pub message: String,
    /// The policy's conditions, as far as the reply lists them.
    pub conditions: Vec<Condition>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// By which the server's operator finds the request.
    pub request_id: Option<String>,
    /// Whether a token may have been minted that did not arrive: the server says so, or the
    /// connection broke after the request was sent. Such an exchange is not repeated.
    pub may_have_minted: bool,
    usage: bool,
    is_repeatable: bool,
}

impl Error {
    /// What is wrong with how we were called.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(INTERNAL, message) }
    }

    /// What is wrong on this machine or with an answer.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(INTERNAL, message)
    }

    /// What is missing for now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, message)
    }

    /// The same with another code and text.
    pub(super) fn saying(self, code: i32, message: &str) -> Self {
        Self { code, message: message.to_owned(), ..self }
    }

    fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: None,
            message: message.into(),
            conditions: Vec::new(),
            retry_after: None,
            request_id: None,
            may_have_minted: false,
            usage: false,
            is_repeatable: false,
        }
    }

    /// No answer from `whom`.
    pub(super) fn unanswered(whom: &str, failure: egress::Error) -> Self {
        use egress::Error as E;
        let code = match failure {
            E::Connect(_) | E::Certificate(_) | E::Closed | E::Broken => UNAVAILABLE,
            E::Timeout => DEADLINE_EXCEEDED,
            E::Refused | E::Url | E::TooLarge | E::Encoding | E::Status(_) => INTERNAL,
        };
        let is_repeatable = matches!(failure, E::Connect(_));
        let may_have_minted =
            matches!(failure, E::Closed | E::Broken | E::Timeout | E::TooLarge | E::Encoding);
        Self {
            is_repeatable,
            may_have_minted,
            ..Self::new(code, format!("no answer from {whom}: {failure}"))
        }
    }

    /// An error of which only the HTTP status is known.
    pub(super) fn of_status(status: StatusCode, message: String) -> Self {
        Self {
            is_repeatable: matches!(status.as_u16(), 502..=504),
            ..Self::new(code_of(status), message)
        }
    }

    /// A refusal in the form of this service, or of whatever stands in front of it.
    pub(super) fn of_answer(answer: &Answer, token: &SecretString) -> Self {
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let mut error = Self::of_status(
            answer.status,
            format!("the server answered {} and no more", answer.status.as_u16()),
        );
        error.retry_after = header("retry-after")
            .and_then(|text| Some(Duration::from_secs(text.trim().parse().ok()?)));
        error.request_id = header("x-request-id").map(|text| plain(text, token));
        if let Ok(body) = serde_json::from_slice::<Body>(&answer.body) {
            error.code = body.code.filter(|code| (1..=16).contains(code)).unwrap_or(error.code);
            error.message = plain(&body.message, token);
            for detail in body.details {
                error.add(detail, token);
            }
        }
        error
    }

    fn add(&mut self, detail: Detail, token: &SecretString) {
        let plain = |text: String| plain(&text, token);
        match detail {
            Detail::Info { reason, metadata } => {
                self.reason = Some(plain(reason));
                self.may_have_minted |= metadata.may_have_minted.as_deref() == Some("true");
            }
            Detail::Condition(condition) if self.conditions.len() < MAX_CONDITIONS => {
                self.conditions.push(condition.plain(token));
            }
            Detail::Condition(_) | Detail::Other => {}
        }
    }

    /// What can be done about it.
    pub fn class(&self) -> Class {
        match self.code {
            _ if self.usage => Class::Usage,
            4 | 8 | 14 => Class::Unavailable,
            5 | 7 | 16 => Class::Refused,
            _ => Class::Internal,
        }
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.is_repeatable && !self.may_have_minted
    }
}

impl From<cloud::Error> for Error {
    fn from(error: cloud::Error) -> Self {
        match error {
            cloud::Error::Configuration(text) => Self::usage(text),
            cloud::Error::Unanswered { whom, failure } => Self::unanswered(&whom, failure),
            cloud::Error::Refused { status, text, .. } => Self::of_status(status, text),
            cloud::Error::Unusable(text) => Self::internal(text),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{reason}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

/// The gRPC code of an HTTP status, as gateways have it.
fn code_of(status: StatusCode) -> i32 {
    match status.as_u16() {
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        429 => 8,
        500 => INTERNAL,
        501 => 12,
        502 | 503 => UNAVAILABLE,
        504 => DEADLINE_EXCEEDED,
        _ => UNKNOWN,
    }
}

/// A text of the server's as it may be shown: no control characters, not endless, not our token.
pub(super) fn plain(text: &str, token: &SecretString) -> String {
    let hidden = text.replace(token.expose_secret(), "[REDACTED]");
    let mut shown: String =
        hidden.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if hidden.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[derive(Deserialize)]
struct Body {
    code: Option<i32>,
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(tag = "@type")]
enum Detail {
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    Info {
        reason: String,
        #[serde(default)]
        metadata: Metadata,
    },
    #[serde(rename = "type.googleapis.com/octosts.v1.Condition")]
    Condition(WireCondition),
    #[serde(other)]
    Other,
}

/// What is read of `ErrorInfo.metadata`. A member of another type is as good as none.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    may_have_minted: Option<String>,
}

/// A condition as it comes over the wire.
#[derive(Deserialize)]
pub(super) struct WireCondition {
    #[serde(default)]
    field: String,
    #[serde(default)]
    satisfied: bool,
    got: Option<String>,
    wanted: Option<String>,
    hint: Option<String>,
}

impl WireCondition {
    /// As it may be shown.
    pub(super) fn plain(self, token: &SecretString) -> Condition {
        let plain = |text: String| plain(&text, token);
        Condition {
            field: plain(self.field),
            satisfied: self.satisfied,
            got: self.got.map(plain),
            wanted: self.wanted.map(plain),
            hint: self.hint.map(plain),
        }
    }
}
