//! What git writes: lines of `name=value`, ended by a blank line.
//!
//! A value with a carriage return is refused, as git itself does: programs disagree on whether it
//! ends a line, so a URL with one could make them see different hosts.

use secrecy::SecretString;

use crate::{config::GitHub, name::Scope};

/// What git wants to reach.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    protocol: String,
    host: String,
    path: Option<String>,
    username: Option<String>,
    /// With which git was refused, where it says that.
    pub(super) password: Option<SecretString>,
}

impl Wanted {
    /// Reads it. Of a name that comes twice, the last counts; unknown names do not matter.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut wanted = Self::default();
        for line in text.split('\n').take_while(|line| !line.is_empty()) {
            if line.contains(['\r', '\0']) {
                return Err(
                    "what git wrote holds a carriage return or a NUL: expected lines of name=value",
                );
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            match name {
                "protocol" => wanted.protocol = value.to_owned(),
                "host" => wanted.host = value.to_owned(),
                "path" => wanted.path = Some(value.to_owned()).filter(|path| !path.is_empty()),
                "username" => wanted.username = Some(value.to_owned()),
                "password" => wanted.password = Some(value.into()),
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// Whether git asks for this user, or for any.
    pub(super) fn is_for(&self, username: &str) -> bool {
        self.username.as_ref().is_none_or(|wanted| wanted == username)
    }

    /// Whether it is the configured GitHub over https. Where its API has a port of its own, git is
    /// served there too.
    pub(super) fn is_of(&self, github: &GitHub) -> bool {
        let host = match github.api.port_u16() {
            Some(port) => format!("{}:{port}", github.host),
            None => github.host.clone(),
        };
        let given = self.host.strip_suffix(":443").unwrap_or(&self.host);
        self.protocol == "https" && given.eq_ignore_ascii_case(&host)
    }

    /// The repository: `OWNER/REPO`, with what git, its wikis and LFS add to it.
    pub(super) fn scope(&self) -> Result<Scope, &'static str> {
        let path = self.path.as_deref().ok_or(
            "git does not say which repository it wants to reach: name one by --scope or STS_SCOPE, or let git \
             say it: git config --global credential.useHttpPath true",
        )?;
        let path = path.trim_matches('/');
        let path = path.strip_suffix("/info/lfs").unwrap_or(path);
        let path = path.strip_suffix(".git").unwrap_or(path);
        let path = path.strip_suffix(".wiki").unwrap_or(path);
        let scope = path.parse::<Scope>().ok().filter(|scope| scope.repo().is_some());
        scope.ok_or(
            "the path in git's request is not OWNER/REPO: set the scope with --scope or STS_SCOPE",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn github(url: &str) -> GitHub {
        let environment: crate::config::Environment =
            [("GITHUB_BASE_URL", url)].into_iter().collect();
        crate::config::Outward::read(&environment).unwrap().github
    }

    #[test]
    fn only_the_configured_github_over_https_is_answered() {
        let cloud = github("https://api.github.com");
        let server = github("https://ghes.example.com:8443/api/v3");
        let wanted = |text: &str| Wanted::parse(text).unwrap();
        for text in
            ["protocol=https\nhost=github.com\n", "protocol=https\nhost=GitHub.com:443\n\nhost=x\n"]
        {
            assert!(wanted(text).is_of(&cloud), "{text}");
        }
        assert!(wanted("protocol=https\nhost=ghes.example.com:8443\n").is_of(&server));
        for text in [
            "",
            "protocol=http\nhost=github.com\n",
            "protocol=https\nhost=github.com.evil.example\n",
            "protocol=https\nhost=github.com:8443\n",
            "protocol=https\nhost=evil.example\nhost[]=github.com\n",
            "protocol=https\n\nhost=github.com\n",
            "protocol=https\nhost=api.github.com\n",
            "protocol=https\nhost=ghes.example.com\n",
        ] {
            assert!(!wanted(text).is_of(&cloud), "{text}");
        }
        assert!(!wanted("protocol=https\nhost=ghes.example.com\n").is_of(&server));
    }

    #[test]
    fn only_our_own_user_is_answered() {
        let is_ours = |line: &str| {
            Wanted::parse(&format!("{line}host=github.com\n")).unwrap().is_for("x-access-token")
        };
        for line in ["", "username=x-access-token\n", "username=a\nusername=x-access-token\n"] {
            assert!(is_ours(line), "{line}");
        }
        for line in [
            "username=octocat\n",
            "username=\n",
            "username=X-Access-Token\n",
            "username=x-access-token \n",
        ] {
            assert!(!is_ours(line), "{line}");
        }
    }

    #[test]
    fn a_carriage_return_is_refused_wherever_it_stands() {
        for text in [
            "protocol=https\r\nhost=github.com\r\n\r\n",
            "protocol=https\nhost=github.com\r\n",
            "protocol=https\nhost=github.com\rhost=evil.example\n",
            "protocol=https\nhost=github.com\nwhatever=a\rb\n",
            "protocol=https\nho\rst=github.com\n",
            "\rprotocol=https\n",
            "protocol=https\nhost=github.com\0\n",
        ] {
            assert!(Wanted::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_scope_is_in_the_path() {
        let scope = |path: &str| {
            Wanted::parse(&format!("path={path}\n")).unwrap().scope().map(|scope| scope.to_string())
        };
        for path in ["o/r", "o/r.git", "/o/r.git/", "o/r.git/info/lfs", "o/r.wiki.git"] {
            assert_eq!(scope(path), Ok("o/r".to_owned()), "{path}");
        }
        for path in ["", "o", "o/r/s", "../r", "o/..", "o/r%2fs", "o/r.git/info"] {
            assert!(scope(path).is_err(), "{path}");
        }
        assert!(scope("").unwrap_err().contains("useHttpPath"));
    }
}
