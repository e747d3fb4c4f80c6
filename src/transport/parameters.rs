//! The parameters of a REST request: query, form body or JSON body, read into the same fields.
//!
//! Decoding is strict, where most libraries replace what they cannot decode: a name that would
//! come out different from what was sent must not reach a comparison.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::request::{Field, Fields};

/// What a body holds, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`, and what gateways take an untyped body for.
    Json,
    /// Anything else: not a way to send parameters.
    Other,
}

impl BodyKind {
    /// By the value of `content-type`, its parameters left aside.
    pub(super) fn of(content_type: Option<&[u8]>) -> Self {
        let essence =
            content_type.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default();
        match essence.trim_ascii().to_ascii_lowercase().as_slice() {
            b"application/x-www-form-urlencoded" => Self::Form,
            b"" | b"application/json" => Self::Json,
            _ => Self::Other,
        }
    }
}

/// Reads a query or a form body (`application/x-www-form-urlencoded`).
pub(super) fn read_form(encoded: &[u8], fields: &mut Fields) {
    for pair in encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        match (form_text(name), form_text(value)) {
            (Some(name), Some(value)) => {
                if let Some(field) = Field::named(&name) {
                    fields.put(field, value);
                }
            }
            _ => fields.fault("the parameters are not valid URL encoding of UTF-8"),
        }
    }
}

/// One name or value, if every escape is one and the whole is UTF-8.
fn form_text(encoded: &[u8]) -> Option<String> {
    let mut rest = encoded.split(|byte| *byte == b'%');
    rest.next();
    let escapes =
        rest.all(|after| matches!(after, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()));
    let spaced: Vec<u8> =
        encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    escapes.then(|| percent_decode(&spaced).decode_utf8().ok().map(Cow::into_owned)).flatten()
}

/// Reads a JSON body: the request message as proto JSON, unknown fields ignored.
pub(super) fn read_json(body: &[u8], fields: &mut Fields) {
    // The reader does not look at the encoding of what it passes over.
    let read = std::str::from_utf8(body).ok().and_then(|body| {
        let mut json = serde_json::Deserializer::from_str(body);
        (&mut json).deserialize_map(Members(fields)).and_then(|()| json.end()).ok()
    });
    if read.is_none() {
        fields.fault("the body is not a JSON object of the request's fields");
    }
}

/// Reads a message's members. A map type would let a repeated member replace an earlier one.
struct Members<'a>(&'a mut Fields);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut lists = Vec::new();
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            let Some(field) = Field::named(&name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if field.is_repeated() {
                // Two lists of one name are two answers; two values of a singular one are found by
                // `put`.
                if lists.contains(&name) {
                    return Err(de::Error::custom("a list given twice"));
                }
                members.next_value_seed(List(field, self.0))?;
                lists.push(name);
            } else if let Some(text) = members.next_value::<Option<String>>()? {
                self.0.put(field, text);
            }
        }
        Ok(())
    }
}

