//! AWS: credentials from where AWS's own clients find them, and signed requests.
//!
//! Credentials come in the order of AWS's clients: the environment, a web identity (EKS service
//! accounts), the container's endpoint (ECS, EKS Pod Identity), the machine. What profiles in files
//! say is not read: they are for people.

mod credentials;
mod sign;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use serde::Deserialize;

pub use self::credentials::Credentials;
use self::credentials::{Machine, Origin};
use super::{Endpoints, Error, Network, secret_value, send};
use crate::{egress::Answer, environment::Environment};

/// The content type of a request to STS.
const FORM: HeaderValue =
    HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
/// The content type of a request to most other services.
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");
/// The version of STS's API.
pub const STS_VERSION: (&str, &str) = ("Version", "2011-06-15");

/// A region's name: what may be part of a host's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region(String);

impl Region {
    /// Reads a name; `None` if it could change the host that it becomes part of.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = (3..=32).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// The domain of the region's partition.
    fn domain(&self) -> &'static str {
        match self.0.split_once('-').map_or("", |(partition, _)| partition) {
            "cn" => "amazonaws.com.cn",
            "eusc" => "amazonaws.eu",
            _ => "amazonaws.com",
        }
    }
}

/// Access to AWS: who signs requests, and where.
#[derive(Debug, Clone)]
pub struct Aws {
    origin: Origin,
    /// What the environment says.
    region: Option<Region>,
    machine: String,
    sts: Option<String>,
    endpoints: ServiceEndpoints,
}

/// Where services are, if not at the region's address.
#[derive(Debug, Clone, Default)]
struct ServiceEndpoints {
    sts: Option<String>,
    kms: Option<String>,
    secrets_manager: Option<String>,
    use_fips: bool,
}

impl ServiceEndpoints {
    fn read(environment: &Environment) -> Self {
        let is_true = |name| {
            environment.text(name).is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
        };
        let use_fips = is_true("AWS_USE_FIPS_ENDPOINT");
        if is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
            return Self { use_fips, ..Self::default() };
        }
        let url = |name: &str| {
            let own = environment.text(&format!("AWS_ENDPOINT_URL_{name}"));
            let url = own.or_else(|| environment.text("AWS_ENDPOINT_URL"))?;
            Some(url.trim().trim_end_matches('/').to_owned())
        };
        Self { sts: url("STS"), kms: url("KMS"), secrets_manager: url("SECRETS_MANAGER"), use_fips }
    }
}

/// The services that are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The Security Token Service.
    Sts,
    /// The Key Management Service.
    Kms,
    /// Secrets Manager.
    SecretsManager,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Sts => "sts",
            Self::Kms => "kms",
            Self::SecretsManager => "secretsmanager",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Sts => "AWS's STS",
            Self::Kms => "AWS KMS",
            Self::SecretsManager => "AWS Secrets Manager",
        }
    }
}

