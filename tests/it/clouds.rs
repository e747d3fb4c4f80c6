//! Apps whose keys are held by a key management service.

pub mod stand_in;

use std::{sync::Arc, time::Duration};

use octo_sts::app::{Ambient, App, AppError};
use serde_json::json;

use self::stand_in::{AWS_KEY, AZURE_KEY, Clouds, GCP_KEY, Mode, SECRET};
use crate::{
    client::fake::TOKEN,
    harness::{AuditLines, DOMAIN, POLICY, Setup, World, settings},
};

/// A service, the key at it, and where its calls go.
const SERVICES: [(&str, &str, &str); 3] = [
    ("aws", AWS_KEY, "kms.us-east-1.amazonaws.com"),
    ("gcp", GCP_KEY, "cloudkms.googleapis.com"),
    ("akv", AZURE_KEY, "v.vault.azure.net"),
];

/// The usual world, whose App has its key in a service.
async fn setup(provider: &str, key: &str) -> (Setup, Clouds) {
    let mut setup = Setup::with_policy(POLICY).await;
    let (pem, public) = octo_sts::emulator::generate_rsa_pem();
    setup.github.add_key(setup.app, public);
    let clouds = Clouds::start(&pem).await;
    let app = setup.app.to_string();
    let github = setup.github.url();
    let environment = [
        ("STS_DOMAIN", DOMAIN),
        ("GITHUB_APP_IDS", &app),
        ("GITHUB_BASE_URL", &github),
        ("KMS_PROVIDER", provider),
        ("KMS_KEYS", key),
        ("HTTPS_PROXY", &clouds.proxy),
    ];
    let mut changed = settings(&environment);
    changed.egress.ca_files = vec![clouds.root.clone()];
    changed.oidc = setup.settings.oidc.clone();
    changed.exchange.iter_mut().for_each(|it| it.refusal_step = Duration::ZERO);
    changed.github.first_backoff = Duration::from_millis(1);
    setup.settings = changed;
    (setup, clouds)
}

/// The simplest credentials of each cloud.
fn credentials(clouds: &Clouds) -> Vec<(&'static str, String)> {
    let metadata = clouds.metadata.url.clone();
    vec![
        ("AWS_ACCESS_KEY_ID", "AKIDENV".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("GCE_METADATA_HOST", metadata.trim_start_matches("http://").to_owned()),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata),
    ]
}

/// As [`setup`], with those credentials.
async fn usual(provider: &str, key: &str) -> (Setup, Clouds) {
    // The stand-ins are needed for the credentials, and the credentials for the settings.
    let (mut setup, clouds) = setup(provider, key).await;
    setup.settings.github.environment = credentials(&clouds).into_iter().collect();
    (setup, clouds)
}

/// Builds the server without waiting for a signer.
async fn build(mut setup: Setup) -> Result<(), AppError> {
    setup.settings.signer_patience = Duration::ZERO;
    let audit = AuditLines::default();
    let ambient = Ambient { clock: Arc::new(setup.clock.clone()), sink: Box::new(audit) };
    App::build(setup.settings, ambient).await.map(drop)
}

async fn granted(world: &World, what: &str) {
    let outcome = world.usual().await;
    assert_eq!(outcome.rest.code, 0, "{what}: {}", outcome.rest.message);
}

#[tokio::test]
async fn a_key_at_each_service_signs_and_is_proven_at_start() {
    for (provider, key, host) in SERVICES {
        let (setup, clouds) = usual(provider, key).await;
        let world = setup.start().await;
        let calls = clouds.calls();
        assert_eq!(calls.iter().filter(|call| call.starts_with(host)).count(), 2, "{calls:?}");
        granted(&world, provider).await;
        assert_eq!(clouds.calls(), [""; 0], "{provider}: the JWT in hand serves");
        for _ in 0..2 {
            world.clock.advance(Duration::from_secs(8 * 60 + 1));
            granted(&world, provider).await;
        }
        let signatures = clouds.calls().iter().filter(|call| call.starts_with(host)).count();
        assert_eq!(signatures, 2, "{provider}");
    }
}

#[tokio::test]
async fn a_caller_that_may_only_sign_is_proven_by_github() {
    for (provider, key, _) in SERVICES {
        let (setup, clouds) = usual(provider, key).await;
        clouds.set(Mode::SignOnly);
        let world = setup.start().await;
        let about = |call: &octo_sts::emulator::Call| call.path == "/app";
        assert_eq!(world.github.log().iter().filter(|call| about(call)).count(), 1, "{provider}");
        granted(&world, provider).await;
    }
}

