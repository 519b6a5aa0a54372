//! Go's JSON: read as leniently as `encoding/json` reads, and written as it writes.

use std::{borrow::Cow, collections::BTreeMap, fmt, io};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{
    Number,
    ser::{Formatter, Serializer},
};

/// The longest record that is read or written, in bytes: etcd itself takes no request over
/// 1.5 MiB. Real records take a few KiB.
pub(super) const MAX_LEN: usize = 1024 * 1024;

/// The longest reason, in characters: it goes into a log, and may quote a key of the record.
const MAX_REASON: usize = 200;

/// A JSON value. Any may be missing or `null`; an object's keys match in any case, and those that
/// nobody asks for are passed over.
///
/// Kept small, since whoever can write into the registry chooses it: `serde_json::Value` makes
/// 95 MB of a 1 MB record of small objects.
#[derive(Debug)]
pub(super) enum Json<'a> {
    Null,
    #[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "etcd:// alone looks into it"))]
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Object<'a>),
}

#[derive(Debug, Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

/// What is wrong with a record, and where in it.
#[derive(Debug)]
pub(super) struct Wrong {
    path: String,
    why: String,
}

/// The value in a record.
///
/// # Errors
/// What is not JSON, nested deeper than 128 levels, or over [`MAX_LEN`].
pub(super) fn parse(bytes: &[u8]) -> Result<Json<'_>, String> {
    within_limit(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| {
        if bytes.is_empty() { "it is empty".to_owned() } else { format!("not JSON: {error}") }
    })
}

/// The object in a record, read by `read`; otherwise as [`parse`].
pub(super) fn parse_object<T>(
    bytes: &[u8],
    read: impl FnOnce(&Object<'_>) -> Result<T, Wrong>,
) -> Result<T, String> {
    let read = |json: Json<'_>| match json.object() {
        Ok(Some(object)) => read(object).map_err(|wrong| wrong.to_string()),
        Ok(None) => Err("it is `null`".to_owned()),
        Err(wrong) => Err(wrong.to_string()),
    };
    parse(bytes).and_then(read).map_err(shorten)
}

/// Refuses a record over [`MAX_LEN`].
pub(super) fn within_limit(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > MAX_LEN {
        let length = bytes.len();
        return Err(format!("it takes {length} bytes, over the limit of {MAX_LEN}"));
    }
    Ok(())
}

/// A reason fit for a log.
pub(in crate::registry) fn shorten(why: String) -> String {
    match why.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}..", &why[..end]),
        None => why,
    }
}

/// The record as Go's `encoding/json` writes it.
///
/// # Errors
/// A record over [`MAX_LEN`], saying so.
pub(super) fn write(record: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(1024);
    record
        .serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter))
        .map_err(|error| error.to_string())?;
    if bytes.len() > MAX_LEN {
        let length = bytes.len();
        return Err(format!(
            "the record takes {length} bytes, over the limit of {MAX_LEN}: give the node less metadata"
        ));
    }
    Ok(bytes)
}

impl Wrong {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { path: String::new(), why: why.into() }
    }

    /// The same, seen from the object around this field.
    pub(super) fn in_field(self, key: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{key}{dot}{}", self.path), ..self }
    }

    /// The same, seen from the list around this item.
    pub(super) fn in_item(self, index: usize) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("[{index}]{dot}{}", self.path), ..self }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the record" } else { &self.path };
        write!(f, "`{path}` {}", self.why)
    }
}

