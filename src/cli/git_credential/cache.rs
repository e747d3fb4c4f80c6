//! Tokens between two calls of git: a file each, for their owner alone.
//!
//! A cache is a convenience: errors with it are reported, and the command goes on without it. What
//! others can read or write is not trusted, so the folder must belong to us and be closed to
//! everyone else.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::say;
use crate::{
    client,
    clock::{Clock, UnixTime},
    cloud,
};

/// A token is not handed out that ends sooner: what git has begun must come to its end.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long another process may hold an entry before we do without it.
const PATIENCE: Duration = Duration::from_secs(30);
const LOCK_AGAIN: Duration = Duration::from_millis(50);
/// Files without a token that are older were left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);
/// No entry is larger.
const MAX_BYTES: u64 = 64 << 10;

/// Under which a token is kept: a digest of what it depends on.
pub(super) struct Key(String);

impl Key {
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(hex::encode(context.finish()))
    }
}

impl Key {
    /// The key of an entry's file.
    fn of_file(path: &Path) -> Option<Self> {
        let stem = path.file_stem()?.to_str()?;
        Self::is_name(stem).then(|| Self(stem.to_owned()))
    }

    fn is_name(stem: &str) -> bool {
        stem.len() == 64
            && stem.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
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

    /// Takes an entry for this process alone. `None`, and a word on stderr, if the folder cannot be
    /// used.
    pub(super) async fn slot(&self, key: &Key, clock: &Arc<dyn Clock>) -> Option<Slot> {
        match self.open(key) {
            Ok((slot, lock)) => slot.acquired(lock, clock).await,
            Err(error) => report(&self.folder, &error),
        }
    }

    /// Drops the entry that holds this token, under whichever key. Whether there was one.
    pub(super) async fn forget(&self, token: &SecretString, clock: &Arc<dyn Clock>) -> bool {
        let is_same = |entry: &Entry| client::same(&entry.token, token);
        let mut found = false;
        if !self.folder.exists() {
            return found;
        }
        let ours = match self.prepare() {
            Ok(ours) => ours,
            Err(error) => return report(&self.folder, &error).unwrap_or(found),
        };
        for key in self.files("json").into_iter().filter_map(|path| Key::of_file(&path)) {
            let held = self.unlocked(&key, &ours).stored().ok();
            if !held.as_ref().is_some_and(is_same) {
                continue;
            }
            // Another process may have renewed the entry meanwhile; then it holds another token.
            if let Some(slot) = self.slot(&key, clock).await
                && slot.read().as_ref().is_some_and(is_same)
            {
                slot.remove();
            }
            found = true;
        }
        found
    }

    /// Removes what is left of tokens that have ended and of processes that were killed. `own` is
    /// the entry that stays. Only files that we name so are touched; what cannot be removed is
    /// left for the next time.
    pub(super) fn prune(&self, own: &Slot, now: UnixTime) {
        let is_old = |path: &Path| {
            let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
            modified.is_ok_and(|time| unix_time(time).plus(LEFT_BEHIND) < now)
        };
        for path in self.files("json").into_iter().filter(|path| *path != own.path) {
            let Some(key) = Key::of_file(&path) else { continue };
            let stored = self.unlocked(&key, &own.ours).stored();
            let has_ended = stored.map_or_else(|_| is_old(&path), |entry| entry.expires_at <= now);
            if has_ended {
                remove_unless_locked(&path);
            }
        }
        for path in self.files("lock") {
            if path != own.path.with_extension("lock")
                && !path.with_extension("json").exists()
                && is_old(&path)
            {
                remove_unless_locked(&path);
            }
        }
        let left_behind = ["new", "probe"].iter().flat_map(|ending| self.files(ending));
        left_behind.filter(|path| is_old(path)).for_each(|path| drop(fs::remove_file(path)));
    }

    /// Our files with this ending.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let paths = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        let is_ours = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let named_by_us = if ending == "probe" {
                uuid::Uuid::try_parse(stem).is_ok()
            } else {
                Key::is_name(stem)
            };
            named_by_us && path.extension().is_some_and(|found| found == ending)
        };
        paths.filter(is_ours).collect()
    }

    /// An entry as it is now, which another process may be about to change.
    fn unlocked(&self, key: &Key, ours: &fs::Metadata) -> Slot {
        Slot { path: self.at(key, "json"), ours: ours.clone(), _lock: None }
    }

    fn at(&self, key: &Key, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", key.0))
    }

    fn open(&self, key: &Key) -> io::Result<(Slot, File)> {
        let slot = self.unlocked(key, &self.prepare()?);
        let lock = private_file()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.at(key, "lock"))?;
        Ok((slot, lock))
    }

    /// Makes the folder, and makes sure that it is ours alone. Gives the metadata of a file of
    /// ours.
    fn prepare(&self) -> io::Result<fs::Metadata> {
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
            return Err(io::Error::other("it is not a folder"));
        }
        closed(&found)?;
        // A file that we make is ours, so it tells whether the folder is.
        let probe = self.folder.join(format!("{}.probe", uuid::Uuid::new_v4()));
        let ours = private_file().write(true).create_new(true).open(&probe)?.metadata();
        fs::remove_file(&probe)?;
        let ours = ours?;
        same_owner(&found, &ours)?;
        Ok(ours)
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
    async fn acquired(self, lock: File, clock: &Arc<dyn Clock>) -> Option<Self> {
        let begun = clock.now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Some(Self { _lock: Some(lock), ..self }),
                Err(TryLockError::WouldBlock) if clock.now().since(begun) < PATIENCE => {
                    clock.sleep(LOCK_AGAIN).await
                }
                Err(TryLockError::WouldBlock) => {
                    return report(&self.path, &io::Error::other("another process holds it"));
                }
                Err(TryLockError::Error(error)) => return report(&self.path, &error),
            }
        }
    }

    /// What is kept, if it is in order.
    pub(super) fn read(&self) -> Option<Entry> {
        match self.stored() {
            Ok(entry) => Some(entry),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => report(&self.path, &error),
        }
    }

    fn stored(&self) -> io::Result<Entry> {
        let found = fs::symlink_metadata(&self.path)?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        closed(&found)?;
        same_owner(&found, &self.ours)?;
        let mut text = Zeroizing::new(Vec::new());
        File::open(&self.path)?.take(MAX_BYTES).read_to_end(&mut text)?;
        let broken = || io::Error::other("it does not hold what was written");
        let stored: Stored = serde_json::from_slice(&text).map_err(|_| broken())?;
        let token = cloud::secret_text(&stored.token).ok_or_else(broken)?;
        Ok(Entry { token, expires_at: UnixTime::from_secs(stored.expires_at) })
    }

    /// Keeps a token: all of it or nothing.
    pub(super) fn write(&self, entry: &Entry) {
        let stored = Stored {
            token: entry.token.expose_secret().to_owned(),
            expires_at: entry.expires_at.as_secs(),
        };
        let written = serde_json::to_vec(&stored).map_err(io::Error::other).map(Zeroizing::new);
        if let Err(error) = written.and_then(|text| self.replace(&text)) {
            report::<()>(&self.path, &error);
        }
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        // Left behind by a process that was killed; the lock shows that no process uses it.
        fs::remove_file(&new).ok();
        private_file().write(true).create_new(true).open(&new)?.write_all(text)?;
        fs::rename(&new, &self.path)
    }

    /// Forgets it.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            report::<()>(&self.path, &error);
        }
    }
}

