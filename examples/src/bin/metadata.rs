//! Metadata: what goes with a call beside its message, and what comes back with the reply.

use std::error::Error;

use micro::{Client, Request, Response, Service, Status};

micro::include_proto!("greeter.v1");

struct Greeter;

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let language = match request.metadata().get("accept-language") {
            Some(value) => value.to_str().map_err(|_| Status::invalid_argument("not ASCII"))?,
            None => "en",
        };
        let (word, language) = match language {
            "fr" => ("Bonjour", "fr"),
            _ => ("Hello", "en"),
        };
        let greeting = format!("{word}, {}!", request.into_inner().name);
        let mut reply = Response::new(HelloReply { greeting, node: String::new() });
        reply.metadata_mut().insert("content-language", language.parse().expect("it is ASCII"));
        Ok(reply)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut service = Service::builder("greeter").registry("memory://").build().await?;
    register_greeter_handler(service.server(), Greeter);
    let node = service.start().await?;

    let client = Client::builder().registry("memory://").build()?;
    let greeter = GreeterClient::new("greeter", &client);
    for language in [None, Some("fr"), Some("tlh")] {
        let mut request = Request::new(HelloRequest { name: "world".to_owned() });
        if let Some(language) = language {
            request.metadata_mut().insert("accept-language", language.parse()?);
        }
        let reply = greeter.hello(request).await?;
        let answered = reply.metadata().get("content-language").cloned();
        let answered = answered.ok_or("the reply says no language")?;
        let asked = language.unwrap_or("any");
        println!("{asked}: {} ({})", reply.get_ref().greeting, answered.to_str()?);
    }
    node.stop().await?;
    Ok(())
}