/// Reads a list of texts, or null, which is an empty one.
struct List<'a>(Field, &'a mut Fields);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<(), A::Error> {
        while let Some(text) = texts.next_element::<String>()? {
            self.1.put(self.0, text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn outcome(read: impl FnOnce(&mut Fields)) -> Result<String, Reason> {
        let mut fields = Fields::default();
        read(&mut fields);
        fields.parse().map(|asked| asked.to_string()).map_err(|refusal| refusal.reason)
    }

    fn form(text: &str) -> Result<String, Reason> {
        outcome(|fields| read_form(text.as_bytes(), fields))
    }

    fn json(text: &str) -> Result<String, Reason> {
        outcome(|fields| read_json(text.as_bytes(), fields))
    }

    #[test]
    fn forms_are_decoded() {
        for text in [
            "scope=o/r&identity=a",
            "scope=o%2Fr&identity=%61",
            "scopes=o/r&scopes=o%2fr&identity=a&unknown=x&unknown=y",
            "&&identity=a&scope=o/r&",
            "scope=&scope=o/r&identity&identity=a",
            "scope=o/r&identity=a&aud=x&aud=y&cap=c&cap=d&identityProvider=p",
        ] {
            assert_eq!(form(text).as_deref(), Ok("o/r a"), "{text}");
        }
        assert_eq!(form("scope=o+r&identity=a"), Err(Reason::ScopeInvalid));
        assert_eq!(form("scope=o/r%00&identity=a"), Err(Reason::ScopeInvalid));
    }

    #[test]
    fn malformed_encoding_is_refused_wherever_it_stands() {
        for odd in ["%", "%4", "%zz", "a%ff", "%c3%28", "%+1", "\u{e9}%"] {
            for text in
                [format!("scope=o&identity=a&x={odd}"), format!("scope=o&identity=a&{odd}=x")]
            {
                assert_eq!(form(&text), Err(Reason::RequestInvalid), "{text}");
            }
        }
    }

    #[test]
    fn a_singular_field_twice_is_refused() {
        assert_eq!(form("scope=o&scope=o&identity=a"), Err(Reason::RequestInvalid));
        assert_eq!(
            form("scope=o&identity=a&identity_provider=p&identityProvider=p"),
            Err(Reason::RequestInvalid)
        );
        assert_eq!(
            json(r#"{"scope":"o","identity":"a","identity":"a"}"#),
            Err(Reason::RequestInvalid)
        );
        let both = outcome(|fields| {
            read_form(b"scope=o", fields);
            read_json(br#"{"scope":"o","identity":"a"}"#, fields);
        });
        assert_eq!(both, Err(Reason::RequestInvalid));
    }

    #[test]
    fn json_messages_are_read() {
        for text in [
            r#"{"scope":"o/r","identity":"a"}"#,
            r#" {"scopes":["o/r","O/R"],"identity":"a","x":{"y":[1]},"aud":["z"]} "#,
            r#"{"scope":"","scopes":["o/r"],"identity":"a","cap":[],"identity_provider":null,"aud":null}"#,
            r#"{"sc\u006fpe":"o\/r","identity":"\u0061","identityProvider":"p"}"#,
        ] {
            assert_eq!(json(text).as_deref(), Ok("o/r a"), "{text}");
        }
        assert_eq!(json("{}"), Err(Reason::ScopeInvalid));
    }

    #[test]
    fn json_of_another_shape_is_refused() {
        let deep = format!(r#"{{"scope":"o","identity":"a","x":{}}}"#, "[".repeat(10_000));
        for text in [
            "",
            "{",
            "[]",
            "null",
            r#""scope""#,
            r#"{"scope":"o","identity":"a"} {}"#,
            r#"{"scope":"o","identity":"a",}"#,
            r#"{"scope":["o"],"identity":"a"}"#,
            r#"{"scope":1,"identity":"a"}"#,
            r#"{"scopes":"o","identity":"a"}"#,
            r#"{"scopes":[null],"identity":"a"}"#,
            r#"{"scopes":["o"],"scopes":["o"],"identity":"a"}"#,
            r#"{"scope":"\ud800","identity":"a"}"#,
            deep.as_str(),
        ] {
            assert_eq!(json(text), Err(Reason::RequestInvalid), "{text:.80}");
        }
        for odd in [
            &b"{\"scope\":\"o\",\"identity\":\"\xff\"}"[..],
            b"{\"scope\":\"o\",\"identity\":\"a\",\"x\":\"\xff\"}",
        ] {
            assert_eq!(outcome(|fields| read_json(odd, fields)), Err(Reason::RequestInvalid));
        }
    }

    #[test]
    fn bodies_are_told_apart_by_their_type() {
        assert_eq!(
            BodyKind::of(Some(b"Application/X-www-form-urlencoded; charset=utf-8")),
            BodyKind::Form
        );
        assert_eq!(BodyKind::of(Some(b"application/json;charset=utf-8")), BodyKind::Json);
        assert_eq!(BodyKind::of(None), BodyKind::Json);
        for other in [
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "application/grpc",
        ] {
            assert_eq!(BodyKind::of(Some(other.as_bytes())), BodyKind::Other, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_client_encodes_is_what_is_read(scope in "\\PC*", other in "\\PC*") {
            let text = form_urlencoded::Serializer::new(String::new())
                .append_pair("scopes", &scope).append_pair(&other, &scope).append_pair("identity", "i").finish();
            let mut fields = Fields::default();
            read_form(text.as_bytes(), &mut fields);
            let known = scope.parse::<crate::name::Scope>().is_ok();
            proptest::prop_assert_eq!(fields.parse().is_ok(), known);
        }

        #[test]
        fn no_bytes_upset_the_readers(bytes: Vec<u8>, text in "[{}\\[\\]\",:a-z\\\\u%+&=]*") {
            for input in [bytes.as_slice(), text.as_bytes()] {
                let _ = outcome(|fields| read_form(input, fields));
                let _ = outcome(|fields| read_json(input, fields));
            }
        }
    }
}
