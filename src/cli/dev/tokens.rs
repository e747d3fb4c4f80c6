//! Fresh OIDC tokens on loopback, for the commands that the tour ends with.
//!
//! `GET /token/IDENTITY` (and `/token/org/IDENTITY`) answers a token that satisfies the policy.
//! Each query parameter sets a claim of it, so that denials can be tried too; `exp`, `iat` and
//! `nbf` are numbers: `?exp=1600000000` is an expired token.

use std::{collections::BTreeMap, convert::Infallible, net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::{DevError, policies::set, world::World};
use crate::{emulator::Issuer, policy::PolicyKind};

/// The endpoint; it ends when this is dropped.
pub(super) struct Tokens {
    offers: Vec<(String, String, String)>,
    _serving: AbortOnDropHandle<()>,
}

type Signers = Arc<BTreeMap<String, (Issuer, Value)>>;

impl Tokens {
    /// Starts on a free port of loopback.
    pub(super) async fn start(world: &World) -> Result<Self, DevError> {
        let unavailable =
            |error: std::io::Error| DevError::Unavailable(format!("the token endpoint: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        let mut signers = BTreeMap::new();
        let mut offers = Vec::new();
        for file in &world.policies.files {
            if let (Ok(claims), Some(issuer)) = (file.claims(), &file.written.issuer) {
                let folder = if file.kind == PolicyKind::Organization { "org/" } else { "" };
                let key = format!("{folder}{}", file.name);
                offers.push((
                    file.scope(),
                    file.name.to_string(),
                    format!("http://{address}/token/{key}"),
                ));
                signers.insert(key, (world.issuer_of(issuer), claims));
            }
        }
        let signers = Arc::new(signers);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&signers)));
            }
        });
        Ok(Self { offers, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Scope, identity and token address of the first policy.
    pub(super) fn first(&self) -> Option<(String, String, String)> {
        self.offers.first().cloned()
    }

    /// The same of the others.
    pub(super) fn others(&self) -> impl Iterator<Item = &(String, String, String)> {
        self.offers.iter().skip(1)
    }
}

async fn serve(socket: TcpStream, signers: Signers) {
    let service = service_fn(move |request: Request<Incoming>| {
        let token = token(&signers, request.uri());
        let mut response = Response::new(Full::<Bytes>::from(token.clone().unwrap_or_default()));
        if token.is_none() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        async { Ok::<_, Infallible>(response) }
    });
    // A connection that breaks off is the caller's business.
    http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
}

fn set_default(claims: &mut Value, name: &str, value: Value) {
    if claims.get(name).is_none() {
        set(claims, name, value);
    }
}

fn token(signers: &Signers, asked: &http::Uri) -> Option<String> {
    let (issuer, claims) = signers.get(asked.path().strip_prefix("/token/")?)?;
    let mut claims = claims.clone();
    for (name, value) in form_urlencoded::parse(asked.query().unwrap_or_default().as_bytes()) {
        let is_time = matches!(&*name, "exp" | "iat" | "nbf");
        let number = value.parse::<i64>().ok().filter(|_| is_time);
        if let Some(end) = number.filter(|_| name == "exp") {
            // A token that has ended began before.
            set_default(&mut claims, "iat", json!(end.saturating_sub(300)));
            set_default(&mut claims, "nbf", json!(end.saturating_sub(300)));
        }
        set(&mut claims, &name, number.map_or_else(|| json!(value), |number| json!(number)));
    }
    Some(issuer.sign(&claims))
}
