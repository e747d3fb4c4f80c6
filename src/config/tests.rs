use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use secrecy::ExposeSecret;

use super::{key::tests::rsa_pem, *};
use crate::{admission::Rate, egress::Origin, tests::Folder, webhook::SecretSource};

/// The least that is configured, and `pairs`.
fn environment(pairs: &[(&str, &str)]) -> Environment {
    let pem = rsa_pem();
    let least = [
        ("STS_DOMAIN", "sts.example.com"),
        ("GITHUB_APP_IDS", "42"),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", &pem),
    ];
    least.into_iter().chain(pairs.iter().copied()).collect()
}

fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    Config::read(&environment(pairs))
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

/// For a variable: values that are taken, and values with what is said of them.
type Cases =
    &'static [(&'static str, &'static [&'static str], &'static [(&'static str, &'static str)])];

const PORT: &str = "must be a whole number from 0 to 65535";
const STEP: &str = "must be a duration such as 90s or 1h30m, from 0s to 5s";
const RATE: &str = "must be a whole number from 1 to 1000000";
const TTL: &str = "must be a duration such as 90s or 1h30m, from 0s to 1h";
const HOST: &str = "must be a host, such as octo-sts.example.com";
const PROXY: &str = "must be the URL of an HTTP proxy, such as http://proxy.example.com:3128";
const API: &str = "must be the URL of GitHub's API, such as https://HOST/api/v3";
const FLOOR: &str = "must be a whole number of 0 or more";
const IDS: &str = "must be the ids of the Apps, positive numbers separated by commas";
const SPAN: &str = "must be a duration such as 90s or 1h30m, longer than zero";

