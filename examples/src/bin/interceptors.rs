//! Interceptors on both sides: the client's gives each request an id, which the server's logs and
//! sends back; another lets only those call a method who say who they are.

use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering},
};

use micro::{
    Client, Code, Request, Response, Service, Status,
    layer::{Body, Next},
};

micro::include_proto!("greeter.v1");

const ID: &str = "x-request-id";

struct Greeter;

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { greeting, node: String::new() }))
    }
}

/// The client's: every request gets an id.
async fn number(mut request: Request<Body>, next: Next) -> Result<Response<Body>, Status> {
    static REQUESTS: AtomicU32 = AtomicU32::new(1);
    let id = format!("request-{}", REQUESTS.fetch_add(1, Ordering::Relaxed));
    request.metadata_mut().insert(ID, id.parse().expect("ASCII"));
    next.run(request).await
}

/// The server's: the id goes to the log, and back with the response.
async fn log(request: Request<Body>, next: Next) -> Result<Response<Body>, Status> {
    let id = request.metadata().get(ID).cloned();
    let shown = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("unnumbered").to_owned();
    let method = next.method().to_owned();
    let mut answer = next.run(request).await;
    let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
    println!("server: {shown} {method}: {code:?}");
    if let (Ok(response), Some(id)) = (&mut answer, id) {
        response.metadata_mut().insert(ID, id);
    }
    answer
}

/// For one method: no call without the header reaches the handler.
async fn check_header(request: Request<Body>, next: Next) -> Result<Response<Body>, Status> {
    if !request.metadata().contains_key("authorization") {
        return Err(Status::unauthenticated(format!("{} needs authorization", next.method())));
    }
    next.run(request).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut service = Service::builder("greeter").registry("memory://").build().await?;
    register_greeter_handler(service.server(), Greeter);
    service.server().intercept(log).intercept_on("greeter.v1.Greeter/Hello", check_header);
    let node = service.start().await?;

    let client = Client::builder().registry("memory://").intercept(number).build()?;
    let greeter = GreeterClient::new("greeter", &client);
    let hello = || Request::new(HelloRequest { name: "Ada".to_owned() });
    if let Err(status) = greeter.hello(hello()).await {
        println!("client: refused: {}", status.message());
    }
    let mut request = hello();
    request.metadata_mut().insert("authorization", "Bearer let-me-in".parse()?);
    let reply = greeter.hello(request).await?;
    let id = reply.metadata().get(ID).ok_or("no id came back")?.to_str()?.to_owned();
    println!("client: {} ({id})", reply.into_inner().greeting);
    node.stop().await?;
    Ok(())
}
