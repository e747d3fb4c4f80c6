//! `APP_CONFIG_FILE`: organizations and their Apps.
//!
//! The Go service's format, read strictly: every error is reported with its line and column, and
//! nothing that the file holds is repeated. As there, keys have no letter case, and `${NAME}` in a
//! string stands for an environment variable; here an unset one is an error. A second document,
//! which the Go service ignores, is an error too.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    super::{AppKey, Environment, value, variables as var},
    Apps, ConfiguredApp,
};
use crate::{
    github::KmsKey,
    name::{AppId, AppName, Owner},
    yaml::{self, Errors, Invalid, Mark, Node, Value},
};

/// A file that Apps or their key are read from, again and again.
#[derive(Clone, PartialEq)]
pub struct AppsFile {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, PartialEq)]
enum Content {
    /// Organizations and their Apps. It may name these variables.
    Apps(Environment),
    /// The private key of these Apps.
    Key(Vec<AppId>),
}

impl fmt::Debug for AppsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppsFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl AppsFile {
    /// A file of organizations and their Apps.
    pub(super) fn of_apps(path: PathBuf, environment: Environment) -> Self {
        Self { path, content: Content::Apps(environment) }
    }

    /// A file with the private key of these Apps.
    pub(super) fn of_key(path: PathBuf, apps: Vec<AppId>) -> Self {
        Self { path, content: Content::Key(apps) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, and the key files that it names.
    ///
    /// # Errors
    /// Every error in it, in its order.
    pub fn load(&self) -> Result<Apps, Errors> {
        let wrong = |what: String| Errors::from(Invalid::file(what));
        match &self.content {
            Content::Apps(environment) => {
                let text = fs::read(&self.path)
                    .map_err(|error| wrong(format!("the file cannot be read: {}", error.kind())))?;
                parse(&text, environment)
            }
            Content::Key(apps) => {
                let key = AppKey::read(&self.path).map_err(wrong)?;
                let app = |id: &AppId| ConfiguredApp { id: *id, name: None, key: key.clone() };
                Ok(Apps::for_every_owner(apps.iter().map(app).collect()))
            }
        }
    }
}

/// Reads the text of the file.
///
/// # Errors
/// Every error in it, in its order.
pub(super) fn parse(text: &[u8], environment: &Environment) -> Result<Apps, Errors> {
    let (root, errors) = yaml::tree(text)?;
    let mut reading = Reading {
        environment,
        errors,
        owners: HashMap::new(),
        ids: HashMap::new(),
        names: HashMap::new(),
    };
    let apps = reading.document(&root);
    reading.errors.check()?;
    Ok(apps)
}

struct Reading<'e> {
    environment: &'e Environment,
    errors: Errors,
    /// What was given already, and where. `None` is the pool for owners that are not listed.
    owners: HashMap<Option<Owner>, Mark>,
    ids: HashMap<AppId, Mark>,
    names: HashMap<AppName, Mark>,
}

/// An entry's keys by their lowercase form.
type Entry<'n> = HashMap<String, &'n Node>;

impl Reading<'_> {
    fn document(&mut self, root: &Node) -> Apps {
        let mut apps = Apps::default();
        let Some(entry) = self.entry(root, &["orgs"], "the key `orgs`") else { return apps };
        let orgs = entry.get("orgs").copied();
        for org in self.list(orgs, root.mark, "expected at least one organization in `orgs`") {
            if let Some((owner, pool)) = self.org(org) {
                match owner {
                    Some(owner) => apps.listed.push((owner, pool)),
                    None => apps.others = pool,
                }
            }
        }
        apps
    }

    /// One organization and its Apps; `None` as its owner stands for all that are not listed.
    fn org(&mut self, node: &Node) -> Option<(Option<Owner>, Vec<ConfiguredApp>)> {
        let entry = self.entry(node, &["name", "apps"], "an organization's `name` and `apps`")?;
        let owner = self.owner(node, entry.get("name").copied());
        let apps = entry.get("apps").copied();
        let apps = self.list(apps, node.mark, "expected at least one App in `apps`");
        let apps = apps.iter().filter_map(|app| self.app(app)).collect();
        Some((owner?, apps))
    }

    fn owner(&mut self, org: &Node, node: Option<&Node>) -> Option<Option<Owner>> {
        let Some(node) = node else {
            self.errors.push(org.refuse("expected the organization's `name`"));
            return None;
        };
        let name = self.text(node)?;
        let owner = match name.as_str() {
            "*" => None,
            name => match name.parse::<Owner>() {
                Ok(owner) => Some(owner),
                Err(error) => {
                    self.errors.push(node.refuse(format!("{error}; `*` stands for all others")));
                    return None;
                }
            },
        };
        first(&mut self.errors, &mut self.owners, owner.clone(), node.mark, "this organization")?;
        Some(owner)
    }

    fn app(&mut self, node: &Node) -> Option<ConfiguredApp> {
        const KEYS: [&str; 5] =
            ["app_id", "app_name", "kms_key", "private_key", "private_key_file"];
        let entry = self.entry(node, &KEYS, "an App's `app_id` and its key")?;
        let id = self.id(node, entry.get("app_id").copied());
        let name = match entry.get("app_name").filter(|node| !is_empty(node)) {
            Some(node) => self.name(node).map(Some),
            None => Some(None),
        };
        let key = self.key(node, &entry);
        Some(ConfiguredApp { id: id?, name: name?, key: key? })
    }

