//! One answer, one meaning: each of GitHub's refusals, at every call.

use super::*;
use crate::reason::Reason::{self, *};

const REPOSITORY_TEXT: &str = "There is at least one repository that does not exist or is not accessible to the parent installation.";
const IP_ALLOW_LIST: &str = "Although you appear to have the correct authorization credentials, the `octo-org` \
    organization has an IP allow list enabled, and your IP address is not permitted to access this resource.";
const SAML: &str = "Resource protected by organization SAML enforcement. You must grant your OAuth token access to \
    this organization.";

/// Every call, in the order of [`Row::reasons`].
const CALLS: [&str; 6] = ["installation", "about", "read token", "file", "repository", "mint"];

struct Row {
    answer: (u16, &'static str, &'static [(&'static str, &'static str)]),
    reasons: [Reason; 6],
    /// Whether a cached copy may stand in for the answer.
    is_outage: bool,
}

/// The same everywhere.
fn row(
    status: u16,
    message: &'static str,
    headers: &'static [(&'static str, &'static str)],
    reason: Reason,
) -> Row {
    let is_outage = reason == GithubRateLimited || (500..=504).contains(&status);
    Row { answer: (status, message, headers), reasons: [reason; 6], is_outage }
}

fn rows() -> Vec<Row> {
    const NONE: &[(&str, &str)] = &[];
    const EXHAUSTED: &[(&str, &str)] =
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000100")];
    let mut rows = vec![
        row(429, "slow down", NONE, GithubRateLimited),
        row(403, "You have exceeded a secondary rate limit.", NONE, GithubRateLimited),
        row(403, "You have triggered an abuse detection mechanism.", NONE, GithubRateLimited),
        row(403, "API rate limit exceeded for installation ID 77.", EXHAUSTED, GithubRateLimited),
        row(403, "Forbidden", EXHAUSTED, GithubRateLimited),
        row(403, "Forbidden", &[("retry-after", "7")], GithubRateLimited),
        row(422, REPOSITORY_TEXT, EXHAUSTED, GithubRateLimited),
        row(422, REPOSITORY_TEXT, &[("retry-after", "7")], GithubRateLimited),
        row(403, IP_ALLOW_LIST, NONE, PolicyForbidden),
        row(403, IP_ALLOW_LIST, EXHAUSTED, PolicyForbidden),
        row(403, SAML, NONE, PolicyForbidden),
        row(403, "Repository access blocked", NONE, PolicyForbidden),
        row(403, "This installation has been suspended", NONE, InstallationSuspended),
        row(403, "This installation has been suspended", EXHAUSTED, InstallationSuspended),
        row(403, "Sorry. Your account was suspended.", NONE, InstallationSuspended),
        row(505, "no", NONE, GithubUnavailable),
        row(520, "no", NONE, GithubUnavailable),
    ];
    rows.extend(
        [500, 501, 502, 503, 504]
            .map(|status| row(status, "Server Error", NONE, GithubUnavailable)),
    );
    rows.extend(
        [400, 402, 405, 409, 410, 413, 451].map(|status| row(status, "no", NONE, PolicyForbidden)),
    );
    // What the App's credential is refused for, and what a token for reading.
    for message in [
        "A JSON web token could not be decoded",
        "'Issued at' claim ('iat') must be an Integer",
        "Bad credentials",
    ] {
        let reasons =
            [Internal, Internal, Internal, GithubUnavailable, GithubUnavailable, Internal];
        rows.push(Row { reasons, ..row(401, message, NONE, Internal) });
    }
    for status in [301, 302, 307, 308] {
        let mut moved = row(status, "Moved Permanently", NONE, RepositoryNotAccessible);
        moved.reasons[0] = NotInstalled;
        rows.push(moved);
    }
    // The App may not do it: for a mint, by the policy's permissions.
    for (status, message) in [
        (403, "Resource not accessible by integration"),
        (403, "Forbidden"),
        (422, "The permissions requested are not granted to this installation."),
        (422, "Validation Failed"),
    ] {
        let mut forbidden = row(status, message, NONE, PolicyForbidden);
        forbidden.reasons[5] = PermissionRefused;
        rows.push(forbidden);
    }
    rows
}

