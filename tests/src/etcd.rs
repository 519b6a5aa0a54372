//! A real etcd 3.6, for as long as a test needs it.

use std::{fs, path::PathBuf, process::Command};

use etcd_client::{ConnectOptions, Permission, PermissionType};
use micro::registry::Node;

use crate::{
    fault::{Cannot, Server},
    peers::Peers,
    ports,
    process::{self, Process},
    programs::server,
};

/// A member on loopback ports of its own, which it keeps over restarts. Dropped, it is killed and
/// its data removed.
#[derive(Debug)]
pub struct Etcd {
    options: Options,
    name: String,
    client_port: u16,
    peer_port: u16,
    /// Where the other members reach it.
    reached_at: u16,
    metrics_port: u16,
    /// `n1=http://127.0.0.1:1,n2=..`
    cluster: String,
    /// Data folders so far: a restored member has a new one.
    data: usize,
    remembered: Option<Snapshot>,
    process: Process,
}

/// How a member is started, beyond the usual.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further flags.
    pub flags: Vec<String>,
    /// Whether clients speak TLS; the flags name the certificates.
    pub tls: bool,
}

/// A state of the registry, to go back to.
#[derive(Debug)]
pub struct Snapshot(PathBuf);

impl Etcd {
    /// A single member, serving.
    ///
    /// # Panics
    /// When etcd is not there, or does not serve within 30 s.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// A single member started with these options, serving.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn start_with(options: Options) -> Self {
        // Another process may take a port between its choice and its use.
        for _ in 0..3 {
            let mut etcd = Self::chosen("n1", options.clone());
            etcd.cluster = etcd.peer();
            etcd.spawn();
            if etcd.serves().await {
                return etcd;
            }
        }
        panic!("etcd found its ports taken three times over");
    }

    /// A member that is not started yet: [`Etcd::restart`] does.
    pub fn stopped() -> Self {
        let mut etcd = Self::chosen("n1", Options::default());
        etcd.cluster = etcd.peer();
        etcd
    }

    /// Three members of one cluster, serving.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn cluster() -> [Self; 3] {
        for _ in 0..3 {
            if let Some(members) = Self::joined(Self::three()).await {
                return members;
            }
        }
        panic!("etcd found its ports taken three times over");
    }

    /// The same with links between them, all of which one can be cut off from.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn cluster_with_links() -> ([Self; 3], Peers) {
        for _ in 0..3 {
            let mut members = Self::three();
            let peers = Peers::of(&members.each_ref().map(|it| it.peer_port)).await;
            for (member, port) in members.iter_mut().zip(peers.ports()) {
                member.reached_at = *port;
            }
            if let Some(members) = Self::joined(members).await {
                return (members, peers);
            }
        }
        panic!("etcd found its ports taken three times over");
    }

    fn three() -> [Self; 3] {
        ["n1", "n2", "n3"].map(|name| Self::chosen(name, Options::default()))
    }

    /// The members, serving; none if a port was taken.
    async fn joined(mut members: [Self; 3]) -> Option<[Self; 3]> {
        let cluster = members.each_ref().map(Self::peer).join(",");
        for member in &mut members {
            member.cluster.clone_from(&cluster);
            member.spawn();
        }
        let mut all_serve = true;
        for member in &mut members {
            all_serve &= member.serves().await;
        }
        all_serve.then_some(members)
    }

    fn chosen(name: &str, options: Options) -> Self {
        let peer_port = ports::free();
        Self {
            options,
            name: name.to_owned(),
            client_port: ports::free(),
            peer_port,
            reached_at: peer_port,
            metrics_port: ports::free(),
            cluster: String::new(),
            data: 0,
            remembered: None,
            process: Process::stopped("etcd"),
        }
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        format!("etcd://{}", self.address())
    }

    /// `127.0.0.1:PORT`, where clients are served.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// A client to look, write and delete by hand with.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.address()], None).await.expect("etcd is reached")
    }

    async fn root(&self) -> etcd_client::Client {
        let options = ConnectOptions::new().with_user("root", "admin");
        let client = etcd_client::Client::connect([self.address()], Some(options)).await;
        client.expect("etcd is reached")
    }

    /// Stops it where it is (SIGSTOP): its ports still accept, nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Its process's number.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it was started, and not killed since.
    pub fn runs(&self) -> bool {
        self.process.runs()
    }

    /// Kills it (SIGKILL) and waits for its end. Its data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and data, and waits until it serves. One that runs is
    /// killed first.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.serves().await, "etcd's ports were taken while it was down");
    }

    /// Starts it again, but does not wait: a member without a majority does not serve.
    pub fn restart_without_waiting(&mut self) {
        self.spawn();
    }

    /// Kills it and starts it on the same ports with nothing in it.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn wipe(&mut self) {
        self.kill();
        self.data += 1;
        self.restart().await;
    }

    /// What it holds now.
    ///
    /// # Panics
    /// When `etcdctl` fails.
    pub async fn snapshot(&self) -> Snapshot {
        let file = self.process.dir().join("snapshot");
        let _ = fs::remove_file(&file);
        let mut etcdctl = Command::new(server(&format!("etcdctl-{}", version())));
        etcdctl.args(["--endpoints", &self.address(), "snapshot", "save"]).arg(&file);
        process::run(etcdctl).await;
        Snapshot(file)
    }

    /// Kills it and starts it on the same ports with what it held then: the revision goes back.
    ///
    /// # Panics
    /// When `etcdutl` fails, and as [`Etcd::start`].
    pub async fn restore(&mut self, snapshot: &Snapshot) {
        self.kill();
        self.data += 1;
        // 3.4 has it in etcdctl.
        let tool = if version() == "3.4" { "etcdctl" } else { "etcdutl" };
        let mut etcdutl = Command::new(server(&format!("{tool}-{}", version())));
        etcdutl
            .args(["snapshot", "restore", "--name", &self.name])
            .args(["--initial-cluster", &self.cluster])
            .args(["--initial-advertise-peer-urls", &self.peer_url()])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg(&snapshot.0);
        process::run(etcdutl).await;
        self.restart().await;
    }

    /// How many connections this process has to it. (etcd has one to itself, from some moment
    /// after its start on.)
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        process::connections(self.client_port)
    }

    /// How many watches are on.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn watches(&self) -> usize {
        let metrics = self.metrics().await;
        let metric = |line: &str| {
            line.strip_prefix("etcd_debugging_mvcc_watcher_total ")?.trim().parse().ok()
        };
        metrics.lines().find_map(metric).expect("etcd counts its watches")
    }

    /// What is left of the lease that a node's record hangs on, in whole seconds.
    ///
    /// # Panics
    /// When it does not say, or has no such record.
    pub async fn lease_left(&self, node: &Node) -> i64 {
        let mut client = self.client().await;
        let found = client.get(key(node), None).await.expect("etcd answers");
        let lease = found.kvs().first().expect("the node is registered").lease();
        client.lease_client().time_to_live(lease, None).await.expect("etcd answers").ttl()
    }

    /// What it tells of itself, in Prometheus' format.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn metrics(&self) -> String {
        process::get(self.metrics_port, "/metrics").await.expect("etcd serves its metrics")
    }

    fn peer(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.reached_at)
    }

    fn data_dir(&self) -> PathBuf {
        self.process.dir().join(format!("data-{}", self.data))
    }

    fn spawn(&mut self) {
        let scheme = if self.options.tls { "https" } else { "http" };
        let client_url = format!("{scheme}://{}", self.address());
        let metrics_url = format!("http://127.0.0.1:{}", self.metrics_port);
        let (peer_url, data_dir) = (self.peer_url(), self.data_dir().display().to_string());
        let listen_url = format!("http://127.0.0.1:{}", self.peer_port);
        let arguments = [
            ["--name", &self.name],
            ["--data-dir", &data_dir],
            ["--log-level", "warn"],
            ["--listen-client-urls", &client_url],
            ["--advertise-client-urls", &client_url],
            ["--listen-peer-urls", &listen_url],
            ["--initial-advertise-peer-urls", &peer_url],
            ["--initial-cluster", &self.cluster],
            ["--initial-cluster-state", "new"],
            ["--listen-metrics-urls", &metrics_url],
        ];
        let arguments = arguments.into_iter().flatten().chain(["--unsafe-no-fsync"]);
        let arguments = arguments.chain(self.options.flags.iter().map(String::as_str));
        self.process.spawn(server(&format!("etcd-{}", version())), arguments, &[]);
    }

    /// Waits until it serves; false if it ended since a port was taken.
    async fn serves(&mut self) -> bool {
        // Asked where neither TLS nor a password is needed.
        let port = self.metrics_port;
        let is_healthy = async || {
            let answer = process::get(port, "/health").await;
            answer.is_ok_and(|answer| answer.contains(r#""health":"true""#))
        };
        self.process.serves(is_healthy).await
    }
}

/// Which etcd: 3.6, unless `MICRO_TEST_ETCD` names an older one, to see that it will do.
pub fn version() -> String {
    std::env::var("MICRO_TEST_ETCD").unwrap_or_else(|_| "3.6".to_owned())
}

impl Server for Etcd {
    const NAME: &'static str = "etcd";

    fn stopped() -> Self {
        Self::stopped()
    }

    fn address(&self) -> String {
        self.address()
    }

    fn url_at(&self, address: &str) -> String {
        match self.options.flags.is_empty() {
            true => format!("etcd://{address}"),
            false => format!("etcd://micro:secret@{address}"),
        }
    }

    fn kill(&mut self) {
        self.kill();
    }

    async fn restart(&mut self) {
        self.restart().await;
    }

    fn pause(&self) {
        self.pause();
    }

    fn resume(&self) {
        self.resume();
    }

    async fn wipe(&mut self) -> Result<(), Cannot> {
        self.wipe().await;
        Ok(())
    }

    async fn remember(&mut self) -> Result<(), Cannot> {
        self.remembered = Some(self.snapshot().await);
        Ok(())
    }

    async fn go_back(&mut self) -> Result<(), Cannot> {
        let snapshot = self.remembered.take().expect("there is something remembered");
        self.restore(&snapshot).await;
        Ok(())
    }

    async fn lose(&self, node: &Node) -> Result<(), Cannot> {
        let mut client = self.client().await;
        let found = client.get(key(node), None).await.expect("etcd answers");
        let lease = found.kvs().first().expect("the node is registered").lease();
        client.lease_client().revoke(lease).await.expect("etcd answers");
        Ok(())
    }

    async fn delete(&self, node: &Node) -> Result<(), Cannot> {
        self.client().await.delete(key(node), None).await.expect("etcd answers");
        Ok(())
    }

    async fn overwrite(&self, node: &Node) -> Result<(), Cannot> {
        let Node { service, id, .. } = node;
        let value = format!(
            r#"{{"name":"{service}","version":"latest","metadata":null,"endpoints":[],"nodes":[{{"metadata":{{"protocol":"grpc"}},"id":"{id}","address":"127.0.0.1:1"}}]}}"#
        );
        self.client().await.put(key(node), value, None).await.expect("etcd answers");
        Ok(())
    }

    async fn guarded() -> Result<Self, Cannot> {
        // A token is good for 2 s unless used, and cheap to come by on a busy machine.
        let flags = ["--auth-token-ttl", "2", "--bcrypt-cost", "4"].map(str::to_owned).to_vec();
        let etcd = Self::start_with(Options { flags, tls: false }).await;
        let mut client = etcd.client().await;
        client.user_add("root", "admin", None).await.expect("etcd answers");
        client.user_grant_role("root", "root").await.expect("etcd answers");
        client.role_add("micro").await.expect("etcd answers");
        let keys = Permission::new(PermissionType::Readwrite, ROOT).with_prefix();
        client.role_grant_permission("micro", keys).await.expect("etcd answers");
        client.user_add("micro", "secret", None).await.expect("etcd answers");
        client.user_grant_role("micro", "micro").await.expect("etcd answers");
        client.auth_enable().await.expect("etcd answers");
        Ok(etcd)
    }

    async fn expire(&self) {
        // Whoever holds a token is signed out, and cannot sign in again.
        self.root().await.user_change_password("micro", "another").await.expect("etcd answers");
    }

    async fn renew(&self) {
        self.root().await.user_change_password("micro", "secret").await.expect("etcd answers");
    }
}

/// What go-micro's keys begin with.
const ROOT: &str = "/micro/registry/";

fn key(node: &Node) -> String {
    format!("{ROOT}{}/{}", node.service, node.id)
}
