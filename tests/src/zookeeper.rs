//! A real ZooKeeper, for as long as a test needs it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use zookeeper_client::Client;

use crate::{
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
