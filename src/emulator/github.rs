//! The emulated GitHub: handle, settings, and the way of a request through it.
//!
//! A request is read into a [`route::Route`], delayed or diverted by faults, answered from the
//! [`state::State`] under its lock, and given the headers that GitHub puts on every answer. Setting
//! the scene is in `setup`, looking at what happened in `observe`.
//!
//! Files depend on each other in one direction: `state` names only data (`options`, `files`,
//! `limits`, `record`, `faults`); `app_jwt`, `caller` and the operations name `state`; `pipeline`
//! names them all.

mod app_jwt;
mod apps;
mod caller;
mod checks;
mod contents;
mod deliveries;
mod faults;
mod files;
mod git;
mod hooks;
mod limits;
mod observe;
mod options;
mod pipeline;
mod pulls;
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
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

pub use faults::{Fault, Lie};
pub use files::Placed;
pub use observe::{CheckRunRecord, InstallationState, TokenRecord};
pub use options::{LimitStyle, Options, ReplicationDelay, TokenFormat};
pub use record::{Call, Calls};
pub use route::RouteKind;
pub use state::{Permissions, Selection, Visibility};

use super::server::Server;
use crate::clock::Clock;
use state::State;

/// A running GitHub. Clones are handles on the same one; it ends with the last of them.
#[derive(Clone)]
pub struct GitHub {
    shared: Shared,
    server: Arc<Server>,
}

/// What requests and handles share.
#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    /// The copies that git is served from, if it is.
    copies: Arc<OnceLock<git::Copies>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            let state = Shared { state: Arc::new(Mutex::new(state)), copies: Arc::default() };
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
