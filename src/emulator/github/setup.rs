//! Setting the scene. Whoever is named and does not exist yet is made: an unknown owner becomes an
//! organization, an unknown repository a private one. What changes something that must exist says
//! whether it did.

use bytes::Bytes;

use super::super::keys::{Alg, Lease, PublicKey};
use super::{
    Fault, GitHub, Options, Permissions, Placed, Selection, Visibility, files::Pull, state::State,
};
use crate::name::{AppId, InstallationId};

impl GitHub {
    /// Registers an App with one key: its id, and the key as PKCS#8 PEM.
    pub fn app(&self, slug: &str) -> (AppId, String) {
        let lease = Lease::take(Alg::Rs256);
        let (pem, public) = lease.pem_and_public();
        let mut state = self.shared.lock();
        let id = state.add_app(slug);
        if let Some(app) = state.apps.get_mut(&id) {
            app.keys.push(public);
        }
        state.leases.push(lease);
        (AppId(id), pem)
    }

    /// The App's client id, which may stand for its number in `iss`.
    pub fn client_id(&self, app: AppId) -> Option<String> {
        self.shared.lock().apps.get(&app.0).map(|app| app.client_id.clone())
    }

    /// Adds a key to an App: several are valid at once.
    pub fn add_key(&self, app: AppId, key: PublicKey) -> bool {
        self.on_app(app, |app| app.keys.push(key))
    }

    /// Subscribes an App's webhook to these events.
    pub fn subscribe(&self, app: AppId, events: &[&str]) -> bool {
        let events = events.iter().map(ToString::to_string).collect();
        self.on_app(app, |app| app.events = events)
    }

    /// Deletes an App's keys.
    pub fn remove_keys(&self, app: AppId) -> bool {
        self.on_app(app, |app| app.keys.clear())
    }

    fn on_app(&self, app: AppId, change: impl FnOnce(&mut super::state::App)) -> bool {
        let mut state = self.shared.lock();
        state.verified_jwt = None;
        state.apps.get_mut(&app.0).map(change).is_some()
    }

    /// An organization.
    pub fn org(&self, login: &str) {
        self.shared.lock().account_or_new(login, true);
    }

    /// A person.
    pub fn user(&self, login: &str) {
        self.shared.lock().account_or_new(login, false);
    }

    /// Renames an account.
    pub fn rename_account(&self, from: &str, to: &str) -> bool {
        self.shared.lock().rename_account(from, to)
    }

    /// A repository with a README on its default branch, `main`; its id.
    pub fn repo(&self, owner: &str, name: &str, visibility: Visibility) -> u64 {
        let id = self.empty_repo(owner, name, visibility);
        self.put_file(owner, name, "README.md", &format!("# {name}\n"));
        id
    }

    /// A repository without a commit; its id.
    pub fn empty_repo(&self, owner: &str, name: &str, visibility: Visibility) -> u64 {
        let mut state = self.shared.lock();
        let id = state.repository_or_new(owner, name);
        if let Some(repository) = state.repositories.get_mut(&id) {
            repository.private = visibility == Visibility::Private;
        }
        id
    }

