//! A trust policy's file as written: every key with its place, and every error in its form.
//!
//! Null and absent are one for the conditions, where an empty value means "not set". They are two
//! for `repositories`, `app` and `app_pattern`: an emptied restriction must not read as none.

mod advice;

use crate::yaml::{At, Errors, Node, Value};

/// The keys of a policy.
pub(super) const KEYS: [&str; 11] = [
    "issuer",
    "issuer_pattern",
    "subject",
    "subject_pattern",
    "audience",
    "audience_pattern",
    "claim_pattern",
    "permissions",
    "repositories",
    "app",
    "app_pattern",
];

/// A policy's file.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) issuer: Choice,
    pub(super) subject: Choice,
    pub(super) audience: Choice,
    pub(super) app: Choice,
    pub(super) claim_pattern: Vec<(At<String>, At<String>)>,
    /// Absent if the file has no such key; an error in it counts as present.
    pub(super) permissions: Option<Vec<(At<String>, At<String>)>>,
    pub(super) repositories: Option<At<Vec<At<String>>>>,
}

/// A value that is given exactly or as a pattern.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) exact: Option<At<String>>,
    pub(super) pattern: Option<At<String>>,
    /// A key of it is there, but cannot be read; the error is noted already.
    pub(super) is_unreadable: bool,
}

impl Document {
    /// Reads a tree; what is wrong with its form is noted in `errors`.
    pub(super) fn read(root: &Node, errors: &mut Errors) -> Self {
        let mut document = Self::default();
        let Value::Map(entries) = &root.value else {
            errors
                .push(root.refuse(format!("expected a map of policy keys, found {}", root.kind())));
            return document;
        };
        for (key, node) in entries {
            if errors.leave_out_rest() {
                break;
            }
            document.entry(key, node, errors);
        }
        document
    }

    fn entry(&mut self, key: &At<String>, node: &Node, errors: &mut Errors) {
        match key.value.as_str() {
            "claim_pattern" => self.claim_pattern = claims(node, errors),
            "permissions" => self.permissions = permissions(node, errors),
            "repositories" => self.repositories = repositories(node, errors),
            name => {
                let known = KEYS.into_iter().find(|known| *known == name);
                if known.is_none() {
                    errors.push(key.refuse(advice::unknown_key(name)));
                }
                // A misspelt key is not missing as well.
                let meant = known.or_else(|| advice::meant(name));
                let Some((choice, is_pattern)) = meant.and_then(|meant| self.choice(meant)) else {
                    return;
                };
                let Some(known) = known else { return choice.is_unreadable = true };
                match text(known, node, errors) {
                    Ok(value) if is_pattern => choice.pattern = value,
                    Ok(value) => choice.exact = value,
                    Err(Reported) => choice.is_unreadable = true,
                }
            }
        }
    }

    fn choice(&mut self, key: &str) -> Option<(&mut Choice, bool)> {
        let (name, is_pattern) =
            key.strip_suffix("_pattern").map_or((key, false), |name| (name, true));
        let choice = match name {
            "issuer" => &mut self.issuer,
            "subject" => &mut self.subject,
            "audience" => &mut self.audience,
            "app" => &mut self.app,
            _ => return None,
        };
        Some((choice, is_pattern))
    }
}

/// An error that is noted already.
struct Reported;

/// One string; null and `""` mean that a condition is not set.
fn text(
    key: &'static str,
    node: &Node,
    errors: &mut Errors,
) -> Result<Option<At<String>>, Reported> {
    let is_pin = key == "app" || key == "app_pattern";
    match &node.value {
        Value::Scalar(scalar) => match scalar.text() {
            Some("") | None if is_pin => {
                errors.push(node.refuse(format!("`{key}` must not be empty")))
            }
            Some("") | None => return Ok(None),
            Some(text) => return Ok(Some(At { mark: node.mark, value: text.to_owned() })),
        },
        Value::List(items) => errors.push(advice::list_for_string(key, node, items)),
        Value::Map(_) => {
            errors.push(node.refuse(format!("`{key}`: expected a string, found a map")))
        }
    }
    Err(Reported)
}

fn claims(node: &Node, errors: &mut Errors) -> Vec<(At<String>, At<String>)> {
    let Some(entries) = map("claim_pattern", "claim names and patterns", node, errors) else {
        return Vec::new();
    };
    let mut claims = Vec::new();
    for (name, node) in entries {
        match &node.value {
            Value::Scalar(scalar) => match scalar.text() {
                Some("") | None => errors.push(node.refuse(
                    "`claim_pattern`: a claim's pattern must not be empty; write `.*` for any value, or remove the claim",
                )),
                Some(text) => claims.push((name.clone(), At { mark: node.mark, value: text.to_owned() })),
            },
            Value::List(items) => errors.push(advice::list_for_string("claim_pattern", node, items)),
            Value::Map(_) => errors.push(node.refuse(
                "`claim_pattern`: expected a pattern, found a map; \
                 for a claim inside another, write one name with `/`, as in `kubernetes.io/namespace`",
            )),
        }
    }
    claims
}

fn permissions(node: &Node, errors: &mut Errors) -> Option<Vec<(At<String>, At<String>)>> {
    if is_unset(node) {
        return None;
    }
    let Some(entries) = map("permissions", "permission names and levels", node, errors) else {
        return Some(Vec::new());
    };
    let mut permissions = Vec::new();
    for (name, node) in entries {
        match node.text() {
            Some(level) => {
                permissions.push((name.clone(), At { mark: node.mark, value: level.to_owned() }))
            }
            None => errors.push(node.refuse(format!(
                "`permissions`: expected the level `read`, `write` or `admin`, found {}",
                node.kind()
            ))),
        }
    }
    (!entries.is_empty()).then_some(permissions)
}

fn repositories(node: &Node, errors: &mut Errors) -> Option<At<Vec<At<String>>>> {
    let Value::List(items) = &node.value else {
        errors.push(node.refuse(format!(
            "`repositories`: expected a list of repository names, found {}; \
             `[]` and no `repositories` mean all that the installation sees",
            node.kind()
        )));
        return None;
    };
    let mut names = Vec::new();
    for item in items {
        match item.text() {
            Some(text) if !text.is_empty() => {
                names.push(At { mark: item.mark, value: text.to_owned() })
            }
            Some(_) => {
                errors.push(item.refuse("`repositories`: a repository name must not be empty"))
            }
            None => errors.push(item.refuse(format!(
                "`repositories`: expected a repository name, found {}",
                item.kind()
            ))),
        }
    }
    Some(At { mark: node.mark, value: names })
}

/// The entries of a map; null and `""` stand for an empty one.
fn map<'a>(
    key: &str,
    of: &str,
    node: &'a Node,
    errors: &mut Errors,
) -> Option<&'a [(At<String>, Node)]> {
    match &node.value {
        Value::Map(entries) => return Some(entries),
        Value::Scalar(_) if is_unset(node) => return Some(&[]),
        Value::Scalar(_) | Value::List(_) => {}
    }
    errors.push(node.refuse(format!("`{key}`: expected a map of {of}, found {}", node.kind())));
    None
}

/// Null or `""`.
fn is_unset(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.text().is_none_or(str::is_empty))
}
