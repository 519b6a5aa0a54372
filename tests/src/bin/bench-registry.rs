//! From an event in the registry to what callers do of it: a node's announcement to the first call
//! that it answers, its goodbye to the last call that goes to it. The nodes are in processes of their
//! own, but for `memory://`, which is within one; the moment of the event is that at which this
//! process hears of it, by packet where there is one, else by a watch of its own.

use std::{
    env,
    error::Error,
    io,
    net::Ipv4Addr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use micro::{
    Client, Handle, Request, Response, Service, Status, Stream, Streaming,
    registry::{self, Event, Watch},
};
use socket2::{Domain, Socket, Type};
use tests::{
    bench::{
        measure::Spread,
        table::{Better, Row, report},
    },
    echo::Echo,
    etcd::Etcd,
    proto::echo::{
        ChatMessage, CountReply, CountRequest, EchoClient, EchoHandler, SayReply, SayRequest,
        SumReply, SumRequest, register_echo_handler,
    },
};
use tokio::{
    net::UdpSocket,
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_stream::StreamExt;

const ROUNDS: usize = 60;
const CALLERS: usize = 4;
const SERVICE: &str = "bench.registry";

/// In milliseconds: of mDNS as it is, of the others what is added to one connect.
const MDNS_BUDGET: f64 = 50.0;
const ADDED: f64 = 5.0;

/// Tells its name.
struct Named(String);

impl EchoHandler for Named {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(SayReply { payload, node: self.0.clone() }))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<impl Stream<Item = Result<CountReply, Status>> + Send + 'static>, Status>
    {
        Echo.count(request).await
    }

    async fn sum(
        &self,
        request: Request<Streaming<SumRequest>>,
    ) -> Result<Response<SumReply>, Status> {
        Echo.sum(request).await
    }

    async fn chat(
        &self,
        request: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<impl Stream<Item = Result<ChatMessage, Status>> + Send + 'static>, Status>
    {
        Echo.chat(request).await
    }
}

async fn serve(url: &str, id: &str) -> Result<Handle, micro::Error> {
    let mut service = Service::builder(SERVICE).id(id).registry(url).build().await?;
    register_echo_handler(service.server(), Named(id.to_owned()));
    service.start().await
}

/// A node: it leaves when told to.
enum Node {
    Here(Handle),
    There(Child),
}

impl Node {
    async fn start(url: &str, id: &str) -> Result<Self, Box<dyn Error>> {
        if url.starts_with("memory://") {
            return Ok(Self::Here(serve(url, id).await?));
        }
        let child = Command::new(env::current_exe()?)
            .args([url, id])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self::There(child))
    }

    async fn leave(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Here(handle) => handle.stop().await.expect("a clean exit"),
            Self::There(mut child) => {
                drop(child.stdin.take());
                child.wait().await?;
            }
        }
        Ok(())
    }
}

/// Hears of a node's coming and going as the client under test does.
enum Observer {
    Packets(UdpSocket),
    Watch(Watch),
}

impl Observer {
    async fn of(url: &str) -> Result<Self, Box<dyn Error>> {
        if url == "mdns://" {
            return Ok(Self::Packets(packets()?));
        }
        let registry = registry::open(url)?;
        let listing = registry.read(SERVICE).await?;
        Ok(Self::Watch(registry.watch(SERVICE, listing.revision)))
    }

    async fn hears(&mut self, id: &str, comes: bool) -> Result<Instant, Box<dyn Error>> {
        loop {
            match self {
                Self::Packets(socket) => {
                    let mut packet = [0; 9000];
                    let (length, _) = socket.recv_from(&mut packet).await?;
                    if announced(&packet[..length], id) == Some(comes) {
                        return Ok(Instant::now());
                    }
                }
                Self::Watch(watch) => {
                    let batch = watch.next().await.ok_or("the watch ended")?;
                    let batch = batch.map_err(|error| format!("{error:?}"))?;
                    let is_it = |event: &Event| match event {
                        Event::Put(entry) => comes && entry.node.id == id,
                        Event::Delete(key) => !comes && key.ends_with(&format!("/{id}")),
                        Event::Reset(listing) => {
                            comes == listing.entries.iter().any(|entry| entry.node.id == id)
                        }
                        Event::Malformed(_) => false,
                    };
                    if batch.events.iter().any(is_it) {
                        return Ok(Instant::now());
                    }
                }
            }
        }
    }
}

fn packets() -> io::Result<UdpSocket> {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&std::net::SocketAddr::from((group, 5353)).into())?;
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)?;
    UdpSocket::from_std(socket.into())
}

/// Whether the packet announces the node, or says that it is gone; none if it does neither.
fn announced(packet: &[u8], id: &str) -> Option<bool> {
    let mut name = Vec::new();
    for label in format!("{id}.{SERVICE}.micro").split('.') {
        name.push(u8::try_from(label.len()).ok()?);
        name.extend(label.as_bytes());
    }
    name.push(0);
    let (header, records) = packet.split_at_checked(12)?;
    // A response with answers and without a question: the node's own word to all.
    let is_announcement = header[2] & 0x80 != 0 && header[5] == 0 && header[7] > 0;
    let ttl = records.strip_prefix(&name[..])?.get(4..8)?;
    is_announcement.then(|| ttl != [0; 4])
}

