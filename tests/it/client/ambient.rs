//! Where identities come from: CI systems, pods, Google's machines; and in which order they are
//! looked for.

use std::{fs, path::PathBuf};

use octo_sts::client::{
    Class,
    ambient::{Options, Places, Source, SourceKind},
};
use serde_json::json;

use super::fake::{
    AUDIENCE, Fake, NO_TOKENS, TOKEN, environment, find, holds_against_wrongs, nowhere, patient,
    refused, said, token, token_of,
};

/// A folder of this test's own, empty at first.
fn folder(name: &str) -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("ambient").join(name);
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// GitHub's endpoint for jobs.
async fn actions() -> Fake {
    Fake::start(|heard| {
        if heard.method != "GET" || heard.path != "/oidc" || heard.parameter("api-version") != "2.0"
        {
            return said(404, "");
        }
        match heard.header("authorization") {
            "Bearer s3cret-of-the-job" if heard.parameter("audience") == AUDIENCE => {
                said(200, json!({"count": 1, "value": TOKEN}).to_string())
            }
            "Bearer s3cret-of-the-job" => said(400, "bad audience"),
            _ => said(401, "s3cret-of-the-job"),
        }
    })
    .await
}

fn of_actions(url: &str, secret: &str, places: Places) -> Source {
    let url = format!("{url}/oidc?api-version=2.0");
    let job = [
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", &url),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", secret),
    ];
    let found = find(&job, places).unwrap();
    assert_eq!(found.kind(), SourceKind::Actions);
    found
}

#[tokio::test]
async fn github_actions_is_asked_for_the_audience() {
    let server = actions().await;
    let source = of_actions(&server.url, "s3cret-of-the-job", patient(nowhere()));
    assert_eq!(token(&source).await.unwrap(), TOKEN);
    assert_eq!(token(&source).await.unwrap(), TOKEN, "asked anew");
    assert_eq!(server.heard().len(), 2);
    let error = refused(&of_actions(&server.url, "s3cret-of-another", patient(nowhere()))).await;
    assert_eq!(
        (error.class(), error.message.as_str()),
        (Class::Refused, "GitHub Actions gives no ID token: it answered 401")
    );
}

#[tokio::test]
async fn github_actions_may_do_anything_wrong() {
    holds_against_wrongs(|url, places| of_actions(url, "s3cret-of-the-job", places)).await;
}

fn of_buildkite(url: &str, secret: &str, places: Places) -> Source {
    let job = [
        ("BUILDKITE", "true"),
        ("BUILDKITE_AGENT_ENDPOINT", &format!("{url}/v3/")[..]),
        ("BUILDKITE_JOB_ID", "0184990a-477b-4fa8-9968-496074483cee"),
        ("BUILDKITE_AGENT_ACCESS_TOKEN", secret),
    ];
    find(&job, places).unwrap()
}

#[tokio::test]
async fn buildkite_is_asked_as_its_agent_asks() {
    let server = Fake::start(|heard| {
        let there = heard.method == "POST"
            && heard.path == "/v3/jobs/0184990a-477b-4fa8-9968-496074483cee/oidc/tokens";
        match heard.header("authorization") {
            _ if !there => said(404, ""),
            "Token s3cret-of-the-agent" => {
                assert_eq!(heard.header("content-type"), "application/json");
                assert_eq!(heard.body, json!({"audience": AUDIENCE}).to_string());
                said(201, json!({"token": TOKEN}).to_string())
            }
            _ => said(401, json!({"message": "s3cret-of-the-agent"}).to_string()),
        }
    })
    .await;
    let source = of_buildkite(&server.url, "s3cret-of-the-agent", patient(nowhere()));
    assert_eq!(
        (source.kind(), token(&source).await.unwrap().as_str()),
        (SourceKind::Buildkite, TOKEN)
    );
    let error = refused(&of_buildkite(&server.url, "s3cret", patient(nowhere()))).await;
    assert_eq!(error.class(), Class::Refused);
    assert!(
        find(
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_JOB_ID", "../x"),
                ("BUILDKITE_AGENT_ACCESS_TOKEN", "x")
            ],
            nowhere()
        )
        .is_err()
    );
}

