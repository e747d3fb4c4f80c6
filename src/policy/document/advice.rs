//! What to write instead, for the most frequent errors in the form of a policy.

use super::KEYS;
use crate::yaml::{Invalid, Node, is_near};

/// Claims that people put at the top level of a policy: those of GitHub Actions, and of others that
/// policies are written for.
const CLAIMS: &[&str] = &[
    "actor",
    "actor_id",
    "aud",
    "azp",
    "base_ref",
    "branch",
    "build_branch",
    "build_number",
    "check_run_id",
    "email",
    "email_verified",
    "enterprise",
    "enterprise_id",
    "environment",
    "environment_node_id",
    "event_name",
    "groups",
    "hd",
    "head_ref",
    "iss",
    "job_workflow_ref",
    "job_workflow_sha",
    "kubernetes.io",
    "namespace_id",
    "namespace_path",
    "organization_slug",
    "pipeline_id",
    "pipeline_slug",
    "pipeline_source",
    "project_id",
    "project_path",
    "ref",
    "ref_protected",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "repository_visibility",
    "run_attempt",
    "run_id",
    "run_number",
    "runner_environment",
    "sha",
    "sub",
    "terraform_organization_name",
    "terraform_project_name",
    "terraform_run_phase",
    "terraform_workspace_name",
    "user_email",
    "user_login",
    "workflow",
    "workflow_ref",
    "workflow_sha",
];

/// The key that a misspelt one stands for.
pub(super) fn meant(key: &str) -> Option<&'static str> {
    let folded = key.to_ascii_lowercase().replace('-', "_");
    let plural = folded.strip_suffix('s').unwrap_or(&folded);
    let is_meant =
        |known: &&str| **known == folded || **known == *plural || is_near(known, &folded);
    KEYS.into_iter().find(is_meant).filter(|_| !CLAIMS.contains(&key))
}

/// Why a key is not one of a policy.
pub(super) fn unknown_key(key: &str) -> String {
    if let Some(claim) = CLAIMS.iter().find(|claim| **claim == key) {
        return match *claim {
            "iss" => "`iss` is a claim; in a policy, write `issuer` or `issuer_pattern`".to_owned(),
            "sub" => "`sub` is a claim; in a policy, write `subject` or `subject_pattern`".to_owned(),
            "aud" => "`aud` is a claim; in a policy, write `audience` or `audience_pattern`".to_owned(),
            "repository" => "`repository` is a claim; put it under `claim_pattern` (an organization policy lists its \
                             repositories under `repositories`)"
                .to_owned(),
            claim => format!("`{claim}` is a claim; put it under `claim_pattern`"),
        };
    }
    let folded = key.to_ascii_lowercase().replace('-', "_");
    match meant(key) {
        Some(name) if name == folded => format!("unknown key; it is spelled `{name}`"),
        Some(name) => format!("unknown key; did you mean `{name}`?"),
        // Kubernetes and AWS put claims into objects, of which policies name a path.
        None if key.contains(['/', '.']) || key.contains("://") => {
            "unknown key; if it is a claim, put it under `claim_pattern`".to_owned()
        }
        None if matches!(&*folded, "claims" | "claim" | "claim_patterns" | "conditions") => {
            "unknown key; claims and their patterns stand under `claim_pattern`".to_owned()
        }
        None => format!("unknown key; a policy has {}", KEYS.join(", ")),
    }
}

/// A list where one string is expected: alternatives are written as one pattern.
pub(super) fn list_for_string(key: &'static str, node: &Node, items: &[Node]) -> Invalid {
    let exact = matches!(key, "issuer" | "subject" | "audience" | "app");
    let target = if exact { format!("{key}_pattern") } else { key.to_owned() };
    let rule = format!(
        "`{key}`: expected one string, found a list; write the alternatives as one pattern, `{}(?:a|b)`",
        if key == "claim_pattern" { String::new() } else { format!("{target}: ") }
    );
    let invalid = node.refuse(rule);
    let texts: Option<Vec<&str>> = items.iter().map(Node::text).collect();
    match texts {
        Some(texts) if !texts.is_empty() => {
            let alternatives: Vec<String> = texts
                .into_iter()
                .map(|text| if exact || !is_pattern(text) { escape(text) } else { text.to_owned() })
                .collect();
            let pattern = match alternatives.as_slice() {
                [one] => one.clone(),
                several => format!("(?:{})", several.join("|")),
            };
            let place = if key == "claim_pattern" { String::new() } else { format!("{target}: ") };
            invalid.with_fix(&format!("{place}'{}'", pattern.replace('\'', "''")))
        }
        _ => invalid,
    }
}

/// Whether an item was meant as a pattern already.
fn is_pattern(text: &str) -> bool {
    [".*", ".+", "\\", "(", "|", "^", "$"].iter().any(|mark| text.contains(mark))
}

/// The pattern that matches just this text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
