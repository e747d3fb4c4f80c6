//! Minting and revoking installation tokens.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::super::{
    keys::{base64url, random},
    server::Request,
};
use super::{
    caller::Access,
    limits,
    options::TokenFormat,
    reply::{Answer, DOCS, Reply},
    shapes,
    state::{Installation, Permissions, State, Token, allows, token_key},
};

use crate::policy::permission;

const MAX_REPOSITORIES: usize = 500;
const DOCUMENTATION: &str =
    "https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app";

/// A mint request after the checks.
struct MintRequest {
    body: Value,
    permissions: Option<Permissions>,
    repositories: Option<Vec<u64>>,
}

/// `POST /app/installations/{id}/access_tokens`
pub(super) fn mint(state: &mut State, app: u64, installation: u64, request: &Request) -> Answer {
    let now = state.now();
    let default = state.options.mints_per_minute;
    if let Some(app) = state.apps.get_mut(&app)
        && let Some(limit) = app.mints_per_minute.or(default)
        && !app.mints.take_in_minute(now, limit)
    {
        return Err(limits::secondary(state.options.limit_style));
    }
    let found = state.installations.get(&installation).filter(|found| found.app == app);
    let found = found.ok_or_else(|| Reply::not_found(DOCUMENTATION))?;
    if found.suspended_at.is_some() {
        return Err(Reply::error(403, "This installation has been suspended", DOCUMENTATION));
    }
    let asked = asked(state, found, &request.body)?;
    let permissions = asked.permissions.unwrap_or_else(|| found.permissions.clone());
    let narrowed = asked.repositories.is_some() || found.only.is_some();
    let listed = asked.repositories.clone().unwrap_or_default();
    let repositories: Vec<Value> = listed
        .iter()
        .filter_map(|id| state.repositories.get(id))
        .map(|found| shapes::repository(state, found))
        .collect();

    let text = token_text(format(state, request), app, installation);
    let expires_at = now.plus(state.options.token_life);
    let mut reply = Map::from_iter([
        ("token".to_owned(), json!(text)),
        ("expires_at".to_owned(), json!(expires_at.rfc3339())),
        ("permissions".to_owned(), json!(permissions)),
        ("repository_selection".to_owned(), json!(if narrowed { "selected" } else { "all" })),
    ]);
    if asked.repositories.is_some() {
        reply.insert("repositories".into(), Value::Array(repositories));
    }
    let token = Token {
        app,
        installation,
        body: asked.body,
        permissions,
        repositories: asked.repositories,
        minted_at: now,
        expires_at,
        revoked: false,
        uses: 0,
    };
    state.remember_token(token_key(&text), token);
    state.record.minted += 1;
    Ok(Reply::json(201, Value::Object(reply)))
}

/// `DELETE /installation/token`
pub(super) fn revoke(state: &mut State, access: &Access) -> Reply {
    if let Some(token) = state.tokens.get_mut(&access.key) {
        token.revoked = true;
    }
    Reply::empty(204)
}

fn asked(state: &State, installation: &Installation, body: &[u8]) -> Result<MintRequest, Reply> {
    if body.is_empty() {
        return Ok(MintRequest { body: Value::Null, permissions: None, repositories: None });
    }
    let body: Value =
        serde_json::from_slice(body).map_err(|_| bad_request("Problems parsing JSON"))?;
    let Value::Object(members) = &body else {
        return Err(bad_request("Body should be a JSON object"));
    };
    let repositories = asked_repositories(state, installation, members)?;
    let permissions = match members.get("permissions") {
        None | Some(Value::Null) => None,
        // An empty object means all that the installation has, as an absent one does.
        Some(Value::Object(wanted)) if wanted.is_empty() => None,
        Some(Value::Object(wanted)) => Some(asked_permissions(state, installation, wanted)?),
        Some(_) => return Err(bad_request("Problems parsing JSON")),
    };
    Ok(MintRequest { permissions, repositories, body })
}

fn bad_request(message: &str) -> Reply {
    Reply::error(400, message, DOCUMENTATION)
}

