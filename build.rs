//! Generates the wire types and services from `proto/`, without protoc, and says which commit is
//! built.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const FILES: [&str; 5] = [
    "chainguard/platform/oidc/sts.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "octosts/v1/check.proto",
    "octosts/v1/condition.proto",
];

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by its environment where to write"
)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-env-changed=OCTO_STS_COMMIT");
    let given = env::var("OCTO_STS_COMMIT").ok().filter(|commit| !commit.is_empty());
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let commit = given.or_else(|| commit_of(&folder)).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=OCTO_STS_COMMIT={commit}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    // Reflection serves these bytes: prost's own descriptor types drop options that they do not
    // know, which are just the `google.api.http` ones.
    fs::write(out.join("descriptors.binpb"), compiler.encode_file_descriptor_set())?;
    tonic_build::configure()
        // Without this the client needs tonic's own transport, which only the tests have.
        .build_transport(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The commit that is checked out, if this folder is the root of a repository and git is there.
/// Sources without a repository of their own (a tarball, a vendored copy) have none.
fn commit_of(folder: &Path) -> Option<String> {
    if !folder.join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // Each commit and each checkout adds to this log.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).map(|path| folder.join(path))
        && log.exists()
    {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}
