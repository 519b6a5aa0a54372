//! `Err(status)` alone says nothing of the stream.

use codegen_tests::kinds::v1::{CounterHandler, Number};
use micro::{Request, Response, Status, Stream};

struct Counter;

impl CounterHandler for Counter {
    async fn count(
        &self,
        _request: Request<Number>,
    ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
        Err(Status::unimplemented("not yet"))?
    }
}

fn main() {
    let _ = Counter;
}
