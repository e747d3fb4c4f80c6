//! The wire types and services, generated from `proto/` by `build.rs`.
//!
//! Only `transport` and the commands that call a server use them: the wire's types end there.

#![expect(clippy::allow_attributes, clippy::too_many_lines, reason = "generated code")]

/// The service contract.
pub mod oidc {
    tonic::include_proto!("chainguard.platform.oidc");
}

/// What this service adds to the contract.
pub mod octosts {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("octosts.v1");
    }
}

/// The error model.
pub mod rpc {
    tonic::include_proto!("google.rpc");
}

/// Every file of `proto/` and what they import, as an encoded `google.protobuf.FileDescriptorSet`
/// with all options kept.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
