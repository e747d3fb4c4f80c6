//! AWS: credentials from each place that has them, and a signed request to STS.

use std::fs;

use aws_lc_rs::{digest, hmac};
use octo_sts::client::{
    Class,
    ambient::{Options, Places, Source, SourceKind},
};
use serde_json::json;

use super::fake::{
    AUDIENCE, Fake, Heard, Said, TOKEN, environment, find, holds_against_wrongs, nowhere, patient,
    refused, said, token, token_of,
};

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "s3cret/KEY+of/the/role";
const SESSION: &str = "s3cret+session/token==";
const REGION: &str = "eu-central-1";
const ROLE: &str = "arn:aws:iam::123456789012:role/ci";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The signature that AWS would come to, from the request as it arrived.
fn expected(heard: &Heard, key: &str) -> String {
    let authorization = heard.header("authorization");
    let part = |name: &str| {
        authorization.split([' ', ',']).find_map(|part| part.strip_prefix(name)).unwrap_or_default()
    };
    let (credential, signed) = (part("Credential="), part("SignedHeaders="));
    let scope: Vec<&str> = credential.split('/').skip(1).collect();
    let headers: String =
        signed.split(';').map(|name| format!("{name}:{}\n", heard.header(name).trim())).collect();
    let body = hex(digest::digest(&digest::SHA256, heard.body.as_bytes()).as_ref());
    let canonical = format!("{}\n{}\n\n{headers}\n{signed}\n{body}", heard.method, heard.path);
    let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{}\n{canonical}",
        heard.header("x-amz-date"),
        scope.join("/")
    );
    let mut signing = format!("AWS4{key}").into_bytes();
    for part in scope {
        signing = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &signing), part.as_bytes())
            .as_ref()
            .to_vec();
    }
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &signing), text.as_bytes()).as_ref())
}

fn error(status: u16, code: &str) -> Said {
    said(
        status,
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>s3cret</Message></Error></ErrorResponse>"
        ),
    )
}

/// A region's STS. `session` is what the credentials must be accompanied by.
fn sts(heard: &Heard, session: &str) -> Said {
    assert_eq!((heard.method.as_str(), heard.path.as_str(), heard.query.len()), ("POST", "/", 0));
    assert_eq!(heard.parameter("Version"), "2011-06-15");
    assert_eq!(heard.header("content-type"), "application/x-www-form-urlencoded; charset=utf-8");
    if heard.parameter("Action") == "AssumeRoleWithWebIdentity" {
        assert_eq!(heard.header("authorization"), "");
        if heard.parameter("WebIdentityToken") != token_of("projected-by-eks")
            || heard.parameter("RoleArn") != ROLE
        {
            return error(403, "AccessDenied");
        }
        return said(
            200,
            format!(
                "<R><Credentials><AccessKeyId>{ID}</AccessKeyId>\n<SecretAccessKey>{KEY}</SecretAccessKey><SessionToken>{SESSION}</SessionToken></Credentials></R>"
            ),
        );
    }
    assert_eq!(heard.parameter("Action"), "GetWebIdentityToken");
    let authorization = heard.header("authorization");
    let scope = format!("Credential={ID}/20260921/{REGION}/sts/aws4_request,");
    if !authorization.starts_with("AWS4-HMAC-SHA256 ") || !authorization.contains(&scope) {
        return error(403, "InvalidClientTokenId");
    }
    assert_eq!(heard.header("x-amz-date"), "20260921T141320Z");
    let signed: Vec<&str> = authorization
        .split("SignedHeaders=")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .split(';')
        .collect();
    let needed = ["host", "x-amz-date"]
        .into_iter()
        .chain((!session.is_empty()).then_some("x-amz-security-token"));
    let all_signed = needed.into_iter().all(|name| signed.contains(&name));
    if !all_signed
        || heard.header("x-amz-security-token") != session
        || !authorization.ends_with(&format!("Signature={}", expected(heard, KEY)))
    {
        return error(403, "SignatureDoesNotMatch");
    }
    if heard.parameter("Audience.member.1") != AUDIENCE
        || heard.parameter("SigningAlgorithm") != "RS256"
        || heard.parameter("DurationSeconds") != "300"
    {
        return error(400, "ValidationError");
    }
    said(
        200,
        format!(
            "<?xml version=\"1.0\"?><GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>{TOKEN}</WebIdentityToken><Expiration>2026-09-21T14:18:20Z</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
        ),
    )
}

