//! The keys: where in etcd each format has the records of a service, and under which each node's is.
//!
//! | format | key |
//! |---|---|
//! | go-micro | `/micro/registry/SERVICE/ID`, with `/` in either written `-` |
//! | go-zero | `SERVICE/LEASE`, the lease in decimal |
//! | Kratos | `/microservices/SERVICE/ID` |
//! | Kitex | `kitex/registry-etcd/SERVICE/ADDRESS`; with a password `/SERVICE/ADDRESS`, too |
//! | etcd's naming | `SERVICE/ID` |
//!
//! Kitex's constructors `NewEtcdRegistryWithAuth` and `NewEtcdResolverWithAuth` leave the prefix out,
//! its option `WithAuthOpt` does not. Both places are read; who has a password of etcd's is in a fleet
//! that may have either, and writes both.
//!
//! An id with a `/` in it, as the ids of nodes of `team/pay` have, would make a deeper key, which is
//! another service's: in every key it is written `-`.

use super::super::{Lease, Node, format::Format};

/// The keys of a node in a format, under this lease.
///
/// # Errors
/// A name that the format cannot hold.
pub(super) fn of(
    format: Format,
    node: &Node,
    lease: Lease,
    has_password: bool,
) -> Result<Vec<String>, String> {
    let last = match format {
        Format::Micro => part("id", &node.id)?,
        Format::Kratos | Format::Etcd => some("id", &node.id)?.replace('/', "-"),
        Format::GoZero => lease.0.to_string(),
        Format::Kitex => node.address.clone(),
    };
    let prefixes = prefixes(format, &node.service)?.into_iter();
    let written = prefixes.take(if has_password { usize::MAX } else { 1 });
    Ok(written.map(|prefix| prefix + &last).collect())
}

/// What the keys of a service's nodes begin with in a format, in one place or two.
///
/// # Errors
/// A name that the format cannot hold.
pub(super) fn prefixes(format: Format, service: &str) -> Result<Vec<String>, String> {
    let mut prefixes = vec![prefix(format, service)?];
    if format == Format::Kitex {
        let bare = format!("/{service}/");
        // Of a service `micro` these would be all of go-micro's keys.
        let is_others = |format| root(format).is_some_and(|root| root.starts_with(&bare));
        if ![Format::Micro, Format::Kratos].into_iter().any(is_others) {
            prefixes.push(bare);
        }
    }
    Ok(prefixes)
}

fn prefix(format: Format, service: &str) -> Result<String, String> {
    const WHAT: &str = "service name";
    let root = root(format).unwrap_or_default();
    let name = match format {
        Format::Micro => part(WHAT, service)?,
        Format::Kitex if service.contains('/') => {
            return Err(format!(
                "the service name has a `/`, which Kitex refuses; leave `kitex` out of the URL's \
                 option `format`, or give {service} another name"
            ));
        }
        Format::Kratos | Format::GoZero | Format::Etcd | Format::Kitex => {
            some(WHAT, service)?.to_owned()
        }
    };
    Ok(format!("{root}{name}/"))
}

/// What all keys of a format begin with, where they have something in common.
pub(super) fn root(format: Format) -> Option<&'static str> {
    match format {
        Format::Micro => Some("/micro/registry/"),
        Format::Kratos => Some("/microservices/"),
        Format::Kitex => Some("kitex/registry-etcd/"),
        Format::GoZero | Format::Etcd => None,
    }
}

/// As go-micro spells a name in a key. Nothing else is escaped, so `team/pay` and `team-pay`
/// share their keys; the value has the true name.
pub(super) fn escape(name: &str) -> String {
    name.replace('/', "-")
}

/// A name as go-micro's part of a key, which its `path.Join` must not make another key of.
fn part(what: &str, name: &str) -> Result<String, String> {
    match some(what, name)? {
        "." | ".." => Err(format!("the {what} is `{name}`, which is no name in a key")),
        _ => Ok(escape(name)),
    }
}

fn some<'a>(what: &str, name: &'a str) -> Result<&'a str, String> {
    if name.is_empty() { Err(format!("the {what} is empty")) } else { Ok(name) }
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
    fn keys_are_those_that_the_peers_wrote() {
        let keys = |format, service: &str, id: &str, has_password| {
            let node = Node::new(service, id, "127.0.0.1:7831");
            of(format, &node, Lease(2228897017400345397), has_password).unwrap()
        };
        let id = "team/pay.svc-a0406fa1-b197-400d-b652-12b1ed37ec74";
        for (format, service, id, expected) in [
            (
                Format::Micro,
                "team/pay.svc",
                id,
                "/micro/registry/team-pay.svc/team-pay.svc-a0406fa1-b197-400d-b652-12b1ed37ec74",
            ),
            (Format::Micro, "a b%", "\u{e9}", "/micro/registry/a b%/\u{e9}"),
            (Format::GoZero, "echo.rpc", "1", "echo.rpc/2228897017400345397"),
            (Format::GoZero, "a/b.rpc", "1", "a/b.rpc/2228897017400345397"),
            (
                Format::Kratos,
                "team/pay",
                "e3f9c500-e70c-11f1-8986-a22df5591566",
                "/microservices/team/pay/e3f9c500-e70c-11f1-8986-a22df5591566",
            ),
            (Format::Kratos, "team/pay", "team/pay-1", "/microservices/team/pay/team-pay-1"),
            (Format::Kitex, "echo", "1", "kitex/registry-etcd/echo/127.0.0.1:7831"),
            (Format::Etcd, "grpcgo/echo", "my-service-1", "grpcgo/echo/my-service-1"),
            (Format::Etcd, "team/pay", "team/pay-1", "team/pay/team-pay-1"),
        ] {
            assert_eq!(keys(format, service, id, false), [expected]);
            let with_password = keys(format, service, id, true);
            assert_eq!(with_password[0], expected);
            assert_eq!(with_password.len(), if format == Format::Kitex { 2 } else { 1 });
        }
        assert_eq!(keys(Format::Kitex, "echo", "1", true)[1], "/echo/127.0.0.1:7831");
        for others in ["micro", "microservices"] {
            assert_eq!(keys(Format::Kitex, others, "1", true).len(), 1, "others' keys are there");
        }
        assert_eq!(prefix_end("/micro/registry/a/"), b"/micro/registry/a0");
    }

    #[test]
    fn names_that_a_format_cannot_hold_are_refused() {
        let key = |format, service: &str, id: &str| {
            of(format, &Node::new(service, id, "h:1"), Lease(1), false).unwrap_err()
        };
        for name in ["", ".", ".."] {
            assert!(key(Format::Micro, name, "a").contains("service name"));
            assert!(key(Format::Micro, "a", name).contains("id"));
        }
        for format in [Format::GoZero, Format::Kratos, Format::Kitex, Format::Etcd] {
            assert!(key(format, "", "a").contains("the service name is empty"));
        }
        for format in [Format::Kratos, Format::Etcd] {
            assert!(key(format, "a", "").contains("the id is empty"));
        }
        assert!(key(Format::Kitex, "team/pay", "a").contains("leave `kitex` out"));
    }
}
