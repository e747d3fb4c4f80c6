//! The emulated GitHub: handle, settings, and the way of a request through it.
//!
//! A request is read into a [`route::Route`], delayed or diverted by faults, answered from the
//! [`state::State`] under its lock, and given the headers that GitHub puts on every answer. Setting
//! the scene is in `setup`, looking at what happened in `observe`.

mod app_jwt;
mod apps;
mod caller;
mod checks;
mod contents;
mod faults;
mod files;
mod git;
mod limits;
mod observe;
mod pipeline;
mod record;
mod reply;
mod repos;
mod route;
mod setup;
mod shapes;
mod state;
mod tokens;
mod versions;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use faults::{Fault, Lie};
pub use files::Placed;
pub use observe::{InstallationState, TokenRecord};
pub use record::{Call, Calls};
pub use route::RouteKind;
pub use state::{Permissions, Selection, Visibility};

use super::server::Server;
use crate::clock::Clock;
use state::State;

/// The form of minted tokens, where the request does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// `ghs_` and 36 letters and digits.
    Classic,
    /// `ghs_APPID_` and a JWT: about 520 characters.
    Stateless,
}

/// How long a fresh token takes to be known everywhere. Each span follows the one before: first the
/// token is unknown (401), then its permissions are (403), then private repositories do not see it
/// (404).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// At once.
    None,
    /// By requests with the token.
    Requests {
        /// Requests answered 401.
        unauthorized: u32,
        /// Requests answered 403.
        forbidden: u32,
        /// Requests during which private repositories are answered 404.
        not_found: u32,
    },
    /// By the emulator's clock.
    Time {
        /// How long it is 401.
        unauthorized: Duration,
        /// How long it is 403.
        forbidden: Duration,
        /// How long it is 404.
        not_found: Duration,
    },
}

/// How rate limits are told: GitHub does it either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitStyle {
    /// 403 or 429.
    pub status: u16,
    /// Whether `Retry-After` is sent.
    pub retry_after: bool,
}

/// What can be set about the emulated GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Enterprise Server: the API below `/api/v3`, no rate limits, the version in headers and
    /// `/meta`.
    pub enterprise_server: bool,
    /// The form of minted tokens, where the request does not say.
    pub token_format: TokenFormat,
    /// How long a token lives.
    pub token_life: Duration,
    /// How fresh tokens spread.
    pub lag: Lag,
    /// Requests an hour for each installation.
    pub hourly_limit: u64,
    /// Requests an hour without a token.
    pub anonymous_limit: u64,
    /// Mints a minute for each App; beyond that, the secondary limit.
    pub mints_per_minute: Option<u32>,
    /// How limits are told.
    pub limit_style: LimitStyle,
    /// The newer message where a level, not a permission, is missing.
    pub level_wording: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enterprise_server: false,
            token_format: TokenFormat::Classic,
            token_life: Duration::from_secs(3600),
            lag: Lag::None,
            hourly_limit: 5_000,
            anonymous_limit: 60,
            mints_per_minute: None,
            limit_style: LimitStyle { status: 403, retry_after: false },
            level_wording: false,
        }
    }
}

impl Options {
    /// The part of the URL before the API's paths.
    pub(super) fn base_path(&self) -> &'static str {
        if self.enterprise_server { "/api/v3" } else { "" }
    }
}

/// A running GitHub. Clones are handles on the same one; it ends with the last of them.
#[derive(Clone)]
pub struct GitHub {
    shared: Shared,
    server: Arc<Server>,
}

/// The state that requests and handles share.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GitHub {
    /// Starts on a free loopback port, with nothing in it.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start(clock: Arc<dyn Clock>) -> io::Result<Self> {
        Self::start_with(clock, Options::default()).await
    }

    /// Starts with other settings.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start_with(clock: Arc<dyn Clock>, options: Options) -> io::Result<Self> {
        let mut shared = None;
        let server = Server::start(|address| {
            let state = State::new(clock, options, &format!("http://{address}"));
            let state = Shared(Arc::new(Mutex::new(state)));
            shared = Some(state.clone());
            Arc::new(move |request| Box::pin(pipeline::handle(state.clone(), request)))
        })
        .await?;
        let shared =
            shared.ok_or_else(|| io::Error::other("the listener did not ask for its handler"))?;
        Ok(Self { shared, server: Arc::new(server) })
    }

    /// The API's root, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.server.address(), self.shared.lock().options.base_path())
    }
}
