//! Which variable becomes which setting, and what two variables must agree on.
//!
//! Every function here notes its errors in the reader and returns `None` if there was one. All
//! parts are read before the first `None` ends the reading.

use super::{
    Audience, Config, ConfigErrors, Duration, Environment, GitHub, Interface, IssuersFile,
    ListedIssuers, Listen, Log, LogFilter, LogFormat, Outward, Path, PathBuf, Policies,
    PrivateNetworks, Proxy, SecretString, Shutdown, TlsFiles, Tokens, Webhook, apps, key,
    reader::Reader,
    value,
    variables::{self as var, Origin, Variable},
};
use std::num::NonZeroU32;

use secrecy::SecretSlice;

use crate::{
    admission::{self, Rate},
    deny_file::{Denials, DenyFile},
    github::Routing,
    oidc::{Pod, Replay},
    webhook::{self, SecretName, SecretSource},
};

/// Where the differences from the Go service are described.
const PAGE: &str = "docs/migrating.md";

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A third of what an exchange may take.
const MAX_REFUSAL_STEP: Duration = Duration::from_secs(5);

/// Bytes of a request's headers besides the token.
const OTHER_HEADER_BYTES: usize = 4096;

pub(super) fn config(environment: &Environment) -> Result<Config, ConfigErrors> {
    let mut reader = Reader::new(environment);
    let config = settings(&mut reader);
    sticky_store(&mut reader);
    without_effect(&mut reader);
    let (config, warnings) = reader.finish(config)?;
    Ok(Config { warnings, ..config })
}

pub(super) fn outward(environment: &Environment) -> Result<Outward, ConfigErrors> {
    let mut reader = Reader::new(environment);
    let proxy = proxy(&mut reader);
    let github = github(&mut reader);
    roots(&mut reader);
    let read = proxy.zip(github).map(|(proxy, github)| Outward { proxy, github });
    reader.finish(read).map(|(read, _)| read)
}

pub(super) fn log_alone(environment: &Environment) -> Result<Log, ConfigErrors> {
    let mut reader = Reader::new(environment);
    let log = log(&mut reader);
    reader.finish(log).map(|(log, _)| log)
}

fn settings(reader: &mut Reader<'_>) -> Option<Config> {
    let domain = domain(reader);
    let webhook = webhook(reader);
    let apps = apps::read(reader);
    let routing = routing(reader);
    let (port, metrics_port) = ports(reader);
    let (header_bytes, token_bytes) = sizes(reader);
    let listen = listen(reader, port, header_bytes);
    let shutdown = shutdown(reader);
    let github = github(reader);
    let policies = policies(reader);
    let tokens = tokens(reader, token_bytes);
    let denials = denials(reader);
    let rates = rates(reader);
    let step = Duration::ZERO..=MAX_REFUSAL_STEP;
    let refusal_step =
        reader.required(&var::STS_UNVERIFIED_REFUSAL_STEP, |text| value::duration(text, step));
    let event_sink = reader.optional(&var::EVENT_INGRESS_URI, value::sink);
    let proxy = proxy(reader);
    roots(reader);
    let log = log(reader);
    Some(Config {
        event_sink: event_sink?,
        domain: domain?,
        webhook: webhook?,
        apps: apps?,
        routing: routing?,
        environment: reader.environment().clone(),
        listen: listen?,
        shutdown: shutdown?,
        metrics_port: metrics_port?,
        github: github?,
        policies: policies?,
        tokens: tokens?,
        denials: denials?,
        rates: rates?,
        refusal_step: refusal_step?,
        proxy: proxy?,
        log: log?,
        warnings: Vec::new(),
    })
}

/// The domain. Without it, a process serves the webhook alone.
fn domain(reader: &mut Reader<'_>) -> Option<Option<Audience>> {
    if reader.has(&var::GITHUB_WEBHOOK_SECRET) {
        return reader.optional(&var::STS_DOMAIN, value::domain);
    }
    reader.required(&var::STS_DOMAIN, value::domain).map(Some)
}

