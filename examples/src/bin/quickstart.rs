//! Three nodes and a client on this machine, found over mDNS: nothing to install or configure. One
//! node is killed in the middle of the calls and started again later, and no call fails. This
//! program is all of them: it starts itself once for each node, and is the client.

use std::io::{BufRead, BufReader};
use std::process::{self, Child, Command, Stdio};
use std::{collections::BTreeMap, env, error::Error, time::Duration};

use micro::{Client, Request, Response, Service, Status, registration::RegistrationState};
use tokio::{io::AsyncReadExt, time};

micro::include_proto!("greeter.v1");

struct Greeter(String);

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        time::sleep(Duration::from_millis(2)).await; // so that the kill finds calls under way
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: self.0.clone() }))
    }
}

/// A node: the process `quickstart SERVICE ID`.
async fn node(name: &str, id: &str) -> Result<(), Box<dyn Error>> {
    let mut service = Service::builder(name).id(id).without_env().build().await?;
    register_greeter_handler(service.server(), Greeter(id.to_owned()));
    let node = service.start().await?;
    node.registration().wait_for(|state| *state == RegistrationState::Registered).await?;
    println!("{id} registered at {}", node.address());
    let _ = tokio::io::stdin().read_u8().await; // ends when the client ends, however that does
    Ok(node.stop().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let [_, name, id] = &env::args().collect::<Vec<_>>()[..] {
        return node(name, id).await;
    }
    let name = format!("quickstart-{}", process::id()); // another quickstart has another name
    let start = |id: &str| -> Result<Child, Box<dyn Error>> {
        let mut node = Command::new(env::current_exe()?);
        let node = node.args([&*name, id]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = node.spawn()?;
        let mut says = BufReader::new(node.stdout.take().expect("its output is ours")).lines();
        println!("{}", says.next().ok_or("a node ended before it was registered")??);
        Ok(node)
    };
    let mut nodes = [start("node-1")?, start("node-2")?, start("node-3")?];
    let greeter = GreeterClient::new(&name, &Client::builder().without_env().build()?);
    let until = time::Instant::now() + Duration::from_secs(11);
    let callers = (0..16).map(|_| tokio::spawn(call(greeter.clone(), until))).collect::<Vec<_>>();

    time::sleep(Duration::from_secs(3)).await;
    nodes[1].kill()?; // with SIGKILL: it can tell nobody
    println!("node-2 killed");
    time::sleep(Duration::from_secs(2)).await;
    nodes[1] = start("node-2")?;

    let mut results = BTreeMap::<String, u32>::new();
    for caller in callers {
        caller.await?.into_iter().for_each(|result| *results.entry(result).or_default() += 1);
    }
    results.iter().for_each(|(result, calls)| println!("{calls:6} calls {result}"));
    let failed = results.keys().any(|result| result.starts_with("failed"));
    println!("failed: {}", if failed { "see above" } else { "nothing" });
    process::exit(failed.into()) // and with this process its nodes
}

/// Calls until then, one call after the other, and returns what came of each.
async fn call(greeter: GreeterClient, until: time::Instant) -> Vec<String> {
    let mut results = Vec::new();
    while time::Instant::now() < until {
        let result = greeter.hello(HelloRequest { name: "world".to_owned() }).await;
        let served = result.map(|reply| format!("served by {}", reply.into_inner().node));
        results.push(served.unwrap_or_else(|status| format!("failed: {status}")));
    }
    results
}
