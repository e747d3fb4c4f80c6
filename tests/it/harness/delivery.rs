//! Deliveries of GitHub's webhook, signed as GitHub signs them.

use aws_lc_rs::hmac;
use http::Method;
use octo_sts::{
    clock::Clock,
    webhook::{Names, SecretSource, Settings},
};
use serde_json::{Value, json};

use super::{Client, POLICY, World};

/// The secret of the emulated App's webhook.
pub const SECRET: &str = "It's a Secret to Everybody";

/// Settings with these secrets, for these owners.
pub fn webhook(secrets: &[&str], owners: &[&str]) -> Settings {
    let secrets = secrets.iter().map(|secret| secret.as_bytes().to_vec().into()).collect();
    let owners = owners.iter().map(|owner| owner.parse().unwrap()).collect();
    let names = Names { domain: Some(super::DOMAIN.into()), github_host: "github.com".into() };
    Settings { secrets: SecretSource::Values(secrets), owners, names }
}

/// One delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: String,
    pub body: String,
    event: String,
    secret: String,
    path: String,
}

impl Delivery {
    pub fn new(event: &str, body: Value) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            body: body.to_string(),
            event: event.into(),
            secret: SECRET.into(),
            path: "/webhook".into(),
        }
    }

    pub fn id(self, id: &str) -> Self {
        Self { id: id.into(), ..self }
    }

    pub fn event(self, event: &str) -> Self {
        Self { event: event.into(), ..self }
    }

    pub fn secret(self, secret: &str) -> Self {
        Self { secret: secret.into(), ..self }
    }

    pub fn path(self, path: &str) -> Self {
        Self { path: path.into(), ..self }
    }
}

/// A push to the main branch of a repository of `octo-org`, a second ago.
pub fn push(repo: &str, commits: Value) -> Value {
    json!({
        "ref": "refs/heads/main",
        "before": "a".repeat(40),
        "after": "b".repeat(40),
        "commits": commits,
        "repository": {
            "name": repo,
            "owner": { "login": "octo-org" },
            "default_branch": "main",
        },
    })
}

impl Delivery {
    /// Sends it: the reply's status and message.
    pub async fn send(&self, client: &Client) -> (u16, String) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let signature = hex::encode(hmac::sign(&key, self.body.as_bytes()));
        let headers = [
            ("content-type", "application/json"),
            ("user-agent", "GitHub-Hookshot/0000000"),
            ("x-github-event", &*self.event),
            ("x-github-delivery", &*self.id),
            ("x-hub-signature-256", &*format!("sha256={signature}")),
        ];
        let reply = client.send(Method::POST, &self.path, &headers, &self.body).await;
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        (reply.status, body["msg"].as_str().unwrap_or_default().to_owned())
    }
}

impl World {
    /// Sends a delivery: the reply's status and message.
    pub async fn deliver(&self, delivery: &Delivery) -> (u16, String) {
        delivery.send(&self.client).await
    }

    /// The server's time, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.clock.now().as_secs()
    }

    /// The usual policy, as it is in the repository.
    pub fn policy_text(&self) -> String {
        POLICY.replace("${ISSUER}", &self.issuer.url())
    }
}
