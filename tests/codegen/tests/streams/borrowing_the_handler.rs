//! A stream outlives the method's call, and so cannot borrow the handler.

use codegen_tests::kinds::v1::{CounterHandler, Number};
use micro::{Request, Response, Status, Stream, stream};

struct Counter {
    step: i64,
}

impl CounterHandler for Counter {
    async fn count(
        &self,
        _request: Request<Number>,
    ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
        let numbers = (0..3).map(|n| Ok(Number { value: n * self.step }));
        Ok(Response::new(stream::iter(numbers)))
    }
}

fn main() {
    let _ = Counter { step: 2 };
}
