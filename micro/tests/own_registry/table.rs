use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use micro::{
    Error, ErrorKind,
    registry::{
        Batch, BoxFuture, Entry, Event, Lease, Listing, Node, Registry, RenewError, Watch,
        WatchError,
    },
};
use tokio::time::{Instant, sleep};

/// Nodes in a table of a database: here a map, which a real one would be in its place.
#[derive(Debug, Clone, Default)]
pub struct Table(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<(String, String), Row>,
    /// Grows with every change, which a database has a sequence for.
    revision: u64,
}

#[derive(Debug)]
struct Row {
    node: Node,
    revision: u64,
    ttl: Duration,
    expires: Instant,
}

impl Table {
    /// One statement, after those whose TTL is over are gone.
    fn execute<T>(&self, statement: impl FnOnce(&mut Rows) -> T) -> T {
        let mut table = self.0.lock().expect("nobody panics here");
        let (now, before) = (Instant::now(), table.rows.len());
        table.rows.retain(|_, row| row.expires > now);
        table.revision += (before - table.rows.len()) as u64;
        statement(&mut table)
    }
}

fn key(node: &Node) -> (String, String) {
    (node.service.clone(), node.id.clone())
}

impl Registry for Table {
    fn name(&self) -> &str {
        "table://"
    }

    /// A watch looks ten times a second.
    fn spread(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn min_ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// The row's revision is the lease: whoever writes over it has another.
    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move {
            if ttl < self.min_ttl() {
                let why = format!("table://: a TTL of {ttl:?} is under the least, 1 s");
                return Err(Error::new(ErrorKind::Config, why));
            }
            Ok(self.execute(|table| {
                table.revision += 1;
                let (revision, expires) = (table.revision, Instant::now() + ttl);
                table.rows.insert(key(node), Row { node: node.clone(), revision, ttl, expires });
                Lease(revision as i64)
            }))
        })
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        Box::pin(async move {
            self.execute(|table| match table.rows.get_mut(&key(node)) {
                None => Err(RenewError::Lost("its row is gone".to_owned())),
                Some(row) if row.revision as i64 != lease.0 || row.node != *node => {
                    Err(RenewError::taken_by(node, &row.node))
                }
                Some(row) => {
                    row.expires = Instant::now() + row.ttl;
                    Ok(())
                }
            })
        })
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.execute(|table| {
                if table.rows.get(&key(node)).is_some_and(|row| row.revision as i64 == lease.0) {
                    table.rows.remove(&key(node));
                    table.revision += 1;
                }
            });
            Ok(())
        })
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        Box::pin(async move {
            Ok(self.execute(|table| {
                let rows = table.rows.values().filter(|row| row.node.service == service);
                let entry = |row: &Row| Entry {
                    key: format!("{service}/{}", row.node.id),
                    revision: row.revision,
                    rank: 0,
                    node: Arc::new(row.node.clone()),
                };
                let entries = rows.map(entry).collect();
                Listing { revision: table.revision, entries, malformed: Vec::new() }
            }))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async move {
            Ok(self.execute(|table| {
                let mut names: Vec<_> = table.rows.keys().map(|(name, _)| name.clone()).collect();
                names.dedup(); // they are sorted
                names
            }))
        })
    }

    /// A table tells nobody of its changes: the watch looks, and tells how all stands.
    fn watch(&self, service: &str, after: u64) -> Watch {
        let start = (self.clone(), service.to_owned(), Some(after));
        let looks = stream::unfold(start, |(table, service, seen)| async move {
            let mut seen = seen?;
            loop {
                let listing = match table.read(&service).await {
                    Ok(listing) => listing,
                    Err(error) => {
                        let ended = Err(WatchError::Disconnected(error));
                        return Some((ended, (table, service, None)));
                    }
                };
                if listing.revision < seen {
                    return Some((Err(WatchError::Compacted), (table, service, None)));
                }
                if listing.revision > seen {
                    seen = listing.revision;
                    let batch = Batch { revision: seen, events: vec![Event::Reset(listing)] };
                    return Some((Ok(batch), (table, service, Some(seen))));
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        looks.boxed()
    }
}
