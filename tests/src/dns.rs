//! A real DNS server, Knot DNS, for as long as a test needs it: the zone `test.`, whose records a
//! test replaces at once.

use std::{fs, process::Command};

use crate::{
    ports,
    process::{self, Process},
    programs::server,
};

/// The server, authoritative for `test.`, on a loopback port of its own that it keeps over restarts.
/// Dropped, it is killed and its zone removed.
#[derive(Debug)]
pub struct Dns {
    port: u16,
    /// How often the zone was written: its serial.
    written: u32,
    process: Process,
}

impl Dns {
    /// A server whose zone is empty, serving.
    ///
    /// # Panics
    /// When Knot DNS is not there, or does not serve within a minute.
    pub async fn start() -> Self {
        // Another process may take the port between its choice and its use.
        for _ in 0..3 {
            let mut dns = Self::stopped();
            dns.spawn();
            if dns.serves().await {
                return dns;
            }
        }
        panic!("Knot DNS found its ports taken three times over");
    }

    /// A server that is not started yet: [`Dns::restart`] does.
    pub fn stopped() -> Self {
        Self::stopped_on(ports::free())
    }

    /// The same on this port.
    pub fn stopped_on(port: u16) -> Self {
        let mut dns = Self { port, written: 0, process: Process::stopped("knotd") };
        dns.write(&[]);
        dns
    }

    /// The registry's URL for such a target: `greeter.test:50051`.
    pub fn url(&self, target: &str) -> String {
        format!("dns://127.0.0.1:{}/{target}", self.port)
    }

    /// The port, of UDP and of TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Replaces all records of the zone by these, at once: `greeter 60 A 127.0.0.1`.
    ///
    /// # Panics
    /// When the server does not take them.
    pub async fn set(&mut self, records: &[&str]) {
        self.write(records);
        self.control(&["zone-reload", "test."]).await;
    }

    /// The same of a server that may not run, or not serve: it is started anew.
    ///
    /// # Panics
    /// As [`Dns::start`].
    pub async fn set_and_restart(&mut self, records: &[&str]) {
        self.write(records);
        self.restart().await;
    }

    /// How many questions it has been asked over UDP and over TCP since its start.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn asked(&self) -> (u64, u64) {
        let said = self.control(&["stats", "mod-stats"]).await;
        let count = |protocol: &str| {
            let key = format!("request-protocol[{protocol}] = ");
            said.lines().find_map(|line| line.split_once(&key)?.1.trim().parse().ok()).unwrap_or(0)
        };
        (count("udp4"), count("tcp4"))
    }

    /// Stops it where it is (SIGSTOP): nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Kills it (SIGKILL) and waits for its end. Its zone stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port with the same zone, and waits until it serves. One that runs
    /// is killed first.
    ///
    /// # Panics
    /// As [`Dns::start`].
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.serves().await, "the DNS server's port was taken while it was down");
    }

    /// Removes all records: each name is then denied (NXDOMAIN).
    ///
    /// # Panics
    /// As [`Dns::set`].
    pub async fn wipe(&mut self) {
        self.set(&[]).await;
    }

    /// Starts it again with a zone that it cannot load: each name is then a failure (SERVFAIL).
    ///
    /// # Panics
    /// As [`Dns::start`].
    pub async fn break_zone(&mut self) {
        fs::write(self.zone(), "this is no zone").expect("a zone is written");
        self.restart().await;
    }

    /// How many connections this process has to it.
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        process::connections(self.port)
    }

    fn zone(&self) -> std::path::PathBuf {
        self.process.dir().join("test.zone")
    }

    fn write(&mut self, records: &[&str]) {
        self.written += 1;
        let serial = self.written;
        let mut zone = format!(
            "$ORIGIN test.\n@ 1 SOA ns root {serial} 3600 3600 3600 1\n@ 1 NS ns\nns 1 A 127.0.0.1\n"
        );
        for record in records {
            zone.push_str(record);
            zone.push('\n');
        }
        fs::write(self.zone(), zone).expect("a zone is written");
    }

    fn spawn(&mut self) {
        let dir = self.process.dir().display();
        let config = format!(
            "server:\n  listen: 127.0.0.1@{}\n  rundir: {dir}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ndatabase:\n  storage: {dir}\nlog:\n  - target: stderr\n    any: \
             info\nmod-stats:\n  - id: all\n    request-protocol: on\ntemplate:\n  - id: default\n    \
             global-module: mod-stats/all\nzone:\n  - domain: test.\n    storage: {dir}\n    file: \
             test.zone\n    journal-content: none\n    zonefile-sync: -1\n",
            self.port
        );
        let file = self.process.dir().join("knot.conf");
        fs::write(&file, config).expect("a configuration is written");
        let file = file.display().to_string();
        self.process.spawn(server("knotd"), ["-c", &file], &[]);
    }

    async fn serves(&mut self) -> bool {
        let socket = self.socket();
        let is_ready = async || {
            let mut status = Command::new(server("knotc"));
            status.args(["-s", &socket, "status"]);
            let status = tokio::task::spawn_blocking(move || status.output()).await;
            status.is_ok_and(|output| output.is_ok_and(|output| output.status.success()))
        };
        self.process.serves(is_ready).await
    }

    fn socket(&self) -> String {
        self.process.dir().join("knot.sock").display().to_string()
    }

    async fn control(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(server("knotc"));
        command.args(["-b", "-s", &self.socket()]).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("knotc runs").expect("knotc runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "knotc {arguments:?}: {said}{failed}");
        said
    }
}
