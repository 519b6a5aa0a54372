//! What SIGTERM and SIGINT do to services: one process of its own for each test that ends with it.

use std::{os::unix::process::ExitStatusExt, process::Stdio, time::Duration};

use micro::{Client, Service, Streaming, registry, stream};
use rustix::process::{Pid, Signal, getpid, kill_process};
use tests::{
    etcd::Etcd,
    fault::TTL,
    ports,
    proto::echo::{ChatMessage, EchoClient, SayRequest},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{Instant, sleep, timeout},
};

/// Much less than the drain timeout of 30 s.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The phases of leaving beside calls and hooks, 5 s together, and what a busy machine may add.
const LEAVES_WITHIN: Duration = Duration::from_secs(5 + 1);

/// A process with two services in it.
struct Node {
    process: Child,
    /// It ends when this is closed, as waiting for it would.
    _input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    addresses: Vec<String>,
}

impl Node {
    fn start() -> Self {
        Self::on([(); 2].map(|()| format!("127.0.0.1:{}", ports::free())).into())
    }

    fn on(addresses: Vec<String>) -> Self {
        Self::in_registry("memory://", addresses)
    }

    /// One whose services are in this registry, which lists so many nodes then.
    async fn registered_in(etcd: &Etcd, count: usize) -> Self {
        let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", ports::free()));
        let node = Self::in_registry(&etcd.url(), addresses.into());
        while records(etcd).await < count {
            sleep(Duration::from_millis(20)).await;
        }
        node
    }

    fn in_registry(registry: &str, addresses: Vec<String>) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_signal-node"))
            .args(&addresses)
            .env("MICRO_REGISTRY", registry)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let _input = process.stdin.take().expect("its input is ours");
        let output = process.stdout.take().expect("its output is ours");
        Self { process, _input, output: BufReader::new(output).lines(), addresses }
    }

    fn stub(&self, nth: usize) -> EchoClient {
        let url = format!("static://echo={}", self.addresses[nth]);
        EchoClient::new("echo", &Client::builder().registry(url).build().expect("a client"))
    }

    fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(id.expect("it runs"), signal).expect("a child can be signalled");
    }

    /// How it ended: its exit code, or the signal that ended it.
    async fn ended(&mut self) -> (Option<i32>, Option<i32>) {
        let status = timeout(AT_ONCE, self.process.wait()).await.expect("it ends at once");
        let status = status.expect("a child can be waited for");
        (status.code(), status.signal())
    }

    /// A second signal ends it, and cuts the call.
    async fn ends_at_once(&mut self, chat: &mut Chat) {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        assert_eq!(self.ended().await, (None, Some(Signal::TERM.as_raw())));
        assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
        assert!(chat.answers.message().await.is_err(), "the call was cut");
    }

    async fn says(&mut self, what: &str) {
        let line = self.output.next_line().await.expect("it says something");
        assert_eq!(line.as_deref(), Some(what));
    }

    /// Waits until its listeners are closed, while a call goes on.
    async fn leaves_beside(&self, chat: &mut Chat) {
        let closed = async {
            for address in &self.addresses {
                while TcpStream::connect(address).await.is_ok() {
                    chat.goes_on().await;
                }
            }
        };
        timeout(LEAVES_WITHIN, closed).await.expect("it leaves in time");
        chat.goes_on().await;
    }

    /// Waits until its listeners are closed.
    async fn refuses(&self) {
        for address in &self.addresses {
            while TcpStream::connect(address).await.is_ok() {
                yield_now().await;
            }
        }
    }
}

/// How many nodes the registry lists.
async fn records(etcd: &Etcd) -> usize {
    let registry = registry::open(&etcd.url()).expect("a URL");
    registry.read("echo").await.map_or(0, |listing| listing.entries.len())
}

/// How a registry is away.
#[derive(Clone, Copy)]
enum Away {
    Stopped,
    Killed,
}

impl Away {
    fn begin(self, etcd: &mut Etcd) {
        match self {
            Self::Stopped => etcd.pause(),
            Self::Killed => etcd.kill(),
        }
    }

    /// Brings it back. What was registered is gone a TTL later, if nobody has told it before.
    async fn end(self, etcd: &mut Etcd) {
        match self {
            Self::Stopped => etcd.resume(),
            Self::Killed => etcd.restart().await,
        }
        let gone = async {
            let registry = registry::open(&etcd.url()).expect("a URL");
            while registry.read("echo").await.map_or(true, |listing| !listing.entries.is_empty()) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        // etcd may grant all leases their whole time anew, and looks for ended ones every half second.
        timeout(TTL + Duration::from_secs(5), gone).await.expect("no record stays behind");
    }
}

/// A stream of calls under way.
struct Chat {
    words: mpsc::Sender<ChatMessage>,
    answers: Streaming<ChatMessage>,
}

impl Chat {
    async fn begin(stub: EchoClient) -> Self {
        let (words, receiver) = mpsc::channel(1);
        let answers = stub.chat(stream::receiver(receiver)).await.expect("a stream").into_inner();
        let mut chat = Self { words, answers };
        chat.goes_on().await;
        chat
    }

