//! An App's webhook: where deliveries go, which there were, and sending them again.

use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use super::super::server::Request;
use super::{
    GitHub, Shared,
    deliveries::{Attempt, Hook},
    reply::{Answer, Reply},
    route::RouteKind,
    state::State,
};
use crate::name::AppId;

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const PER_PAGE: usize = 30;
const MAX_PER_PAGE: usize = 100;

impl GitHub {
    /// Sets an App's webhook.
    pub fn set_webhook(&self, app: AppId, url: &str, secret: &str) {
        let mut state = self.shared.lock();
        state.hooks.retain(|hook| hook.app != app.0);
        state.hooks.push(Hook { app: app.0, url: url.into(), secret: secret.into() });
    }

    /// Delivers an event to an App's webhook: the delivery's id, once the receiver has answered.
    pub async fn deliver(&self, app: AppId, event: &str, body: Value) -> String {
        let id = self.shared.lock().attempt(app.0, event, body, false);
        send(&self.shared, id).await
    }

    /// As [`GitHub::deliver`], and nothing arrives.
    pub async fn lose(&self, app: AppId, event: &str, body: Value) -> String {
        let id = self.shared.lock().attempt(app.0, event, body, true);
        send(&self.shared, id).await
    }

    /// As if a delivery had arrived and been accepted, and the receiver had ended then.
    pub fn accepted(&self, app: AppId, event: &str, body: Value) -> String {
        let mut state = self.shared.lock();
        let id = state.attempt(app.0, event, body, true);
        let attempt = state.attempts.iter_mut().find(|attempt| attempt.id == id);
        attempt.map_or_else(String::new, |attempt| {
            attempt.status = 200;
            attempt.guid.clone()
        })
    }

    /// The statuses that the receiver answered a delivery with, oldest first.
    pub fn delivery_statuses(&self, guid: &str) -> Vec<u16> {
        let state = self.shared.lock();
        let attempts = state.attempts.iter().filter(|attempt| attempt.guid == guid);
        attempts.map(|attempt| attempt.status).collect()
    }
}

impl State {
    fn attempt(&mut self, app: u64, event: &str, body: Value, is_lost: bool) -> u64 {
        let id = 12_000_000 + self.attempts.len() as u64;
        let attempt = Attempt {
            id,
            app,
            guid: uuid::Uuid::new_v4().to_string(),
            event: event.into(),
            body,
            delivered_at: self.now(),
            is_redelivery: false,
            is_lost,
            status: 0,
        };
        self.attempts.push(attempt);
        id
    }
}

/// Sends a delivery as GitHub does: the id that its attempts share.
async fn send(shared: &Shared, id: u64) -> String {
    let (attempt, hook) = {
        let state = shared.lock();
        let attempt = state.attempts.iter().find(|attempt| attempt.id == id).cloned();
        let Some(attempt) = attempt else { return String::new() };
        let hook = state.hooks.iter().find(|hook| hook.app == attempt.app).cloned();
        (attempt, hook)
    };
    let guid = attempt.guid.clone();
    let status = match hook {
        Some(hook) if !attempt.is_lost => post(&hook, &attempt).await.unwrap_or(0),
        _ => 0,
    };
    let mut state = shared.lock();
    if let Some(attempt) = state.attempts.iter_mut().find(|attempt| attempt.id == id) {
        attempt.status = status;
    }
    guid
}

async fn post(hook: &Hook, attempt: &Attempt) -> Option<u16> {
    let body = attempt.body.to_string();
    let sign = |algorithm, prefix: &str| {
        let key = hmac::Key::new(algorithm, hook.secret.as_bytes());
        format!("{prefix}={}", hex::encode(hmac::sign(&key, body.as_bytes())))
    };
    let request = http::Request::post(&hook.url)
        .header("content-type", "application/json")
        .header("user-agent", "GitHub-Hookshot/0000000")
        .header("x-github-event", &attempt.event)
        .header("x-github-delivery", &attempt.guid)
        .header("x-github-hook-id", hook.app)
        .header("x-github-hook-installation-target-id", hook.app)
        .header("x-github-hook-installation-target-type", "integration")
        .header("x-hub-signature", sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, "sha1"))
        .header("x-hub-signature-256", sign(hmac::HMAC_SHA256, "sha256"))
        .body(Full::<Bytes>::from(body.clone()))
        .ok()?;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let reply = tokio::time::timeout(TIMEOUT, client.request(request)).await.ok()?.ok()?;
    Some(reply.status().as_u16())
}

