//! A service that answers as it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures_util::{StreamExt as _, stream};
use micro::{Client, ClientBuilder, Code, Handle, Request, Response, Service, Status, Streaming};

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/echo.v1.rs"));

/// What it answers next, in place of what it would: by itself, every call is well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<VecDeque<Code>>>);

impl Answers {
    pub(crate) fn next(&self, codes: impl IntoIterator<Item = Code>) {
        self.0.lock().unwrap().extend(codes);
    }

    /// `Ok` is one that never comes.
    async fn one(&self) -> Result<(), Status> {
        let next = self.0.lock().unwrap().pop_front();
        match next {
            None => Ok(()),
            Some(Code::Ok) => std::future::pending().await,
            Some(code) => Err(Status::new(code, "as told")),
        }
    }
}

struct Echo(Answers);

impl EchoHandler for Echo {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        self.0.one().await?;
        let SayRequest { payload } = request.into_inner();
        Ok(Response::new(SayReply { payload, node: String::new() }))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<
        Response<impl micro::Stream<Item = Result<CountReply, Status>> + Send + 'static>,
        Status,
    > {
        self.0.one().await?;
        let numbers = 1..=request.into_inner().upto;
        Ok(Response::new(stream::iter(numbers.map(|n| Ok(CountReply { n })))))
    }

    async fn sum(
        &self,
        request: Request<Streaming<SumRequest>>,
    ) -> Result<Response<SumReply>, Status> {
        let mut summands = request.into_inner();
        let mut sum = 0;
        while let Some(summand) = summands.next().await {
            sum += summand?.add;
        }
        Ok(Response::new(SumReply { sum }))
    }

    async fn chat(
        &self,
        request: Request<Streaming<ChatMessage>>,
    ) -> Result<
        Response<impl micro::Stream<Item = Result<ChatMessage, Status>> + Send + 'static>,
        Status,
    > {
        Ok(Response::new(request.into_inner()))
    }
}

/// A node of a service of this name, in a registry of its own.
pub(crate) async fn node(name: &str, answers: &Answers) -> Handle {
    let service = Service::builder(name).without_env().registry(format!("memory://{name}"));
    let mut service = service.build().await.expect("a service");
    register_echo_handler(service.server(), Echo(answers.clone()));
    service.start().await.expect("a free port")
}

pub(crate) fn client(name: &str) -> ClientBuilder {
    Client::builder().without_env().registry(format!("memory://{name}"))
}

/// A node of such a service, what it answers, and a client of it.
pub(crate) async fn echo(name: &str) -> (Handle, Answers, EchoClient) {
    let answers = Answers::default();
    let node = node(name, &answers).await;
    let client = client(name).build().expect("a client");
    (node, answers, EchoClient::new(name, &client))
}
