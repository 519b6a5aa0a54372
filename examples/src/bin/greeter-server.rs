//! A node that registers itself, serves, and leaves without dropping a call when told to stop.
//!
//! Start a few of them, and call them with `greeter-client`.

use clap::Parser;
use micro::{Request, Response, Service, Status};

micro::include_proto!("greeter.v1");

/// Serves the greeter.
#[derive(Parser)]
struct Args {
    /// Where the node is registered, such as etcd://127.0.0.1:2379.
    #[arg(long, env = "MICRO_REGISTRY")]
    registry: String,
    /// The address to serve on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    address: String,
}

struct Greeter {
    node: String,
}

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: self.node.clone() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), micro::Error> {
    tracing_subscriber::fmt::init();
    let args = Args::parse();
    let mut service = Service::builder("greeter")
        .version("1.0.0")
        .address(args.address)
        .registry(args.registry)
        .build()
        .await?;
    let node = service.id().to_owned();
    register_greeter_handler(service.server(), Greeter { node });
    service.run().await
}
