//! Reading all records of a service.

use std::collections::HashMap;

use zookeeper_client::Client;

use super::{
    super::Listing,
    path,
    reader::{Reader, records},
    record::Folder,
};
use crate::Error;

/// Records read in one exchange: some 250 kB of go-micro's usual ones.
pub(super) const PAGE: usize = 250;

/// The most records read of one service, and services of one registry.
pub(super) const MOST: usize = 100_000;

/// Records decoded in one turn: a service of ten thousand nodes is read beside calls under way.
const TURN: usize = 16;

/// What stands in these folders, of which each has these children, as of this revision; and every
/// record's path with the revision of its last write.
///
/// ZooKeeper reads one record at a time. What is written from one to the next may be in the listing
/// or not, and if not it is told by a watch that was set before.
pub(super) async fn of(
    reader: &Reader,
    client: &Client,
    service: &str,
    folders: &[Folder],
    found: Vec<(Vec<String>, u64)>,
) -> Result<(Listing, HashMap<String, u64>), Error> {
    let what = format!("read service {service}");
    let (mut listing, mut written) = (Listing::default(), HashMap::new());
    for (folder, (children, at)) in folders.iter().zip(found) {
        listing.revision = listing.revision.max(at);
        few(reader, &what, children.len())?;
        for page in children.chunks(PAGE) {
            let paths = page.iter().map(|child| path::below(&folder.path, child));
            let found = reader.call_on(client, &what, records(client, paths)).await?;
            for (index, record) in found.into_iter().flatten().enumerate() {
                if index % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
                let revision = record.revision();
                listing.revision = listing.revision.max(revision);
                match folder.read(service, &record) {
                    Ok(Some(entry)) => listing.entries.push(entry),
                    Ok(None) => continue,
                    Err(malformed) => listing.malformed.push(malformed),
                }
                written.insert(record.path, revision);
            }
        }
    }
    Ok((listing, written))
}

/// Refuses more than [`MOST`].
pub(super) fn few(reader: &Reader, what: &str, count: usize) -> Result<(), Error> {
    match count {
        0..=MOST => Ok(()),
        _ => Err(reader.failed(what, &format!("there are {count}, over the limit of {MOST}"))),
    }
}
