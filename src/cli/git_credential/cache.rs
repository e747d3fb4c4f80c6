//! Tokens between two calls of git: a file each, for their owner alone.
//!
//! A cache is a convenience: whatever is wrong with it is told and then done without. What others can
//! read or write is not trusted, so the folder must belong to us and be closed to everyone else.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::say;
use crate::{
    client,
    clock::{Clock, UnixTime},
};

/// A token is not handed out that ends sooner: what git has begun must come to its end.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long another process may hold an entry before we do without it.
const PATIENCE: Duration = Duration::from_secs(30);
const LOCK_AGAIN: Duration = Duration::from_millis(50);
/// No entry is larger.
const MOST_BYTES: u64 = 64 << 10;

/// Under which a token is kept: a digest of what it depends on.
pub(super) struct Key(String);

impl Key {
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(client::hex(context.finish().as_ref()))
    }
}

/// A token that is kept.
pub(super) struct Entry {
    pub(super) token: SecretString,
    pub(super) expires_at: UnixTime,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    token: String,
    expires_at: i64,
}

impl Drop for Stored {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.token);
    }
}

impl Entry {
    /// Whether it is worth handing out.
    pub(super) fn is_fresh(&self, now: UnixTime) -> bool {
        now.plus(MARGIN) < self.expires_at
    }
}

/// The folder.
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Takes an entry for this process alone. `None`, and a word on stderr, if the folder cannot be used.
    pub(super) async fn slot(&self, key: &Key, clock: &Arc<dyn Clock>) -> Option<Slot> {
        match self.open(key) {
            Ok((slot, lock)) => slot.taken(lock, clock).await,
            Err(error) => told(&self.folder, &error),
        }
    }

    fn open(&self, key: &Key) -> io::Result<(Slot, File)> {
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut builder = DirBuilder::new();
        private(&mut builder);
        match builder.create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let found = fs::symlink_metadata(&self.folder)?;
        if !found.is_dir() {
            return Err(io::Error::other("it is no folder"));
        }
        closed(&found)?;
        // A file that we make is ours, so it tells whether the folder is.
        let probe = self.folder.join(format!("{}.probe", uuid::Uuid::new_v4()));
        let ours = private_file().write(true).create_new(true).open(&probe)?.metadata();
        fs::remove_file(&probe)?;
        let ours = ours?;
        same_owner(&found, &ours)?;
        let at = |ending: &str| self.folder.join(format!("{}.{ending}", key.0));
        let lock = private_file().read(true).write(true).create(true).truncate(false).open(at("lock"))?;
        Ok((Slot { path: at("json"), ours, _lock: None }, lock))
    }
}

/// One entry, held by this process.
pub(super) struct Slot {
    path: PathBuf,
    /// A file of ours, to compare owners with.
    ours: fs::Metadata,
    /// Let go when it is closed, even if the process is killed.
    _lock: Option<File>,
}

impl Slot {
    async fn taken(self, lock: File, clock: &Arc<dyn Clock>) -> Option<Self> {
        let begun = clock.now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Some(Self { _lock: Some(lock), ..self }),
                Err(TryLockError::WouldBlock) if clock.now().since(begun) < PATIENCE => clock.sleep(LOCK_AGAIN).await,
                Err(TryLockError::WouldBlock) => {
                    return told(&self.path, &io::Error::other("another process holds it"));
                }
                Err(TryLockError::Error(error)) => return told(&self.path, &error),
            }
        }
    }

    /// What is kept, if it is in order.
    pub(super) fn read(&self) -> Option<Entry> {
        match self.stored() {
            Ok(entry) => Some(entry),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => told(&self.path, &error),
        }
    }

    fn stored(&self) -> io::Result<Entry> {
        let found = fs::symlink_metadata(&self.path)?;
        if !found.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        closed(&found)?;
        same_owner(&found, &self.ours)?;
        let mut text = Zeroizing::new(Vec::new());
        File::open(&self.path)?.take(MOST_BYTES).read_to_end(&mut text)?;
        let broken = || io::Error::other("it does not hold what was written");
        let stored: Stored = serde_json::from_slice(&text).map_err(|_| broken())?;
        let token = client::token(&stored.token).ok_or_else(broken)?;
        Ok(Entry { token, expires_at: UnixTime::from_secs(stored.expires_at) })
    }

    /// Keeps a token: all of it or nothing.
    pub(super) fn write(&self, entry: &Entry) {
        let stored = Stored { token: entry.token.expose_secret().to_owned(), expires_at: entry.expires_at.as_secs() };
        let written = serde_json::to_vec(&stored).map_err(io::Error::other).map(Zeroizing::new);
        if let Err(error) = written.and_then(|text| self.replace(&text)) {
            told::<()>(&self.path, &error);
        }
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        // Left behind by a process that was killed; the lock says that it is nobody's now.
        fs::remove_file(&new).ok();
        private_file().write(true).create_new(true).open(&new)?.write_all(text)?;
        fs::rename(&new, &self.path)
    }

    /// Forgets it.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            told::<()>(&self.path, &error);
        }
    }
}

/// Says why a cache is done without.
fn told<T>(path: &Path, error: &io::Error) -> Option<T> {
    say(format_args!("octo-sts git-credential: {} is not used: {error}", path.display()));
    None
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn private(builder: &mut DirBuilder) {
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    #[cfg(not(unix))]
    let _ = builder;
}

/// Whether nobody else can read or write there.
fn closed(found: &fs::Metadata) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077 != 0 {
        return Err(io::Error::other("others may use it: its mode must be 0700, that of a file in it 0600"));
    }
    #[cfg(not(unix))]
    let _ = found;
    Ok(())
}

/// Whether it is ours.
fn same_owner(found: &fs::Metadata, ours: &fs::Metadata) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::uid(found) != std::os::unix::fs::MetadataExt::uid(ours) {
        return Err(io::Error::other("it belongs to somebody else"));
    }
    #[cfg(not(unix))]
    let _ = (found, ours);
    Ok(())
}
