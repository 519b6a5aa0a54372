//! A body that only fails.
#![deny(warnings)]

use codegen_tests::kinds::v1::{CounterHandler, Number};
use micro::{Request, Response, Status, Stream, stream};

struct Counter;

impl CounterHandler for Counter {
    async fn count(
        &self,
        _request: Request<Number>,
    ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
        stream::fails(Status::unimplemented("not yet"))
    }
}

fn main() {
    let _ = Counter;
}
