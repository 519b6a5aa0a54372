//! The client: the program `soak-client`, whose memory, tasks and descriptors are its own.

use std::{
    fmt, fs,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{mpsc, watch},
    time::timeout,
};

use super::Stream;
use crate::{fault::Call, programs::program};

/// What a process has.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// Bytes in memory that are not a file's.
    pub memory: usize,
    /// Bytes of them that are allocated.
    pub heap: usize,
    /// Tasks of its runtime.
    pub tasks: usize,
    /// Descriptors.
    pub open: usize,
}

impl Count {
    /// The lesser of each.
    pub(super) fn least(self, other: Self) -> Self {
        Self {
            memory: self.memory.min(other.memory),
            heap: self.heap.min(other.heap),
            tasks: self.tasks.min(other.tasks),
            open: self.open.min(other.open),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, heap, tasks, open } = self;
        let (memory, heap) = (kib(*memory), kib(*heap));
        write!(f, "{memory} ({heap} allocated), {tasks} tasks, {open} descriptors")
    }
}

pub(super) fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes / 1024)
}

/// So many answers come from all nodes.
const BEGUN: usize = 200;

/// Calls and streams.
type Ended = (Vec<Call>, Vec<Stream>);

/// The program at work.
#[derive(Debug)]
pub(super) struct OtherProcess {
    process: Child,
    input: ChildStdin,
    ended: Arc<Mutex<Ended>>,
    told: mpsc::UnboundedReceiver<(usize, usize)>,
}

impl OtherProcess {
    /// Has it call, and waits until it is answered: what happens before that is nobody's fault.
    pub(super) async fn start(registry: &str, health_checks: bool, tls: Option<&Path>) -> Self {
        let mut process = Command::new(program("soak-client"))
            .arg(registry)
            .args(health_checks.then_some("--health-checks"))
            .args(tls.iter().flat_map(|folder| [Path::new("--tls"), folder]))
            .stdin(Stdio::piped()) // closes with us: it ends then
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the client starts");
        let input = process.stdin.take().expect("its input is ours");
        let output = process.stdout.take().expect("its output is ours");
        let ended = Arc::<Mutex<Ended>>::default();
        let (tell, told) = mpsc::unbounded_channel();
        let (answer, mut answered) = watch::channel(0);
        let all = ended.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Some(line) = lines.next_line().await.expect("lines of text") {
                if let Some((tasks, heap)) =
                    line.strip_prefix("# ").and_then(|it| it.split_once(' '))
                {
                    let number = |text: &str| text.parse().expect("a number");
                    let _ = tell.send((number(tasks), number(heap)));
                    continue;
                }
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(stream) = Stream::parse(&line) {
                    all.1.push(stream);
                    continue;
                }
                let call = Call::parse(&line).unwrap_or_else(|| panic!("no call: {line}"));
                answer.send_modify(|answered| *answered += usize::from(call.outcome.is_ok()));
                all.0.push(call);
            }
        });
        let begun = timeout(Duration::from_secs(30), answered.wait_for(|calls| *calls >= BEGUN));
        let _ = begun.await.expect("it is answered").expect("it runs");
        Self { process, input, ended, told }
    }

    /// Takes the calls and streams that have ended since the last time.
    pub(super) async fn ended(&mut self) -> Ended {
        // What it answers comes after them.
        self.ask().await;
        std::mem::take(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it has.
    pub(super) async fn count(&mut self) -> Count {
        let (tasks, heap) = self.ask().await;
        let process = self.process.id().expect("it runs");
        let open = fs::read_dir(format!("/proc/{process}/fd"));
        let status = fs::read_to_string(format!("/proc/{process}/status"));
        let status = status.expect("Linux tells of its memory");
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = memory.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        Count {
            memory: kib.expect("so many kB") * 1024,
            heap,
            tasks,
            open: open.expect("Linux tells what is open").count(),
        }
    }

    /// How many tasks it has, and bytes allocated.
    async fn ask(&mut self) -> (usize, usize) {
        self.input.write_all(b"\n").await.expect("it listens");
        let told = timeout(Duration::from_secs(10), self.told.recv()).await;
        told.expect("it answers").expect("it runs")
    }
}
