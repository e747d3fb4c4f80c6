//! What a check is answered: the same message on both wires, on REST as proto JSON.
//!
//! A reply is a message and no header, so all conditions fit: a policy has some seventy at most.

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::details;
use crate::{
    exchange::Checked,
    name::RepoName,
    policy::Repositories,
    proto::octosts::v1::{CheckResponse, Condition},
};

/// The reply for a gRPC caller.
pub(in crate::transport) fn grpc_check(checked: Checked) -> CheckResponse {
    match checked {
        Checked::Granted(terms) => CheckResponse {
            granted: true,
            conditions: terms.conditions.iter().map(details::condition).collect(),
            permissions: terms.permissions.into_iter().map(|(name, level)| (name, level.as_str().to_owned())).collect(),
            repositories: match terms.repositories {
                Repositories::All => Vec::new(),
                Repositories::These(names) => names.iter().map(RepoName::to_string).collect(),
            },
            ..CheckResponse::default()
        },
        Checked::Refused(refusal) => CheckResponse {
            reason: refusal.reason.as_str().to_owned(),
            message: refusal.message.into_owned(),
            conditions: refusal.conditions.iter().map(details::condition).collect(),
            ..CheckResponse::default()
        },
    }
}

/// Proto JSON, unset fields present.
#[derive(Serialize)]
struct RestCheck<'a> {
    granted: bool,
    reason: &'a str,
    message: &'a str,
    conditions: Vec<RestCondition<'a>>,
    permissions: BTreeMap<&'a str, &'a str>,
    repositories: &'a [String],
}

#[derive(Serialize)]
struct RestCondition<'a> {
    field: &'a str,
    satisfied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    got: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> From<&'a Condition> for RestCondition<'a> {
    fn from(condition: &'a Condition) -> Self {
        let Condition { field, satisfied, got, wanted, hint } = condition;
        Self { field, satisfied: *satisfied, got: got.as_deref(), wanted: wanted.as_deref(), hint: hint.as_deref() }
    }
}

/// The reply for a REST caller.
pub(in crate::transport) fn rest_check(checked: Checked) -> Response {
    let CheckResponse { granted, reason, message, conditions, permissions, repositories } = grpc_check(checked);
    let reply = RestCheck {
        granted,
        reason: &reason,
        message: &message,
        conditions: conditions.iter().map(RestCondition::from).collect(),
        permissions: permissions.iter().map(|(name, level)| (name.as_str(), level.as_str())).collect(),
        repositories: &repositories,
    };
    Json(reply).into_response()
}
