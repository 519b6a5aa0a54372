//! A real server, run for as long as a test needs it: what the servers have in common.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
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

/// How long a server may take to serve; most take less than a second when the machine is idle.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server's process, and a folder of its own, which it keeps over restarts. Dropped, the process
/// is killed and the folder removed.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    dir: TempDir,
    child: Option<Child>,
}

impl Process {
    /// A process that is not started yet.
    ///
    /// # Panics
    /// When there is no folder to be had.
    pub fn stopped(name: &'static str) -> Self {
        Self { name, dir: TempDir::new().expect("a folder for a server's data"), child: None }
    }

    /// The server's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the server with these arguments, its output in a log. It ends with the thread that
    /// starts it, also when that is killed.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(
        &mut self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, String)],
    ) {
        let log = File::create(self.log()).expect("a log for a server");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log for a server"))
            .stderr(log);
        self.child = Some(command.spawn().expect("setpriv (util-linux) is installed"));
    }

    /// Waits until it serves; false if it ended since a port was taken.
    ///
    /// # Panics
    /// When it ends for another reason, or does not serve within a minute.
    pub async fn serves(&mut self, is_ready: impl AsyncFn() -> bool) -> bool {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if timeout(Duration::from_secs(1), is_ready()).await.is_ok_and(|is| is) {
                return true;
            }
            let child = self.child.as_mut().expect("the server was started");
            let ended = child.try_wait().expect("a child can be asked after");
            if ended.is_none() && Instant::now() < deadline {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            if log.to_lowercase().contains("address already in use") {
                return false;
            }
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            panic!("{} does not serve ({ended:?}); its log ends:\n{last}", self.name);
        }
    }

    /// Its number.
    ///
    /// # Panics
    /// When it does not run.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Whether it was started, and not killed since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Stops it where it is (SIGSTOP): its ports still accept, nothing answers. All of its threads
    /// have stopped when this returns.
    ///
    /// # Panics
    /// When it does not run, or does not stop within 10 s.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let start = Instant::now();
        while !self.has_stopped() {
            assert!(start.elapsed() < Duration::from_secs(10), "{} does not stop", self.name);
            std::thread::yield_now();
        }
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Has it read its configuration anew (SIGHUP), if that is what it does then.
    ///
    /// # Panics
    /// When it does not run.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Kills it (SIGKILL) and waits for its end; what it left in its folder stays.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    fn has_stopped(&self) -> bool {
        let child = self.child.as_ref().expect("the server runs");
        let mut threads = fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
        let has_stopped = |thread: io::Result<fs::DirEntry>| {
            let stat = thread.and_then(|it| fs::read_to_string(it.path().join("stat")));
            // One that has ended meanwhile answers nothing either.
            stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|it| it.1.starts_with('T')))
        };
        threads.all(has_stopped)
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill_process(Pid::from_child(child), signal).expect("a child can be signalled");
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How many connections this process has to a port of the loopback interface.
///
/// # Panics
/// When the kernel's tables cannot be read.
pub fn connections(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux tells of its connections");
    let ours = sockets("self").expect("Linux tells of open files");
    let to = loopback(port);
    let is_ours = |(_, remote, socket): &(&str, &str, String)| {
        *remote == to && ours.contains(OsStr::new(socket))
    };
    established(&table).filter(is_ours).count()
}

/// Whether a process has a connection between these ports of the loopback interface. Another may have
/// one from the same port to another.
///
/// # Panics
/// When the kernel's tables cannot be read.
pub fn has_connection(process: u32, from: u16, to: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux tells of its connections");
    let (from, to) = (loopback(from), loopback(to));
    let mut found = established(&table).filter(|it| (it.0, it.1) == (&*from, &*to));
    // One that has ended has none.
    found.next().is_some_and(|(.., socket)| {
        sockets(&process.to_string()).is_ok_and(|it| it.contains(OsStr::new(&socket)))
    })
}

fn loopback(port: u16) -> String {
    format!("0100007F:{port:04X}")
}

/// Each connection's local and remote address, and the name of its socket among open files.
fn established(table: &str) -> impl Iterator<Item = (&str, &str, String)> {
    table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        match columns[..] {
            [_, local, remote, "01", _, _, _, _, _, inode, ..] => {
                Some((local, remote, format!("socket:[{inode}]")))
            }
            _ => None,
        }
    })
}

/// What a process has open, sockets among it.
fn sockets(process: &str) -> io::Result<HashSet<OsString>> {
    let files = fs::read_dir(format!("/proc/{process}/fd"))?;
    // One may be closed between its listing and its reading.
    let open = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    Ok(open.map(PathBuf::into_os_string).collect())
}

/// What a port of the loopback interface answers to a GET, headers and all.
///
/// # Errors
/// When it cannot be reached, or does not answer in text.
pub async fn get(port: u16, path: &str) -> io::Result<String> {
    ask(port, "GET", path, "").await
}

/// What a port of the loopback interface answers to a POST of some JSON, headers and all.
///
/// # Errors
/// As [`get`].
pub async fn post(port: u16, path: &str, json: &str) -> io::Result<String> {
    ask(port, "POST", path, json).await
}

async fn ask(port: u16, method: &str, path: &str, json: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // The old version, so that the answer does not come in chunks.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{json}",
        json.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Runs a command to its end, without blocking the runtime.
///
/// # Panics
/// When it fails, with what it said.
pub async fn run(mut command: Command) {
    let run = tokio::task::spawn_blocking(move || command.output().map(|output| (command, output)));
    let (command, output) = run.await.expect("the command runs").expect("the command runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {text}");
}
