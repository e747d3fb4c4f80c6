//! A reader of the environment that collects every error in it.

use std::fmt::{self, Display};

use super::variables::Variable;
use crate::environment::Environment;

/// Something about one variable that an operator should know: what is wrong, or what has no effect.
/// The variable's value is never repeated, because a secret may have ended up in the wrong
/// variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The variable.
    pub variable: String,
    /// The rest of the sentence that starts with the variable's name.
    pub text: String,
}

impl Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.variable, self.text)
    }
}

/// Every error in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Remark>);

impl Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has an error:")?,
            count => write!(f, "the configuration has {count} errors:")?,
        }
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads variables one by one and goes on after an error.
///
/// Each method that returns `Option` has noted an error where it returns `None`.
pub(super) struct Reader<'e> {
    environment: &'e Environment,
    errors: Vec<Remark>,
    warnings: Vec<Remark>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(environment: &'e Environment) -> Self {
        Self { environment, errors: Vec::new(), warnings: Vec::new() }
    }

    /// All of it, for a file that names variables.
    pub(super) fn environment(&self) -> &'e Environment {
        self.environment
    }

    /// Notes an error in a variable.
    pub(super) fn refuse<T>(&mut self, variable: &str, text: impl Display) -> Option<T> {
        self.errors.push(Remark { variable: variable.to_owned(), text: text.to_string() });
        None
    }

    /// Notes a setting that is valid but probably unintended.
    pub(super) fn warning(&mut self, variable: &str, text: impl Display) {
        self.warnings.push(Remark { variable: variable.to_owned(), text: text.to_string() });
    }

    /// The names of all variables that begin so and are set.
    pub(super) fn names(&self, prefix: &str) -> Vec<&'e str> {
        let set = self.environment.names().filter(|name| name.starts_with(prefix));
        set.filter(|name| self.environment.has(name)).collect()
    }

    /// Whether the variable is set.
    pub(super) fn has(&self, variable: &Variable) -> bool {
        self.environment.has(variable.name)
    }

    /// The variable's value without the white space around it. If it is unset: the value of its
    /// lowercase spelling (for proxies), then its default. `Some(None)` means that there is none.
    pub(super) fn text(&mut self, variable: &Variable) -> Option<Option<&'e str>> {
        let lowercase = if variable.name.ends_with("_PROXY") {
            variable.name.to_ascii_lowercase()
        } else {
            String::new()
        };
        let Some(value) =
            self.environment.raw(variable.name).or_else(|| self.environment.raw(&lowercase))
        else {
            return Some(variable.default);
        };
        match value.to_str() {
            Some(value) => Some(Some(value.trim())),
            None => self.refuse(variable.name, "is not UTF-8"),
        }
    }

    /// The variable's value, parsed; `Some(None)` if it is not set.
    pub(super) fn optional<T, E: Display>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.text(variable)?.map(parse) {
            None => Some(None),
            Some(Ok(value)) => Some(Some(value)),
            Some(Err(expected)) => self.refuse(variable.name, expected),
        }
    }

    /// The variable's value, parsed; it must be set or have a default. If it has neither, the error
    /// of `parse` for an empty string says what is expected.
    pub(super) fn required<T, E: Display>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        match (parse(text.unwrap_or_default()), text) {
            (Ok(value), Some(_)) => Some(value),
            (Err(expected), Some(_)) => self.refuse(variable.name, expected),
            (Err(expected), None) => {
                self.refuse(variable.name, format!("is not set; it {expected}"))
            }
            (Ok(_), None) => self.refuse(variable.name, "is not set"),
        }
    }

    /// `value` with the warnings, if there was no error.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<(T, Vec<Remark>), ConfigErrors> {
        match value {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            _ => Err(ConfigErrors(self.errors)),
        }
    }
}
