//! One fault, from the first call to the verdict.

use std::{mem, time::Duration};

use micro::Client;
use tokio::time::{self, Instant};

use super::{Audit, Call, Callers, Fault, Fleet, Line, TTL, Visit, Who, now, record, until};

/// How many callers call at once.
pub const CALLERS: usize = 16;

/// How many calls are made under a fault at the least.
pub const CALLS: u64 = 5_000;

/// A fleet under calls, and the faults done to it so far.
#[derive(Debug)]
pub struct Trial {
    /// The nodes.
    pub fleet: Fleet,
    /// What the callers call by.
    pub client: Client,
    name: String,
    who: Who,
    callers: Callers,
    faults: Vec<Fault>,
    returns: Vec<(String, Duration)>,
    /// When a fault ended, or began where it does not end: how long it takes from then until all is
    /// as before is measured.
    ends: Vec<Duration>,
    recovery: Duration,
    /// In how many seconds there need not be an answer.
    seconds_dark: usize,
}

impl Trial {
    /// Starts three nodes, a client, and 16 callers, and lets them call for a second.
    ///
    /// # Panics
    /// When a node does not start.
    pub async fn start(name: &str, url: &str) -> Self {
        Self::over(Fleet::start(url).await, url, name, Who::Micro, Duration::ZERO).await
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
        Self::over(fleet, client, name, Who::Micro, Duration::from_millis(40)).await
    }

    /// The same of this fleet and these registries, with anybody's client, and callers that make such
    /// a pause after each call.
    ///
    /// # Panics
    /// As [`Trial::start`].
    pub async fn over(fleet: Fleet, client: &str, name: &str, who: Who, pause: Duration) -> Self {
        let client = Client::builder().registry(client).build().expect("a client");
        let callers = Callers::start_by(who, &client, CALLERS, pause);
        time::sleep(Duration::from_secs(1)).await;
        Self::of(fleet, client, name, who, callers)
    }

    /// The same of this fleet, which is called by another process: the verdict is to be asked for.
    ///
    /// # Panics
    /// When the fleet's registry has no client.
    pub fn called_from_elsewhere(fleet: Fleet, name: &str) -> Self {
        let client = Client::builder().registry(&fleet.url).build().expect("a client");
        Self::of(fleet, client, name, Who::Micro, Callers::default())
    }

    fn of(fleet: Fleet, client: Client, name: &str, who: Who, callers: Callers) -> Self {
        Self {
            fleet,
            client,
            name: name.to_owned(),
            who,
            callers,
            faults: Vec::new(),
            returns: Vec::new(),
            ends: Vec::new(),
            recovery: Duration::ZERO,
            seconds_dark: 0,
        }
    }

    /// Kills a node with SIGKILL, a call in flight on it. Its sockets are closed with it, so the client
    /// knows at once. Each caller has one call at a time, and so may lose one there.
    pub async fn kill(&mut self, node: usize) {
        self.kill_all(&[node]).await;
    }

    /// The same of several nodes at once, a call in flight on the first.
    pub async fn kill_all(&mut self, nodes: &[usize]) {
        let victims: Vec<_> = nodes.iter().map(|&node| self.fleet.id(node).to_owned()).collect();
        let at = self.fleet.kill_all(nodes).await;
        for victim in victims {
            self.fault(victim, at, Duration::from_millis(500), CALLERS);
        }
    }

    /// Nobody is there for so many seconds: callers wait, and are not answered.
    pub fn dark_for(&mut self, seconds: usize) {
        self.seconds_dark += seconds;
    }

    /// Stops a node with SIGSTOP. The client has its PING rule to find out: a second without a
    /// byte, a second without an answer. A caller waits there for as long, and so may lose one call.
    pub fn pause(&mut self, node: usize) {
        let victim = self.fleet.id(node).to_owned();
        let at = self.fleet.pause(node);
        self.fault(victim, at, Duration::from_millis(2500), CALLERS);
    }

    /// From then on this node is a bad one, which may cost so many calls.
    pub fn is_bad(&mut self, victim: &str, from: Duration, at_most: usize) {
        self.ends.push(from);
        self.fault(victim.to_owned(), from, Duration::from_secs(3600), at_most);
    }

    fn fault(&mut self, victim: String, at: Duration, detected_within: Duration, at_most: usize) {
        self.faults.push(Fault { victim, at, detected_within, at_most });
    }

    /// Something happened, or began, that is no node's fault: how long it takes from then until all is
    /// as before is measured.
    pub fn measured_from(&mut self, at: Duration) {
        self.ends.push(at);
    }

    /// Lets a stopped node go on, and expects it to be called again.
    pub fn resume(&mut self, node: usize) -> Duration {
        let at = self.fleet.resume(node);
        self.expect(node);
        at
    }

    /// Expects a node to be called from now on.
    pub fn expect(&mut self, node: usize) {
        self.returned(node, now());
    }

    fn returned(&mut self, node: usize, at: Duration) {
        self.returns.push((self.fleet.id(node).to_owned(), at));
        self.ends.push(at);
    }