#[tokio::test]
async fn buildkite_may_do_anything_wrong() {
    holds_against_wrongs(|url, places| of_buildkite(url, "s3cret-of-the-agent", places)).await;
}

/// Google's metadata server.
async fn metadata() -> Fake {
    Fake::start(|heard| {
        let flavor = vec![("metadata-flavor", "Google".to_owned())];
        let there = heard.path == "/computeMetadata/v1/instance/service-accounts/default/identity";
        if heard.header("metadata-flavor") != "Google"
            || !heard.header("x-forwarded-for").is_empty()
        {
            return (403, flavor, "Missing Metadata-Flavor:Google header.".to_owned());
        }
        if there && heard.parameter("audience") == AUDIENCE && heard.parameter("format") == "full" {
            return (200, flavor, TOKEN.to_owned());
        }
        (404, flavor, String::new())
    })
    .await
}

fn google(url: &str, places: Places) -> Source {
    let places = Places { gcp: url.to_owned(), ..places };
    Source::find(
        &environment(&[]),
        &Options { kind: Some(SourceKind::Gcp), places, ..Options::default() },
    )
    .unwrap()
}

#[tokio::test]
async fn googles_metadata_server_is_asked_on_googles_machines_alone() {
    let server = metadata().await;
    let firmware = folder("google");
    let places = |product: &str| {
        fs::write(firmware.join("product_name"), product).unwrap();
        patient(Places { gcp: server.url.clone(), firmware: firmware.clone(), ..nowhere() })
    };
    let source = find(&[], places("Google Compute Engine\n")).unwrap();
    assert_eq!((source.kind(), token(&source).await.unwrap().as_str()), (SourceKind::Gcp, TOKEN));
    let asked = server.heard().len();
    assert!(find(&[], places("Standard PC (Q35 + ICH9, 2009)\n")).is_err());
    assert!(find(&[("K_SERVICE", "of Knative elsewhere")], places("x")).is_err());
    assert_eq!(find(&[("CLOUD_RUN_JOB", "job")], places("x")).unwrap().kind(), SourceKind::Gcp);
    assert_eq!(server.heard().len(), asked, "to look for an identity sends nothing");
}

#[tokio::test]
async fn what_answers_in_the_place_of_googles_metadata_server_is_not_believed() {
    let captive = Fake::start(|_| said(200, TOKEN)).await;
    assert_eq!(refused(&google(&captive.url, patient(nowhere()))).await.code, 13);
    holds_against_wrongs(google).await;
}