const CASES: Cases = &[
    (
        "STS_DOMAIN",
        &[
            "octo-sts.dev",
            "localhost",
            "localhost:8080",
            " sts.example.com\n",
            "10.0.0.1",
            "Sts.Example.com",
        ],
        &[
            ("https://octo-sts.dev", "must be a host without scheme, such as octo-sts.example.com"),
            ("octo-sts.dev/", HOST),
            ("octo sts", HOST),
            ("sts:0", HOST),
            ("sts:", HOST),
            ("a..b", HOST),
            (" ", "is not set; it must be a host, such as octo-sts.example.com"),
        ],
    ),
    (
        "GITHUB_APP_IDS",
        &["1", " 42 ", "42,43"],
        &[
            ("0", IDS),
            ("app", IDS),
            (",", IDS),
            (
                "",
                "is not set; it must be the ids of the Apps, positive numbers separated by commas",
            ),
        ],
    ),
    (
        "PORT",
        &["8080", "0", "65535", "", "0x1f90", "8_080", "+8080"],
        &[("65536", PORT), ("-1", PORT), ("8.0", PORT), ("http", PORT), ("80 80", PORT)],
    ),
    (
        "GITHUB_BASE_URL",
        &[
            "https://api.github.com/",
            "https://ghe.example.com/api/v3",
            "http://127.0.0.1:9000",
            "https://api.acme.ghe.com",
        ],
        &[
            ("ghe.example.com", API),
            ("ftp://ghe.example.com", API),
            ("mailto:a@b.example", API),
            (
                "http://ghe.example.com/api/v3",
                "must start with https:// (http:// is for loopback only)",
            ),
            (
                "https://me:pw@ghe.example.com",
                "must be a URL without credentials, query and fragment",
            ),
            (
                "https://ghe.example.com/?a=b",
                "must be a URL without credentials, query and fragment",
            ),
            ("https://github.com", "must name the API, not the web site: https://api.github.com"),
            (
                "https://acme.ghe.com",
                "must name the API, not the web site: https://api.acme.ghe.com",
            ),
        ],
    ),
    (
        "ORG_POLICY_REPO",
        &[".github", "policies", ""],
        &[
            ("acme/policies", "must be the name of a repository, without its owner"),
            ("..", "must be the name of a repository, without its owner"),
        ],
    ),
    (
        "METRICS",
        &["true", "false", "1", "0", "T", "False"],
        &[("yes", "must be true or false"), ("tRUE", "must be true or false")],
    ),
    (
        "METRICS_PORT",
        &["9090", "0"],
        &[
            ("x", PORT),
            ("8080", "must differ from PORT"),
            (
                "tcp://10.0.0.7:9090",
                "holds an address that Kubernetes sets for a service of that name: set the variable in the pod's manifest, or enableServiceLinks to false",
            ),
        ],
    ),
    (
        "OIDC_ISSUERS",
        &["https://issuer.example.com", "https://a.example/x, https://b.example:8443/,", ","],
        &[
            (
                "issuer.example.com",
                "must be a list of issuers; entry 1: an issuer starts with https://",
            ),
            (
                "https://a.example,https://B.example",
                "must be a list of issuers; entry 2: an issuer's host is lowercase ASCII, with an optional port",
            ),
            (
                "http://127.0.0.1:9000",
                "has entry 1 without TLS, which needs OIDC_ALLOW_PRIVATE_NETWORKS=known",
            ),
        ],
    ),
    (
        "OIDC_ALLOW_PRIVATE_NETWORKS",
        &["known", "all", ""],
        &[("true", "must be known or all"), ("Known", "must be known or all")],
    ),
    (
        "HTTPS_PROXY",
        &["http://proxy.example.com:3128", "proxy.example.com:3128", "http://me:pw@proxy/"],
        &[
            ("https://proxy", PROXY),
            ("socks5://proxy", PROXY),
            ("http://", PROXY),
            ("http://proxy/path", PROXY),
        ],
    ),
    ("NO_PROXY", &["localhost,.example.com", "*"], &[]),
    (
        "SSL_CERT_FILE",
        &[concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
        &[("/nowhere/ca.pem", "must name a file that is there")],
    ),
    ("SSL_CERT_DIR", &["/nowhere:/", "/"], &[("/nowhere", "must name a folder that is there")]),
    (
        "RUST_LOG",
        &["debug", "info,octo_sts=trace"],
        &[("octo_sts=loud", "must be log directives such as info,octo_sts=debug")],
    ),
    (
        "OCTOSTS_QUOTA_FLOOR_HARD",
        &["0", "1500", "0x5dc", "1_500"],
        &[("many", FLOOR), ("-1", FLOOR), ("1e3", FLOOR)],
    ),
    (
        "OCTOSTS_QUOTA_FLOOR_SOFT",
        &["5000", "1500", "10000000"],
        &[("-5", FLOOR), ("1499", "must be at least OCTOSTS_QUOTA_FLOOR_HARD")],
    ),
    (
        "OCTOSTS_QUOTA_STALE",
        &["5m", "+5m", "48h", "1ns"],
        &[("5", SPAN), ("0s", SPAN), ("-5m", SPAN)],
    ),
    (
        "OCTOSTS_STICKY_STORE",
        &["memory", ""],
        &[
            ("firestore", "must be memory, or unset: Firestore is not used, see docs/migrating.md"),
            ("disk", "must be memory, or unset"),
        ],
    ),
    ("OCTOSTS_STICKY_STORE_FIRESTORE_PROJECT", &["my-project"], &[]),
    ("OCTOSTS_STICKY_STORE_FIRESTORE_COLLECTION", &["sticky-routes"], &[]),
    ("OCTOSTS_STICKY_STORE_FIRESTORE_TTL", &["1h"], &[]),
    (
        "STS_TRUSTED_PROXY_HOPS",
        &["0", "2"],
        &[
            ("17", "must be a whole number from 0 to 16"),
            ("-1", "must be a whole number from 0 to 16"),
        ],
    ),
    ("STS_REPLAY", &["off", "warn", "enforce"], &[("on", "must be off or warn or enforce")]),
    ("STS_REQUIRE_REPOSITORIES", &["true", "false", "1"], &[("yes", "must be true or false")]),
    (
        "STS_OWNERS",
        &["octo-org", "octo-org, Other"],
        &[
            (",", "must name at least one owner, comma separated"),
            ("a, b/c", "must be a list of owners; entry 2: an owner is 1 to 64 of A-Z a-z 0-9 _ -"),
        ],
    ),
    (
        "STS_REPOSITORY_POLICY_ORG_PERMISSIONS",
        &["members", "members, organization_secrets"],
        &[(
            "organization-secrets",
            "must be names of permissions with underscores, such as organization_secrets, comma separated",
        )],
    ),
    (
        "STS_MAX_TOKEN_BYTES",
        &["1024", "61440"],
        &[
            ("1023", "must be a whole number from 1024 to 1044480"),
            ("32k", "must be a whole number from 1024 to 1044480"),
        ],
    ),
    (
        "STS_MAX_HEADER_BYTES",
        &["36864", "1048576"],
        &[
            ("36863", "must be at least 4096 more than STS_MAX_TOKEN_BYTES"),
            ("8191", "must be a whole number from 8192 to 1048576"),
        ],
    ),
    ("STS_MAX_CONNECTIONS", &["1", "1000000"], &[("0", RATE)]),
    (
        "STS_CLOCK_LEEWAY",
        &["0", "0s", "5m", "1m30s"],
        &[
            ("5m1s", "must be a duration such as 90s or 1h30m, from 0s to 5m"),
            ("60", "must be a duration such as 90s or 1h30m, from 0s to 5m"),
        ],
    ),
    (
        "STS_POLICY_TTL",
        &["1h", "1.5s", "500ms"],
        &[
            ("1h0m1s", TTL),
            ("-1s", TTL),
            ("1 m", TTL),
            ("1d", TTL),
            ("s", TTL),
            ("1.2.3s", TTL),
            (".s", TTL),
        ],
    ),
    ("STS_POLICY_STALE", &["0", "1h"], &[("2h", TTL), ("99999999999999999999999h", TTL)]),
    ("STS_RATE_CALLER_PER_MINUTE", &["1"], &[("-1", RATE)]),
    ("STS_RATE_CALLER_BURST", &["1"], &[("0", RATE)]),
    ("STS_RATE_MINTS_PER_MINUTE", &["1"], &[("0", RATE)]),
    ("STS_UNVERIFIED_REFUSAL_STEP", &["0", "5s"], &[("6s", STEP), ("1", STEP)]),
    ("STS_RATE_OWNER_PER_MINUTE", &["1"], &[("0", RATE)]),
    ("STS_RATE_OWNER_BURST", &["1"], &[("0", RATE)]),
    ("STS_RATE_ADDRESS_PER_MINUTE", &["1"], &[("0", RATE)]),
    ("STS_RATE_ADDRESS_BURST", &["1"], &[("1000001", RATE)]),
    ("STS_RATE_PROCESS_PER_MINUTE", &["1"], &[("1e3", RATE)]),
    ("STS_RATE_PROCESS_BURST", &["1"], &[("0x10", RATE)]),
    ("STS_LOG_FORMAT", &["json", "text"], &[("xml", "must be json or text")]),
    (
        "STS_SHUTDOWN_TIMEOUT",
        &["1s", "25s", "10m"],
        &[
            ("0s", "must be a duration such as 90s or 1h30m, from 1s to 10m"),
            ("25", "must be a duration such as 90s or 1h30m, from 1s to 10m"),
        ],
    ),
    (
        "STS_DRAIN_DELAY",
        &["0s", "5s", "12s"],
        &[
            ("6m", "must be a duration such as 90s or 1h30m, from 0s to 5m"),
            ("13s", "must be at most half of STS_SHUTDOWN_TIMEOUT"),
        ],
    ),
    ("GITHUB_WEBHOOK_SECRET", &["s3cret", "a, b", " s "], &[]),
    (
        "GITHUB_WEBHOOK_ORGANIZATION_FILTER",
        &["acme", " Acme , octo-org "],
        &[
            (",", "must name at least one owner, comma separated"),
            ("a/b", "must be a list of owners; entry 1: an owner is 1 to 64 of A-Z a-z 0-9 _ -"),
        ],
    ),
    (
        "STS_WEBHOOK_PORT",
        &["8081", "0"],
        &[("8080", "must differ from PORT"), ("x", "must be a whole number from 0 to 65535")],
    ),
    (
        "EVENT_INGRESS_URI",
        &["https://events.example", "http://broker.ns.svc/a/b?c", " "],
        &[
            ("events.example", "must be a URL, https:// or http://"),
            ("ftp://events.example", "must be a URL, https:// or http://"),
        ],
    ),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", &["http://otel:4317"], &[]),
    ("OTEL_TRACES_EXPORTER", &["none", "gcp", "otlp/NAME"], &[]),
    ("OTEL_METRICS_EXPORTER", &["none", "prometheus"], &[]),
    ("OTEL_LOGS_EXPORTER", &["none", "console"], &[]),
    ("OTEL_SERVICE_NAME", &["octo-sts"], &[]),
];

/// These name files or depend on each other; they have tests of their own.
const APART: &[&str] = &[
    "APP_SECRET_CERTIFICATE_FILE",
    "APP_SECRET_CERTIFICATE_ENV_VAR",
    "APP_CONFIG_FILE",
    "KMS_KEYS",
    "KMS_PROVIDER",
    "OIDC_ISSUERS_FILE",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "STS_DENY_FILE",
    "STS_TLS_CERT_FILE",
    "STS_TLS_KEY_FILE",
];

#[test]
fn each_variable_by_itself() {
    for (name, good, bad) in CASES {
        for value in *good {
            assert!(
                read(&[(name, value)]).is_ok(),
                "{name}={value:?}: {:?}",
                read(&[(name, value)]).err()
            );
        }
        for (value, expected) in *bad {
            assert_eq!(
                read(&[(name, value)]).unwrap_err(),
                [format!("{name} {expected}")],
                "{name}={value:?}"
            );
        }
    }
}

#[test]
fn no_variable_goes_untested() {
    let of_the_server =
        |variable: &&variables::Variable| variable.origin != variables::Origin::Client;
    for variable in variables::ALL.iter().chain(variables::OTEL_SWITCHES).filter(of_the_server) {
        let tested = CASES.iter().any(|(name, _, _)| *name == variable.name)
            || APART.contains(&variable.name);
        assert!(tested, "{}", variable.name);
    }
}

#[test]
fn what_is_for_workloads_means_nothing_to_the_server() {
    for variable in
        variables::ALL.iter().filter(|variable| variable.origin == variables::Origin::Client)
    {
        assert_eq!(read(&[(variable.name, "\u{1}")]).unwrap().warnings, [], "{}", variable.name);
    }
}

#[test]
fn the_least_configuration_gives_the_documented_defaults() {
    let config = read(&[]).unwrap();
    let admission::Settings { address, caller, owner, process, mints_per_minute } = config.rates;
    assert_eq!(
        (
            config.domain.as_ref().map(Audience::as_str),
            config.apps.iter().map(|app| app.id.0).collect::<Vec<_>>(),
            config.metrics_port
        ),
        (Some("sts.example.com"), vec![42], Some(2112))
    );
    assert_eq!(
        (config.listen.port, config.listen.interface, config.listen.trusted_proxy_hops),
        (8080, Interface::All, 0)
    );
    assert_eq!((config.listen.max_header_bytes, config.tokens.max_bytes), (65_536, 32_768));
    assert_eq!((config.listen.max_connections.get(), config.listen.tls), (4096, None));
    assert_eq!(
        (config.policies.ttl, config.policies.stale),
        (Duration::from_secs(60), Duration::from_secs(300))
    );
    assert_eq!(
        (config.policies.org_repo.as_str(), config.tokens.leeway),
        (".github", Duration::from_secs(60))
    );
    assert_eq!(
        (config.tokens.private_networks, config.tokens.issuers),
        (PrivateNetworks::No, vec![])
    );
    assert_eq!((address, caller), (Rate::new(60, 30), Rate::new(60, 30)));
    assert_eq!((owner, process), (Rate::new(600, 600), Rate::new(3_000, 3_000)));
    assert_eq!((mints_per_minute, config.refusal_step), (None, Duration::from_secs(1)));
    assert!(config.proxy.https.is_none() && config.proxy.except.is_none());
    assert_eq!(
        (config.log.format, config.log.filter),
        (LogFormat::of_stderr(), LogFilter::parse("info").unwrap())
    );
    assert_eq!(config.policies.repository_org_permissions, [""; 0]);
    assert_eq!((config.policies.require_repositories, &config.policies.owners), (false, &None));
    assert_eq!(config.warnings, []);
}

#[test]
fn what_is_set_arrives() {
    let config = read(&[
        ("PORT", "1"),
        ("METRICS", "false"),
        ("ORG_POLICY_REPO", "policies"),
        ("OIDC_ISSUERS", "http://localhost:9000, https://a.example,https://a.example"),
        ("OIDC_ALLOW_PRIVATE_NETWORKS", "all"),
        ("STS_REPOSITORY_POLICY_ORG_PERMISSIONS", "members, organization_secrets"),
        ("STS_POLICY_TTL", "1m1.5s"),
        ("STS_RATE_ADDRESS_BURST", "7"),
        ("STS_RATE_MINTS_PER_MINUTE", "5"),
        ("STS_UNVERIFIED_REFUSAL_STEP", "500ms"),
        ("STS_TRUSTED_PROXY_HOPS", "2"),
        ("STS_LOG_FORMAT", "text"),
        ("https_proxy", "me:pw@proxy:3128"),
        ("no_proxy", "localhost"),
    ])
    .unwrap();
    assert_eq!(
        (config.listen.port, config.metrics_port, config.listen.trusted_proxy_hops),
        (1, None, 2)
    );
    assert_eq!(config.policies.org_repo.as_str(), "policies");
    let issuers: Vec<_> = config.tokens.issuers.iter().map(Issuer::as_str).collect();
    assert_eq!(issuers, ["http://localhost:9000", "https://a.example"]);
    assert_eq!(config.tokens.private_networks, PrivateNetworks::All);
    assert_eq!(config.policies.repository_org_permissions, ["members", "organization_secrets"]);
    assert_eq!(config.policies.ttl, Duration::from_millis(61_500));
    assert_eq!(config.rates.address.burst.get(), 7);
    assert_eq!(config.rates.mints_per_minute.map(std::num::NonZeroU32::get), Some(5));
    assert_eq!(config.refusal_step, Duration::from_millis(500));
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.proxy.https.unwrap().expose_secret(), "http://me:pw@proxy:3128");
    assert_eq!(config.proxy.except.as_deref(), Some("localhost"));
}

