use codegen_tests::kinds::v1::{
    COUNTER, KINDS, KindsClient, KindsHandler, Number, SecondClient, SecondHandler,
    register_kinds_handler, register_second_handler,
};
use micro::{
    Code, Request, Response, Status, Stream, Streaming,
    descriptor::{IdempotencyLevel, MethodKind},
    stream,
};
use tokio::sync::mpsc;

use super::fleet::{Fleet, NAME, all};

struct Kinds {
    factor: i64,
}

impl KindsHandler for Kinds {
    async fn unary(&self, request: Request<Number>) -> Result<Response<Number>, Status> {
        match request.into_inner().value {
            0 => Err(Status::out_of_range("zero")),
            value => Ok(Response::new(Number { value: value * self.factor })),
        }
    }

    async fn down(
        &self,
        request: Request<Number>,
    ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
        let from = request.into_inner().value;
        if from < 0 {
            return Err(Status::out_of_range("below zero"));
        }
        Ok(Response::new(stream::iter((0..from).rev().map(|value| Ok(Number { value })))))
    }

    async fn up(&self, request: Request<Streaming<Number>>) -> Result<Response<Number>, Status> {
        let mut numbers = request.into_inner();
        let mut value = 0;
        while let Some(number) = numbers.message().await? {
            value += number.value;
        }
        Ok(Response::new(Number { value }))
    }

    async fn both(
        &self,
        request: Request<Streaming<Number>>,
    ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
        let mut numbers = request.into_inner();
        let factor = self.factor;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(number) = numbers.message().await.transpose() {
                let doubled = number.map(|number| Number { value: number.value * factor });
                if sender.send(doubled).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(stream::receiver(receiver)))
    }

    async fn fails(
        &self,
        _request: Request<Number>,
    ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
        stream::fails(Status::data_loss("gone"))
    }
}

struct Second;

impl SecondHandler for Second {
    async fn unary(&self, request: Request<Number>) -> Result<Response<Number>, Status> {
        Ok(Response::new(Number { value: -request.into_inner().value }))
    }
}

async fn fleet(test: &str) -> Fleet {
    Fleet::start(test, |server| {
        register_kinds_handler(server, Kinds { factor: 2 });
        register_second_handler(server, Second);
    })
    .await
}

fn numbers(values: &[i64]) -> Vec<Number> {
    values.iter().map(|&value| Number { value }).collect()
}

#[tokio::test]
async fn all_four_kinds_of_calls_arrive_and_return() {
    let fleet = fleet("kinds").await;
    let kinds = KindsClient::new(NAME, &fleet.client).clone();

    assert_eq!(kinds.unary(Number { value: 3 }).await.unwrap().into_inner().value, 6);
    let down = kinds.down(Number { value: 3 }).await.unwrap().into_inner();
    assert_eq!(all(down).await, numbers(&[2, 1, 0]));
    let sum = kinds.up(stream::iter(numbers(&[1, 2, 3]))).await.unwrap();
    assert_eq!(sum.into_inner().value, 6);
    let both = kinds.both(stream::iter(numbers(&[1, 2]))).await.unwrap().into_inner();
    assert_eq!(all(both).await, numbers(&[2, 4]));

    fleet.stop().await;
}

#[tokio::test]
async fn a_bidirectional_call_answers_each_message_before_the_next() {
    let fleet = fleet("kinds-ping-pong").await;
    let (sender, receiver) = mpsc::channel(1);
    let kinds = KindsClient::new(NAME, &fleet.client);
    let mut both = kinds.both(stream::receiver(receiver)).await.unwrap().into_inner();
    for value in 1..4 {
        sender.send(Number { value }).await.unwrap();
        let answer = both.message().await.unwrap().unwrap();
        assert_eq!(answer.value, value * 2);
    }
    drop(sender);
    assert_eq!(both.message().await.unwrap(), None);
    fleet.stop().await;
}

#[tokio::test]
async fn metadata_and_errors_of_a_handler_reach_the_caller() {
    let fleet = fleet("kinds-errors").await;
    let kinds = KindsClient::new(NAME, &fleet.client);

    let error = kinds.unary(Number { value: 0 }).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::OutOfRange, "zero"));
    let error = kinds.down(Request::new(Number { value: -1 })).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::OutOfRange, "below zero"));
    #[expect(deprecated)]
    let error = kinds.fails(Number::default()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::DataLoss, "gone"));

    fleet.stop().await;
}

#[tokio::test]
async fn two_services_share_a_node() {
    let fleet = fleet("kinds-second").await;
    let second = SecondClient::new(NAME, &fleet.client);
    let kinds = KindsClient::new(NAME, &fleet.client);
    assert_eq!(second.unary(Number { value: 3 }).await.unwrap().into_inner().value, -3);
    assert_eq!(kinds.unary(Number { value: 3 }).await.unwrap().into_inner().value, 6);
    fleet.stop().await;
}

#[test]
fn the_descriptor_says_what_the_file_says() {
    assert_eq!((KINDS.name, KINDS.short_name()), ("kinds.v1.Kinds", "Kinds"));
    assert_eq!((KindsClient::NAME, KINDS.comment), ("kinds.v1.Kinds", "Every kind of call."));
    let facts = KINDS.methods.iter().map(|method| {
        (method.path, method.kind, method.idempotency, method.deprecated, method.comment)
    });
    use IdempotencyLevel::{Idempotent, NoSideEffects, Unknown};
    use MethodKind::{BidiStreaming, ClientStreaming, ServerStreaming, Unary};
    assert_eq!(
        facts.collect::<Vec<_>>(),
        [
            ("/kinds.v1.Kinds/Unary", Unary, NoSideEffects, false, ""),
            ("/kinds.v1.Kinds/Down", ServerStreaming, Unknown, false, "Counts down to zero."),
            ("/kinds.v1.Kinds/Up", ClientStreaming, Idempotent, false, "Sums up."),
            ("/kinds.v1.Kinds/Both", BidiStreaming, Unknown, false, "Doubles each."),
            ("/kinds.v1.Kinds/Fails", ServerStreaming, Unknown, true, "Fails without a stream."),
        ]
    );
    assert_eq!(COUNTER.methods[0].request.fields[0].kind, "int64");
}
