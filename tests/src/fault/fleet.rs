//! Three nodes, each a process of its own, and what can be done to one.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use micro::registry::{self, Entry, Lease, Registry};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::yield_now,
    time::{self, Instant},
};

use super::{Journal, Visit, now};
use crate::{ports, programs::program};

/// The name under which the nodes are registered.
pub const SERVICE: &str = "ledger";

/// The TTL of a registration: the default, since no node says otherwise.
pub const TTL: Duration = Duration::from_secs(15);

/// Three nodes.
#[derive(Debug)]
pub struct Fleet {
    /// The registry's URL.
    pub url: String,
    /// The registry, to look into.
    pub registry: Arc<dyn Registry>,
    nodes: Vec<Node>,
    journals: TempDir,
    /// Where each node has a folder of its name with its certificates.
    tls: Option<PathBuf>,
    _alone: Option<MutexGuard<'static, ()>>,
}

static ALONE: Mutex<()> = Mutex::const_new(());

impl Fleet {
    /// Starts three nodes and waits until they are registered. No other fleet of this kind is there
    /// at the same time: what is measured under a fault is to be the fault's doing, however many
    /// threads the tests are run with.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start(url: &str) -> Self {
        let alone = ALONE.lock().await;
        let mut fleet = Self::beside_others(url).await;
        fleet._alone = Some(alone);
        fleet
    }

    /// The same, whatever else is running.
    ///
    /// # Panics
    /// As [`Fleet::start`].
    pub async fn beside_others(url: &str) -> Self {
        Self::in_several(url, url).await
    }

    /// As [`Fleet::start`], over TLS: with `ca`, `cert` and `key` in the folders `a`, `b` and `c` of
    /// this one.
    ///
    /// # Panics
    /// As [`Fleet::start`].
    pub async fn over_tls(url: &str, folder: &Path) -> Self {
        let alone = ALONE.lock().await;
        let mut fleet = Self::unregistered_in(url, url, &[], Some(folder)).registered_all().await;
        fleet._alone = Some(alone);
        fleet
    }

    /// The same of nodes that register in several registries, one of which is looked into: `seen`.
    ///
    /// # Panics
    /// As [`Fleet::start`].
    pub async fn in_several(url: &str, seen: &str) -> Self {
        Self::unregistered_in(url, seen, &[], None).registered_all().await
    }

    /// The same of nodes that all behave as these flags, which are `fault-node`'s, say.
    ///
    /// # Panics
    /// As [`Fleet::start`].
    pub async fn with_flags(url: &str, flags: &[&str]) -> Self {
        Self::unregistered_in(url, url, flags, None).registered_all().await
    }

    async fn registered_all(mut self) -> Self {
        for node in 0..self.nodes.len() {
            self.registered(node).await;
        }
        self
    }

    /// Starts three nodes whose registry may be away.
    ///
    /// # Panics
    /// As [`Fleet::start`].
    pub fn unregistered(url: &str) -> Self {
        Self::unregistered_in(url, url, &[], None)
    }

    fn unregistered_in(url: &str, seen: &str, flags: &[&str], tls: Option<&Path>) -> Self {
        let journals = tempfile::tempdir().expect("a folder for the journals");
        let registry = registry::open(seen).expect("a registry's URL");
        let start = |name| Node::start(name, 1, free_address(), url, journals.path(), flags, tls);
        let nodes = ["a", "b", "c"].map(start).into();
        let tls = tls.map(Path::to_owned);
        Self { url: url.to_owned(), registry, nodes, journals, tls, _alone: None }
    }

    /// The id of a node's present process.
    pub fn id(&self, node: usize) -> &str {
        &self.nodes[node].id
    }

    /// The ids of all nodes, sorted.
    pub fn ids(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.id.clone()).collect()
    }

    /// The address of a node.
    pub fn address(&self, node: usize) -> &str {
        &self.nodes[node].address
    }

    /// The processes of the nodes.
    pub fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.process.id()).collect()
    }

    /// The folder of the journals, for nodes that are not of the fleet.
    pub fn journals(&self) -> &Path {
        self.journals.path()
    }

    /// Sends SIGKILL as soon as a call is in flight on the node, and says when.
    pub async fn kill(&mut self, node: usize) -> Duration {
        self.kill_all(&[node]).await
    }

    /// The same to several nodes at once, a call in flight on the first.
    pub async fn kill_all(&mut self, nodes: &[usize]) -> Duration {
        // A call takes a handler 2 ms. Without calls it must not wait for ever.
        let limit = now() + Duration::from_secs(1);
        let mut at = now();
        while at < limit {
            let began = Journal::last_begin(self.journals.path(), &self.nodes[nodes[0]].id);
            at = now();
            if began.is_some_and(|began| at.saturating_sub(began) < Duration::from_micros(500)) {
                break;
            }
            yield_now().await;
        }
        for &node in nodes {
            self.signal(node, Signal::KILL);
        }
        for &node in nodes {
            let _ = self.nodes[node].process.wait();
        }
        at
    }

    /// Sends SIGSTOP and says when.
    pub fn pause(&self, node: usize) -> Duration {
        let at = now();
        self.signal(node, Signal::STOP);
        at
    }

    /// Sends SIGCONT and says when.
    pub fn resume(&self, node: usize) -> Duration {
        let at = now();
        self.signal(node, Signal::CONT);
        at
    }

    /// Sends SIGTERM and waits for the node to leave.
    ///
    /// # Panics
    /// When it has not left after 10 s.
    pub async fn terminate(&mut self, node: usize) -> ExitStatus {
        self.signal(node, Signal::TERM);
        let process = &mut self.nodes[node].process;
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = process.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < limit, "a node had not left 10 s after SIGTERM");
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a node that has ended again, on its address and with a new id, as a fresh process of
    /// a user's would have; waits until it is registered and says when.
    pub async fn restart(&mut self, node: usize) -> Duration {
        self.restart_all(&[node]).await
    }

    /// The same of several at once.
    pub async fn restart_all(&mut self, nodes: &[usize]) -> Duration {
        for &node in nodes {
            let address = self.nodes[node].address.clone();
            self.start_at(node, address, &[]);
        }
        let mut at = now();
        for &node in nodes {
            at = self.registered(node).await;
        }
        at
    }

    /// The same on another address, which only the registry tells.
    pub async fn replace(&mut self, node: usize) -> Duration {
        self.replace_by(node, &[]).await
    }

    /// The same of a node that behaves as its flags, which are `fault-node`'s, say.
    pub async fn replace_by(&mut self, node: usize, flags: &[&str]) -> Duration {
        self.start_at(node, free_address(), flags);
        self.registered(node).await
    }

    fn start_at(&mut self, node: usize, address: String, flags: &[&str]) {
        let Node { name, generation, .. } = self.nodes[node];
        let (generation, journals) = (generation + 1, self.journals.path());
        let tls = self.tls.as_deref();
        let started = Node::start(name, generation, address, &self.url, journals, flags, tls);
        self.nodes[node] = started;
    }

    /// Every visit of all nodes so far.
    ///
    /// # Panics
    /// When a journal cannot be read.
    pub fn visits(&self) -> Vec<Visit> {
        Visit::read_all(self.journals.path()).expect("journals can be read")
    }

    /// The ids that the registry lists now, sorted, each that is not at its node's address with the
    /// one it has; `None` when it does not answer.
    pub async fn listed(&self) -> Option<Vec<String>> {
        let read = time::timeout(Duration::from_secs(1), self.registry.read(SERVICE)).await;
        let listing = read.ok()?.ok()?;
        let id = |entry: &Entry| {
            let registry::Node { id, address, .. } = &*entry.node;
            let is_ours = self.nodes.iter().any(|it| it.id == *id && it.address == *address);
            if is_ours { id.clone() } else { format!("{id} at {address}") }
        };
        let mut ids: Vec<_> = listing.entries.iter().map(id).collect();
        ids.sort();
        Some(ids)
    }

    /// The records of all nodes.
    ///
    /// # Panics
    /// When the registry cannot be read, or lacks one.
    pub async fn records(&self) -> Vec<registry::Node> {
        let listing = self.registry.read(SERVICE).await.expect("the registry is read");
        let find = |id: &String| {
            let entry = listing.entries.iter().find(|entry| entry.node.id == *id);
            (*entry.unwrap_or_else(|| panic!("{id} is not registered")).node).clone()
        };
        self.ids().iter().map(find).collect()
    }

    /// Has the registry list a node that is not of the fleet, for longer than any trial.
    ///
    /// # Panics
    /// When the registry does not take the record.
    pub async fn list(&self, node: &registry::Node) -> Lease {
        let registered = self.registry.register(node, Duration::from_secs(3600)).await;
        registered.expect("the registry takes a record")
    }

    async fn registered(&mut self, node: usize) -> Duration {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let id = self.nodes[node].id.clone();
            if self.listed().await.is_some_and(|ids| ids.contains(&id)) {
                return now();
            }
            if let Ok(Some(status)) = self.nodes[node].process.try_wait() {
                panic!("node {id} ended at its start: {status}");
            }
            assert!(Instant::now() < limit, "node {id} had not registered after 30 s");
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, node: usize, signal: Signal) {
        let id = self.nodes[node].process.id();
        let id = Pid::from_raw(id.try_into().expect("a process id")).expect("not zero");
        kill_process(id, signal).expect("our child can be signalled");
    }
}

#[derive(Debug)]
struct Node {
    name: &'static str,
    generation: usize,
    id: String,
    address: String,
    process: Child,
}

impl Node {
    fn start(
        name: &'static str,
        generation: usize,
        address: String,
        url: &str,
        journals: &Path,
        flags: &[&str],
        tls: Option<&Path>,
    ) -> Self {
        let id = format!("{name}-{generation}");
        let tls = tls.map(|folder| folder.join(name));
        let process = Command::new(program("fault-node"))
            .args(["--id", &id, "--address", &address, "--registry", url, "--journals"])
            .arg(journals)
            .args(flags)
            .args(tls.iter().flat_map(|folder| [Path::new("--tls"), folder]))
            // For registries that write at the node's pod.
            .env("POD_NAME", &id)
            .env("POD_NAMESPACE", "default")
            .stdin(Stdio::piped()) // closes with us: the node ends then
            .spawn()
            .expect("a node can be started");
        Self { name, generation, id, address, process }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A loopback address that nobody listens on.
///
/// # Panics
/// When there is none.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", ports::free())
}

/// Waits until the shared clock says `at`.
pub async fn until(at: Duration) {
    time::sleep(at.saturating_sub(now())).await;
}
