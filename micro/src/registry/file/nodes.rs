//! What the file says: a table a service, its nodes listed within.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::super::{Node, url::host_and_port};
use crate::near;

/// The nodes of each service, in the file's order.
pub(super) type Services = BTreeMap<String, Vec<Node>>;

type Value<'a> = Spanned<DeValue<'a>>;

/// What is wrong with the file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    line: usize,
    column: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

/// A fault, at the bytes that it is about.
type Wrong = (Range<usize>, String);

/// Takes the file apart. One fault spoils all of it: half a list would be taken for the whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Services, Fault> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let end = error.valid_up_to();
        fault(&bytes[..end], end, "is not UTF-8; save the file as UTF-8".to_owned())
    })?;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        fault(bytes, at, error.message().trim().replace('\n', ", "))
    })?;
    services(table.get_ref()).map_err(|(span, what)| fault(bytes, span.start, what))
}

fn fault(bytes: &[u8], at: usize, what: String) -> Fault {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.split(|byte| *byte == b'\n');
    let column = String::from_utf8_lossy(line.clone().next_back().unwrap_or_default());
    Fault { line: line.count(), column: column.chars().count() + 1, what }
}

fn services(table: &DeTable<'_>) -> Result<Services, Wrong> {
    let services = table.iter().map(|(name, value)| {
        let service = name.get_ref();
        if service.is_empty() {
            return Err((name.span(), "the service's name is empty".to_owned()));
        }
        let shown = service.escape_debug();
        let DeValue::Table(table) = value.get_ref() else {
            let kind = value.get_ref().type_str();
            return Err((
                value.span(),
                format!(
                    "`{shown}` is no table but a thing of type {kind}; write `[{shown}]`, and \
                     `nodes = [\"127.0.0.1:4001\"]` in the line below"
                ),
            ));
        };
        Ok((service.to_string(), nodes(service, name, table)?))
    });
    services.collect()
}