    /// Starts a node again that has ended, and expects it to be called again.
    pub async fn restart(&mut self, node: usize) -> Duration {
        self.restart_all(&[node]).await
    }

    /// The same of several at once.
    pub async fn restart_all(&mut self, nodes: &[usize]) -> Duration {
        let at = self.fleet.restart_all(nodes).await;
        for &node in nodes {
            self.returned(node, at);
        }
        at
    }

    /// Starts a node on another address in place of one that has ended, and expects it to be called.
    pub async fn replace(&mut self, node: usize) -> Duration {
        let at = self.fleet.replace(node).await;
        self.returned(node, at);
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
        self.measured_from(returned);
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
        self.until_made(at_least).await;
        self.end().await.judged()
    }

    /// Goes on until there were `at_least` calls, and who returned has had time to be called.
    ///
    /// # Panics
    /// When there are not so many in five minutes.
    pub async fn until_made(&self, at_least: u64) {
        let limit = Instant::now() + Duration::from_secs(300);
        while self.callers.made() < at_least {
            assert!(Instant::now() < limit, "only {} calls were made", self.callers.made());
            time::sleep(Duration::from_millis(100)).await;
        }
        // A stopped node that goes on still has to work off what it was sent.
        if let Some((_, at)) = self.returns.last() {
            until(*at + Duration::from_secs(3)).await;
        }
    }

    /// Stops the callers and writes the line in `target/faults.json`.
    pub async fn end(mut self) -> Verdict {
        let calls = mem::take(&mut self.callers).stop().await;
        let visits = self.fleet.visits();
        let verdict = self.verdict(calls, visits);
        record(verdict.line.clone());
        verdict
    }

    /// What became of these calls, which handlers saw so, under the faults since the last verdict.
    pub fn verdict(&mut self, calls: Vec<Call>, visits: Vec<Visit>) -> Verdict {
        let faults = mem::take(&mut self.faults);
        let returns = mem::take(&mut self.returns);
        let ends = mem::take(&mut self.ends);
        let audit = Audit::of(self.who, calls, visits);
        let end = now();
        let answers = returns.iter().map(|(id, at)| {
            let first = audit.first_answer(id, *at);
            first.unwrap_or(end).saturating_sub(*at)
        });
        // What happens next is not to count as what went before.
        let next = |end: Duration| {
            let began = faults.iter().map(|fault| fault.at);
            began.chain(ends.iter().copied()).filter(|at| *at > end).min()
        };
        let calm = ends.iter().map(|&end| audit.recovery(end, next(end).unwrap_or(Duration::MAX)));
        let recovery = answers.chain(calm).max().unwrap_or_default();
        let recovery = recovery.max(mem::take(&mut self.recovery));
        let line = Line {
            fault: self.name.clone(),
            calls: audit.calls(),
            failed: audit.failed().len(),
            allowed: audit.allowed(&faults),
            seconds_to_recover: recovery.as_secs_f64(),
        };
        let seconds_dark = mem::take(&mut self.seconds_dark);
        Verdict { audit, line, faults, returns, seconds_dark }
    }
}

/// What became of the calls under a fault.
#[derive(Debug)]
pub struct Verdict {
    audit: Audit,
    line: Line,
    faults: Vec<Fault>,
    returns: Vec<(String, Duration)>,
    seconds_dark: usize,
}

impl Verdict {
    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.line.calls
    }

    /// The calls, and what handlers saw of them.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// How many calls the handlers of this node were given in a span of time.
    pub fn visits_between(&self, node: &str, from: Duration, to: Duration) -> usize {
        self.audit.visits_between(Some(node), from, to)
    }

    /// What became of them in numbers.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Checks what holds under every fault.
    ///
    /// # Panics
    /// As [`Trial::finish`].
    pub fn judged(self) -> Audit {
        let wrong = self.wrong();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        self.audit
    }

    /// What does not hold that holds under every fault.
    pub fn wrong(&self) -> Vec<String> {
        let Self { audit, line, faults, returns, seconds_dark } = self;
        let mut wrong = Vec::new();
        let broken = audit.broken_rules();
        if let Some(first) = broken.first() {
            wrong.push(format!("{} rules broken, first: {first}", broken.len()));
        }
        let unexcused = audit.unexcused(faults);
        if let Some(first) = unexcused.first() {
            wrong.push(format!("{} calls failed without excuse: {first:?}", unexcused.len()));
        }
        if line.failed > line.allowed {
            wrong.push(format!("more calls failed than the faults may cost: {line:?}"));
        }
        for (id, at) in returns {
            if audit.first_answer(id, *at).is_none() {
                wrong.push(format!("{id} returned and was never called again"));
            }
        }
        // Callers that wait fail no call either.
        let silent = audit.seconds_without_an_answer();
        if audit.calls() == 0 || silent.len() > *seconds_dark {
            wrong.push(format!("no call was answered in seconds {silent:?}"));
        }
        wrong
    }
}
