//! A token's file: what stands at its path is a whole token or nothing, at every moment.
//!
//! A token is written to a file of its own beside it, which is for the owner alone from its first
//! byte, is made durable, gets its mode, and then takes the path by a rename. So a reader finds the
//! old token or the new one; a kill leaves the path as it was, and a leftover that the next start
//! removes. Where the path is a symbolic link, the link is replaced, not what it points to.
//!
//! A file says when its token ends, for the agent that finds it after a restart: it was last
//! modified, it claims, one [`LONGEST_LIFE`] earlier. For a token of an hour that is when it was
//! issued.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use secrecy::{ExposeSecret, SecretString};

use super::schedule::LONGEST_LIFE;
use crate::clock::UnixTime;

/// Longer than any token of GitHub's; a longer file is not ours.
const MAX_BYTES: u64 = 4096;

/// Mode of a token's file: never readable by others, never executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Default for Mode {
    /// The owner alone.
    fn default() -> Self {
        Self(0o600)
    }
}

/// A string that is not a valid mode for a token's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mode is 0600, 0640, 0660, 0400 or 0440")]
pub struct ModeError;

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        let mode = text.strip_prefix('0').unwrap_or(text);
        match mode {
            "600" => Ok(Self(0o600)),
            "640" => Ok(Self(0o640)),
            "660" => Ok(Self(0o660)),
            "400" => Ok(Self(0o400)),
            "440" => Ok(Self(0o440)),
            _ => Err(ModeError),
        }
    }
}

/// Why no token can be kept at a path, whatever the token.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path ends in no name.
    #[error("{0}: not the path of a file")]
    NoName(PathBuf),
    /// There is a folder at the path.
    #[error("{0}: a folder")]
    Folder(PathBuf),
    /// The folder of the path is missing, or does not take files.
    #[error("{folder}: {error}; the folder must exist, and be writable")]
    Unwritable {
        /// Where the file was to be.
        folder: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// Where a token is kept.
#[derive(Debug, Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
    folder: PathBuf,
    /// What names of files begin with that become this one.
    prefix: String,
    mode: Mode,
}

/// What a start finds at the path.
pub(super) struct Found {
    pub(super) token: SecretString,
    /// At the latest.
    pub(super) ends_at: UnixTime,
}

impl TokenFile {
    /// Nothing is touched yet.
    pub(super) fn new(path: &Path, mode: Mode) -> Result<Self, FileError> {
        let name = path.file_name().ok_or_else(|| FileError::NoName(path.to_owned()))?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self {
            path: path.to_owned(),
            folder,
            prefix: format!(".{}.octo-sts-", name.to_string_lossy()),
            mode,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a killed run left behind, and proves that the folder takes files.
    pub(super) fn prepare(&self) -> Result<(), FileError> {
        if self.path.is_dir() {
            return Err(FileError::Folder(self.path.clone()));
        }
        let unwritable = |error| FileError::Unwritable { folder: self.folder.clone(), error };
        self.remove_leftovers().map_err(unwritable)?;
        Draft::create(self).map(drop).map_err(unwritable)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(&self.prefix));
            if rest.is_some_and(|rest| uuid::Uuid::try_parse(rest).is_ok()) {
                // The draft that follows reports the cause if it stays.
                fs::remove_file(entry.path()).ok();
            }
        }
        Ok(())
    }

    /// Puts a token at the path.
    pub(super) fn write(&self, token: &SecretString, ends_at: UnixTime) -> io::Result<()> {
        let mut draft = Draft::create(self)?;
        draft.file.write_all(token.expose_secret().as_bytes())?;
        draft.file.set_modified(system_time(ends_at.minus(LONGEST_LIFE)))?;
        draft.become_the_file(self)
    }

    /// What an earlier run left at the path, if it is a token; when it ends, it tells by its time
    /// of modification, but no later than [`LONGEST_LIFE`] from `now`.
    pub(super) fn found(&self, now: UnixTime) -> Option<Found> {
        // Asked before it is opened: to open a pipe would wait for a writer.
        let about = fs::metadata(&self.path).ok().filter(fs::Metadata::is_file)?;
        let mut text = String::new();
        File::open(&self.path).ok()?.take(MAX_BYTES + 1).read_to_string(&mut text).ok()?;
        // The prefix of installation tokens; anything else is not ours to read.
        if text.len() as u64 > MAX_BYTES || !text.starts_with("ghs_") {
            return None;
        }
        let ends_at =
            unix_time(about.modified().ok()?).plus(LONGEST_LIFE).min(now.plus(LONGEST_LIFE));
        Some(Found { token: text.into(), ends_at })
    }

    /// Whether there is a file at the path.
    pub(super) fn is_there(&self) -> bool {
        self.path.is_file()
    }

    /// Leaves nothing at the path.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A file beside the path, removed when it is dropped.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    fn create(target: &TokenFile) -> io::Result<Self> {
        let path =
            target.folder.join(format!("{}{}", target.prefix, uuid::Uuid::new_v4().simple()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { file: options.open(&path)?, path })
    }

    fn become_the_file(self, target: &TokenFile) -> io::Result<()> {
        #[cfg(unix)]
        self.file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(target.mode.0))?;
        self.file.sync_all()?;
        fs::rename(&self.path, &target.path)?;
        // The new name must outlive a loss of power no less than the content does; where folders
        // cannot be synced, the system sees to it in its own time.
        #[cfg(unix)]
        File::open(&target.folder).and_then(|folder| folder.sync_all()).ok();
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is none.
        fs::remove_file(&self.path).ok();
    }
}

