//! The environment variables of a process, as strings.

use std::{collections::BTreeMap, ffi::OsString, fmt};

/// Names and values of environment variables. Only [`Environment::of_process`] reads the process.
#[derive(Clone, Default, PartialEq)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The environment of this process. Variables whose names are not Unicode are left out.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the process")]
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
        )
    }

    /// Whether the variable is there and not blank.
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The value of any variable, unless it is blank or not Unicode.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.raw(name)?.to_str()
    }

    /// The value exactly as it is, also if it is blank; `None` if it is unset or not Unicode.
    pub fn untrimmed(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str()
    }

    /// The value, unless it is blank: an empty variable counts as unset.
    pub(crate) fn raw(&self, name: &str) -> Option<&OsString> {
        self.0.get(name).filter(|value| !value.as_encoded_bytes().trim_ascii().is_empty())
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// The names only: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
