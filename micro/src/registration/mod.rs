//! Keeps this process's own node in the registry for as long as it serves.
//!
//! A [`Service`](crate::Service) does it by itself, and
//! [`Handle::registration`](crate::Handle::registration) tells where it stands, as a
//! [`RegistrationState`]: a test waits for `Registered` before it calls. What serves by other means
//! than micro's server is registered with [`Registration::start`], once it listens.

// `State` decides (a machine without IO: events in, notes and one piece of work out), the driver
// does. This room knows the registry and one node; it knows nothing of listeners, calls or other
// nodes.

use std::{error::Error as StdError, fmt, iter::repeat_n, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use self::states::{Report, States};
use crate::{
    Error,
    registry::{BoxFuture, Node, Registry},
};

mod driver;
mod state;
mod states;
#[cfg(test)]
mod tests;

/// Where a node's registration stands.
///
/// ```text
/// Idle -> Registering -> Registered -> (Lost -> Registering)* -> Leaving -> Gone
///              \-> ReadOnly
/// ```
///
/// A failing [`Check`] leads from anywhere back to `Idle`, [`Registration::leave`] from anywhere
/// to `Leaving`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not in the registry and not trying to be: the check has not passed yet, or fails now.
    Idle,
    /// Being written into the registry, for as long as that takes: attempts never end.
    Registering,
    /// In the registry. Stays so while the registry does not answer: the record may well stand.
    Registered,
    /// The record does not stand any more: the lease is gone, the key was deleted or overwritten.
    /// `Registering` follows at once, so that this state is rarely seen in a watch.
    Lost,
    /// The registry only reads, as `static://` does: there is nothing to write, and the node
    /// serves those who know its address.
    ReadOnly,
    /// On its way out of the registry.
    Leaving,
    /// Out for good: the last state.
    Gone,
}

impl RegistrationState {
    /// In the order of the variants.
    const NAMES: [&str; 7] =
        ["idle", "registering", "registered", "lost", "read-only", "leaving", "gone"];

    fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl fmt::Display for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Asks whether the node is fit to be found, as go-micro's `RegisterCheck` does.
///
/// An error, a panic, or no answer within the renewal interval (at most 1 s) takes the node out.
pub type Check =
    Arc<dyn Fn() -> BoxFuture<'static, Result<(), Box<dyn StdError + Send + Sync>>> + Send + Sync>;

/// A day: beyond any use, and within what clocks and registries can count.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The bound of leaving: that of a registration under way, of giving its former lease back and of
/// the removal, and a margin. It counts when a check blocks its thread, and with it the driver.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// How a node is kept in the registry.
#[derive(Clone)]
pub struct Options {
    /// How long the record stands without a renewal: 15 s unless set. A killed node is gone from
    /// the registry after this long. Less than the registry's
    /// [`min_ttl`](Registry::min_ttl), 0, and more than a day are refused.
    pub ttl: Duration,
    /// How often the record is renewed, and the check asked: a third of the TTL unless set, at
    /// most half of it; 0 is refused.
    pub interval: Duration,
    /// Asked before the node is registered and then at each interval; while it fails the node is
    /// kept out. None unless set.
    pub check: Option<Check>,
}

impl Options {
    /// Renewal at every third of the TTL, and no check.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, interval: ttl / 3, check: None }
    }

    /// Refuses what would lose the node its record.
    ///
    /// # Errors
    /// `Config` when the interval is 0 or over TTL/2 (one renewal late, or lost on its way, and the
    /// record expires), or the TTL is shorter than the registry can grant or longer than a day.
    pub fn validate(&self, registry: &dyn Registry) -> Result<(), Error> {
        let Self { ttl, interval, .. } = self;
        if *ttl < registry.min_ttl() || ttl.is_zero() {
            return Err(Error::config(format!(
                "a register TTL of {ttl:?} is too short: {} grants no less than {:?}",
                registry.name(),
                registry.min_ttl(),
            )));
        }
        if *ttl > LONGEST_TTL {
            return Err(Error::config(format!(
                "a register TTL of {ttl:?} is too long: a node that died would be found for all \
                 that time; use at most {LONGEST_TTL:?}"
            )));
        }
        if interval.is_zero() {
            return Err(Error::config("a register interval of 0 would renew without a pause"));
        }
        if *interval > *ttl / 2 {
            return Err(Error::config(format!(
                "a register interval of {interval:?} is over half the TTL of {ttl:?}: after one late \
                 renewal the record expires; use at most {:?}",
                *ttl / 2,
            )));
        }
        Ok(())
    }
}

