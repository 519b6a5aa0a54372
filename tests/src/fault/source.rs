//! What may happen to a registry in which nodes do not write themselves, whichever it is.

use std::time::Duration;

use micro::{Client, Handle};
use tokio::time::sleep;

use super::Cannot;
use crate::{
    ports,
    proto::echo::{EchoClient, SayRequest},
    unregistered::{Callers, node},
};

/// How long something is gone, if it is not silent.
pub const AWAY_FOR_A_MOMENT: Duration = Duration::from_secs(5);

/// How long it is silent or slow: longer than a TTL.
pub const AWAY: Duration = Duration::from_secs(20);

/// One longest wait between attempts, 3 s, and a second for the attempt: as the guide has it for a file
/// that is mended and a name server that is back. A DNS record's TTL of 1 s comes on top.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3 + 1 + 1);

/// Where somebody else is the registry, and lists nodes.
#[allow(async_fn_in_trait, reason = "the faults are generic, and no future leaves its test")]
pub trait Source: Sized {
    /// The network that its nodes are in: the hosts from `.2` to `.5`, and `.9`, where none is.
    const NETWORK: &'static str = "127.0.0";

    /// One that lists nothing yet, with a way to it that the fault can be done to. Nodes are at
    /// these addresses, or will be.
    async fn new(fault: &str, addresses: &[String]) -> Self;

    /// The registry's URL.
    fn url(&self) -> String;

    /// A node at this address.
    async fn node(&self, address: &str) -> Handle {
        node(address).await
    }

    /// Lists these nodes and no others.
    async fn list(&mut self, addresses: &[String]);

    /// Does a fault to what lists these nodes, and ends it.
    async fn strike(&mut self, fault: &str, listed: &[String]) -> Result<(), Cannot>;
}

/// Does a fault while calls go on: none may fail, and nodes are followed again afterwards.
///
/// # Errors
/// When it cannot be done.
///
/// # Panics
/// When a call fails.
pub async fn bear<S: Source>(fault: &str) -> Result<(), Cannot> {
    let port = ports::free();
    let address = |host| format!("{}.{host}:{port}", S::NETWORK);
    let addresses: Vec<_> = (2..=5).map(address).collect();
    let (listed, next) = addresses.split_at(3);
    let mut source = S::new(fault, &addresses).await;
    let mut nodes = Vec::new();
    for address in listed {
        nodes.push(source.node(address).await);
    }
    if fault == "down_at_the_start" {
        let client = Client::builder().without_env().registry(source.url()).build().unwrap();
        let echo = EchoClient::new("echo", &client);
        let say = async |patience| {
            let request = SayRequest { payload: "hi".into() };
            echo.say(request).timeout(patience).await
        };
        if say(Duration::from_secs(1)).await.is_ok() {
            return Err(Cannot);
        }
        source.list(listed).await;
        say(FOLLOWED_WITHIN)
            .await
            .expect("a call that waits is answered once the registry is there");
    } else {
        source.list(listed).await;
    }
    let callers = Callers::start(&source.url()).await;
    sleep(Duration::from_secs(1)).await;
    if fault != "down_at_the_start" {
        source.strike(fault, listed).await?;
    }
    // Whoever does not follow has no node left.
    let _next = source.node(&next[0]).await;
    source.list(next).await;
    sleep(FOLLOWED_WITHIN).await;
    for node in nodes {
        node.stop().await.expect("it leaves");
    }
    sleep(Duration::from_secs(1)).await;
    callers.finish().await;
    Ok(())
}

/// The nodes as they were before: one that is gone is among them, and one that came is not.
pub fn older(listed: &[String]) -> Vec<String> {
    let [first, second, third] = listed else { panic!("three nodes") };
    vec![first.clone(), second.clone(), third.replace(".4:", ".9:")]
}
