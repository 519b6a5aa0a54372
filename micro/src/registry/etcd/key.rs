//! The keys: `/micro/registry/SERVICE/ID`, with `/` in either written `-`.

use etcd_client::KeyValue;

use super::super::Node;

/// What go-micro's keys begin with.
pub(super) const ROOT: &str = "/micro/registry/";

/// A key and its value as they stand in etcd.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    /// The revision of its last write.
    pub(super) revision: u64,
}

impl Record {
    pub(super) fn of(kv: &KeyValue) -> Self {
        Self {
            key: text(kv),
            value: kv.value().to_vec(),
            revision: u64::try_from(kv.mod_revision()).unwrap_or(0),
        }
    }
}

/// The key as text; what is not UTF-8 in a foreign one is replaced, which suffices to tell it.
pub(super) fn text(kv: &KeyValue) -> String {
    String::from_utf8_lossy(kv.key()).into_owned()
}

/// As go-micro spells a name in a key. Nothing else is escaped, so `team/pay` and `team-pay`
/// share their keys; the value has the true name.
pub(super) fn escape(name: &str) -> String {
    name.replace('/', "-")
}

/// The key of a node.
///
/// # Errors
/// A name that go-micro's `path.Join` would make another key of: empty, `.` or `..`.
pub(super) fn of(node: &Node) -> Result<String, String> {
    Ok(format!("{}{}", prefix(&node.service)?, part("id", &node.id)?))
}

/// What the keys of a service's nodes begin with.
pub(super) fn prefix(service: &str) -> Result<String, String> {
    Ok(format!("{ROOT}{}/", part("service name", service)?))
}

fn part(what: &str, name: &str) -> Result<String, String> {
    match name {
        "" => Err(format!("the {what} is empty")),
        "." | ".." => Err(format!("the {what} is `{name}`, which is no name in a key")),
        _ => Ok(escape(name)),
    }
}

/// The first key after all that begin with `prefix`.
pub(super) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // UTF-8 has no byte 0xff, so this never overflows.
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_go_micro_wrote() {
        let key = |service: &str, id: &str| of(&Node::new(service, id, "h:1"));
        let id = "team/pay.svc-a0406fa1-b197-400d-b652-12b1ed37ec74";
        assert_eq!(
            key("team/pay.svc", id).unwrap(),
            "/micro/registry/team-pay.svc/team-pay.svc-a0406fa1-b197-400d-b652-12b1ed37ec74"
        );
        assert_eq!(key("a b%", "\u{e9}").unwrap(), "/micro/registry/a b%/\u{e9}");
        assert_eq!(prefix_end("/micro/registry/a/"), b"/micro/registry/a0");
    }

    #[test]
    fn names_that_would_be_another_key_are_refused() {
        for name in ["", ".", ".."] {
            assert!(of(&Node::new(name, "a", "h:1")).unwrap_err().contains("service name"));
            assert!(of(&Node::new("a", name, "h:1")).unwrap_err().contains("id"));
        }
    }
}
