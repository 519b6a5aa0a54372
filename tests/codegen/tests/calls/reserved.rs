use codegen_tests::r#match::self_::v1::{
    Future, Kind, Message, Option as ProtoOption, Request as ProtoRequest,
    Response as ProtoResponse, Result as ProtoResult, SELF, Self_, SelfClient, SelfHandler,
    Send as ProtoSend, Status as ProtoStatus, Stream as ProtoStream, String as ProtoString,
    Sync as ProtoSync, TypeClient, TypeHandler, Vec as ProtoVec, register_self_handler,
    register_type_handler,
    self_::{Match, r#type::Fn},
};
use micro::{Request, Response, Status, Stream, Streaming, stream};

use super::fleet::{Fleet, NAME, all};

struct Handler;

/// Answers with the name of the Rust method, so that a call that went elsewhere is seen.
fn named(name: &str, request: Self_) -> Result<Response<Self_>, Status> {
    Ok(Response::new(Self_ { r#type: name.to_owned(), ..request }))
}

macro_rules! unary {
    ($($name:ident)*) => {
        $(async fn $name(&self, request: Request<Self_>) -> Result<Response<Self_>, Status> {
            named(stringify!($name), request.into_inner())
        })*
    };
}

impl SelfHandler for Handler {
    unary! {
        new_ clone_ call into_ try_into_ r#type self_ r#async r#await r#gen fmt eq drop borrow
        as_ref from default index to_string into_thing from_thing is_thing channel timeout
        into_request into_future
    }

    async fn super_(
        &self,
        request: Request<Self_>,
    ) -> Result<Response<impl Stream<Item = Result<Self_, Status>> + Send + 'static>, Status> {
        let reply = named("super_", request.into_inner())?.into_inner();
        Ok(Response::new(stream::iter([Ok(reply)])))
    }

    async fn crate_(&self, request: Request<Streaming<Self_>>) -> Result<Response<Self_>, Status> {
        let requests = all(request.into_inner()).await;
        named("crate_", requests.into_iter().next().unwrap_or_default())
    }

    async fn extern_(
        &self,
        request: Request<Streaming<Self_>>,
    ) -> Result<Response<impl Stream<Item = Result<Self_, Status>> + Send + 'static>, Status> {
        let requests = all(request.into_inner()).await;
        let replies = requests.into_iter().map(|one| Ok(named("extern_", one)?.into_inner()));
        Ok(Response::new(stream::iter(replies.collect::<Vec<_>>())))
    }
}

impl TypeHandler for Handler {
    async fn prelude(
        &self,
        request: Request<ProtoOption>,
    ) -> Result<Response<ProtoResult>, Status> {
        let size = request.into_inner().some.map_or(0, |some| some.value.len());
        let value = vec![Default::default(); size];
        Ok(Response::new(ProtoResult { ok: Some(ProtoVec { value }) }))
    }

    async fn traits(&self, request: Request<Future>) -> Result<Response<ProtoStream>, Status> {
        let kind = request.into_inner().send.and_then(|send| send.sync).unwrap_or_default().kind();
        let items = [(kind.as_str_name().to_owned(), Default::default())].into();
        Ok(Response::new(ProtoStream { items }))
    }

    async fn ours(
        &self,
        request: Request<ProtoRequest>,
    ) -> Result<Response<ProtoResponse>, Status> {
        let code = i32::from(request.into_inner().message.is_some());
        Ok(Response::new(ProtoResponse { status: Some(ProtoStatus { code }) }))
    }
}

fn message() -> Self_ {
    Self_ {
        r#type: "?".to_owned(),
        self_: "self".to_owned(),
        super_: "super".to_owned(),
        crate_: "crate".to_owned(),
        extern_: "extern".to_owned(),
        r#async: "async".to_owned(),
        request: "request".to_owned(),
        handler: "handler".to_owned(),
        r#yield: Fn::While.into(),
        r#match: Some(Match::Dyn("dyn".to_owned())),
    }
}

#[tokio::test]
async fn rpcs_of_every_reserved_name_reach_their_own_method() {
    let fleet = Fleet::start("reserved", |server| register_self_handler(server, Handler)).await;
    let client = SelfClient::new(NAME, &fleet.client);
    macro_rules! calls {
        ($($name:ident)*) => {
            $(
                let reply = client.$name(message()).await.unwrap().into_inner();
                assert_eq!(reply, Self_ { r#type: stringify!($name).to_owned(), ..message() });
            )*
        };
    }
    calls! {
        new_ clone_ call into_ try_into_ r#type self_ r#async r#await r#gen fmt eq drop borrow
        as_ref from default index to_string into_thing from_thing is_thing channel timeout
        into_request into_future
    }
    let reply = client.super_(message()).await.unwrap().into_inner();
    assert_eq!(all(reply).await, [Self_ { r#type: "super_".to_owned(), ..message() }]);
    let reply = client.crate_(stream::iter([message()])).await.unwrap().into_inner();
    assert_eq!(reply, Self_ { r#type: "crate_".to_owned(), ..message() });
    let reply = client.extern_(stream::iter([message()])).await.unwrap().into_inner();
    assert_eq!(all(reply).await, [Self_ { r#type: "extern_".to_owned(), ..message() }]);
    fleet.stop().await;
}

#[tokio::test]
async fn messages_may_be_called_as_what_the_prelude_and_micro_have() {
    let fleet = Fleet::start("prelude", |server| register_type_handler(server, Handler)).await;
    let client = TypeClient::new(NAME, &fleet.client);
    let some = Some(ProtoString { value: "abc".to_owned() });
    let result = client.prelude(ProtoOption { some }).await.unwrap().into_inner();
    assert_eq!(result.ok.unwrap().value.len(), 3);
    let sync = Some(ProtoSync { kind: Kind::B.into() });
    let stream = client.traits(Future { send: Some(ProtoSend { sync }) }).await.unwrap();
    assert_eq!(stream.into_inner().items.keys().collect::<Vec<_>>(), ["KIND_B"]);
    let request = ProtoRequest { message: Some(Message::default()) };
    let response = client.ours(request).await.unwrap().into_inner();
    assert_eq!(response.status, Some(ProtoStatus { code: 1 }));
    fleet.stop().await;
}

#[test]
fn the_wire_has_the_names_of_the_file() {
    assert_eq!(SELF.name, "match.self.v1.Self");
    assert_eq!(SELF.methods[0].path, "/match.self.v1.Self/New");
    assert_eq!(SELF.methods[6].path, "/match.self.v1.Self/Self");
}