/// The webhook, if its secret is set.
fn webhook(reader: &mut Reader<'_>) -> Option<Option<Webhook>> {
    let owners = reader.optional(&var::GITHUB_WEBHOOK_ORGANIZATION_FILTER, value::owners);
    let port = reader.optional(&var::STS_WEBHOOK_PORT, value::port);
    let main = reader.text(&var::PORT).flatten().and_then(|port| value::port(port).ok());
    if port.flatten().is_some_and(|port| port != 0 && Some(port) == main) {
        return reader.refuse(var::STS_WEBHOOK_PORT.name, "must differ from PORT");
    }
    if !reader.has(&var::GITHUB_WEBHOOK_SECRET) {
        if port.flatten().is_some() {
            let text = "has no effect without GITHUB_WEBHOOK_SECRET";
            reader.warning(var::STS_WEBHOOK_PORT.name, text);
        }
        return Some(None);
    }
    let secrets = if reader.has(&var::KMS_KEYS) {
        match webhook_secret_names(reader)? {
            Some(names) => SecretSource::Names(names),
            None => return Some(None),
        }
    } else {
        SecretSource::Values(webhook_secrets(reader)?)
    };
    let (owners, names) = (owners?.unwrap_or_default(), webhook::Names::default());
    let settings = webhook::Settings { secrets, owners, names };
    Some(Some(Webhook { settings, port: port? }))
}

/// Names of secrets. The exchange program of the Go service does not read the variable, so an
/// exchange service starts without the webhook if it holds something else.
fn webhook_secret_names(reader: &mut Reader<'_>) -> Option<Option<Vec<SecretName>>> {
    let variable = &var::GITHUB_WEBHOOK_SECRET;
    let provider = reader.required(&var::KMS_PROVIDER, value::kms_provider)?;
    match SecretName::parse_list(provider, reader.text(variable)?.unwrap_or_default()) {
        Ok(names) => Some(Some(names)),
        Err(error) if reader.has(&var::STS_DOMAIN) => {
            reader.warning(variable.name, format!("{error}; there is no webhook"));
            Some(None)
        }
        Err(error) => reader.refuse(variable.name, error),
    }
}

/// The whole value, as the Go service reads it, white space included; and each part of a list.
fn webhook_secrets(reader: &mut Reader<'_>) -> Option<Vec<SecretSlice<u8>>> {
    let variable = &var::GITHUB_WEBHOOK_SECRET;
    let raw = reader.environment().raw(variable.name)?;
    let Some(whole) = raw.to_str() else {
        return reader.refuse(variable.name, "is not UTF-8");
    };
    let parts = whole.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != whole);
    let secrets: Vec<_> =
        std::iter::once(whole).chain(parts).map(|text| text.as_bytes().to_vec().into()).collect();
    Some(secrets)
}

/// How the Apps of a pool share the work.
fn routing(reader: &mut Reader<'_>) -> Option<Routing> {
    let soft = reader.required(&var::OCTOSTS_QUOTA_FLOOR_SOFT, value::quota);
    let hard = reader.required(&var::OCTOSTS_QUOTA_FLOOR_HARD, value::quota);
    let stale = reader.required(&var::OCTOSTS_QUOTA_STALE, value::span);
    if soft.zip(hard).is_some_and(|(soft, hard)| soft < hard) {
        let expected = format!("must be at least {}", var::OCTOSTS_QUOTA_FLOOR_HARD.name);
        return reader.refuse(var::OCTOSTS_QUOTA_FLOOR_SOFT.name, expected);
    }
    Some(Routing { soft_floor: soft?, hard_floor: hard?, stale: stale? })
}

/// The port for exchanges, and the one for metrics if they are served.
fn ports(reader: &mut Reader<'_>) -> (Option<u16>, Option<Option<u16>>) {
    let port = reader.required(&var::PORT, value::port);
    let served = reader.required(&var::METRICS, value::switch);
    let metrics = reader.required(&var::METRICS_PORT, value::port);
    if served == Some(true) && port == metrics && port.is_some_and(|port| port != 0) {
        return (port, reader.refuse(var::METRICS_PORT.name, "must differ from PORT"));
    }
    (port, served.and_then(|served| metrics.map(|port| served.then_some(port))))
}

