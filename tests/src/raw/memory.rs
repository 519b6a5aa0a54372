//! What is registered within this process.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use micro::{registry::Node, testing::registry::Cannot};

use super::{Odd, Raw, owner::Owner};

/// A registry of this process, which has no other hand than registration.
#[derive(Debug)]
pub struct InMemory {
    url: String,
    owner: Owner,
}

/// Longer than any test.
const TTL: Duration = Duration::from_secs(3600);

/// Of all that is odd.
const NO_TEXT: &str = "it holds nodes, and no text that could be odd";

impl Raw for InMemory {
    const CANNOT: &'static [(&'static str, &'static str)] = &[
        (
            "a_watch_cut_50_times_neither_loses_nor_doubles",
            "it is in the process: there is no connection",
        ),
        ("an_empty_value_is_left_out", NO_TEXT),
        ("broken_json_is_left_out", NO_TEXT),
        ("json_of_a_wrong_type_is_left_out", NO_TEXT),
        ("overlong_garbage_is_left_out", NO_TEXT),
        ("a_duplicate_id_is_one_node", "a second record of an id takes the place of the first"),
    ];
    const IS_CONNECTED: bool = false;
    const ODD: Odd = Odd::Impossible;

    async fn serving() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let url = format!("memory://data-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { owner: Owner::new(&url, TTL), url }
    }

    fn address(&self) -> String {
        String::new()
    }

    fn url_at(&self, _address: &str) -> String {
        self.url.clone()
    }

    async fn put(&self, node: &Node) {
        self.owner.register(node).await;
    }

    async fn take(&self, node: &Node) {
        self.owner.deregister(node).await;
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

    async fn put_in(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn take_from(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn write_raw(&self, _service: &str, _id: &str, _text: &str) -> Option<String> {
        unreachable!("{NO_TEXT}")
    }

    async fn delete_raw(&self, _service: &str, _id: &str) {
        unreachable!("{NO_TEXT}")
    }
}