impl Aws {
    /// Looks for credentials. Nothing is sent; `assume_machine` takes the machine's metadata server
    /// to be there without a look at the firmware.
    ///
    /// # Errors
    /// What is there is incomplete or wrong.
    pub fn find(
        environment: &Environment,
        endpoints: &Endpoints,
        assume_machine: bool,
    ) -> Result<Option<Self>, Error> {
        let Some(origin) = Origin::find(environment, endpoints, assume_machine)? else {
            return Ok(None);
        };
        let region =
            ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| environment.text(name));
        let region = region.map(|text| {
            Region::parse(text)
                .ok_or_else(|| Error::configuration("AWS_REGION is not the name of a region"))
        });
        Ok(Some(Self {
            origin,
            region: region.transpose()?,
            machine: endpoints.aws_machine.clone(),
            sts: endpoints.aws_sts.clone(),
            endpoints: ServiceEndpoints::read(environment),
        }))
    }

    /// What distinguishes one workload of a machine from another.
    pub fn mark(&self) -> &str {
        match &self.origin {
            Origin::Given(credentials) => credentials.id(),
            Origin::WebIdentity { role, .. } => role,
            Origin::Container { url, .. } => url,
            Origin::Machine { root } => root,
        }
    }

    /// Whether the region is known, or the machine can be asked for it.
    pub fn can_tell_region(&self) -> bool {
        self.region.is_some() || matches!(self.origin, Origin::Machine { .. })
    }

    /// The region of the environment, else the machine's.
    ///
    /// # Errors
    /// There is none.
    pub async fn region(&self, network: &Network) -> Result<Region, Error> {
        if let Some(region) = &self.region {
            return Ok(region.clone());
        }
        if !self.can_tell_region() {
            return Err(Error::configuration("AWS_REGION is not set"));
        }
        let told = Machine::new(&self.machine, network).region().await?;
        Region::parse(&told).ok_or_else(|| Error::unusable("AWS's metadata server names no region"))
    }

    /// An access key, requested anew.
    ///
    /// # Errors
    /// Their source does not issue any.
    pub async fn credentials(
        &self,
        region: &Region,
        network: &Network,
    ) -> Result<Credentials, Error> {
        self.origin.credentials(self, region, network).await
    }

    /// POSTs a form, signed where there are credentials.
    ///
    /// # Errors
    /// There is no response of status 200.
    pub async fn post_form(
        &self,
        region: &Region,
        credentials: Option<&Credentials>,
        parameters: &[(&str, &str)],
        network: &Network,
    ) -> Result<Answer, Error> {
        let form =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let call = Call { service: Service::Sts, region, credentials, target: None };
        self.post(&call, FORM, form.into(), network).await
    }

    /// Calls an action of a service that speaks JSON, with credentials requested anew.
    ///
    /// # Errors
    /// There are no credentials, or no response of status 200.
    pub async fn call_json(
        &self,
        action: (Service, &str),
        region: Option<&Region>,
        body: &serde_json::Value,
        network: &Network,
    ) -> Result<Answer, Error> {
        let region = match region {
            Some(region) => region.clone(),
            None => self.region(network).await?,
        };
        let (service, target) = action;
        let credentials = self.credentials(&region, network).await?;
        let call = Call {
            service,
            region: &region,
            credentials: Some(&credentials),
            target: Some(target),
        };
        self.post(&call, JSON, body.to_string().into(), network).await
    }

    async fn post(
        &self,
        call: &Call<'_>,
        content_type: HeaderValue,
        body: Bytes,
        network: &Network,
    ) -> Result<Answer, Error> {
        let whom = call.service.title();
        let broken = || Error::configuration(format!("the address of {whom} is not a URL"));
        let root = self.root(call.service, call.region);
        let mut request = Request::post(format!("{root}/"))
            .header(header::CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|_| broken())?;
        if let Some(target) = call.target {
            let target = HeaderValue::from_str(target).map_err(|_| broken())?;
            request.headers_mut().insert("x-amz-target", target);
        }
        if let Some(credentials) = call.credentials {
            let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            let host = HeaderValue::from_str(&host).map_err(|_| broken())?;
            request.headers_mut().insert(header::HOST, host);
            let scope = sign::Scope {
                region: &call.region.0,
                service: call.service.name(),
                now: network.clock.now(),
            };
            sign::sign(&mut request, credentials, &scope)
                .ok_or_else(|| Error::configuration("the AWS credentials are not plain text"))?;
        }
        let answer = send(whom, &network.service(), request).await?;
        if answer.status == StatusCode::OK { Ok(answer) } else { Err(refused(whom, &answer)) }
    }

    /// The root of a service.
    fn root(&self, service: Service, region: &Region) -> String {
        let configured = match service {
            Service::Sts => self.sts.as_ref().or(self.endpoints.sts.as_ref()),
            Service::Kms => self.endpoints.kms.as_ref(),
            Service::SecretsManager => self.endpoints.secrets_manager.as_ref(),
        };
        let fips = if self.endpoints.use_fips { "-fips" } else { "" };
        configured.cloned().unwrap_or_else(|| {
            format!("https://{}{fips}.{}.{}", service.name(), region.0, region.domain())
        })
    }
}

