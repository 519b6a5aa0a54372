//! Hooks: what a program does before and after its service starts and stops, in which order, and
//! what comes of one that fails.

use std::{convert::Infallible, error::Error};

use micro::{Client, Request, Response, Service, Status};
use tokio::sync::oneshot;

micro::include_proto!("greeter.v1");

struct Greeter;

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: String::new() }))
    }
}

async fn say(line: &str) -> Result<(), Infallible> {
    println!("{line}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::builder().registry("memory://").build()?;
    let greeter = GreeterClient::new("greeter", &client);
    let (called, done) = oneshot::channel();

    let builder = Service::builder("greeter")
        .registry("memory://")
        .before_start(|| say("before_start: nothing listens yet, and nobody can find the node"))
        .after_start(|| async move {
            println!("after_start:  the node takes calls");
            let reply = greeter.hello(HelloRequest { name: "hooks".to_owned() }).await?;
            println!("a call:       {}", reply.into_inner().greeting);
            let _ = called.send(());
            Ok::<_, Status>(())
        })
        // As a SIGTERM would, this ends the service.
        .shutdown(async { done.await.unwrap_or_default() })
        .before_stop(|| say("before_stop:  the node is still found, and takes calls"))
        .after_stop(|| say("after_stop:   the last call has ended, and the node is gone"));
    let mut service = builder.build().await?;
    register_greeter_handler(service.server(), Greeter);
    service.run().await?;

    let builder = Service::builder("greeter")
        .registry("memory://")
        .before_start(|| async { Err("the database is away") });
    if let Err(error) = builder.build().await?.run().await {
        println!("not started:  {error:?}");
    }
    Ok(())
}
