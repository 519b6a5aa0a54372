use greeter::{HelloRequest, greeter_client::GreeterClient};

mod greeter {
    tonic::include_proto!("greeter.v1");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut greeter = GreeterClient::connect("http://127.0.0.1:50051").await?;
    let request = HelloRequest { name: "world".to_owned() };
    let reply = greeter.hello(request).await?;
    println!("{}", reply.into_inner().greeting);
    Ok(())
}
