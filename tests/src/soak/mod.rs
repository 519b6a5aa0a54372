//! The soak: what may happen to nodes and their registry happens at random for as long as asked, one
//! thing after the other, under the calls of a client that is a process of its own. Each is held to
//! what the table of faults holds it to, streams beside the calls too, and the client may not grow. By the seed the nodes are called over
//! TLS or not, and asked for their health or not.

mod client;
mod happening;
mod streams;

use std::{collections::HashSet, fmt, time::Duration};

pub use client::Count;
use client::OtherProcess;
use happening::Happening;
pub use streams::{FIRST_STREAM, Stream};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    certificates::{Authority, folders},
    etcd::Etcd,
    fault::{DEADLINE, Fleet, Following, Line, Trial, Visit, now, record},
};

/// What is called by whom, and what is yet to happen.
#[derive(Debug)]
pub struct Soak {
    etcd: Etcd,
    trial: Trial,
    client: OtherProcess,
    journals: Following,
    /// Those of calls that had not ended when it was last looked.
    visits: Vec<Visit>,
    random: fastrand::Rng,
    /// Where nodes and client have them.
    _certificates: Option<TempDir>,
    /// Each happens once before one happens again.
    to_come: Vec<Happening>,
}

/// What it came to.
#[derive(Debug)]
pub struct Summary {
    /// How many things happened.
    pub happened: usize,
    /// Of the calls: made, failed, and how many of them might have.
    pub line: Line,
    /// How many streams were read.
    pub streams: usize,
    /// What should not have been.
    pub unexpected: Vec<String>,
    /// The least that the client's process had in the 10 s after a minute: of each, what there is between
    /// two calls.
    pub first: Count,
    /// What it had at the end, when it had no more again, or after a minute.
    pub last: Count,
    /// The most memory that it had at the end of a later minute.
    pub most_memory: usize,
}

impl Soak {
    /// Starts a registry, three nodes and a client. What happens follows from the seed.
    ///
    /// # Panics
    /// When one of them does not start.
    pub async fn start(seed: u64) -> Self {
        let etcd = Etcd::start().await;
        let mut random = fastrand::Rng::with_seed(seed);
        let certificates = random.bool().then(|| folders(&Authority::new("soak")));
        let health_checks = random.bool();
        let of_nodes = if certificates.is_some() { "over TLS" } else { "in plaintext" };
        println!("{of_nodes}, {} health checks", if health_checks { "with" } else { "without" });
        let fleet = match &certificates {
            Some(dir) => Fleet::over_tls(&etcd.url(), dir.path()).await,
            None => Fleet::beside_others(&etcd.url()).await,
        };
        let tls = certificates.as_ref().map(|dir| dir.path().join("client"));
        let client = OtherProcess::start(&etcd.url(), health_checks, tls.as_deref()).await;
        Self {
            trial: Trial::called_from_elsewhere(fleet, ""),
            etcd,
            client,
            journals: Following::default(),
            visits: Vec::new(),
            random,
            _certificates: certificates,
            to_come: Vec::new(),
        }
    }

