//! What the emulated GitHub knows: Apps, accounts, repositories, installations and tokens.
//!
//! Names compare without ASCII case. Identifiers come from separate ranges, so that an
//! id of one kind never exists as an id of another kind.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use super::super::keys::{Lease, PublicKey, sha256};
use super::{
    deliveries::{Attempt, Hook},
    faults::Faults,
    files::Repository,
    limits::{Quota, Window},
    options::Options,
    record::Record,
};
use crate::clock::{Clock, UnixTime};

/// Permission name to level (`read`, `write`, `admin`).
pub type Permissions = BTreeMap<String, String>;

/// Maximum number of tokens in the state; beyond it the oldest stop working.
const MAX_TOKENS: usize = 50_000;

/// Who can see a repository without being invited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everyone.
    Public,
    /// Only who has access.
    Private,
}

/// Which of the account's repositories an installation covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All, also later ones.
    All,
    /// Those named, without owner.
    Only(Vec<String>),
}

/// One App.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) id: u64,
    pub(super) slug: String,
    pub(super) client_id: String,
    pub(super) owner: u64,
    pub(super) permissions: Permissions,
    pub(super) keys: Vec<PublicKey>,
    pub(super) mints: Window,
    /// Mints a minute; `None`: as the options say.
    pub(super) mints_per_minute: Option<u32>,
    /// The events that its webhook gets.
    pub(super) events: Vec<String>,
    pub(super) created_at: UnixTime,
}

/// An organization or a person.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) id: u64,
    pub(super) login: String,
    pub(super) is_org: bool,
}

/// One App on one account.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    pub(super) id: u64,
    pub(super) app: u64,
    pub(super) account: u64,
    /// `None` covers all repositories.
    pub(super) only: Option<BTreeSet<u64>>,
    pub(super) permissions: Permissions,
    pub(super) suspended_at: Option<UnixTime>,
    pub(super) created_at: UnixTime,
    pub(super) updated_at: UnixTime,
    pub(super) quota: Quota,
    /// Requests an hour; `None`: as the options say.
    pub(super) hourly_limit: Option<u64>,
}

/// A minted token. The token itself is not kept, only its digest as the key.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) app: u64,
    pub(super) installation: u64,
    /// The request's body; null if it was empty.
    pub(super) body: Value,
    pub(super) permissions: Permissions,
    /// `None`: all that the installation covers.
    pub(super) repositories: Option<Vec<u64>>,
    pub(super) minted_at: UnixTime,
    pub(super) expires_at: UnixTime,
    pub(super) revoked: bool,
    /// How many requests came with it so far: the replication delay may count them.
    pub(super) uses: u32,
}

/// An App's JWT whose signature was checked. Only the last one is kept: clients use one for minutes.
#[derive(Debug, Clone)]
pub(super) struct VerifiedJwt {
    pub(super) jwt: String,
    pub(super) app: u64,
    pub(super) claims: Value,
}

/// The SHA-256 of a token.
pub(super) type TokenKey = [u8; 32];

/// Everything.
pub(super) struct State {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    /// `http://127.0.0.1:PORT`, with `/api/v3` in Enterprise Server mode.
    pub(super) api: String,
    pub(super) apps: BTreeMap<u64, App>,
    pub(super) accounts: BTreeMap<u64, Account>,
    logins: HashMap<String, u64>,
    pub(super) repositories: BTreeMap<u64, Repository>,
    names: HashMap<(u64, String), u64>,
    /// Former `owner/name` in lowercase.
    pub(super) moved: HashMap<String, u64>,
    pub(super) installations: BTreeMap<u64, Installation>,
    by_account: HashMap<(u64, u64), u64>,
    pub(super) tokens: HashMap<TokenKey, Token>,
    token_order: VecDeque<TokenKey>,
    pub(super) anonymous: Quota,
    pub(super) verified_jwt: Option<VerifiedJwt>,
    pub(super) hooks: Vec<Hook>,
    /// What was delivered, oldest first.
    pub(super) attempts: Vec<Attempt>,
    /// Deliveries to send again.
    pub(super) to_send: Vec<u64>,
    pub(super) faults: Faults,
    pub(super) record: Record,
    /// The Apps' private keys: no other App in the process has the same.
    pub(super) leases: Vec<Lease>,
    next: u64,
}

