//! Instances in Nacos, written by HTTP.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use micro::{registry::Node, testing::registry::Cannot};
use tokio::{sync::Mutex, task::JoinHandle, time::sleep};

use super::Raw;
use crate::{
    fault::Server,
    nacos::{self, Nacos},
};

/// A registry in Nacos.
#[derive(Debug)]
pub struct InNacos {
    hand: Arc<Mutex<Hand>>,
    renewing: JoinHandle<()>,
    nacos: Nacos,
}

/// What is not written again within 15 s is unhealthy.
const AGAIN: Duration = Duration::from_secs(4);

impl Raw for InNacos {
    const CANNOT: &'static [(&'static str, &'static str)] = &[
        (
            "two_records_of_one_address_are_one_node",
            "Nacos has one record an address: the later is in the earlier's place",
        ),
        (
            "a_record_written_again_as_it_was_is_told",
            "Nacos has no revisions: a read that finds what was there before finds no change",
        ),
    ];

    const TELLS_EVERY_CHANGE: bool = false;

    async fn serving() -> Self {
        let nacos = Nacos::start().await;
        let hand = Hand { nacos: nacos.main_address(), last: 0, stand: BTreeMap::new() };
        let hand = Arc::new(Mutex::new(hand));
        let renewing = tokio::spawn({
            let hand = hand.clone();
            async move {
                loop {
                    sleep(AGAIN).await;
                    hand.lock().await.write_all().await;
                }
            }
        });
        Self { hand, renewing, nacos }
    }

    fn address(&self) -> String {
        self.nacos.grpc_address()
    }

    fn url_at(&self, address: &str) -> String {
        self.nacos.url_at(address)
    }

    async fn put(&self, node: &Node) {
        let mut hand = self.hand.lock().await;
        let earlier = hand.address_of(&node.service, &node.id);
        hand.write(node, None).await;
        if let Some(earlier) = earlier.filter(|earlier| *earlier != node.address) {
            self.delete(&mut hand, &node.service, earlier).await;
        }
    }

    async fn take(&self, node: &Node) {
        self.delete_raw(&node.service, &node.id).await;
    }

    async fn put_all(&self, nodes: &[Node]) {
        for node in nodes {
            self.put(node).await;
        }
    }

    async fn take_all(&self, nodes: &[Node]) {
        for node in nodes {
            self.take(node).await;
        }
    }

    /// At its address, where another node would be.
    async fn put_in(&self, _place: &str, node: &Node) -> Result<(), Cannot> {
        self.hand.lock().await.write(node, None).await;
        Ok(())
    }

    async fn take_from(&self, _place: &str, node: &Node) -> Result<(), Cannot> {
        self.delete(&mut *self.hand.lock().await, &node.service, node.address.clone()).await;
        Ok(())
    }

    async fn put_beside(&self, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Where the lease would be: all else in Nacos's metadata may be any text.
    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String> {
        let last = id.bytes().last().expect("an id");
        let node = Node::new(service, id, format!("10.9.0.{last}:9"));
        self.hand.lock().await.write(&node, Some(text)).await;
        Some(format!("{service}/{}", node.address))
    }

    async fn delete_raw(&self, service: &str, id: &str) {
        let mut hand = self.hand.lock().await;
        let address = hand.address_of(service, id).expect("it was written");
        self.delete(&mut hand, service, address).await;
    }
}

impl InNacos {
    async fn delete(&self, hand: &mut Hand, service: &str, address: String) {
        self.nacos.delete_instance(service, &address).await;
        hand.stand.remove(&(service.to_owned(), address));
    }
}

impl Drop for InNacos {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Writes, and again and again what it wrote.
#[derive(Debug)]
struct Hand {
    /// Its main address.
    nacos: String,
    /// The last lease: of two with one id, the later is in force.
    last: u64,
    /// By service and address, as Nacos has them, with what is in place of a lease.
    stand: BTreeMap<(String, String), (Node, String)>,
}

impl Hand {
    async fn write(&mut self, node: &Node, lease: Option<&str>) {
        self.last += 1;
        let lease = lease.map_or_else(|| self.last.to_string(), str::to_owned);
        let key = (node.service.clone(), node.address.clone());
        // rnacos gives what is new at an address the metadata that somebody wrote there before: it is
        // out of service until it has its own.
        if !self.stand.contains_key(&key) {
            self.put(node, &lease, "false").await;
        }
        self.put(node, &lease, "true").await;
        self.stand.insert(key, (node.clone(), lease));
    }

    async fn write_all(&self) {
        for (node, lease) in self.stand.values() {
            self.put(node, lease, "true").await;
        }
    }

    async fn put(&self, node: &Node, lease: &str, enabled: &str) {
        let fields = [("ephemeral", "true"), ("enabled", enabled)];
        nacos::put(&self.nacos, node, &fields, &[("micro-lease", lease)]).await;
    }

    /// Where the node of this id stands.
    fn address_of(&self, service: &str, id: &str) -> Option<String> {
        let mut all = self.stand.values().map(|(node, _)| node);
        all.find(|node| node.service == service && node.id == id).map(|node| node.address.clone())
    }
}
