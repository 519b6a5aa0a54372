//! What SIGTERM does to a service, in this very process: one test, since a signal is everybody's.

use std::time::Duration;

use micro::{Client, Request, Response, Service, Status, Stream, Streaming, registry, stream};
use rustix::process::{Signal, getpid, kill_process};
use tests::proto::echo::{
    ChatMessage, CountReply, CountRequest, EchoClient, EchoHandler, SayReply, SayRequest, SumReply,
    SumRequest, register_echo_handler,
};
use tokio::{sync::mpsc, time::timeout};

const REGISTRY: &str = "memory://signals";

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
        stream::fails(Status::unimplemented("not needed here"))
    }

    async fn sum(&self, _: Request<Streaming<SumRequest>>) -> Result<Response<SumReply>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn chat(
        &self,
        request: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<impl Stream<Item = Result<ChatMessage, Status>> + Send + 'static>, Status>
    {
        Ok(Response::new(request.into_inner()))
    }
}

fn signal() {
    kill_process(getpid(), Signal::TERM).expect("a signal to oneself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sigterm_lets_calls_finish_and_a_second_cuts_them() {
    let mut service = Service::builder("echo").registry(REGISTRY).build().await.expect("a service");
    register_echo_handler(service.server(), Echo);
    let mut running = tokio::spawn(service.run());

    let client = Client::builder().registry(REGISTRY).build().expect("a client");
    let echo = EchoClient::new("echo", &client);
    let (sender, receiver) = mpsc::channel(1);
    let mut chat = echo.chat(stream::receiver(receiver)).await.expect("a stream").into_inner();
    let word = |text: &str| ChatMessage { text: text.to_owned() };
    sender.send(word("before")).await.expect("open");
    assert_eq!(chat.message().await.expect("ok"), Some(word("before")));

    signal();
    let registry = registry::open(REGISTRY).expect("memory");
    while !registry.read("echo").await.expect("memory answers").entries.is_empty() {
        tokio::task::yield_now().await;
    }
    sender.send(word("while leaving")).await.expect("open");
    assert_eq!(chat.message().await.expect("ok"), Some(word("while leaving")));
    assert!(!running.is_finished(), "a call is under way");

    signal();
    let ended = timeout(Duration::from_secs(5), &mut running).await;
    ended.expect("well within the drain timeout of 30 s").expect("no panic").expect("no error");
    assert!(chat.message().await.is_err(), "the call was cut");
}
