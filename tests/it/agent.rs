//! The agent: what stands in its file is a living token, whatever happens to everything around it.
//!
//! `hours` runs it in this process, under a clock that the test moves from one thing to do to the
//! next. `process` runs it as a process, which is killed and told to stop at every step, while
//! another process reads its file. The server, GitHub and the issuer are the usual ones, with
//! sockets.

mod hours;
#[cfg(unix)]
mod process;
mod scene;
