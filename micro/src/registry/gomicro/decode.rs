//! Reading the record as Go's `encoding/json` would, and with a better word where it is wrong:
//! every field may be missing or `null`, keys match in any case, unknown ones are passed over.

use std::{collections::BTreeMap, fmt::Display};

use serde_json::{Map, Value as Json};

use super::{
    super::{Endpoint, Node, Value, url::host_and_port},
    MAX_LEN,
};

/// The longest reason, in characters: it goes into a log, and may quote a key of the record.
const MAX_REASON: usize = 200;

/// The node in a record.
///
/// # Errors
/// What is wrong and where in the record, in words; never its whole text. Besides what is not
/// JSON or of another type: a record without a service's name, with no node or several, a node
/// without an id, and a gRPC node whose address is not `host:port`.
#[cfg_attr(
    not(any(feature = "etcd", feature = "kubernetes")),
    allow(dead_code, reason = "others keep no record of go-micro's")
)]
pub(in super::super) fn decode(bytes: &[u8]) -> Result<Node, String> {
    read(bytes).map_err(shorten)
}

/// The node of this id and address, of which a TXT record says the rest.
///
/// # Errors
/// As [`decode`], as far as it applies.
#[cfg_attr(not(feature = "mdns"), allow(dead_code, reason = "mdns:// alone reads it"))]
pub(in super::super) fn decode_text(
    bytes: &[u8],
    id: &str,
    address: String,
) -> Result<Node, String> {
    read_text(bytes, id, address).map_err(shorten)
}

fn shorten(why: String) -> String {
    match why.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}..", &why[..end]),
        None => why,
    }
}

fn parse(bytes: &[u8]) -> Result<Json, String> {
    if bytes.len() > MAX_LEN {
        let length = bytes.len();
        return Err(format!("it takes {length} bytes, over the limit of {MAX_LEN}"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if bytes.is_empty() { "it is empty".to_owned() } else { format!("not JSON: {error}") }
    })
}

fn read_text(bytes: &[u8], id: &str, address: String) -> Result<Node, String> {
    let json = parse(bytes)?;
    let record = At::root(&json).object()?.ok_or("it is `null`")?;
    let service = record.text("Service")?;
    if service.is_empty() {
        return Err("`Service` is missing: the service has no name".to_owned());
    }
    Ok(Node {
        version: record.text("Version")?,
        id: id.to_owned(),
        address,
        metadata: record.field("Metadata").texts()?,
        endpoints: record.endpoints("Endpoints")?,
        service,
    })
}

fn read(bytes: &[u8]) -> Result<Node, String> {
    let json = parse(bytes)?;
    let record = At::root(&json).object()?.ok_or("it is `null`")?;
    let service = record.text("name")?;
    if service.is_empty() {
        return Err("`name` is missing: the service has no name".to_owned());
    }
    let mut nodes = record.field("nodes").list()?;
    let (Some(node), None) = (nodes.next(), nodes.next()) else {
        let count = record.field("nodes").list()?.count();
        return Err(format!("`nodes` has {count} nodes where there must be one"));
    };
    let node = node.object()?.ok_or("`nodes[0]` is `null`")?;
    let decoded = Node {
        version: record.text("version")?,
        id: node.text("id")?,
        address: node.text("address")?,
        metadata: node.field("metadata").texts()?,
        endpoints: record.endpoints("endpoints")?,
        service,
    };
    if decoded.id.is_empty() {
        return Err("`nodes[0].id` is missing".to_owned());
    }
    if decoded.is_grpc() && !matches!(host_and_port(&decoded.address), Some((_, Some(_)))) {
        return Err(format!("`nodes[0].address` is {:?}, not `host:port`", decoded.address));
    }
    Ok(decoded)
}

fn endpoint(endpoint: &Object<'_>) -> Result<Endpoint, String> {
    let value = |key| endpoint.field(key).object()?.map(|object| value(&object)).transpose();
    Ok(Endpoint {
        name: endpoint.text("name")?,
        request: value("request")?,
        response: value("response")?,
        metadata: endpoint.field("metadata").texts()?,
    })
}

/// Recursion ends where serde_json's does: it refuses more than 128 levels.
fn value(object: &Object<'_>) -> Result<Value, String> {
    Ok(Value {
        name: object.text("name")?,
        kind: object.text("type")?,
        values: object
            .field("values")
            .list()?
            .filter_map(|field| field.object().transpose())
            .map(|field| value(&field?))
            .collect::<Result<_, _>>()?,
    })
}

/// A JSON value and the way to it, for the errors.
struct At<'a> {
    json: &'a Json,
    path: String,
}

struct Object<'a> {
    map: &'a Map<String, Json>,
    path: String,
}

impl<'a> At<'a> {
    fn root(json: &'a Json) -> Self {
        Self { json, path: String::new() }
    }

    fn wrong(&self, expected: impl Display) -> String {
        let found = match self.json {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "a list",
            Json::Object(_) => "an object",
        };
        let path = if self.path.is_empty() { "the record" } else { &self.path };
        format!("`{path}` is {found} where {expected} is expected")
    }

    fn object(self) -> Result<Option<Object<'a>>, String> {
        match self.json {
            Json::Null => Ok(None),
            Json::Object(map) => Ok(Some(Object { map, path: self.path })),
            _ => Err(self.wrong("an object")),
        }
    }

    fn list(self) -> Result<impl Iterator<Item = At<'a>>, String> {
        let items: &[Json] = match self.json {
            Json::Null => &[],
            Json::Array(items) => items,
            _ => return Err(self.wrong("a list")),
        };
        let path = self.path;
        let at = move |(index, json)| At { json, path: format!("{path}[{index}]") };
        Ok(items.iter().enumerate().map(at))
    }

    fn text(self) -> Result<String, String> {
        match self.json {
            Json::Null => Ok(String::new()),
            Json::String(text) => Ok(text.clone()),
            _ => Err(self.wrong("a string")),
        }
    }

    fn texts(self) -> Result<BTreeMap<String, String>, String> {
        let Some(object) = self.object()? else {
            return Ok(BTreeMap::new());
        };
        let entry = |(key, json): (&String, &'a Json)| {
            let at = At { json, path: format!("{}.{key}", object.path) };
            Ok((key.clone(), at.text()?))
        };
        object.map.iter().map(entry).collect()
    }
}

impl<'a> Object<'a> {
    /// The field of this name, else of this name in another case, else `null`.
    fn field(&self, key: &str) -> At<'a> {
        let same =
            |(name, json): (&'a String, &'a Json)| name.eq_ignore_ascii_case(key).then_some(json);
        let json =
            self.map.get(key).or_else(|| self.map.iter().find_map(same)).unwrap_or(&Json::Null);
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        At { json, path }
    }

    fn text(&self, key: &str) -> Result<String, String> {
        self.field(key).text()
    }

    fn endpoints(&self, key: &str) -> Result<Vec<Endpoint>, String> {
        self.field(key)
            .list()?
            .filter_map(|endpoint| endpoint.object().transpose())
            .map(|one| endpoint(&one?))
            .collect()
    }
}
