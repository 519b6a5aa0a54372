use std::{error::Error, time::Duration};

micro::include_proto!("greeter.v1");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = micro::Client::from_env()?;
    let greeter = GreeterClient::new("greeter", &client); // by its name in the registry

    let request = HelloRequest { name: "world".to_owned() };
    let reply = greeter.hello(request).timeout(Duration::from_secs(1)).await?;
    println!("{}", reply.into_inner().greeting);
    Ok(())
}
