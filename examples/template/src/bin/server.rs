use micro::{Request, Response, Service, Status};

micro::include_proto!("greeter.v1");

struct Greeter;

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting }))
    }
}

#[tokio::main]
async fn main() -> Result<(), micro::Error> {
    micro::init_tracing();
    let mut service = Service::builder("greeter").build().await?;
    register_greeter_handler(service.server(), Greeter);
    service.run().await // serves and registers; on SIGTERM leaves without dropping a call
}
