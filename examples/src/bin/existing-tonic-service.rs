//! Existing tonic code keeps working: a tonic service on micro's server, tonic's stub on micro's
//! channel. Between the two are the registry, balancing and failover.

use std::error::Error;

use greeter::{
    HelloReply, HelloRequest, greeter_client::GreeterClient, greeter_server::Greeter,
    greeter_server::GreeterServer,
};
use micro::Service;
use tonic::{Request, Response, Status};

/// What `tonic-prost-build` generates, untouched.
#[allow(unreachable_pub, reason = "generated to be used from anywhere")]
mod greeter {
    tonic::include_proto!("tonic/greeter.v1");
}

struct TonicGreeter;

#[tonic::async_trait]
impl Greeter for TonicGreeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: "tonic".to_owned() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut service = Service::builder("greeter").registry("memory://").build().await?;
    service.server().add_service(GreeterServer::new(TonicGreeter));
    let channel = service.client().channel("greeter");
    let node = service.start().await?;

    let mut greeter = GreeterClient::new(channel);
    let reply = greeter.hello(HelloRequest { name: "tonic".to_owned() }).await?.into_inner();
    println!("{} ({})", reply.greeting, reply.node);

    node.stop().await?;
    Ok(())
}
