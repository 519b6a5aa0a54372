//! `zookeeper://`: records as go-micro and other fleets have them in ZooKeeper, but ephemeral. A
//! node has one session, and one record in each format of the URL.

mod known;
mod lease;
mod listing;
mod options;
mod path;
mod reader;
mod record;
mod watch;

use std::{collections::BTreeSet, fmt, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::try_join_all};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;
use zookeeper_client::{Acls, Client, CreateMode, Error as ClientError, SessionState};

use self::{
    lease::{Leases, resumed},
    options::Options,
    reader::{EXCHANGE, Reader, answering, children, describe, records, unreachable},
    record::{Folder, Own, Record, other, service_of},
};
use super::{
    BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, format::Format, share::share,
    url::Url,
};
use crate::Error;

/// Less than this no ZooKeeper grants that is not set up for it: two ticks, of 2 s by default.
const MIN_TTL: Duration = Duration::from_secs(1);

/// How long a removal may take to reach the watchers on all members.
const SPREAD: Duration = Duration::from_secs(1);

/// A renewal whose session has not answered for the first asks elsewhere too, and gives up after the
/// second: before its caller does.
const ASK_ELSEWHERE: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_millis(900);

/// A registry in ZooKeeper, where go-micro keeps its own: a node's record is the znode
/// `/micro-registry/SERVICE/ID` with go-micro's JSON as its value. Unlike go-micro's it is
/// ephemeral: it goes with its session. With the URL's option `format` records are kept as other
/// fleets have them, instead or as well: see [formats](crate::guide::registries#formats).
///
/// A lease is a session of the node's own, with a connection of its own, whose timeout is the TTL.
/// While the process has a connection the session lives; one that is not renewed is closed when its
/// TTL is over. ZooKeeper grants what lies between its `minSessionTimeout` and `maxSessionTimeout`
/// (by default 2 and 20 ticks: 4 to 40 s): with less than was asked for, a record goes that long
/// after its process was last heard, with more it stays that long; either is logged.
///
/// A record that no session keeps, such as go-micro's own, stays when its node dies. It is read, and
/// shown as such: the node's metadata says `ephemeral=false`. A node that registers under the same
/// id replaces it.
///
/// All reads and watches share one more session, which is no more than a connection: it is not kept
/// over the loss of one. Every exchange is bounded by 1 s, members tried in turn as long as they
/// fail at once; one that does not answer in time is left, with its connection, for the next
/// exchange to begin at another. A connection is given up 6 s after the last word on it, so a watch
/// on a stopped ZooKeeper ends, and does not wait for ever.
///
/// A record that we may not read is one of the [`Listing`]'s malformed. ZooKeeper tells a watch nothing
/// of it: it is seen to come and go when all is read again.
///
/// A watch begins with how all stands, and then tells changes. Of two changes of one record in quick
/// succession the first may not be seen. Needs ZooKeeper 3.6, for its recursive watches.
pub struct ZooKeeper {
    reader: Arc<Reader>,
    leases: Leases,
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper").field("options", self.options()).finish_non_exhaustive()
    }
}