/// The largest header list and the largest token, in bytes. The one must have room for the other.
fn sizes(reader: &mut Reader<'_>) -> (Option<usize>, Option<usize>) {
    let header =
        reader.required(&var::STS_MAX_HEADER_BYTES, |text| value::whole(text, 8192..=1_048_576));
    let token =
        reader.required(&var::STS_MAX_TOKEN_BYTES, |text| value::whole(text, 1024..=1_044_480));
    if header
        .zip(token)
        .is_some_and(|(header, token): (usize, usize)| header < token + OTHER_HEADER_BYTES)
    {
        let expected = format!(
            "must be at least {OTHER_HEADER_BYTES} more than {}",
            var::STS_MAX_TOKEN_BYTES.name
        );
        return (reader.refuse(var::STS_MAX_HEADER_BYTES.name, expected), token);
    }
    (header, token)
}

fn listen(
    reader: &mut Reader<'_>,
    port: Option<u16>,
    header_bytes: Option<usize>,
) -> Option<Listen> {
    let tls = tls(reader);
    let connections =
        reader.required(&var::STS_MAX_CONNECTIONS, |text| value::whole(text, 1..=1_000_000));
    let hops = reader.required(&var::STS_TRUSTED_PROXY_HOPS, |text| value::whole(text, 0..=16));
    Some(Listen {
        interface: Interface::All,
        port: port?,
        tls: tls?,
        max_connections: connections?,
        max_header_bytes: header_bytes?,
        trusted_proxy_hops: hops?,
    })
}

/// How the server ends. Requests that arrive during the delay need time to finish too.
fn shutdown(reader: &mut Reader<'_>) -> Option<Shutdown> {
    let seconds = Duration::from_secs;
    let timeout = reader.required(&var::STS_SHUTDOWN_TIMEOUT, |text| {
        value::duration(text, seconds(1)..=10 * MINUTE)
    });
    let delay = reader
        .required(&var::STS_DRAIN_DELAY, |text| value::duration(text, Duration::ZERO..=5 * MINUTE));
    if timeout.zip(delay).is_some_and(|(timeout, delay)| delay > timeout / 2) {
        let expected = format!("must be at most half of {}", var::STS_SHUTDOWN_TIMEOUT.name);
        return reader.refuse(var::STS_DRAIN_DELAY.name, expected);
    }
    Some(Shutdown { timeout: timeout?, drain_delay: delay? })
}

fn tls(reader: &mut Reader<'_>) -> Option<Option<TlsFiles>> {
    let cert = &var::STS_TLS_CERT_FILE;
    let key = &var::STS_TLS_KEY_FILE;
    match (reader.has(cert), reader.has(key)) {
        (false, false) => return Some(None),
        (true, false) => {
            return reader.refuse(key.name, format!("is required where {} is set", cert.name));
        }
        (false, true) => {
            return reader.refuse(cert.name, format!("is required where {} is set", key.name));
        }
        (true, true) => {}
    }
    let certificates = reader.required(cert, |path| {
        Ok::<_, String>((PathBuf::from(path), key::certificates(Path::new(path))?))
    });
    let (path, chain) = certificates.unzip();
    let key = reader.required(key, |path| {
        key::private_key(Path::new(path), chain).map(|()| PathBuf::from(path))
    });
    Some(Some(TlsFiles { certificate: path?, key: key? }))
}

fn github(reader: &mut Reader<'_>) -> Option<GitHub> {
    let github = reader.required(&var::GITHUB_BASE_URL, value::github)?;
    if github.private_origin.is_some()
        && github.api.scheme_str() == Some("https")
        && github.api.path() == "/"
    {
        reader.warning(
            var::GITHUB_BASE_URL.name,
            "has no path, and nothing is appended: the API of GitHub Enterprise Server is at https://HOST/api/v3",
        );
    }
    Some(github)
}

