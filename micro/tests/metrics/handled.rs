//! What a server's calls tell. Their series are those of a method, of whichever node: no other test
//! calls what is called here.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use micro::{Code, Request, Response, Service, Status};

use crate::{
    collected::Collected,
    echo::{ChatMessage, echo},
};

#[allow(unreachable_pub, reason = "it is generated for a module of a library")]
mod greeter {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
}
use greeter::{GreeterClient, GreeterHandler, HelloReply, HelloRequest, register_greeter_handler};

const DURATION: &str = "grpc.server.call.duration";
const SENT: &str = "grpc.server.call.sent_total_compressed_message_size";
const RECEIVED: &str = "grpc.server.call.rcvd_total_compressed_message_size";

struct Greeter;

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        match &*request.into_inner().name {
            "" => Err(Status::invalid_argument("nobody")),
            "slow" => std::future::pending().await,
            name => {
                let greeting = format!("hello {name}");
                Ok(Response::new(HelloReply { greeting, ..HelloReply::default() }))
            }
        }
    }
}

/// Waits until the server has seen so many calls end with one of these statuses: some time after the
/// client.
async fn ended(method: &str, statuses: &[&str], count: u64) -> Collected {
    let those = async {
        loop {
            let now = Collected::with("grpc.method", method);
            let of = |status: &&str| now.count(DURATION, &[("grpc.status", status)]);
            if statuses.iter().map(of).sum::<u64>() >= count {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), those).await.expect("they end")
}

#[tokio::test]
async fn handled_calls_are_told_by_method_and_status() {
    const HELLO: &str = "greeter.v1.Greeter/Hello";
    Collected::now();
    let service = Service::builder("handled").without_env().registry("memory://handled");
    let mut service = service.build().await.unwrap();
    register_greeter_handler(service.server(), Greeter);
    let _node = service.start().await.unwrap();
    let client = crate::echo::client("handled").build().unwrap();
    let greeter = GreeterClient::new("handled", &client);
    let hello = |name: &str| greeter.hello(HelloRequest { name: name.to_owned() });
    for _ in 0..2 {
        hello("world").await.unwrap();
    }
    assert_eq!(hello("").await.unwrap_err().code(), Code::InvalidArgument);
    hello("slow").timeout(Duration::from_millis(50)).await.unwrap_err();
    let dropped = hello("slow").into_future();
    tokio::time::timeout(Duration::from_millis(50), dropped).await.unwrap_err();

    let status = |code| [("grpc.method", HELLO), ("grpc.status", code)];
    ended(HELLO, &["OK"], 2).await;
    ended(HELLO, &["INVALID_ARGUMENT"], 1).await;
    // By the server's clock or the caller's: whichever is first to see the deadline strike.
    let now = ended(HELLO, &["DEADLINE_EXCEEDED", "CANCELLED"], 2).await;
    assert!(now.count(DURATION, &status("CANCELLED")) > 0, "the one that was dropped");
    assert_eq!(now.get("grpc.server.call.started", &[]), Some(5.0));
    assert_eq!(now.get(SENT, &status("OK")), Some(2.0 * 13.0));
    assert_eq!(now.get(RECEIVED, &status("OK")), Some(2.0 * 7.0));
    assert_eq!(now.get(SENT, &status("INVALID_ARGUMENT")), Some(0.0));
}

#[tokio::test]
async fn a_handled_stream_is_told_with_all_its_messages() {
    const CHAT: &str = "echo.v1.Echo/Chat";
    Collected::now();
    let (_node, _, echo) = echo("chatting").await;
    let words = stream::iter((0..5).map(|_| ChatMessage { text: "word".to_owned() }));
    let mut answers = echo.chat(words).await.unwrap().into_inner();
    while let Some(answer) = answers.next().await {
        answer.unwrap();
    }
    let now = ended(CHAT, &["OK"], 1).await;
    for name in [SENT, RECEIVED] {
        assert_eq!(now.get(name, &[("grpc.status", "OK")]), Some(30.0), "{name}");
    }
}

#[tokio::test]
async fn what_nobody_has_registered_is_other() {
    Collected::now();
    let (_node, _, _echo) = echo("unregistered").await;
    let client = crate::echo::client("unregistered").build().unwrap();
    for path in ["/echo.v1.Echo/Guess", "/guess.v1.Guess/Guess", "/guess"] {
        let mut grpc = tonic::client::Grpc::new(client.channel("unregistered"));
        let codec = tonic_prost::ProstCodec::<ChatMessage, ChatMessage>::default();
        let request = tonic::Request::new(ChatMessage::default());
        grpc.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
    }
    ended("other", &["UNIMPLEMENTED"], 3).await;
    let Collected(all) = Collected::now();
    let guessed = all.iter().filter(|it| it.name.starts_with("grpc.server"));
    let guessed = guessed.filter(|it| it.attributes["grpc.method"].contains("Guess"));
    assert_eq!(guessed.count(), 0);
}

/// A service of tonic's, which answers by what it is called by: it has no method whose name begins with
/// `No`, and lets nobody call one that begins with `Secret`.
#[derive(Debug, Clone)]
struct Mounted;

impl tonic::server::NamedService for Mounted {
    const NAME: &'static str = "mounted.v1.Mounted";
}

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Mounted {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let (_, method) = request.uri().path().rsplit_once('/').expect("a method's path");
        let status = match method {
            _ if method.starts_with("No") => Status::unimplemented("no such method"),
            _ if method.starts_with("Secret") => Status::permission_denied("it is secret"),
            _ => Status::new(Code::Ok, ""),
        };
        ready(Ok(status.into_http()))
    }
}

#[tokio::test]
async fn methods_of_a_mounted_service_have_their_names_once_it_has_answered_there() {
    const NAME: &str = "mounted";
    Collected::now();
    let service = Service::builder(NAME).without_env().registry("memory://mounted");
    let mut service = service.build().await.unwrap();
    service.server().add_service(Mounted);
    let _node = service.start().await.unwrap();
    let client = crate::echo::client(NAME).build().unwrap();
    let call = async |method: String| {
        let mut grpc = tonic::client::Grpc::new(client.channel(NAME));
        let codec = tonic_prost::ProstCodec::<ChatMessage, ChatMessage>::default();
        let path = format!("/mounted.v1.Mounted/{method}").parse().unwrap();
        // That there is no message is an error of its own.
        let _ = grpc.unary(tonic::Request::new(ChatMessage::default()), path, codec).await;
    };
    for _ in 0..3 {
        call("Post".to_owned()).await;
    }
    ended("mounted.v1.Mounted/Post", &["OK"], 3).await;
    call("SecretPost".to_owned()).await;
    call("NoPost".to_owned()).await;
    ended("other", &["PERMISSION_DENIED"], 1).await;
    ended("other", &["UNIMPLEMENTED"], 1).await;
    for number in 0..100 {
        call(format!("Made{number}")).await;
    }
    ended("other", &["OK"], 37).await;

    let Collected(all) = Collected::now();
    let started = all.iter().filter(|it| it.name == "grpc.server.call.started");
    let of = |it: &&crate::collected::Series| {
        it.attributes["grpc.method"].starts_with("mounted.v1.Mounted/")
    };
    let started: Vec<_> = started.filter(of).collect();
    assert_eq!(started.len(), 64, "so many are told apart");
    assert_eq!(started.iter().map(|it| it.value).sum::<f64>(), 3.0 + 63.0);
}
