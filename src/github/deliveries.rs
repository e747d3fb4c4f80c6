//! What GitHub delivered to an App's webhook, and delivering it again.

use serde::Deserialize;

use super::{
    GitHub,
    client::{ApiReply, Call, Endpoint},
    error::Error,
    limits::LimitKey,
    pool::App,
};
use crate::clock::UnixTime;

/// One attempt of GitHub's to deliver an event.
#[derive(Debug, Clone, Deserialize)]
pub struct DeliveryAttempt {
    /// Its own id, by which it is delivered again.
    pub id: u64,
    /// The id that all attempts of one delivery share.
    pub guid: String,
    /// RFC 3339.
    delivered_at: String,
    /// The receiver's status; 0 if there was no answer.
    pub status_code: u16,
    /// The event's name.
    pub event: String,
}

impl DeliveryAttempt {
    /// When it was made, if GitHub says so in a form that is known.
    pub fn delivered_at(&self) -> Option<UnixTime> {
        UnixTime::parse_rfc3339(&self.delivered_at)
    }
}

/// A page of attempts, newest first.
#[derive(Debug, Clone)]
pub struct Attempts {
    /// The attempts.
    pub attempts: Vec<DeliveryAttempt>,
    /// What the next page is requested by, if there is one.
    pub next: Option<String>,
}

/// An App's webhook as GitHub has it.
#[derive(Debug, Clone, Deserialize)]
pub struct HookConfig {
    /// Where deliveries go; empty if there is no webhook.
    #[serde(default)]
    pub url: String,
    /// Whether there is a secret; GitHub shows stars in its place.
    #[serde(default)]
    pub secret: Option<String>,
}

impl GitHub {
    /// A page of what was delivered to the App: only what failed, or everything.
    ///
    /// # Errors
    /// GitHub cannot be reached, or the App has no webhook.
    pub async fn deliveries(
        &self,
        app: &App,
        only_failed: bool,
        cursor: Option<&str>,
    ) -> Result<Attempts, Error> {
        let mut path = "/app/hook/deliveries?per_page=100".to_owned();
        if only_failed {
            path.push_str("&status=failure");
        }
        if let Some(cursor) = cursor {
            path.push_str(&format!("&cursor={cursor}"));
        }
        let reply = self.hook_call(app, http::Method::GET, path).await?;
        Ok(Attempts { attempts: reply.json()?, next: next_cursor(&reply) })
    }

    /// Has GitHub deliver again.
    ///
    /// # Errors
    /// GitHub cannot be reached, or has forgotten the delivery.
    pub async fn redeliver(&self, app: &App, attempt: &DeliveryAttempt) -> Result<(), Error> {
        let path = format!("/app/hook/deliveries/{}/attempts", attempt.id);
        self.hook_call(app, http::Method::POST, path).await.map(drop)
    }

    /// Where the App's deliveries go.
    ///
    /// # Errors
    /// GitHub cannot be reached, or the App has no webhook.
    pub async fn hook_config(&self, app: &App) -> Result<HookConfig, Error> {
        self.hook_call(app, http::Method::GET, "/app/hook/config".to_owned()).await?.json()
    }

    async fn hook_call(
        &self,
        app: &App,
        method: http::Method,
        path: String,
    ) -> Result<ApiReply, Error> {
        let call = Call::get(Endpoint::Hook, path, self.inner.app_header(app).await?);
        let call = Call { method, ..call };
        Ok(self.inner.call_as(app, LimitKey::App(app.id()), &call).await?)
    }
}

/// The cursor in the link to the next page (RFC 8288).
fn next_cursor(reply: &ApiReply) -> Option<String> {
    let link = reply.headers.get("link")?.to_str().ok()?;
    let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once("cursor=")?;
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_.%=".contains(*letter);
    let cursor: String = rest.chars().take_while(is_plain).collect();
    (!cursor.is_empty()).then_some(cursor)
}
