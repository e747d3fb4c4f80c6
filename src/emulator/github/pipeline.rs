//! The way of a request: route, faults, state, and the headers that every answer has.

use super::super::{
    keys::sha256,
    server::{Cut, Request, Response},
};
use super::{
    Shared, apps,
    caller::{self, Caller},
    faults::{self, Instead},
    git, hooks,
    limits::{self, RateLimit},
    record::Call,
    reply::{Answer, Body, DOCS, Reply},
    repos::{self, Operation},
    route::{Route, RouteKind},
    state::State,
    tokens,
    versions::Version,
};

/// Answers one request.
pub(super) async fn handle(shared: Shared, request: Request) -> Result<Response, Cut> {
    let by_git_now = git::GitRequest::parse(&request)
        .and_then(|asked| Some((asked, shared.copies.get()?.clone())));
    if let Some((asked, copies)) = by_git_now {
        return Ok(by_git(&shared, &copies, &asked, &request).await);
    }
    let (route, number, mut plan, clock) = {
        let mut state = shared.lock();
        let route = Route::parse(&request.method, &request.path, state.options.base_path());
        let number = arrived(&mut state, &request, route.as_ref().map(Route::kind));
        let plan = state.faults.plan(&request, route.as_ref().map(Route::kind));
        (route, number, plan, state.clock.clone())
    };
    if let Some(wait) = plan.wait.take_if(|_| !plan.after_effect) {
        faults::wait(wait, clock.clone()).await;
    }
    let (reply, caller) = match plan.instead.take_if(|_| !plan.after_effect) {
        Some(Instead::Cut) => return Err(Cut),
        Some(Instead::Answer(reply)) => (reply, None),
        None => answer(&mut shared.lock(), &request, route.as_ref()),
    };
    hooks::send_again(&shared);
    if let Some(wait) = plan.wait.take() {
        faults::wait(wait, clock).await;
    }
    let reply = match plan.instead.take() {
        Some(Instead::Cut) => return Err(Cut),
        Some(Instead::Answer(instead)) => instead,
        None => reply,
    };
    let mut state = shared.lock();
    let end = plan.end();
    let reply = plan.finish(reply);
    state.record.answered(number, caller.as_ref().and_then(Caller::credential), reply.status);
    let reply = add_response_headers(&state, &request, number, reply);
    Ok(Response { end, ..reply.into_response() })
}

/// Git over HTTP: beside the API, without its limits and faults.
async fn by_git(
    shared: &Shared,
    copies: &git::Copies,
    asked: &git::GitRequest,
    request: &Request,
) -> Response {
    let number = arrived(&mut shared.lock(), request, Some(RouteKind::Git));
    let (reply, caller) = git::answer(shared, copies, asked, request).await;
    let mut state = shared.lock();
    state.record.answered(number, caller.credential(), reply.status);
    add_response_headers(&state, request, number, reply).into_response()
}

fn arrived(state: &mut State, request: &Request, kind: Option<RouteKind>) -> usize {
    let query =
        if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let call = Call {
        at: state.now(),
        method: request.method.clone(),
        path: format!("{}{query}", request.path),
        kind,
        status: None,
        app: None,
        installation: None,
    };
    state.record.arrived(call)
}

fn answer(state: &mut State, request: &Request, route: Option<&Route>) -> (Reply, Option<Caller>) {
    let Some(route) = route else {
        state.record.not_understood(&request.method, &request.path);
        let message = format!("The emulator does not know {} {}.", request.method, request.path);
        return (Reply::error(501, message, DOCS), None);
    };
    let version = match acceptable(request) {
        Ok(version) => version,
        Err(refused) => return (refused, None),
    };
    let caller = match caller::authenticate(state, request, route) {
        Ok(caller) => caller,
        Err(refused) => return (refused, None),
    };
    let reply = limited(state, (request, version), route, &caller);
    if reply.status == 501 {
        state.record.not_understood(&request.method, &request.path);
    }
    (reply, Some(caller))
}

