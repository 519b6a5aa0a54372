//! Any stream that owns its data; an error may come before it.
#![deny(warnings)]

use codegen_tests::kinds::v1::{CounterHandler, Number};
use micro::{Request, Response, Status, Stream, stream};

struct Counter {
    step: i64,
}

impl CounterHandler for Counter {
    async fn count(
        &self,
        request: Request<Number>,
    ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
        let upto = request.into_inner().value;
        if upto < 0 {
            return Err(Status::invalid_argument("below zero"));
        }
        let step = self.step;
        let numbers = (0..upto).map(move |n| Ok(Number { value: n * step }));
        Ok(Response::new(stream::iter(numbers)))
    }
}

fn main() {
    let _ = Counter { step: 2 };
}