/// Whole seconds: not every file system keeps more.
fn system_time(time: UnixTime) -> SystemTime {
    let secs = time.as_secs();
    let distance = Duration::from_secs(secs.unsigned_abs());
    let found =
        if secs < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    found.unwrap_or(UNIX_EPOCH)
}

fn unix_time(time: SystemTime) -> UnixTime {
    let secs = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UnixTime::from_secs(i64::try_from(secs).unwrap_or(i64::MAX))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("octo-sts-file-{name}-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn file(folder: &Path, mode: &str) -> TokenFile {
        TokenFile::new(&folder.join("token"), mode.parse().unwrap()).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    const END: UnixTime = UnixTime::from_secs(1_790_003_600);

    #[test]
    fn a_token_stands_at_the_path_alone_with_its_mode() {
        for mode in ["0600", "640", "0660", "0400", "0440"] {
            let folder = folder("mode");
            let file = file(&folder, mode);
            file.prepare().unwrap();
            for token in ["ghs_one", "ghs_two"] {
                file.write(&token.to_owned().into(), END).unwrap();
                assert_eq!(fs::read_to_string(file.path()).unwrap(), token);
                let found = fs::metadata(file.path()).unwrap().permissions().mode() & 0o7777;
                assert_eq!(found, u32::from_str_radix(mode, 8).unwrap());
                assert_eq!(names(&folder), ["token"]);
            }
            file.remove().unwrap();
            file.remove().unwrap();
            assert!(names(&folder).is_empty());
        }
    }

    #[test]
    fn a_mode_for_others_is_none() {
        for text in ["0644", "644", "0666", "0700", "0200", "0", "", "06400", "-600", "1600"] {
            assert_eq!(text.parse::<Mode>(), Err(ModeError), "{text}");
        }
    }

    #[test]
    fn a_start_knows_what_it_finds_and_until_when_it_lives() {
        let folder = folder("found");
        let file = file(&folder, "600");
        assert!(file.found(END).is_none());
        file.write(&"ghs_one".to_owned().into(), END).unwrap();
        let found = file.found(END.minus(Duration::from_secs(60))).unwrap();
        assert_eq!((found.token.expose_secret(), found.ends_at), ("ghs_one", END));
        // Somebody touched it, or the clock went back.
        let earlier = END.minus(Duration::from_secs(7200));
        assert_eq!(file.found(earlier).unwrap().ends_at, earlier.plus(LONGEST_LIFE));
        for other in ["", "a letter", &format!("ghs_{}", "x".repeat(5000))] {
            fs::write(file.path(), other).unwrap();
            assert!(file.found(END).is_none());
        }
    }

    #[test]
    fn leftovers_of_a_killed_run_go_and_nothing_else() {
        let folder = folder("leftovers");
        let file = file(&folder, "600");
        let leftover = format!(".token.octo-sts-{}", uuid::Uuid::new_v4().simple());
        let others = [
            ".token.octo-sts-mine",
            ".other.octo-sts-67e5504410b1426f9247bb680e5fe0c8",
            "token.octo-sts",
        ];
        for name in others.iter().copied().chain([leftover.as_str()]) {
            fs::write(folder.join(name), "").unwrap();
        }
        file.prepare().unwrap();
        let (mut left, mut kept) = (names(&folder), others.to_vec());
        left.sort();
        kept.sort_unstable();
        assert_eq!(left, kept);
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let folder = folder("link");
        fs::write(folder.join("target"), "as it was").unwrap();
        symlink("target", folder.join("token")).unwrap();
        file(&folder, "600").write(&"ghs_one".to_owned().into(), END).unwrap();
        assert_eq!(fs::read_to_string(folder.join("target")).unwrap(), "as it was");
        assert!(fs::symlink_metadata(folder.join("token")).unwrap().is_file());
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind_and_the_old_token_in_place() {
        let folder = folder("fails");
        let file = file(&folder, "600");
        file.write(&"ghs_one".to_owned().into(), END).unwrap();
        // A folder at the path: the rename fails, after everything else went well.
        fs::rename(file.path(), folder.join("kept")).unwrap();
        fs::create_dir_all(file.path().join("in the way")).unwrap();
        assert!(file.write(&"ghs_two".to_owned().into(), END).is_err());
        assert!(matches!(file.prepare(), Err(FileError::Folder(_))));
        let mut left = names(&folder);
        left.sort();
        assert_eq!(left, ["kept", "token"]);
    }

    #[test]
    fn a_path_that_cannot_hold_a_token_is_an_error() {
        for path in ["/", "..", "x/.."] {
            assert!(
                matches!(
                    TokenFile::new(Path::new(path), Mode::default()),
                    Err(FileError::NoName(_))
                ),
                "{path}"
            );
        }
        let nowhere = TokenFile::new(Path::new("/nowhere/at/all"), Mode::default()).unwrap();
        let told = nowhere.prepare().unwrap_err().to_string();
        assert!(
            told.starts_with("/nowhere/at: ")
                && told.ends_with("the folder must exist, and be writable"),
            "{told}"
        );
        let here = TokenFile::new(Path::new("token"), Mode::default()).unwrap();
        assert_eq!(here.folder, Path::new("."));
    }
}