#[test]
fn what_follows_from_the_api() {
    for (given, api, host, actions, private) in [
        (
            "https://api.github.com/",
            "https://api.github.com/",
            "github.com",
            "https://token.actions.githubusercontent.com",
            None,
        ),
        (
            "https://api.Acme.ghe.com",
            "https://api.acme.ghe.com/",
            "acme.ghe.com",
            "https://token.actions.acme.ghe.com",
            None,
        ),
        (
            "https://ghe.example.com/api/v3/",
            "https://ghe.example.com/api/v3",
            "ghe.example.com",
            "https://ghe.example.com/_services/token",
            Some("https://ghe.example.com"),
        ),
        (
            "http://127.0.0.1:9000",
            "http://127.0.0.1:9000/",
            "127.0.0.1",
            "https://127.0.0.1/_services/token",
            Some("http://127.0.0.1:9000"),
        ),
    ] {
        let github = read(&[("GITHUB_BASE_URL", given)]).unwrap().github;
        assert_eq!((github.api.to_string().as_str(), github.host.as_str()), (api, host), "{given}");
        let private = private.and_then(|url: &str| Origin::of(&url.parse().unwrap()));
        assert_eq!(
            (github.actions_issuer.as_str(), github.private_origin),
            (actions, private),
            "{given}"
        );
    }
}