impl<'a> Json<'a> {
    fn wrong(&self, expected: &str) -> Wrong {
        let found = match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        };
        Wrong::new(format!("is {found} where {expected} is expected"))
    }

    pub(super) fn object(&self) -> Result<Option<&Object<'a>>, Wrong> {
        match self {
            Self::Null => Ok(None),
            Self::Object(object) => Ok(Some(object)),
            _ => Err(self.wrong("an object")),
        }
    }

    pub(super) fn list(&self) -> Result<&[Self], Wrong> {
        match self {
            Self::Null => Ok(&[]),
            Self::List(items) => Ok(items),
            _ => Err(self.wrong("a list")),
        }
    }

    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match self {
            Self::Null => Ok(""),
            Self::Text(text) => Ok(text),
            _ => Err(self.wrong("a string")),
        }
    }

    /// As Go reads into an `int`.
    pub(super) fn integer(&self) -> Result<i64, Wrong> {
        match self {
            Self::Null => Ok(0),
            Self::Number(number) => {
                number.as_i64().ok_or_else(|| Wrong::new(format!("is {number}, not an integer")))
            }
            _ => Err(self.wrong("an integer")),
        }
    }
}

impl<'a> Object<'a> {
    /// The field of this name, else of this name in another case, else `null`.
    pub(super) fn get(&self, key: &str) -> &Json<'a> {
        let mut fields = self.0.iter().rev();
        let exact = fields.clone().find(|(name, _)| name == key);
        let field = exact.or_else(|| fields.find(|(name, _)| name.eq_ignore_ascii_case(key)));
        field.map_or(&Json::Null, |(_, json)| json)
    }

    pub(super) fn text(&self, key: &str) -> Result<String, Wrong> {
        self.get(key).text().map(str::to_owned).map_err(|wrong| wrong.in_field(key))
    }

    pub(super) fn integer(&self, key: &str) -> Result<i64, Wrong> {
        self.get(key).integer().map_err(|wrong| wrong.in_field(key))
    }

    /// The object that this field is, read by `read`; none for `null`.
    pub(super) fn object<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Self) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Wrong> {
        let object = self.get(key).object().and_then(|object| object.map(read).transpose());
        object.map_err(|wrong| wrong.in_field(key))
    }

    /// The objects in the list that this field is, each read by `read`, without those that are
    /// `null` or that it makes nothing of.
    pub(super) fn objects<T>(
        &self,
        key: &str,
        read: impl Fn(&Self) -> Result<Option<T>, Wrong>,
    ) -> Result<Vec<T>, Wrong> {
        let one = |(index, item): (usize, &Json<'a>)| {
            let read = item.object().and_then(|object| object.map_or(Ok(None), &read));
            read.map_err(|wrong| wrong.in_item(index)).transpose()
        };
        let items = self.get(key).list();
        let read = items.and_then(|items| items.iter().enumerate().filter_map(one).collect());
        read.map_err(|wrong| wrong.in_field(key))
    }

    /// The field as Go reads into a `map[string]string`.
    pub(super) fn texts(&self, key: &str) -> Result<BTreeMap<String, String>, Wrong> {
        let text = |(name, json): &(Cow<'a, str>, Json<'a>)| match json.text() {
            Ok(text) => Ok((name.clone().into_owned(), text.to_owned())),
            Err(wrong) => Err(wrong.in_field(name)),
        };
        let texts = self.object(key, |object| object.0.iter().map(text).collect())?;
        Ok(texts.unwrap_or_default())
    }

    #[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "etcd:// alone looks into it"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(key, json)| (&**key, json))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            room(&mut list);
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut object = Vec::new();
        while let Some((Key(key), value)) = fields.next_entry()? {
            room(&mut object);
            object.push((key, value));
        }
        Ok(Json::Object(Object(object)))
    }
}

/// Room for one, not the usual four at once: most lists of a bomb have one item.
fn room<T>(list: &mut Vec<T>) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(JsonVisitor)? {
            Json::Text(key) => Ok(Self(key)),
            _ => Err(serde::de::Error::custom("a key is no string")),
        }
    }
}

/// Compact JSON with Go's escapes: HTML's `<`, `>` and `&`, and JavaScript's U+2028 and U+2029.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let escaped = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some(at) = rest.find(escaped) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut tail = rest[at..].chars();
            if let Some(c) = tail.next() {
                write!(writer, "\\u{:04x}", c as u32)?;
            }
            rest = tail.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}
