//! Two services in one process, of which one calls the other by its name, as it would from another
//! machine.

use micro::{Request, Response, Service, ServiceBuilder, Status};

micro::include_proto!("greeter.v1");

struct Greeter;

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: "greeter".to_owned() }))
    }
}

/// Greets loudly what the greeter says.
struct Crier {
    greeter: GreeterClient,
}

impl GreeterHandler for Crier {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let HelloReply { greeting, node } =
            self.greeter.hello(request.into_inner()).await?.into_inner();
        let node = format!("crier, by way of {node}");
        Ok(Response::new(HelloReply { greeting: greeting.to_uppercase(), node }))
    }
}

/// Both would follow `MICRO_SERVER_NAME`, `MICRO_SERVER_ADDRESS` and the like.
fn builder(name: &str) -> ServiceBuilder {
    Service::builder(name).without_env().registry("memory://")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut greeter = builder("greeter").build().await?;
    register_greeter_handler(greeter.server(), Greeter);

    let mut crier = builder("crier").build().await?;
    let client = crier.client();
    register_greeter_handler(
        crier.server(),
        Crier { greeter: GreeterClient::new("greeter", &client) },
    );

    // In any order: a call waits for the service that it goes to.
    let (crier, greeter) = (crier.start().await?, greeter.start().await?);

    for name in ["greeter", "crier"] {
        let stub = GreeterClient::new(name, &client);
        let reply = stub.hello(HelloRequest { name: "world".to_owned() }).await?.into_inner();
        println!("{} ({})", reply.greeting, reply.node);
    }

    // Who calls others leaves first.
    crier.stop().await?;
    greeter.stop().await?;
    Ok(())
}