impl State {
    pub(super) fn new(clock: Arc<dyn Clock>, options: Options, root: &str) -> Self {
        let api = format!("{root}{}", options.base_path());
        Self {
            clock,
            options,
            api,
            apps: BTreeMap::new(),
            accounts: BTreeMap::new(),
            logins: HashMap::new(),
            repositories: BTreeMap::new(),
            names: HashMap::new(),
            moved: HashMap::new(),
            installations: BTreeMap::new(),
            by_account: HashMap::new(),
            tokens: HashMap::new(),
            token_order: VecDeque::new(),
            anonymous: Quota::default(),
            verified_jwt: None,
            hooks: Vec::new(),
            attempts: Vec::new(),
            to_send: Vec::new(),
            faults: Faults::default(),
            record: Record::default(),
            leases: Vec::new(),
            next: 0,
        }
    }

    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn fresh(&mut self, range: u64) -> u64 {
        self.next += 1;
        range + self.next
    }

    pub(super) fn add_app(&mut self, slug: &str) -> u64 {
        let owner = self.account_or_new("app-owner", true);
        let (id, created_at) = (self.fresh(300_000), self.now());
        let client_id =
            format!("Iv23li{}", hex::encode(sha256(slug.as_bytes())).get(..14).unwrap_or_default());
        let app = App {
            id,
            slug: slug.into(),
            client_id,
            owner,
            permissions: Permissions::from([("metadata".into(), "read".into())]),
            keys: Vec::new(),
            mints: Window::default(),
            mints_per_minute: None,
            events: Vec::new(),
            created_at,
        };
        self.apps.insert(id, app);
        id
    }

    pub(super) fn account(&self, login: &str) -> Option<&Account> {
        self.accounts.get(self.logins.get(&login.to_ascii_lowercase())?)
    }

    pub(super) fn account_or_new(&mut self, login: &str, is_org: bool) -> u64 {
        if let Some(account) = self.account(login) {
            return account.id;
        }
        let id = self.fresh(5_000_000);
        self.logins.insert(login.to_ascii_lowercase(), id);
        self.accounts.insert(id, Account { id, login: login.into(), is_org });
        id
    }

    /// Renames an account; API paths with the old login lead to its repositories by redirect.
    pub(super) fn rename_account(&mut self, from: &str, to: &str) -> bool {
        let Some(id) = self.account(from).map(|account| account.id) else { return false };
        if self.account(to).is_some_and(|other| other.id != id) {
            return false;
        }
        for repository in self.repositories.values().filter(|repository| repository.owner == id) {
            self.moved.insert(full_name(from, &repository.name), repository.id);
        }
        self.logins.remove(&from.to_ascii_lowercase());
        self.logins.insert(to.to_ascii_lowercase(), id);
        if let Some(account) = self.accounts.get_mut(&id) {
            account.login = to.into();
        }
        true
    }

    pub(super) fn repository_id(&self, owner: &str, name: &str) -> Option<u64> {
        let owner = self.account(owner)?.id;
        self.names.get(&(owner, name.to_ascii_lowercase())).copied()
    }

    /// The repository, made if there is none of that name: private, in an organization.
    pub(super) fn repository_or_new(&mut self, owner: &str, name: &str) -> u64 {
        if let Some(id) = self.repository_id(owner, name) {
            return id;
        }
        let owner_id = self.account_or_new(owner, true);
        let (id, now) = (self.fresh(600_000_000), self.now());
        self.names.insert((owner_id, name.to_ascii_lowercase()), id);
        self.repositories.insert(id, Repository::new(id, owner_id, name, now));
        // Whoever takes over an old name answers under it: the redirect is gone.
        self.moved.remove(&full_name(owner, name));
        id
    }

    /// Renames or transfers; the old name redirects until it is taken again.
    pub(super) fn move_repository(&mut self, from: (&str, &str), to: (&str, &str)) -> bool {
        let Some(id) = self.repository_id(from.0, from.1) else { return false };
        if self.repository_id(to.0, to.1).is_some_and(|other| other != id) {
            return false;
        }
        let owner = self.account_or_new(to.0, true);
        let Some(repository) = self.repositories.get_mut(&id) else { return false };
        self.names.remove(&(repository.owner, repository.name.to_ascii_lowercase()));
        self.names.insert((owner, to.1.to_ascii_lowercase()), id);
        repository.owner = owner;
        repository.name = to.1.into();
        self.moved.insert(full_name(from.0, from.1), id);
        self.moved.remove(&full_name(to.0, to.1));
        true
    }

