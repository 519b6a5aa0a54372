//! A unary call of which several attempts may be under way at once.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};

use super::{
    Served,
    hedge::{Delay, Hedging},
    observed::{Attempt, Observed},
    p95::P95,
    race::{Pause, Race, Then},
    status,
    unary::{self, Prepared},
};
use crate::{
    balance::{self, EndpointId, Outcome, Pick},
    framing::PREFIX,
    metrics::AttemptKind,
    registry::Node,
    transport::{Failure, UnaryReply},
};

/// As [`unary::attempts`], with further attempts while others are under way. The first good answer is
/// the call's; the others are dropped, which resets their streams.
pub(super) async fn attempts<T>(
    call: &Prepared,
    observed: &Observed,
    hedging: Hedging,
    frame: impl Fn() -> Bytes + Sync,
    read: impl Fn(UnaryReply, Served) -> Result<T, Status>,
) -> Result<T, Status> {
    let Prepared { channel, method, options, start, deadline, .. } = call;
    let (p95, delay) = match hedging.delay {
        Delay::Fixed(delay) => (None, Some(delay)),
        Delay::P95 => {
            let p95 = channel.latencies().of(method.path);
            let delay = p95.get();
            (Some(p95), delay)
        }
    };
    let most = channel.settings().max_attempts;
    let mut race = Race::new(hedging, delay, most, channel.purse());
    let (tried, sent, won) = (Mutex::default(), Notify::new(), OnceLock::new());
    let common = Common { call, observed, tried, sent, won };
    let mut running = FuturesUnordered::new();
    running.push(common.attempt(AttemptKind::First, &frame, 0, Pause::None, p95.as_deref()));
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
                        let node = ended.node;
                        match ended.reply {
                            Ok(reply) => match status::of_reply(&reply.headers, &reply.trailers) {
                                Ok(()) => {
                                    race.succeeded();
                                    let mut attempt = ended.attempt;
                                    attempt.received(reply.message.as_ref().map_or(0, Bytes::len));
                                    attempt.ended(Code::Ok, "");
                                    let served = Served::new(node, made);
                                    let (response, outcome) =
                                        unary::taken(reply, served, options, &read);
                                    let _ = common.won.set(ended.racing.started);
                                    ended.racing.finish(outcome);
                                    return response;
                                }
                                Err(status) => {
                                    let status = ended.attempt.failed(status);
                                    ended.racing.finish(Outcome::of_code(status.code()));
                                    (race.after_status(&status, Instant::now()), status)
                                }
                            },
                            Err(failure) => {
                                ended.racing.finish(Outcome::of_failure(&failure));
                                let failed = status::failed(channel.service(), &node, &failure);
                                let failed = ended.attempt.failed(failed);
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
            () = sleep_until(due.unwrap_or(*deadline)), if due.is_some() => {
                race.is_due(Instant::now()).then_some(Pause::None)
            }
            () = sleep_until(*deadline), if running.is_empty() => None,
        };
        if race.take_unpaid() {
            observed.retry_refused();
        }
        if running.is_empty() {
            observed.idle();
        }
        if let Some(pause) = more {
            made += 1;
            let is_declared = race.previous_attempts() > previous;
            let kind = if is_declared { AttemptKind::Hedge } else { AttemptKind::TransparentRetry };
            running.push(common.attempt(kind, &frame, race.previous_attempts(), pause, None));
        }
        if running.is_empty()
            && let Some(last) = &last
        {
            let is_over = Instant::now() >= *deadline;
            if is_over {
                let timeout = *deadline - *start;
                return Err(status::between_attempts(channel.service(), timeout, last));
            }
            if race.due().is_none() {
                return Err(last.clone());
            }
        }
    }
}

/// What the attempts of one call share.
struct Common<'a> {
    call: &'a Prepared,
    observed: &'a Observed,
    /// Those under way too: another goes elsewhere while it can.
    tried: Mutex<Vec<EndpointId>>,
    /// Told when one of them is sent.
    sent: Notify,
    /// When the attempt was made that won.
    won: OnceLock<Instant>,
}

/// How an attempt ended that was sent.
struct Ended<'a> {
    racing: Racing<'a>,
    attempt: Attempt,
    node: Arc<Node>,
    reply: Result<UnaryReply, Failure>,
}

impl Common<'_> {
    fn tried(&self) -> MutexGuard<'_, Vec<EndpointId>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// When no node took it in time.
    async fn attempt<'a>(
        &'a self,
        kind: AttemptKind,
        frame: &'a (impl Fn() -> Bytes + Sync),
        previous: u32,
        pause: Pause,
        p95: Option<&'a P95>,
    ) -> Result<Ended<'a>, Status> {
        let Prepared { channel, method, metadata, options, start, deadline } = self.call;
        let mut attempt = self.observed.attempt(kind, previous);
        let (service, timeout) = (channel.service(), *deadline - *start);
        let struck = sleep_until(*deadline);
        tokio::pin!(struck);
        let request = channel.request(options, method.path, metadata);
        let rests = |pause| sleep_until((Instant::now() + pause).min(*deadline));
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
                Err(node) => return Err(attempt.failed(status::in_line(service, &node, timeout))),
            };
            let mut now_tried = self.tried();
            if tried.contains(&pick.endpoint()) || !now_tried.contains(&pick.endpoint()) {
                now_tried.push(pick.endpoint());
                break (pick.node().clone(), pick, slot);
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(attempt.failed(status::no_answer(service, &node, timeout)));
        }
        let connection = pick.connection().clone();
        let racing = Racing { common: self, started: Instant::now(), pick: Some(pick), p95 };
        let mut head = unary::head(method, metadata, left, previous);
        attempt.goes_to(&node, head.headers_mut());
        let frame = frame();
        attempt.sent(frame.len().saturating_sub(PREFIX));
        self.sent.notify_one();
        tokio::select! {
            biased;
            reply = async { connection.unary(slot?, head, frame).await } => {
                Ok(Ended { racing, attempt, node, reply })
            }
            () = &mut struck => Err(attempt.failed(status::no_answer(service, &node, timeout))),
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
        if let Some(p95) = self.p95 {
            p95.lasted(self.started.elapsed());
        }
        if Instant::now() >= self.common.call.deadline {
            pick.finish(Outcome::Failure);
        } else if self.common.won.get().is_some_and(|won| self.started < *won) {
            // It takes at least as long as it has, and longer than the one that won.
            pick.finish(Outcome::Overtaken);
        }
    }
}