async fn region_sts(session: &'static str) -> (Fake, Places) {
    let server = Fake::start(move |heard| sts(heard, session)).await;
    let places = patient(Places { aws_sts: Some(server.url.clone()), ..nowhere() });
    (server, places)
}

fn given(key: &str, places: Places) -> Source {
    let environment =
        [("AWS_ACCESS_KEY_ID", ID), ("AWS_SECRET_ACCESS_KEY", key), ("AWS_REGION", REGION)];
    find(&environment, places).unwrap()
}

#[tokio::test]
async fn credentials_of_the_environment_sign() {
    let (_server, places) = region_sts("").await;
    let source = given(KEY, places.clone());
    assert_eq!((source.kind(), token(&source).await.unwrap().as_str()), (SourceKind::Aws, TOKEN));
    let error = refused(&given("s3cret-of-another", places)).await;
    assert_eq!(error.class(), Class::Refused);
    assert!(error.message.contains("403, SignatureDoesNotMatch: "), "{error}");

    let (_server, places) = region_sts(SESSION).await;
    let lambda = [
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        ("AWS_SESSION_TOKEN", SESSION),
        ("AWS_DEFAULT_REGION", REGION),
    ];
    assert_eq!(token(&find(&lambda, places).unwrap()).await.unwrap(), TOKEN);
}

#[tokio::test]
async fn an_account_that_gives_out_no_tokens_is_told_how_to() {
    for code in
        ["OutboundWebIdentityFederationDisabled", "OutboundWebIdentityFederationDisabledException"]
    {
        let server = Fake::start(move |_| error(403, code)).await;
        let told = refused(&given(
            KEY,
            patient(Places { aws_sts: Some(server.url.clone()), ..nowhere() }),
        ))
        .await;
        assert!(told.message.contains("enable-outbound-web-identity-federation"), "{told}");
    }
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_credentials() {
    let (server, places) = region_sts(SESSION).await;
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("aws-web-identity");
    fs::write(&file, token_of("projected-by-eks")).unwrap();
    let pod = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_REGION", REGION),
    ];
    assert_eq!(token(&find(&pod, places.clone()).unwrap()).await.unwrap(), TOKEN);
    assert_eq!(server.heard().len(), 2);
    let other = [pod[0], ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/other"), pod[2]];
    let error = refused(&find(&other, places).unwrap()).await;
    assert!(error.message.contains("AccessDenied"), "{error}");
}

/// The endpoint of containers.
async fn container(authorization: &'static str) -> Fake {
    Fake::start(move |heard| {
        if heard.path != "/v2/credentials" || heard.header("authorization") != authorization {
            return said(403, "s3cret");
        }
        said(200, json!({"AccessKeyId": ID, "SecretAccessKey": KEY, "Token": SESSION, "Expiration": "2026-09-21T20:00:00Z", "RoleArn": ROLE}).to_string())
    })
    .await
}

#[tokio::test]
async fn containers_have_an_endpoint() {
    let (_sts, places) = region_sts(SESSION).await;
    let plain = container("").await;
    let ecs =
        [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials"), ("AWS_REGION", REGION)];
    let places = Places { aws_container: plain.url.clone(), ..places };
    assert_eq!(token(&find(&ecs, places.clone()).unwrap()).await.unwrap(), TOKEN);

    let guarded = container("s3cret-of-the-pod").await;
    let url = format!("{}/v2/credentials", guarded.url);
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("aws-container");
    fs::write(&file, "s3cret-of-the-pod\n").unwrap();
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str());
    let by_file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap());
    let by_value = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "s3cret-of-the-pod");
    for shown in [by_file, by_value] {
        assert_eq!(
            token(&find(&[full, shown, ecs[1]], places.clone()).unwrap()).await.unwrap(),
            TOKEN
        );
    }
    assert_eq!(
        refused(&find(&[full, ecs[1]], places.clone()).unwrap()).await.class(),
        Class::Refused
    );
    // A token of the pod's does not go over the network in the clear.
    let far = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/v2/credentials");
    let error = refused(&find(&[far, by_value, ecs[1]], places).unwrap()).await;
    assert!(error.message.ends_with("refused by the address rule"), "{error}");
}

