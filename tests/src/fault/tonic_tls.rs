//! tonic's own balanced channel over TLS, which [`tonic_channel`](micro::discovery::tonic_channel) is not.

use std::{fs, path::Path, pin::pin, sync::Arc, time::Duration};

use micro::discovery::Subscription;
use tokio_stream::StreamExt as _;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, channel::Change as TonicChange,
};
use tower::discover::Change;

/// Over the nodes of the subscription, with `ca`, `cert`, `key` and `name` of this folder as they are now:
/// its `Endpoint` takes them once.
///
/// # Panics
/// When one is missing.
pub(super) fn channel(nodes: Subscription, folder: &Path) -> Channel {
    let [ca, cert, key, name] = ["ca", "cert", "key", "name"]
        .map(|name| fs::read_to_string(folder.join(name)).expect("the folder has it"));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(cert, key))
        .domain_name(name);
    let (channel, changes) = Channel::balance_channel::<Arc<str>>(64);
    tokio::spawn(async move {
        let mut nodes = pin!(nodes.into_discover());
        while let Some(Ok(change)) = nodes.next().await {
            let change = match change {
                Change::Insert(id, node) => {
                    let endpoint = Endpoint::from_shared(format!("https://{}", node.address));
                    let endpoint = endpoint.and_then(|it| it.tls_config(tls.clone()));
                    let endpoint = endpoint.expect("an address, and good files");
                    TonicChange::Insert(id, endpoint.connect_timeout(Duration::from_secs(1)))
                }
                Change::Remove(id) => TonicChange::Remove(id),
            };
            // Its receiver goes with the channel.
            if changes.send(change).await.is_err() {
                return;
            }
        }
    });
    channel
}
