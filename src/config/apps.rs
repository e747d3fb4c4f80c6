//! The Apps, and which owners each one serves: from three variables, or from a file.
//!
//! Every way ends as [`Apps`]. A key is read and checked here, so that a wrong one is reported at
//! startup and not by the first exchange.

mod file;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path, sync::Arc};

pub use file::AppsFile;

use super::{
    AppKey,
    reader::Reader,
    value,
    variables::{self as var, Variable},
};
use crate::{
    github::{AppSettings, KmsKey, Pools},
    name::{AppId, AppName, Owner},
    yaml::Errors,
};

/// One App.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfiguredApp {
    /// Its id.
    pub id: AppId,
    /// The name by which policies pin it.
    pub name: Option<AppName>,
    /// Its private key.
    pub key: AppKey,
}

/// The Apps of all owners.
#[derive(Clone, Default, PartialEq)]
pub struct Apps {
    listed: Vec<(Owner, Vec<ConfiguredApp>)>,
    others: Vec<ConfiguredApp>,
    file: Option<Arc<AppsFile>>,
}

impl fmt::Debug for Apps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apps")
            .field("listed", &self.listed)
            .field("others", &self.others)
            .finish_non_exhaustive()
    }
}

impl Apps {
    /// The same Apps for every owner.
    pub fn for_every_owner(apps: Vec<ConfiguredApp>) -> Self {
        Self { others: apps, ..Self::default() }
    }

    /// Every App, those of the pool for all other owners last.
    pub fn iter(&self) -> impl Iterator<Item = &ConfiguredApp> {
        self.listed.iter().flat_map(|(_, apps)| apps).chain(&self.others)
    }

    /// The same Apps, as read from this file.
    #[must_use]
    pub fn of(self, file: Arc<AppsFile>) -> Self {
        Self { file: Some(file), ..self }
    }

    /// The file that they are from.
    pub fn file(&self) -> Option<&Arc<AppsFile>> {
        self.file.as_ref()
    }

    /// The pools that they make. Where `before` has an App with the same key, its signer is kept.
    pub fn pools(&self, before: &Self) -> Pools {
        let settings = |app: &ConfiguredApp| {
            let known = before.iter().find(|known| known.id == app.id && known.key == app.key);
            let signer = known.unwrap_or(app).key.signer();
            AppSettings { id: app.id, name: app.name.clone(), signer }
        };
        let all = |apps: &[ConfiguredApp]| apps.iter().map(settings).collect();
        let listed = self.listed.iter();
        listed.fold(Pools::for_every_owner(all(&self.others)), |pools, (owner, apps)| {
            pools.with_owner(owner.clone(), all(apps))
        })
    }

    /// The same Apps with the signers of `before` where the key is the same: what the next reading
    /// of the file is compared with.
    #[must_use]
    pub fn with_signers_of(mut self, before: &Self) -> Self {
        let listed = self.listed.iter_mut().flat_map(|(_, apps)| apps);
        for app in listed.chain(&mut self.others) {
            let known = before.iter().find(|known| known.id == app.id && known.key == app.key);
            if let Some(known) = known {
                app.key = known.key.clone();
            }
        }
        self
    }
}

/// The variables that say which Apps there are without a file.
const WITHOUT_FILE: [&Variable; 4] = [
    &var::GITHUB_APP_IDS,
    &var::APP_SECRET_CERTIFICATE_FILE,
    &var::APP_SECRET_CERTIFICATE_ENV_VAR,
    &var::KMS_KEYS,
];

/// The Apps by the environment. `APP_CONFIG_FILE` overrides the other variables, which are then not
/// even checked.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Apps> {
    if reader.has(&var::APP_CONFIG_FILE) {
        for unused in WITHOUT_FILE {
            if reader.has(unused) {
                reader.warning(unused.name, "has no effect, since APP_CONFIG_FILE is set");
            }
        }
        return of_file(reader);
    }
    let ids = reader.required(&var::GITHUB_APP_IDS, value::app_ids);
    let [_, sources @ ..] = WITHOUT_FILE;
    let mut given = sources.into_iter().filter(|source| reader.has(source));
    let apps = match (given.next(), given.next()) {
        (Some(one), Some(other)) => {
            reader.refuse(one.name, format!("and {} must not both be set", other.name))
        }
        (Some(kms), None) if *kms == var::KMS_KEYS => of_kms(reader, ids),
        (Some(_), None) => of_pem(reader, ids),
        (None, _) => reader.refuse(
            var::APP_SECRET_CERTIFICATE_FILE.name,
            "or APP_SECRET_CERTIFICATE_ENV_VAR is required: the App's private key",
        ),
    };
    let apps = without_repetitions(reader, apps?);
    let ids = apps.iter().map(|app| app.id).collect();
    let apps = Apps::for_every_owner(apps);
    Some(match reader.text(&var::APP_SECRET_CERTIFICATE_FILE)? {
        Some(path) => apps.of(Arc::new(AppsFile::of_key(path.into(), ids))),
        None => apps,
    })
}