impl ZooKeeper {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        let options = Options::of(url)?;
        Ok(share(options.identity(), || Self {
            reader: Arc::new(Reader::new(options)),
            leases: Leases::default(),
        }))
    }

    fn options(&self) -> &Options {
        self.reader.options()
    }

    /// The node's paths and what stands there.
    fn records(&self, node: &Node) -> Result<Vec<Own>, Error> {
        let Options { formats, root, .. } = self.options();
        Own::all(formats, root, node).map_err(|why| self.refuse(node, &why))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (self.name(), &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }

    /// A session of this timeout. Dropped, it is closed.
    async fn session(&self, ttl: Duration) -> Result<Client, String> {
        let Options { members, .. } = self.options();
        let connector = self.options().connector().with_session_timeout(ttl);
        match connector.connect(&answering(members).await.join(",")).await {
            Ok(client) => Ok(client),
            Err(ClientError::NoHosts) => {
                let reason =
                    async |member: &String| format!("{member}: {}", unreachable(member).await);
                let reasons = futures_util::future::join_all(members.iter().map(reason)).await;
                Err(reasons.join("; "))
            }
            Err(error) => Err(describe(&error)),
        }
    }

    /// Writes a record over whatever is there.
    async fn put(&self, client: &Client, own: &Own) -> Result<(), ClientError> {
        let rights = self.options().rights();
        let ephemeral = CreateMode::Ephemeral.with_acls(Acls::new(&rights));
        let persistent = CreateMode::Persistent.with_acls(Acls::new(&rights));
        loop {
            match client.create(&own.path, &own.value, &ephemeral).await {
                Ok(_) => return Ok(()),
                Err(ClientError::NoNode) => {
                    match client.mkdir(path::parent(&own.path), &persistent).await {
                        // Somebody removes what is empty: the next round makes it anew.
                        Ok(()) | Err(ClientError::NoNode) => {}
                        Err(error) => return Err(error),
                    }
                }
                // Another session's, or nobody's: to write into it would leave it theirs.
                Err(ClientError::NodeExists) => {
                    let mut replace = client.new_multi_writer();
                    replace.add_delete(&own.path, None)?;
                    replace.add_create(&own.path, &own.value, &ephemeral)?;
                    match replace.commit().await.map_err(ClientError::from) {
                        Ok(_) => return Ok(()),
                        Err(ClientError::NoNode | ClientError::NodeExists) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What stands at the node's paths, as the lease's own session sees it, and whether that answers;
    /// while it has no connection, or gives no answer, as ZooKeeper says otherwise.
    async fn standing(
        &self,
        client: &Client,
        what: &str,
        own: &[Own],
    ) -> Result<(Vec<Option<Record>>, bool), RenewError> {
        let paths = || own.iter().map(|own| own.path.clone());
        let read = |client: Client| {
            let (paths, first) = (paths(), own[0].path.clone());
            async move {
                // Another member may be behind the one that took the record.
                client.sync(&first).await?;
                records(&client, paths).await
            }
        };
        if client.state() != SessionState::SyncConnected {
            let found = self.reader.call(what, read).await.map_err(RenewError::Failed)?;
            return Ok((found, true));
        }
        let begin = Instant::now();
        let mut answer = pin!(records(client, paths()));
        let answered = match timeout_at(begin + ASK_ELSEWHERE, &mut answer).await {
            Ok(answered) => answered,
            // Its connection may be dead, which takes the client 2/5 of the TTL to find out.
            Err(_) => {
                let patience = begin + PATIENCE;
                let elsewhere = async {
                    let found = timeout_at(patience, self.reader.call(what, read)).await;
                    // ZooKeeper may be slow, and no more than that.
                    sleep_until(patience).await;
                    found
                };
                tokio::select! {
                    biased;
                    answered = &mut answer => answered,
                    found = elsewhere => return match found {
                        Ok(Ok(found)) => Ok((found, false)),
                        Ok(Err(error)) => Err(RenewError::Failed(error)),
                        Err(_) => {
                            let why = format!("no answer within {PATIENCE:?}");
                            Err(RenewError::Failed(self.reader.failed(what, &why)))
                        }
                    },
                }
            }
        };
        match answered {
            Ok(found) => Ok((found, true)),
            Err(ClientError::SessionExpired) => Err(expired()),
            Err(error) => Err(RenewError::Failed(self.reader.failed(what, &describe(&error)))),
        }
    }
}

impl Registry for ZooKeeper {
    fn name(&self) -> &str {
        &self.options().name
    }

    /// Unless every member is on this machine.
    fn is_shared(&self) -> bool {
        !self.reader.is_local()
    }

    fn spread(&self) -> Duration {
        SPREAD
    }

    fn min_ttl(&self) -> Duration {
        MIN_TTL
    }

    fn validate(&self, node: &Node) -> Result<(), Error> {
        self.records(node).map(drop)
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        async move {
            if ttl < MIN_TTL {
                let why = format!("a TTL of {ttl:?} is under the least, {MIN_TTL:?}");
                return Err(self.refuse(node, &why));
            }
            if i32::try_from(ttl.as_millis()).is_err() {
                let why = format!("a TTL of {ttl:?} is beyond what ZooKeeper can count");
                return Err(self.refuse(node, &why));
            }
            let records = self.records(node)?;
            let what = format!("register {} of service {}", node.id, node.service);
            let write = async {
                let client = self.session(ttl).await?;
                // The first format first, so that nobody sees the node as a later one has it.
                for own in &records {
                    self.put(&client, own).await.map_err(|error| describe(&error))?;
                }
                Ok(client)
            };
            let written = timeout_at(Instant::now() + EXCHANGE, write).await;
            let client = written
                .unwrap_or_else(|_| Err(format!("no answer within {EXCHANGE:?}")))
                .map_err(|why: String| self.reader.failed(&what, &why))?;
            let granted = client.session_timeout();
            if granted != ttl {
                let (registry, service, id) = (self.name(), &node.service, &node.id);
                warn!(
                    registry,
                    service,
                    node = id,
                    "a session of {granted:?} was granted, not of the TTL of {ttl:?}: without a \
                     word from the process the record goes after that; ZooKeeper's \
                     minSessionTimeout and maxSessionTimeout say what it grants"
                );
            }
            Ok(self.leases.hold(client, ttl))
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let own = self.records(node).map_err(RenewError::Failed)?;
            let what = format!("renew {} of service {}", node.id, node.service);
            let deadline = Instant::now() + EXCHANGE;
            let client = self.leases.session(lease).ok_or_else(expired)?;
            if client.state().is_terminated() {
                self.leases.forget(lease);
                return Err(expired());
            }
            // Whoever asks is there, whatever becomes of the answer: his session is his to keep.
            self.leases.extend(lease);
            let (found, answers) = self.standing(&client, &what, &own).await?;
            for (own, found) in own.iter().zip(found) {
                stands(own, node, lease, found)?;
            }
            if !answers {
                let why = "its session gives no answer, although ZooKeeper does";
                return Err(RenewError::Lost(why.to_owned()));
            }
            // Since ZooKeeper answers, it is this session that it does not take up again: it was
            // restored from an older state, say.
            if !timeout_at(deadline, resumed(&client)).await.unwrap_or(false) {
                let why = "its session has no connection, although ZooKeeper answers";
                return Err(RenewError::Lost(why.to_owned()));
            }
            Ok(())
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let own = self.records(node)?;
            let what = format!("deregister {} of service {}", node.id, node.service);
            let deadline = Instant::now() + EXCHANGE;
            // A closed session takes along the records that are still its own.
            if timeout_at(deadline, self.leases.close(lease)).await.is_err() {
                let why = format!("no answer within {EXCHANGE:?}");
                return Err(self.reader.failed(&what, &why));
            }
            // Written back by somebody's hand, the very same record is in no session and would
            // outlive its node for ever.
            let rewritten = |client: Client| {
                let own = own.clone();
                async move {
                    let paths = own.iter().map(|own| own.path.clone());
                    let found = records(&client, paths).await?;
                    for (own, record) in own.iter().zip(found) {
                        let Some(record) = record else { continue };
                        if record.is_persistent() && record.says(&own.value) {
                            match client.delete(&own.path, Some(record.stat.version)).await {
                                Ok(()) | Err(ClientError::NoNode | ClientError::BadVersion) => {}
                                Err(error) => return Err(error),
                            }
                        }
                    }
                    Ok(())
                }
            };
            let removed = timeout_at(deadline, self.reader.call(&what, rewritten)).await;
            removed.unwrap_or_else(|_| {
                Err(self.reader.failed(&what, &format!("no answer within {EXCHANGE:?}")))
            })
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let Options { formats, root, .. } = self.options();
            let folders = Folder::all(formats, root, service).map_err(Error::config)?;
            let open = |client: Client| {
                let folders = &folders;
                async move {
                    // A member that is behind would deny what was written just now.
                    client.sync("/").await?;
                    let found = folders.iter().map(|folder| children(&client, &folder.path));
                    let found = try_join_all(found).await?;
                    Ok((client, found))
                }
            };
            let (client, found) =
                self.reader.call(&format!("read service {service}"), open).await?;
            let read = listing::of(&self.reader, &client, service, &folders, found);
            Ok(read.await?.0)
        }
        .boxed()
    }

    /// The path may spell a name in another way: only the records know it.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move {
            const WHAT: &str = "list services";
            let Options { formats, root, .. } = self.options();
            let mut services = BTreeSet::new();
            for &format in formats {
                let root = root.services(format);
                let open = |client: Client| {
                    let root = &root;
                    async move {
                        let (folders, _) = children(&client, root).await?;
                        Ok((client, folders))
                    }
                };
                let (client, folders) = self.reader.call(WHAT, open).await?;
                listing::few(&self.reader, WHAT, folders.len())?;
                for page in folders.chunks(listing::PAGE) {
                    services.extend(self.services(&client, format, &root, page).await?);
                }
            }
            Ok(services.into_iter().collect())
        }
        .boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        watch::watch(self.reader.clone(), service.to_owned(), after)
    }
}

impl ZooKeeper {
    /// The services whose records are in these folders.
    async fn services(
        &self,
        client: &Client,
        format: Format,
        root: &str,
        folders: &[String],
    ) -> Result<BTreeSet<String>, Error> {
        const WHAT: &str = "list services";
        let folders: Vec<_> = folders.iter().map(|folder| path::below(root, folder)).collect();
        let found = folders.iter().map(async |folder| match children(client, folder).await {
            // Who may not look into one folder still has the others.
            Err(ClientError::NoAuth) => Ok((Vec::new(), 0)),
            found => found,
        });
        let found = self.reader.call_on(client, WHAT, try_join_all(found)).await?;
        let paths = folders.iter().zip(found).flat_map(|(folder, (children, _))| {
            children.into_iter().map(move |child| path::below(folder, &child))
        });
        let paths: Vec<_> = paths.collect();
        listing::few(&self.reader, WHAT, paths.len())?;
        let mut services = BTreeSet::new();
        for page in paths.chunks(listing::PAGE) {
            let found = records(client, page.iter().cloned());
            let found = self.reader.call_on(client, WHAT, found).await?;
            services.extend(found.iter().flatten().filter_map(|record| service_of(format, record)));
        }
        Ok(services)
    }
}

fn expired() -> RenewError {
    RenewError::Lost("its session is over: it expired, or was closed".to_owned())
}

fn rewritten(own: &Own) -> RenewError {
    RenewError::Lost(format!(
        "something else was written into the znode {}, which is still in the node's own session",
        own.path
    ))
}

/// Whether a node's own record stands as written in this lease's session.
fn stands(own: &Own, node: &Node, lease: Lease, found: Option<Record>) -> Result<(), RenewError> {
    let Some(record) = found else {
        return Err(RenewError::Lost(format!("the znode {} was deleted", own.path)));
    };
    let is_ours = record.stat.ephemeral_owner == lease.0;
    if is_ours && record.says(&own.value) {
        return Ok(());
    }
    Err(match other(own.format, node, &record) {
        Ok(other) if !is_ours || other.address != node.address => {
            RenewError::taken_by(node, &other)
        }
        // Nobody has it who would write it again: it can be written back at once.
        Ok(_) => rewritten(own),
        Err(_) if is_ours => rewritten(own),
        Err(why) => RenewError::Taken(format!(
            "the znode {} was overwritten with what is no record: {why}",
            own.path
        )),
    })
}