#[tokio::test]
async fn a_service_that_does_not_sign_is_reported_at_start_without_its_words() {
    for (provider, key, _) in SERVICES {
        for (mode, words) in [
            (Mode::Denied, &["AccessDeniedException", "PERMISSION_DENIED", "Forbidden"][..]),
            (Mode::Down, &["answered 500"]),
            (Mode::Garbage, &["no signature", "the answer of"]),
            (Mode::OtherKey, &["public half"]),
        ] {
            let (setup, clouds) = usual(provider, key).await;
            clouds.set(mode);
            let error = build(setup).await.unwrap_err().to_string();
            assert!(words.iter().any(|word| error.contains(word)), "{provider} {mode:?}: {error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }
}

#[tokio::test]
async fn a_start_waits_for_a_service_that_is_unavailable_and_not_for_ever() {
    for recovers in [true, false] {
        let (setup, clouds) = usual("gcp", GCP_KEY).await;
        clouds.set(Mode::Down);
        let clock = setup.clock.clone();
        let ambient =
            Ambient { clock: Arc::new(clock.clone()), sink: Box::new(AuditLines::default()) };
        let building = tokio::spawn(App::build(setup.settings, ambient));
        let mut waited = 0;
        while !building.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            clock.advance(Duration::from_secs(1));
            waited += 1;
            if recovers && waited == 5 {
                clouds.set(Mode::Works);
            }
            assert!(waited < 1_000, "the start does not end");
        }
        assert_eq!(building.await.unwrap().is_ok(), recovers);
    }
}

#[tokio::test]
async fn a_service_that_fails_later_is_bridged_for_eight_minutes_and_no_token_is_minted() {
    for (provider, key, _) in SERVICES {
        let (setup, clouds) = usual(provider, key).await;
        let world = setup.start().await;
        granted(&world, provider).await;
        clouds.set(Mode::Down);
        world.clock.advance(Duration::from_secs(7 * 60));
        granted(&world, provider).await;
        world.clock.advance(Duration::from_secs(2 * 60));
        let minted = world.github.minted().len();
        let outcome = world.usual().await;
        assert_eq!((outcome.rest.code, outcome.reason()), (14, "SIGNER_UNAVAILABLE"));
        assert!(!outcome.rest.message.contains("KMS"), "{}", outcome.rest.message);
        assert_eq!(world.github.minted().len(), minted);
        clouds.set(Mode::Works);
        granted(&world, provider).await;
    }
}

/// Variables.
type Variables = Vec<(&'static str, String)>;

/// A file of Google credentials.
fn google(clouds: &Clouds, name: &str, text: &serde_json::Value) -> Variables {
    vec![("GOOGLE_APPLICATION_CREDENTIALS", clouds.file(name, &text.to_string()))]
}

/// Workload identity federation.
fn external(source: &serde_json::Value) -> serde_json::Value {
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url":
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/s:generateAccessToken",
        "credential_source": source,
    })
}

fn azure(tenant: &str, name: &'static str, value: String) -> Variables {
    let (tenant, client) = (tenant.to_owned(), "client".to_owned());
    vec![("AZURE_TENANT_ID", tenant), ("AZURE_CLIENT_ID", client), (name, value)]
}

fn role(file: String) -> Variables {
    let role = "arn:aws:iam::111122223333:role/octo-sts".to_owned();
    vec![("AWS_ROLE_ARN", role), ("AWS_WEB_IDENTITY_TOKEN_FILE", file)]
}

/// Credentials of Google's kinds, each by its name.
fn google_credentials(clouds: &Clouds, token: &str) -> Vec<(&'static str, Variables)> {
    let user = json!({
        "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "refresh",
    });
    let (pem, _) = octo_sts::emulator::generate_rsa_pem();
    let account = json!({
        "type": "service_account", "client_email": "signer@p.iam.gserviceaccount.com",
        "private_key": pem, "private_key_id": "k",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    let subject = format!("{}/subject", clouds.metadata.url);
    let format = json!({ "type": "json", "subject_token_field_name": "value" });
    let by_url = external(&json!({ "url": subject, "format": format }));
    let by_file = external(&json!({ "file": token }));
    let impersonated = json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": by_file["service_account_impersonation_url"],
        "source_credentials": {
            "type": "external_account", "audience": "a", "subject_token_type": "jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": { "file": token },
        },
    });
    clouds.file("application_default_credentials.json", &user.to_string());
    vec![
        ("service account", google(clouds, "account.json", &account)),
        ("user", google(clouds, "user.json", &user)),
        ("gcloud's file", vec![("CLOUDSDK_CONFIG", clouds.folder.path().display().to_string())]),
        ("token file", google(clouds, "file.json", &by_file)),
        ("token address", google(clouds, "url.json", &by_url)),
        ("impersonation", google(clouds, "impersonated.json", &impersonated)),
    ]
}

#[tokio::test]
async fn credentials_are_found_where_the_clouds_own_clients_find_them() {
    let (_, clouds) = setup("aws", AWS_KEY).await;
    let token = clouds.folder.path().join("token").display().to_string();
    let app_service = vec![
        ("IDENTITY_ENDPOINT", format!("{}/app-service", clouds.metadata.url)),
        ("IDENTITY_HEADER", "identity".to_owned()),
    ];
    // Some platforms name their endpoint by `localhost`.
    let by_name = clouds.metadata.url.replace("127.0.0.1", "localhost");
    let container_app = vec![
        ("IDENTITY_ENDPOINT", format!("{by_name}/app-service")),
        ("IDENTITY_HEADER", "identity".to_owned()),
    ];
    let aws = [("web identity", role(token.clone()))];
    let azure = [
        ("client secret", azure("tenant", "AZURE_CLIENT_SECRET", "client-secret".to_owned())),
        ("workload identity", azure("tenant", "AZURE_FEDERATED_TOKEN_FILE", token.clone())),
        ("app service", app_service),
        ("container app", container_app),
    ];
    let google = google_credentials(&clouds, &token);
    let cases = aws.into_iter().map(|(what, variables)| (0, what, variables));
    let cases = cases.chain(google.into_iter().map(|(what, variables)| (1, what, variables)));
    let cases = cases.chain(azure.into_iter().map(|(what, variables)| (2, what, variables)));
    for (service, what, variables) in cases {
        let (provider, key, _) = SERVICES[service];
        let (mut setup, own) = setup(provider, key).await;
        setup.settings.github.environment = variables.into_iter().collect();
        let world = setup.start().await;
        granted(&world, what).await;
        assert!(!own.calls().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn credentials_that_cannot_work_are_reported_at_start() {
    let (_, clouds) = setup("aws", AWS_KEY).await;
    let file = |name: &str, text: &str| clouds.file(name, text);
    let token = clouds.folder.path().join("token").display().to_string();
    let api_token = "/var/run/secrets/kubernetes.io/serviceaccount/token".to_owned();
    let google = |text: String| vec![("GOOGLE_APPLICATION_CREDENTIALS", text)];
    let source =
        |name: &str, source: serde_json::Value| google(file(name, &external(&source).to_string()));
    let azure = |tenant: &str, file: String| azure(tenant, "AZURE_FEDERATED_TOKEN_FILE", file);
    let other = file("other.json", r#"{"type":"gdch_service_account"}"#);
    let cases = [
        (0, role("/nonexistent".into()), "/nonexistent"),
        (0, role(api_token.clone()), "own API server"),
        (0, role(file("aws-token", SECRET)), "not a JWT"),
        (0, vec![("AWS_EC2_METADATA_DISABLED", "true".to_owned())], "no AWS credentials"),
        (1, google("/nonexistent".into()), "/nonexistent"),
        (1, google(file("broken.json", SECRET)), "not a file of Google credentials"),
        (1, google(other), "not a file of Google"),
        (1, source("aws.json", json!({ "environment_id": "aws1" })), "`file` or `url`"),
        (1, source("api.json", json!({ "file": api_token })), "own API server"),
        (1, source("text.json", json!({ "file": file("text", SECRET) })), "not a JWT"),
        (2, azure("tenant", "/nonexistent".into()), "/nonexistent"),
        (2, azure("tenant/../x", token), "AZURE_TENANT_ID"),
    ];
    for (service, variables, words) in cases {
        let (provider, key, _) = SERVICES[service];
        let (mut setup, own) = setup(provider, key).await;
        let what = format!("{variables:?}");
        setup.settings.github.environment = variables.into_iter().collect();
        let error = build(setup).await.unwrap_err().to_string();
        assert!(error.contains(words), "{what}: {error}");
        assert!(!error.contains(SECRET) && !error.contains(TOKEN), "{error}");
        assert_eq!(own.calls(), [""; 0], "{what}");
    }
}

#[tokio::test]
async fn an_event_for_an_https_sink_carries_googles_identity_token_where_there_is_one() {
    for (is_on_google, authorization) in [(true, format!("Bearer {TOKEN}")), (false, String::new())]
    {
        let (mut setup, clouds) = usual("gcp", GCP_KEY).await;
        let sink = "https://broker.example.com/events".parse().unwrap();
        setup.settings.events = Some((sink, format!("https://{DOMAIN}")));
        if !is_on_google {
            // A key of a user, which gives no identity tokens.
            let user = json!({
                "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "refresh",
            });
            let path = clouds.file("user.json", &user.to_string());
            let pairs = [("GOOGLE_APPLICATION_CREDENTIALS", path)];
            setup.settings.github.environment = pairs.into_iter().collect();
        }
        let world = setup.start().await;
        granted(&world, "gcp").await;
        let mut calls = Vec::new();
        let wait = async {
            while calls.iter().filter(|call: &&String| call.starts_with("dev.octo")).count() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                calls.extend(clouds.calls());
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
        let expected = format!("dev.octo-sts.exchange {authorization}");
        assert!(calls.contains(&expected), "{calls:?}");
    }
}