    pub(super) fn delete_repository(&mut self, owner: &str, name: &str) -> bool {
        let Some(id) = self.repository_id(owner, name) else { return false };
        self.names.retain(|_, repository| *repository != id);
        self.moved.retain(|_, repository| *repository != id);
        for installation in self.installations.values_mut() {
            if let Some(only) = &mut installation.only {
                only.remove(&id);
            }
        }
        self.repositories.remove(&id).is_some()
    }

    /// Installs, or changes the installation that is there.
    pub(super) fn install(
        &mut self,
        app: u64,
        owner: &str,
        selection: &Selection,
        mut permissions: Permissions,
    ) -> u64 {
        let (account, now) = (self.account_or_new(owner, true), self.now());
        // GitHub adds this one to every App.
        permissions.entry("metadata".into()).or_insert_with(|| "read".into());
        if let Some(app) = self.apps.get_mut(&app) {
            app.permissions.extend(permissions.clone());
        }
        let only = self.selected(owner, selection);
        let id = match self.by_account.get(&(app, account)) {
            Some(id) => *id,
            None => self.fresh(70_000_000),
        };
        self.by_account.insert((app, account), id);
        let installation = Installation {
            id,
            app,
            account,
            only,
            permissions,
            suspended_at: None,
            created_at: now,
            updated_at: now,
            quota: Quota::default(),
            hourly_limit: self.installations.get(&id).and_then(|found| found.hourly_limit),
        };
        self.installations.insert(id, installation);
        id
    }

    pub(super) fn selected(&mut self, owner: &str, selection: &Selection) -> Option<BTreeSet<u64>> {
        match selection {
            Selection::All => None,
            Selection::Only(names) => {
                Some(names.iter().map(|name| self.repository_or_new(owner, name)).collect())
            }
        }
    }

    pub(super) fn uninstall(&mut self, id: u64) -> bool {
        self.by_account.retain(|_, installation| *installation != id);
        self.installations.remove(&id).is_some()
    }

    pub(super) fn installation_of(&self, app: u64, account: u64) -> Option<&Installation> {
        self.installations.get(self.by_account.get(&(app, account))?)
    }

    /// The repositories that an installation covers, oldest first.
    pub(super) fn covered<'a>(
        &'a self,
        installation: &'a Installation,
    ) -> impl Iterator<Item = &'a Repository> {
        self.repositories.values().filter(|repository| installation.covers(repository))
    }

    pub(super) fn remember_token(&mut self, key: TokenKey, token: Token) {
        self.tokens.insert(key, token);
        self.token_order.push_back(key);
        if self.token_order.len() > MAX_TOKENS
            && let Some(oldest) = self.token_order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
    }

    /// All remembered tokens with their digests, oldest first.
    pub(super) fn tokens_in_order(&self) -> impl Iterator<Item = (&TokenKey, &Token)> {
        self.token_order.iter().filter_map(|key| self.tokens.get_key_value(key))
    }

    pub(super) fn login(&self, account: u64) -> &str {
        self.accounts.get(&account).map_or("ghost", |account| &account.login)
    }
}

impl Installation {
    pub(super) fn covers(&self, repository: &Repository) -> bool {
        repository.owner == self.account
            && self.only.as_ref().is_none_or(|only| only.contains(&repository.id))
    }
}

pub(super) fn full_name(owner: &str, name: &str) -> String {
    format!("{owner}/{name}").to_ascii_lowercase()
}

/// The digest under which a token is kept.
pub(super) fn token_key(token: &str) -> TokenKey {
    let mut key = TokenKey::default();
    for (to, from) in key.iter_mut().zip(sha256(token.as_bytes()).as_ref()) {
        *to = *from;
    }
    key
}

/// The level's rank; `None` if it is not a level.
pub(super) fn rank(level: &str) -> Option<u8> {
    match level {
        "read" => Some(1),
        "write" => Some(2),
        "admin" => Some(3),
        _ => None,
    }
}

/// Whether `held` is at least `wanted`.
pub(super) fn allows(permissions: &Permissions, name: &str, wanted: &str) -> bool {
    let held = permissions.get(name).and_then(|level| rank(level));
    rank(wanted).is_some_and(|wanted| held.is_some_and(|held| held >= wanted))
}
