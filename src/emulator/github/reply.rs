//! Answers with GitHub's shapes: JSON bodies, and errors with message, documentation link and
//! status.

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::server::{End, Response};

/// The documentation link of errors that belong to no operation.
pub(super) const DOCS: &str = "https://docs.github.com/rest";

/// An answer while it is being made; faults may still change it.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body,
}

/// What an answer carries.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Empty,
    Json(Value),
    /// Media type and bytes.
    Raw(&'static str, Bytes),
}

/// Either way an answer: an error ends the work on a request early.
pub(super) type Answer = Result<Reply, Reply>;

impl Reply {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Body::Json(body) }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty }
    }

    pub(super) fn raw(status: u16, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Raw(media_type, body.into()) }
    }

    /// A basic error: `status` is a string in it.
    pub(super) fn error(status: u16, message: impl Into<String>, documentation: &str) -> Self {
        let message: String = message.into();
        Self::json(
            status,
            json!({"message": message, "documentation_url": documentation, "status": status.to_string()}),
        )
    }

    pub(super) fn not_found(documentation: &str) -> Self {
        Self::error(404, "Not Found", documentation)
    }

    /// A validation error about one field.
    pub(super) fn invalid(resource: &str, field: &str, code: &str, documentation: &str) -> Self {
        Self::json(
            422,
            json!({
                "message": "Validation Failed",
                "errors": [{"resource": resource, "field": field, "code": code}],
                "documentation_url": documentation,
                "status": "422",
            }),
        )
    }

    /// The same bytes as another type.
    #[must_use]
    pub(super) fn of_type(mut self, media_type: &'static str) -> Self {
        self.body = Body::Raw(media_type, self.bytes());
        self
    }

    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self) -> Response {
        let Self { status, mut headers, body } = self;
        let body = match body {
            Body::Empty => Bytes::new(),
            Body::Json(value) => {
                headers.push(("content-type", "application/json; charset=utf-8".into()));
                value.to_string().into()
            }
            Body::Raw(media_type, bytes) => {
                headers.push(("content-type", media_type.into()));
                bytes
            }
        };
        Response { status, headers, body, end: End::Whole }
    }

    /// The bytes of the body, for its entity tag.
    pub(super) fn bytes(&self) -> Bytes {
        match &self.body {
            Body::Empty => Bytes::new(),
            Body::Json(value) => value.to_string().into(),
            Body::Raw(_, bytes) => bytes.clone(),
        }
    }
}
