//! Serving discovery and key sets, as they should be or as a test wants them.

use std::io::Read;

use serde_json::{Value, json};

use super::super::server::{Cut, End, Request, Response};
use super::{Document, Misbehaviour, Shared, Tenant, World};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const JWKS: &str = "/.well-known/jwks";

/// Answers one request.
pub(super) async fn handle(shared: Shared, request: Request) -> Result<Response, Cut> {
    let Some((tenant, document)) = find(&shared, &request) else {
        let mut world = shared.lock();
        world.unknown.push(format!("{} {}", request.method, request.path));
        return Ok(json_response(404, &json!({"error": "not_found"})));
    };
    let (how, mut behaved, clock) = {
        let mut world = shared.lock();
        let (behaved, clock) = (world.behaved.subscribe(), world.clock.clone());
        let Some(tenant) = world.tenants.get_mut(&tenant) else { return Err(Cut) };
        (tenant.fetched(document), behaved, clock)
    };
    match &how {
        Some(Misbehaviour::Stall) => {
            // Another issuer of the listener may have been told to behave. An error: all are gone.
            while shared.lock().stalls(&tenant, document) && behaved.changed().await.is_ok() {}
        }
        Some(Misbehaviour::Slow(duration)) => clock.sleep(*duration).await,
        _ => {}
    }
    let world = shared.lock();
    let tenant = world.tenants.get(&tenant).ok_or(Cut)?;
    if let Some(refused) = refused(tenant, &request) {
        return Ok(refused);
    }
    publish(tenant, document, how.as_ref())
}

impl World {
    fn stalls(&self, tenant: &str, document: Document) -> bool {
        let spell = self.tenants.get(tenant).and_then(|tenant| tenant.misbehaviour.get(&document));
        spell.is_some_and(|spell| spell.how == Misbehaviour::Stall)
    }
}

impl Tenant {
    /// Counts a fetch; how it goes wrong, if it does.
    fn fetched(&mut self, document: Document) -> Option<Misbehaviour> {
        match document {
            Document::Discovery => self.fetches.discovery += 1,
            Document::Jwks => self.fetches.jwks += 1,
        }
        let spell = self.misbehaviour.get_mut(&document)?;
        match &mut spell.times {
            Some(0) => return None,
            Some(times) => *times -= 1,
            None => {}
        }
        Some(spell.how.clone())
    }
}

fn find(shared: &Shared, request: &Request) -> Option<(String, Document)> {
    let (tenant, document) = match request.path.strip_suffix(DISCOVERY) {
        Some(tenant) => (tenant, Document::Discovery),
        None => (request.path.strip_suffix(JWKS)?, Document::Jwks),
    };
    let known = request.method == http::Method::GET && shared.lock().tenants.contains_key(tenant);
    known.then(|| (tenant.to_owned(), document))
}

fn refused(tenant: &Tenant, request: &Request) -> Option<Response> {
    let wanted = tenant.bearer.as_ref()?;
    match request.header("authorization") {
        Some(given) if given.strip_prefix("Bearer ") == Some(wanted) => None,
        Some(_) => Some(json_response(
            401,
            &json!({"kind": "Status", "reason": "Unauthorized", "code": 401}),
        )),
        None => {
            Some(json_response(403, &json!({"kind": "Status", "reason": "Forbidden", "code": 403})))
        }
    }
}

fn publish(
    tenant: &Tenant,
    document: Document,
    how: Option<&Misbehaviour>,
) -> Result<Response, Cut> {
    let mut body = match document {
        Document::Discovery => discovery(tenant),
        Document::Jwks => tenant.keys.jwks(),
    };
    let (mut pad, mut end, mut encoding) = (0, End::Whole, None);
    match how {
        None | Some(Misbehaviour::Stall | Misbehaviour::Slow(_)) => {}
        Some(Misbehaviour::Cut) => return Err(Cut),
        Some(Misbehaviour::Status(status)) => {
            return Ok(json_response(*status, &json!({"error": "server_error"})));
        }
        Some(Misbehaviour::Redirect(to)) => {
            let headers = vec![("location", to.clone())];
            return Ok(Response {
                status: 302,
                headers,
                body: bytes::Bytes::new(),
                end: End::Whole,
            });
        }
        Some(Misbehaviour::Html) => {
            let headers = vec![("content-type", "text/html; charset=utf-8".into())];
            return Ok(Response {
                status: 200,
                headers,
                body: "<!DOCTYPE html><p>Sign in</p>".into(),
                end: End::Whole,
            });
        }
        Some(Misbehaviour::Hang) => end = End::Hangs,
        Some(Misbehaviour::Padded(size)) => pad = *size,
        Some(Misbehaviour::Gzip) => encoding = Some("gzip"),
        Some(Misbehaviour::ContentEncoding(name)) => encoding = Some(name.as_str()),
        Some(Misbehaviour::Replace(other)) => body = other.clone(),
        Some(Misbehaviour::Member(name, value)) => set_member(&mut body, name, value),
        Some(Misbehaviour::OddKeys) => {
            if let Some(Value::Array(keys)) = body.get_mut("keys") {
                let good = std::mem::replace(keys, odd_keys());
                keys.extend(good);
            }
        }
    }
    let mut response = Response { end, ..json_response(200, &body) };
    if pad > response.body.len() {
        let mut padded = response.body.to_vec();
        padded.resize(pad, b' ');
        response.body = padded.into();
    }
    if how == Some(&Misbehaviour::Gzip) {
        response.body = gzip(&response.body);
    }
    if let Some(encoding) = encoding {
        response.headers.push(("content-encoding", encoding.to_owned()));
    }
    if let Some(value) = &tenant.cache_control {
        response.headers.push(("cache-control", value.clone()));
    }
    Ok(response)
}

/// Sets a member of the document, or removes it if the value is null.
fn set_member(body: &mut Value, name: &str, value: &Value) {
    let Value::Object(members) = body else { return };
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value.clone());
    }
}

fn gzip(content: &[u8]) -> bytes::Bytes {
    let mut out = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(content, flate2::Compression::default());
    // Reading from memory does not fail.
    encoder.read_to_end(&mut out).ok();
    out.into()
}

fn discovery(tenant: &Tenant) -> Value {
    json!({
        "issuer": tenant.url,
        "jwks_uri": format!("{}{JWKS}", tenant.url.trim_end_matches('/')),
        "subject_types_supported": ["public"],
        "response_types_supported": ["id_token"],
        "claims_supported": ["sub", "aud", "exp", "iat", "iss", "jti", "nbf"],
        "id_token_signing_alg_values_supported": tenant.keys.algs(),
        "scopes_supported": ["openid"],
    })
}

/// Keys of unknown type, curve or use, with members of the wrong type, and one that is no object.
fn odd_keys() -> Vec<Value> {
    vec![
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "odd-1", "pub": "AAAA"}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "odd-2", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "RSA", "use": "enc", "kid": "odd-3", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "kid": 5, "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "oct", "kid": "odd-5", "k": "c2VjcmV0"}),
        json!("no key"),
    ]
}

fn json_response(status: u16, body: &Value) -> Response {
    let headers = vec![("content-type", "application/json".to_owned())];
    Response { status, headers, body: body.to_string().into(), end: End::Whole }
}
