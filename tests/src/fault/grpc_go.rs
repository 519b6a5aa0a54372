//! grpc-go's client with its `round_robin`, a program of its own: `tests/peers/grpc-go`.

use std::{
    collections::HashMap,
    ffi::OsStr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use micro::discovery::Subscription;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
};
use tower::discover::Change;

use super::{Call, DEADLINE};
use crate::programs::server;

/// How many changes make a list at the most.
const AT_ONCE: usize = 10_000;

/// The program, which is to call from as many goroutines as asked for.
///
/// # Panics
/// When it does not start.
pub(super) fn start(
    flags: impl IntoIterator<Item: AsRef<OsStr>>,
    count: usize,
    pause: Duration,
) -> Child {
    let (count, pause) = (count.to_string(), pause.as_millis().to_string());
    let deadline = DEADLINE.as_millis().to_string();
    Command::new(server("grpc-go"))
        .args(flags)
        .args([&count, &pause, &deadline])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("grpc-go's program starts")
}

/// The calls that it makes until it is to stop, to the nodes of the subscription.
///
/// # Panics
/// When it says what is no call.
pub(super) async fn calls(
    mut process: Child,
    nodes: Subscription,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) -> Vec<Call> {
    // It stops calling when this is closed.
    let mut input = Some(process.stdin.take().expect("its input is ours"));
    let mut lines = BufReader::new(process.stdout.take().expect("its output is ours")).lines();
    // Those that are there at once are one list.
    let mut nodes = std::pin::pin!(nodes.into_discover().ready_chunks(AT_ONCE));
    let mut addresses = HashMap::new();
    let mut calls = Vec::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line.expect("lines of text") else { return calls };
                calls.push(Call::parse(&line).unwrap_or_else(|| panic!("no call: {line}")));
                made.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    input = None;
                }
            }
            Some(changes) = nodes.next(), if input.is_some() => {
                for change in changes {
                    match change.expect("a subscription does not fail") {
                        Change::Insert(id, node) => addresses.insert(id, node.address.clone()),
                        Change::Remove(id) => addresses.remove(&id),
                    };
                }
                tell(input.as_mut().expect("it is open"), addresses.values()).await;
            }
        }
    }
}

async fn tell(input: &mut ChildStdin, addresses: impl Iterator<Item = &String>) {
    let addresses: Vec<_> = addresses.map(String::as_str).collect();
    let line = addresses.join(",") + "\n";
    input.write_all(line.as_bytes()).await.expect("it listens");
}
