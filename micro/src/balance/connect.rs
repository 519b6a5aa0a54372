//! The seam to `transport`: what the driver asks of connections. Tests script it.

use tokio::sync::watch;

use crate::transport;

/// Makes connections, and says when each stops being one to pick.
pub(crate) trait Connect: Clone + Send + 'static {
    /// A connection: cheap to clone, and gone when closed.
    type Connection: Clone + Send + Sync + 'static;

    /// Connects to `host:port`, within a bounded time; the error is for people and names the
    /// address. `previous` is the last connection to it, if there was one.
    fn connect(
        self,
        address: String,
        previous: Option<Self::Connection>,
    ) -> impl Future<Output = Result<Self::Connection, String>> + Send;

    /// Waits until the connection takes no new calls.
    fn ended(connection: Self::Connection) -> impl Future<Output = Ended> + Send;

    /// Gives the connection up: no new calls, and those under way finish.
    fn close(connection: &Self::Connection);
}

/// Why a connection takes no new calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// GOAWAY: the calls under way may finish.
    Draining,
    /// It is gone, for this reason.
    Closed(String),
}

/// The real one.
#[derive(Debug, Clone)]
pub(super) struct Transport(pub(super) transport::Config);

impl Connect for Transport {
    type Connection = transport::Connection;

    async fn connect(
        mut self,
        address: String,
        previous: Option<Self::Connection>,
    ) -> Result<Self::Connection, String> {
        if let Some(previous) = previous {
            // A peer that found the PINGs too many gets fewer.
            self.0.ping_after = previous.ping_after();
        }
        let connecting = transport::connect(&address, &self.0).await;
        connecting.map_err(|error| error.to_string())
    }

    async fn ended(connection: Self::Connection) -> Ended {
        let mut state = connection.state();
        // Held no longer than needed: what watches a connection must not keep it open.
        drop(connection);
        ended(&mut state).await
    }

    fn close(connection: &Self::Connection) {
        connection.close();
    }
}

async fn ended(state: &mut watch::Receiver<transport::ConnectionState>) -> Ended {
    use transport::ConnectionState::{Closed, Draining, Open};
    let state = state.wait_for(|state| !matches!(state, Open)).await;
    match state.as_deref() {
        Ok(Draining) => Ended::Draining,
        Ok(Closed(reason)) => Ended::Closed(reason.to_string()),
        Ok(Open) | Err(_) => Ended::Closed("the connection's task ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use transport::ConnectionState::{Closed, Draining, Open};

    #[tokio::test]
    async fn a_connection_ends_for_new_calls_when_it_drains_or_closes() {
        for (state, expected) in [
            (Draining, Ended::Draining),
            (Closed("a dead PING".into()), Ended::Closed("a dead PING".to_owned())),
        ] {
            let sender = watch::Sender::new(Open);
            let mut receiver = sender.subscribe();
            let waiting = ended(&mut receiver);
            sender.send_replace(state);
            assert_eq!(waiting.await, expected);
        }
    }

    #[tokio::test]
    async fn a_connection_whose_task_is_gone_is_closed() {
        let (sender, mut receiver) = watch::channel(Open);
        drop(sender);
        assert!(matches!(ended(&mut receiver).await, Ended::Closed(_)));
    }
}
