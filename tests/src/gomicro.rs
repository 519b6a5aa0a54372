//! A real go-micro node, or client.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::programs::server;

/// go-micro's default stub calls `/<registry's name>.Echo/Say`.
pub const SERVICE: &str = "echo.v1";

/// Where its node serves.
pub const ADDRESS: &str = "127.0.0.1:7950";

/// go-micro takes up to 750 ms to probe, and both sides are debug builds.
const SOON: Duration = Duration::from_secs(10);

/// The peer: a line in, or none, and a line out.
#[derive(Debug)]
pub struct GoMicro {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl GoMicro {
    /// A client of [`SERVICE`], over the registry that `flags` name: none for mDNS.
    ///
    /// # Panics
    /// When the peer does not start.
    pub fn client(flags: &[&str]) -> Self {
        Self::start(flags, &["client", SERVICE])
    }

    /// A node of [`SERVICE`], and its id.
    ///
    /// # Panics
    /// When the peer does not start.
    pub async fn node(flags: &[&str]) -> (Self, String) {
        Self::node_at(flags, ADDRESS).await
    }

    /// The same at another address.
    ///
    /// # Panics
    /// When the peer does not start.
    pub async fn node_at(flags: &[&str], address: &str) -> (Self, String) {
        let mut node = Self::start(flags, &["server", SERVICE, address]);
        let line = node.line().await;
        let id = line.strip_prefix("serving ").unwrap_or_else(|| panic!("{line}")).to_owned();
        (node, id)
    }

    fn start(flags: &[&str], arguments: &[&str]) -> Self {
        let mut process = Command::new(server("gomicro-v5"))
            .args(flags)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the peer starts");
        let input = process.stdin.take().expect("its input is ours");
        let output = BufReader::new(process.stdout.take().expect("its output is ours")).lines();
        Self { process, input, output }
    }

    async fn line(&mut self) -> String {
        let line = timeout(SOON, self.output.next_line()).await.expect("the peer says something");
        line.expect("a line").expect("the peer runs")
    }

    /// Asks a client.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn ask(&mut self, line: &str) -> String {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("the peer listens");
        self.line().await
    }

    /// Asks until this is the answer.
    ///
    /// # Panics
    /// When it never is.
    pub async fn ask_until(&mut self, line: &str, expected: &str) {
        let mut last = String::new();
        let asking = async {
            while last != expected {
                last = self.ask(line).await;
            }
        };
        if timeout(SOON, asking).await.is_err() {
            panic!("{line}: {last:?} and never {expected:?}");
        }
    }

    /// Has it leave (SIGTERM), and waits for its end.
    ///
    /// # Panics
    /// When it does not leave.
    pub async fn leave(&mut self) {
        let id = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(id.expect("it runs"), Signal::TERM).expect("a child can be signalled");
        timeout(SOON, self.process.wait()).await.expect("it leaves").expect("a child");
    }
}
