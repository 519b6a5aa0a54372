//! A named stream type in the place of `impl Stream`.
#![deny(warnings)]

use std::pin::Pin;

use codegen_tests::kinds::v1::{CounterHandler, Number};
use micro::{Request, Response, Status, Stream, stream};

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

struct Counter;

impl CounterHandler for Counter {
    #[allow(refining_impl_trait)]
    async fn count(&self, _request: Request<Number>) -> Result<Response<Numbers>, Status> {
        Ok(Response::new(Box::pin(stream::iter([]))))
    }
}

struct Failing;

impl CounterHandler for Failing {
    #[allow(refining_impl_trait)]
    async fn count(&self, _request: Request<Number>) -> Result<Response<Numbers>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}

fn main() {
    let _ = (Counter, Failing);
}
