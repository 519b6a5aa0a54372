//! One fault, from the first call to the verdict.

use std::time::Duration;

use micro::Client;
use tokio::time::{self, Instant};

use super::{Audit, Callers, Fault, Fleet, Line, SERVICE, TTL, now, record, until};
use crate::proto::ledger::LedgerClient;

/// How many callers call at once.
pub const CALLERS: usize = 16;

/// A fleet under calls, and the faults done to it so far.
#[derive(Debug)]
pub struct Trial {
    /// The nodes.
    pub fleet: Fleet,
    /// What the callers call by.
    pub client: Client,
    name: String,
    callers: Callers,
    faults: Vec<Fault>,
    returns: Vec<(String, Duration)>,
    recovery: Duration,
}

impl Trial {
    /// Starts three nodes, a client, and 16 callers, and lets them call for a second.
    ///
    /// # Panics
    /// When a node does not start.
    pub async fn start(name: &str, url: &str) -> Self {
        Self::over(Fleet::start(url).await, url, name, Duration::ZERO).await
    }

    /// The same while other trials go on, so that the callers make pauses.
    ///
    /// # Panics
    /// As [`Trial::start`].
    pub async fn beside_others(name: &str, url: &str) -> Self {
        Self::of_fleet(Fleet::beside_others(url).await, url, name).await
    }

    /// The same of this fleet, with a client whose registries are these.
    ///
    /// # Panics
    /// As [`Trial::start`].
    pub async fn of_fleet(fleet: Fleet, client: &str, name: &str) -> Self {
        Self::over(fleet, client, name, Duration::from_millis(40)).await
    }

    async fn over(fleet: Fleet, client: &str, name: &str, pause: Duration) -> Self {
        let client = Client::builder().registry(client).build().expect("a client");
        let callers = Callers::start_with(&LedgerClient::new(SERVICE, &client), CALLERS, pause);
        time::sleep(Duration::from_secs(1)).await;
        let (name, recovery) = (name.to_owned(), Duration::ZERO);
        Self { fleet, client, name, callers, faults: Vec::new(), returns: Vec::new(), recovery }
    }

    /// Kills a node with SIGKILL, a call in flight on it. Its sockets are closed with it, so the client knows at once.
    pub async fn kill(&mut self, node: usize) {
        let victim = self.fleet.id(node).to_owned();
        let at = self.fleet.kill(node).await;
        self.faults.push(Fault { victim, at, detected_within: Duration::from_millis(500) });
    }

    /// Stops a node with SIGSTOP. The client has its PING rule to find out: a second without a
    /// byte, a second without an answer.
    pub fn pause(&mut self, node: usize) {
        let victim = self.fleet.id(node).to_owned();
        let at = self.fleet.pause(node);
        self.faults.push(Fault { victim, at, detected_within: Duration::from_millis(2500) });
    }

    /// Lets a stopped node go on, and expects it to be called again.
    pub fn resume(&mut self, node: usize) -> Duration {
        let at = self.fleet.resume(node);
        self.returns.push((self.fleet.id(node).to_owned(), at));
        at
    }

    /// Starts a node again that has ended, and expects it to be called again.
    pub async fn restart(&mut self, node: usize) -> Duration {
        let at = self.fleet.restart(node).await;
        self.returns.push((self.fleet.id(node).to_owned(), at));
        at
    }

    /// Starts a node on another address in place of one that has ended, and expects it to be called.
    pub async fn replace(&mut self, node: usize) -> Duration {
        let at = self.fleet.replace(node).await;
        self.returns.push((self.fleet.id(node).to_owned(), at));
        at
    }

    /// The faults done so far.
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.clone()
    }

    /// The nodes that returned, each with the time of it.
    pub fn returns(&self) -> Vec<(String, Duration)> {
        self.returns.clone()
    }

    /// Watches the registry for more than a TTL after something returned, so that a record that
    /// nobody renews is seen to go; says how long after it all nodes were listed for good.
    pub async fn all_listed(&mut self, returned: Duration) -> Duration {
        let mut incomplete_until = returned;
        let mut last_incomplete = None;
        while now() < returned + TTL + Duration::from_secs(3) {
            let listed = self.fleet.listed().await;
            let has = |id: &String| listed.as_ref().is_some_and(|listed| listed.contains(id));
            if !self.fleet.ids().iter().all(has) {
                incomplete_until = now();
                last_incomplete = Some(listed);
            }
            time::sleep(Duration::from_millis(50)).await;
        }
        // More than a TTL later nobody is listed who is not there.
        assert_eq!(self.fleet.listed().await, Some(self.fleet.ids()), "the nodes, and no others");
        let took = incomplete_until - returned;
        // Whether a node was away that late, or the registry did not answer.
        if let Some(listed) = last_incomplete {
            println!("{}: {took:?} after the return it listed {listed:?}", self.name);
        }
        self.recovery = self.recovery.max(took);
        took
    }

    /// Goes on until there were `at_least` calls, then stops the callers, writes the line in
    /// `target/faults.json` and checks what holds under every fault, and that in each second some calls
    /// were answered.
    ///
    /// # Panics
    /// When a call failed that no fault excuses, a rule was broken, or no call was answered for a
    /// second.
    pub async fn finish(self, at_least: u64) -> Audit {
        let limit = Instant::now() + Duration::from_secs(300);
        while self.callers.made() < at_least {
            assert!(Instant::now() < limit, "only {} calls were made", self.callers.made());
            time::sleep(Duration::from_millis(100)).await;
        }
        // A stopped node that goes on still has to work off what it was sent.
        if let Some((_, at)) = self.returns.last() {
            until(*at + Duration::from_secs(3)).await;
        }
        let audit = Audit::new(self.callers.stop().await, self.fleet.visits());

        let answers = self.returns.iter().map(|(id, at)| {
            audit.first_answer(id, *at).map_or(Duration::MAX, |first| first.saturating_sub(*at))
        });
        let recovery = answers.max().unwrap_or_default().max(self.recovery);
        let (failed, unexcused) = (audit.failed(), audit.unexcused(&self.faults));
        record(Line {
            fault: self.name.clone(),
            calls: audit.calls(),
            failed: failed.len(),
            allowed: audit.allowed(&self.faults),
            seconds_to_recover: recovery.as_secs_f64(),
        });

        let broken = audit.broken_rules();
        assert!(
            broken.is_empty(),
            "{} rules broken, first: {:?}",
            broken.len(),
            &broken[..broken.len().min(3)]
        );
        let first = &unexcused[..unexcused.len().min(3)];
        assert!(first.is_empty(), "{} calls failed without excuse: {first:#?}", unexcused.len());
        assert!(recovery < Duration::MAX, "a node that returned was never called again");
        // Callers that wait fail no call either.
        let silent = audit.seconds_without_an_answer();
        assert!(
            audit.calls() > 0 && silent.is_empty(),
            "no call was answered in seconds {silent:?}"
        );
        audit
    }
}
