use greeter::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use tonic::{Request, Response, Status, transport::Server};

mod greeter {
    tonic::include_proto!("greeter.v1");
}

struct MyGreeter;

#[tonic::async_trait]
impl Greeter for MyGreeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = "127.0.0.1:50051".parse()?;
    Server::builder().add_service(GreeterServer::new(MyGreeter)).serve(address).await?;
    Ok(())
}