impl Default for Options {
    /// A TTL of 15 s, renewed every 5 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(15))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("ttl", &self.ttl)
            .field("interval", &self.interval)
            .field("check", &self.check.is_some())
            .finish()
    }
}

/// A node on its way into the registry, in it, or on its way out.
///
/// Dropping it stops the renewals and no more: the record then goes with its TTL.
#[derive(Debug)]
pub struct Registration {
    state: watch::Receiver<RegistrationState>,
    /// One a registry.
    drivers: Vec<Driver>,
}

#[derive(Debug)]
struct Driver {
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<bool>,
}

impl Registration {
    /// Registers the node and keeps it registered, in a task of its own; nothing is awaited here.
    ///
    /// Attempts never end: each is bounded by 1 s (a renewal also by TTL/3), the wait between two is
    /// drawn from nothing to a ceiling that grows from 100 ms to TTL/5. The first renewal comes at any
    /// moment of the interval, so that nodes that were started together do not renew, and notice a
    /// loss, together. A record that is lost is written anew at once. Only
    /// one that another process with the same id overwrites again and again is left to it for a
    /// while: a wait with a ceiling that grows from two intervals to 4 x TTL. The options are taken
    /// as they are: see [`Options::validate`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(registry: Arc<dyn Registry>, node: Node, options: Options) -> Self {
        Self::start_in(vec![registry], node, options)
    }

    /// The same in several registries at once, each by itself: one that fails does not disturb the
    /// others. The check, if there is one, is asked for each.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_in(registries: Vec<Arc<dyn Registry>>, node: Node, options: Options) -> Self {
        let (states, state) = States::new(registries.len());
        let states = Arc::new(states);
        let each = repeat_n((node, options), registries.len());
        let start = |(index, (registry, (node, options)))| {
            let (leave, leaving) = oneshot::channel();
            let states = Report { states: states.clone(), index };
            let task = tokio::spawn(driver::drive(registry, node, options, states, leaving));
            Driver { leave: Some(leave), task }
        };
        let drivers = registries.into_iter().zip(each).enumerate().map(start).collect();
        Self { state, drivers }
    }

    /// Where the registration stands, now and from now on. A watch sees the latest state only. In
    /// several registries it is the best of the states: a node that one of them has is `Registered`.
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// Takes the node out of the registry and ends the registration. Returns whether callers may
    /// know of it: from a record that stood until now, or from a registry that only reads. They
    /// need the registry's [`spread`](Registry::spread) to hear that it is gone.
    ///
    /// A registration that is being written is awaited first, so that its record can be removed,
    /// unless the registry [undoes](Registry::undoes_dropped) it;
    /// that, giving its former lease back, and the removal are bounded by 1 s each, and all of it by
    /// 4 s where a check blocks its thread. When the registry does not answer the record goes with its TTL.
    ///
    /// # Cancel safety
    /// Dropping the future drops the registration: renewals end, the record goes with its TTL.
    pub async fn leave(mut self) -> bool {
        for driver in &mut self.drivers {
            // A driver that is gone has nothing to take out.
            let _ = driver.leave.take().map(|leave| leave.send(()));
        }
        let gone = join_all(self.drivers.iter_mut().map(|driver| &mut driver.task));
        // Of one that did not end in time nobody knows.
        let Ok(known) = timeout(LEAVE_TIMEOUT, gone).await else { return true };
        known.into_iter().any(|known| known.unwrap_or(true))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.drivers.iter().for_each(|driver| driver.task.abort());
    }
}
