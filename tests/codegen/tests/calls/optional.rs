use codegen_tests::optional::{
    Maybe, OPTIONAL, OptionalClient, OptionalHandler,
    maybe::{Choice, Kind},
    register_optional_handler,
};
use micro::{Request, Response, Status};

use super::fleet::{Fleet, NAME};

struct Handler;

impl OptionalHandler for Handler {
    async fn echo(&self, request: Request<Maybe>) -> Result<Response<Maybe>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

#[tokio::test]
async fn not_set_and_zero_are_two_things() {
    let fleet = Fleet::start("optional", |server| register_optional_handler(server, Handler)).await;
    let optional = OptionalClient::new(NAME, &fleet.client);
    let zero = Maybe {
        number: Some(0),
        text: Some(String::new()),
        kind: Some(Kind::Zero.into()),
        maybe: Some(Box::default()),
        bytes: Some(Vec::new()),
        choice: Some(Choice::Right(Box::default())),
    };
    for maybe in [Maybe::default(), zero] {
        assert_eq!(optional.echo(maybe.clone()).await.unwrap().into_inner(), maybe);
    }
    fleet.stop().await;
}

#[test]
fn an_optional_field_is_described_as_a_field_and_a_oneof_as_one() {
    let fields = OPTIONAL.methods[0].request.fields;
    let fields: Vec<_> = fields.iter().map(|field| (field.name, field.kind)).collect();
    assert_eq!(
        fields,
        [
            ("number", "int32"),
            ("text", "string"),
            ("kind", "Maybe_Kind"),
            ("maybe", "Maybe"),
            ("bytes", "[]uint8"),
            ("isMaybe_Choice", "isMaybe_Choice"),
        ]
    );
}
