//! The nodes that are called: three, in one process apart, so that the client's CPU time is its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::programs::program;

/// The process with the three nodes; ends with this.
#[derive(Debug)]
pub struct Nodes {
    /// Where the nodes listen.
    pub addresses: Vec<String>,
    process: Child,
}

impl Nodes {
    /// Starts them.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start() -> Self {
        let mut process = Command::new(program("bench-nodes"))
            .stdin(Stdio::piped()) // closes with us: the nodes end then
            .stdout(Stdio::piped())
            .spawn()
            .expect("the nodes can be started");
        let mut line = String::new();
        let out = process.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("the nodes tell where they are");
        let addresses: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(addresses.len(), 3, "three nodes listen: {line:?}");
        Self { addresses, process }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
