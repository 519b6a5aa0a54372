mod driver;
mod log;
mod machine;
mod model;
mod scripted;
#[cfg(feature = "tonic-channel")]
mod tonic;

use std::sync::Arc;

use super::Update;
use crate::registry::{Entry, Event, Malformed, Node};

/// A record in short: `a@x` is node `a` at address `x` under key `a`; `k:a@x` puts it under key `k`,
/// `?a@x` does not speak gRPC, `!a` cannot be decoded, `-a` is gone; `#3` at the end is the revision
/// of its last write, `^1` before that its rank.
fn event(short: &str, revision: u64) -> Event {
    let (short, revision) = match short.split_once('#') {
        Some((short, revision)) => (short, revision.parse().unwrap()),
        None => (short, revision),
    };
    if let Some(key) = short.strip_prefix('-') {
        return Event::Delete(key.to_owned());
    }
    if let Some(key) = short.strip_prefix('!') {
        return Event::Malformed(Malformed { key: key.to_owned(), reason: "not JSON".to_owned() });
    }
    let (short, is_grpc) = match short.strip_prefix('?') {
        Some(short) => (short, false),
        None => (short, true),
    };
    let (id, address) = short.split_once('@').unwrap();
    let (address, rank) = address.split_once('^').unwrap_or((address, "0"));
    let (key, id) = id.split_once(':').unwrap_or((id, id));
    let mut node = Node::new("greeter", id, address);
    if !is_grpc {
        node.metadata.insert("protocol".to_owned(), "mucp".to_owned());
    }
    let rank = rank.parse().unwrap();
    Event::Put(Entry { key: key.to_owned(), revision, rank, node: Arc::new(node) })
}

/// Updates in short: `=[a@x b@y]`, `+a@x`, `-a`.
pub(super) fn short(update: &Update) -> String {
    let node = |node: &Arc<Node>| format!("{}@{}", node.id, node.address);
    match update {
        Update::Reset(nodes) => {
            format!("=[{}]", nodes.iter().map(node).collect::<Vec<_>>().join(" "))
        }
        Update::Insert(it) => format!("+{}", node(it)),
        Update::Remove(id) => format!("-{id}"),
        Update::Forget => "forget".to_owned(),
    }
}
