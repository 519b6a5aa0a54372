//! A call of which several attempts may be under way at once.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use http::HeaderMap;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::{
    Channel, deadline,
    hedge::{Delay, Hedging},
    observed::{Attempt, Observed},
    p95::P95,
    race::{Pause, Race, Then},
    status,
    unary::Options,
};
use crate::{
    balance::{self, EndpointId, Outcome, Pick},
    metrics::AttemptKind,
    registry::Node,
    transport::{Connection, Failure, Slot},
};

/// A call that is hedged.
#[derive(Clone, Copy)]
pub(super) struct Hedged<'a> {
    pub(super) channel: &'a Channel,
    pub(super) observed: &'a Observed,
    pub(super) options: &'a Options,
    pub(super) path: &'a str,
    pub(super) metadata: &'a HeaderMap,
    pub(super) start: Instant,
    pub(super) deadline: Option<Instant>,
}

/// An attempt that is to be sent.
pub(super) struct Sending<'a> {
    pub(super) attempt: &'a mut Attempt,
    pub(super) connection: Connection,
    pub(super) slot: Result<Slot, Failure>,
    pub(super) node: &'a Arc<Node>,
    /// How many went before it that count.
    pub(super) previous: u32,
}

/// The attempt whose answer is the call's.
pub(super) struct Won<R> {
    pub(super) reply: R,
    pub(super) attempt: Attempt,
    pub(super) pick: Pick,
    pub(super) node: Arc<Node>,
    pub(super) race: Race,
    /// All that were made.
    pub(super) tried: Vec<EndpointId>,
    pub(super) made: usize,
}

impl Hedged<'_> {
    /// Attempts the call, with further attempts while others are under way. The first good answer is the
    /// call's; the others are dropped, which resets their streams. `send` sends an attempt, and `check`
    /// has the status of an answer that is none.
    pub(super) async fn race<R, Fut>(
        self,
        hedging: Hedging,
        send: impl Fn(Sending<'_>) -> Fut,
        check: impl Fn(&R) -> Result<(), Status>,
    ) -> Result<Won<R>, Status>
    where
        Fut: Future<Output = Result<R, Failure>>,
    {
        let Self { channel, observed, start, deadline, .. } = self;
        let (p95, delay) = match hedging.delay {
            Delay::Fixed(delay) => (None, Some(delay)),
            Delay::P95 => {
                let p95 = channel.latencies().of(self.path);
                let delay = p95.get();
                (Some(p95), delay)
            }
        };
        let most = channel.settings().max_attempts;
        let mut race = Race::new(hedging, delay, most, channel.purse(), deadline);
        // Without a deadline: the bound on all waiting, for a node or between attempts.
        let mut struck = deadline.unwrap_or(start + deadline::WAIT_WITHOUT_DEADLINE);
        let (tried, sent, won) = (Mutex::default(), Notify::new(), OnceLock::new());
        let common = Common { call: self, tried, sent, won };
        let mut running = FuturesUnordered::new();
        running.push(common.attempt(
            AttemptKind::First,
            &send,
            0,
            Pause::None,
            p95.as_deref(),
            struck,
        ));
        let (mut made, mut last) = (1, None);
        loop {
            let (due, previous) = (race.due(), race.previous_attempts());
            let more = tokio::select! {
                biased;
                Some(ended) = running.next() => {
                    let (then, failed) = match ended {
                        Err(nothing) => (race.after_nothing(), nothing),
                        Ok(ended) => {
                            // It was sent before it ended, perhaps within one poll.
                            if common.sent.notified().now_or_never().is_some() {
                                race.sent(Instant::now());
                            }
                            let Ended { racing, attempt, node, reply } = ended;
                            if deadline.is_none() {
                                // What a node had the call for was no waiting.
                                struck += racing.started.elapsed();
                            }
                            match reply.map(|reply| (check(&reply), reply)) {
                                Ok((Ok(()), reply)) => {
                                    let pick = racing.won();
                                    let tried = common.tried().clone();
                                    return Ok(Won { reply, attempt, pick, node, race, tried, made });
                                }
                                Ok((Err(status), _)) => {
                                    let status = attempt.failed(status);
                                    racing.finish(Outcome::of_code(status.code(), self.path));
                                    (race.after_status(&status, Instant::now()), status)
                                }
                                Err(failure) => {
                                    racing.finish(Outcome::of_failure(&failure));
                                    let failed = status::failed(channel.service(), &node, &failure);
                                    let failed = attempt.failed(failed);
                                    (race.after_failure(&failure, Instant::now()), failed)
                                }
                            }
                        }
                    };
                    match then {
                        Then::Fail => {
                            if race.take_unpaid() {
                                observed.retry_refused();
                            }
                            return Err(failed);
                        }
                        Then::Wait => {
                            last = Some(failed);
                            None
                        }
                        Then::Attempt(pause) => {
                            let service = channel.service();
                            tracing::debug!(service, error = %failed.message(), "call moves on");
                            last = Some(failed);
                            Some(pause)
                        }
                    }
                }
                () = common.sent.notified() => {
                    race.sent(Instant::now());
                    None
                }
                () = sleep_until(due.unwrap_or(start)), if due.is_some() => {
                    race.is_due(Instant::now()).then_some(Pause::None)
                }
                () = sleep_until(struck), if running.is_empty() => None,
            };
            if race.take_unpaid() {
                observed.retry_refused();
            }
            if running.is_empty() {
                observed.idle();
            }
            if running.is_empty()
                && let Some(last) = &last
            {
                if struck <= Instant::now() {
                    return Err(match deadline {
                        Some(deadline) => {
                            status::between_attempts(channel.service(), deadline - start, last)
                        }
                        None => last.clone(),
                    });
                }
                if more.is_none() && race.due().is_none() {
                    return Err(last.clone());
                }
            }
            if let Some(pause) = more {
                made += 1;
                let is_declared = race.previous_attempts() > previous;
                let kind =
                    if is_declared { AttemptKind::Hedge } else { AttemptKind::TransparentRetry };
                // While another has a node, waiting is not all that there is.
                let until = if deadline.is_some() || running.is_empty() {
                    struck
                } else {
                    Instant::now() + deadline::WAIT_WITHOUT_DEADLINE
                };
                let previous = race.previous_attempts();
                running.push(common.attempt(kind, &send, previous, pause, None, until));
            }
        }
    }
}

