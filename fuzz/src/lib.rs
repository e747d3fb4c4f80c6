//! What the targets share: seeds from the product's own corpora, and a verifier that holds keys.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::{Arc, LazyLock},
};

use octo_sts::{
    clock::{Clock, ManualClock, UnixTime},
    egress::Egress,
    emulator::{Alg, Issuer, claims},
    oidc::{Oidc, PrivateNetworks, Settings, VerifiedToken},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Puts seeds into a target's corpus, each under a name made of its content.
pub fn seed(target: &str, seeds: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    for seed in seeds {
        let mut hasher = DefaultHasher::new();
        seed.as_ref().hash(&mut hasher);
        fs::write(folder.join(format!("seed-{:016x}", hasher.finish())), seed).unwrap();
    }
}

/// The cases of a file of `tests/corpus`.
pub fn cases(text: &str) -> Vec<Value> {
    serde_yaml::from_str(text).unwrap()
}

/// The lines of a YAML file, and one more for its end.
pub fn lines(file: &str) -> usize {
    file.split(['\r', '\n']).count() + 1
}

/// An issuer of tokens, and a verifier that holds its keys. The clock stands still, so they serve
/// for ever.
pub struct World {
    pub issuer: Issuer,
    pub cluster: Issuer,
    pub oidc: Oidc,
    pub now: UnixTime,
    /// Of a workflow and of a pod.
    pub tokens: [VerifiedToken; 2],
    _runtime: Runtime,
}

pub static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let now = UnixTime::from_secs(1_800_000_000);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(now));
    let (issuer, cluster, oidc, tokens) = runtime.block_on(async {
        let issuer = Issuer::start(Arc::clone(&clock)).await.unwrap();
        let cluster = issuer.at("/cluster");
        let settings = Settings {
            private_networks: PrivateNetworks::Known,
            configured: vec![cluster.url().parse().unwrap()],
            ..Settings::new(issuer.url().parse().unwrap())
        };
        let oidc = Oidc::new(settings, Egress::new(Default::default()).unwrap(), clock);
        let verify = async |issuer: &Issuer, mut claims: Value| {
            issuer.rotate(Alg::EdDsa);
            claims["aud"] = json!("sts.example.com");
            let token = oidc.read(&issuer.sign(&claims)).unwrap();
            oidc.verify(&token, &oidc.known(&token).unwrap().unwrap()).await.unwrap()
        };
        let tokens = [
            verify(&issuer, claims::github_actions("octo-org", "hello", "refs/heads/main")).await,
            verify(&cluster, claims::kubernetes("default", "robot")).await,
        ];
        (issuer, cluster, oidc, tokens)
    });
    World { issuer, cluster, oidc, now, tokens, _runtime: runtime }
});

impl World {
    /// Puts the issuers' addresses for the stand-ins of the corpora.
    pub fn fill(&self, text: &str) -> String {
        text.replace("${ACTIONS}", &self.issuer.url())
            .replace("${CLUSTER}", &self.cluster.url())
            .replace("${GITHUB_HOST}", "github.com")
    }
}