fn policies(reader: &mut Reader<'_>) -> Option<Policies> {
    let org_repo = reader.required(&var::ORG_POLICY_REPO, value::policy_repo);
    let ttl =
        reader.required(&var::STS_POLICY_TTL, |text| value::duration(text, Duration::ZERO..=HOUR));
    let stale = reader
        .required(&var::STS_POLICY_STALE, |text| value::duration(text, Duration::ZERO..=HOUR));
    let permissions =
        reader.optional(&var::STS_REPOSITORY_POLICY_ORG_PERMISSIONS, value::permissions);
    let require = reader.required(&var::STS_REQUIRE_REPOSITORIES, value::switch);
    let owners = reader.optional(&var::STS_OWNERS, value::owners);
    Some(Policies {
        org_repo: org_repo?,
        ttl: ttl?,
        stale: stale?,
        repository_org_permissions: permissions?.unwrap_or_default(),
        require_repositories: require?,
        owners: owners?,
    })
}

fn tokens(reader: &mut Reader<'_>, max_bytes: Option<usize>) -> Option<Tokens> {
    let networks = &[("known", PrivateNetworks::Known), ("all", PrivateNetworks::All)];
    let private =
        reader.optional(&var::OIDC_ALLOW_PRIVATE_NETWORKS, |text| value::word(text, networks));
    // If the switch has an error, it may have been meant to allow these issuers.
    let allowed = private.is_none_or(|private| private.is_some());
    let issuers = reader.optional(&var::OIDC_ISSUERS, |text| value::issuers(text, allowed));
    let file = issuers_file(reader, allowed);
    let leeway = reader.required(&var::STS_CLOCK_LEEWAY, |text| {
        value::duration(text, Duration::ZERO..=5 * MINUTE)
    });
    let replay = reader.required(&var::STS_REPLAY, |text| value::word(text, Replay::NAMES));
    Some(Tokens {
        issuers: issuers?.unwrap_or_default(),
        issuers_file: file?,
        private_networks: private?.unwrap_or(PrivateNetworks::No),
        max_bytes: max_bytes?,
        leeway: leeway?,
        replay: replay?,
    })
}

fn denials(reader: &mut Reader<'_>) -> Option<Denials> {
    let read = |path: &str| {
        let file = DenyFile { path: PathBuf::from(path) };
        match file.load() {
            Ok(list) => Ok(Denials::new(file, list)),
            Err(invalid) => Err(format!("names a file with an error: {invalid}")),
        }
    };
    Some(reader.optional(&var::STS_DENY_FILE, read)?.unwrap_or_default())
}

fn issuers_file(
    reader: &mut Reader<'_>,
    plain_http: bool,
) -> Option<Option<(IssuersFile, ListedIssuers)>> {
    let host = reader.text(&var::KUBERNETES_SERVICE_HOST)?;
    let port = if host.is_some() {
        reader.required(&var::KUBERNETES_SERVICE_PORT, value::port)
    } else {
        None
    };
    let pod =
        Pod { api_server: host.map(str::to_owned).zip(port), folder: PathBuf::from(Pod::FOLDER) };
    let read = |path: &str| {
        let file = IssuersFile { path: PathBuf::from(path), pod, plain_http };
        file.load()
            .map(|listed| (file, listed))
            .map_err(|invalid| format!("names a file with an error: {invalid}"))
    };
    let file = reader.optional(&var::OIDC_ISSUERS_FILE, read)?;
    if file.as_ref().is_some_and(|(_, listed)| listed.only_listed())
        && reader.has(&var::OIDC_ISSUERS)
    {
        reader.warning(
            var::OIDC_ISSUERS.name,
            "has no effect for issuers that the issuers file, with `only_listed`, does not list",
        );
    }
    Some(file)
}

fn rates(reader: &mut Reader<'_>) -> Option<admission::Settings> {
    let address = rate(reader, &var::STS_RATE_ADDRESS_PER_MINUTE, &var::STS_RATE_ADDRESS_BURST);
    let caller = rate(reader, &var::STS_RATE_CALLER_PER_MINUTE, &var::STS_RATE_CALLER_BURST);
    let owner = rate(reader, &var::STS_RATE_OWNER_PER_MINUTE, &var::STS_RATE_OWNER_BURST);
    let process = rate(reader, &var::STS_RATE_PROCESS_PER_MINUTE, &var::STS_RATE_PROCESS_BURST);
    let mints = reader.optional(&var::STS_RATE_MINTS_PER_MINUTE, per_minute);
    Some(admission::Settings {
        address: address?,
        caller: caller?,
        owner: owner?,
        process: process?,
        mints_per_minute: mints?,
    })
}

