use codegen_tests::{
    common::v1::Point,
    deep::{
        DeepClient, DeepHandler, Surface,
        er::{DeeperClient, DeeperHandler, Place, place::Kind, register_deeper_handler},
        register_deep_handler,
    },
};
use micro::{Request, Response, Status, Stream, Streaming, stream};

use super::fleet::{Fleet, NAME, all};

struct Handler;

fn place(point: Point) -> Place {
    Place { point: Some(point), kind: Kind::Ore.into() }
}

impl DeepHandler for Handler {
    async fn dig(&self, request: Request<Point>) -> Result<Response<Surface>, Status> {
        Ok(Response::new(Surface { below: Some(place(request.into_inner())) }))
    }
}

impl DeeperHandler for Handler {
    async fn locate(&self, request: Request<Point>) -> Result<Response<Place>, Status> {
        Ok(Response::new(place(request.into_inner())))
    }

    async fn track(
        &self,
        request: Request<Streaming<Place>>,
    ) -> Result<Response<impl Stream<Item = Result<Point, Status>> + Send + 'static>, Status> {
        let places = all(request.into_inner()).await;
        let points = places.into_iter().map(|place| {
            place.point.ok_or_else(|| Status::invalid_argument("a place without a point"))
        });
        Ok(Response::new(stream::iter(points.collect::<Vec<_>>())))
    }
}

#[tokio::test]
async fn messages_of_other_packages_are_exchanged() {
    let fleet = Fleet::start("deep", |server| {
        register_deep_handler(server, Handler);
        register_deeper_handler(server, Handler);
    })
    .await;
    let point = Point { x: 1, y: -2 };
    let surface = DeepClient::new(NAME, &fleet.client).dig(point).await.unwrap();
    assert_eq!(surface.into_inner().below, Some(place(point)));
    let deeper = DeeperClient::new(NAME, &fleet.client);
    assert_eq!(deeper.locate(point).await.unwrap().into_inner(), place(point));
    let track = deeper.track(stream::iter([place(point)])).await.unwrap().into_inner();
    assert_eq!(all(track).await, [point]);
    fleet.stop().await;
}