/// `GET /app/hook/config`
pub(super) fn config(state: &State, app: u64) -> Answer {
    let hook = state.hooks.iter().find(|hook| hook.app == app);
    let hook = hook.ok_or_else(|| Reply::not_found(RouteKind::HookConfig.documentation()))?;
    let config = json!({
        "content_type": "json", "insecure_ssl": "0", "secret": "********", "url": hook.url,
    });
    Ok(Reply::json(200, config))
}

/// `GET /app/hook/deliveries`, newest first. The cursor is the id of the last one on a page.
pub(super) fn deliveries(state: &State, app: u64, request: &Request) -> Answer {
    let is_failure = |attempt: &Attempt| !(200..400).contains(&attempt.status);
    let wanted = request.query("status");
    let cursor = request.query("cursor").and_then(|cursor| cursor.parse::<u64>().ok());
    let per_page = request.query("per_page").and_then(|size| size.parse().ok());
    let per_page = per_page.unwrap_or(PER_PAGE).clamp(1, MAX_PER_PAGE);
    let found = state.attempts.iter().rev().filter(|attempt| {
        attempt.app == app
            && cursor.is_none_or(|cursor| attempt.id < cursor)
            && match wanted.as_deref() {
                Some("failure") => is_failure(attempt),
                Some("success") => !is_failure(attempt),
                _ => true,
            }
    });
    let mut page: Vec<&Attempt> = found.take(per_page + 1).collect();
    let has_more = page.len() > per_page;
    page.truncate(per_page);
    let next = page.last().map_or(0, |attempt| attempt.id);
    let reply = Reply::json(200, page.into_iter().map(shape).collect());
    let link = format!("<{}/app/hook/deliveries?cursor={next}>; rel=\"next\"", state.api);
    Ok(if has_more { reply.with("link", link) } else { reply })
}

fn shape(attempt: &Attempt) -> Value {
    let pointer = |pointer: &str| attempt.body.pointer(pointer).cloned().unwrap_or(Value::Null);
    json!({
        "id": attempt.id, "guid": attempt.guid, "delivered_at": attempt.delivered_at.rfc3339(),
        "redelivery": attempt.is_redelivery, "duration": 0.1,
        "status": if attempt.status == 0 { "failed to connect" } else { "OK" },
        "status_code": attempt.status, "event": attempt.event, "action": pointer("/action"),
        "installation_id": pointer("/installation/id"), "repository_id": pointer("/repository/id"),
    })
}

/// `POST /app/hook/deliveries/{id}/attempts`
pub(super) fn redeliver(state: &mut State, app: u64, id: u64) -> Answer {
    let documentation = RouteKind::Redeliver.documentation();
    let found = state.attempts.iter().find(|attempt| attempt.id == id && attempt.app == app);
    let Some(first) = found.cloned() else { return Err(Reply::not_found(documentation)) };
    let again = Attempt {
        id: 12_000_000 + state.attempts.len() as u64,
        delivered_at: state.now(),
        is_redelivery: true,
        is_lost: false,
        status: 0,
        ..first
    };
    state.to_send.push(again.id);
    state.attempts.push(again);
    Ok(Reply::json(202, json!({})))
}

/// Sends what was asked to be sent again.
pub(super) fn send_again(shared: &Shared) {
    let ids = std::mem::take(&mut shared.lock().to_send);
    for id in ids {
        let shared = shared.clone();
        tokio::spawn(async move { send(&shared, id).await });
    }
}
