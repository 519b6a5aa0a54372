//! Registers a node and renews it until it is killed: `registry-owner URL SERVICE ID TTL_SECONDS
//! [ADDRESS]`. Prints `registered` once it is.

use std::{env, error::Error, time::Duration};

use micro::registry::{self, Node};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (url, service, id, ttl, address) = match &arguments[..] {
        [url, service, id, ttl] => (url, service, id, ttl, "127.0.0.1:1"),
        [url, service, id, ttl, address] => (url, service, id, ttl, address.as_str()),
        _ => return Err("usage: registry-owner URL SERVICE ID TTL_SECONDS [ADDRESS]".into()),
    };
    let ttl = Duration::from_secs(ttl.parse()?);
    let registry = registry::open(url)?;
    let node = Node::new(service, id, address);
    let lease = registry.register(&node, ttl).await?;
    println!("registered");
    loop {
        tokio::time::sleep(ttl / 3).await;
        registry.renew(&node, lease).await.map_err(|error| format!("{error:?}"))?;
    }
}
