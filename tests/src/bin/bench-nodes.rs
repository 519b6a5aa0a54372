//! The benchmarks' nodes: three, in this one process. Prints their addresses in one line.

use std::{io::Read, process, thread};

use micro::{Request, Response, Service, Status, Stream, Streaming};
use tests::proto::echo::{
    ChatMessage, CountReply, CountRequest, EchoHandler, SayReply, SayRequest, SumReply, SumRequest,
    register_echo_handler,
};
use tokio_stream::Empty;

struct Echo;

impl EchoHandler for Echo {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(SayReply { payload, node: String::new() }))
    }

    async fn count(
        &self,
        _: Request<CountRequest>,
    ) -> Result<Response<impl Stream<Item = Result<CountReply, Status>> + Send + 'static>, Status>
    {
        Err::<Response<Empty<_>>, _>(Status::unimplemented("not measured"))
    }

    async fn sum(&self, _: Request<Streaming<SumRequest>>) -> Result<Response<SumReply>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn chat(
        &self,
        _: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<impl Stream<Item = Result<ChatMessage, Status>> + Send + 'static>, Status>
    {
        Err::<Response<Empty<_>>, _>(Status::unimplemented("not measured"))
    }
}

#[tokio::main]
async fn main() -> Result<(), micro::Error> {
    thread::spawn(|| {
        // The parent's end of the pipe closes with it, however it ends.
        let _ = std::io::stdin().read(&mut [0]);
        process::exit(1);
    });
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let mut service = Service::builder("echo").registry("memory://").build().await?;
        register_echo_handler(service.server(), Echo);
        nodes.push(service.start().await?);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
    println!("{}", addresses.join(" "));
    std::future::pending().await
}
