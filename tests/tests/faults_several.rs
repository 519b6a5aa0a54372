//! Several registries at once, for a fleet that moves from one to another: the old one dies for good,
//! under calls, and fails none of them. Nodes register in both; clients are at any stage of the move.

use std::time::Duration;

use tests::{
    consul::Consul,
    etcd::Etcd,
    fault::{CALLS, Fleet, Server, Trial, now},
    kubernetes::Kubernetes,
    nats::Nats,
    zookeeper::ZooKeeper,
};

async fn started<S: Server>() -> (S, String) {
    let mut server = S::stopped();
    server.restart().await;
    let url = server.url_at(&server.address());
    (server, url)
}

/// Kills the old registry under the calls of a client whose registries are `client` of its URL and the
/// new one's.
async fn dies_for_good<Old: Server, New: Server>(
    name: &str,
    client: impl Fn(&str, &str) -> String,
) {
    let ((mut old, old_url), (_new, new_url)) = (started::<Old>().await, started::<New>().await);
    let fleet = Fleet::in_several(&format!("{old_url},{new_url}"), &new_url).await;
    let client = client(&old_url, &new_url);
    let mut trial =
        Trial::of_fleet(fleet, &client, &format!("{}, then {}: {name}", Old::NAME, New::NAME))
            .await;
    old.kill();
    let missing = trial.all_listed(now()).await;
    assert_eq!(missing, Duration::ZERO, "the other registry has all nodes throughout");
    // Nodes leave, and come back by the other registry alone: elsewhere, if that is told to anybody.
    for node in [0, 1] {
        assert!(trial.fleet.terminate(node).await.success());
        match client.contains(&new_url) {
            true => trial.replace(node).await,
            false => trial.restart(node).await,
        };
    }
    let audit = trial.finish(CALLS).await;
    assert!(audit.failed().is_empty(), "no call fails");
}

macro_rules! every_registry {
    ({ $($old:ident: $Old:ty, then $New:ty;)* } not { $($why:literal: $($other:ident)*;)* }) => {
        $(mod $old {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn one_registry_of_nodes_and_clients_dies() {
                dies_for_good::<$Old, $New>("one dies", |old, new| format!("{old},{new}")).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn the_old_registry_dies_when_clients_have_moved() {
                dies_for_good::<$Old, $New>("the old one dies", |_, new| new.to_owned()).await;
            }

            /// Whoever has not moved yet goes on with the nodes that it knows.
            #[tokio::test(flavor = "multi_thread")]
            async fn the_old_registry_dies_before_clients_have_moved() {
                dies_for_good::<$Old, $New>("the clients' one dies", |old, _| old.to_owned()).await;
            }
        })*
        $($(mod $other {
            #[test]
            fn one_registry_of_nodes_and_clients_dies() {
                println!("it does not apply: {}", $why);
            }

            #[test]
            fn the_old_registry_dies_when_clients_have_moved() {
                println!("it does not apply: {}", $why);
            }

            #[test]
            fn the_old_registry_dies_before_clients_have_moved() {
                println!("it does not apply: {}", $why);
            }
        })*)*
    };
}

every_registry! {
    {
    consul: Consul, then Etcd;
    etcd: Etcd, then Consul;
    kubernetes: Kubernetes, then Etcd;
    nats: Nats, then Etcd;
    zookeeper: ZooKeeper, then Etcd;
    } not {
        "no node registers there": dns file r#static;
        "there is no server that could die: each node tells of itself": mdns;
        "it is in the process, and ends with it": memory;
    }
}

// In a suite of its own, which has its server.
#[cfg(feature = "nacos")]
every_registry! { { nacos: tests::nacos::Nacos, then Etcd; } not {} }
