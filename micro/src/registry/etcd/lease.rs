//! The keep-alive streams: one a lease, all on the connection that the registry is using.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::Instant;

use super::{super::Lease, members::Connection};

#[derive(Debug, Default)]
pub(super) struct KeepAlives(Mutex<HashMap<Lease, Held>>);

/// How long a stream is kept without a renewal: a lease that was dropped without a word must not
/// keep it for ever. One renewed less often is none the worse for a new stream.
const KEPT: Duration = Duration::from_secs(600);

/// A stream between two renewals. During one it is taken out, so that a renewal given up midway
/// takes its stream along and no answer is ever left over for the next.
#[derive(Debug)]
struct Held {
    connection: u64,
    keeper: LeaseKeeper,
    stream: LeaseKeepAliveStream,
    since: Instant,
}

impl KeepAlives {
    /// Extends the lease; false if etcd has none such any more.
    pub(super) async fn renew(&self, connection: &Connection, lease: Lease) -> Result<bool, Error> {
        let held = self.held().remove(&lease).filter(|held| held.connection == connection.id);
        let (keeper, stream) = match held {
            Some(Held { mut keeper, mut stream, .. }) => {
                keeper.keep_alive().await?;
                let Some(answer) = stream.message().await? else {
                    return Err(Error::LeaseKeepAliveError("the stream ended".to_owned()));
                };
                if answer.ttl() <= 0 {
                    return Ok(false);
                }
                (keeper, stream)
            }
            // Opens a stream, sends the first request on it and reads the answer.
            None => match connection.client.lease_client().keep_alive(lease.0).await {
                Ok(opened) => opened,
                Err(Error::LeaseKeepAliveError(why)) if why == "lease not found" => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            },
        };
        let since = Instant::now();
        let mut held = self.held();
        held.retain(|_, held| held.since + KEPT > since);
        held.insert(lease, Held { connection: connection.id, keeper, stream, since });
        Ok(true)
    }

    pub(super) fn forget(&self, lease: Lease) {
        self.held().remove(&lease);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Lease, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
