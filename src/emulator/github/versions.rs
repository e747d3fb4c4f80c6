//! API versions: the state answers with everything, and here an answer becomes what the version
//! that the request asked for has.

use serde_json::Value;

use super::super::server::Request;
use super::{
    reply::{Body, DOCS, Reply},
    route::RouteKind,
};

/// A version of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Where none is asked for.
    V2022,
    V2026,
}

impl Version {
    /// By the `X-GitHub-Api-Version` header.
    pub(super) fn asked(request: &Request) -> Result<Self, Reply> {
        match request.header("x-github-api-version") {
            None | Some("2022-11-28") => Ok(Self::V2022),
            Some("2026-03-10") => Ok(Self::V2026),
            Some(other) => {
                Err(Reply::error(400, format!("The API version {other} is not supported."), DOCS))
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V2022 => "2022-11-28",
            Self::V2026 => "2026-03-10",
        }
    }

    /// The reply as this version has it.
    pub(super) fn shape(self, kind: RouteKind, mut reply: Reply) -> Reply {
        let Body::Json(body) = &mut reply.body else { return reply };
        match (self, kind) {
            (Self::V2022, RouteKind::Contents) => {
                // A submodule in a listing was called a file.
                for item in body.as_array_mut().into_iter().flatten() {
                    if item.get("type").is_some_and(|kind| kind == "submodule") {
                        set(item, "type", "file");
                    }
                }
            }
            (Self::V2022, _) => {}
            (Self::V2026, RouteKind::RateLimit) => remove(body, "rate"),
            (Self::V2026, RouteKind::Repository) => remove(body, "has_downloads"),
            (Self::V2026, _) => {
                let repositories = body.get_mut("repositories").and_then(Value::as_array_mut);
                for repository in repositories.into_iter().flatten() {
                    remove(repository, "has_downloads");
                }
            }
        }
        reply
    }
}

fn set(body: &mut Value, name: &str, value: &str) {
    if let Some(members) = body.as_object_mut() {
        members.insert(name.into(), value.into());
    }
}

fn remove(body: &mut Value, name: &str) {
    if let Some(members) = body.as_object_mut() {
        members.remove(name);
    }
}
