//! Three nodes and a client. One node is killed in the middle of the calls and later started
//! again, and no call fails.
//!
//! This program is all of them: it starts itself once for each node, and is the client.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{self, Read},
    net::TcpListener,
    process::{self, ExitCode, Stdio},
    thread,
    time::Duration,
};

use micro::{Client, Request, Response, Service, Status};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::{self, Instant},
};

micro::include_proto!("greeter.v1");

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    match env::args().nth(1) {
        Some(address) => node(address).await,
        None => fleet().await,
    }
}

// ===== a node =====

struct Greeter {
    node: String,
}

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        time::sleep(Duration::from_millis(2)).await; // so that the kill finds calls under way
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: self.node.clone() }))
    }
}

async fn node(address: String) -> Result<ExitCode, Box<dyn Error>> {
    thread::spawn(|| {
        // The client's end of the pipe closes with it, however it ends.
        let _ = io::stdin().read(&mut [0]);
        process::exit(1);
    });
    // The registry's URL is in MICRO_REGISTRY.
    let mut service = Service::builder("greeter").address(&address).build().await?;
    register_greeter_handler(service.server(), Greeter { node: address });
    service.run().await?;
    Ok(ExitCode::SUCCESS)
}

// ===== the client, and what happens to the nodes =====

async fn fleet() -> Result<ExitCode, Box<dyn Error>> {
    let addresses = free_addresses()?;
    let registry = format!("static://greeter={}", addresses.join(","));
    let mut nodes = Vec::new();
    for address in &addresses {
        nodes.push(start(address, &registry)?);
    }
    println!("three nodes: {}", addresses.join(", "));

    let client = Client::builder().without_env().registry(&registry).build()?;
    let greeter = GreeterClient::new("greeter", &client);
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        callers.spawn(call(greeter.clone(), at(11)));
    }

    time::sleep_until(at(3)).await;
    nodes[1].kill().await?;
    println!("{:.1} s: {} killed", begin.elapsed().as_secs_f32(), addresses[1]);

    time::sleep_until(at(5)).await;
    nodes[1] = start(&addresses[1], &registry)?;
    println!("{:.1} s: {} started again", begin.elapsed().as_secs_f32(), addresses[1]);

    let mut total = Tally::default();
    for tally in callers.join_all().await {
        total.add(tally);
    }
    println!("\ncalls   {}", total.calls);
    for address in &addresses {
        println!("  {address}   {}", total.by_node.get(address).unwrap_or(&0));
    }
    println!("failed  {}", total.failures.len());
    for failure in total.failures.iter().take(3) {
        println!("  {failure}");
    }
    Ok(if total.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Tally {
    calls: usize,
    by_node: BTreeMap<String, usize>,
    failures: Vec<Status>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        for (node, calls) in other.by_node {
            *self.by_node.entry(node).or_default() += calls;
        }
        self.failures.extend(other.failures);
    }
}

async fn call(greeter: GreeterClient, until: Instant) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        tally.calls += 1;
        match greeter.hello(HelloRequest { name: "world".to_owned() }).await {
            Ok(reply) => *tally.by_node.entry(reply.into_inner().node).or_default() += 1,
            Err(status) => tally.failures.push(status),
        }
    }
    tally
}

fn start(address: &str, registry: &str) -> io::Result<Child> {
    Command::new(env::current_exe()?)
        .arg(address)
        .env("MICRO_REGISTRY", registry)
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

fn free_addresses() -> io::Result<Vec<String>> {
    // All three are held until all are known, so that they differ.
    let listeners =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
