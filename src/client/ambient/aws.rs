//! AWS: a token from STS (`GetWebIdentityToken`) for whatever the workload can sign requests with.

use super::{Error, IdentityToken, NoIdentity, Places, Way};
use crate::{
    cloud::{
        self,
        aws::{Aws as Access, STS_VERSION, element},
    },
    environment::Environment,
};

/// How long the token lives, in seconds: it is used once, immediately.
const LIFE: &str = "300";

/// Requests tokens from the region's STS. The one without a region does not issue tokens.
#[derive(Debug, Clone)]
pub(super) struct Aws(Access);

impl Aws {
    /// Looks for credentials; `forced` takes the machine's without a look at the firmware.
    pub(super) fn find(
        environment: &Environment,
        places: &Places,
        forced: bool,
    ) -> Result<Option<Self>, NoIdentity> {
        let Some(access) = Access::find(environment, &places.endpoints(), forced)? else {
            return Ok(None);
        };
        if !access.can_tell_region() {
            return Err(NoIdentity::new(
                "AWS credentials are there, but AWS_REGION is not set, and STS gives out tokens in a region only",
            ));
        }
        Ok(Some(Self(access)))
    }

    /// What distinguishes one workload of a machine from another.
    pub(super) fn mark(&self) -> &str {
        self.0.mark()
    }

    /// A token for `audience` that says who signed for it.
    pub(super) async fn token(
        &self,
        audience: &str,
        way: &Way<'_>,
    ) -> Result<IdentityToken, Error> {
        let Self(access) = self;
        let network = way.network();
        let region = access.region(&network).await?;
        let credentials = access.credentials(&region, &network).await?;
        let parameters = [
            ("Action", "GetWebIdentityToken"),
            STS_VERSION,
            ("Audience.member.1", audience),
            ("DurationSeconds", LIFE),
            ("SigningAlgorithm", "RS256"),
        ];
        let answer = access.post_form(&region, Some(&credentials), &parameters, &network).await;
        let answer = answer.map_err(refused)?;
        let token =
            element(answer.text().unwrap_or_default(), "WebIdentityToken").unwrap_or_default();
        IdentityToken::parse(token)
            .map_err(|error| Error::internal(format!("AWS answered with {error}")))
    }
}

/// What helps against a refusal of STS.
fn refused(error: cloud::Error) -> Error {
    let cloud::Error::Refused { status, code, text } = error else { return error.into() };
    let help = match code.as_deref().map(|code| code.trim_end_matches("Exception")) {
        Some("OutboundWebIdentityFederationDisabled") => {
            ": the account does not give out tokens yet; turn it on by `aws iam enable-outbound-web-identity-federation`"
        }
        Some("AccessDenied") => ": the role needs the permission sts:GetWebIdentityToken",
        _ => "",
    };
    Error::of_status(status, format!("AWS gives no ID token: {text}{help}"))
}
