//! What is shown, step by step. Each step checks what it tells.

use http::Method;
use serde_json::{Value, json};

use super::{
    caller::ServerReply,
    page::Page,
    policies::{ORG, PolicyFile, set},
    world::{World, place_of},
};
use crate::{clock::UnixTime, policy::PolicyKind};

/// The tour through a world.
pub(super) struct Tour<'a> {
    pub(super) world: &'a mut World,
    pub(super) page: &'a mut Page,
}

/// A token that a workload got.
struct Got {
    token: String,
    until: String,
}

impl Tour<'_> {
    /// Runs the samples. Returns whether every step had the expected result.
    pub(super) async fn of_samples(&mut self) -> bool {
        self.page.welcome(self.world);
        let Some(index) =
            self.world.policies.files.iter().position(|file| file.kind == PolicyKind::Repository)
        else {
            return self.page.check(false, "there is no sample for a repository");
        };
        let mut as_expected = self.show_policy(index);
        let (granted, got) = self.over_rest(index).await;
        let record = self.world.record().await;
        as_expected &= granted;
        if let Some(got) = got {
            as_expected &= self.use_token(&got.token).await;
        }
        as_expected &= self.another_branch(index).await;
        drop(self.world.record().await);
        as_expected &= self.over_grpc().await;
        drop(self.world.record().await);
        as_expected &= self.audited(&record);
        as_expected &= self.pull_request(index).await;
        as_expected & self.deletion(index).await
    }

    /// Through policies of one's own: an exchange for each.
    pub(super) async fn of_policies(&mut self) -> bool {
        self.page.welcome(self.world);
        for path in &self.world.policies.ignored {
            self.page.note(format_args!("ignored: {} (a policy is NAME.sts.yaml)", path.display()));
        }
        let mut as_expected = true;
        for index in 0..self.world.policies.files.len() {
            let Some(file) = self.world.policies.files.get(index) else { break };
            let (title, claims) =
                (format!("{} in {}", file.name, place_of(file.kind)), file.claims());
            self.page.step(&title);
            for warning in &file.warnings {
                self.page.warning(warning);
            }
            match claims {
                Ok(_) => {
                    as_expected &= self.grant(index, "REST").await.0;
                    drop(self.world.record().await);
                }
                Err(why) => self.page.note(format_args!("valid; {why}")),
            }
        }
        as_expected
    }

    fn show_policy(&mut self, index: usize) -> bool {
        self.page.step("A repository says who may have which token");
        let Some(file) = self.world.policies.files.get(index) else { return false };
        self.page.note(format_args!("{} holds {}:", file.scope(), file.name.path()));
        self.page.line("");
        for line in file.text.lines().filter(|line| !line.starts_with('#')) {
            self.page.line(format_args!("       {line}").to_string().trim_end());
        }
        self.page.line("");
        self.page.note("Here the emulated issuer plays the ones that policies name.");
        true
    }

    async fn over_rest(&mut self, index: usize) -> (bool, Option<Got>) {
        self.page.step("A workflow on main shows its OIDC token and gets one of GitHub's");
        self.grant(index, "REST").await
    }

    async fn over_grpc(&mut self) -> bool {
        self.page.step("A pod of a cluster asks over gRPC, by a policy of the organization");
        match self
            .world
            .policies
            .files
            .iter()
            .position(|file| file.kind == PolicyKind::Organization)
        {
            Some(index) => self.grant(index, "gRPC").await.0,
            None => self.page.check(false, "there is no sample for an organization"),
        }
    }

    /// An exchange that must end with a token which may do just what the policy says.
    async fn grant(&mut self, index: usize, wire: &str) -> (bool, Option<Got>) {
        let Some((file, token)) = self.workload(index, &[]) else {
            return (self.page.check(false, "no token can be made up"), None);
        };
        let (scope, identity) = (file.scope(), file.name.to_string());
        self.page.note(format_args!(
            "{wire} exchange, scope {scope}, identity {identity}, as {}",
            subject(file)
        ));
        let (server, caller) = (&self.world.server, &self.world.caller);
        let got = if wire == "gRPC" {
            caller.grpc(server, &token, &scope, &identity).await.map(|raw| Got {
                token: raw.token,
                until: UnixTime::from_secs(
                    raw.expiry.map(|expiry| expiry.seconds).unwrap_or_default(),
                )
                .rfc3339(),
            })
        } else {
            caller.rest(server, &token, &scope, &identity).await.and_then(|reply| granted(&reply))
        };
        let got = match got {
            Ok(got) => got,
            Err(error) => return (self.page.check(false, error), None),
        };
        let (exact, may) = self.may(file, &got.token);
        let short: String = got.token.chars().take(8).collect();
        let until = got.until.get(11..16).unwrap_or(&got.until);
        let seen = format!("{short}…  {may}; until {until} UTC");
        // A token that was made up for the policy proves little where a real one is in doubt.
        if exact && !file.warnings.is_empty() {
            self.page.note(format_args!("to a made-up token, in spite of the warnings: {seen}"));
            return (true, Some(got));
        }
        (self.page.check(exact, seen), Some(got))
    }

    /// Whether a token may do just what a policy says, and what it may do in words, as GitHub sees
    /// it.
    fn may(&self, file: &PolicyFile, token: &str) -> (bool, String) {
        let Some(minted) = self.world.github.token(token) else {
            return (false, "GitHub does not know this token".to_owned());
        };
        let mut permissions = minted.permissions;
        // GitHub adds this one to every token.
        if !file.written.permissions.contains_key("metadata") {
            permissions.remove("metadata");
        }
        let wanted = match (file.kind, file.written.repository_names()) {
            (PolicyKind::Repository, _) => Some(vec!["hello".to_owned()]),
            (PolicyKind::Organization, names) => Some(names).filter(|names| !names.is_empty()),
        };
        let sorted = |names: &Option<Vec<String>>| {
            names.clone().map(|mut names| {
                names.sort();
                names
            })
        };
        let exact = permissions == file.written.permissions
            && sorted(&minted.repositories) == sorted(&wanted);
        let words: Vec<String> =
            permissions.iter().map(|(name, level)| format!("{name} {level}")).collect();
        let where_to =
            minted.repositories.map_or_else(|| format!("all of {ORG}"), |names| names.join(", "));
        (exact, format!("{} on {where_to}", words.join(", ")))
    }

    async fn use_token(&mut self, token: &str) -> bool {
        self.page.step("The token does what the policy says, and no more");
        let read = self.github(Method::GET, "hello/contents/README.md", token, None).await;
        let mut as_expected = self.seen(&read, 200, "reads README.md", |_| String::new());
        let issue = Some(json!({"title": "Hello from octo-sts dev"}));
        let opened = self.github(Method::POST, "hello/issues", token, issue).await;
        as_expected &= self
            .seen(&opened, 201, "opens an issue", |reply| format!(": {}", reply.text("/title")));
        let change = Some(json!({"message": "no", "content": "bm8="}));
        let written = self.github(Method::PUT, "hello/contents/new.txt", token, change).await;
        as_expected &= self.seen(&written, 403, "may not write a file", |reply| {
            format!(": {}", reply.text("/message"))
        });
        let other = self.github(Method::GET, "website", token, None).await;
        as_expected
            & self.seen(&other, 404, "does not see octo-org/website", |reply| {
                format!(": {}", reply.text("/message"))
            })
    }

    async fn github(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Result<ServerReply, String> {
        let url = format!("{}/repos/{ORG}/{path}", self.world.github.url());
        self.world.caller.call(method, &url, token, body).await
    }

    fn seen(
        &self,
        reply: &Result<ServerReply, String>,
        status: u16,
        description: &str,
        more: impl Fn(&ServerReply) -> String,
    ) -> bool {
        match reply {
            Ok(reply) => self.page.check(
                reply.status == status,
                format_args!("{}  {description}{}", reply.status.as_u16(), more(reply)),
            ),
            Err(error) => self.page.check(false, format_args!("{description}: {error}")),
        }
    }

    async fn another_branch(&mut self, index: usize) -> bool {
        self.page.step("A workflow on another branch gets no token, and the reply says why");
        let other = "repo:octo-org/hello:ref:refs/heads/try-me";
        let Some((file, token)) =
            self.workload(index, &[("sub", other), ("ref", "refs/heads/try-me")])
        else {
            return self.page.check(false, "no token can be made up");
        };
        let (scope, identity) = (file.scope(), file.name.to_string());
        let reply = self.world.caller.rest(&self.world.server, &token, &scope, &identity).await;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.page.check(false, error),
        };
        let reason = reply.text("/details/0/reason");
        let as_expected = reply.status == 403 && reason == "POLICY_MISMATCH";
        let message = reply.text("/message");
        self.page
            .check(as_expected, format_args!("{}  {reason}: {message}", reply.status.as_u16()));
        let conditions = reply.body.get("details").and_then(Value::as_array).into_iter().flatten();
        let mut explained = false;
        for failed in conditions
            .filter(|detail| detail.get("satisfied").is_some_and(|satisfied| satisfied == false))
        {
            let text = |name: &str| failed.get(name).and_then(Value::as_str).unwrap_or_default();
            explained |=
                text("field") == "subject" && text("got") == other && !text("wanted").is_empty();
            self.page.note(format_args!("         got    {}", text("got")));
            self.page.note(format_args!("         wanted {}", text("wanted")));
        }
        if !explained {
            self.page.check(false, "the reply does not say what was wanted");
        }
        as_expected && explained
    }

    fn audited(&mut self, record: &str) -> bool {
        self.page
            .step("Each attempt is one line of the audit log; this is the first one's, wrapped");
        let parsed: Value = serde_json::from_str(record).unwrap_or_default();
        self.page.wrapped(record);
        let complete = parsed.get("type").is_some_and(|kind| kind == "audit")
            && parsed.get("result").is_some_and(|result| result == "granted")
            && parsed.pointer("/token/sha256").is_some();
        complete || self.page.check(false, "the record does not tell of the grant")
    }

    /// A policy and a token that satisfies it, but for some claims.
    pub(super) fn workload(
        &self,
        index: usize,
        changes: &[(&str, &str)],
    ) -> Option<(&PolicyFile, String)> {
        let file = self.world.policies.files.get(index)?;
        let mut claims = file.claims().ok()?;
        for (name, value) in changes {
            set(&mut claims, name, json!(value));
        }
        let issuer = self.world.issuer_of(file.written.issuer.as_deref()?);
        Some((file, issuer.sign(&claims)))
    }
}

fn subject(file: &PolicyFile) -> String {
    let claims = file.claims().unwrap_or_default();
    claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The token of a REST reply, or what it says instead.
fn granted(reply: &ServerReply) -> Result<Got, String> {
    if reply.status == 200 {
        Ok(Got { token: reply.text("/token").to_owned(), until: reply.text("/expiry").to_owned() })
    } else {
        let reason = reply.text("/details/0/reason");
        let failed = failed(reply).map(|line| format!("\n        {line}")).collect::<String>();
        Err(format!("{}  {reason}: {}{failed}", reply.status.as_u16(), reply.text("/message")))
    }
}

/// The conditions that failed, each with what came, what was wanted, and the hint.
fn failed(reply: &ServerReply) -> impl Iterator<Item = String> {
    let details = reply.body.get("details").and_then(Value::as_array).into_iter().flatten();
    details
        .filter(|detail| detail.get("satisfied").is_some_and(|satisfied| satisfied == false))
        .map(|detail| {
            let text = |name: &str| detail.get(name).and_then(Value::as_str).unwrap_or_default();
            let hint = text("hint");
            let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
            format!("{}: got {:?}, wanted {:?}{hint}", text("field"), text("got"), text("wanted"))
        })
}