/// A machine's metadata server, second version.
async fn machine() -> Fake {
    Fake::start(|heard| {
        if heard.path == "/latest/api/token" {
            let life: u32 = heard.header("x-aws-ec2-metadata-token-ttl-seconds").parse().unwrap_or(0);
            return if heard.method == "PUT" && (1..=21_600).contains(&life) { said(200, "s3cret-of-the-session==") } else { said(400, "") };
        }
        if heard.method != "GET" || heard.header("x-aws-ec2-metadata-token") != "s3cret-of-the-session==" {
            return said(401, "");
        }
        match heard.path.as_str() {
            "/latest/meta-data/placement/region" => said(200, REGION),
            "/latest/meta-data/iam/security-credentials/" => said(200, "ci-role"),
            "/latest/meta-data/iam/security-credentials/ci-role" => said(
                200,
                json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": ID, "SecretAccessKey": KEY, "Token": SESSION}).to_string(),
            ),
            _ => said(404, ""),
        }
    })
    .await
}

fn on_machine(places: Places) -> Source {
    Source::find(
        &environment(&[]),
        &Options { kind: Some(SourceKind::Aws), places, ..Options::default() },
    )
    .unwrap()
}

#[tokio::test]
async fn a_machine_is_asked_in_a_session() {
    let (_sts, places) = region_sts(SESSION).await;
    let (server, firmware) =
        (machine().await, std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("aws-firmware"));
    fs::create_dir_all(&firmware).unwrap();
    fs::write(firmware.join("sys_vendor"), "Amazon EC2\n").unwrap();
    let places = Places { aws_machine: server.url.clone(), firmware, ..places };
    assert_eq!(token(&on_machine(places.clone())).await.unwrap(), TOKEN);
    assert_eq!(find(&[], places.clone()).unwrap().kind(), SourceKind::Aws);
    assert!(find(&[("AWS_EC2_METADATA_DISABLED", "true")], places.clone()).is_err());
    assert!(
        find(&[], Places { firmware: "/nonexistent".into(), ..places }).is_err(),
        "not on another's machine"
    );
}

#[tokio::test]
async fn aws_may_do_anything_wrong() {
    holds_against_wrongs(|url, places| {
        given(KEY, Places { aws_sts: Some(url.to_owned()), ..places })
    })
    .await;
    holds_against_wrongs(|url, places| {
        on_machine(Places { aws_machine: url.to_owned(), ..places })
    })
    .await;
    holds_against_wrongs(|url, places| {
        let ecs =
            [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials"), ("AWS_REGION", REGION)];
        find(&ecs, Places { aws_container: url.to_owned(), ..places }).unwrap()
    })
    .await;
}

#[test]
fn credentials_without_a_region_are_a_mistake() {
    let told = find(&[("AWS_ACCESS_KEY_ID", ID), ("AWS_SECRET_ACCESS_KEY", KEY)], nowhere())
        .unwrap_err()
        .to_string();
    assert!(told.contains("AWS_REGION"), "{told}");
    let odd = [
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        ("AWS_REGION", "x.evil.example/"),
    ];
    assert!(find(&odd, nowhere()).is_err());
}