fn asked_permissions(
    state: &State,
    installation: &Installation,
    wanted: &Map<String, Value>,
) -> Result<Permissions, Reply> {
    let mut granted = Permissions::new();
    for (name, level) in wanted {
        let level = level.as_str().unwrap_or_default();
        // GitHub answers the same to a name that does not exist and to one that is not granted.
        if permission::known(name).is_none() || !allows(&installation.permissions, name, level) {
            let raised = state.options.level_wording && installation.permissions.contains_key(name);
            let what = if raised {
                "level of access for permissions requested are"
            } else {
                "permissions requested are"
            };
            return Err(Reply::error(
                422,
                format!("The {what} not granted to this installation."),
                DOCUMENTATION,
            ));
        }
        granted.insert(name.clone(), level.into());
    }
    // GitHub adds this one unasked.
    granted.entry("metadata".into()).or_insert_with(|| "read".into());
    Ok(granted)
}

fn asked_repositories(
    state: &State,
    installation: &Installation,
    members: &Map<String, Value>,
) -> Result<Option<Vec<u64>>, Reply> {
    let present = |name: &str| members.get(name).filter(|value| !value.is_null());
    let listed = match (present("repositories"), present("repository_ids")) {
        (None, None) => return Ok(None),
        (Some(Value::Array(names)), None) => names,
        (None, Some(Value::Array(ids))) => ids,
        (Some(_), Some(_)) => {
            return Err(undocumented("repositories together with repository_ids"));
        }
        _ => return Err(bad_request("Problems parsing JSON")),
    };
    if listed.is_empty() {
        return Err(undocumented("an empty list of repositories"));
    }
    if listed.len() > MAX_REPOSITORIES {
        // GitHub's message starts so and names the maximum; the rest of its wording is not known.
        let message =
            format!("Too many repositories for installation: the maximum is {MAX_REPOSITORIES}.");
        return Err(Reply::error(422, message, DOCUMENTATION));
    }
    let owner = state.login(installation.account);
    let mut ids = BTreeSet::new();
    for item in listed {
        let id = item.as_u64().or_else(|| state.repository_id(owner, item.as_str()?));
        let covered = id
            .and_then(|id| state.repositories.get(&id))
            .filter(|found| installation.covers(found));
        let Some(covered) = covered else {
            return Err(Reply::error(
                422,
                "There is at least one repository that does not exist or is not accessible to the parent installation.",
                DOCUMENTATION,
            ));
        };
        ids.insert(covered.id);
    }
    Ok(Some(ids.into_iter().collect()))
}

/// What GitHub does here is not documented: refused like an unknown request, and remembered as one.
fn undocumented(what: &str) -> Reply {
    Reply::error(501, format!("The emulator does not know what GitHub answers to {what}."), DOCS)
}

fn format(state: &State, request: &Request) -> TokenFormat {
    match request.header("x-github-stateless-s2s-token") {
        Some("enabled") => TokenFormat::Stateless,
        Some("disabled") => TokenFormat::Classic,
        _ => state.options.token_format,
    }
}

/// 40 characters, or about 520 with the App's id and a JWT that is for GitHub alone to read.
fn token_text(format: TokenFormat, app: u64, installation: u64) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    match format {
        TokenFormat::Classic => {
            let letter = |byte: u8| {
                LETTERS.get(usize::from(byte) % LETTERS.len()).copied().map_or('0', char::from)
            };
            random::<36>()
                .into_iter()
                .map(letter)
                .fold("ghs_".to_owned(), |text, letter| text + letter.encode_utf8(&mut [0; 4]))
        }
        TokenFormat::Stateless => {
            let header = base64url(r#"{"alg":"HS256","typ":"JWT"}"#);
            let payload = json!({"installation": installation, "jti": base64url(random::<210>())})
                .to_string();
            let signed = format!("{header}.{}", base64url(payload));
            let tag =
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()), signed.as_bytes());
            format!("ghs_{app}_{signed}.{}", base64url(tag.as_ref()))
        }
    }
}
