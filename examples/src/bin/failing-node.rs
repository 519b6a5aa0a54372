//! One of three nodes fails every call. No caller notices, since the method is declared idempotent,
//! and after the first that node gets hardly any: `explain` says what the channel thinks of each.

use std::{collections::BTreeMap, error::Error};

use micro::{Client, Handle, Request, Response, Service, Status, client::Served};

micro::include_proto!("greeter.v1");

/// Greets, if it can.
struct Greeter {
    is_well: bool,
}

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        if !self.is_well {
            return Err(Status::unavailable("my database is gone"));
        }
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, ..HelloReply::default() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut nodes = Vec::new();
    for (id, is_well) in [("node-1", true), ("node-2", false), ("node-3", true)] {
        nodes.push(start(id, Greeter { is_well }).await?);
    }
    let client = Client::builder().registry("memory://").build()?;
    let greeter = GreeterClient::new("greeter", &client);

    let (mut answered, mut again) = (BTreeMap::<String, u32>::new(), 0);
    for _ in 0..1_000 {
        let reply = greeter.hello(HelloRequest { name: "world".to_owned() }).await?;
        let served = reply.extensions().get::<Served>().expect("each reply has it");
        *answered.entry(served.node.id.clone()).or_default() += 1;
        again += served.attempts - 1;
    }
    println!("1000 calls answered, {again} of them at a second attempt, by {answered:?}");
    println!("{}", client.channel("greeter").explain().await?);

    for node in nodes {
        node.stop().await?;
    }
    Ok(())
}

async fn start(id: &str, greeter: Greeter) -> Result<Handle, micro::Error> {
    let mut service = Service::builder("greeter").id(id).registry("memory://").build().await?;
    register_greeter_handler(service.server(), greeter);
    service.start().await
}