/// What each call comes to while GitHub answers so.
async fn ask(Row { answer: said, .. }: &Row) -> [Error; 6] {
    let (status, message, headers) = *said;
    let failing = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&failing);
    let world = World::new(move |seen| {
        let is_revocation = seen.line == REVOKE;
        (switch.load(Ordering::SeqCst) && !is_revocation).then(|| {
            headers.iter().fold(refusal(status, message), |answered, (name, value)| {
                answered.with(name, value)
            })
        })
    })
    .await;
    let (installation, token, repo) =
        (world.installation().await, world.read_token().await, "hello".parse().unwrap());
    let grant = grant(&["hello"], &[("issues", Level::Write)]);
    world.github.forget_installations(&owner());
    failing.store(true, Ordering::SeqCst);
    // A limit closes a key, and a young token's refusals do not count yet.
    let apart = || world.clock.advance(Duration::from_secs(3601));
    apart();
    let found = world.look_up(CallerTrust::Verified).await.unwrap_err();
    apart();
    let about = world.github.about_installation(&installation).await.unwrap_err();
    apart();
    let read_token = world.github.read_token(&installation, &repo).await.unwrap_err();
    apart();
    let file = world.github.file(&token, FILE_PATH, None, None).await.unwrap_err();
    apart();
    let repository = match world.github.repository_visible(&token).await {
        Ok(_) => Error::Unexpected("its body is not read".into()),
        Err(error) => error,
    };
    apart();
    let mint = world.github.mint(&grant, &installation, &MintCalls::default()).await.unwrap_err();
    [found, about, read_token, file, repository, mint]
}

#[tokio::test]
async fn one_cause_has_one_reason_whichever_call_hits_it() {
    for row in rows() {
        let (status, message, _) = row.answer;
        let errors = ask(&row).await;
        for ((call, error), reason) in CALLS.iter().zip(&errors).zip(row.reasons) {
            assert_eq!(
                (error.reason(), error.is_outage()),
                (reason, row.is_outage),
                "{status} {message:.30} {call}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn operators_read_githubs_words_and_callers_do_not() {
    for (status, message) in [
        (403, IP_ALLOW_LIST),
        (403, SAML),
        (451, "Repository access blocked"),
        (301, "Moved Permanently"),
    ] {
        let errors = ask(&row(status, message, &[], Internal)).await;
        for (call, error) in CALLS.iter().zip(errors) {
            let refusal = crate::exchange::refusal_of_github(&error, &owner());
            assert!(
                refusal.cause.as_deref().unwrap().contains(&message[..16]),
                "{call}: {refusal:?}"
            );
            assert!(!refusal.message.contains(&message[..16]), "{call}: {refusal:?}");
        }
    }
}

#[test]
fn how_long_a_limit_lasts() {
    use super::{
        failure::{Answer, Failure},
        meaning::Meaning,
    };
    let reset = Some(1_700_000_100);
    for (status, message, [retry_after, remaining, until], wait) in [
        (429, "", [None, None, None], Some(60)),
        (429, "", [Some(5), None, None], Some(5)),
        (429, "", [Some(0), None, None], Some(1)),
        (429, "", [Some(u64::MAX), None, None], Some(3600)),
        (403, "", [None, Some(0), reset], Some(100)),
        (403, "", [Some(9), Some(0), reset], Some(9)),
        (403, "", [None, Some(0), None], Some(60)),
        (403, "", [None, Some(0), Some(1_600_000_000)], Some(60)),
        (403, "", [None, Some(0), Some(u64::MAX)], Some(60)),
        (429, "", [None, Some(10), reset], Some(60)),
        (
            403,
            "You have exceeded a secondary rate limit. Please wait a few minutes.",
            [None; 3],
            Some(60),
        ),
        (403, "Resource not accessible by integration", [None, Some(0), reset], None),
        (403, "Resource not accessible by integration", [None, Some(4000), reset], None),
        (422, "at least one repository", [Some(3), None, None], Some(3)),
        (422, "at least one repository", [None, Some(4000), reset], None),
        (404, "Not Found", [None, Some(0), reset], None),
        (503, "", [Some(3), None, None], None),
    ] {
        let answer =
            Answer { retry_after, remaining, reset: until, ..Answer::for_test(status, message) };
        let meaning = Meaning::of(Failure::Answered(Box::new(answer)), NOW);
        let limited = if let Meaning::Limited(wait) = meaning { Some(wait) } else { None };
        assert_eq!(
            limited,
            wait.map(Duration::from_secs),
            "{status} {message} {retry_after:?} {remaining:?}"
        );
    }
}
