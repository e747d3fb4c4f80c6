//! What callers are answered, on either wire.
//!
//! One table says which gRPC code and HTTP status a reason has, chosen together so that the wires
//! cannot disagree. Nothing of a refusal's cause is ever sent: callers get fixed text, operators
//! find the cause in the audit record.

use std::{error::Error, fmt, sync::Arc};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message;
use serde::Serialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{
    clock::UnixTime,
    proto::{oidc, rpc},
    reason::{Reason, Refusal},
};

mod check;
mod details;

pub(super) use check::{grpc_check, rest_check};
use details::Detail;
pub(super) use details::cut;

/// The code and status of a reason: the only place that knows them. The status is the one that
/// gRPC gateways give the code.
const fn wire(reason: Reason) -> (Code, StatusCode) {
    use Reason as R;
    match reason {
        R::TokenMalformed
        | R::TokenTooLarge
        | R::ScopeInvalid
        | R::IdentityInvalid
        | R::ScopesConflict
        | R::RequestInvalid => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        R::TrustedIssuersInvalid | R::AppPinUnsatisfied => {
            (Code::FailedPrecondition, StatusCode::BAD_REQUEST)
        }
        R::CredentialMissing
        | R::CredentialAmbiguous
        | R::SignatureInvalid
        | R::TokenExpired
        | R::TokenNotYetValid
        | R::TokenClaimsInvalid
        | R::TokenReplayed
        | R::IssuerNotTrusted => (Code::Unauthenticated, StatusCode::UNAUTHORIZED),
        R::PolicyMismatch
        | R::IssuerNotPermitted
        | R::InstallationSuspended
        | R::PolicyForbidden
        | R::PermissionRefused
        | R::RepositoryRefused
        | R::DeniedByOperator => (Code::PermissionDenied, StatusCode::FORBIDDEN),
        R::NoApp
        | R::NotInstalled
        | R::RepositoryNotAccessible
        | R::PolicyNotFound
        | R::PolicyInvalid => (Code::NotFound, StatusCode::NOT_FOUND),
        R::GithubRateLimited | R::RateLimited | R::Overloaded => {
            (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS)
        }
        R::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
        R::Unimplemented => (Code::Unimplemented, StatusCode::NOT_IMPLEMENTED),
        R::GithubUnavailable
        | R::IssuerMisconfigured
        | R::IssuerUnavailable
        | R::TrustedIssuersUnavailable
        | R::SignerUnavailable
        | R::AuditUnavailable => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        R::Deadline => (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
    }
}

/// The gRPC code of a reason.
pub(super) const fn code(reason: Reason) -> Code {
    wire(reason).0
}

/// The name of a reason's gRPC code, as Go's library writes it.
pub fn code_name(reason: Reason) -> &'static str {
    match code(reason) {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Every reason with its gRPC code and HTTP status. Used to check the documentation.
pub fn table() -> impl Iterator<Item = (Reason, i32, u16)> {
    Reason::ALL.iter().map(|reason| {
        let (code, status) = wire(*reason);
        (*reason, code as i32, status.as_u16())
    })
}

/// How a request ended, for the access log. Travels in the response's extensions, on gRPC as the
/// source of the status there.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    /// The word that the caller got.
    pub(super) reason: Reason,
    /// What only operators read.
    pub(super) cause: Option<String>,
}

impl Refused {
    fn of(refusal: &Refusal) -> Self {
        Self { reason: refusal.reason, cause: refusal.cause.clone() }
    }

    /// What a response says of itself, whichever wire it is for.
    pub(super) fn in_response(response: &Response) -> Option<&Self> {
        let extensions = response.extensions();
        extensions.get::<Self>().or_else(|| {
            extensions.get::<Status>().and_then(|status| status.source()?.downcast_ref::<Self>())
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl Error for Refused {}

/// A token for a gRPC caller.
pub(super) fn grpc_token(token: &str, expires_at: UnixTime) -> oidc::RawToken {
    oidc::RawToken {
        token: token.to_owned(),
        refresh_token: String::new(),
        expiry: Some(prost_types::Timestamp { seconds: expires_at.as_secs(), nanos: 0 }),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestToken<'a> {
    token: &'a str,
    refresh_token: &'static str,
    expiry: String,
    #[serde(flatten)]
    oauth: Option<OauthToken<'a>>,
}

/// The names of RFC 6749, section 5.1.
#[derive(Serialize)]
struct OauthToken<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
}

/// A token for a REST caller: proto JSON with unset fields present. Where `now` is given, the
/// names of OAuth stand beside it: published scripts read `.access_token` from a GET, while
/// strict clients of proto JSON, which POST, refuse names that they do not know.
pub(super) fn rest_token(token: &str, expires_at: UnixTime, now: Option<UnixTime>) -> Response {
    let oauth = now.map(|now| OauthToken {
        access_token: token,
        token_type: "Bearer",
        expires_in: expires_at.since(now).as_secs(),
    });
    Json(RestToken { token, refresh_token: "", expiry: expires_at.rfc3339(), oauth })
        .into_response()
}

/// A refusal for a gRPC caller.
pub(super) fn grpc(refusal: &Refusal) -> Status {
    let (code, _) = wire(refusal.reason);
    let body = rpc::Status {
        code: code as i32,
        message: refusal.message.to_string(),
        details: Detail::all(refusal).iter().map(Detail::to_any).collect(),
    };
    let mut status =
        Status::with_details(code, refusal.message.as_ref(), body.encode_to_vec().into());
    status.set_source(Arc::new(Refused::of(refusal)));
    status
}

/// A refusal for a gRPC caller that compresses what it sends: the reply says that it must not.
pub(super) fn grpc_uncompressed(refusal: &Refusal) -> Response {
    let mut response = grpc(refusal).into_http();
    response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    response
}

/// A refusal for a REST caller whose headers are too large; they have a status of their own.
pub(super) fn headers_too_large(refusal: &Refusal) -> Response {
    let mut response = rest(refusal);
    if refusal.reason == Reason::RequestInvalid {
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    response
}

/// A refusal for a REST caller.
pub(super) fn rest(refusal: &Refusal) -> Response {
    let (code, status) = wire(refusal.reason);
    let mut response = rest_error(status, code, &refusal.message, &Detail::all(refusal));
    let headers = response.headers_mut();
    if let Some(seconds) = retry_seconds(refusal) {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, challenge(refusal.reason));
    }
    response.extensions_mut().insert(Refused::of(refusal));
    response
}

/// What RFC 6750, section 3, wants with a 401: nothing of an error where no token was sent.
fn challenge(reason: Reason) -> HeaderValue {
    if reason == Reason::CredentialMissing {
        HeaderValue::from_static("Bearer")
    } else {
        HeaderValue::from_static(r#"Bearer error="invalid_token""#)
    }
}

/// A path that is not there.
pub(super) fn no_such_path() -> Response {
    rest_error(StatusCode::NOT_FOUND, Code::NotFound, "no such path", &[])
}

/// A method that a path does not have. `allowed` are those that it has.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = rest_error(
        StatusCode::METHOD_NOT_ALLOWED,
        Code::Unimplemented,
        "method not allowed",
        &[Detail::info(Reason::Unimplemented)],
    );
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A request on a gRPC path that is not gRPC.
pub(super) fn not_grpc() -> Response {
    rest_error(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidArgument,
        "this path takes content-type application/grpc",
        &[Detail::info(Reason::RequestInvalid)],
    )
}

fn rest_error(status: StatusCode, code: Code, message: &str, details: &[Detail]) -> Response {
    let details: Vec<Value> = details.iter().map(Detail::to_json).collect();
    let body = Json(json!({ "code": code as i32, "message": message, "details": details }));
    (status, body).into_response()
}

/// What to answer where gRPC's own machinery refused a request before it reached us, for a message
/// that does not decode or is too large: it calls most of these a fault of the server.
pub(super) fn unreadable(headers: &HeaderMap) -> Option<Refusal> {
    let made_here = headers.contains_key("grpc-status-details-bin");
    let code = Status::from_header_map(headers)?.code();
    let unreadable =
        matches!(code, Code::Internal | Code::OutOfRange | Code::Unknown) && !made_here;
    unreadable.then(|| Refusal::new(Reason::RequestInvalid, "the request message cannot be read"))
}

/// How long to wait, in whole seconds, where waiting can help; at least one.
fn retry_seconds(refusal: &Refusal) -> Option<u64> {
    let (code, _) = wire(refusal.reason);
    let can_help = matches!(code, Code::ResourceExhausted | Code::Unavailable);
    if !can_help || refusal.reason == Reason::IssuerMisconfigured {
        return None;
    }
    let wait = refusal.retry_after.unwrap_or_default();
    Some(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1))
}

#[cfg(test)]
mod tests;