    /// Goes on for so many minutes, and prints a line after each.
    ///
    /// # Panics
    /// When a node does not start, or the client's process ends.
    pub async fn go_on(&mut self, minutes: u64) -> Summary {
        const MINUTE: Duration = Duration::from_secs(60);
        let fault = "churn and faults at random, one after the other".to_owned();
        let line = Line { fault, calls: 0, failed: 0, allowed: 0, seconds_to_recover: 0.0 };
        let (mut happened, mut streams, mut unexpected) = (0, 0, Vec::new());
        let (mut line, mut first, mut most_memory) = (line, None, 0);
        let begin = Instant::now();
        for minute in 1..=minutes {
            while begin.elapsed() < MINUTE * minute as u32 {
                happened += 1;
                let (of_it, read, wrong) = self.round().await;
                streams += read;
                line.calls += of_it.calls;
                line.failed += of_it.failed;
                line.allowed += of_it.allowed;
                line.seconds_to_recover = line.seconds_to_recover.max(of_it.seconds_to_recover);
                for wrong in &wrong {
                    println!("{}: {wrong}", of_it.fault);
                }
                unexpected.extend(wrong.into_iter().map(|it| format!("{}: {it}", of_it.fault)));
            }
            let count = match first {
                None => *first.insert(self.least().await),
                Some(_) => self.client.count().await,
            };
            if minute > 1 {
                most_memory = most_memory.max(count.memory);
            }
            let Line { calls, failed, allowed, .. } = line;
            let wrong = unexpected.len();
            println!(
                "minute {minute}: {happened} happened, {calls} calls, {failed} failed of {allowed} \
                 that might have, {streams} streams, {wrong} unexpected; the client has {count}"
            );
        }
        let first = first.expect("a minute at least");
        let last = self.settled(first).await;
        record(line.clone());
        Summary { happened, line, streams, unexpected, first, last, most_memory }
    }

    /// Something happens, and is over; what became of the calls, how many streams were read, and what
    /// should not have been.
    async fn round(&mut self) -> (Line, usize, Vec<String>) {
        if self.to_come.is_empty() {
            self.to_come = Happening::all();
            self.random.shuffle(&mut self.to_come);
        }
        let happening = self.to_come.pop().expect("there are some");
        happening.happen(&mut self.trial, &mut self.etcd, &mut self.random).await;
        // No call that it befell is under way any more.
        sleep(DEADLINE + Duration::from_millis(500)).await;

        let (calls, streams) = self.client.ended().await;
        let journals = self.journals.visits(self.trial.fleet.journals());
        self.visits.extend(journals.expect("journals can be read"));
        let ended = calls.iter().chain(streams.iter().map(|stream| &stream.call));
        let ended: HashSet<_> = ended.map(|call| call.id).collect();
        let is_of_these = |visit: &Visit| ended.contains(&visit.call);
        let (visits, mut others): (Vec<_>, Vec<_>) = self.visits.drain(..).partition(is_of_these);
        let oldest = now() - DEADLINE - Duration::from_secs(1);
        others.retain(|visit| visit.began > oldest);
        self.visits = others;

        let (of_streams, of_calls) = visits.into_iter().partition(|it| it.call >= FIRST_STREAM);
        let (read, faults) = (streams.len(), self.trial.faults());
        let verdict = self.trial.verdict(calls, of_calls);
        let line = Line { fault: happening.to_string(), ..verdict.line().clone() };
        let mut wrong = verdict.wrong();
        wrong.extend(streams::wrong(streams, of_streams, &faults));
        (line, read, wrong)
    }

    /// The least of each that the client has in 10 s.
    async fn least(&mut self) -> Count {
        let mut least = self.client.count().await;
        for _ in 0..50 {
            sleep(Duration::from_millis(200)).await;
            least = least.least(self.client.count().await);
        }
        least
    }

    /// Waits until the client has no more than it had, for as long as what is gone may linger.
    async fn settled(&mut self, first: Count) -> Count {
        let limit = Instant::now() + Duration::from_secs(60);
        let heap = first.heap + first.heap / 20;
        loop {
            let count = self.client.count().await;
            let is_settled =
                count.tasks <= first.tasks && count.open <= first.open && count.heap <= heap;
            if is_settled || Instant::now() > limit {
                return count;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { happened, line, streams, unexpected, first, last, most_memory } = self;
        let Line { calls, failed, allowed, seconds_to_recover, .. } = line;
        let (unexpected, most) = (unexpected.len(), client::kib(*most_memory));
        write!(
            f,
            "{happened} happened, {calls} calls, {failed} failed of {allowed} that might have, \
             {streams} streams, {unexpected} unexpected, as before within {seconds_to_recover:.1} s; the client had \
             {first} after a minute, {last} at the end, and at most {most} between"
        )
    }
}
