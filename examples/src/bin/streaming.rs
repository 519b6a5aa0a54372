//! gRPC's four kinds of calls, server and client in one process over the registry in memory.

use std::error::Error;

use micro::{Request, Response, Service, Status, Stream, Streaming};
use tokio_stream::StreamExt;

micro::include_proto!("echo.v1");

struct Echo;

impl EchoHandler for Echo {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(SayReply { payload, node: "here".to_owned() }))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<impl Stream<Item = Result<CountReply, Status>> + Send + 'static>, Status>
    {
        let upto = request.into_inner().upto;
        Ok(Response::new(tokio_stream::iter(1..=upto).map(|n| Ok(CountReply { n }))))
    }

    async fn sum(
        &self,
        request: Request<Streaming<SumRequest>>,
    ) -> Result<Response<SumReply>, Status> {
        let mut requests = request.into_inner();
        let mut sum = 0;
        while let Some(request) = requests.message().await? {
            sum += request.add;
        }
        Ok(Response::new(SumReply { sum }))
    }

    async fn chat(
        &self,
        request: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<impl Stream<Item = Result<ChatMessage, Status>> + Send + 'static>, Status>
    {
        // Answers as messages come: what goes back does not wait for the caller to finish.
        let answers = request.into_inner().map(|message| {
            message.map(|message| ChatMessage { text: format!("{}? Go on.", message.text) })
        });
        Ok(Response::new(answers))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut service = Service::builder("echo").registry("memory://").build().await?;
    register_echo_handler(service.server(), Echo);
    let echo = EchoClient::new("echo", &service.client());
    let node = service.start().await?;

    let reply = echo.say(SayRequest { payload: b"one message each way".to_vec() }).await?;
    println!("say:   {}", String::from_utf8(reply.into_inner().payload)?);

    let mut counted = echo.count(CountRequest { upto: 5 }).await?.into_inner();
    print!("count:");
    while let Some(reply) = counted.message().await? {
        print!(" {}", reply.n);
    }
    println!();
    let numbers = tokio_stream::iter([1, 2, 3, 4].map(|add| SumRequest { add }));
    println!("sum:   {}", echo.sum(numbers).await?.into_inner().sum);

    let words = ["Snow", "Rain", "Sun"].map(|text| ChatMessage { text: text.to_owned() });
    let mut answers = echo.chat(tokio_stream::iter(words)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        println!("chat:  {}", answer.text);
    }

    node.stop().await?;
    Ok(())
}
