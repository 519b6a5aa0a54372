//! A registry whose connections go silent and are never closed, while calls go on.

use std::time::Duration;

use tests::{
    consul::Consul,
    dead_link::DeadLink,
    etcd::Etcd,
    fault::{CALLS, Server, TTL, Trial, now},
    kubernetes::Kubernetes,
    nats::Nats,
    zookeeper::ZooKeeper,
};
use tokio::time::sleep;

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

async fn silent_for_good<S: Server>() {
    let mut server = S::stopped();
    server.restart().await;
    let link = DeadLink::to(&server.address()).await;
    let name = format!("{}: connections silent for good", S::NAME);
    let mut trial = Trial::beside_others(&name, &server.url_at(&link.address)).await;
    link.silence();
    sleep(TTL + Duration::from_secs(5)).await;
    link.mend();
    let took = trial.all_listed(now()).await;
    // The client has found out too, and follows.
    assert!(trial.fleet.terminate(0).await.success());
    trial.replace(0).await;
    trial.finish(CALLS).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after the link");
}

macro_rules! every_registry {
    ({ $($name:ident: $server:ty;)* } not { $($other:ident: $why:literal;)* }) => {
        $(mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn connections_silent_for_good() {
                silent_for_good::<$server>().await;
            }
        })*
        $(mod $other {
            #[test]
            fn connections_silent_for_good() {
                println!("connections_silent_for_good does not apply: {}", $why);
            }
        })*
    };
}

every_registry! {
    {
    consul: Consul;
    etcd: Etcd;
    kubernetes: Kubernetes;
    nats: Nats;
    zookeeper: ZooKeeper;
    } not {
        dns: "each question has a datagram or a connection of its own";
        file: "there is no connection";
        mdns: "datagrams have no connection";
        memory: "it is in the process: there is no connection";
        r#static: "its nodes are in the URL, and nobody is asked";
    }
}

// In a suite of its own, which has its server.
#[cfg(feature = "nacos")]
every_registry! { { nacos: tests::nacos::Nacos; } not {} }