fn of_file(reader: &mut Reader<'_>) -> Option<Apps> {
    let path = reader.text(&var::APP_CONFIG_FILE)??;
    let file = Arc::new(AppsFile::of_apps(path.into(), reader.environment().clone()));
    match file.load() {
        Ok(apps) => Some(apps.of(file)),
        Err(errors) => reader.refuse(var::APP_CONFIG_FILE.name, in_words(&errors)),
    }
}

/// All errors of a file, a line each.
pub fn in_words(errors: &Errors) -> String {
    let lines: Vec<_> = errors.iter().map(|error| format!("\n    {error}")).collect();
    let more = if errors.has_more() { "\n    and more" } else { "" };
    format!("names a file that cannot be used:{}{more}", lines.concat())
}

/// One key for all Apps.
fn of_pem(reader: &mut Reader<'_>, ids: Option<Vec<AppId>>) -> Option<Vec<ConfiguredApp>> {
    let text = &var::APP_SECRET_CERTIFICATE_ENV_VAR;
    let key = if reader.has(text) {
        reader.required(text, AppKey::parse)
    } else {
        let read = |path: &str| AppKey::read(Path::new(path));
        reader.required(&var::APP_SECRET_CERTIFICATE_FILE, read)
    };
    let key = key?;
    Some(ids?.into_iter().map(|id| ConfiguredApp { id, name: None, key: key.clone() }).collect())
}

/// A key for each App, held by a key management service.
fn of_kms(reader: &mut Reader<'_>, ids: Option<Vec<AppId>>) -> Option<Vec<ConfiguredApp>> {
    let provider = reader.required(&var::KMS_PROVIDER, value::kms_provider);
    let ids = ids?;
    let pairs = reader.required(&var::KMS_KEYS, |text| {
        with_keys(&ids, text).map(|pairs| {
            pairs.into_iter().map(|(id, key)| (id, key.to_owned())).collect::<Vec<_>>()
        })
    })?;
    for id in ids.iter().filter(|id| !pairs.iter().any(|(with_key, _)| with_key == *id)) {
        reader
            .warning(var::KMS_KEYS.name, format!("has no key for the App {id}, which is not used"));
    }
    let provider = provider?;
    let app = |(id, key): (AppId, String)| {
        KmsKey::parse(provider, &key).map(|key| ConfiguredApp {
            id,
            name: None,
            key: AppKey::Kms(key),
        })
    };
    match pairs.into_iter().map(app).collect() {
        Ok(apps) => Some(apps),
        Err(error) => reader.refuse(var::KMS_KEYS.name, error),
    }
}

/// The Apps that have a key. There is an entry for each App, and an empty one leaves its App out.
fn with_keys<'k>(ids: &[AppId], keys: &'k str) -> Result<Vec<(AppId, &'k str)>, String> {
    let keys: Vec<&str> = keys.split(',').map(str::trim).collect();
    if keys.len() != ids.len() {
        return Err(format!(
            "must have an entry for each of GITHUB_APP_IDS: it has {}, and there are {} ids",
            keys.len(),
            ids.len()
        ));
    }
    let pairs: Vec<_> = ids.iter().copied().zip(keys).filter(|(_, key)| !key.is_empty()).collect();
    if pairs.is_empty() {
        return Err("must have a key for at least one App".to_owned());
    }
    Ok(pairs)
}

/// The Go service accepts an id twice, which changes nothing.
fn without_repetitions(reader: &mut Reader<'_>, apps: Vec<ConfiguredApp>) -> Vec<ConfiguredApp> {
    let mut unique: Vec<ConfiguredApp> = Vec::with_capacity(apps.len());
    for app in apps {
        if unique.iter().any(|known| known.id == app.id) {
            let text = format!("names the App {} more than once; the first entry counts", app.id);
            reader.warning(var::GITHUB_APP_IDS.name, text);
        } else {
            unique.push(app);
        }
    }
    unique
}

/// The file of Apps as it is read, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{super::Environment, Apps, Errors, file};

    /// The Apps of a file, or every error in it.
    pub fn parse(text: &[u8], environment: &Environment) -> Result<Apps, Errors> {
        file::parse(text, environment)
    }
}
