//! The details of an error: for programs, bounded whatever a token or policy holds.

use prost::Message;
use serde_json::{Value, json};

use super::retry_seconds;
use crate::{
    proto::{octosts, rpc},
    reason::{Condition, Reason, Refusal, Workload},
};

/// Whose words the reasons are (AIP-193, `ErrorInfo.domain`).
const DOMAIN: &str = "octo-sts";
/// At most so many bytes of one text in a detail.
const TEXT_BYTES: usize = 256;
/// At most so many bytes of all conditions as they are sent. In base64, with all else, they stay
/// below the 8 KiB that gRPC clients take as metadata by default.
const CONDITIONS_BYTES: usize = 4096;
/// At most so many bytes of the list of failed fields.
const FAILED_BYTES: usize = 1024;

/// One entry of an error's `details`, for either wire.
pub(super) enum Detail {
    Info(rpc::ErrorInfo),
    Retry(u64),
    Condition(octosts::v1::Condition),
}

impl Detail {
    /// All that a refusal has to tell.
    pub(super) fn all(refusal: &Refusal) -> Vec<Self> {
        let mut info = info(refusal.reason);
        if refusal.reason == Reason::PolicyMismatch {
            info.metadata.insert("failed".to_owned(), failed(&refusal.conditions));
        }
        if refusal.may_have_minted {
            info.metadata.insert("may_have_minted".to_owned(), "true".to_owned());
        }
        let told = refusal.workload.as_ref().map_or(0, |workload| tell(workload, &mut info));
        let mut details = vec![Self::Info(info)];
        details.extend(retry_seconds(refusal).map(Self::Retry));
        details.extend(conditions(&refusal.conditions, told));
        details
    }

    /// The word of a reason, and no more.
    pub(super) fn info(reason: Reason) -> Self {
        Self::Info(info(reason))
    }

    pub(super) fn to_any(&self) -> prost_types::Any {
        match self {
            Self::Info(info) => any("google.rpc.ErrorInfo", info),
            Self::Retry(seconds) => {
                let seconds = i64::try_from(*seconds).unwrap_or(i64::MAX);
                let retry_delay = Some(prost_types::Duration { seconds, nanos: 0 });
                any("google.rpc.RetryInfo", &rpc::RetryInfo { retry_delay })
            }
            Self::Condition(condition) => any("octosts.v1.Condition", condition),
        }
    }

    /// Proto JSON of an `Any`: the fields beside the type.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Info(info) => json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": info.reason,
                "domain": info.domain,
                "metadata": info.metadata,
            }),
            Self::Retry(seconds) => json!({
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{seconds}s"),
            }),
            Self::Condition(condition) => {
                let mut json = json!({
                    "@type": "type.googleapis.com/octosts.v1.Condition",
                    "field": condition.field,
                    "satisfied": condition.satisfied,
                });
                let texts = [
                    ("got", &condition.got),
                    ("wanted", &condition.wanted),
                    ("hint", &condition.hint),
                ];
                for (name, text) in texts {
                    if let (Some(object), Some(text)) = (json.as_object_mut(), text) {
                        object.insert(name.to_owned(), Value::from(text.as_str()));
                    }
                }
                json
            }
        }
    }
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

fn info(reason: Reason) -> rpc::ErrorInfo {
    rpc::ErrorInfo {
        reason: reason.as_str().to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: [].into(),
    }
}

/// The fields that the token did not satisfy, comma separated; whole names, as many as fit.
fn failed(conditions: &[Condition]) -> String {
    let mut list = String::new();
    for condition in conditions.iter().filter(|condition| !condition.satisfied) {
        let field = cut(&condition.field);
        if list.len() + field.len() >= FAILED_BYTES {
            break;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&field);
    }
    list
}

/// Tells who the token speaks for, and in how many bytes.
fn tell(workload: &Workload, info: &mut rpc::ErrorInfo) -> usize {
    let Workload { namespace, service_account, pod, node } = workload;
    let names = [
        ("kubernetes_namespace", Some(namespace)),
        ("kubernetes_service_account", service_account.as_ref()),
        ("kubernetes_pod", pod.as_ref()),
        ("kubernetes_node", node.as_ref()),
    ];
    let names = names.into_iter().filter_map(|(key, name)| Some((key.to_owned(), name?.clone())));
    names.map(|(key, name)| (key.len() + name.len(), info.metadata.insert(key, name)).0).sum()
}

/// The conditions as callers see them: those not satisfied first, as many as fit.
/// What is told of the workload takes `told` bytes of their room.
fn conditions(all: &[Condition], told: usize) -> impl Iterator<Item = Detail> {
    let (satisfied, failed): (Vec<_>, Vec<_>) =
        all.iter().partition(|condition| condition.satisfied);
    let mut left = CONDITIONS_BYTES.saturating_sub(told);
    failed.into_iter().chain(satisfied).map(condition).map(Detail::Condition).map_while(
        move |detail| {
            left = left.checked_sub(detail.to_any().encoded_len())?;
            Some(detail)
        },
    )
}

/// A condition as callers see it, each text cut.
pub(super) fn condition(condition: &Condition) -> octosts::v1::Condition {
    octosts::v1::Condition {
        field: cut(&condition.field),
        satisfied: condition.satisfied,
        got: condition.got.as_deref().map(cut),
        wanted: condition.wanted.as_deref().map(cut),
        hint: condition.hint.as_deref().map(cut),
    }
}

/// The text, at most [`TEXT_BYTES`] long, cut between characters.
pub(in crate::transport) fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_BYTES)).unwrap_or_default().to_owned()
}
