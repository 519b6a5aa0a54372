//! Several registries at once, for a fleet that moves from one to another: the old one dies for good,
//! under calls, and fails none of them. Nodes register in both; clients are at any stage of the move.

use std::time::Duration;

use tests::{
    consul::Consul,
    etcd::Etcd,
    fault::{Fleet, Trial, now},
};

/// Kills etcd under the calls of a client whose registries are `client` of etcd's URL and Consul's.
async fn etcd_dies_for_good(name: &str, client: impl Fn(&str, &str) -> String) {
    let (mut etcd, consul) = (Etcd::start().await, Consul::start().await);
    let both = format!("{},{}", etcd.url(), consul.url());
    let fleet = Fleet::in_several(&both, &consul.url()).await;
    let client = client(&etcd.url(), &consul.url());
    let mut trial = Trial::of_fleet(fleet, &client, name).await;
    etcd.kill();
    let missing = trial.all_listed(now()).await;
    assert_eq!(missing, Duration::ZERO, "the other registry has all nodes throughout");
    // Nodes leave, and come back by the other registry alone: elsewhere, if that is told to anybody.
    for node in [0, 1] {
        assert!(trial.fleet.terminate(node).await.success());
        match client.contains("consul://") {
            true => trial.replace(node).await,
            false => trial.restart(node).await,
        };
    }
    let audit = trial.finish(0).await;
    assert!(audit.failed().is_empty(), "no call fails");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_registry_of_nodes_and_clients_dies() {
    etcd_dies_for_good("several: one dies", |etcd, consul| format!("{etcd},{consul}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_registry_dies_when_clients_have_moved() {
    etcd_dies_for_good("several: the old one dies", |_, consul| consul.to_owned()).await;
}

/// Whoever has not moved yet goes on with the nodes that it knows.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_registry_dies_before_clients_have_moved() {
    etcd_dies_for_good("several: the clients' one dies", |etcd, _| etcd.to_owned()).await;
}
