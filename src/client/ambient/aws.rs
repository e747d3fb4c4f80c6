//! AWS: a token from STS (`GetWebIdentityToken`) for whatever the workload can sign requests with.
//!
//! Credentials come from where AWS's own clients find them, in their order: the environment, a web
//! identity (EKS service accounts), the container's endpoint (ECS, EKS Pod Identity), the machine.
//! What profiles in files say is not read: they are for people.

mod credentials;
mod sign;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};

use self::credentials::{Credentials, Origin};
use super::{Error, IdentityToken, NoIdentity, Places, Way};
use crate::{client::call::Answer, config::Environment};

/// The content type of a request to STS.
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// The version of STS's API.
const VERSION: (&str, &str) = ("Version", "2011-06-15");
/// How long the token lives, in seconds: it is shown once, at once.
const LIFE: &str = "300";

/// What signs, and where STS is.
#[derive(Debug, Clone)]
pub(super) struct Aws {
    origin: Origin,
    /// What the environment says; the machine says it otherwise.
    region: Option<Region>,
    machine: String,
    sts: Option<String>,
}

/// A region's name: what may stand in a host's name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Region(String);

impl Region {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = (3..=32).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// The region's STS. The one without a region does not give out tokens.
    fn sts(&self) -> String {
        let domain = if self.0.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("https://sts.{}.{domain}", self.0)
    }
}

impl Aws {
    /// Looks for credentials; `forced` takes the machine's without a look at the firmware.
    pub(super) fn find(
        environment: &Environment,
        places: &Places,
        forced: bool,
    ) -> Result<Option<Self>, NoIdentity> {
        let Some(origin) = Origin::find(environment, places, forced)? else { return Ok(None) };
        let region =
            ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| environment.text(name));
        let region = region
            .map(|text| {
                Region::parse(text)
                    .ok_or_else(|| NoIdentity::new("AWS_REGION is no name of a region"))
            })
            .transpose()?;
        if region.is_none() && !matches!(origin, Origin::Machine { .. }) {
            return Err(NoIdentity::new(
                "AWS credentials are there, but AWS_REGION is not set, and STS gives out tokens in a region only",
            ));
        }
        Ok(Some(Self {
            origin,
            region,
            machine: places.aws_machine.clone(),
            sts: places.aws_sts.clone(),
        }))
    }

    /// What tells one workload of a machine from another.
    pub(super) fn mark(&self) -> &str {
        match &self.origin {
            Origin::Given(credentials) => &credentials.id,
            Origin::WebIdentity { role, .. } => role,
            Origin::Container { url, .. } => url,
            Origin::Machine { root } => root,
        }
    }

    /// A token for `audience` that says who signed for it.
    pub(super) async fn token(
        &self,
        audience: &str,
        way: &Way<'_>,
    ) -> Result<IdentityToken, Error> {
        let region = match &self.region {
            Some(region) => region.clone(),
            None => {
                let told = credentials::Machine::new(&self.machine, way).region().await?;
                Region::parse(&told)
                    .ok_or_else(|| Error::internal("AWS's metadata server names no region"))?
            }
        };
        let sts = Sts { root: self.sts.clone().unwrap_or_else(|| region.sts()), way };
        let credentials = self.origin.credentials(&sts).await?;
        let form = form(&[
            ("Action", "GetWebIdentityToken"),
            VERSION,
            ("Audience.member.1", audience),
            ("DurationSeconds", LIFE),
            ("SigningAlgorithm", "RS256"),
        ]);
        let scope = sign::Scope { region: &region.0, service: "sts", now: way.clock.now() };
        let answer = sts.ask(&form, Some((&credentials, &scope))).await?;
        let token =
            within(answer.text().unwrap_or_default(), "WebIdentityToken").unwrap_or_default();
        IdentityToken::parse(token)
            .map_err(|error| Error::internal(format!("AWS answered with {error}")))
    }
}

/// The parameters of a request to STS.
fn form(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

/// A region's STS.
struct Sts<'a> {
    root: String,
    way: &'a Way<'a>,
}

impl Sts<'_> {
    /// A POST, signed where there is something to sign with.
    async fn ask(
        &self,
        form: &str,
        signed: Option<(&Credentials, &sign::Scope<'_>)>,
    ) -> Result<Answer, Error> {
        let broken = |_| Error::internal("the address of AWS's STS is no URL");
        let mut request = Request::post(format!("{}/", self.root))
            .header(header::CONTENT_TYPE, FORM)
            .body(Bytes::from(form.to_owned()))
            .map_err(broken)?;
        if let Some((credentials, scope)) = signed {
            let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            request.headers_mut().insert(
                header::HOST,
                HeaderValue::from_str(&host)
                    .map_err(|_| Error::internal("the address of AWS's STS is no URL"))?,
            );
            sign::sign(&mut request, credentials, scope)
                .ok_or_else(|| Error::usage("the AWS credentials are not plain text"))?;
        }
        let answer = self.way.far().send(request).await;
        let answer = answer.map_err(|failure| Error::unanswered("AWS's STS", failure))?;
        if answer.status == StatusCode::OK { Ok(answer) } else { Err(refused(&answer)) }
    }
}

/// A refusal of STS: its code, and what helps.
fn refused(answer: &Answer) -> Error {
    let code = within(answer.text().unwrap_or_default(), "Code")
        .filter(|code| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let help = match code.map(|code| code.trim_end_matches("Exception")) {
        Some("OutboundWebIdentityFederationDisabled") => {
            ": the account does not give out tokens yet; turn it on by `aws iam enable-outbound-web-identity-federation`"
        }
        Some("AccessDenied") => ": the role needs leave for sts:GetWebIdentityToken",
        Some("ExpiredToken") => ": the AWS credentials have ended",
        Some("SignatureDoesNotMatch" | "InvalidClientTokenId") => {
            ": the AWS credentials are not right, or the clock is not"
        }
        _ => "",
    };
    let told = code.map(|code| format!(", {code}{help}")).unwrap_or_default();
    Error::of_status(
        answer.status,
        format!("AWS gives no ID token: STS answered {}{told}", answer.status.as_u16()),
    )
}

/// The text of the first element of that name: STS answers in XML, in which what we read is plain.
fn within<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    let (_, after) = xml.split_once(&format!("<{element}>"))?;
    let (text, _) = after.split_once("</")?;
    Some(text.trim())
}

/// The value of a header that is a secret.
fn secret_value(secret: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose_secret()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_part_of_a_hosts_name() {
        for (region, sts) in [
            ("us-east-1", "https://sts.us-east-1.amazonaws.com"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
        ] {
            assert_eq!(Region::parse(region).unwrap().sts(), sts);
        }
        for bad in [
            "",
            "a",
            "evil.example",
            "us-east-1/",
            "us-east-1.evil.example#",
            "US-EAST-1",
            "us east 1",
        ] {
            assert_eq!(Region::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn elements_of_an_answer() {
        assert_eq!(within("<a><Code>x</Code></a>", "Code"), Some("x"));
        for none in ["", "<Code>", "<Code/>", "<Codex>x</Codex>", "</Code>"] {
            assert_eq!(within(none, "Code"), None, "{none}");
        }
    }
}