/// The calls to the node that is watched just now.
#[derive(Default)]
struct Seen {
    id: String,
    /// When the first was answered.
    first: Option<Instant>,
    /// When the last was begun.
    last: Option<Instant>,
}

impl Seen {
    fn note(&mut self, node: &str, begin: Instant) {
        if node == self.id {
            self.first.get_or_insert_with(Instant::now);
            self.last = self.last.max(Some(begin));
        }
    }
}

async fn call(echo: EchoClient, seen: Arc<Mutex<Seen>>) {
    loop {
        let begin = Instant::now();
        let reply = echo.say(SayRequest::default()).await.expect("no call fails").into_inner();
        seen.lock().expect("no caller panics").note(&reply.node, begin);
        sleep(Duration::from_millis(1)).await;
    }
}

/// One registry under test, with a node that stays and callers.
struct Bench {
    url: String,
    observer: Observer,
    seen: Arc<Mutex<Seen>>,
    stays: Node,
    callers: JoinSet<()>,
    comes: Vec<Duration>,
    goes: Vec<Duration>,
}

impl Bench {
    async fn start(url: &str) -> Result<Self, Box<dyn Error>> {
        let stays = Node::start(url, "stays").await?;
        let client = Client::builder().registry(url).build()?;
        let echo = EchoClient::new(SERVICE, &client);
        echo.say(SayRequest::default()).timeout(Duration::from_secs(10)).await?;
        let seen = Arc::<Mutex<Seen>>::default();
        let callers = (0..CALLERS).map(|_| call(echo.clone(), seen.clone())).collect();
        let observer = Observer::of(url).await?;
        let (comes, goes) = (Vec::new(), Vec::new());
        Ok(Self { url: url.to_owned(), observer, seen, stays, callers, comes, goes })
    }

    async fn round(&mut self, number: usize) -> Result<(), Box<dyn Error>> {
        let id = format!("n{number}");
        *self.seen.lock().expect("no caller panics") =
            Seen { id: id.clone(), first: None, last: None };
        let node = Node::start(&self.url, &id).await?;
        let came = timeout(Duration::from_secs(10), self.observer.hears(&id, true)).await??;
        let first = loop {
            if let Some(first) = self.seen.lock().expect("no caller panics").first {
                break first;
            }
            sleep(Duration::from_millis(1)).await;
        };
        self.comes.push(first.saturating_duration_since(came));
        let (left, went) = tokio::join!(node.leave(), self.observer.hears(&id, false));
        left?;
        let last = self.seen.lock().expect("no caller panics").last.ok_or("it was called")?;
        self.goes.push(last.saturating_duration_since(went?));
        if let Some(ended) = self.callers.try_join_next() {
            ended?;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<[Vec<Duration>; 2], Box<dyn Error>> {
        self.callers.shutdown().await;
        self.stays.leave().await?;
        Ok([self.comes, self.goes])
    }
}

/// From a client without connections to its first answer.
async fn connects(address: &str) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let url = format!("static://{SERVICE}={address}");
        let client = Client::builder().registry(url).build()?;
        let begin = Instant::now();
        EchoClient::new(SERVICE, &client).say(SayRequest::default()).await?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// Of that many hundredths of the times none is longer, in milliseconds.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64() * 1e3
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let [_, url, id] = &env::args().collect::<Vec<_>>()[..] {
        let handle = serve(url, id).await?;
        // Until the parent's end of the pipe is closed.
        tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
        handle.stop().await.unwrap();
        return Ok(());
    }
    let etcd = Etcd::start().await;
    let node = serve("memory://connects", "connects").await?;
    let connect = connects(node.address()).await?;
    let etcd = (etcd.url(), etcd);
    let mut benches = Vec::new();
    for url in ["mdns://", "memory://", &etcd.0] {
        benches.push(Bench::start(url).await?);
    }
    for number in 0..ROUNDS {
        for bench in &mut benches {
            bench.round(number).await?;
        }
    }
    let added = percentile(&connect, 99) + ADDED;
    let mut rows = Vec::new();
    for (name, bench) in ["mdns", "memory", "etcd"].into_iter().zip(benches) {
        let budget = if name == "mdns" { MDNS_BUDGET } else { added };
        for (what, times) in
            ["told to first call", "gone to last call"].iter().zip(bench.end().await?)
        {
            let ms = Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
            for percent in [50, 99] {
                let spread = Spread { median: percentile(&times, percent), ..ms };
                let row = format!("{name}, {what}, p{percent}, ms");
                rows.push(Row::new(row, spread, budget, Better::Lower));
            }
        }
    }
    report("registry", &rows);
    Ok(())
}
