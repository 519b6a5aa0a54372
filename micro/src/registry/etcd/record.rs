//! What stands in etcd: of a service, in every format that the registry has.

use std::sync::Arc;

use etcd_client::KeyValue;

use super::{
    super::{
        Entry, Lease, Malformed, Node,
        format::{Format, etcd_naming, go_zero, gomicro, kitex, kratos, shorten},
    },
    key,
    options::Options,
};

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
            key: key_of(kv),
            value: kv.value().to_vec(),
            revision: u64::try_from(kv.mod_revision()).unwrap_or(0),
        }
    }
}

/// The key as text; what is not UTF-8 in a foreign one is replaced, which suffices to tell it.
pub(super) fn key_of(kv: &KeyValue) -> String {
    String::from_utf8_lossy(kv.key()).into_owned()
}

/// A node's own record in a format.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) format: Format,
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

impl Own {
    /// The node's records under this lease, in each format.
    ///
    /// # Errors
    /// A name or a size that a format cannot hold.
    pub(super) fn all(
        Options { formats, user, .. }: &Options,
        node: &Node,
        lease: Lease,
    ) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for &format in formats {
            let value = match format {
                Format::Micro => gomicro::encode(node)?,
                Format::GoZero => go_zero::encode(node),
                Format::Kratos => kratos::encode(node)?,
                Format::Kitex => kitex::encode(node)?,
                Format::Etcd => etcd_naming::encode(node)?,
            };
            let keys = key::of(format, node, lease, user.is_some())?;
            all.extend(keys.into_iter().map(|key| Self { format, key, value: value.clone() }));
        }
        Ok(all)
    }
}

/// The keys of a service's nodes in one format, or in two that share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) prefix: String,
    /// Each with its place among those that the registry has.
    formats: Vec<(u8, Format)>,
}

impl Range {
    /// Where a service's nodes are. Formats that cannot hold its name have none.
    ///
    /// # Errors
    /// A name that no format can hold.
    pub(super) fn all(formats: &[Format], service: &str) -> Result<Vec<Self>, String> {
        let mut ranges: Vec<Self> = Vec::new();
        let mut refused = None;
        for (rank, &format) in (0..).zip(formats) {
            let prefixes = match key::prefixes(format, service) {
                Ok(prefixes) => prefixes,
                Err(why) => {
                    refused.get_or_insert(why);
                    continue;
                }
            };
            for prefix in prefixes {
                match ranges.iter_mut().find(|range| range.prefix == prefix) {
                    Some(range) => range.formats.push((rank, format)),
                    None => ranges.push(Self { prefix, formats: vec![(rank, format)] }),
                }
            }
        }
        match refused {
            Some(why) if ranges.is_empty() => Err(why),
            _ => Ok(ranges),
        }
    }

    /// A record of the range as an entry of this service; none if it is of another service, whose
    /// keys begin the same (`team` and `team/pay`, and in go-micro's spelling `team-pay`, too).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(&self, service: &str, record: Record) -> Result<Option<Entry>, Malformed> {
        let (rank, format) = self.format_of(&record.value);
        let last = record.key.strip_prefix(&self.prefix).unwrap_or_default();
        match node(format, service, last, &record.value) {
            Ok(Some(node)) => {
                let Record { key, revision, .. } = record;
                Ok(Some(Entry { key, revision, rank, node: Arc::new(node) }))
            }
            Ok(None) => Ok(None),
            Err(reason) => Err(Malformed { key: record.key, reason: shorten(reason) }),
        }
    }

    /// go-zero and etcd's naming share their keys: what looks like an object is the latter's, since
    /// no address begins like one.
    fn format_of(&self, value: &[u8]) -> (u8, Format) {
        let is_object = value.trim_ascii_start().starts_with(b"{");
        let fits = |(_, format): &&(u8, Format)| is_object == (*format == Format::Etcd);
        let fitting = self.formats.iter().find(fits).filter(|_| self.formats.len() > 1);
        *fitting.unwrap_or(&self.formats[0])
    }
}

/// The node of this service in a value whose key ends in `last`.
fn node(format: Format, service: &str, last: &str, value: &[u8]) -> Result<Option<Node>, String> {
    let node = match format {
        Format::Micro => match gomicro::decode(value)? {
            node if node.service == service => node,
            node if key::escape(&node.service) == key::escape(service) => return Ok(None),
            node => return Err(of_another(&node)),
        },
        // Kratos's ids may have a `/` in them; the name in the record tells.
        Format::Kratos => match kratos::decode(value) {
            Ok(node) if node.service == service => node,
            _ if last.contains('/') => return Ok(None),
            Ok(node) => return Err(of_another(&node)),
            Err(why) => return Err(why),
        },
        Format::Kitex | Format::GoZero | Format::Etcd if last.contains('/') => return Ok(None),
        Format::GoZero | Format::Etcd if last.is_empty() => {
            return Err("its key has no id after the service's name".to_owned());
        }
        Format::Kitex => kitex::decode(value, service)?,
        Format::GoZero => go_zero::decode(value, service, last)?,
        Format::Etcd => etcd_naming::decode(value, service, last)?,
    };
    Ok(Some(node))
}

fn of_another(node: &Node) -> String {
    format!("the record is of service {:?}", node.service)
}

/// Whose node a record in a format is; none if that cannot be told.
pub(super) fn service_of(format: Format, record: &Record) -> Option<String> {
    match format {
        Format::Micro => gomicro::decode(&record.value).ok().map(|node| node.service),
        Format::Kratos => kratos::decode(&record.value).ok().map(|node| node.service),
        Format::Kitex => {
            let (service, address) =
                record.key.strip_prefix(key::root(format)?)?.split_once('/')?;
            let is_one = !service.is_empty() && !address.contains('/');
            is_one.then(|| service.to_owned())
        }
        Format::GoZero | Format::Etcd => None,
    }
}

/// Who has written this value over the node's own record in a format.
///
/// # Errors
/// When that is no record.
pub(super) fn other(format: Format, own: &Node, value: &[u8]) -> Result<Node, String> {
    match format {
        Format::Micro => gomicro::decode(value),
        Format::GoZero => go_zero::decode(value, &own.service, &own.id),
        Format::Kratos => kratos::decode(value),
        Format::Kitex => kitex::decode(value, &own.service),
        Format::Etcd => etcd_naming::decode(value, &own.service, &own.id),
    }
}
