//! A node that registers itself, serves, and leaves without dropping a call when told to stop.
//!
//! Start a few of them, and call them with `greeter-client`.

use clap::Parser;
use micro::{Request, Response, Service, Status, args::ServiceArgs};

micro::include_proto!("greeter.v1");

/// Serves the greeter.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    micro: ServiceArgs,
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
    micro::init_tracing();
    let args = Args::parse();
    let builder = Service::builder("greeter").version("1.0.0").args(args.micro);
    let mut service = builder.build().await?;
    let node = service.id().to_owned();
    register_greeter_handler(service.server(), Greeter { node });
    service.run().await
}
