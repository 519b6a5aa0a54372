//! Whoever follows a service, and what it is told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use micro::{
    discovery::{Discovery, Status, Subscription, Update},
    registry::Node,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

/// Longer than anything takes here: what NATS does not hear of a node goes with its TTL.
pub const SOON: Duration = Duration::from_secs(20);

/// The nodes of one service as a subscriber has them.
#[derive(Debug)]
pub struct Following {
    _discovery: Discovery,
    subscription: Subscription,
    /// By id.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// `=COUNT`, `+ID` and `-ID`, in the order they came.
    told: Vec<String>,
}

impl Following {
    /// Of that service, from the first update on.
    ///
    /// # Panics
    /// When there is none; so all of these.
    pub async fn of(url: &str, service: &str) -> Self {
        let discovery = Discovery::open(url).expect("the URL is well-formed");
        let subscription = discovery.subscribe(service);
        let (nodes, told) = Default::default();
        let mut following = Self { _discovery: discovery, subscription, nodes, told };
        following.next().await;
        following
    }

    /// The next update, which there is to be.
    ///
    /// # Panics
    /// When there is none, or it makes no sense.
    pub async fn next(&mut self) -> Update {
        let next = timeout(SOON, self.subscription.next()).await;
        let update = next.unwrap_or_else(|_| panic!("nothing after {:?}", self.told));
        let update = update.expect("it is endless");
        self.told.push(match &update {
            Update::Reset(nodes) => {
                self.nodes = nodes.iter().map(|node| (node.id.clone(), node.clone())).collect();
                format!("={}", nodes.len())
            }
            Update::Insert(node) => {
                self.nodes.insert(node.id.clone(), node.clone());
                format!("+{}", node.id)
            }
            Update::Remove(id) => {
                assert!(self.nodes.remove(&**id).is_some(), "{id} was not there to go");
                format!("-{id}")
            }
            Update::Forget => panic!("there is no bound"),
        });
        update
    }

    /// Holds what comes next to this.
    ///
    /// # Panics
    /// When it is something else.
    pub async fn tells(&mut self, updates: &[String]) {
        self.told.clear();
        while self.told.len() < updates.len() {
            self.next().await;
        }
        assert_eq!(self.told, updates);
    }

    /// Waits for such a status.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn status(&self, is: impl Fn(&Status) -> bool) {
        let mut status = self.subscription.status();
        let waited = timeout(SOON, status.wait_for(|status| is(status))).await.is_ok();
        assert!(waited, "{:?}", self.subscription.status().borrow());
    }

    /// Waits until so many records are left out.
    ///
    /// # Panics
    /// When that does not come.
    pub async fn malformed(&self, count: usize) {
        self.status(|status| status.malformed == count).await;
    }

    /// Nothing is told for a while.
    ///
    /// # Panics
    /// When something is.
    pub async fn is_told_nothing(&mut self) {
        let next = timeout(Duration::from_secs(2), self.subscription.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
}

/// How [`Following::tells`] names the coming of this node.
pub fn is_there(node: &Node) -> String {
    format!("+{}", node.id)
}

/// And its end.
pub fn is_gone(node: &Node) -> String {
    format!("-{}", node.id)
}
