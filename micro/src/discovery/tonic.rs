//! The same nodes beneath tonic's own balanced channel.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::sync::mpsc::{Sender, error::SendError};
use tonic::transport::{Channel, Endpoint, channel::Change as TonicChange};
use tower::discover::Change;
use tracing::warn;

use super::{Discover, Subscription};
use crate::registry::Node;

/// How long a connection may take to be made, as on our own channel (there: until the peer has
/// shown that it speaks HTTP/2; here: until TCP is connected).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many changes wait in tonic's queue; more wait in ours, where they collapse.
const CHANGES: usize = 64;

/// tonic's own load-balanced channel over the nodes of a service: for code that needs a
/// `tonic::transport::Channel` by its type.
///
/// The micro channel takes any tonic-generated client too, and is the better choice. What tonic's
/// balancer does, all measured with tonic 0.14:
///
/// - While no node is known, a call waits for ever, even one with a deadline: tonic's deadlines lie
///   beneath the balancer.
/// - A node that refuses connections is still picked: with 1 of 3 refusing, a quarter of sequential
///   calls fail for as long as it is registered.
/// - A node that accepts TCP and then stays silent takes in every caller that picks it: with 1 of 3
///   silent, 16 callers stand still after some 45 calls. No connect timeout helps.
/// - Nodes are picked at random: its load estimate is constantly 0.
/// - Changes are taken in only while calls are made. A channel that was idle meets its first call
///   with the nodes of its last.
/// - A call that a leaving node refused is not tried elsewhere; failures carry tonic's codes, where
///   "not ready" is `Unknown`.
///
/// A node whose address changes is connected anew, one whose record changes otherwise is not. The
/// subscription ends with the last clone of the channel.
///
/// # Panics
/// Outside a tokio runtime.
pub fn tonic_channel(updates: Subscription) -> Channel {
    let (channel, changes) = Channel::balance_channel(CHANGES);
    tokio::spawn(forward(updates.into_discover(), changes));
    channel
}

pub(super) async fn forward(nodes: Discover, changes: Sender<TonicChange<Arc<str>, Endpoint>>) {
    let mut nodes = pin!(nodes);
    let mut addresses = HashMap::new();
    loop {
        let change = tokio::select! {
            biased;
            () = changes.closed() => return,
            change = nodes.next() => change,
        };
        let Some(Ok(change)) = change else { return };
        if pass_on(change, &mut addresses, &changes).await.is_err() {
            return;
        }
    }
}

async fn pass_on(
    change: Change<Arc<str>, Arc<Node>>,
    addresses: &mut HashMap<Arc<str>, String>,
    changes: &Sender<TonicChange<Arc<str>, Endpoint>>,
) -> Result<(), SendError<TonicChange<Arc<str>, Endpoint>>> {
    let (id, node) = match change {
        Change::Insert(id, node) => (id, Some(node)),
        Change::Remove(id) => (id, None),
    };
    let address = node.as_ref().map(|node| &node.address);
    if addresses.get(&id) == address {
        return Ok(());
    }
    // An insert alone would leave the old connection in use until the new one stands.
    if addresses.remove(&id).is_some() {
        changes.send(TonicChange::Remove(id.clone())).await?;
    }
    let Some(address) = address else {
        return Ok(());
    };
    match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => {
            addresses.insert(id.clone(), address.clone());
            let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
            changes.send(TonicChange::Insert(id, endpoint)).await?;
        }
        Err(error) => warn!(node = &*id, address, "discovery: no address for a channel: {error}"),
    }
    Ok(())
}