#[test]
fn the_issuers_file_is_read_with_the_rest() {
    let folder = Folder::new();
    let file = |text: &str| folder.file("issuers.yaml", text);
    let listed = file("issuers: [{issuer: https://k8s.internal}]\nonly_listed: true\n");
    let config =
        read(&[("OIDC_ISSUERS_FILE", &listed), ("OIDC_ISSUERS", "https://a.example")]).unwrap();
    assert!(config.tokens.issuers_file.unwrap().1.only_listed());
    assert!(
        config.warnings[0].to_string().starts_with("OIDC_ISSUERS has no effect for issuers that")
    );

    let plain = file("issuers: [{issuer: 'http://127.0.0.1:1'}]\n");
    let errors = read(&[("OIDC_ISSUERS_FILE", &plain), ("PORT", "x")]).unwrap_err();
    assert_eq!(
        errors[1..],
        [
            "OIDC_ISSUERS_FILE names a file with an error: line 1, column 20: an issuer without TLS needs `private_network`, and is on loopback"
        ]
    );
    assert!(errors[0].starts_with("PORT"));
    assert!(
        read(&[("OIDC_ISSUERS_FILE", &plain), ("OIDC_ALLOW_PRIVATE_NETWORKS", "known")]).is_ok()
    );
    assert!(
        read(&[("OIDC_ISSUERS_FILE", "/nowhere")]).unwrap_err()[0]
            .contains("the file cannot be read")
    );

    // What Kubernetes tells a pod counts only in one.
    let own = file("issuers: [{in_cluster: true}]\n");
    let own = |host: &str, port: &str| {
        let pairs = [
            ("OIDC_ISSUERS_FILE", &*own),
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port),
        ];
        read(&pairs).unwrap_err()
    };
    assert!(own("", "").concat().contains("this is not a pod"));
    assert!(own("10.0.0.1", "").concat().contains("the pod's token cannot be read"));
    assert!(
        own("10.0.0.1", "x").concat().contains("KUBERNETES_SERVICE_PORT must be a whole number")
    );
}

