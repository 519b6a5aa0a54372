//! A real etcd 3.6, for as long as a test needs it.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{ports, programs::server};

/// How long a member may take to serve; it takes half a second when the machine is idle.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A member on loopback ports of its own, which it keeps over restarts. Dropped, it is killed and
/// its data removed.
#[derive(Debug)]
pub struct Etcd {
    options: Options,
    name: String,
    client_port: u16,
    peer_port: u16,
    metrics_port: u16,
    /// `n1=http://127.0.0.1:1,n2=..`
    cluster: String,
    dir: TempDir,
    /// Data folders so far: a restored member has a new one.
    data: usize,
    process: Option<Child>,
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
            let mut members = ["n1", "n2", "n3"].map(|name| Self::chosen(name, Options::default()));
            let cluster = members.each_ref().map(Self::peer).join(",");
            for member in &mut members {
                member.cluster.clone_from(&cluster);
                member.spawn();
            }
            let mut all_serve = true;
            for member in &mut members {
                all_serve &= member.serves().await;
            }
            if all_serve {
                return members;
            }
        }
        panic!("etcd found its ports taken three times over");
    }

    fn chosen(name: &str, options: Options) -> Self {
        Self {
            options,
            name: name.to_owned(),
            client_port: ports::free(),
            peer_port: ports::free(),
            metrics_port: ports::free(),
            cluster: String::new(),
            dir: TempDir::new().expect("a folder for etcd's data"),
            data: 0,
            process: None,
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

    /// Stops it where it is (SIGSTOP): its ports still accept, nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it (SIGKILL) and waits for its end. Its data stays.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }

    /// Starts it again on the same ports and data, and waits until it serves. One that runs is
    /// killed first.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn restart(&mut self) {
        self.kill().await;
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
        self.kill().await;
        self.data += 1;
        self.restart().await;
    }

    /// What it holds now.
    ///
    /// # Panics
    /// When `etcdctl` fails.
    pub async fn snapshot(&self) -> Snapshot {
        let file = self.dir.path().join("snapshot");
        let _ = fs::remove_file(&file);
        let mut etcdctl = Command::new(server("etcdctl-3.6"));
        etcdctl.args(["--endpoints", &self.address(), "snapshot", "save"]).arg(&file);
        run(etcdctl).await;
        Snapshot(file)
    }

    /// Kills it and starts it on the same ports with what it held then: the revision goes back.
    ///
    /// # Panics
    /// When `etcdutl` fails, and as [`Etcd::start`].
    pub async fn restore(&mut self, snapshot: &Snapshot) {
        self.kill().await;
        self.data += 1;
        let mut etcdutl = Command::new(server("etcdutl-3.6"));
        etcdutl
            .args(["snapshot", "restore", "--name", &self.name])
            .args(["--initial-cluster", &self.cluster])
            .args(["--initial-advertise-peer-urls", &self.peer_url()])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg(&snapshot.0);
        run(etcdutl).await;
        self.restart().await;
    }

    /// How many connections this process has to it. (etcd has one to itself, from some moment
    /// after its start on.)
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux tells of its connections");
        let files = fs::read_dir("/proc/self/fd").expect("Linux tells of open files");
        // One may be closed between its listing and its reading.
        let ours: HashSet<_> = files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .map(PathBuf::into_os_string)
            .collect();
        let remote = format!("0100007F:{:04X}", self.client_port);
        let is_ours = |line: &&str| {
            let columns: Vec<_> = line.split_whitespace().collect();
            let [_, _, to, state, _, _, _, _, _, inode, ..] = columns[..] else { return false };
            to == remote
                && state == "01" // established
                && ours.contains(OsStr::new(&format!("socket:[{inode}]")))
        };
        table.lines().filter(is_ours).count()
    }

    /// How many watches are on.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn watches(&self) -> usize {
        let metrics = self.get("/metrics").await.expect("etcd serves its metrics");
        let metric = |line: &str| {
            line.strip_prefix("etcd_debugging_mvcc_watcher_total ")?.trim().parse().ok()
        };
        metrics.lines().find_map(metric).expect("etcd counts its watches")
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("etcd runs");
        kill_process(Pid::from_child(process), signal).expect("a child can be signalled");
    }

    fn peer(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join(format!("data-{}", self.data))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn spawn(&mut self) {
        let scheme = if self.options.tls { "https" } else { "http" };
        let client_url = format!("{scheme}://{}", self.address());
        let metrics_url = format!("http://127.0.0.1:{}", self.metrics_port);
        let log = File::create(self.log()).expect("a log for etcd");
        // Ends with the thread that started it, also when that is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(server("etcd-3.6"))
            .args(["--name", &self.name, "--unsafe-no-fsync", "--log-level", "warn"])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &self.peer_url()])
            .args(["--initial-advertise-peer-urls", &self.peer_url()])
            .args(["--initial-cluster", &self.cluster, "--initial-cluster-state", "new"])
            .args(["--listen-metrics-urls", &metrics_url])
            .args(&self.options.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log for etcd"))
            .stderr(log);
        self.process = Some(command.spawn().expect("setpriv (util-linux) is installed"));
    }

    /// Waits until it serves; false if it ended since a port was taken.
    async fn serves(&mut self) -> bool {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if timeout(Duration::from_secs(1), self.is_healthy()).await.is_ok_and(|is| is) {
                return true;
            }
            let process = self.process.as_mut().expect("etcd was started");
            let ended = process.try_wait().expect("a child can be asked after");
            if ended.is_none() && Instant::now() < deadline {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            if log.contains("address already in use") {
                return false;
            }
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(10)..].join("\n");
            panic!("etcd does not serve ({ended:?}); its log ends:\n{last}");
        }
    }

    async fn is_healthy(&self) -> bool {
        self.get("/health").await.is_ok_and(|answer| answer.contains(r#""health":"true""#))
    }

    /// Asked where neither TLS nor a password is needed.
    async fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port)).await?;
        // The old version, so that the answer does not come in chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: etcd\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

async fn run(mut command: Command) {
    let run = tokio::task::spawn_blocking(move || command.output().map(|output| (command, output)));
    let (command, output) = run.await.expect("the command runs").expect("the command runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {text}");
}
