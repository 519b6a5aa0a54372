use codegen_tests::{
    common::v1::Point,
    options::{self, Blob, OptionsClient, OptionsHandler, blob::Either, register_options_handler},
};
use micro::{Request, Response, Status, prost::bytes::Bytes};

use super::fleet::{Fleet, NAME};

struct Handler;

impl OptionsHandler for Handler {
    async fn echo(&self, request: Request<Blob>) -> Result<Response<Blob>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

impl options::server::OptionsHandler for Handler {
    async fn echo(
        &self,
        request: Request<options::server::Blob>,
    ) -> Result<Response<options::server::Blob>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

#[tokio::test]
async fn messages_have_the_types_that_were_configured() {
    let fleet = Fleet::start("options", |server| register_options_handler(server, Handler)).await;
    let blob = Blob {
        data: Bytes::from_static(b"data"),
        point: Some(Point { x: 1, y: 2 }),
        either: Some(Either::Left(Bytes::from_static(b"left"))),
    };
    let options = OptionsClient::new(NAME, &fleet.client);
    assert_eq!(options.echo(blob.clone()).await.unwrap().into_inner(), blob);
    fleet.stop().await;
}

#[tokio::test]
async fn a_client_and_a_server_generated_apart_understand_each_other() {
    let fleet = Fleet::start("options-apart", |server| {
        options::server::register_options_handler(server, Handler);
    })
    .await;
    let client = options::client::OptionsClient::new(NAME, &fleet.client);
    let blob = options::client::Blob { data: Bytes::from_static(b"x"), ..Default::default() };
    assert_eq!(client.echo(blob.clone()).await.unwrap().into_inner(), blob);
    fleet.stop().await;
}

#[test]
fn the_descriptor_set_is_written_with_imports_and_comments() {
    use micro::{prost::Message, prost_types::FileDescriptorSet};

    let set = FileDescriptorSet::decode(options::DESCRIPTOR_SET).unwrap();
    let names: Vec<_> = set.file.iter().map(|file| file.name()).collect();
    assert_eq!(names, ["common/v1/common.proto", "options.proto"]);
    let locations = &set.file[1].source_code_info.as_ref().unwrap().location;
    assert!(locations.iter().any(|location| {
        location.leading_comments.as_deref() == Some(" What `configure()` changes.\n")
    }));
}
