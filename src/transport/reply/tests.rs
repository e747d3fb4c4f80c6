use http_body_util::BodyExt;
use serde_json::from_slice;

use super::*;

use crate::{proto::octosts, reason::Condition};

async fn body(response: Response) -> Value {
    from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

fn condition(field: &str, satisfied: bool, got: &str) -> Condition {
    Condition { field: field.into(), satisfied, got: Some(got.into()), wanted: None, hint: None }
}

fn mismatch(conditions: Vec<Condition>) -> Refusal {
    Refusal {
        conditions,
        ..Refusal::new(Reason::PolicyMismatch, "the token does not satisfy the policy")
    }
}

fn grpc_details(refusal: &Refusal) -> Vec<prost_types::Any> {
    let status = grpc(refusal);
    rpc::Status::decode(status.details()).unwrap().details
}

#[test]
fn faults_are_the_reasons_after_which_callers_may_retry() {
    for (reason, code, _) in table() {
        assert_eq!(reason.is_fault(), [4, 8, 13, 14].contains(&code), "{reason}");
    }
}

#[test]
fn the_http_status_is_the_gateways_for_the_code() {
    for (reason, code, status) in table() {
        let expected = match code {
            3 | 9 => 400,
            16 => 401,
            7 => 403,
            5 => 404,
            8 => 429,
            12 => 501,
            13 => 500,
            14 => 503,
            4 => 504,
            other => panic!("{reason} has the code {other}, which the contract does not name"),
        };
        assert_eq!(status, expected, "{reason}");
    }
    assert_eq!(table().count(), Reason::ALL.len());
}

#[test]
fn every_reason_is_a_word_of_aip_193() {
    for reason in Reason::ALL {
        let word = reason.as_str();
        assert!(
            word.len() <= 63
                && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        );
        assert!(
            word.starts_with(|c: char| c.is_ascii_uppercase()) && !word.ends_with('_'),
            "{word}"
        );
    }
}

#[tokio::test]
async fn every_reason_reads_the_same_on_both_wires() {
    for (reason, code, http_status) in table() {
        let refusal = Refusal::new(reason, "text").because("cause");
        let (grpc_status, response) = (grpc(&refusal), rest(&refusal));
        assert_eq!(grpc_status.code() as i32, code);
        assert_eq!(response.status().as_u16(), http_status);
        let has_wait = [8, 14].contains(&code) && reason != Reason::IssuerMisconfigured;
        assert_eq!(response.headers().contains_key(header::RETRY_AFTER), has_wait, "{reason}");
        assert_eq!(
            response.headers().contains_key(header::WWW_AUTHENTICATE),
            code == 16,
            "{reason}"
        );
        let json = body(response).await;
        assert_eq!((&json["code"], &json["message"]), (&json!(code), &json!("text")));
        assert_eq!(json["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!(json["details"][0]["domain"], "octo-sts");
        assert_eq!(json["details"][0]["reason"], reason.as_str());
        assert!(!json.to_string().contains("cause"));
        let details = grpc_details(&refusal);
        assert_eq!(details.len(), json["details"].as_array().unwrap().len());
        let info = rpc::ErrorInfo::decode(details[0].value.as_slice()).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), "octo-sts"));
    }
}

