//! Google Cloud: the metadata server that every machine there has at a fixed address.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};

use super::{Error, IdentityToken, Way, firmware_says};
use crate::{egress::AddressRule, environment::Environment};

/// Both sides say it: the request, so that no page can be made to send it, and the answer.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");

/// Whether this machine is Google's, by its firmware or by what its own runtimes alone set. Nothing
/// is sent to find out.
pub(super) fn is_here(environment: &Environment, firmware: &Path) -> bool {
    ["CLOUD_RUN_JOB", "GAE_APPLICATION"].iter().any(|name| environment.text(name).is_some())
        || firmware_says(firmware, "product_name", "Google")
}

/// The metadata server.
#[derive(Debug, Clone)]
pub(super) struct Gcp {
    root: String,
}

impl Gcp {
    pub(super) fn new(root: String) -> Self {
        Self { root }
    }

    /// The token of the machine's default service account, with the machine's own claims.
    pub(super) async fn token(
        &self,
        audience: &str,
        way: &Way<'_>,
    ) -> Result<IdentityToken, Error> {
        let path = "computeMetadata/v1/instance/service-accounts/default/identity";
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("audience", audience)
            .append_pair("format", "full")
            .finish();
        let request = Request::get(format!("{}/{path}?{query}", self.root))
            .header(FLAVOR, GOOGLE)
            .body(Bytes::new())
            .map_err(|_| Error::internal("the metadata server's address is not a URL"))?;
        let whom = "Google's metadata server";
        let answer = way
            .near(AddressRule::Metadata)
            .send(request)
            .await
            .map_err(|failure| Error::unanswered(whom, failure))?;
        if answer.headers.get(FLAVOR) != Some(&GOOGLE) {
            return Err(Error::internal(format!(
                "what answers at the address of {whom} is not it"
            )));
        }
        match answer.status {
            StatusCode::OK => IdentityToken::parse(answer.text().unwrap_or_default())
                .map_err(|error| Error::internal(format!("{whom} answered with {error}"))),
            StatusCode::NOT_FOUND => Err(Error::of_status(
                answer.status,
                format!("{whom} gives no ID token: this machine has no service account"),
            )),
            status => Err(Error::of_status(
                status,
                format!("{whom} gives no ID token: it answered {}", status.as_u16()),
            )),
        }
    }
}