fn nodes(
    service: &str,
    name: &Spanned<impl AsRef<str>>,
    table: &DeTable<'_>,
) -> Result<Vec<Node>, Wrong> {
    let shown = service.escape_debug();
    known(table, &["nodes", "version"], &format!("service {shown}"))?;
    let version = table.get("version").map(|it| text(it, "version")).transpose()?;
    let Some(list) = table.get("nodes") else {
        let what = format!(
            "service {shown} has no `nodes`; write `nodes = [\"127.0.0.1:4001\"]`, or `nodes = []` \
             for none"
        );
        return Err((name.span(), what));
    };
    let DeValue::Array(list) = list.get_ref() else {
        return Err((list.span(), "`nodes` is not a list; write it in brackets".to_owned()));
    };
    let (mut nodes, mut addresses, mut ids) = (Vec::new(), HashSet::new(), HashSet::new());
    for value in list.iter() {
        let mut node = node(service, value)?;
        if let Some(version) = version {
            node.version = version.to_owned();
        }
        for (what, word, taken) in
            [("address", &node.address, &mut addresses), ("id", &node.id, &mut ids)]
        {
            if !taken.insert(word.clone()) {
                let word = word.escape_debug();
                let what = format!("the {what} `{word}` is there twice in service {shown}");
                return Err((value.span(), what));
            }
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn node(service: &str, value: &Value<'_>) -> Result<Node, Wrong> {
    let of = |address: &str| Node::new(service, format!("{service}-{address}"), address);
    let table = match value.get_ref() {
        DeValue::String(_) => return Ok(of(address(value)?)),
        DeValue::Table(table) => table,
        _ => {
            let what = "a node is an address, \"127.0.0.1:4001\", or a table, { address = \
                        \"127.0.0.1:4001\", id = \"a\" }";
            return Err((value.span(), what.to_owned()));
        }
    };
    known(table, &["address", "id", "metadata"], "a node")?;
    let Some(at) = table.get("address") else {
        return Err((value.span(), "the node has no `address`".to_owned()));
    };
    let mut node = of(address(at)?);
    if let Some(id) = table.get("id") {
        node.id = text(id, "id")?.to_owned();
    }
    if let Some(metadata) = table.get("metadata") {
        let DeValue::Table(facts) = metadata.get_ref() else {
            let what = "`metadata` is no table; write `metadata = { zone = \"a\" }`";
            return Err((metadata.span(), what.to_owned()));
        };
        for (key, value) in facts {
            let DeValue::String(fact) = value.get_ref() else {
                let key = key.get_ref().escape_debug();
                let what = format!("`{key}` in `metadata` is no text; write it in quotes");
                return Err((value.span(), what));
            };
            node.metadata.insert(key.get_ref().to_string(), fact.to_string());
        }
    }
    Ok(node)
}

fn address<'a>(value: &'a Value<'_>) -> Result<&'a str, Wrong> {
    let address = text(value, "address")?;
    match host_and_port(address) {
        Some((_, Some(_))) => Ok(address),
        _ => {
            let address = address.escape_debug();
            Err((value.span(), format!("`{address}` is not `host:port`")))
        }
    }
}

fn text<'a>(value: &'a Value<'_>, key: &str) -> Result<&'a str, Wrong> {
    match value.get_ref().as_str() {
        Some("") => Err((value.span(), format!("`{key}` is empty"))),
        Some(text) => Ok(text),
        None => Err((value.span(), format!("`{key}` is no text; write it in quotes"))),
    }
}

/// Refuses every key but these.
fn known(table: &DeTable<'_>, keys: &[&str], of: &str) -> Result<(), Wrong> {
    let Some((key, value)) = table.iter().find(|(key, _)| !keys.contains(&&**key.get_ref())) else {
        return Ok(());
    };
    let word = key.get_ref();
    let remedy = match near::meant(word, keys.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None if value.get_ref().is_table() => {
            "a service's name with a dot in it is written in quotes, [\"team.pay\"]".to_owned()
        }
        None => format!("there are {}", keys.join(", ")),
    };
    let word = near::clip(word).escape_debug();
    Err((key.span(), format!("unknown key `{word}` of {of}; {remedy}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_nodes_are_as_written() {
        let services = parse(
            br#"
            [greeter]
            version = "1.2.0"
            nodes = [
                "127.0.0.1:4001",
                { address = "[::1]:4002", id = "greeter-b", metadata = { zone = "a", "x y" = "" } },
            ]

            ["team.pay"]
            nodes = ["pay.internal:80"]

            # None for now.
            [empty]
            nodes = []

            [[tables.nodes]]
            address = "127.0.0.1:5001"
            "#,
        )
        .unwrap();
        let mut first = Node::new("greeter", "greeter-127.0.0.1:4001", "127.0.0.1:4001");
        let mut second = Node::new("greeter", "greeter-b", "[::1]:4002");
        for node in [&mut first, &mut second] {
            node.version = "1.2.0".to_owned();
        }
        second.metadata.insert("zone".to_owned(), "a".to_owned());
        second.metadata.insert("x y".to_owned(), String::new());
        let pay = Node::new("team.pay", "team.pay-pay.internal:80", "pay.internal:80");
        let table = Node::new("tables", "tables-127.0.0.1:5001", "127.0.0.1:5001");
        let expected = [
            ("empty", vec![]),
            ("greeter", vec![first, second]),
            ("tables", vec![table]),
            ("team.pay", vec![pay]),
        ];
        assert_eq!(services, expected.map(|(name, nodes)| (name.to_owned(), nodes)).into());
        assert_eq!(parse(b""), Ok(Services::new()));
    }

    #[test]
    fn faults_are_named_with_their_place_and_the_remedy() {
        for (text, named) in [
            (
                "greeter = [\"127.0.0.1:1\"]",
                "1:11: `greeter` is no table but a thing of type array; write `[greeter]`, and `nodes = [\"127.0.0.1:4001\"]` in the line below",
            ),
            (
                "\n[a]\n",
                "2:2: service a has no `nodes`; write `nodes = [\"127.0.0.1:4001\"]`, or `nodes = []` for none",
            ),
            ("[a]\nnode = []", "2:1: unknown key `node` of service a; did you mean 'nodes'?"),
            (
                "[a]\nnodes = []\ncolour = 1",
                "3:1: unknown key `colour` of service a; there are nodes, version",
            ),
            (
                "[team.pay]\nnodes = []",
                "1:7: unknown key `pay` of service team; a service's name with a dot in it is written in quotes, [\"team.pay\"]",
            ),
            ("[a]\nnodes = \"b:1\"", "2:9: `nodes` is not a list; write it in brackets"),
            ("[a]\nversion = 1\nnodes = []", "2:11: `version` is no text; write it in quotes"),
            ("[a]\nversion = \"\"\nnodes = []", "2:11: `version` is empty"),
            (
                "[a]\nnodes = [1]",
                "2:10: a node is an address, \"127.0.0.1:4001\", or a table, { address = \"127.0.0.1:4001\", id = \"a\" }",
            ),
            ("[a]\nnodes = [\n  \"b:1\",\n  \"b\"]", "4:3: `b` is not `host:port`"),
            ("[a]\nnodes = [\"b:0\"]", "2:10: `b:0` is not `host:port`"),
            ("[a]\nnodes = [\"\"]", "2:10: `address` is empty"),
            (
                "[a]\nnodes = [\"\u{e9}\u{e9}:1\", \"b\\n:1\"]",
                "2:10: `\u{e9}\u{e9}:1` is not `host:port`",
            ),
            ("[a]\nnodes = [{ id = \"\u{e9}\" }]", "2:10: the node has no `address`"),
            (
                "[a]\nnodes = [{ adress = \"b:1\" }]",
                "2:12: unknown key `adress` of a node; did you mean 'address'?",
            ),
            ("[a]\nnodes = [{ address = 1 }]", "2:22: `address` is no text; write it in quotes"),
            ("[a]\nnodes = [{ address = \"b:1\", id = \"\" }]", "2:34: `id` is empty"),
            (
                "[a]\nnodes = [{ address = \"b:1\", metadata = 1 }]",
                "2:40: `metadata` is no table; write `metadata = { zone = \"a\" }`",
            ),
            (
                "[a]\nnodes = [{ address = \"b:1\", metadata = { z = 1 } }]",
                "2:46: `z` in `metadata` is no text; write it in quotes",
            ),
            (
                "[a]\nnodes = [\"b:1\", \"b:1\"]",
                "2:17: the address `b:1` is there twice in service a",
            ),
            (
                "[a]\nnodes = [{ address = \"b:1\", id = \"x\" }, { address = \"b:2\", id = \"x\" }]",
                "2:41: the id `x` is there twice in service a",
            ),
            (
                "[a]\nnodes = [\"b:1\", { address = \"b:2\", id = \"a-b:1\" }]",
                "2:17: the id `a-b:1` is there twice in service a",
            ),
            ("[\"\"]\nnodes = []", "1:2: the service's name is empty"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), named, "{text}");
        }
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_place() {
        for (text, place) in [
            (&b"[a]\nnodes = [\"b:1\""[..], "2:"),
            (b"[a]\nnodes = []\n[a]\nnodes = []", "3:2: "),
            (b"[a]\nnodes = []\nnodes = []", "3:1: "),
            (b"[a]\n=", "2:1: "),
            (b"[a]\nnodes = [\"\xff\"]", "2:11: is not UTF-8"),
        ] {
            let fault = parse(text).unwrap_err().to_string();
            assert!(fault.starts_with(place) && !fault.contains('\n'), "{fault}");
        }
        let deep = "[a]\nnodes = ".to_owned() + &"[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err(), "nesting is bounded");
    }
}
