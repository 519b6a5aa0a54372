//! A node is told to stop in the middle of calls. It takes itself out of the registry, answers what
//! it has, and only then ends: no call is lost.

use std::{error::Error, process, sync::Arc, time::Duration};

use micro::{Request, Response, Service, Status};
use tokio::{process::Command, sync::Semaphore, task::JoinSet, time};

micro::include_proto!("greeter.v1");

const CALLS: u32 = 16;

/// Needs half a second for a greeting.
struct Greeter {
    begun: Arc<Semaphore>,
}

impl GreeterHandler for Greeter {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        self.begun.add_permits(1);
        time::sleep(Duration::from_millis(500)).await;
        Ok(Response::new(HelloReply { greeting: "Hello!".to_owned(), ..Default::default() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let begun = Arc::new(Semaphore::new(0));
    let mut service = Service::builder("greeter")
        .registry("memory://")
        .drain_timeout(Duration::from_secs(10)) // calls that take longer would be cut
        .build()
        .await?;
    register_greeter_handler(service.server(), Greeter { begun: begun.clone() });
    let greeter = GreeterClient::new("greeter", &service.client());
    let node = tokio::spawn(service.run());

    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(greeter.hello(HelloRequest::default()).into_future());
    }
    let _all = begun.acquire_many(CALLS).await?;
    println!("{CALLS} calls are under way: SIGTERM");
    // As systemd, Kubernetes or a shell would: to this very process.
    Command::new("kill").args(["-TERM", &process::id().to_string()]).status().await?;

    node.await??;
    println!("the node has ended");
    let replies = calls.join_all().await;
    let answered = replies.iter().filter(|reply| reply.is_ok()).count();
    println!("{answered} answered, {} failed", replies.len() - answered);
    Ok(())
}
