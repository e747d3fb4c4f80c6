//! What the terminal shows: plain text that reads without colour, with some where it is wanted.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use serde_json::Value;

use super::{caller::rest_path, tokens::Tokens, world::World};
use crate::config::Environment;

/// Where a line of text breaks.
const WIDTH: usize = 108;

/// The text that goes to stdout.
pub(super) struct Page {
    colour: bool,
    steps: usize,
}

impl Page {
    /// Colours only for a terminal that shows them, and not against the user's will (no-color.org).
    pub(super) fn on_stdout(environment: &Environment) -> Self {
        let unwanted =
            environment.text("NO_COLOR").is_some() || environment.text("TERM") == Some("dumb");
        Self { colour: io::stdout().is_terminal() && !unwanted, steps: 0 }
    }

    fn paint(&self, code: u8, text: impl Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// One line. A closed stdout is not an error: the reader may stop reading.
    pub(super) fn line(&self, text: impl Display) {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).ok();
    }

    /// What a workload does next.
    pub(super) fn step(&mut self, title: &str) {
        self.steps += 1;
        self.line(self.paint(1, format_args!("\n{}  {title}", self.steps)));
    }

    /// A detail.
    pub(super) fn note(&self, text: impl Display) {
        self.line(self.paint(2, format_args!("   {text}")));
    }

    /// What is questionable about a policy.
    pub(super) fn warning(&self, text: &str) {
        self.line(format_args!("   {}  {text}", self.paint(33, "WARNING")));
    }

    /// An expectation, whether it was met, and what was seen.
    pub(super) fn check(&self, as_expected: bool, seen: impl Display) -> bool {
        let verdict =
            if as_expected { self.paint(32, "ok") } else { self.paint(31, "NOT AS EXPECTED") };
        self.line(format_args!("   {verdict}  {seen}"));
        as_expected
    }

    /// Where everything is.
    pub(super) fn welcome(&self, world: &World) {
        let name = |name: &str| self.paint(36, format_args!("{name:8}"));
        self.line(self.paint(1, "An exchange from end to end, on this machine alone\n"));
        self.line(format_args!(
            "   {} {}   octo-sts, gRPC and REST on one port",
            name("server"),
            world.server
        ));
        self.line(format_args!(
            "   {} {}   emulated; the App is installed in octo-org",
            name("GitHub"),
            world.github.url()
        ));
        self.line(format_args!(
            "   {} {}   emulated; signs the tokens of workloads",
            name("issuer"),
            world.issuer.url()
        ));
    }

    /// A line of JSON, wrapped between members.
    pub(super) fn wrapped(&self, json: &str) {
        let mut parts = json.split(",\"");
        let mut line = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let full = line.len() + part.len() > WIDTH;
            line.push(',');
            if full {
                self.note(std::mem::take(&mut line));
            }
            line.push('"');
            line.push_str(part);
        }
        self.note(line);
    }

    /// What to try next.
    pub(super) fn invite(&mut self, world: &World, tokens: &Tokens) {
        let server = &world.server;
        let host = server.trim_start_matches("http://");
        self.step("Your turn: the server stays up until Ctrl-C, and each attempt is shown here");
        let Some((scope, identity, url)) = tokens.first() else { return };
        let path = rest_path(&scope, &identity);
        let lines = [
            format!("TOKEN=$(curl -s {url})"),
            format!("curl -H \"Authorization: Bearer $TOKEN\" \"{server}{path}\""),
            format!(
                "grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" -d '{{\"scope\":\"{scope}\",\"identity\":\"{identity}\"}}' \\\n     \
                 {host} chainguard.platform.oidc.SecurityTokenService/Exchange"
            ),
        ];
        self.line(self.paint(
            2,
            "   # a fresh OIDC token, good for 5 minutes; the same line gets the next one",
        ));
        for line in lines {
            self.line(format_args!("   {line}"));
        }
        self.line(self.paint(2, "   # any claim can be set:"));
        self.line(format_args!("   TOKEN=$(curl -s \"{url}?sub=someone-else\")"));
        for (scope, identity, url) in tokens.others() {
            self.line(format_args!("   TOKEN=$(curl -s {url})   # for {scope}, {identity}"));
        }
        self.line("");
    }

    /// An attempt, in a line.
    pub(super) fn attempt(&self, record: &str) {
        let record: Value = serde_json::from_str(record).unwrap_or_default();
        // As the caller sent it, without what a terminal would interpret.
        let plain = |text: &str| text.replace(char::is_control, "?");
        let text = |name: &str| plain(record.get(name).and_then(Value::as_str).unwrap_or("-"));
        if text("operation") == "delivery" {
            let (time, result, event) = (text("time"), text("result"), text("event"));
            return self.line(format_args!(
                "   {time}  webhook  {result}  {event} {}/{}",
                text("owner"),
                text("repository")
            ));
        }
        let granted = text("result") == "granted";
        let verdict =
            if granted { self.paint(32, "granted") } else { self.paint(31, text("result")) };
        let why = plain(record.get("cause").and_then(Value::as_str).unwrap_or_default());
        let (time, reason) =
            (text("time"), if granted { String::new() } else { format!("  {}", text("reason")) });
        let cause = if why.is_empty() { why } else { format!(": {why}") };
        self.line(format_args!(
            "   {time}  {}  {verdict}  {} {}  {}{reason}{cause}",
            text("protocol"),
            text("scope"),
            text("identity"),
            text("subject"),
        ));
    }
}
