//! What may happen, to whom and for how long is chosen when it does.

use std::{fmt, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    etcd::Etcd,
    fault::{NodeFault, Trial},
};

/// One thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// A fault of a node's, as in the table; one that is bad stays for 3 to 8 s, then a good one comes
    /// in its place.
    Node(NodeFault),
    /// A node leaves, and one on another address comes.
    Replaced,
    /// The registry is killed, and started again after up to 8 s.
    RegistryKilled,
    /// It is stopped and goes on, again and again for a second.
    RegistryFlaps,
    /// It is stopped for up to 20 s: longer than a TTL.
    RegistryStopped,
    /// It loses all that it holds.
    RegistryWiped,
    /// A node is killed while the registry does not answer, and comes back after it.
    KilledWithoutRegistry,
}

impl Happening {
    pub(super) fn all() -> Vec<Self> {
        // A file is no registry that nodes write themselves in.
        let of_nodes = NodeFault::ALL.into_iter().filter(|it| *it != NodeFault::AddressChanged);
        let mut all: Vec<_> = of_nodes.map(Self::Node).collect();
        all.extend([
            Self::Replaced,
            Self::RegistryKilled,
            Self::RegistryFlaps,
            Self::RegistryStopped,
            Self::RegistryWiped,
            Self::KilledWithoutRegistry,
        ]);
        all
    }

    /// Happens, and is over.
    ///
    /// # Panics
    /// When a node does not start, or is not listed in time.
    pub(super) async fn happen(
        self,
        trial: &mut Trial,
        etcd: &mut Etcd,
        random: &mut fastrand::Rng,
    ) {
        let victim = random.usize(..3);
        let mut millis = |range: std::ops::Range<u64>| Duration::from_millis(random.u64(range));
        match self {
            Self::Node(fault) => {
                let stand_in = fault.act(trial, victim, millis(3_000..8_000)).await;
                if let Some(stand_in) = stand_in {
                    stand_in.leave(&trial.fleet).await;
                    trial.replace(victim).await;
                } else if fault.leaves_a_bad_one() {
                    trial.fleet.terminate(victim).await;
                    trial.replace(victim).await;
                }
            }
            Self::Replaced => {
                trial.fleet.terminate(victim).await;
                trial.replace(victim).await;
            }
            Self::RegistryKilled => {
                etcd.kill();
                sleep(millis(0..8_000)).await;
                etcd.restart().await;
                all_listed(trial).await;
            }
            Self::RegistryFlaps => {
                let end = Instant::now() + Duration::from_secs(1);
                while Instant::now() < end {
                    etcd.pause();
                    sleep(millis(1..20)).await;
                    etcd.resume();
                    sleep(millis(1..20)).await;
                }
                all_listed(trial).await;
            }
            Self::RegistryStopped => {
                etcd.pause();
                sleep(millis(1_000..20_000)).await;
                etcd.resume();
                all_listed(trial).await;
            }
            Self::RegistryWiped => {
                etcd.wipe().await;
                all_listed(trial).await;
            }
            Self::KilledWithoutRegistry => {
                etcd.pause();
                sleep(millis(0..2_000)).await;
                trial.kill(victim).await;
                sleep(millis(0..4_000)).await;
                etcd.resume();
                trial.restart(victim).await;
                all_listed(trial).await;
            }
        }
    }
}

/// Each of them is called from when it is listed on.
async fn all_listed(trial: &mut Trial) {
    let limit = Instant::now() + Duration::from_secs(30);
    let has_all = |listed: Vec<String>| trial.fleet.ids().iter().all(|id| listed.contains(id));
    while !trial.fleet.listed().await.is_some_and(has_all) {
        assert!(
            Instant::now() < limit,
            "not all nodes were listed 30 s after the registry's return"
        );
        sleep(Duration::from_millis(50)).await;
    }
    for node in 0..3 {
        trial.expect(node);
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node(fault) => fault.name(),
            Self::Replaced => "a node replaced by one on another address",
            Self::RegistryKilled => "the registry killed, and started again",
            Self::RegistryFlaps => "the registry stopped and going on for a second",
            Self::RegistryStopped => "the registry stopped for a while",
            Self::RegistryWiped => "the registry wiped",
            Self::KilledWithoutRegistry => "a node killed while the registry is stopped",
        })
    }
}
