//! The cluster in which the server runs as a pod: what every pod knows of its API server.

use std::path::PathBuf;

use super::{KeysFrom, Reach, read};
use crate::{egress::Roots, name::Issuer, oidc::Unverified};

/// Where a pod finds its API server and its own credential.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `KUBERNETES_SERVICE_HOST` and the port, if the server runs in a pod.
    pub api_server: Option<(String, u16)>,
    /// The folder of the pod's token and of the API server's CA.
    pub folder: PathBuf,
}

impl Pod {
    /// Where Kubernetes mounts the credential.
    pub const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

    /// The cluster's issuer, as the pod's token names it, and its keys, which are the API server's.
    pub(super) fn cluster(&self) -> Result<(Issuer, KeysFrom), String> {
        let (host, port) = self
            .api_server
            .as_ref()
            .ok_or("`in_cluster` needs KUBERNETES_SERVICE_HOST: this is not a pod")?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let keys = format!("https://{host}:{port}/openid/v1/jwks");
        let keys = keys.parse().map_err(|_| "KUBERNETES_SERVICE_HOST is not a host")?;
        let file = |name: &str| {
            let path = self.folder.join(name);
            let bytes =
                read(&path).map_err(|error| format!("the pod's {name} cannot be read: {error}"))?;
            Ok::<_, String>((path, bytes))
        };
        let (bearer, own) = file("token")?;
        let (_, ca) = file("ca.crt")?;
        let roots = Roots::read(&ca).map_err(|error| format!("the pod's ca.crt: {error}"))?;
        let reach =
            Reach { private_network: true, roots: Some(roots), bearer: Some(bearer), proxy: false };
        Ok((issuer_of(&own)?, KeysFrom::Address(keys, reach)))
    }
}

/// `iss` of the pod's own token. It is not verified: anyone who can replace it can replace all of the
/// pod.
fn issuer_of(own: &[u8]) -> Result<Issuer, String> {
    let token = std::str::from_utf8(own).unwrap_or_default().trim();
    let read =
        Unverified::read(token, own.len()).map_err(|error| format!("the pod's token: {error}"))?;
    Ok(read.issuer().clone())
}
