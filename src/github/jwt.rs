//! The App's own credential: a JWT of ten minutes at most, signed once and used for eight.
//!
//! jsonwebtoken signs synchronously and parses the key anew each time; a key in a management
//! service can do neither. So the two JSON parts are written here and the signer is asked for the
//! rest. Signing is coalesced, failures included: a signer that hangs holds up each caller once.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;

use super::{
    error::Error,
    signer::{Signer, SignerError},
};
use crate::{
    cache::{Bounds, Cache, CallerTrust, Stamped},
    clock::{Clock, UnixTime},
    name::AppId,
    telemetry::{label, metric},
};

/// How long a signed JWT is used.
const USED_FOR: Duration = Duration::from_secs(8 * 60);
/// How long it is valid from now on: used up to a minute and a half before its end. GitHub refuses
/// `exp` more than ten minutes ahead by its own clock, so there is room for half a minute of drift.
const VALID_FOR: Duration = Duration::from_secs(9 * 60 + 30);
/// How far `iat` is set back, as GitHub advises, against a clock that is ahead of GitHub's.
const SET_BACK: Duration = Duration::from_secs(60);

/// So far our clock may be ahead of GitHub's, which takes no `exp` more than ten minutes ahead of
/// it.
pub const MAX_AHEAD: Duration = Duration::from_secs(10 * 60).saturating_sub(VALID_FOR);
/// So far our clock may be behind GitHub's: a JWT at the end of its use must not have ended.
pub const MAX_BEHIND: Duration = VALID_FOR.saturating_sub(USED_FOR);

/// The App's credential, signed when it is needed.
pub(super) struct AppJwt {
    app: AppId,
    signer: Arc<dyn Signer>,
    /// How long the signer may take.
    timeout: Duration,
    clock: Arc<dyn Clock>,
    signed: Cache<AppId, Signed, Error>,
}

impl AppJwt {
    pub(super) fn new(
        app: AppId,
        signer: Arc<dyn Signer>,
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let signed = Cache::new(
            Arc::clone(&clock),
            Bounds { verified: 64 << 10, unverified: 64 << 10 },
            |_, _| 4 << 10,
        );
        Self { app, signer, timeout, clock, signed }
    }

    /// The `Authorization` header of the App.
    pub(super) async fn header(&self) -> Result<HeaderValue, Error> {
        let now = self.clock.now();
        let app = self.app;
        let timeout = self.timeout;
        let signer = Arc::clone(&self.signer);
        let clock = Arc::clone(&self.clock);
        let moment = self.clock.monotonic();
        // GitHub judges the JWT by the times in it: one signed before the wall clock was set is
        // signed anew.
        let fits_wall_clock = |at: UnixTime| now.since(at) < USED_FOR && at <= now.plus(SET_BACK);
        let fresh = |held: &Stamped<Signed>| {
            moment.since(held.at) < USED_FOR && fits_wall_clock(held.value.at)
        };
        let load = |_| async move {
            let begun = clock.monotonic();
            let signed = tokio::time::timeout(timeout, sign(app, signer.as_ref(), now)).await;
            let took = clock.monotonic().since(begun);
            metrics::histogram!(metric::SIGNER_DURATION, label::APP_ID => app.to_string())
                .record(took.as_secs_f64());
            let signed = signed.map_err(|_| late())??;
            metrics::gauge!(metric::APP_JWT_SIGNED, label::APP_ID => app.to_string())
                .set(signed.at.as_secs_f64());
            Ok(signed)
        };
        let held = self.signed.get_or_load(app, CallerTrust::Verified, fresh, load).await?;
        Ok(held.value.header)
    }

    /// Signs, and checks the signature by the public key, if this process may read that.
    pub(super) async fn prove(&self) -> Result<KeyProof, Error> {
        let header = self.header().await?;
        let read = tokio::time::timeout(self.timeout, self.signer.public_key());
        let Some(key) = read.await.map_err(|_| late())?.map_err(Error::Signer)? else {
            return Ok(KeyProof::Unchecked);
        };
        let jwt = header.to_str().ok().and_then(|header| header.strip_prefix("Bearer "));
        let parts = jwt.and_then(|jwt| jwt.rsplit_once('.'));
        let is_signed = parts.is_some_and(|(input, signature)| {
            URL_SAFE_NO_PAD
                .decode(signature)
                .is_ok_and(|signature| key.verifies(input.as_bytes(), &signature))
        });
        if is_signed {
            return Ok(KeyProof::Verified);
        }
        self.forget();
        Err(misconfigured("the signature is not by the key whose public half the signer gives"))
    }

    /// Drops a JWT that GitHub refused. Returns whether another JWT may be accepted.
    pub(super) fn refused(&self, header: &HeaderValue) -> bool {
        // If it is gone already, another call was refused with it: whether the next JWT is accepted
        // is not known yet.
        if self.signed.get(&self.app).is_none_or(|held| held.value.header != *header) {
            return true;
        }
        self.forget();
        self.signer.use_next_key()
    }

    /// Drops the JWT.
    pub(super) fn forget(&self) {
        self.signed.invalidate(&self.app);
    }
}

/// What is known of an App's key after it signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyProof {
    /// The signature is by the key.
    Verified,
    /// This process may not read the public key. GitHub knows whether the signature is right.
    Unchecked,
}

fn late() -> Error {
    Error::Signer(SignerError::unavailable("no signature in time"))
}

fn misconfigured(text: &str) -> Error {
    Error::Signer(SignerError::misconfigured(text))
}

/// A signed App JWT.
#[derive(Clone)]
struct Signed {
    header: HeaderValue,
    /// The wall clock by which its times were set.
    at: UnixTime,
}

async fn sign(app: AppId, signer: &dyn Signer, now: UnixTime) -> Result<Signed, Error> {
    let claims = serde_json::json!({
        "iat": now.minus(SET_BACK).as_secs(),
        "exp": now.plus(VALID_FOR).as_secs(),
        "iss": app.to_string(),
    });
    let mut jwt = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut jwt);
    let signature = signer.sign(jwt.as_bytes()).await.map_err(Error::Signer)?;
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
    let header =
        bearer(&jwt).ok_or_else(|| misconfigured("the signature is not a valid header value"))?;
    Ok(Signed { header, at: now })
}

/// `Bearer TOKEN`, marked so that no `Debug` shows it.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}
