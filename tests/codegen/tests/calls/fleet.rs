//! One node and one client, in a registry of their own.

use micro::{Client, Handle, Server, Service};

/// The name under which the node is registered.
pub(super) const NAME: &str = "codegen";

/// A running node; `stop` it at the end.
pub(super) struct Fleet {
    pub(super) client: Client,
    handle: Handle,
}

impl Fleet {
    /// Starts a node with the handlers that `register` puts on it. `test` names the registry.
    pub(super) async fn start(test: &str, register: impl FnOnce(&mut Server)) -> Self {
        let registry = format!("memory://{test}");
        let mut service =
            Service::builder(NAME).without_env().registry(&registry).build().await.unwrap();
        register(service.server());
        let handle = service.start().await.unwrap();
        let client = Client::builder().without_env().registry(&registry).build().unwrap();
        Self { client, handle }
    }

    pub(super) async fn stop(self) {
        drop(self.client);
        self.handle.stop().await.expect("a clean exit");
    }
}

/// Everything that a stream yields.
pub(super) async fn all<T>(mut stream: micro::Streaming<T>) -> Vec<T> {
    let mut items = Vec::new();
    while let Some(item) = stream.message().await.unwrap() {
        items.push(item);
    }
    items
}