/// What GitHub demands of every request.
fn acceptable(request: &Request) -> Result<Version, Reply> {
    if request.header("user-agent").is_none_or(str::is_empty) {
        let message = "Request forbidden by administrative rules. Please make sure your request has a User-Agent \
            header (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required).";
        return Err(Reply::raw(403, "text/plain; charset=utf-8", message));
    }
    Version::asked(request)
}

/// The answer, within the primary limit and with its headers. Calls of the App itself have neither.
fn limited(
    state: &mut State,
    (request, version): (&Request, Version),
    route: &Route,
    caller: &Caller,
) -> Reply {
    let now = state.now();
    let Some((rate, whose)) = quota(state, caller) else {
        let reply = version.shape(route.kind(), flat(dispatch(state, request, route, caller)));
        return conditional(request, caller, reply, "public, max-age=60, s-maxage=60");
    };
    let style = state.options.limit_style;
    let free = route.kind() == RouteKind::RateLimit;
    if rate.remaining() == 0 && !free {
        return rate.headers(limits::primary(style, &whose, now, rate));
    }
    let reply = version.shape(route.kind(), flat(dispatch(state, request, route, caller)));
    let reply = conditional(request, caller, reply, "private, max-age=60, s-maxage=60");
    // What has not changed costs nothing.
    let spent = RateLimit { used: rate.used + u64::from(reply.status != 304 && !free), ..rate };
    spend(state, caller, spent.used - rate.used);
    spent.headers(reply)
}

fn flat(answer: Answer) -> Reply {
    match answer {
        Ok(reply) | Err(reply) => reply,
    }
}

/// The quota that the caller draws on, and whose it is; `None` where there is none.
pub(super) fn quota(state: &mut State, caller: &Caller) -> Option<(RateLimit, String)> {
    let now = state.now();
    if state.options.enterprise_server {
        return None;
    }
    match caller {
        Caller::App(_) => None,
        Caller::Anonymous => {
            let limit = state.options.anonymous_limit;
            Some((state.anonymous.rate_limit(now, limit), "127.0.0.1".into()))
        }
        Caller::Token(access) => {
            let default = state.options.hourly_limit;
            let installation = state.installations.get_mut(&access.installation)?;
            let limit = installation.hourly_limit.unwrap_or(default);
            Some((
                installation.quota.rate_limit(now, limit),
                format!("installation ID {}", access.installation),
            ))
        }
    }
}

fn spend(state: &mut State, caller: &Caller, by: u64) {
    match caller {
        Caller::App(_) => {}
        Caller::Anonymous => state.anonymous.spend(by),
        Caller::Token(access) => {
            if let Some(installation) = state.installations.get_mut(&access.installation) {
                installation.quota.spend(by);
            }
        }
    }
}

fn dispatch(state: &mut State, request: &Request, route: &Route, caller: &Caller) -> Answer {
    let forbidden = || Reply::error(403, "Resource not accessible by integration", DOCS);
    match (route, caller) {
        (Route::App, Caller::App(app)) => apps::app(state, *app),
        (Route::HookConfig, Caller::App(app)) => hooks::config(state, *app),
        (Route::Deliveries, Caller::App(app)) => hooks::deliveries(state, *app, request),
        (Route::Redeliver(id), Caller::App(app)) => hooks::redeliver(state, *app, *id),
        (Route::Installations, Caller::App(app)) => apps::installations(state, *app, request),
        (Route::Installation(id), Caller::App(app)) => apps::installation(state, *app, *id),
        (Route::Mint(id), Caller::App(app)) => tokens::mint(state, *app, *id, request),
        (Route::UserInstallation(login) | Route::OrgInstallation(login), Caller::App(app)) => {
            apps::of_account(state, *app, login, route.kind())
        }
        (Route::InstallationRepositories, Caller::Token(access)) => {
            apps::repositories(state, access, request)
        }
        (Route::Revoke, Caller::Token(access)) => Ok(tokens::revoke(state, access)),
        (Route::RateLimit, _) => Ok(rate_limit(state, caller)),
        (Route::Meta, _) => Ok(meta(state)),
        (Route::Repo { on, action, rest }, _) => repos::answer(
            state,
            caller,
            on,
            &Operation { action, kind: route.kind(), rest, request },
        ),
        // Authentication lets nobody else come here.
        _ => Err(forbidden()),
    }
}

