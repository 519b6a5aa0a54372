//! A real ZooKeeper, for as long as a test needs it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use micro::registry::Node;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Permission};

use crate::{
    fault::{Cannot, SERVICE, Server},
    ports,
    process::{self, Process},
    programs::server,
};

/// A standalone server on a loopback port of its own, which it keeps over restarts. Dropped, it is
/// killed and its data removed.
///
/// Sessions are granted from 1 s to 2 min.
#[derive(Debug)]
pub struct ZooKeeper {
    port: u16,
    /// Further lines of its configuration.
    settings: String,
    /// Data folders so far: a restored server has a new one.
    data: usize,
    remembered: Option<Snapshot>,
    /// Whether its URL has a user.
    is_guarded: bool,
    process: Process,
}

/// A state of the registry, to go back to.
#[derive(Debug)]
pub struct Snapshot(PathBuf);

impl ZooKeeper {
    /// A server, serving.
    ///
    /// # Panics
    /// When ZooKeeper or Java is not there, or does not serve within a minute.
    pub async fn start() -> Self {
        Self::start_with("maxSessionTimeout=120000").await
    }

    /// A server with these lines in its configuration, serving.
    ///
    /// # Panics
    /// As [`ZooKeeper::start`].
    pub async fn start_with(settings: &str) -> Self {
        // Another process may take a port between its choice and its use.
        for _ in 0..3 {
            let mut zookeeper = Self::chosen(settings);
            zookeeper.spawn();
            if zookeeper.serves().await {
                return zookeeper;
            }
        }
        panic!("ZooKeeper found its port taken three times over");
    }

    /// A server that is not started yet: [`ZooKeeper::restart`] does.
    pub fn stopped() -> Self {
        Self::chosen("maxSessionTimeout=120000")
    }

    fn chosen(settings: &str) -> Self {
        Self {
            port: ports::free(),
            settings: settings.to_owned(),
            data: 0,
            remembered: None,
            is_guarded: false,
            process: Process::stopped("ZooKeeper"),
        }
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        format!("zookeeper://{}", self.address())
    }

    /// `127.0.0.1:PORT`, where clients are served.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port where clients are served.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client to look, write and delete by hand with.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self) -> Client {
        Client::connect(&self.address()).await.expect("ZooKeeper is reached")
    }

    /// Stops it where it is (SIGSTOP): its port still accepts, nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Kills it (SIGKILL) and waits for its end. Its data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port and data, and waits until it serves. One that runs is
    /// killed first.
    ///
    /// # Panics
    /// As [`ZooKeeper::start`].
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.serves().await, "ZooKeeper's port was taken while it was down");
    }

    /// Kills it and starts it on the same port with nothing in it.
    ///
    /// # Panics
    /// As [`ZooKeeper::start`].
    pub async fn wipe(&mut self) {
        self.kill();
        self.data += 1;
        self.restart().await;
    }

    /// What it holds now: a copy of its data folder, as an operator makes one.
    ///
    /// # Panics
    /// When the folder cannot be copied.
    pub fn snapshot(&self) -> Snapshot {
        let copy = self.process.dir().join("snapshot");
        let _ = fs::remove_dir_all(&copy);
        copy_dir(&self.data_dir(), &copy).expect("the data is copied");
        Snapshot(copy)
    }

    /// Kills it and starts it on the same port with what it held then: transaction ids go back.
    ///
    /// # Panics
    /// When the folder cannot be copied, and as [`ZooKeeper::start`].
    pub async fn restore(&mut self, snapshot: &Snapshot) {
        self.kill();
        self.data += 1;
        copy_dir(&snapshot.0, &self.data_dir()).expect("the data is copied");
        self.restart().await;
    }

    /// How many connections this process has to it.
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        process::connections(self.port)
    }

    /// One of the numbers that it tells of itself, such as `zk_watch_count`.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn metric(&self, name: &str) -> u64 {
        let answer = ask(self.port, "mntr").await.expect("ZooKeeper answers");
        let number = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        answer.lines().find_map(number).unwrap_or_else(|| panic!("no {name} in {answer}"))
    }

    fn data_dir(&self) -> PathBuf {
        self.process.dir().join(format!("data-{}", self.data))
    }

    fn spawn(&mut self) {
        let (port, settings, data) = (self.port, &self.settings, self.data_dir());
        let config = self.process.dir().join("zoo.cfg");
        let text = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n4lw.commands.whitelist=srvr,mntr,cons\npreAllocSize=64\n\
             {settings}\n",
            data.display()
        );
        fs::write(&config, text).expect("the configuration is written");
        let classes = server("zookeeper").join("*").display().to_string();
        let arguments = [
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dzookeeper.forceSync=no",
            "-cp",
            &classes,
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            &config.display().to_string(),
        ];
        self.process.spawn("java", arguments, &[]);
    }

    /// Waits until it serves; false if it ended since its port was taken.
    async fn serves(&mut self) -> bool {
        let port = self.port;
        let is_serving =
            async || ask(port, "srvr").await.is_ok_and(|answer| answer.contains("Mode: "));
        self.process.serves(is_serving).await
    }
}

impl Server for ZooKeeper {
    const NAME: &'static str = "zookeeper";

