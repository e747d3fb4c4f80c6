//! The App's JWT: signature by one of its keys, and GitHub's time windows with GitHub's words.

use std::time::Duration;

use serde_json::Value;

use super::super::keys::from_base64url;
use super::{
    reply::{DOCS, Reply},
    state::{State, VerifiedJwt},
};
use crate::clock::UnixTime;

/// The furthest that `exp` may lie ahead.
const MAX_LIFE: Duration = Duration::from_secs(600);

/// The App that the JWT speaks for.
pub(super) fn authenticate(state: &mut State, jwt: &str) -> Result<u64, Reply> {
    let now = state.now();
    if let Some(known) = &state.verified_jwt
        && known.jwt == jwt
    {
        return in_time(&known.claims, now).map(|()| known.app);
    }
    let (app, claims) = verify(state, jwt)?;
    state.verified_jwt = Some(VerifiedJwt { jwt: jwt.into(), app, claims: claims.clone() });
    in_time(&claims, now).map(|()| app)
}

fn verify(state: &State, jwt: &str) -> Result<(u64, Value), Reply> {
    let (signed, signature) = jwt.rsplit_once('.').ok_or_else(undecodable)?;
    let (header, payload) = signed.split_once('.').ok_or_else(undecodable)?;
    let signature = from_base64url(signature).ok_or_else(undecodable)?;
    if json(header)?.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(undecodable());
    }
    let claims = json(payload)?;
    // Number, the same as a string, or the client id.
    let issuer = match claims.get("iss") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(undecodable()),
    };
    let mut apps = state.apps.values();
    let app = apps.find(|app| {
        app.id.to_string() == issuer || (app.client_id == issuer && !issuer.is_empty())
    });
    let app = app.ok_or_else(|| Reply::error(404, "Integration not found", DOCS))?;
    if !app.keys.iter().any(|key| key.verifies(signed.as_bytes(), &signature)) {
        return Err(undecodable());
    }
    Ok((app.id, claims))
}

fn in_time(claims: &Value, now: UnixTime) -> Result<(), Reply> {
    let unauthorized = |message: &str| Err(Reply::error(401, message, DOCS));
    let Some(expires) = claims.get("exp").and_then(whole_seconds).filter(|expires| *expires > now)
    else {
        return unauthorized(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        );
    };
    if expires > now.plus(MAX_LIFE) {
        return unauthorized("'Expiration time' claim ('exp') is too far in the future");
    }
    if claims.get("iat").and_then(whole_seconds).is_none_or(|issued| issued > now) {
        return unauthorized(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        );
    }
    Ok(())
}

fn whole_seconds(claim: &Value) -> Option<UnixTime> {
    claim.as_i64().map(UnixTime::from_secs)
}

fn json(part: &str) -> Result<Value, Reply> {
    let bytes = from_base64url(part).ok_or_else(undecodable)?;
    serde_json::from_slice(&bytes).map_err(|_| undecodable())
}

pub(super) fn undecodable() -> Reply {
    Reply::error(401, "A JSON web token could not be decoded", DOCS)
}
