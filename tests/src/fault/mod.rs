//! The fault suite's parts: node processes that faults are done to ([`Fleet`]), the callers that
//! must not notice ([`Callers`]), and the [`Audit`] that joins both sides' logs.
//!
//! Every call carries an id. A node writes each id that a handler is given into its journal, before
//! anything else, straight to a file, so that SIGKILL takes nothing with it. A caller keeps each
//! call's outcome. What was promised about a call can then be checked id by id.

mod audit;
mod caller;
mod crowd;
mod fleet;
mod garbage;
mod given_up;
mod grpc_go;
mod journal;
mod of_certificates;
mod of_node;
mod of_records;
mod of_server;
mod refusing;
mod report;
mod rogue;
mod server;
mod silent;
mod source;
mod stand_in;
mod table;
mod tonic_tls;
mod trial;
mod unaccepting;

pub use audit::{Audit, Fault};
pub use caller::{Call, Callers, DEADLINE, Hedged, Ledger, Method, Who};
pub use crowd::crowd;
pub use fleet::{Fleet, SERVICE, TTL, free_address, until};
pub use garbage::{Garbage, noise};
pub use given_up::{
    FIRST_GIVEN_UP, Follower, GIVEN_UP, give_up, give_up_beside_callers, slow_fleet,
};
pub use journal::{Following, Journal, Visit};
pub use of_certificates::CertificateFault;
pub use of_node::{NodeFault, PAUSE};
pub use of_records::RecordsFault;
pub use of_server::ServerFault;
pub use report::{Line, record};
pub use rogue::{Rogue, Rule};
pub use server::{Cannot, Server};
pub use silent::Silent;
pub use source::{AWAY, AWAY_FOR_A_MOMENT, Source, bear, older, with_option};
pub use table::judge;
pub use trial::{CALLERS, CALLS, Trial, Verdict};
pub use unaccepting::Unaccepting;

use std::time::{Duration, SystemTime};

use micro::{Client, balance::NodeReport};
use tokio::time::interval;

/// The time since the Unix epoch: the clock that callers and nodes, on one machine, share.
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970")
}

/// What the client says of this node, if it knows it.
///
/// # Panics
/// Once the client's runtime has shut down.
pub async fn told(client: &Client, node: &str) -> Option<NodeReport> {
    let explained = client.channel(SERVICE).explain().await.expect("the runtime is ours");
    explained.nodes.into_iter().find(|it| it.node.id == node)
}

/// Has something go and come again, 100 times a second for 5 s.
pub async fn flap(mut is_there: impl AsyncFnMut(bool)) {
    let mut ticks = interval(Duration::from_millis(5));
    for _ in 0..500 {
        for it in [false, true] {
            ticks.tick().await;
            is_there(it).await;
        }
    }
}