    fn id(&mut self, app: &Node, node: Option<&Node>) -> Option<AppId> {
        let Some(node) = node else {
            self.errors.push(app.refuse("expected the App's `app_id`"));
            return None;
        };
        // An integer, or a string for the sake of variables.
        let text = match &node.value {
            Value::Scalar(yaml::Scalar::Integer(text)) => text.clone(),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => self.text(node)?,
        };
        let Ok(id) = text.parse::<AppId>() else {
            self.errors.push(node.refuse("expected the App's id, a positive number"));
            return None;
        };
        first(&mut self.errors, &mut self.ids, id, node.mark, "this `app_id`")?;
        Some(id)
    }

    fn name(&mut self, node: &Node) -> Option<AppName> {
        let text = self.text(node)?;
        let name =
            self.errors.note(text.parse::<AppName>().map_err(|e| node.refuse(e.to_string())))?;
        first(&mut self.errors, &mut self.names, name.clone(), node.mark, "this `app_name`")?;
        Some(name)
    }

    fn key(&mut self, app: &Node, entry: &Entry<'_>) -> Option<AppKey> {
        // An empty value is none, as a template leaves it.
        let mut given = Vec::new();
        for key in ["kms_key", "private_key", "private_key_file"] {
            let Some(node) = entry.get(key) else { continue };
            if is_empty(node) {
                continue;
            }
            let text = self.text(node)?;
            if !text.is_empty() {
                given.push((key, *node, text));
            }
        }
        let (key, node, text) = match given.as_slice() {
            [given] => given,
            [] => {
                self.errors.push(app.refuse(ONE_KEY));
                return None;
            }
            [_, (_, second, _), ..] => {
                self.errors.push(second.refuse(ONE_KEY));
                return None;
            }
        };
        let parsed = match *key {
            "private_key" => AppKey::parse(text),
            "private_key_file" => AppKey::read(Path::new(text)),
            _ => self.kms_key(text),
        };
        self.errors.note(parsed.map_err(|error| node.refuse(format!("`{key}` {error}"))))
    }

    /// A key of the service that `KMS_PROVIDER` names.
    fn kms_key(&self, name: &str) -> Result<AppKey, String> {
        let provider = self.environment.text(var::KMS_PROVIDER.name).map(str::trim);
        let provider = provider.or(var::KMS_PROVIDER.default).unwrap_or_default();
        let provider = value::kms_provider(provider)
            .map_err(|expected| format!("needs KMS_PROVIDER, which {expected}"))?;
        KmsKey::parse(provider, name).map(AppKey::Kms)
    }

    /// A map's entries by the lowercase form of their keys, all of them known.
    fn entry<'n>(&mut self, node: &'n Node, known: &[&str], expected: &str) -> Option<Entry<'n>> {
        let Value::Map(entries) = &node.value else {
            self.errors.push(node.refuse(format!("expected {expected}, found {}", node.kind())));
            return None;
        };
        let mut entry = Entry::new();
        for (key, value) in entries {
            let name = key.value.to_ascii_lowercase();
            if !known.contains(&name.as_str()) {
                let rule = format!("unknown key; expected one of {}", known.join(", "));
                self.errors.push(key.refuse(rule));
            } else if entry.insert(name, value).is_some() {
                self.errors.push(key.refuse("this key is given twice, in different letter case"));
            }
        }
        Some(entry)
    }

    /// A list with at least one item.
    fn list<'n>(
        &mut self,
        node: Option<&'n Node>,
        parent: Mark,
        expected: &'static str,
    ) -> &'n [Node] {
        match node.map(|node| &node.value) {
            Some(Value::List(items)) if !items.is_empty() => items,
            _ => {
                self.errors.push(Invalid::at(node.map_or(parent, |node| node.mark), expected));
                &[]
            }
        }
    }

    /// A string, with its variables in place.
    fn text(&mut self, node: &Node) -> Option<String> {
        let text = match &node.value {
            Value::Scalar(yaml::Scalar::Text(text)) => text,
            Value::Scalar(yaml::Scalar::Integer(_) | yaml::Scalar::Bool(_)) => {
                self.errors.push(node.refuse("expected a string; put this value in quotes"));
                return None;
            }
            Value::Scalar(yaml::Scalar::Null) | Value::List(_) | Value::Map(_) => {
                self.errors.push(node.refuse(format!("expected a string, found {}", node.kind())));
                return None;
            }
        };
        let expanded = expand(text, self.environment)
            .map_err(|name| node.refuse(format!("the environment variable {name} is not set")));
        self.errors.note(expanded)
    }
}

const ONE_KEY: &str = "expected exactly one of `kms_key`, `private_key` and `private_key_file`";

/// Whether a template left no value.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.text().is_none_or(str::is_empty),
        Value::List(_) | Value::Map(_) => false,
    }
}

/// Notes that a value is given. `None`: it was given before, which is an error.
fn first<K: std::hash::Hash + Eq>(
    errors: &mut Errors,
    given: &mut HashMap<K, Mark>,
    key: K,
    at: Mark,
    what: &str,
) -> Option<()> {
    if let Some(before) = given.get(&key) {
        errors.push(Invalid::at(at, format!("{what} is given already in line {}", before.line)));
        return None;
    }
    given.insert(key, at);
    Some(())
}

/// Replaces each `${NAME}`; everything else stays, a lone `$` too. The error is the name of a
/// variable that is not set.
pub(super) fn expand(text: &str, environment: &Environment) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        expanded.push_str(before);
        let after = reference.get(2..).unwrap_or_default();
        let name = after.find('}').and_then(|end| after.get(..end));
        let is_name = |name: &&str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match name.filter(is_name) {
            Some(name) => {
                let value = environment.untrimmed(name).ok_or_else(|| name.to_owned())?;
                expanded.push_str(value);
                rest = after.get(name.len() + 1..).unwrap_or_default();
            }
            None => {
                expanded.push_str("${");
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}
