//! `grpc.health.v1`.

use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::*;
use crate::server::Health;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

fn ask(service: &str) -> Bytes {
    let message = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    [&[0, 0, 0, 0, u8::try_from(message.len()).expect("short")], &message[..]].concat().into()
}

struct Watching(Open, Answered);

impl Watching {
    async fn start(client: &Client, service: &str) -> Self {
        let mut call = client.open(head(WATCH)).await;
        call.body.send_data(ask(service), false).expect("open");
        let answered = call.answered().await;
        Self(call, answered)
    }

    async fn next(&mut self) -> i32 {
        let data = soon(self.1.body.data()).await.expect("it goes on").expect("not reset");
        HealthCheckResponse::decode(&data[5..]).expect("a message").status
    }
}

async fn check(client: &Client, service: &str) -> Result<i32, Code> {
    let mut call = client.open(head(CHECK)).await;
    call.body.send_data(ask(service), true).expect("open");
    let mut answered = call.answered().await;
    if answered.head.headers.contains_key("grpc-status") {
        return Err(answered.rest().await.status().code());
    }
    let data = soon(answered.body.data()).await.expect("a message").expect("not reset");
    Ok(HealthCheckResponse::decode(&data[5..]).expect("a message").status)
}

#[tokio::test]
async fn health_follows_readiness_for_the_server_and_each_service() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    for (health, of_all, of_each) in [
        (None, NOT_SERVING, NOT_SERVING),
        (Some(Health::Serving), SERVING, SERVING),
        (Some(Health::Unlisted), NOT_SERVING, SERVING),
        (Some(Health::NotServing), NOT_SERVING, NOT_SERVING),
    ] {
        if let Some(health) = health {
            server.listening.set_health(health);
        }
        assert_eq!(check(&client, "").await, Ok(of_all), "{health:?}");
        for name in ["test.v1.Echo", "grpc.health.v1.Health"] {
            assert_eq!(check(&client, name).await, Ok(of_each), "{name:?} at {health:?}");
        }
    }
    assert_eq!(check(&client, "nobody").await, Err(Code::NotFound));
}

#[tokio::test]
async fn a_watch_says_the_state_and_each_change() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let mut watching = Watching::start(&client, "").await;
    assert_eq!(watching.next().await, NOT_SERVING);
    server.listening.set_health(Health::Serving);
    assert_eq!(watching.next().await, SERVING);
    server.listening.set_health(Health::Serving);
    server.listening.set_health(Health::NotServing);
    assert_eq!(watching.next().await, NOT_SERVING, "only changes are said");
    let mut unknown = Watching::start(&client, "nobody").await;
    assert_eq!(unknown.next().await, SERVICE_UNKNOWN, "and the stream stays open");
}

#[tokio::test]
async fn a_watch_ends_when_the_server_leaves_and_does_not_hold_it_up() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    server.listening.set_health(Health::Serving);
    let mut watching = Watching::start(&client, "test.v1.Echo").await;
    assert_eq!(watching.next().await, SERVING);

    let drained = tokio::spawn(server.listening.drain(SOON * 100));
    assert_eq!(watching.next().await, NOT_SERVING);
    let Watching(call, answered) = watching;
    answered.rest().await.expect(Code::Unavailable, "the server is leaving");
    drop(call);
    assert!(soon(drained).await.expect("it ends").finished());
}
