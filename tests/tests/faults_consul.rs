//! What may happen to Consul while calls go on: none of it may fail one, and every node is back in
//! the registry within a renewal's time of Consul's return.

use std::time::Duration;

use micro::registry;
use serde_json::{Value, json};
use tests::{
    consul::Consul,
    fault::{TTL, Trial, now},
};
use tokio::time::sleep;

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

async fn check(mut trial: Trial, returned: Duration) {
    let took = trial.all_listed(returned).await;
    // The client still follows the registry: a node that takes another's place is called.
    assert!(trial.fleet.terminate(0).await.success());
    trial.restart(0).await;
    trial.finish(0).await;
    println!("all nodes were back after {took:?}");
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after Consul");
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_killed_and_restarted() {
    let mut consul = Consul::start().await;
    let trial = Trial::start("Consul killed and restarted", &consul.url()).await;
    consul.kill();
    sleep(Duration::from_secs(5)).await;
    consul.restart().await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_stopped_for_three_ttls_and_continued() {
    let consul = Consul::start().await;
    let trial = Trial::start("Consul stopped for 3 x TTL, continued", &consul.url()).await;
    consul.pause();
    sleep(3 * TTL).await;
    consul.resume();
    // Every check is critical on waking, its TTL being over.
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_wiped() {
    let mut consul = Consul::start().await;
    let trial = Trial::start("Consul wiped", &consul.url()).await;
    consul.wipe().await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_deleted_or_overwritten_by_hand() {
    let consul = Consul::start().await;
    let trial = Trial::start("Consul's services deleted and overwritten", &consul.url()).await;
    let services = consul.get("/v1/agent/services").await;
    let mut ids = services.as_object().expect("services").keys();
    let [first, second, third] = [ids.next(), ids.next(), ids.next()].map(|id| id.expect("three"));
    consul.put(&format!("/v1/agent/service/deregister/{first}"), Value::Null).await;
    consul.put(&format!("/v1/agent/check/fail/service:{second}"), Value::Null).await;
    let other = json!({ "ID": third, "Name": "another", "Port": 1, "Address": "127.0.0.1" });
    consul.put("/v1/agent/service/register", other).await;
    let registry = registry::open(&consul.url()).expect("the URL is well-formed");
    assert!(registry.list().await.expect("services").contains(&"another".to_owned()));
    check(trial, now()).await;
}