fn rate(reader: &mut Reader<'_>, minute: &Variable, burst: &Variable) -> Option<Rate> {
    let rate = reader.required(minute, per_minute);
    let burst = reader.required(burst, per_minute);
    Some(Rate { per_minute: rate?, burst: burst? })
}

fn per_minute(text: &str) -> value::Parsed<NonZeroU32> {
    value::whole(text, 1..=1_000_000)
}

fn proxy(reader: &mut Reader<'_>) -> Option<Proxy> {
    let https = reader.optional(&var::HTTPS_PROXY, value::proxy);
    let except = reader.text(&var::NO_PROXY);
    Some(Proxy { https: https?.map(SecretString::from), except: except?.map(str::to_owned) })
}

/// The TLS library reads these by itself; a path that leads nowhere would leave it without roots.
fn roots(reader: &mut Reader<'_>) {
    reader.optional(&var::SSL_CERT_FILE, |path| {
        if Path::new(path).is_file() { Ok(()) } else { Err("must name a file that is there") }
    });
    reader.optional(&var::SSL_CERT_DIR, |paths| {
        let found = std::env::split_paths(paths).any(|path| path.is_dir());
        if found { Ok(()) } else { Err("must name a folder that is there") }
    });
}

fn log(reader: &mut Reader<'_>) -> Option<Log> {
    let formats = &[("json", LogFormat::Json), ("text", LogFormat::Text)];
    let filter = reader.required(&var::RUST_LOG, |text| {
        LogFilter::parse(text).ok_or("must be log directives such as info,octo_sts=debug")
    });
    let format = reader.optional(&var::STS_LOG_FORMAT, |text| value::word(text, formats));
    Some(Log { filter: filter?, format: format?.unwrap_or_else(LogFormat::of_stderr) })
}

/// The store of the Go service's routes. Here the route of a workload follows from its name, so no
/// store is needed. An operator who configured Firestore relies on it, so it is refused.
fn sticky_store(reader: &mut Reader<'_>) {
    let store = &var::OCTOSTS_STICKY_STORE;
    reader.optional(store, |text| match text {
        "memory" => Ok(()),
        "firestore" => Err(format!("must be memory, or unset: Firestore is not used, see {PAGE}")),
        _ => Err("must be memory, or unset".to_owned()),
    });
    if !reader.has(store) {
        return;
    }
    for unused in [
        &var::OCTOSTS_STICKY_STORE_FIRESTORE_PROJECT,
        &var::OCTOSTS_STICKY_STORE_FIRESTORE_COLLECTION,
        &var::OCTOSTS_STICKY_STORE_FIRESTORE_TTL,
    ] {
        if reader.has(unused) {
            reader.warning(unused.name, "has no effect");
        }
    }
}

/// Variables that are accepted without effect, and names that this server does not have.
fn without_effect(reader: &mut Reader<'_>) {
    let ignored = |feature: &str| {
        format!("is set, but has no effect: {feature} is not built into this version")
    };
    for variable in var::ALL {
        if let Origin::Ignored { feature } = variable.origin
            && reader.has(variable)
        {
            reader.warning(variable.name, ignored(feature));
        }
    }
    for name in reader.names(var::OTEL_EXPORTER.name.trim_end_matches('*')) {
        reader.warning(name, ignored(var::EXPORT));
    }
    for switch in var::OTEL_SWITCHES {
        if reader.text(switch).flatten().is_some_and(|text| text != "none") {
            reader.warning(switch.name, ignored(var::EXPORT));
        }
    }
    let mut names = reader.names("STS_");
    names.extend(reader.names("OCTOSTS_"));
    for name in names {
        if !var::ALL.iter().any(|variable| variable.name == name) {
            reader.warning(name, "is not a variable of this server, see docs/configuration.md");
        }
    }
}
