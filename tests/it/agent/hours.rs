//! Hundreds of hours, injected: the clock goes from one thing that the agent has to do to the next.

use std::{fs, sync::Arc, time::Duration};

use octo_sts::{
    agent::{Agent, FileError, Parts, Phase, Settings, Status, Token, Watch},
    client::{
        Client, Server, Target,
        ambient::{Options, Source},
    },
    clock::{Clock, Moment, UnixTime},
    config::Environment,
    egress::{self, Egress},
    emulator::Fault,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::scene::{Impostor, Reader, Scene};
use crate::harness::{DOMAIN, POLICY};

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// An agent in this process.
struct Running {
    watch: Watch,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(scene: &Scene) -> Self {
        Self::of(agent(scene, &["token"], false).unwrap())
    }

    fn of(agent: Agent) -> Self {
        let (watch, stop) = (agent.watch(), CancellationToken::new());
        Self { watch, task: tokio::spawn(agent.run(stop.clone())), stop }
    }

    fn status(&self) -> Status {
        self.watch.statuses()[0]
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// An agent with a file of each of these names in the scene's folder.
fn agent(scene: &Scene, outs: &[&str], keep_on_exit: bool) -> Result<Agent, FileError> {
    agent_by(Arc::new(scene.clock.clone()), scene, outs, keep_on_exit)
}

fn agent_by(
    clock: Arc<dyn Clock>,
    scene: &Scene,
    outs: &[&str],
    keep_on_exit: bool,
) -> Result<Agent, FileError> {
    let egress = Egress::new(egress::Settings::default()).unwrap();
    let server = Server::parse(&format!("http://{}", scene.address)).unwrap();
    let options = Options { token_file: Some(scene.id_file()), ..Options::default() };
    let source = Source::find(&Environment::default(), &options).unwrap();
    let token = |out: &&str| Token {
        target: Target::new("octo-org/hello".parse().unwrap(), "ci".parse().unwrap()),
        out: scene.folder.join(out),
        mode: "600".parse().unwrap(),
        source: source.clone(),
        audience: DOMAIN.to_owned(),
        on_renewal: None,
    };
    let github = scene.github.url().parse().unwrap();
    let settings = Settings { github, keep_on_exit, tokens: outs.iter().map(token).collect() };
    let client = Client::new(server, &egress, Arc::clone(&clock));
    Agent::new(settings, Parts { client, egress, clock })
}

/// Waits until the agent has done all that is due. While it waits for somebody, time goes on, but
/// no further than to the end of a file: that is for the agent to see to first.
async fn settle(scene: &Scene, running: &Running) -> UnixTime {
    for spin in 1..30_000 {
        let now = scene.clock.now();
        let statuses = running.watch.statuses();
        let waits = statuses.iter().map(|status| match status.phase {
            // Not before it has had the look that was due meanwhile.
            Phase::Waiting { until, looks_at } if looks_at > now => Some(until),
            Phase::Waiting { .. } | Phase::Busy | Phase::Ended => None,
        });
        if let Some(waits) = waits.collect::<Option<Vec<_>>>() {
            return waits.into_iter().min().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if spin % 4 == 0 {
            // Where nobody answers, all there is to wait for is the agent's own patience.
            let most =
                if scene.is_up() { Duration::from_millis(100) } else { Duration::from_secs(5) };
            let ends = statuses.iter().filter_map(|status| status.file_ends_at).min();
            scene.pass_by(most.min(ends.map_or(most, |ends| ends.since(now))));
        }
    }
    panic!("the agent never comes to rest: {:?}", running.status());
}

/// Moves on to the next thing that the agent has to do, or to `end`.
async fn step(scene: &Scene, running: &Running, end: UnixTime) {
    let next = settle(scene, running).await.min(end);
    let now = scene.clock.now();
    scene.clock.advance(next.since(now));
}

/// A file is there if any token that it could hold lives long enough to be used.
#[track_caller]
fn check(scene: &Scene) {
    if scene.held().is_none() {
        let soon = scene.clock.now().plus(Duration::from_secs(12));
        let usable: Vec<_> =
            scene.alive().into_iter().filter(|token| token.expires_at > soon).collect();
        assert!(usable.is_empty(), "no file, and yet {usable:?}");
    }
}

/// Lets `duration` pass and holds the file against GitHub at each step. The identity rotates if it
/// is to.
async fn pass(scene: &Scene, running: &Running, duration: Duration, rotates: bool) {
    let end = scene.clock.now().plus(duration);
    let mut rotated = UnixTime::from_secs(0);
    while scene.clock.now() < end {
        if rotates && scene.clock.now().since(rotated) >= minutes(6) {
            scene.show_identity();
            rotated = scene.clock.now();
        }
        step(scene, running, end.min(scene.clock.now().plus(minutes(5)))).await;
        settle(scene, running).await;
        check(scene);
    }
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Refused,
    Unavailable,
    Limited,
    Silent,
    GitHubDown,
    PolicyGone,
    PolicyOther,
    IdentityStale,
    IdentityGone,
    Unwritable,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::Refused,
    Trouble::Unavailable,
    Trouble::Limited,
    Trouble::Silent,
    Trouble::GitHubDown,
    Trouble::PolicyGone,
    Trouble::PolicyOther,
    Trouble::IdentityStale,
    Trouble::IdentityGone,
    Trouble::Unwritable,
];

const UNAVAILABLE: &str =
    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 3\r\n\r\n";
const LIMITED: &str =
    "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 200\r\n\r\n";

impl Trouble {
    /// Makes trouble; what plays the server meanwhile, if anything does.
    async fn begin(self, scene: &mut Scene) -> Option<Impostor> {
        match self {
            Self::Refused | Self::Unavailable | Self::Limited | Self::Silent => scene.down().await,
            Self::GitHubDown => {
                scene.github.fault(Fault::anything().status(503).header("retry-after", "5"))
            }
            Self::PolicyGone => {
                scene.github.remove_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml")
            }
            Self::PolicyOther => scene.policy(&POLICY.replace("heads/main", "heads/other")),
            Self::IdentityStale => {}
            Self::IdentityGone => fs::remove_file(scene.id_file()).unwrap(),
            Self::Unwritable => {
                fs::rename(&scene.folder, scene.folder.with_extension("away")).unwrap()
            }
        }
        match self {
            Self::Unavailable => Some(Impostor::start(scene.listen().await, UNAVAILABLE)),
            Self::Limited => Some(Impostor::start(scene.listen().await, LIMITED)),
            Self::Silent => Some(Impostor::start(scene.listen().await, "")),
            Self::Refused
            | Self::GitHubDown
            | Self::PolicyGone
            | Self::PolicyOther
            | Self::IdentityStale
            | Self::IdentityGone
            | Self::Unwritable => None,
        }
    }

    /// Mends it.
    async fn end(self, scene: &mut Scene) {
        match self {
            Self::Refused | Self::Unavailable | Self::Limited | Self::Silent => scene.up().await,
            Self::GitHubDown => scene.github.heal(),
            Self::PolicyGone | Self::PolicyOther => scene.policy(POLICY),
            // What stood in it is gone, as with another volume.
            Self::Unwritable => {
                fs::remove_dir_all(scene.folder.with_extension("away")).unwrap();
                fs::create_dir(&scene.folder).unwrap();
            }
            Self::IdentityStale | Self::IdentityGone => {}
        }
        scene.show_identity();
    }

    /// The longest pause between two attempts meanwhile, and the shortest once it lasts.
    fn pauses(self) -> (Duration, Duration) {
        match self {
            Self::PolicyGone | Self::PolicyOther | Self::IdentityStale => {
                (minutes(5), Duration::from_secs(150))
            }
            Self::Limited => (Duration::from_secs(220), Duration::from_secs(200)),
            // Each attempt lasts until it is given up.
            Self::Silent => (minutes(2), Duration::from_secs(80)),
            Self::Refused
            | Self::Unavailable
            | Self::GitHubDown
            | Self::IdentityGone
            | Self::Unwritable => (minutes(1), Duration::from_secs(30)),
        }
    }

    fn leaves_the_file(self) -> bool {
        self != Self::Unwritable
    }
}

/// One kind of trouble for `duration`; then the agent recovers within the pause that it is in.
async fn suffer(scene: &mut Scene, running: &Running, trouble: Trouble, duration: Duration) {
    let (longest, shortest) = trouble.pauses();
    let rotates = !matches!(trouble, Trouble::IdentityStale | Trouble::IdentityGone);
    let before = (scene.issued().len(), running.status().failures);
    assert_eq!(before.1, 0, "{trouble:?}");
    let impostor = trouble.begin(scene).await;
    if trouble.leaves_the_file() {
        pass(scene, running, duration, rotates).await;
    } else {
        let end = scene.clock.now().plus(duration);
        while scene.clock.now() < end {
            step(scene, running, end).await;
        }
        settle(scene, running).await;
    }
    // The first pauses are shorter: they double.
    let most = duration.as_secs() / shortest.as_secs() + 8;
    let failures = u64::from(running.status().failures);
    assert!(failures <= most, "{trouble:?}: {failures} failures in {duration:?}");
    let issued = scene.issued().len() - before.0;
    let renewals = usize::try_from(duration.as_secs() / (36 * 60)).unwrap() + 1;
    assert!(issued <= renewals, "{trouble:?}: {issued} tokens in {duration:?}");
    if let Some(impostor) = impostor {
        assert!(impostor.requests() <= 3 * usize::try_from(failures).unwrap() + 3, "{trouble:?}");
    }
    if duration > minutes(70) {
        assert!(failures > 5, "{trouble:?}: {failures}");
        assert!(!trouble.leaves_the_file() || scene.held().is_none(), "{trouble:?}");
        assert!(!running.watch.is_ready(), "{trouble:?}");
    }
    trouble.end(scene).await;
    let (mended, passed_by) = (scene.clock.now(), scene.passed_by());
    while running.status().failures > 0 || !running.watch.is_ready() {
        step(scene, running, scene.clock.now().plus(Duration::from_secs(10))).await;
        settle(scene, running).await;
        // What answers on a busy machine take is no pause of the agent's.
        let took = scene.clock.now().since(mended).saturating_sub(scene.passed_by() - passed_by);
        assert!(took <= longest + Duration::from_secs(10), "{trouble:?}: not back after {took:?}");
    }
    check(scene);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_hundreds_of_hours_the_file_holds_a_living_token_unless_none_can_be_had() {
    let mut scene = Scene::new("hours").await;
    let reader = Reader::start(&scene);
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    assert!(scene.held().is_some() && running.watch.is_ready());
    let start = scene.clock.now();
    for (round, duration) in [minutes(25), minutes(100)].into_iter().enumerate() {
        for trouble in TROUBLES {
            let before = scene.issued().len();
            pass(&scene, &running, minutes(14 * 60), true).await;
            let renewals = scene.issued().len() - before;
            // At 36 to 40 minutes each.
            assert!((20..=24).contains(&renewals), "{renewals} in a quiet round {round}");
            assert!(scene.held().is_some());
            suffer(&mut scene, &running, trouble, duration).await;
        }
    }
    let hours = scene.clock.now().since(start).as_secs() / 3600;
    assert!(hours >= 300, "{hours}");
    running.end().await;
    assert!(scene.held().is_none() && scene.alive().is_empty());
    assert!(reader.stop() > 300);
    assert_eq!(scene.github.unknown_requests(), [""; 0]);
}

/// What a killed agent leaves: nothing of it runs any more.
async fn kill(running: Running) {
    running.task.abort();
    running.task.await.unwrap_err();
}

#[tokio::test]
async fn an_agent_that_is_killed_finds_its_file_again_and_keeps_it_only_while_its_token_lives() {
    let mut scene = Scene::new("found").await;
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    let first = scene.held().unwrap();
    kill(running).await;
    scene.down().await;

    scene.clock.advance(minutes(30));
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    assert_eq!(scene.held(), Some(first.clone()));
    assert!(running.watch.is_ready());
    pass(&scene, &running, minutes(31), true).await;
    assert_eq!(scene.held(), None);
    assert!(!running.watch.is_ready());
    kill(running).await;

    // It ended while no agent ran: the next one removes it at once, server or no server.
    scene.up().await;
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    assert!(scene.held().is_some_and(|held| held != first));
    kill(running).await;
    scene.down().await;
    scene.clock.advance(minutes(61));
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    assert_eq!(scene.held(), None);
    running.end().await;
}

#[tokio::test]
async fn a_stop_revokes_what_an_earlier_run_left_too() {
    let scene = Scene::new("left").await;
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    kill(running).await;
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    assert_eq!(scene.alive().len(), 2);
    running.end().await;
    assert!(scene.alive().is_empty() && scene.held().is_none());
}

#[tokio::test]
async fn what_is_to_be_kept_stays() {
    let scene = Scene::new("kept").await;
    let running = Running::of(agent(&scene, &["token"], true).unwrap());
    settle(&scene, &running).await;
    running.end().await;
    assert!(scene.held().is_some());
    assert_eq!(scene.alive().len(), 1);
}

#[tokio::test]
async fn a_file_that_somebody_removes_is_back_within_half_a_minute() {
    let scene = Scene::new("removed").await;
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    let held = scene.held();
    fs::remove_file(scene.out()).unwrap();
    assert!(!running.watch.is_ready());
    scene.clock.advance(Duration::from_secs(30));
    super::scene::until("the file is back", || running.watch.is_ready()).await;
    assert_eq!((scene.held(), scene.issued().len()), (held, 1));
    running.end().await;
}

/// A machine's clock: what it shows can be set, what it waits for is not moved by that.
struct Settable {
    true_time: octo_sts::clock::ManualClock,
    behind: std::sync::atomic::AtomicU64,
}

impl Clock for Settable {
    fn now(&self) -> UnixTime {
        self.true_time
            .now()
            .minus(Duration::from_secs(self.behind.load(std::sync::atomic::Ordering::SeqCst)))
    }

    fn monotonic(&self) -> Moment {
        self.true_time.monotonic()
    }

    fn sleep(&self, duration: Duration) -> futures_util::future::BoxFuture<'static, ()> {
        self.true_time.sleep(duration)
    }
}

#[tokio::test]
async fn a_clock_that_goes_back_does_not_let_a_token_end() {
    let scene = Scene::new("back").await;
    let clock = Arc::new(Settable { true_time: scene.clock.clone(), behind: 0.into() });
    let running = Running::of(agent_by(clock.clone(), &scene, &["token"], false).unwrap());
    super::scene::until("there is a token", || running.watch.is_ready()).await;
    clock.behind.store(3 * 3600, std::sync::atomic::Ordering::SeqCst);
    scene.clock.advance(Duration::from_secs(30));
    super::scene::until("there is another", || scene.issued().len() == 2).await;
    super::scene::until("it is in the file", || running.watch.is_ready()).await;
    running.end().await;
}

#[tokio::test]
async fn each_file_has_its_own_token_and_its_own_time() {
    let scene = Scene::new("several").await;
    let running = Running::of(agent(&scene, &["token", "b", "c"], false).unwrap());
    settle(&scene, &running).await;
    assert_eq!(scene.issued().len(), 3);
    let statuses = running.watch.statuses();
    let until: std::collections::BTreeSet<_> =
        statuses.iter().map(|status| format!("{:?}", status.phase)).collect();
    assert_eq!(until.len(), 3, "no two are renewed at once: {until:?}");
    // One folder in the way of one file is that one's trouble alone.
    fs::remove_file(scene.folder.join("b")).unwrap();
    fs::create_dir_all(scene.folder.join("b/in the way")).unwrap();
    pass(&scene, &running, minutes(45), true).await;
    let failures: Vec<_> =
        running.watch.statuses().iter().map(|status| status.failures > 0).collect();
    assert_eq!(failures, [false, true, false]);
    assert_eq!(
        scene.issued().len(),
        6,
        "what cannot be written is held, and no other is asked for"
    );
    assert!(!running.watch.is_ready());
    fs::remove_dir_all(scene.folder.join("b")).unwrap();
    pass(&scene, &running, minutes(1), true).await;
    assert!(running.watch.is_ready());
    running.end().await;
    assert!(scene.alive().is_empty());
}

#[tokio::test]
async fn a_token_that_came_dead_is_given_back_and_not_asked_for_in_a_hurry() {
    let scene = Scene::new("dead").await;
    // The server's answers reach a machine whose clock is three hours ahead of GitHub's.
    let behind = scene.github.clone();
    behind.fault(Fault::on(octo_sts::emulator::RouteKind::Mint).lie(octo_sts::emulator::Lie::Set(
        "/expires_at".into(),
        serde_json::json!("2020-01-01T00:00:00Z"),
    )));
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    pass(&scene, &running, minutes(20), true).await;
    assert!(scene.held().is_none());
    let issued = scene.issued();
    assert!(issued.len() <= 10, "{}", issued.len());
    assert!(issued.iter().all(|token| token.revoked));
    scene.github.heal();
    pass(&scene, &running, minutes(6), true).await;
    assert!(scene.held().is_some());
    running.end().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_removed_is_tried_again_at_leisure() {
    let mut scene = Scene::new("stuck").await;
    let running = Running::start(&scene);
    settle(&scene, &running).await;
    scene.down().await;
    // A folder at its path is no file to remove.
    fs::remove_file(scene.out()).unwrap();
    fs::create_dir_all(scene.out().join("in the way")).unwrap();
    scene.clock.advance(minutes(61));
    super::scene::until("it rests between two tries", || {
        scene.pass_by(Duration::from_millis(100));
        let now = scene.clock.now();
        running.status().failures > 2
            && matches!(running.status().phase, Phase::Waiting { until, .. } if until > now)
    })
    .await;
    assert!(!running.watch.is_ready());
    fs::remove_dir_all(scene.out()).unwrap();
    scene.up().await;
    pass(&scene, &running, minutes(2), true).await;
    assert!(scene.held().is_some());
    running.end().await;
}
