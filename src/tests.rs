//! What the tests of several modules share: a folder for files, gone with the value, and a process
//! for a test that must be alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("octo-sts-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Runs this test in a process of its own, and tells whether this is that process.
///
/// `tracing` decides once for the whole process whether anyone wants a span or an event, and may do
/// so on the thread of another test, which wants none. A test that counts them must be alone.
pub(crate) fn alone(test: &str) -> bool {
    let arguments = ["--exact", test, "--nocapture"];
    if std::env::args().skip(1).eq(arguments) {
        return true;
    }
    let mut this = std::process::Command::new(std::env::current_exe().unwrap());
    let run = this.args(arguments).output().unwrap();
    let (text, errors) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && text.contains(" 1 passed"), "{text}{errors}");
    false
}