    /// Commits a file to the default branch.
    pub fn put_file(&self, owner: &str, repo: &str, path: &str, text: &str) {
        self.place(owner, repo, path, Placed::File(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// Commits anything to the default branch.
    pub fn place(&self, owner: &str, repo: &str, path: &str, placed: Placed) {
        self.commit(owner, repo, None, (path, Some(placed)));
    }

    /// Commits anything to a branch.
    pub fn place_on(&self, owner: &str, repo: &str, branch: &str, (path, placed): (&str, Placed)) {
        self.commit(owner, repo, Some(branch), (path, Some(placed)));
    }

    /// Commits the removal of a file from the default branch.
    pub fn remove_file(&self, owner: &str, repo: &str, path: &str) {
        self.commit(owner, repo, None, (path, None));
    }

    fn commit(
        &self,
        owner: &str,
        repo: &str,
        branch: Option<&str>,
        (path, placed): (&str, Option<Placed>),
    ) {
        let mut state = self.shared.lock();
        let (id, now) = (state.repository_or_new(owner, repo), state.now());
        if let Some(repository) = state.repositories.get_mut(&id) {
            let branch = branch.map_or_else(|| repository.default_branch.clone(), str::to_owned);
            repository.commit(&branch, path, placed, now);
        }
    }

    /// Commits several changes to a branch, which begins at the default one if it is new: the
    /// commit's id. `None` removes a file.
    pub fn commit_files(
        &self,
        (owner, repo): (&str, &str),
        branch: &str,
        changes: &[(&str, Option<&str>)],
    ) -> String {
        let mut state = self.shared.lock();
        let (id, now) = (state.repository_or_new(owner, repo), state.now());
        let commit = state.repositories.get_mut(&id).map(|repository| {
            let branches = repository.branches();
            let parent = branches.get(branch).or_else(|| branches.get(&repository.default_branch));
            let parent = parent.cloned();
            repository.commit_on(branch, parent, placed(changes), now)
        });
        adopt_forks(&mut state);
        commit.unwrap_or_default()
    }

    /// Puts a branch at a new commit without an ancestor.
    pub fn orphan(
        &self,
        (owner, repo): (&str, &str),
        branch: &str,
        files: &[(&str, Option<&str>)],
    ) -> String {
        let mut state = self.shared.lock();
        let (id, now) = (state.repository_or_new(owner, repo), state.now());
        let repository = state.repositories.get_mut(&id);
        repository
            .map(|repository| repository.commit_on(branch, None, placed(files), now))
            .unwrap_or_default()
    }

    /// The commit at the head of a branch.
    pub fn head_of(&self, owner: &str, repo: &str, branch: &str) -> Option<String> {
        let state = self.shared.lock();
        let id = state.repository_id(owner, repo)?;
        state.repositories.get(&id)?.branches().get(branch).cloned()
    }

    /// Opens a pull request from a branch, of this repository or of a fork, into a branch: its
    /// number.
    pub fn open_pull(
        &self,
        (owner, repo): (&str, &str),
        head: (&str, &str, &str),
        base: &str,
    ) -> u64 {
        let mut state = self.shared.lock();
        let (id, now) = (state.repository_or_new(owner, repo), state.now());
        let fork = state.repository_or_new(head.0, head.1);
        let pull =
            Pull { head: (fork, head.2.into()), base: base.into(), draft: false, created_at: now };
        let number = state.repositories.get_mut(&id).map_or(0, |repository| {
            repository.pulls.push(pull);
            repository.pulls.len() as u64
        });
        adopt_forks(&mut state);
        number
    }

    /// Changes the base of a pull request.
    pub fn set_pull_base(&self, owner: &str, repo: &str, number: u64, base: &str) -> bool {
        let mut changed = false;
        self.on_repository(owner, repo, |repository| {
            let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            if let Some(pull) = at.and_then(|at| repository.pulls.get_mut(at)) {
                pull.base = base.into();
                changed = true;
            }
        });
        changed
    }

    /// Lets reads without a `ref` see the present state until [`GitHub::catch_up`], whatever is
    /// committed: GitHub may lag behind a push.
    pub fn lag_behind(&self, owner: &str, repo: &str) {
        let head = self.head_of(owner, repo, "main");
        self.on_repository(owner, repo, |repository| repository.show(head));
    }

    /// Ends what [`GitHub::lag_behind`] began.
    pub fn catch_up(&self, owner: &str, repo: &str) {
        self.on_repository(owner, repo, |repository| repository.show(None));
    }

    /// Makes a repository public or private.
    pub fn set_visibility(&self, owner: &str, repo: &str, visibility: Visibility) -> bool {
        self.on_repository(owner, repo, |found| found.private = visibility == Visibility::Private)
    }

    /// Makes another branch the default one.
    pub fn set_default_branch(&self, owner: &str, repo: &str, branch: &str) -> bool {
        self.on_repository(owner, repo, |found| found.default_branch = branch.into())
    }

    fn on_repository(
        &self,
        owner: &str,
        repo: &str,
        change: impl FnOnce(&mut super::files::Repository),
    ) -> bool {
        let mut state = self.shared.lock();
        let id = state.repository_id(owner, repo);
        id.and_then(|id| state.repositories.get_mut(&id)).map(change).is_some()
    }

    /// Renames a repository; its old name redirects until it is taken again.
    pub fn rename(&self, owner: &str, from: &str, to: &str) -> bool {
        self.shared.lock().move_repository((owner, from), (owner, to))
    }

    /// Transfers a repository to another owner; its old name redirects until it is taken again.
    pub fn transfer(&self, owner: &str, repo: &str, to: &str) -> bool {
        self.shared.lock().move_repository((owner, repo), (to, repo))
    }

    /// Deletes a repository.
    pub fn delete_repo(&self, owner: &str, repo: &str) -> bool {
        self.shared.lock().delete_repository(owner, repo)
    }

    /// Installs an App on an account, or changes its installation there. `metadata: read` is added.
    pub fn install(
        &self,
        app: AppId,
        owner: &str,
        selection: &Selection,
        permissions: &[(&str, &str)],
    ) -> InstallationId {
        InstallationId(self.shared.lock().install(
            app.0,
            owner,
            selection,
            permissions_of(permissions),
        ))
    }

    /// Suspends an installation.
    pub fn suspend(&self, installation: InstallationId) -> bool {
        self.on_installation(installation, |found, state_now| found.suspended_at = Some(state_now))
    }

    /// Ends a suspension.
    pub fn unsuspend(&self, installation: InstallationId) -> bool {
        self.on_installation(installation, |found, _| found.suspended_at = None)
    }

    /// Gives an installation other permissions.
    pub fn set_permissions(
        &self,
        installation: InstallationId,
        permissions: &[(&str, &str)],
    ) -> bool {
        let mut permissions = permissions_of(permissions);
        permissions.entry("metadata".into()).or_insert_with(|| "read".into());
        self.on_installation(installation, |found, _| found.permissions = permissions)
    }

    /// Changes which repositories an installation covers.
    pub fn select(&self, installation: InstallationId, selection: &Selection) -> bool {
        let mut state = self.shared.lock();
        let Some(account) = state.installations.get(&installation.0).map(|found| found.account)
        else {
            return false;
        };
        let owner = state.login(account).to_owned();
        let only = state.selected(&owner, selection);
        state.installations.get_mut(&installation.0).map(|found| found.only = only).is_some()
    }

    fn on_installation(
        &self,
        installation: InstallationId,
        change: impl FnOnce(&mut super::state::Installation, crate::clock::UnixTime),
    ) -> bool {
        let mut state = self.shared.lock();
        let now = state.now();
        let found = state.installations.get_mut(&installation.0);
        found
            .map(|found| {
                change(found, now);
                found.updated_at = now;
            })
            .is_some()
    }

    /// Removes an installation; its tokens end.
    pub fn uninstall(&self, installation: InstallationId) -> bool {
        self.shared.lock().uninstall(installation.0)
    }

    /// Gives an installation its own limit of requests an hour: GitHub grants more to larger
    /// organizations. Applies to the present hour too.
    pub fn set_hourly_limit(&self, installation: InstallationId, requests: u64) -> bool {
        let mut state = self.shared.lock();
        let found = state.installations.get_mut(&installation.0);
        found.map(|found| found.hourly_limit = Some(requests)).is_some()
    }

    /// Gives an App its own limit of mints a minute, without effect on the other Apps.
    pub fn set_mints_per_minute(&self, app: AppId, mints: u32) -> bool {
        self.on_app(app, |app| app.mints_per_minute = Some(mints))
    }

    /// Counts requests that were not made, so that a limit can be reached at once.
    pub fn spend_quota(&self, installation: InstallationId, requests: u64) -> bool {
        let mut state = self.shared.lock();
        let (now, limit) = (state.now(), state.options.hourly_limit);
        let found = state.installations.get_mut(&installation.0);
        found
            .map(|found| {
                // Starts the window if none runs.
                found.quota.rate_limit(now, limit);
                found.quota.spend(requests);
            })
            .is_some()
    }

    /// Changes settings; links in answers keep the root that the emulator was started with.
    pub fn set(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.shared.lock().options);
    }

    /// Puts a fault in place. Of several that apply to a request, the first one does.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// Removes all faults and lets stalled requests go on.
    pub fn heal(&self) {
        self.shared.lock().faults.clear();
    }

    /// Lets stalled requests go on, and ends the faults that stalled them.
    pub fn release(&self) {
        let state: &mut State = &mut self.shared.lock();
        state.faults.release();
    }
}

fn permissions_of(pairs: &[(&str, &str)]) -> Permissions {
    pairs.iter().map(|(name, level)| ((*name).to_owned(), (*level).to_owned())).collect()
}

fn placed(changes: &[(&str, Option<&str>)]) -> Vec<(String, Option<Placed>)> {
    let file = |text: &str| Placed::File(Bytes::copy_from_slice(text.as_bytes()));
    changes.iter().map(|(path, text)| ((*path).to_owned(), text.map(file))).collect()
}

/// Each repository knows the commits of the forks from which pull requests come.
fn adopt_forks(state: &mut State) {
    let pulls = state
        .repositories
        .values()
        .flat_map(|repository| repository.pulls.iter().map(|pull| (repository.id, pull.head.0)));
    for (id, fork) in pulls.filter(|(id, fork)| id != fork).collect::<Vec<_>>() {
        let Some(fork) = state.repositories.get(&fork).cloned() else { continue };
        if let Some(repository) = state.repositories.get_mut(&id) {
            repository.adopt(&fork);
        }
    }
}
