//! What may happen to Kubernetes when nodes are in EndpointSlices alone, which the controller writes,
//! and no record at a pod says anything: none of it may fail a call, and nodes are followed again.
//!
//! A slice takes no address of the loopback network, so each fault is in a network namespace. The hand of
//! the controller is the test's; what a fault is to it, stands where it is done.

use std::time::Duration;

use serde_json::json;
use tests::{
    fault::{
        AWAY, AWAY_FOR_A_MOMENT, Cannot, Garbage, Server as _, Source, TTL, bear, flap, judge,
        older,
    },
    kubernetes::{Kubernetes, Namespace, Slice, Stage, endpoint},
    link::Link,
    namespace::{Network, inside},
};
use tokio::time::sleep;

/// A Service's slice, a server that has it, and a link to that.
struct InSlice {
    server: Kubernetes,
    link: Link,
    runs: bool,
    /// The registry's URL.
    url: String,
}

impl InSlice {
    /// Writes the slice, all its pods at this stage.
    async fn write(&self, addresses: &[String], stage: Stage) {
        let namespace = Namespace::open(&self.server.kubeconfig(), "default").await;
        let split = |address: &String| {
            let (host, port) = address.rsplit_once(':').expect("host and port");
            (host.to_owned(), port.parse::<u16>().expect("a port"))
        };
        let addresses: Vec<_> = addresses.iter().map(split).collect();
        let pod = |host: &str| format!("pod-{}", host.replace('.', "-"));
        let endpoints: Vec<_> =
            addresses.iter().map(|(host, _)| endpoint(&pod(host), host, stage)).collect();
        let ports = json!([{ "name": "grpc", "port": addresses[0].1 }]);
        let slice = Slice { ports, ..Slice::of(&endpoints) };
        namespace.put_slice("echo", "echo-a", &slice).await;
    }
}

impl Source for InSlice {
    const NETWORK: &'static str = "10.1.0";

    async fn new(fault: &str, _: &[String]) -> Self {
        let server = match fault {
            "down_at_the_start" => Kubernetes::stopped(),
            "credentials_expired_and_renewed" => Kubernetes::guarded().await.expect("it is"),
            _ => Kubernetes::start().await,
        };
        let link = Link::to(&server.address()).await;
        let through_link = fault.starts_with("connection_") || fault == "five_seconds_slow";
        let address = if through_link { link.address.clone() } else { server.address() };
        // Without records at pods.
        let url = server.url_at(&address);
        let (url, _) = url.split_once("&format=").expect("the fleets' own has one");
        let (runs, url) = (fault != "down_at_the_start", url.to_owned());
        Self { server, link, runs, url }
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    async fn list(&mut self, addresses: &[String]) {
        if !self.runs {
            self.server.restart().await;
            self.runs = true;
        }
        self.write(addresses, Stage::Ready).await;
    }

    fn take_away(&mut self) -> Result<(), Cannot> {
        self.server.kill();
        Ok(())
    }

    async fn bring_back(&mut self) {
        self.server.restart().await;
    }

    async fn strike(&mut self, fault: &str, listed: &[String]) -> Result<(), Cannot> {
        match fault {
            // By somebody's hand; the controller, which sees it, writes it again.
            "every_record_deleted" => {
                let namespace = Namespace::open(&self.server.kubeconfig(), "default").await;
                namespace.delete_slice("echo-a").await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.list(listed).await;
            }
            // All probes fail at once, as when their node's network does.
            "every_record_overwritten" => {
                self.write(listed, Stage::NotReady).await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.list(listed).await;
            }
            "killed_and_restarted" => {
                self.server.kill();
                sleep(AWAY_FOR_A_MOMENT).await;
                self.server.restart().await;
            }
            // The controller writes anew what the server has lost.
            "wiped" => {
                self.server.wipe().await?;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.list(listed).await;
            }
            "restored_to_an_older_state" => {
                self.list(&older(listed)).await;
                self.server.remember().await?;
                self.list(listed).await;
                self.server.go_back().await?;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.list(listed).await;
            }
            "stopped_for_three_ttls" => {
                self.server.pause();
                sleep(3 * TTL).await;
                self.server.resume();
            }
            "connection_cut" => {
                self.link.cut().await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.link.mend().await;
            }
            "connection_black_holed" => {
                self.link.silence().await;
                sleep(AWAY).await;
                self.link.mend().await;
            }
            "connection_flaps" => {
                flap(async |is_there| match is_there {
                    true => self.link.mend().await,
                    false => self.link.cut().await,
                })
                .await;
            }
            "answers_garbage" => {
                self.server.kill();
                let garbage = Garbage::at(&self.server.address()).await;
                sleep(AWAY_FOR_A_MOMENT).await;
                assert!(garbage.stop().await > 0, "nobody heard any of it");
                self.server.restart().await;
            }
            "five_seconds_slow" => {
                self.link.slow(Duration::from_secs(5)).await;
                sleep(AWAY).await;
                self.link.mend().await;
            }
            "credentials_expired_and_renewed" => {
                self.server.expire().await;
                sleep(AWAY).await;
                self.server.renew().await;
            }
            _ => return Err(Cannot),
        }
        Ok(())
    }
}

macro_rules! in_namespaces {
    (not { $($cannot:ident: $why:literal)* } => $($fault:ident)*) => {
        /// Of two tests of one name, the other of records at pods, the table tells the worse.
        mod kubernetes {
            use super::*;

            const DECLARED: &[(&str, &str)] = &[$((stringify!($cannot), $why)),*];

            $(
                #[test]
                fn $fault() {
                    inside(concat!("kubernetes::", stringify!($fault)), Network::Pods, async {
                        let ended = bear::<InSlice>(stringify!($fault)).await;
                        judge(stringify!($fault), ended, DECLARED);
                    });
                }
            )*
        }
    };
}

tests::every_fault! { in_namespaces! { not {
    every_lease_lost: "nothing expires: a slice is its Service's, and the controller's"
} } }
