//! The environment in which a server of one's own, `octo-sts serve`, stands between the emulators.
//!
//! A file for a shell to read: `set -a; . FILE`. The App's key in it opens nothing but the emulated
//! GitHub, and that only while `dev` runs.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
};

use super::{
    super::workload::quoted,
    DevError,
    policies::DOMAIN,
    world::{WEBHOOK_SECRET, World},
};

/// Writes the variables to a file; a new one is for its owner alone to read.
pub(super) fn write(path: &Path, world: &World) -> Result<(), DevError> {
    let text: String =
        variables(world).map(|(name, value)| format!("{name}={}\n", quoted(&value))).concat();
    let written = replace(path, text.as_bytes());
    written.map_err(|error| {
        DevError::Unavailable(format!("{} cannot be written: {error}", path.display()))
    })
}

fn variables(world: &World) -> [(&'static str, String); 9] {
    [
        ("STS_DOMAIN", DOMAIN.to_owned()),
        ("GITHUB_APP_IDS", world.app.to_string()),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", world.key.trim_end().replace('\n', "\\n")),
        ("GITHUB_BASE_URL", world.github.url()),
        ("GITHUB_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
        ("OIDC_ISSUERS", world.issuers().join(",")),
        ("OIDC_ALLOW_PRIVATE_NETWORKS", "known".to_owned()),
        // Beside the server of `dev`, and others.
        ("PORT", "0".to_owned()),
        ("METRICS", "false".to_owned()),
    ]
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(content)
}
