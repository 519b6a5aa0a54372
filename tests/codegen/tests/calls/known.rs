use codegen_tests::known::{All, KNOWN, KnownClient, KnownHandler, register_known_handler};
use micro::{
    Request, Response, Status, Stream, Streaming,
    prost_types::{Any, Duration, FieldMask, Struct, Timestamp, Value, value::Kind},
    stream,
};

use super::fleet::{Fleet, NAME, all};

struct Handler;

impl KnownHandler for Handler {
    async fn nothing(&self, _request: Request<()>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }

    async fn nothings(
        &self,
        request: Request<Streaming<()>>,
    ) -> Result<Response<impl Stream<Item = Result<(), Status>> + Send + 'static>, Status> {
        let nothings = all(request.into_inner()).await;
        Ok(Response::new(stream::iter(nothings.into_iter().map(Ok))))
    }

    async fn age(&self, request: Request<Timestamp>) -> Result<Response<Duration>, Status> {
        let Timestamp { seconds, nanos } = request.into_inner();
        Ok(Response::new(Duration { seconds: -seconds, nanos: -nanos }))
    }

    async fn length(&self, request: Request<String>) -> Result<Response<i64>, Status> {
        Ok(Response::new(request.into_inner().len().try_into().unwrap()))
    }

    async fn pack(&self, request: Request<Any>) -> Result<Response<Value>, Status> {
        let kind = Some(Kind::StringValue(request.into_inner().type_url));
        Ok(Response::new(Value { kind }))
    }

    async fn keep(&self, request: Request<All>) -> Result<Response<All>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

#[tokio::test]
async fn googles_messages_are_exchanged() {
    let fleet = Fleet::start("known", |server| register_known_handler(server, Handler)).await;
    let known = KnownClient::new(NAME, &fleet.client);

    known.nothing(()).await.unwrap();
    let nothings = known.nothings(stream::iter([(), ()])).await.unwrap().into_inner();
    assert_eq!(all(nothings).await.len(), 2);
    let age = known.age(Timestamp { seconds: 3, nanos: 4 }).await.unwrap().into_inner();
    assert_eq!(age, Duration { seconds: -3, nanos: -4 });
    assert_eq!(known.length("abc".to_owned()).await.unwrap().into_inner(), 3);
    let any = Any { type_url: "t/m".to_owned(), value: vec![1] };
    let packed = known.pack(any.clone()).await.unwrap().into_inner();
    assert_eq!(packed.kind, Some(Kind::StringValue("t/m".to_owned())));
    let all = All {
        any: Some(any),
        duration: Some(age),
        empty: Some(()),
        mask: Some(FieldMask { paths: vec!["a.b".to_owned()] }),
        r#struct: Some(Struct::default()),
        timestamp: Some(Timestamp::default()),
        flag: Some(true),
        bytes: Some(vec![1, 2]),
        values: vec![packed],
    };
    assert_eq!(known.keep(all.clone()).await.unwrap().into_inner(), all);

    fleet.stop().await;
}

#[test]
fn googles_messages_are_described_as_any_other() {
    let [timestamp, duration] = [KNOWN.methods[2].request, KNOWN.methods[2].response];
    assert_eq!((timestamp.kind, duration.kind), ("Timestamp", "Duration"));
    let fields: Vec<_> = timestamp.fields.iter().map(|field| (field.name, field.kind)).collect();
    assert_eq!(fields, [("seconds", "int64"), ("nanos", "int32")]);
}
