//! Misbehaviour that a test asks for: GitHub slow, broken, or lying about what it granted.
//!
//! The rest of the emulator answers from state alone. A fault stands for what state cannot explain:
//! a bad gateway, a cut connection, a reply that is wider than the request.

use std::{sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::server::{End, Request};
use super::{
    reply::{Body, Reply},
    route::RouteKind,
};

/// What goes wrong, for which requests, and how often.
///
/// ```
/// use octo_sts::emulator::{Fault, RouteKind};
/// let twice = Fault::on(RouteKind::Mint).times(2).status(503);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    kind: Option<RouteKind>,
    method: Option<Method>,
    path: Option<String>,
    skip: u32,
    times: Option<u32>,
    after_effect: bool,
    action: Action,
}

#[derive(Debug, Clone)]
enum Action {
    /// As if there were no fault.
    Pass,
    /// Instead of GitHub's answer.
    Answer(Reply),
    /// The answer comes late, or when stalls are released.
    Stall(Option<Duration>),
    Cut,
    Truncated,
    Padded(usize),
    Half(End),
    Lie(Lie),
}

/// How a reply differs from the truth.
#[derive(Debug, Clone, PartialEq)]
pub enum Lie {
    /// One more permission.
    ExtraPermission(String, String),
    /// Every permission but metadata at this level.
    Level(String),
    /// One more repository, by name.
    ExtraRepository(String),
    /// `repository_selection` says `all`.
    SelectionAll,
    /// No `repositories`.
    NoRepositories,
    /// No `permissions`.
    NoPermissions,
    /// The value at a JSON pointer (RFC 6901) is another; members are made where they are missing.
    Set(String, Value),
    /// The member at a JSON pointer is missing.
    Remove(String),
}

impl Fault {
    /// For requests of one kind.
    pub fn on(kind: RouteKind) -> Self {
        Self { kind: Some(kind), ..Self::anything() }
    }

    /// For all requests, unknown ones too.
    pub fn anything() -> Self {
        Self {
            kind: None,
            method: None,
            path: None,
            skip: 0,
            times: None,
            after_effect: false,
            action: Action::Pass,
        }
    }

    /// Only for requests of this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Only for requests whose path contains this, without ASCII case.
    #[must_use]
    pub fn path_with(mut self, part: &str) -> Self {
        self.path = Some(part.to_ascii_lowercase());
        self
    }

    /// Spares the first `n` requests.
    #[must_use]
    pub fn after(mut self, n: u32) -> Self {
        self.skip = n;
        self
    }

    /// Ends after `n` requests.
    #[must_use]
    pub fn times(mut self, n: u32) -> Self {
        self.times = Some(n);
        self
    }

    fn then(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// This status, with GitHub's `{"error":"Server Error"}` for 5xx and a basic error otherwise.
    #[must_use]
    pub fn status(self, status: u16) -> Self {
        let reply = match status {
            500.. => Reply::json(status, json!({"error": "Server Error"})),
            _ => Reply::error(status, reason(status), super::reply::DOCS),
        };
        self.then(Action::Answer(reply))
    }

    /// This status and JSON.
    #[must_use]
    pub fn answer(self, status: u16, body: Value) -> Self {
        self.then(Action::Answer(Reply::json(status, body)))
    }

    /// Adds a header to the answer of [`Fault::status`], [`Fault::answer`] or [`Fault::html`].
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Action::Answer(reply) = &mut self.action {
            reply.headers.push((name, value.into()));
        }
        self
    }

    /// This status and an HTML page, as a gateway in between answers.
    #[must_use]
    pub fn html(self, status: u16) -> Self {
        let page = "<!DOCTYPE html><html><body><h1>Unicorn!</h1></body></html>";
        self.then(Action::Answer(Reply::raw(status, "text/html; charset=utf-8", page)))
    }

    /// The answer comes when the emulator's clock has moved on by `duration`.
    #[must_use]
    pub fn stall_for(self, duration: Duration) -> Self {
        self.then(Action::Stall(Some(duration)))
    }

    /// The answer comes when [`super::GitHub::release`] is called.
    #[must_use]
    pub fn stall(self) -> Self {
        self.then(Action::Stall(None))
    }

    /// What [`Fault::status`], [`Fault::answer`], [`Fault::html`], [`Fault::stall`],
    /// [`Fault::stall_for`] and [`Fault::cut`] do, they do after the request took effect: a
    /// token is minted, and nobody learns of it in time. Without this the request has no
    /// effect, or a late one.
    #[must_use]
    pub fn after_effect(mut self) -> Self {
        self.after_effect = true;
        self
    }

    /// The connection is cut before the request takes effect.
    #[must_use]
    pub fn cut(self) -> Self {
        self.then(Action::Cut)
    }

    /// The request takes effect, then the connection is cut.
    #[must_use]
    pub fn cut_after(self) -> Self {
        self.cut().after_effect()
    }

    /// The body ends in the middle; the content length agrees with that.
    #[must_use]
    pub fn truncated(self) -> Self {
        self.then(Action::Truncated)
    }

    /// Half of the body is sent; the rest never comes.
    #[must_use]
    pub fn hang(self) -> Self {
        self.then(Action::Half(End::Hangs))
    }

    /// Half of the body is sent, then the connection is cut.
    #[must_use]
    pub fn cut_body(self) -> Self {
        self.then(Action::Half(End::Breaks))
    }

    /// The JSON body is padded to at least this many bytes.
    #[must_use]
    pub fn padded(self, bytes: usize) -> Self {
        self.then(Action::Padded(bytes))
    }

    /// The reply is not the truth.
    #[must_use]
    pub fn lie(self, lie: Lie) -> Self {
        self.then(Action::Lie(lie))
    }