#[tokio::test]
async fn metadata_servers_are_addresses_nearby() {
    for elsewhere in [
        "http://192.0.2.1",
        "http://10.0.0.1",
        "http://localhost",
        "https://127.0.0.1",
        "http://metadata.google.internal",
    ] {
        let error = refused(&google(elsewhere, patient(nowhere()))).await;
        assert!(error.message.ends_with("refused by the address rule"), "{elsewhere}: {error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn circleci_is_asked_for_another_audience_by_its_program() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use std::os::unix::fs::PermissionsExt;

    let folder = folder("circleci");
    let program = |name: &str, script: &str| {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        patient(Places { circleci: path, ..nowhere() })
    };
    let given = |aud: &str| {
        format!(
            "eyJhbGciOiJSUzI1NiJ9.{}.c2ln",
            URL_SAFE_NO_PAD.encode(json!({"aud": aud}).to_string())
        )
    };
    let good = program(
        "good",
        &format!(
            "[ \"$*\" = 'run oidc get --claims {{\"aud\":\"{AUDIENCE}\"}}' ] || exit 1\necho {TOKEN}"
        ),
    );
    let job = |aud: &str, places| {
        find(&[("CIRCLECI", "true"), ("CIRCLE_OIDC_TOKEN_V2", &given(aud))], places).unwrap()
    };
    assert_eq!(token(&job("an-organization", good.clone())).await.unwrap(), TOKEN);
    assert_eq!(
        token(&job(AUDIENCE, nowhere())).await.unwrap(),
        given(AUDIENCE),
        "the job's own will do"
    );
    assert_eq!(token(&find(&[("CIRCLECI", "true")], good).unwrap()).await.unwrap(), TOKEN);

    let fails = program("fails", &format!("echo {TOKEN}; exit 1"));
    assert_eq!(refused(&job("x", fails)).await.class(), Class::Unavailable);
    let hangs = Places { far: nowhere().far, ..program("hangs", "exec sleep 60") };
    assert_eq!(refused(&job("x", hangs)).await.class(), Class::Unavailable);
    let endless = program("endless", "exec yes");
    assert_eq!(refused(&job("x", endless)).await.class(), Class::Unavailable);
    let absent = refused(&job("x", nowhere())).await;
    assert_eq!(absent.class(), Class::Usage);
    assert!(
        absent.message.contains("CIRCLE_OIDC_TOKEN_V2") && absent.message.contains("--audience"),
        "{absent}"
    );
}

#[tokio::test]
async fn a_file_is_read_anew_each_time() {
    let file = folder("file").join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let source = find(&[("STS_TOKEN_FILE", file.to_str().unwrap())], nowhere()).unwrap();
    assert_eq!((source.kind(), token(&source).await.unwrap().as_str()), (SourceKind::File, TOKEN));
    fs::write(&file, token_of("rotated")).unwrap();
    assert_eq!(token(&source).await.unwrap(), token_of("rotated"));
    for bad in ["", " \n", "two words", "a\0b", &"x".repeat(70_000)] {
        fs::write(&file, bad).unwrap();
        assert_eq!(refused(&source).await.class(), Class::Usage);
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(refused(&source).await.class(), Class::Usage);
    fs::create_dir(&file).unwrap();
    assert_eq!(refused(&source).await.class(), Class::Usage);
}

/// A source of each kind that asks somebody, all of whom answer `content` in the place of a token.
#[cfg(unix)]
async fn sources_that_answer(content: &'static str) -> Vec<Source> {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder("no-token");
    let file = folder.join("token");
    fs::write(&file, content).unwrap();
    let ci =
        Fake::start(move |_| said(200, json!({"value": content, "token": content}).to_string()))
            .await;
    let gcp = Fake::start(move |_| {
        (200, vec![("metadata-flavor", "Google".to_owned())], content.to_owned())
    })
    .await;
    let aws =
        Fake::start(move |_| said(200, format!("<WebIdentityToken>{content}</WebIdentityToken>")))
            .await;
    let program = folder.join("circleci");
    fs::write(&program, format!("#!/bin/sh\ncat <<'END'\n{content}\nEND\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let key = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("AWS_REGION", "us-east-1"),
    ];
    let places = patient(nowhere());
    vec![
        find(&[("STS_TOKEN_FILE", file.to_str().unwrap())], places.clone()).unwrap(),
        find(&[], Places { pod_files: vec![file], ..places.clone() }).unwrap(),
        of_actions(&ci.url, "t", places.clone()),
        of_buildkite(&ci.url, "t", places.clone()),
        find(&[("CIRCLECI", "true")], Places { circleci: program, ..places.clone() }).unwrap(),
        google(&gcp.url, places.clone()),
        find(&key, Places { aws_sts: Some(aws.url.clone()), ..places }).unwrap(),
    ]
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_not_an_identity_token_is_refused_by_its_kind_from_every_source() {
    for (content, kind) in NO_TOKENS {
        let told = find(&[("STS_ID_TOKEN", content)], nowhere()).unwrap_err().to_string();
        assert!(told.contains(kind) && !told.contains("s3cret"), "{told}");
        for source in sources_that_answer(content).await {
            let error = refused(&source).await;
            let told = error.to_string();
            assert!(
                told.contains(kind) && told.contains("expected an OIDC token"),
                "{source:?}: {told}"
            );
        }
    }
}

#[tokio::test]
async fn a_pods_files_are_found_and_its_api_token_is_not_used() {
    let folder = folder("pod");
    let api = folder.join("kubernetes.io/serviceaccount");
    fs::create_dir_all(&api).unwrap();
    let (ours, seeds, api) = (folder.join("ours"), folder.join("seeds"), api.join("token"));
    fs::write(&api, TOKEN).unwrap();
    let places = Places {
        pod_files: vec![ours.clone(), seeds.clone()],
        api_token: api.clone(),
        ..nowhere()
    };
    let none = find(&[], places.clone()).unwrap_err().to_string();
    assert!(none.contains("must not be shown") && none.contains("serviceAccountToken"), "{none}");
    fs::write(&seeds, token_of("seeds")).unwrap();
    assert_eq!(token(&find(&[], places.clone()).unwrap()).await.unwrap(), token_of("seeds"));
    fs::write(&ours, token_of("ours")).unwrap();
    assert_eq!(token(&find(&[], places.clone()).unwrap()).await.unwrap(), token_of("ours"));

    // Named as such, and by way of a link.
    let named =
        Options { token_file: Some(api.clone()), places: places.clone(), ..Options::default() };
    assert!(
        Source::find(&environment(&[]), &named)
            .unwrap_err()
            .to_string()
            .contains("must not be shown")
    );
    #[cfg(unix)]
    {
        let link = folder.join("link");
        std::os::unix::fs::symlink(&api, &link).unwrap();
        let linked = find(&[("STS_TOKEN_FILE", link.to_str().unwrap())], places);
        assert!(linked.unwrap_err().to_string().contains("must not be shown"));
    }
}

#[test]
fn the_nearest_identity_counts() {
    let folder = folder("order");
    let pod = folder.join("token");
    fs::write(&pod, TOKEN).unwrap();
    fs::write(folder.join("product_name"), "Google").unwrap();
    let places = Places { pod_files: vec![pod.clone()], firmware: folder, ..nowhere() };
    let mut all = vec![
        ("STS_TOKEN_FILE", pod.to_str().unwrap()),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://a"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
        ("BUILDKITE", "true"),
        ("BUILDKITE_JOB_ID", "1"),
        ("BUILDKITE_AGENT_ACCESS_TOKEN", "t"),
        ("CIRCLECI", "true"),
    ];
    let mut kinds = Vec::new();
    for dropped in [0, 1, 2, 3, 1] {
        all.drain(..dropped);
        kinds.push(find(&all, places.clone()).unwrap().kind());
    }
    assert_eq!(
        kinds,
        [
            SourceKind::File,
            SourceKind::Actions,
            SourceKind::Buildkite,
            SourceKind::Circleci,
            SourceKind::Kubernetes
        ]
    );
    assert_eq!(
        find(&[("STS_ID_TOKEN", TOKEN), ("GITLAB_CI", "true")], places.clone()).unwrap().kind(),
        SourceKind::Variable
    );
    assert!(find(&[("STS_ID_TOKEN", TOKEN), ("STS_TOKEN_FILE", "/x")], places).is_err());
}

#[test]
fn a_job_without_an_identity_does_not_take_its_runners() {
    let pod = folder("runner").join("token");
    fs::write(&pod, TOKEN).unwrap();
    let places = Places { pod_files: vec![pod], ..nowhere() };
    for (job, help) in [
        (&[("GITHUB_ACTIONS", "true")][..], "id-token: write"),
        (&[("GITLAB_CI", "true")], "id_tokens: {STS_ID_TOKEN: {aud:"),
        (&[("BUILDKITE", "true")], "BUILDKITE_JOB_ID"),
    ] {
        let told = find(job, places.clone()).unwrap_err().to_string();
        assert!(told.contains(help), "{told}");
    }
}

#[test]
fn a_kind_that_is_asked_for_must_be_there() {
    for kind in
        SourceKind::ALL.iter().filter(|kind| !matches!(kind, SourceKind::Gcp | SourceKind::Aws))
    {
        let options = Options { kind: Some(*kind), places: nowhere(), ..Options::default() };
        let told = Source::find(&environment(&[]), &options).unwrap_err().to_string();
        assert!(!told.is_empty(), "{kind}");
        assert_eq!(SourceKind::named(kind.name()), Some(*kind));
    }
    let nothing = find(&[], nowhere()).unwrap_err().to_string();
    assert!(nothing.contains("--token-file") && nothing.contains("--source"), "{nothing}");
}
