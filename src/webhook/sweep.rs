//! Deliveries that were missed: GitHub does not repeat them by itself.
//!
//! At start and every five minutes, what failed is delivered again. What this process accepted and
//! did not finish ends with the process, so at start the deliveries of the last minutes are
//! delivered again too; for what was finished, that changes nothing.

use std::{collections::HashMap, time::Duration};

use crate::{
    clock::{Clock, UnixTime},
    github::{App, DeliveryAttempt, Error, GitHub},
};

/// How often.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// GitHub keeps deliveries for so long.
const KEPT: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Work on a delivery ends within this time, or has failed.
const UNFINISHED: Duration = Duration::from_secs(10 * 60);
/// Times that a delivery is requested again. What fails then fails for a reason of its own.
const MAX_REQUESTS: u32 = 3;
/// Pages of a hundred that are read of one App.
const MAX_PAGES: usize = 10;
/// Events with work after the reply.
const WITH_WORK: [&str; 5] = ["check_run", "check_suite", "merge_group", "pull_request", "push"];

/// Finds and repeats missed deliveries until it is dropped.
pub(super) async fn run(github: GitHub, clock: &dyn Clock) {
    let mut requested: HashMap<String, u32> = HashMap::new();
    let start = clock.now();
    let mut is_first = true;
    loop {
        let next = clock.monotonic().plus(EVERY);
        for app in github.apps() {
            let swept = sweep(&github, &app, start, is_first, &mut requested).await;
            match swept {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(app_id = %app.id(), count, "missed deliveries were requested again")
                }
                // An App without a webhook has no deliveries.
                Err(error) => {
                    tracing::debug!(app_id = %app.id(), %error, "deliveries were not looked up")
                }
            }
        }
        is_first = false;
        clock.sleep(next.since(clock.monotonic())).await;
    }
}

async fn sweep(
    github: &GitHub,
    app: &App,
    start: UnixTime,
    is_first: bool,
    requested: &mut HashMap<String, u32>,
) -> Result<usize, Error> {
    let mut missed = read(github, app, true, start.minus(KEPT)).await?;
    if is_first {
        let recent = read(github, app, false, start.minus(UNFINISHED)).await?;
        let is_work = |attempt: &DeliveryAttempt| WITH_WORK.contains(&attempt.event.as_str());
        missed.extend(recent.into_iter().filter(is_work));
    }
    let mut count = 0;
    // The oldest first, as they happened. Of several attempts of one delivery, one is enough.
    let mut seen = std::collections::HashSet::new();
    for attempt in missed.into_iter().rev() {
        let requests = requested.entry(attempt.guid.clone()).or_default();
        if *requests >= MAX_REQUESTS || !seen.insert(attempt.guid.clone()) {
            continue;
        }
        match github.redeliver(app, &attempt).await {
            Ok(()) => count += 1,
            // GitHub answers about this delivery, which it may have deleted. Others follow.
            Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        *requests += 1;
    }
    Ok(count)
}

/// The attempts since a time, newest first.
async fn read(
    github: &GitHub,
    app: &App,
    only_failed: bool,
    since: UnixTime,
) -> Result<Vec<DeliveryAttempt>, Error> {
    let mut found = Vec::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let page = github.deliveries(app, only_failed, cursor.as_deref()).await?;
        let on_page = found.len() + page.attempts.len();
        let is_since =
            |attempt: &DeliveryAttempt| attempt.delivered_at().is_some_and(|at| at >= since);
        found.extend(page.attempts.into_iter().take_while(is_since));
        cursor = page.next;
        if cursor.is_none() || found.len() < on_page {
            break;
        }
    }
    Ok(found)
}
