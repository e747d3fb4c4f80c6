//! Generates the wire types and services from `proto/`, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 5] = [
    "chainguard/platform/oidc/sts.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "octosts/v1/check.proto",
    "octosts/v1/condition.proto",
];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script by its environment where to write")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
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