    async fn goes_on(&mut self) {
        let word = ChatMessage { text: "word".to_owned() };
        self.words.send(word.clone()).await.expect("open");
        assert_eq!(self.answers.message().await.expect("ok"), Some(word));
    }
}

#[tokio::test]
async fn a_first_sigterm_lets_the_calls_of_all_services_finish() {
    let mut node = Node::start();
    let mut chats = [Chat::begin(node.stub(0)).await, Chat::begin(node.stub(1)).await];
    node.signal(Signal::TERM);
    node.refuses().await;
    for chat in &mut chats {
        chat.goes_on().await;
    }
    assert!(node.process.try_wait().expect("a child").is_none(), "calls are under way");
    for Chat { words, mut answers } in chats {
        drop(words);
        assert_eq!(answers.message().await.expect("the call ends well"), None);
    }
    assert_eq!(node.ended().await, (Some(0), None));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_by_its_default_action() {
    let mut node = Node::start();
    let mut chats = [Chat::begin(node.stub(0)).await, Chat::begin(node.stub(1)).await];
    node.signal(Signal::TERM);
    node.refuses().await;
    node.signal(Signal::INT);
    assert_eq!(node.ended().await, (None, Some(Signal::INT.as_raw())));
    for chat in &mut chats {
        assert!(chat.answers.message().await.is_err(), "the call was cut");
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_process_whose_threads_are_all_blocked() {
    let mut node = Node::start();
    let call = node.stub(0).say(SayRequest::default()).timeout(Duration::from_secs(60));
    let call = tokio::spawn(call.into_future());
    node.says("blocked").await;
    let begun = Instant::now();
    // Two of one kind are one while the first is not yet taken: sent until they count as two.
    while node.process.try_wait().expect("a child").is_none() {
        assert!(begun.elapsed() < AT_ONCE, "it ends at once");
        node.signal(Signal::TERM);
        yield_now().await;
    }
    assert_eq!(node.ended().await, (None, Some(Signal::TERM.as_raw())));
    call.await.expect("no panic").expect_err("the call was cut");
}

#[tokio::test]
async fn a_signal_ends_services_that_have_not_started_yet() {
    let mut node = Node::on(vec!["never".to_owned(); 2]);
    node.says("starting").await;
    node.says("starting").await;
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await, (Some(0), None));
}

#[tokio::test]
async fn a_signal_while_a_hook_holds_its_thread_keeps_the_service_from_starting() {
    // No address: to listen there would be an error.
    let mut node = Node::on(vec!["told-meanwhile".to_owned()]);
    node.says("starting").await;
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await, (Some(0), None));
}

/// In this process: nobody else in it may be sent a signal.
#[tokio::test]
async fn a_run_that_no_signal_has_ended_leaves_signals_to_the_program() {
    let mut ours = signal(SignalKind::terminate()).expect("a signal can be listened for");
    let (stop, stopped) = oneshot::channel::<()>();
    let service = Service::builder("echo").registry("memory://signals").shutdown(async {
        let _ = stopped.await;
    });
    drop(stop);
    service.build().await.expect("a service").run().await.expect("it has left");
    for _ in 0..2 {
        kill_process(getpid(), Signal::TERM).expect("a signal to oneself");
        ours.recv().await.expect("the program has its own way with it");
    }
}

async fn leaves_in_time(away: Away) {
    let mut etcd = Etcd::start().await;
    let mut node = Node::registered_in(&etcd, 2).await;
    let mut chat = Chat::begin(node.stub(0)).await;
    away.begin(&mut etcd);
    node.signal(Signal::TERM);
    // The call goes on while the registry is waited for, and after that.
    node.leaves_beside(&mut chat).await;
    let Chat { words, mut answers } = chat;
    drop(words);
    assert_eq!(answers.message().await.expect("the call ends well"), None);
    assert_eq!(node.ended().await, (Some(0), None));
    away.end(&mut etcd).await;
}

#[tokio::test]
async fn a_node_leaves_in_time_whose_registry_is_stopped() {
    leaves_in_time(Away::Stopped).await;
}

#[tokio::test]
async fn a_node_leaves_in_time_whose_registry_is_killed() {
    leaves_in_time(Away::Killed).await;
}

/// One node while it waits for its registry, and another while it waits for its calls.
async fn a_second_signal_ends(away: Away) {
    let mut etcd = Etcd::start().await;
    let mut nodes = [Node::registered_in(&etcd, 2).await, Node::registered_in(&etcd, 4).await];
    let mut chats = [Chat::begin(nodes[0].stub(0)).await, Chat::begin(nodes[1].stub(0)).await];
    away.begin(&mut etcd);
    nodes.iter().for_each(|node| node.signal(Signal::TERM));
    nodes[0].says("stopping").await;
    TcpStream::connect(&nodes[0].addresses[0]).await.expect("it has not left yet");
    nodes[0].ends_at_once(&mut chats[0]).await;
    nodes[1].leaves_beside(&mut chats[1]).await;
    nodes[1].ends_at_once(&mut chats[1]).await;
    away.end(&mut etcd).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_node_whose_registry_is_stopped() {
    a_second_signal_ends(Away::Stopped).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_node_whose_registry_is_killed() {
    a_second_signal_ends(Away::Killed).await;
}