/// Removes the files of an entry, unless a process works on it.
fn remove_unless_locked(path: &Path) {
    let lock_path = path.with_extension("lock");
    let lock = private_file().read(true).write(true).open(&lock_path).ok();
    if lock.as_ref().is_some_and(|lock| lock.try_lock().is_err()) {
        return;
    }
    for ending in ["json", "new", "lock"] {
        fs::remove_file(path.with_extension(ending)).ok();
    }
}

/// Says why a cache is done without.
fn report<T>(path: &Path, error: &io::Error) -> Option<T> {
    say(format_args!("octo-sts git-credential: {} is not used: {error}", path.display()));
    None
}

fn unix_time(time: SystemTime) -> UnixTime {
    let secs = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    UnixTime::from_secs(i64::try_from(secs).unwrap_or(i64::MAX))
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

/// Whether no other user can read or write there.
fn closed(found: &fs::Metadata) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077 != 0 {
        return Err(io::Error::other(
            "others may use it: its mode must be 0700, that of a file in it 0600",
        ));
    }
    #[cfg(not(unix))]
    let _ = found;
    Ok(())
}

/// Whether it is ours.
fn same_owner(found: &fs::Metadata, ours: &fs::Metadata) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::uid(found) != std::os::unix::fs::MetadataExt::uid(ours) {
        return Err(io::Error::other("it belongs to another user"));
    }
    #[cfg(not(unix))]
    let _ = (found, ours);
    Ok(())
}