    fn stopped() -> Self {
        Self::stopped()
    }

    fn address(&self) -> String {
        self.address()
    }

    fn url_at(&self, address: &str) -> String {
        match self.is_guarded {
            false => format!("zookeeper://{address}"),
            true => format!("zookeeper://micro:secret@{address}"),
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
        self.remembered = Some(self.snapshot());
        Ok(())
    }

    async fn go_back(&mut self) -> Result<(), Cannot> {
        let snapshot = self.remembered.take().expect("there is something remembered");
        self.restore(&snapshot).await;
        Ok(())
    }

    async fn lose(&self, node: &Node) -> Result<(), Cannot> {
        let client = self.client().await;
        let owner = async || {
            let stat = client.check_stat(&path(node)).await.expect("ZooKeeper answers");
            stat.map(|stat| stat.ephemeral_owner)
        };
        let session = owner().await.expect("the node is registered");
        while owner().await == Some(session) {
            // Its own process takes the session back as soon as it is taken from it: one of the two
            // is first.
            let _ = close_session(self.port, session).await;
        }
        Ok(())
    }

    async fn delete(&self, node: &Node) -> Result<(), Cannot> {
        self.client().await.delete(&path(node), None).await.expect("ZooKeeper answers");
        Ok(())
    }

    async fn overwrite(&self, node: &Node) -> Result<(), Cannot> {
        let Node { service, id, .. } = node;
        let value = format!(
            r#"{{"name":"{service}","version":"latest","metadata":null,"endpoints":[],"nodes":[{{"metadata":{{"protocol":"grpc"}},"id":"{id}","address":"127.0.0.1:1"}}]}}"#
        );
        // In no session, as go-micro writes it.
        let client = self.client().await;
        let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let mut write = client.new_multi_writer();
        write.add_delete(&path(node), None).expect("a path");
        write.add_create(&path(node), value.as_bytes(), &persistent).expect("a path");
        write.commit().await.expect("ZooKeeper answers");
        Ok(())
    }

    async fn guarded() -> Result<Self, Cannot> {
        let mut zookeeper = Self::start().await;
        zookeeper.is_guarded = true;
        let admin = zookeeper.admin().await;
        let all = CreateMode::Persistent.with_acls(Acls::anyone_all());
        admin.mkdir(&folder(), &all).await.expect("ZooKeeper answers");
        zookeeper.renew().await;
        Ok(zookeeper)
    }

    async fn expire(&self) {
        // A password is worth what it may do: nothing, in the folder of the nodes.
        let rights = [Acl::new(Permission::ALL, AuthId::new("auth", ""))];
        self.admin().await.set_acl(&folder(), &rights, None).await.expect("ZooKeeper answers");
    }

    async fn renew(&self) {
        // What ZooKeeper keeps of `micro` with the password `secret`.
        let micro = AuthId::new("digest", "micro:ekQXsq4KDWhp941Uhpf7O9JQuto=");
        let admin = AuthId::new("auth", "");
        let rights = [Acl::new(Permission::ALL, admin), Acl::new(Permission::ALL, micro)];
        self.admin().await.set_acl(&folder(), &rights, None).await.expect("ZooKeeper answers");
    }
}

impl ZooKeeper {
    async fn admin(&self) -> Client {
        let connector = Client::connector().with_auth("digest", b"admin:admin");
        connector.connect(&self.address()).await.expect("ZooKeeper is reached")
    }
}

fn folder() -> String {
    format!("/micro-registry/{SERVICE}")
}

fn path(node: &Node) -> String {
    let escape = |name: &str| name.replace('/', "-");
    format!("/micro-registry/{}/{}", escape(&node.service), escape(&node.id))
}

/// Closes a session that another opened: to whom that is one that has expired.
async fn close_session(port: u16, session: i64) -> io::Result<()> {
    const CLOSE: i32 = -11;
    let mut connect = Vec::new();
    connect.extend(0_i32.to_be_bytes()); // the protocol's version
    connect.extend(0_i64.to_be_bytes()); // the last transaction seen
    connect.extend(15_000_i32.to_be_bytes()); // the timeout
    connect.extend(session.to_be_bytes());
    connect.extend(16_i32.to_be_bytes());
    connect.extend(password(session));
    connect.push(0); // not read-only
    let close: Vec<_> = [1_i32.to_be_bytes(), CLOSE.to_be_bytes()].concat();
    let mut packets = Vec::new();
    for packet in [connect, close] {
        packets.extend((packet.len() as u32).to_be_bytes());
        packets.extend(packet);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&packets).await?;
    // It closes the connection in the end.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// The password that ZooKeeper gives to a session: 16 bytes of Java's `Random` from its id and a
/// constant.
fn password(session: i64) -> Vec<u8> {
    const SECRET: i64 = 0xb341_5c00;
    const FACTOR: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;
    let mut seed = ((session ^ SECRET) as u64 ^ FACTOR) & MASK;
    let next = || {
        seed = (seed.wrapping_mul(FACTOR) + 0xb) & MASK;
        ((seed >> 16) as u32).to_le_bytes()
    };
    std::iter::repeat_with(next).take(4).flatten().collect()
}

/// What it answers to one of its four-letter words.
async fn ask(port: u16, word: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(word.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
