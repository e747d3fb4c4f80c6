//! A trust policy's file as written: every key with its place, nothing judged yet.
//!
//! Null and absent are one for the conditions, where an empty value means "not set". They are two
//! for `repositories`, `app` and `app_pattern`: an emptied restriction must not read as none.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::yaml::{At, present};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map of policy keys")]
pub(super) struct Document {
    pub(super) issuer: Option<At<String>>,
    pub(super) issuer_pattern: Option<At<String>>,
    pub(super) subject: Option<At<String>>,
    pub(super) subject_pattern: Option<At<String>>,
    pub(super) audience: Option<At<String>>,
    pub(super) audience_pattern: Option<At<String>>,
    pub(super) claim_pattern: Option<Entries>,
    pub(super) permissions: Option<Entries>,
    #[serde(default, deserialize_with = "present")]
    pub(super) repositories: Option<At<Vec<At<String>>>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) app: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) app_pattern: Option<At<String>>,
}

/// Names and texts, in the file's order, each name once. An empty text stands for none.
#[derive(Debug, Default)]
pub(super) struct Entries(pub(super) Vec<(At<String>, At<String>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of names and texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Entries, E> {
                if text.is_empty() {
                    Ok(Entries::default())
                } else {
                    Err(E::invalid_type(de::Unexpected::Str(""), &self))
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
