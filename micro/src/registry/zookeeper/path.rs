//! The paths: where in ZooKeeper each format has the records of a service, and where each node's is.
//!
//! | format | path |
//! |---|---|
//! | go-micro | `/micro-registry/SERVICE/ID`, with `/` in either written `-` |
//! | Kratos | `/microservices/SERVICE/ID` |
//! | Kitex | `/SERVICE/ADDRESS` |
//!
//! all of them under the URL's chroot.

use super::super::{Node, format::Format};

/// What all paths begin with: nothing, or the chroot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root(String);

impl Root {
    /// From a URL's path.
    ///
    /// # Errors
    /// A path that ZooKeeper cannot have.
    pub(super) fn of(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Ok(Self(String::new()));
        }
        if path.split('/').any(str::is_empty) {
            return Err("the chroot has an empty part; write `/a/b`".to_owned());
        }
        path.split('/').try_for_each(|part| fit("chroot", part))?;
        Ok(Self(format!("/{path}")))
    }

    /// Nothing, or `/a/b`.
    pub(super) fn chroot(&self) -> &str {
        &self.0
    }

    /// Where a format's services are.
    pub(super) fn services(&self, format: Format) -> String {
        let folder = match format {
            Format::Kratos => "/microservices",
            Format::Kitex => "",
            _ => "/micro-registry",
        };
        match format!("{}{folder}", self.0) {
            path if path.is_empty() => "/".to_owned(),
            path => path,
        }
    }

    /// Where a service's nodes are in a format.
    ///
    /// # Errors
    /// A name that the format cannot hold.
    pub(super) fn service(&self, format: Format, service: &str) -> Result<String, String> {
        fit("service name", service)?;
        if format != Format::Micro && service.contains('/') {
            return Err(format!(
                "the service name has a `/`, which would be a folder within a folder; leave \
                 `{format}` out of the URL's option `format`, or give {service} another name"
            ));
        }
        let folder = below(&self.services(format), &escape(service));
        if folder == "/zookeeper" {
            return Err("`zookeeper` is ZooKeeper's own; give the service another name".to_owned());
        }
        Ok(folder)
    }

    /// Where a node's record is in a format.
    ///
    /// # Errors
    /// A name that the format cannot hold.
    pub(super) fn node(&self, format: Format, node: &Node) -> Result<String, String> {
        let folder = self.service(format, &node.service)?;
        let (what, last) = match format {
            Format::Kitex => ("address", &node.address),
            _ => ("id", &node.id),
        };
        fit(what, last)?;
        Ok(below(&folder, &escape(last)))
    }
}

/// The path of a child.
pub(super) fn below(folder: &str, child: &str) -> String {
    format!("{}/{child}", folder.strip_suffix('/').unwrap_or(folder))
}

/// The folder that a path is in, which every path of a record has.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The last part of a path.
pub(super) fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// As go-micro spells a name in a path. Nothing else is escaped, so `team/pay` and `team-pay`
/// share a folder; the record has the true name.
pub(super) fn escape(name: &str) -> String {
    name.replace('/', "-")
}

/// Whether ZooKeeper takes the name, `/` aside: its `PathUtils.validatePath`, which looks at UTF-16
/// code units, so that nothing beyond the basic plane passes.
fn fit(what: &str, name: &str) -> Result<(), String> {
    match name {
        "" => return Err(format!("the {what} is empty")),
        "." | ".." => return Err(format!("the {what} is `{name}`, which is no name in a path")),
        _ => {}
    }
    let is_refused =
        |c: &char| matches!(u32::from(*c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..);
    match name.chars().find(is_refused) {
        Some(c) => {
            Err(format!("the {what} has U+{:04X}, which ZooKeeper takes in no name", u32::from(c)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_each_fleet() {
        let node = Node::new("team/pay", "team/pay-1", "10.0.0.1:80");
        let root = Root::of("").unwrap();
        assert_eq!(root.node(Format::Micro, &node).unwrap(), "/micro-registry/team-pay/team-pay-1");
        let node = Node::new("pay", "pay/1", "10.0.0.1:80");
        assert_eq!(root.node(Format::Kratos, &node).unwrap(), "/microservices/pay/pay-1");
        assert_eq!(root.node(Format::Kitex, &node).unwrap(), "/pay/10.0.0.1:80");
        assert_eq!(root.services(Format::Kitex), "/");
        let root = Root::of("teams/\u{e9}").unwrap();
        assert_eq!(root.node(Format::Kitex, &node).unwrap(), "/teams/\u{e9}/pay/10.0.0.1:80");
        assert_eq!(root.services(Format::Kitex), "/teams/\u{e9}");
    }

    #[test]
    fn names_that_zookeeper_has_not_are_refused() {
        let root = Root::of("").unwrap();
        let node = |service: &str, id: &str| {
            root.node(Format::Micro, &Node::new(service, id, "h:1")).unwrap_err()
        };
        for name in ["", ".", "..", "a\0", "a\n", "a\u{85}", "a\u{e000}", "a\u{fff0}", "\u{1f600}"]
        {
            assert!(node(name, "a").contains("the service name"), "{name:?}");
            assert!(node("a", name).contains("the id"), "{name:?}");
        }
        assert_eq!(node("a", "\u{1f600}"), "the id has U+1F600, which ZooKeeper takes in no name");
        for format in [Format::Kratos, Format::Kitex] {
            let error = root.service(format, "team/pay").unwrap_err();
            assert!(error.contains(&format!("leave `{format}` out")), "{error}");
        }
        assert!(root.service(Format::Kitex, "zookeeper").unwrap_err().contains("ZooKeeper's own"));
        assert!(root.service(Format::Micro, "zookeeper").is_ok());
        assert!(Root::of("a").unwrap().service(Format::Kitex, "zookeeper").is_ok());
    }
}
