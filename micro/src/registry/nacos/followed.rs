//! What is followed through a connection, and what Nacos knows of that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use nacos_sdk::api::naming::{NamingChangeEvent, NamingEventListener};
use tokio::{sync::watch, time::Instant};

use super::{
    connection::{Connection, until_done},
    failure::Failure,
};

#[derive(Debug)]
pub(super) struct Followed {
    connection: Arc<Connection>,
    subscriptions: Mutex<HashMap<String, Subscription>>,
}

/// Of one service. Its followers come and go while Nacos is asked, of which there is one at a time: it
/// asks until Nacos knows how things are by then.
#[derive(Debug)]
struct Subscription {
    listener: Arc<Listener>,
    followers: usize,
    is_asking: bool,
    /// What Nacos knows, as far as the SDK tells: it throws away what comes of subscribing, and so
    /// `Some(true)` may be wrong. None if that is not known.
    is_subscribed: Option<bool>,
}

#[derive(Debug)]
struct Listener(watch::Sender<()>);

impl NamingEventListener for Listener {
    fn event(&self, _: Arc<NamingChangeEvent>) {
        self.0.send_replace(());
    }
}

impl Subscription {
    fn new() -> Self {
        Self {
            listener: Arc::new(Listener(watch::Sender::new(()))),
            followers: 0,
            is_asking: false,
            is_subscribed: Some(false),
        }
    }

    /// What to ask of Nacos, if anything: to subscribe, or to end that.
    fn begin(&mut self) -> Option<bool> {
        let is_wanted = self.followers > 0;
        if self.is_asking || self.is_subscribed == Some(is_wanted) {
            return None;
        }
        self.is_asking = true;
        Some(is_wanted)
    }

    /// It was asked, and done if Nacos is known to have it.
    fn end(&mut self, asked: bool, is_done: bool) {
        self.is_asking = false;
        self.is_subscribed = is_done.then_some(asked);
        if is_done && asked {
            // Who came meanwhile did not wait, and may have read too early.
            self.listener.0.send_replace(());
        }
    }

    fn is_over(&self) -> bool {
        self.followers == 0 && self.is_subscribed == Some(false) && !self.is_asking
    }
}

impl Followed {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, subscriptions: Mutex::default() }
    }

    /// Has Nacos tell of changes of these services, for as long as what this returns is held.
    pub(super) async fn follow(
        self: &Arc<Self>,
        services: &[String],
        deadline: Instant,
    ) -> Result<Follower, Failure> {
        let mut follower = Follower { followed: self.clone(), told: Vec::new() };
        for service in services {
            let told = {
                let mut subscriptions = self.subscriptions();
                let subscription =
                    subscriptions.entry(service.clone()).or_insert_with(Subscription::new);
                subscription.followers += 1;
                subscription.listener.0.subscribe()
            };
            follower.told.push((service.clone(), told));
            self.settle(service, deadline).await?;
        }
        // It reads from now on.
        follower.told.iter_mut().for_each(|(_, told)| told.mark_unchanged());
        Ok(follower)
    }

    /// Has Nacos know whether a service is followed, unless another sees to that. No lock is held while
    /// it is asked: others come and go meanwhile.
    async fn settle(&self, service: &str, deadline: Instant) -> Result<(), Failure> {
        loop {
            let (asked, listener) = {
                let mut subscriptions = self.subscriptions();
                let Some(subscription) = subscriptions.get_mut(service) else { return Ok(()) };
                let Some(asked) = subscription.begin() else { return Ok(()) };
                (asked, subscription.listener.clone())
            };
            let mut asking = Asking { followed: self, service, asked, is_done: false };
            let answer = match asked {
                true => self.connection.subscribe(service, listener, deadline).await,
                false => self.connection.unsubscribe(service, listener, deadline).await,
            };
            asking.is_done = answer.is_ok();
            drop(asking);
            answer?;
        }
    }

    fn subscriptions(&self) -> MutexGuard<'_, HashMap<String, Subscription>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nacos is being asked. Dropped, it is not, also if nobody waits for the answer.
struct Asking<'a> {
    followed: &'a Followed,
    service: &'a str,
    asked: bool,
    is_done: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut subscriptions = self.followed.subscriptions();
        if let Some(subscription) = subscriptions.get_mut(self.service) {
            subscription.end(self.asked, self.is_done);
            if subscription.is_over() {
                subscriptions.remove(self.service);
            }
        }
    }
}

/// One who follows services. Dropped, it does not.
#[derive(Debug)]
pub(super) struct Follower {
    followed: Arc<Followed>,
    told: Vec<(String, watch::Receiver<()>)>,
}

impl Follower {
    /// Ends when there may have been a change since it ended last.
    pub(super) async fn changed(&mut self) {
        let mut told: FuturesUnordered<_> =
            self.told.iter_mut().map(|(_, told)| told.changed()).collect();
        let _ = told.next().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let services: Vec<_> = self.told.drain(..).map(|(service, _)| service).collect();
        {
            let mut subscriptions = self.followed.subscriptions();
            for service in &services {
                if let Some(subscription) = subscriptions.get_mut(service) {
                    subscription.followers -= 1;
                }
            }
        }
        // Without a runtime the process is about to end, and the connection with it.
        let Some(runtime) = self.followed.connection.runtime() else { return };
        let followed = self.followed.clone();
        runtime.spawn(async move {
            for service in services {
                until_done(|deadline| followed.settle(&service, deadline)).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nacos_is_asked_once_and_until_it_knows_how_things_are() {
        let mut it = Subscription::new();
        assert!(it.begin().is_none() && it.is_over());
        it.followers = 1;
        assert_eq!(it.begin(), Some(true));
        it.followers = 2;
        assert_eq!(it.begin(), None, "it is being asked");
        let mut second = it.listener.0.subscribe();
        it.end(true, true);
        assert!(second.has_changed().unwrap(), "who came meanwhile reads once more");
        second.mark_unchanged();
        assert_eq!(it.begin(), None, "Nacos knows");

        it.followers = 0;
        assert_eq!(it.begin(), Some(false));
        it.followers = 1;
        it.end(false, true);
        assert!(!it.is_over() && !second.has_changed().unwrap());
        assert_eq!(it.begin(), Some(true), "the later one counts");
        it.end(true, false);
        assert_eq!(it.begin(), Some(true), "nobody knows whether that was done");
        it.followers = 0;
        it.end(true, false);
        assert!(!it.is_over(), "it may be subscribed to");
        assert_eq!(it.begin(), Some(false));
        it.end(false, true);
        assert!(it.is_over());
    }
}
