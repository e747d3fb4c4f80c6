//! The signer is down: the App's JWT in hand serves for eight minutes, then callers are told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::future::BoxFuture;
use octo_sts::github::{PublicKey, Signer, SignerError, SignerSource};

use super::{once, pass, same, setup};
use crate::harness::{Setup, World};

/// A signer that can be switched off.
struct Switched {
    inner: Arc<dyn Signer>,
    down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Signer for Switched {
    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            return Box::pin(async { Err(SignerError::unavailable("the key service is down")) });
        }
        self.inner.sign(input)
    }

    fn public_key(&self) -> BoxFuture<'_, Result<Option<PublicKey>, SignerError>> {
        self.inner.public_key()
    }
}

async fn world(setup: Setup) -> (World, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (down, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut setup = setup;
    let app = setup.settings.github.pools.apps_mut().next().unwrap();
    let SignerSource::Ready(inner) = app.signer.clone() else { panic!("the key is not held here") };
    app.signer = SignerSource::Ready(Arc::new(Switched {
        inner,
        down: Arc::clone(&down),
        asked: Arc::clone(&asked),
    }));
    (setup.start().await, down, asked)
}

#[tokio::test]
async fn the_jwt_in_hand_serves_for_eight_minutes() {
    let (world, down, asked) = world(setup().await).await;
    same(&once(&world).await, super::GRANTED);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "signed once, at the start");
    down.store(true, Ordering::Relaxed);
    for seconds in [240, 239] {
        pass(&world, seconds);
        same(&once(&world).await, super::GRANTED);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    pass(&world, 1);
    let outcome = world.usual().await;
    assert_eq!((outcome.rest.code, outcome.reason()), (14, "SIGNER_UNAVAILABLE"));
    assert!(!outcome.rest.message.contains("key service"), "{}", outcome.rest.message);
    down.store(false, Ordering::Relaxed);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn unverified_callers_hear_of_it_alike_whatever_exists() {
    let setup = setup().await;
    let stranger = setup.issuer.at("/tenant");
    let policy =
        format!("issuer: {}\nsubject: s\npermissions: {{contents: read}}\n", stranger.url());
    setup.github.put_file("octo-org", "hello", ".github/chainguard/theirs.sts.yaml", &policy);
    let (world, down, _) = world(setup).await;
    same(&once(&world).await, super::GRANTED);
    down.store(true, Ordering::Relaxed);
    pass(&world, 480);
    let forged = world
        .issuer
        .at("/unpublished")
        .sign(&serde_json::json!({"sub": "s", "aud": "sts.example.com"}));
    for scope in ["octo-org/hello", "octo-org/none", "nobody/none"] {
        let outcome = world.exchange(scope, "theirs", &forged).await;
        assert_eq!((outcome.rest.code, outcome.reason()), (14, "SIGNER_UNAVAILABLE"), "{scope}");
    }
}
