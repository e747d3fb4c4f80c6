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
    proto::octosts::v1::{CheckResponse, Condition, KubernetesIdentity},
    reason::Workload,
};

/// The reply for a gRPC caller.
pub(in crate::transport) fn grpc_check(checked: Checked) -> CheckResponse {
    match checked {
        Checked::Granted(terms) => CheckResponse {
            granted: true,
            conditions: terms.conditions.iter().map(details::condition).collect(),
            permissions: terms
                .permissions
                .into_iter()
                .map(|(name, level)| (name, level.as_str().to_owned()))
                .collect(),
            repositories: match terms.repositories {
                Repositories::All => Vec::new(),
                Repositories::These(names) => names.iter().map(RepoName::to_string).collect(),
            },
            kubernetes: terms.workload.map(identity),
            ..CheckResponse::default()
        },
        Checked::Refused(refusal) => CheckResponse {
            reason: refusal.reason.as_str().to_owned(),
            message: refusal.message.into_owned(),
            conditions: refusal.conditions.iter().map(details::condition).collect(),
            kubernetes: refusal.workload.map(|workload| identity(*workload)),
            ..CheckResponse::default()
        },
    }
}

fn identity(workload: Workload) -> KubernetesIdentity {
    let Workload { namespace, service_account, pod, node } = workload;
    let [service_account, pod, node] = [service_account, pod, node].map(Option::unwrap_or_default);
    KubernetesIdentity { namespace, service_account, pod, node }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<RestIdentity<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestIdentity<'a> {
    namespace: &'a str,
    service_account: &'a str,
    pod: &'a str,
    node: &'a str,
}

impl<'a> From<&'a KubernetesIdentity> for RestIdentity<'a> {
    fn from(
        KubernetesIdentity { namespace, service_account, pod, node }: &'a KubernetesIdentity,
    ) -> Self {
        Self { namespace, service_account, pod, node }
    }
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
        Self {
            field,
            satisfied: *satisfied,
            got: got.as_deref(),
            wanted: wanted.as_deref(),
            hint: hint.as_deref(),
        }
    }
}

/// The reply for a REST caller.
pub(in crate::transport) fn rest_check(checked: Checked) -> Response {
    let reply = grpc_check(checked);
    let CheckResponse {
        granted,
        reason,
        message,
        conditions,
        permissions,
        repositories,
        kubernetes,
    } = reply;
    let reply = RestCheck {
        granted,
        reason: &reason,
        message: &message,
        conditions: conditions.iter().map(RestCondition::from).collect(),
        permissions: permissions
            .iter()
            .map(|(name, level)| (name.as_str(), level.as_str()))
            .collect(),
        repositories: &repositories,
        kubernetes: kubernetes.as_ref().map(RestIdentity::from),
    };
    Json(reply).into_response()
}