/// Which service is called, and who calls.
struct Call<'a> {
    service: Service,
    region: &'a Region,
    credentials: Option<&'a Credentials>,
    target: Option<&'a str>,
}

/// A refusal, and what helps.
fn refused(whom: &str, answer: &Answer) -> Error {
    let refusal = super::refusal(whom, answer.status, code(answer).as_deref());
    let Error::Refused { status, code, text } = refusal else { return refusal };
    let help = match code.as_deref().map(|code| code.trim_end_matches("Exception")) {
        Some("ExpiredToken") => ": the AWS credentials have ended",
        Some("SignatureDoesNotMatch" | "InvalidClientTokenId" | "UnrecognizedClient") => {
            ": the AWS credentials are not right, or the clock is not"
        }
        _ => "",
    };
    Error::Refused { status, code, text: format!("{text}{help}") }
}

/// The code of an error, in JSON or XML.
fn code(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "__type")]
        kind: String,
    }
    let json = serde_json::from_slice::<Body>(&answer.body).ok();
    let json = json.as_ref().map(|body| body.kind.rsplit('#').next().unwrap_or_default());
    json.or_else(|| element(answer.text().unwrap_or_default(), "Code")).map(str::to_owned)
}

/// The text of the first element of that name: STS answers in XML, in which what is read is plain.
pub fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once("</")?;
    Some(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aws(variables: &[(&str, &str)]) -> Aws {
        let environment = variables.iter().copied().collect();
        Aws::find(&environment, &Endpoints::default(), true).unwrap().unwrap()
    }

    #[test]
    fn a_region_is_part_of_a_hosts_name() {
        for (region, sts) in [
            ("us-east-1", "https://sts.us-east-1.amazonaws.com"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
            ("eusc-de-east-1", "https://sts.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(aws(&[]).root(Service::Sts, &Region::parse(region).unwrap()), sts);
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
    fn endpoints_are_configured_as_in_awss_own_clients() {
        let region = Region::parse("us-east-1").unwrap();
        let root = |variables: &[_], service| aws(variables).root(service, &region);
        let all = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1/");
        let kms = ("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:2");
        assert_eq!(root(&[all, kms], Service::Kms), "http://127.0.0.1:2");
        assert_eq!(root(&[all, kms], Service::Sts), "http://127.0.0.1:1");
        let ignored = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
        assert_eq!(root(&[all, kms, ignored], Service::Kms), "https://kms.us-east-1.amazonaws.com");
        let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
        assert_eq!(root(&[fips], Service::Kms), "https://kms-fips.us-east-1.amazonaws.com");
        assert_eq!(
            root(&[], Service::SecretsManager),
            "https://secretsmanager.us-east-1.amazonaws.com"
        );
    }

    #[test]
    fn elements_of_an_answer() {
        assert_eq!(element("<a><Code>x</Code></a>", "Code"), Some("x"));
        for none in ["", "<Code>", "<Code/>", "<Codex>x</Codex>", "</Code>"] {
            assert_eq!(element(none, "Code"), None, "{none}");
        }
    }

    #[test]
    fn a_code_is_one_word_or_not_repeated() {
        let told = |body: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            let answer =
                Answer { status: StatusCode::BAD_REQUEST, headers: Default::default(), body };
            refused("AWS KMS", &answer).to_string()
        };
        for (body, code) in [
            (
                r#"{"__type":"AccessDeniedException","message":"User: arn"}"#,
                "AccessDeniedException",
            ),
            (r#"{"__type":"com.amazonaws.kms#DisabledException"}"#, "DisabledException"),
            ("<Error><Code>ThrottlingException</Code></Error>", "ThrottlingException"),
        ] {
            assert_eq!(told(body), format!("AWS KMS answered 400, {code}"));
        }
        for body in ["", "{}", r#"{"__type":""}"#, r#"{"__type":"two words"}"#, "<Code>a b</Code>"]
        {
            assert_eq!(told(body), "AWS KMS answered 400");
        }
    }
}