#[test]
fn tls_needs_a_pair() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = Folder::new();
    let cert = folder.file("tls.crt", &cert.pem());
    let key = folder.file("tls.key", &signing_key.serialize_pem());
    let other = folder.file("other.key", &KeyPair::generate().unwrap().serialize_pem());
    let tls = |cert: &str, key: &str| {
        read(&[("STS_TLS_CERT_FILE", cert), ("STS_TLS_KEY_FILE", key)])
            .map(|config| config.listen.tls)
    };
    assert_eq!(
        tls(&cert, &key),
        Ok(Some(TlsFiles { certificate: (&cert).into(), key: (&key).into() }))
    );
    for ((cert, key), expected) in [
        ((&*cert, ""), &["STS_TLS_KEY_FILE is required where STS_TLS_CERT_FILE is set"][..]),
        (("", &*key), &["STS_TLS_CERT_FILE is required where STS_TLS_KEY_FILE is set"]),
        (
            (&cert, &other),
            &["STS_TLS_KEY_FILE must name the private key of the certificate in STS_TLS_CERT_FILE"],
        ),
        (
            (&cert, &cert),
            &["STS_TLS_KEY_FILE must name a file with a PEM private key that is not encrypted"],
        ),
        ((&key, &key), &["STS_TLS_CERT_FILE must name a file of PEM certificates"]),
        (
            ("/nowhere", "/nowhere"),
            &[
                "STS_TLS_CERT_FILE names a file that is not there",
                "STS_TLS_KEY_FILE names a file that is not there",
            ],
        ),
    ] {
        assert_eq!(tls(cert, key).unwrap_err(), expected);
    }
}