/// What the attempts of one call share.
struct Common<'a> {
    call: Hedged<'a>,
    /// Those under way too: another goes elsewhere while it can.
    tried: Mutex<Vec<EndpointId>>,
    /// Told when one of them is sent.
    sent: Notify,
    /// When the attempt was made that won.
    won: OnceLock<Instant>,
}

/// How an attempt ended that was sent.
struct Ended<'a, R> {
    racing: Racing<'a>,
    attempt: Attempt,
    node: Arc<Node>,
    reply: Result<R, Failure>,
}

impl Common<'_> {
    fn tried(&self) -> MutexGuard<'_, Vec<EndpointId>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// When no node took it in time.
    async fn attempt<'a, R, Fut>(
        &'a self,
        kind: AttemptKind,
        send: &'a impl Fn(Sending<'_>) -> Fut,
        previous: u32,
        pause: Pause,
        p95: Option<&'a P95>,
        until: Instant,
    ) -> Result<Ended<'a, R>, Status>
    where
        Fut: Future<Output = Result<R, Failure>>,
    {
        let Hedged { channel, observed, options, path, metadata, start, deadline } = self.call;
        let mut attempt = observed.attempt(kind, previous);
        let service = channel.service();
        let struck = sleep_until(until);
        tokio::pin!(struck);
        let request = channel.request(options, path, metadata);
        let rests = |pause| sleep_until((Instant::now() + pause).min(until));
        let mut pause = match pause {
            Pause::None => None,
            Pause::IfTried(pause) => Some(pause),
            Pause::Always(pause) => {
                rests(pause).await;
                None
            }
        };
        let (node, pick, slot) = loop {
            let tried = self.tried().clone();
            let request = balance::Request { tried: &tried, ..request };
            let pick = match channel.pick(&request, options.fail_fast, &mut struck, &attempt).await
            {
                Ok(pick) => pick,
                Err(none) => return Err(attempt.failed(none)),
            };
            let picked = pick.endpoint();
            if !tried.contains(&picked) && self.tried().contains(&picked) {
                // Another attempt has gone there while this one waited.
                continue;
            }
            if let Some(pause) = pause.take_if(|_| tried.contains(&picked)) {
                // The same node once more: not at once.
                drop(pick);
                rests(pause).await;
                continue;
            }
            let (pick, slot) = match channel.slot(pick, &request, &mut struck).await {
                Ok(seated) => seated,
                Err(node) => {
                    let in_line = match deadline {
                        Some(deadline) => status::in_line(service, &node, deadline - start),
                        None => status::no_stream(service, &node),
                    };
                    return Err(attempt.failed(in_line));
                }
            };
            let mut now_tried = self.tried();
            if tried.contains(&pick.endpoint()) || !now_tried.contains(&pick.endpoint()) {
                now_tried.push(pick.endpoint());
                break (pick.node().clone(), pick, slot);
            }
        };
        let late = || status::no_answer(service, &node, until - start);
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(attempt.failed(late()));
        }
        let connection = pick.connection().clone();
        let racing = Racing { common: self, started: Instant::now(), pick: Some(pick), p95 };
        let reply =
            send(Sending { attempt: &mut attempt, connection, slot, node: &node, previous });
        self.sent.notify_one();
        tokio::select! {
            biased;
            reply = reply => Ok(Ended { racing, attempt, node, reply }),
            () = &mut struck, if deadline.is_some() => Err(attempt.failed(late())),
        }
    }
}

/// An attempt that was sent. What was given up is told to the balancer as far as something is known
/// of it: else a slow node, all of whose calls are overtaken, would never be known for one.
struct Racing<'a> {
    common: &'a Common<'a>,
    started: Instant,
    /// Until its end was told.
    pick: Option<Pick>,
    /// For the first attempt of a call that is hedged by it.
    p95: Option<&'a P95>,
}

impl Racing<'_> {
    /// Its answer is the call's: what comes of the node is told by who reads it.
    fn won(mut self) -> Pick {
        let _ = self.common.won.set(self.started);
        if let Some(p95) = self.p95 {
            p95.took(self.started.elapsed());
        }
        self.pick.take().expect("its end was not told")
    }

    fn finish(mut self, outcome: Outcome) {
        if let (Some(p95), Outcome::Success) = (self.p95, outcome) {
            p95.took(self.started.elapsed());
        }
        if let Some(pick) = self.pick.take() {
            pick.finish(outcome);
        }
    }
}

impl Drop for Racing<'_> {
    fn drop(&mut self) {
        let Some(pick) = self.pick.take() else {
            return;
        };
        let deadline = self.common.call.deadline;
        let is_struck = deadline.is_some_and(|deadline| deadline <= Instant::now());
        // What its callers have given up early says nothing of a method of which nothing is known.
        if let Some(p95) = self.p95.filter(|p95| is_struck || p95.get().is_some()) {
            p95.lasted(self.started.elapsed());
        }
        if is_struck {
            pick.finish(Outcome::Failure);
        } else if self.common.won.get().is_some_and(|won| self.started < *won) {
            // It takes at least as long as it has, and longer than the one that won.
            pick.finish(Outcome::Overtaken);
        }
    }
}