#[test]
fn a_401_says_whether_a_token_was_sent() {
    let challenge =
        |reason| rest(&Refusal::new(reason, "")).headers()[header::WWW_AUTHENTICATE].clone();
    assert_eq!(challenge(Reason::CredentialMissing), "Bearer");
    assert_eq!(challenge(Reason::TokenExpired), r#"Bearer error="invalid_token""#);
    assert_eq!(challenge(Reason::IssuerNotTrusted), r#"Bearer error="invalid_token""#);
}

#[test]
fn a_misconfigured_issuer_is_no_reason_to_try_again_soon() {
    let refusal = Refusal::new(Reason::IssuerMisconfigured, "");
    assert_eq!(rest(&refusal).headers().get(header::RETRY_AFTER), None);
    assert_eq!(grpc_details(&refusal).len(), 1);
}

#[tokio::test]
async fn waits_are_whole_seconds_rounded_up_and_at_least_one() {
    use std::time::Duration;
    for (wait, seconds) in
        [(None, "1"), (Some(0), "1"), (Some(1000), "1"), (Some(1001), "2"), (Some(59_000), "59")]
    {
        let refusal = Refusal::new(Reason::GithubRateLimited, "")
            .retry_after(wait.map(Duration::from_millis));
        let response = rest(&refusal);
        assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        assert_eq!(body(response).await["details"][1]["retryDelay"], format!("{seconds}s"));
        let retry = rpc::RetryInfo::decode(grpc_details(&refusal)[1].value.as_slice()).unwrap();
        assert_eq!(retry.retry_delay.unwrap().seconds.to_string(), seconds);
    }
}

#[tokio::test]
async fn a_mismatch_lists_what_failed() {
    let refusal = mismatch(vec![
        condition("issuer", true, "https://i"),
        condition("subject", false, "repo:o/r"),
        condition("claim_pattern.email", false, "x@y"),
    ]);
    let json = body(rest(&refusal)).await;
    assert_eq!(json["details"][0]["metadata"], json!({"failed": "subject,claim_pattern.email"}));
    let first = json!({
        "@type": "type.googleapis.com/octosts.v1.Condition",
        "field": "subject", "satisfied": false, "got": "repo:o/r",
    });
    assert_eq!(json["details"][1], first);
    assert_eq!(json["details"][3]["satisfied"], true);
    let details = grpc_details(&refusal);
    assert_eq!(details[1].type_url, "type.googleapis.com/octosts.v1.Condition");
    let condition = octosts::v1::Condition::decode(details[1].value.as_slice()).unwrap();
    assert_eq!(
        (condition.field.as_str(), condition.got.as_deref(), condition.wanted),
        ("subject", Some("repo:o/r"), None)
    );
}

#[test]
fn conditions_are_bounded_whatever_they_hold() {
    let long = "é".repeat(5000);
    let one = Condition {
        wanted: Some(long.clone()),
        hint: Some(long.clone()),
        ..condition(&long, false, &long)
    };
    let details = grpc_details(&mismatch(vec![one; 64]));
    let first = octosts::v1::Condition::decode(details[1].value.as_slice()).unwrap();
    assert_eq!(first.got.unwrap(), "é".repeat(128));
    assert_eq!(first.field.len(), 256);
    let total: usize = details[1..].iter().map(Message::encoded_len).sum();
    assert!((3000..=4096).contains(&total), "{total}");
    let info = rpc::ErrorInfo::decode(details[0].value.as_slice()).unwrap();
    assert!((500..=1024).contains(&info.metadata["failed"].len()));
    assert!(info.metadata["failed"].split(',').all(|name| name == "é".repeat(128)));
}

#[test]
fn many_small_conditions_are_bounded_as_sent() {
    let details = grpc_details(&mismatch(vec![condition("x", false, "y"); 1000]));
    let total: usize = details.iter().map(Message::encoded_len).sum();
    assert!((4000..=6000).contains(&total), "{total}");
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(cut(&format!("{}é", "a".repeat(255))), "a".repeat(255));
    assert_eq!(cut("short"), "short");
}

#[tokio::test]
async fn a_post_is_answered_in_strict_proto_json() {
    let expires_at = UnixTime::from_secs(1_767_225_600);
    let json = body(rest_token("ghs_x", expires_at, None)).await;
    assert_eq!(
        json,
        json!({"token": "ghs_x", "refreshToken": "", "expiry": "2026-01-01T00:00:00Z"})
    );
}

#[tokio::test]
async fn a_get_is_answered_with_the_names_of_oauth_too() {
    let (now, expires_at) =
        (UnixTime::from_secs(1_767_222_000), UnixTime::from_secs(1_767_225_600));
    let json = body(rest_token("ghs_x", expires_at, Some(now))).await;
    let expected = json!({
        "token": "ghs_x", "refreshToken": "", "expiry": "2026-01-01T00:00:00Z",
        "access_token": "ghs_x", "token_type": "Bearer", "expires_in": 3600,
    });
    assert_eq!(json, expected);
    assert_eq!(body(rest_token("t", now, Some(expires_at))).await["expires_in"], 0);
}

#[test]
fn a_grpc_token_has_its_expiry() {
    let token = grpc_token("ghs_x", UnixTime::from_secs(7));
    assert_eq!(
        (token.token.as_str(), token.refresh_token.as_str(), token.expiry.unwrap().seconds),
        ("ghs_x", "", 7)
    );
}

#[test]
fn what_grpc_itself_could_not_read_is_the_callers_fault() {
    let from_below = Status::internal("failed to decode Protobuf message").into_http::<()>();
    assert_eq!(unreadable(from_below.headers()).unwrap().reason, Reason::RequestInvalid);
    let ours = grpc(&Refusal::new(Reason::Internal, "")).into_http::<()>();
    assert!(unreadable(ours.headers()).is_none());
    assert!(unreadable(Status::unimplemented("").into_http::<()>().headers()).is_none());
    assert!(unreadable(&HeaderMap::new()).is_none());
}