    fn applies(&self, request: &Request, kind: Option<RouteKind>) -> bool {
        self.kind.is_none_or(|wanted| kind == Some(wanted))
            && self.method.as_ref().is_none_or(|wanted| *wanted == request.method)
            && self
                .path
                .as_ref()
                .is_none_or(|part| request.path.to_ascii_lowercase().contains(part))
    }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

/// The faults that are in place.
#[derive(Debug)]
pub(super) struct Faults {
    list: Vec<Fault>,
    released: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { list: Vec::new(), released: watch::Sender::new(0) }
    }
}

/// What to do with a request: first wait, then perhaps something instead of the answer, then
/// perhaps something to it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) wait: Option<Wait>,
    pub(super) instead: Option<Instead>,
    /// Both of these come after the request took effect.
    pub(super) after_effect: bool,
    after: Option<Action>,
}

#[derive(Debug)]
pub(super) enum Wait {
    For(Duration),
    Release(watch::Receiver<u64>),
}

#[derive(Debug)]
pub(super) enum Instead {
    Answer(Reply),
    Cut,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.release();
    }

    pub(super) fn release(&mut self) {
        self.list.retain(|fault| !matches!(fault.action, Action::Stall(None)));
        self.released.send_modify(|times| *times += 1);
    }

    /// The first fault that applies, counted.
    pub(super) fn plan(&mut self, request: &Request, kind: Option<RouteKind>) -> Plan {
        let mut plan = Plan::default();
        for fault in self.list.iter_mut().filter(|fault| fault.applies(request, kind)) {
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            match &mut fault.times {
                Some(0) => continue,
                Some(times) => *times -= 1,
                None => {}
            }
            plan.after_effect = fault.after_effect;
            match fault.action.clone() {
                Action::Pass => {}
                Action::Stall(Some(duration)) => plan.wait = Some(Wait::For(duration)),
                Action::Stall(None) => plan.wait = Some(Wait::Release(self.released.subscribe())),
                Action::Answer(reply) => plan.instead = Some(Instead::Answer(reply)),
                Action::Cut => plan.instead = Some(Instead::Cut),
                action @ (Action::Truncated
                | Action::Padded(_)
                | Action::Half(_)
                | Action::Lie(_)) => {
                    plan.after = Some(action);
                }
            }
            break;
        }
        plan
    }
}

impl Plan {
    /// What becomes of the body on its way.
    pub(super) fn end(&self) -> End {
        match self.after {
            Some(Action::Half(end)) => end,
            _ => End::Whole,
        }
    }

    /// Changes the answer on its way.
    pub(super) fn finish(self, mut reply: Reply) -> Reply {
        match self.after {
            Some(Action::Truncated) => {
                let bytes = reply.bytes();
                reply.body =
                    Body::Raw("application/json; charset=utf-8", bytes.slice(..bytes.len() / 2));
            }
            Some(Action::Padded(size)) => {
                let (mut text, spaces) = (reply.bytes().to_vec(), size);
                text.resize(spaces.max(text.len()), b' ');
                reply.body = Body::Raw("application/json; charset=utf-8", text.into());
            }
            Some(Action::Lie(lie)) => {
                if let Body::Json(body) = &mut reply.body {
                    lie.tell(body);
                }
            }
            Some(
                Action::Pass | Action::Answer(_) | Action::Stall(_) | Action::Cut | Action::Half(_),
            )
            | None => {}
        }
        reply
    }
}

impl Lie {
    fn tell(&self, body: &mut Value) {
        match self {
            Self::ExtraPermission(name, level) => place(body, &["permissions", name], json!(level)),
            Self::Level(level) => {
                let permissions = body.get_mut("permissions").and_then(Value::as_object_mut);
                for (name, held) in permissions.into_iter().flatten() {
                    if name != "metadata" {
                        *held = json!(level);
                    }
                }
            }
            Self::ExtraRepository(name) => {
                if let Some(Value::Array(listed)) = body.get_mut("repositories") {
                    let mut extra = listed.first().cloned().unwrap_or_else(|| json!({}));
                    place(&mut extra, &["name"], json!(name));
                    let owner =
                        extra.pointer("/owner/login").and_then(Value::as_str).unwrap_or_default();
                    let full_name = json!(format!("{owner}/{name}"));
                    place(&mut extra, &["full_name"], full_name);
                    place(&mut extra, &["id"], json!(1));
                    listed.push(extra);
                }
            }
            Self::SelectionAll => place(body, &["repository_selection"], json!("all")),
            Self::NoRepositories => remove(body, "/repositories"),
            Self::NoPermissions => remove(body, "/permissions"),
            Self::Set(pointer, value) => match body.pointer_mut(pointer) {
                Some(found) => *found = value.clone(),
                None => place(
                    body,
                    &pointer.trim_start_matches('/').split('/').collect::<Vec<_>>(),
                    value.clone(),
                ),
            },
            Self::Remove(pointer) => remove(body, pointer),
        }
    }
}

fn place(body: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = body;
    for name in parents {
        let Value::Object(members) = at else { return };
        at = members.entry(*name).or_insert_with(|| json!({}));
    }
    if let Value::Object(members) = at {
        members.insert((*last).into(), value);
    }
}

fn remove(body: &mut Value, pointer: &str) {
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && let Some(Value::Object(members)) = body.pointer_mut(parent)
    {
        members.remove(name);
    }
}

/// Shared, so that a stalled request does not hold the state.
pub(super) async fn wait(wait: Wait, clock: Arc<dyn crate::clock::Clock>) {
    match wait {
        Wait::For(duration) => clock.sleep(duration).await,
        // An error means that the emulator is gone.
        Wait::Release(mut released) => drop(released.changed().await),
    }
}