/// `GET /rate_limit`, which costs nothing.
fn rate_limit(state: &mut State, caller: &Caller) -> Reply {
    let Some((rate, _)) = quota(state, caller) else {
        return Reply::error(
            404,
            "Rate limiting is not enabled.",
            RouteKind::RateLimit.documentation(),
        );
    };
    let core = serde_json::json!({
        "limit": rate.limit,
        "used": rate.used.min(rate.limit),
        "remaining": rate.remaining(),
        "reset": rate.reset.as_secs(),
    });
    let search =
        serde_json::json!({"limit": 30, "used": 0, "remaining": 30, "reset": rate.reset.as_secs()});
    Reply::json(
        200,
        serde_json::json!({"resources": {"core": core, "search": search}, "rate": core}),
    )
}

/// `GET /meta`
fn meta(state: &State) -> Reply {
    let mut body = serde_json::json!({
        "verifiable_password_authentication": false,
        "hooks": ["127.0.0.0/8"],
        "api": ["127.0.0.0/8"],
        "web": ["127.0.0.0/8"],
        "git": ["127.0.0.0/8"],
    });
    if let (true, serde_json::Value::Object(members)) = (state.options.enterprise_server, &mut body)
    {
        members.insert("installed_version".into(), ENTERPRISE_VERSION.into());
    }
    Reply::json(200, body)
}

const ENTERPRISE_VERSION: &str = "3.19.0";

/// Gives what was read an entity tag, and answers 304 if the caller has it. The tag differs for
/// each token, so that a new token never finds its predecessor's copy unchanged.
fn conditional(
    request: &Request,
    caller: &Caller,
    reply: Reply,
    cache_control: &'static str,
) -> Reply {
    if reply.status != 200 || !matches!(request.method, http::Method::GET | http::Method::HEAD) {
        return reply;
    }
    let mut seed = match caller {
        Caller::Token(access) => access.key.to_vec(),
        Caller::App(app) => app.to_be_bytes().to_vec(),
        Caller::Anonymous => Vec::new(),
    };
    seed.extend_from_slice(&reply.bytes());
    if let Body::Raw(media_type, _) = reply.body {
        seed.extend_from_slice(media_type.as_bytes());
    }
    let digest = hex::encode(sha256(&seed));
    let tag = match caller {
        Caller::App(_) => format!("\"{digest}\""),
        Caller::Token(_) | Caller::Anonymous => format!("W/\"{digest}\""),
    };
    let known = request.header("if-none-match").is_some_and(|tags| {
        tags.split(',')
            .any(|known| known.trim().trim_start_matches("W/") == tag.trim_start_matches("W/"))
    });
    let reply = if known { Reply::empty(304) } else { reply };
    reply
        .with("etag", tag)
        .with("cache-control", cache_control)
        .with("vary", "Accept, Authorization, Cookie, X-GitHub-OTP")
}

/// The headers of every answer.
fn add_response_headers(state: &State, request: &Request, number: usize, reply: Reply) -> Reply {
    let version = Version::asked(request).unwrap_or(Version::V2022);
    let (first, second) = (number & 0xffff, number >> 16);
    let reply = reply
        .with("date", state.now().http_date())
        .with("server", "github.com")
        .with(
            "x-github-request-id",
            format!("{first:04X}:{second:04X}:{number:06X}:{number:06X}:{number:08X}"),
        )
        .with("x-github-api-version-selected", version.name())
        .with("x-github-media-type", "github.v3; format=json");
    if state.options.enterprise_server {
        reply.with("x-github-enterprise-version", ENTERPRISE_VERSION)
    } else {
        reply
    }
}
