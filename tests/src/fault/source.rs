//! What may happen to a registry in which nodes do not write themselves, whichever it is.

use std::{fs, time::Duration};

use micro::{
    Client, Code, Handle, Status,
    discovery::{Discovery, Update},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

use super::{Cannot, TTL};
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

    /// Takes it away, as long as it is not brought back.
    fn take_away(&mut self) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Brings it back as it was.
    async fn bring_back(&mut self) {}

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
    if fault == "down_at_the_start_with_a_cache" {
        source.list(listed).await;
        let dir = TempDir::new().expect("a folder for the cache");
        let callers = start_from_a_cache(&mut source, listed, &dir).await?;
        return go_on(source, nodes, callers, next).await;
    }
    if fault == "away_for_longer_than_max_stale" {
        source.list(listed).await;
        let callers = forget(&mut source).await?;
        return go_on(source, nodes, callers, next).await;
    }
    if fault == "down_at_the_start" {
        let client = Client::builder().without_env().registry(source.url()).build().unwrap();
        if say(&client, Duration::from_secs(1)).await.is_ok() {
            return Err(Cannot);
        }
        source.list(listed).await;
        say(&client, FOLLOWED_WITHIN)
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
    go_on(source, nodes, callers, next).await
}

/// Whoever does not follow has no node left.
async fn go_on<S: Source>(
    mut source: S,
    nodes: Vec<Handle>,
    callers: Callers,
    next: &[String],
) -> Result<(), Cannot> {
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

/// Callers of a client from the cache that an earlier one has left, once it is fresh.
async fn start_from_a_cache<S: Source>(
    source: &mut S,
    listed: &[String],
    dir: &TempDir,
) -> Result<Callers, Cannot> {
    let file = dir.path().join("nodes.json");
    let url = with_option(&source.url(), &format!("cache={}", file.display()));
    let earlier = Client::builder().without_env().registry(&url).build().expect("a client");
    say(&earlier, TTL).await.expect("the nodes are called");
    let has_all = |text: String| listed.iter().all(|address| text.contains(address));
    let written = async {
        while !fs::read_to_string(&file).is_ok_and(has_all) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    // A list that never changes is in no cache.
    timeout(AWAY_FOR_A_MOMENT, written).await.map_err(|_| Cannot)?;
    drop(earlier);
    source.take_away()?;
    let callers = Callers::start(&url).await;
    let discovery = Discovery::open(&url).expect("a URL");
    let mut status = discovery.subscribe("echo").status();
    sleep(AWAY_FOR_A_MOMENT).await;
    assert!(status.borrow().stale.is_some(), "marked stale: {status:?}");
    source.bring_back().await;
    let fresh =
        timeout(FOLLOWED_WITHIN, status.wait_for(|status| status.stale.is_none())).await.is_ok();
    assert!(fresh, "its own word again: {status:?}");
    Ok(callers)
}

/// The nodes are given up; then callers again of a client that had none for a while.
async fn forget<S: Source>(source: &mut S) -> Result<Callers, Cannot> {
    const MAX_STALE: Duration = Duration::from_secs(3);
    let url = with_option(&source.url(), &format!("max_stale={}s", MAX_STALE.as_secs()));
    let client = Client::builder().without_env().registry(&url).build().expect("a client");
    say(&client, TTL).await.expect("the nodes are called");
    let discovery = Discovery::open(&url).expect("a URL");
    let mut subscription = discovery.subscribe("echo");
    let mut status = subscription.status();
    source.take_away()?;
    let stale = timeout(AWAY, status.wait_for(|status| status.stale.is_some())).await.is_ok();
    assert!(stale, "it is silent: {status:?}");
    let since = Instant::now();
    say(&client, Duration::from_secs(1)).await.expect("until then the nodes are called");
    let forgotten =
        async { while subscription.next().await.expect("it is endless") != Update::Forget {} };
    timeout(AWAY, forgotten).await.expect("the nodes are given up");
    let took = since.elapsed();
    assert!(took + Duration::from_millis(200) > MAX_STALE, "given up after {took:?}");
    assert!(took < MAX_STALE + Duration::from_secs(1), "given up after {took:?}");
    // The client is told of it when we are, and may have picked a node a moment before.
    let _ = say(&client, Duration::from_secs(1)).await;
    let refused = say(&client, Duration::from_secs(1)).await.expect_err("nobody is to be called");
    let text = refused.message();
    assert!(refused.code() == Code::Unavailable && text.contains("max_stale"), "{refused}");
    source.bring_back().await;
    say(&client, FOLLOWED_WITHIN).await.expect("the nodes are back, and called");
    assert!(status.borrow().stale.is_none() && status.borrow().error.is_none(), "{status:?}");
    Ok(Callers::start(&url).await)
}

async fn say(client: &Client, patience: Duration) -> Result<(), Status> {
    let request = SayRequest { payload: "hi".into() };
    EchoClient::new("echo", client).say(request).timeout(patience).await.map(drop)
}

/// A registry's URL with one more option.
pub fn with_option(url: &str, option: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{option}")
}

/// The nodes as they were before: one that is gone is among them, and one that came is not.
pub fn older(listed: &[String]) -> Vec<String> {
    let [first, second, third] = listed else { panic!("three nodes") };
    vec![first.clone(), second.clone(), third.replace(".4:", ".9:")]
}
