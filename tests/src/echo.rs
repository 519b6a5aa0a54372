//! A handler with all four kinds of calls.

use micro::{Request, Response, Status, Stream, Streaming};
use tokio_stream::StreamExt;

use crate::proto::echo::{
    ChatMessage, CountReply, CountRequest, EchoHandler, SayReply, SayRequest, SumReply, SumRequest,
};

/// Answers as `proto/echo.proto` says.
#[derive(Debug, Default)]
pub struct Echo;

impl EchoHandler for Echo {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(SayReply { payload, node: String::new() }))
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
        Ok(Response::new(request.into_inner()))
    }
}
