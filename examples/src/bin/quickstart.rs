//! Three nodes and a client on this machine, found over mDNS: nothing is installed, nothing is
//! configured. One node is killed in the middle of the calls and later started again, and no call
//! fails. This program is all of them: it starts itself once for each node, and is the client.

use std::{collections::BTreeMap, env, error::Error, io, process::ExitCode, time::Duration};

use micro::{Client, Request, Response, Service, Status, registration::RegistrationState};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::{sync::mpsc, time};

micro::include_proto!("greeter.v1");

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    match env::args().nth(1) {
        Some(id) => node(id).await,
        None => fleet().await,
    }
}

struct Greeter(String);

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        time::sleep(Duration::from_millis(2)).await; // so that the kill finds calls under way
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: self.0.clone() }))
    }
}

async fn node(id: String) -> Result<ExitCode, Box<dyn Error>> {
    let mut service = Service::builder("quickstart").id(&id).build().await?;
    register_greeter_handler(service.server(), Greeter(id.clone()));
    let node = service.start().await?;
    node.registration().wait_for(|state| *state == RegistrationState::Registered).await?;
    println!("{id} registered at {}", node.address());
    tokio::io::stdin().read_u8().await.ok(); // which ends with the client, however that ends
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn fleet() -> Result<ExitCode, Box<dyn Error>> {
    let ids = ["node-1", "node-2", "node-3"];
    let mut nodes = ids.map(start).into_iter().collect::<Result<Vec<_>, _>>()?;

    let greeter = GreeterClient::new("quickstart", &Client::from_env()?);
    let (results, mut result) = mpsc::unbounded_channel();
    for _ in 0..16 {
        let (greeter, results) = (greeter.clone(), results.clone());
        tokio::spawn(async move {
            let request = HelloRequest { name: "world".to_owned() };
            while results.send(greeter.hello(request.clone()).await).is_ok() {}
        });
    }

    time::sleep(Duration::from_secs(3)).await;
    nodes[1].kill().await?; // SIGKILL: it can tell nobody
    println!("node-2 killed");
    time::sleep(Duration::from_secs(2)).await;
    nodes[1] = start("node-2")?;
    time::sleep(Duration::from_secs(6)).await;

    let (mut served, mut failed) = (BTreeMap::new(), Vec::new());
    while let Ok(result) = result.try_recv() {
        match result {
            Ok(reply) => *served.entry(reply.into_inner().node).or_default() += 1,
            Err(status) => failed.push(status),
        }
    }
    println!("calls: {}", served.values().sum::<u32>() as usize + failed.len());
    served.iter().for_each(|(node, calls)| println!("  {node} served {calls}"));
    println!("failed: {}", failed.len());
    failed.iter().take(3).for_each(|status| println!("  {status}"));
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(id: &str) -> io::Result<Child> {
    Command::new(env::current_exe()?)
        .arg(id)
        .stdin(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}
