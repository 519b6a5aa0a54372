use codegen_tests::bare::{
    BARES, Bare, BaresClient, BaresHandler, IDLE, IdleClient, IdleHandler, register_bares_handler,
    register_idle_handler,
};
use micro::{Request, Response, Status};

use super::fleet::{Fleet, NAME};

struct Handler;

impl BaresHandler for Handler {
    async fn echo(&self, request: Request<Bare>) -> Result<Response<Bare>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

impl IdleHandler for Handler {}

#[tokio::test]
async fn a_service_without_a_package_is_called_by_its_bare_name() {
    let fleet = Fleet::start("bare", |server| {
        register_bares_handler(server, Handler);
        register_idle_handler(server, Handler);
    })
    .await;
    let bare = Bare { text: "hi".to_owned() };
    let reply = BaresClient::new(NAME, &fleet.client).echo(bare.clone()).await.unwrap();
    assert_eq!(reply.into_inner(), bare);
    assert_eq!((BARES.name, BARES.methods[0].path), ("Bares", "/Bares/Echo"));
    fleet.stop().await;
}

#[tokio::test]
async fn a_service_without_methods_has_all_but_methods() {
    let fleet = Fleet::start("idle", |server| register_idle_handler(server, Handler)).await;
    let _idle = IdleClient::new(NAME, &fleet.client).clone();
    assert_eq!((IDLE.comment, IDLE.methods.len()), ("A service without methods.", 0));
    fleet.stop().await;
}