#[test]
fn settings_without_effect_are_accepted_with_a_warning() {
    let config = read(&[
        ("STS_POLICY_TLL", "5m"),
        ("OCTOSTS_STICKY_STORE", "memory"),
        ("OCTOSTS_STICKY_STORE_FIRESTORE_TTL", "never"),
        ("OCTOSTS_RATE_LIMIT", "5"),
        ("STS_WEBHOOK_PORT", "8081"),
        ("OTEL_TRACES_EXPORTER", "gcp"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317"),
        ("OTEL_TRACE_SAMPLING_RATE", "0.1"),
        ("K_SERVICE", "octo-sts"),
        ("GITHUB_BASE_URL", "https://ghe.example.com"),
    ])
    .unwrap();
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r"
    STS_WEBHOOK_PORT has no effect without GITHUB_WEBHOOK_SECRET
    GITHUB_BASE_URL has no path, and nothing is appended: the API of GitHub Enterprise Server is at https://HOST/api/v3
    OCTOSTS_STICKY_STORE_FIRESTORE_TTL has no effect
    OTEL_EXPORTER_OTLP_ENDPOINT is set, but has no effect: export by OpenTelemetry is not built into this version
    OTEL_TRACES_EXPORTER is set, but has no effect: export by OpenTelemetry is not built into this version
    STS_POLICY_TLL is not a variable of this server, see docs/configuration.md
    OCTOSTS_RATE_LIMIT is not a variable of this server, see docs/configuration.md
    ");
}

fn secrets(config: &Config) -> Vec<String> {
    match &config.webhook.as_ref().unwrap().settings.secrets {
        SecretSource::Values(values) => values
            .iter()
            .map(|secret| String::from_utf8(secret.expose_secret().to_vec()).unwrap())
            .collect(),
        SecretSource::Names(names) => names.iter().map(|name| format!("{name:?}")).collect(),
    }
}

#[test]
fn a_webhook_needs_no_exchange_service() {
    let config = read(&[("STS_DOMAIN", ""), ("GITHUB_WEBHOOK_SECRET", "s3cret")]).unwrap();
    assert!(config.domain.is_none() && config.webhook.is_some());
    let errors = read(&[("STS_DOMAIN", "")]).unwrap_err();
    assert_eq!(errors, ["STS_DOMAIN is not set; it must be a host, such as octo-sts.example.com"]);
}

#[test]
fn a_webhook_secret_is_one_secret_and_with_commas_several_more() {
    for (text, expected) in
        [("s3cret", vec!["s3cret"]), (" s ", vec![" s ", "s"]), ("a, b,", vec!["a, b,", "a", "b"])]
    {
        assert_eq!(secrets(&read(&[("GITHUB_WEBHOOK_SECRET", text)]).unwrap()), expected);
    }
}

#[test]
fn with_keys_at_a_key_management_service_a_webhook_secret_is_a_name() {
    let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";
    let read = |secret: &str, domain: &str| {
        let pairs = [
            ("STS_DOMAIN", domain),
            ("GITHUB_APP_IDS", "42"),
            ("KMS_KEYS", key),
            ("GITHUB_WEBHOOK_SECRET", secret),
        ];
        Config::read(&pairs.into_iter().collect())
    };
    let two = "projects/p/secrets/s/versions/1,projects/p/secrets/s/versions/2";
    assert_eq!(
        secrets(&read(two, "sts.example.com").unwrap()),
        ["SecretName { .. }", "SecretName { .. }"]
    );
    let error = read("s3cret", "").unwrap_err().to_string();
    assert!(error.contains("must name a secret version of Google's Secret Manager"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    // The Go service's exchange program does not read the variable, so it may hold anything there.
    let config = read("s3cret", "sts.example.com").unwrap();
    assert!(config.webhook.is_none());
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "GITHUB_WEBHOOK_SECRET must name a secret version of Google's Secret Manager: projects/P/secrets/S/versions/V; there is no webhook"
        ]
    );
}

#[test]
fn all_errors_are_reported_together() {
    let several = [
        ("STS_DOMAIN", "https://sts"),
        ("PORT", "x"),
        ("METRICS", "si"),
        ("STS_MAX_TOKEN_BYTES", "65536"),
        ("STS_TLS_KEY_FILE", "/nowhere"),
        ("KMS_KEYS", "k"),
    ];
    let errors = Config::read(&several.into_iter().collect());
    insta::assert_snapshot!(errors.unwrap_err(), @r"
    the configuration has 6 errors:
      STS_DOMAIN must be a host without scheme, such as octo-sts.example.com
      GITHUB_APP_IDS is not set; it must be the ids of the Apps, positive numbers separated by commas
      PORT must be a whole number from 0 to 65535
      METRICS must be true or false
      STS_MAX_HEADER_BYTES must be at least 4096 more than STS_MAX_TOKEN_BYTES
      STS_TLS_CERT_FILE is required where STS_TLS_KEY_FILE is set
    ");
    insta::assert_snapshot!(Config::read(&environment(&[("PORT", "x")])).unwrap_err(), @r"
    the configuration has an error:
      PORT must be a whole number from 0 to 65535
    ");
}

#[test]
fn a_mistake_is_not_blamed_on_what_depends_on_it() {
    let pairs = [("OIDC_ALLOW_PRIVATE_NETWORKS", "yes"), ("OIDC_ISSUERS", "http://localhost:9000")];
    assert_eq!(read(&pairs).unwrap_err(), ["OIDC_ALLOW_PRIVATE_NETWORKS must be known or all"]);
}

#[test]
fn no_value_is_ever_repeated() {
    const CANARY: &str = "ca:na@ry/#?%";
    let all = variables::table().map(|variable| (variable.name.replace('*', "X"), CANARY));
    let errors = Config::read(&all.collect()).unwrap_err();
    assert!(errors.0.len() > 30, "{errors}");
    assert!(!errors.to_string().contains("na@ry"), "{errors}");
    let environment =
        environment(&[("https_proxy", "http://me:canary@proxy"), ("RUST_LOG", "debug")]);
    let config = Config::read(&environment).unwrap();
    let shown = format!("{environment:?} {config:?}");
    assert!(!shown.contains("canary") && !shown.contains("PRIVATE KEY-"), "{shown}");
}

#[cfg(unix)]
#[test]
fn bytes_that_are_no_text_are_a_mistake() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let errors = Config::read(&[("STS_DOMAIN", value)].into_iter().collect()).unwrap_err();
    assert_eq!(errors.0[0].to_string(), "STS_DOMAIN is not UTF-8");
}

#[test]
fn a_deny_file_is_read_at_start() {
    let folder = Folder::new();
    let good = folder.file("deny.yaml", "deny:\n  - {owner: a, reason: b}\n");
    assert_eq!(read(&[("STS_DENY_FILE", &good)]).unwrap().denials.current().len(), 1);
    assert!(read(&[]).unwrap().denials.current().is_empty());
    let bad = folder.file("bad.yaml", "deny:\n  - {owner: a}\n");
    assert_eq!(
        read(&[("STS_DENY_FILE", &bad)]).unwrap_err(),
        ["STS_DENY_FILE names a file with an error: line 2, column 5: expected `reason`"]
    );
    let missing = folder.path().join("missing.yaml");
    let errors = read(&[("STS_DENY_FILE", missing.to_str().unwrap())]).unwrap_err();
    assert!(
        errors[0].starts_with("STS_DENY_FILE names a file with an error: the file cannot be read"),
        "{errors:?}"
    );
}
