//! A named type says more than the trait does: a lint, and an error only where warnings are.
#![deny(warnings)]

use std::pin::Pin;

use codegen_tests::kinds::v1::{CounterHandler, Number};
use micro::{Request, Response, Status, Stream, stream};

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

struct Counter;

impl CounterHandler for Counter {
    async fn count(&self, _request: Request<Number>) -> Result<Response<Numbers>, Status> {
        Ok(Response::new(Box::pin(stream::iter([]))))
    }
}

fn main() {
    let _ = Counter;
}
