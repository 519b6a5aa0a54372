//! What stands in ZooKeeper: of a service, in every format that the registry has.

use std::sync::Arc;

use zookeeper_client::Stat;

use super::{
    super::{
        Entry, Malformed, Node,
        format::{Format, gomicro, kitex, kratos},
        url::host_and_port,
    },
    path::{self, Root},
};

/// The largest packet that ZooKeeper takes (its `jute.maxbuffer`), in bytes.
const MAX_PACKET: usize = 0xf_ffff;

/// What else there is in the packet that replaces a record, besides its value and, twice, its path.
const OVERHEAD: usize = 1024;

/// In the metadata of a node whose record no session keeps: it is there until somebody deletes it,
/// whether the node lives or not.
const EPHEMERAL: &str = "ephemeral";

/// A record as it stands in ZooKeeper.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: String,
    /// None where its rights (its ACL) let others read it, and not us.
    pub(super) value: Option<Vec<u8>>,
    pub(super) stat: Stat,
}

impl Record {
    /// One that we may not read, and of whose last write we know nothing.
    pub(super) fn hidden(path: String) -> Self {
        let stat = Stat {
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: 0,
            data_length: 0,
            num_children: 0,
        };
        Self { path, value: None, stat }
    }

    /// What it says.
    ///
    /// # Errors
    /// That we may not know.
    fn value(&self) -> Result<&[u8], String> {
        const HIDDEN: &str = "it may not be read: the rights there (its ACL) are others'";
        self.value.as_deref().ok_or_else(|| HIDDEN.to_owned())
    }

    /// Whether it says this.
    pub(super) fn says(&self, value: &[u8]) -> bool {
        self.value.as_deref() == Some(value)
    }

    /// The revision of its last write.
    pub(super) fn revision(&self) -> u64 {
        revision(self.stat.mzxid)
    }

    /// Whether it stays when the session that wrote it is over.
    pub(super) fn is_persistent(&self) -> bool {
        self.stat.ephemeral_owner == 0
    }
}

/// ZooKeeper's transaction ids are our revisions.
pub(super) fn revision(zxid: i64) -> u64 {
    u64::try_from(zxid).unwrap_or(0)
}

/// A node's own record in a format.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) format: Format,
    pub(super) path: String,
    pub(super) value: Vec<u8>,
}

impl Own {
    /// The node's records, one in each format.
    ///
    /// # Errors
    /// A name or a size that a format or ZooKeeper cannot hold.
    pub(super) fn all(formats: &[Format], root: &Root, node: &Node) -> Result<Vec<Self>, String> {
        let own = |&format: &Format| {
            let path = root.node(format, node)?;
            let value = match format {
                Format::Kratos => kratos::encode(node)?,
                Format::Kitex => kitex::encode_entry(node)?,
                _ => gomicro::encode(node)?,
            };
            let length = value.len() + 2 * path.len() + OVERHEAD;
            if length > MAX_PACKET {
                return Err(format!(
                    "the record takes {} bytes, too much for a packet of ZooKeeper's of \
                     {MAX_PACKET}: give the node less metadata",
                    value.len()
                ));
            }
            Ok(Self { format, path, value })
        };
        formats.iter().map(own).collect()
    }
}

/// Where a service's nodes are in one format.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) path: String,
    format: Format,
    /// The format's place among those that the registry has.
    rank: u8,
}

impl Folder {
    /// Where a service's nodes are. Formats that cannot hold its name have no place.
    ///
    /// # Errors
    /// A name that no format can hold.
    pub(super) fn all(formats: &[Format], root: &Root, service: &str) -> Result<Vec<Self>, String> {
        let (mut folders, mut refused) = (Vec::new(), None);
        for (rank, &format) in (0..).zip(formats) {
            match root.service(format, service) {
                Ok(path) => folders.push(Self { path, format, rank }),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        match refused {
            Some(why) if folders.is_empty() => Err(why),
            _ => Ok(folders),
        }
    }

    /// Whether a record at this path would be in the folder.
    pub(super) fn has(&self, path: &str) -> bool {
        path::parent(path) == self.path
    }

    /// A record of the folder as an entry of this service; none if it is of another service, whose
    /// name has the same spelling in paths (`team/pay` and `team-pay`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(&self, service: &str, record: &Record) -> Result<Option<Entry>, Malformed> {
        let key = record.path.clone();
        let mut node = match node(self.format, service, record) {
            Ok(Some(node)) => node,
            Ok(None) => return Ok(None),
            Err(reason) => return Err(Malformed { key, reason }),
        };
        if record.is_persistent() {
            node.metadata.entry(EPHEMERAL.to_owned()).or_insert_with(|| "false".to_owned());
        }
        let (revision, rank) = (record.revision(), self.rank);
        Ok(Some(Entry { key, revision, rank, node: Arc::new(node) }))
    }
}

fn node(format: Format, service: &str, record: &Record) -> Result<Option<Node>, String> {
    let value = record.value()?;
    let node = match format {
        Format::Kratos => kratos::decode(value)?,
        Format::Kitex => kitex::decode_entry(value, service, path::last(&record.path))?,
        _ => gomicro::decode(value)?,
    };
    if node.service == service {
        return Ok(Some(node));
    }
    if path::escape(&node.service) == path::escape(service) {
        return Ok(None);
    }
    Err(format!("the record is of service {:?}", node.service))
}

/// Whose node a record in a format is; none if that cannot be told.
pub(super) fn service_of(format: Format, record: &Record) -> Option<String> {
    let value = record.value().ok()?;
    match format {
        Format::Kratos => kratos::decode(value).ok().map(|node| node.service),
        // Kitex's folders lie beside anything else that ZooKeeper is used for.
        Format::Kitex => {
            let (service, address) =
                (path::last(path::parent(&record.path)), path::last(&record.path));
            host_and_port(address)?.1?;
            kitex::decode_entry(value, service, address).ok().map(|node| node.service)
        }
        _ => gomicro::decode(value).ok().map(|node| node.service),
    }
}

/// Who has written this record over the node's own in a format.
///
/// # Errors
/// When that is no record.
pub(super) fn other(format: Format, own: &Node, record: &Record) -> Result<Node, String> {
    let value = record.value()?;
    match format {
        Format::Kratos => kratos::decode(value),
        Format::Kitex => kitex::decode_entry(value, &own.service, path::last(&record.path)),
        _ => gomicro::decode(value),
    }
}
