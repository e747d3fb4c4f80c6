//! Tree → serde, with errors that name places and rules.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::{Invalid, Mark, Node, Scalar, Value};

/// The newtype name by which [`super::At`] asks for a value with its place.
pub(crate) const MARKED: &str = "octo_sts::policy::yaml::At";

impl de::Error for Invalid {
    fn custom<T: fmt::Display>(rule: T) -> Self {
        Self::file(rule.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::file(format!("{wanted} is expected here"))
    }

    fn invalid_value(_: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::file(format!("{wanted} is expected here"))
    }

    fn invalid_length(_: usize, wanted: &dyn de::Expected) -> Self {
        Self::file(format!("{wanted} is expected here"))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::file(format!("one of {} is expected here", known.join(", ")))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        let folded = key.to_ascii_lowercase().replace('-', "_");
        match known.iter().find(|name| **name == folded || is_near(name, &folded)) {
            Some(name) if **name == folded => {
                Self::file(format!("unknown key; it is spelled `{name}`"))
            }
            Some(name) => Self::file(format!("unknown key; did you mean `{name}`?")),
            None => Self::file(format!("unknown key; there are {}", known.join(", "))),
        }
    }

    fn missing_field(name: &'static str) -> Self {
        Self::file(format!("`{name}` is missing"))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::file(format!("`{name}` is there twice"))
    }
}

/// Whether one edit (a letter more, less or other, or a plural) makes one key of the other.
pub(crate) fn is_near(name: &str, key: &str) -> bool {
    let common = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let reversed = |text: &str| text.bytes().rev().collect::<Vec<_>>();
    let head = common(name.as_bytes(), key.as_bytes());
    let tail = common(&reversed(name), &reversed(key));
    let (longer, shorter) = (name.len().max(key.len()), name.len().min(key.len()));
    longer - shorter <= 1 && shorter > 2 && head + tail + 1 >= longer
}

/// Where a text is wanted, what stands for one; else the value by its own type.
macro_rules! as_text {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
            match &self.value {
                Value::Scalar(scalar) => match scalar.text() {
                    Some(text) => visitor.visit_str(text).map_err(|error: Invalid| error.or_at(self.mark)),
                    None => Err(Invalid::at(self.mark, "a value is expected here")),
                },
                Value::List(_) | Value::Map(_) => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        let result = match &self.value {
            Value::Scalar(Scalar::Null) => visitor.visit_unit(),
            Value::Scalar(Scalar::Bool(value)) => visitor.visit_bool(*value),
            Value::Scalar(Scalar::Text(text)) => visitor.visit_str(text),
            Value::Scalar(Scalar::Integer(text)) => {
                match (text.parse::<u64>(), text.parse::<i64>()) {
                    (Ok(number), _) => visitor.visit_u64(number),
                    (_, Ok(number)) => visitor.visit_i64(number),
                    _ => Err(Invalid::at(
                        self.mark,
                        "this number is too large; put it in quotes if it is a text",
                    )),
                }
            }
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        };
        result.map_err(|error| error.or_at(self.mark))
    }

    as_text! { deserialize_str deserialize_string deserialize_char deserialize_identifier deserialize_bytes deserialize_byte_buf }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        match &self.value {
            Value::Scalar(Scalar::Null) => visitor.visit_none(),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        if name == MARKED {
            return visitor.visit_seq(Marked { node: self, next: 0 });
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        let Value::Scalar(scalar) = &self.value else {
            return Err(Invalid::at(self.mark, "a word is expected here"));
        };
        let word =
            scalar.text().ok_or_else(|| Invalid::at(self.mark, "a value is expected here"))?;
        let word: de::value::StrDeserializer<'_, Invalid> = word.into_deserializer();
        visitor.visit_enum(word).map_err(|error| error.or_at(self.mark))
    }

    /// Serde's derived structs would take a list of their fields' values as well.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        match &self.value {
            Value::List(_) => Err(Invalid::at(self.mark, "a map is expected here")),
            Value::Scalar(_) | Value::Map(_) => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 unit unit_struct seq tuple tuple_struct map ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Invalid;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Invalid> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, (super::At<String>, Node)>,
    value: Option<&'a Node>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Invalid;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Invalid> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let node = Node { mark: key.mark, value: Value::Scalar(Scalar::Text(key.value.clone())) };
        seed.deserialize(&node).map(Some).map_err(|error| error.or_at(key.mark))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Invalid> {
        let Some(node) = self.value.take() else {
            return Err(Invalid::file("a value without a key"));
        };
        seed.deserialize(node)
    }
}

/// Line, column and value, in this order.
struct Marked<'a> {
    node: &'a Node,
    next: u8,
}

impl<'de> SeqAccess<'de> for Marked<'_> {
    type Error = Invalid;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Invalid> {
        let Mark { line, column } = self.node.mark;
        self.next += 1;
        match self.next {
            1 => seed.deserialize(line.into_deserializer()).map(Some),
            2 => seed.deserialize(column.into_deserializer()).map(Some),
            3 => seed.deserialize(self.node).map(Some),
            _ => Ok(None),
        }
    }
}
