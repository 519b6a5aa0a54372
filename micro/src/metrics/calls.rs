//! A channel's calls, by the names of gRPC's [A66] and [A96].
//!
//! [A66]: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
//! [A96]: https://github.com/grpc/proposal/blob/master/A96-retry-otel-stats.md

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram, Counter, Histogram, Meter},
};
use tokio::time::Instant;
use tonic::Code;

use super::{
    AttemptKind, Picked,
    by_method::ByMethod,
    instruments::{Counters, and, attribute},
    of_code,
    weighed::Weighed,
};
use crate::framing::Lengths;

/// Seconds, by A66.
pub(super) const LATENCIES: [f64; 41] = [
    0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005,
    0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16,
    0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
];

/// Bytes, by A66.
pub(super) const SIZES: [f64; 14] = [
    0.0,
    1024.0,
    2048.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

/// What calls are told by.
#[derive(Debug)]
pub(super) struct CallInstruments {
    picks: Counter<u64>,
    refused_retries: Counter<u64>,
    attempts: Counter<u64>,
    attempt_duration: Histogram<f64>,
    sent: Histogram<u64>,
    received: Histogram<u64>,
    call_duration: Histogram<f64>,
    retries: Histogram<u64>,
    transparent_retries: Histogram<u64>,
    hedges: Histogram<u64>,
    retry_delay: Histogram<f64>,
}

impl CallInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |name, unit, description| {
            meter.u64_counter(name).with_unit(unit).with_description(description).build()
        };
        let seconds = |name, description| {
            let histogram = meter.f64_histogram(name).with_boundaries(LATENCIES.to_vec());
            histogram.with_unit("s").with_description(description).build()
        };
        let histogram = |name, unit, description, boundaries: &[f64]| {
            let histogram = meter.u64_histogram(name).with_boundaries(boundaries.to_vec());
            histogram.with_unit(unit).with_description(description).build()
        };
        let few = &[1.0, 2.0, 3.0, 4.0, 5.0];
        Self {
            picks: counter(
                "micro.client.picks",
                "{pick}",
                "Choices of a node for an attempt, by what came of them.",
            ),
            refused_retries: counter(
                "micro.client.refused_retries",
                "{retry}",
                "Further attempts that were not made, since there was no budget for them.",
            ),
            attempts: counter(
                "grpc.client.attempt.started",
                "{attempt}",
                "Attempts of calls that have begun.",
            ),
            attempt_duration: seconds(
                "grpc.client.attempt.duration",
                "How long attempts took, the choice of a node included.",
            ),
            sent: histogram(
                "grpc.client.attempt.sent_total_compressed_message_size",
                "By",
                "The messages that an attempt sent, together.",
                &SIZES,
            ),
            received: histogram(
                "grpc.client.attempt.rcvd_total_compressed_message_size",
                "By",
                "The messages that an attempt received, together.",
                &SIZES,
            ),
            call_duration: seconds(
                "grpc.client.call.duration",
                "How long calls took, all their attempts together.",
            ),
            retries: histogram(
                "grpc.client.call.retries",
                "{retry}",
                "Further attempts of a call that had any, after failures.",
                few,
            ),
            transparent_retries: histogram(
                "grpc.client.call.transparent_retries",
                "{transparent_retry}",
                "Further attempts of a call that had any, after those that no handler has seen.",
                &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0],
            ),
            hedges: histogram(
                "grpc.client.call.hedges",
                "{hedge}",
                "Further attempts of a call that is hedged, if it had any.",
                few,
            ),
            retry_delay: seconds(
                "grpc.client.call.retry_delay",
                "How long a call that was tried again was not under way.",
            ),
        }
    }
}

/// Is told of a channel's calls.
#[derive(Debug)]
pub(crate) struct ChannelMetrics {
    target: Arc<str>,
    methods: ByMethod<Method>,
}

impl ChannelMetrics {
    pub(crate) fn new(target: Arc<str>) -> Self {
        Self { target, methods: ByMethod::new() }
    }

    /// A call has begun; `path` is its method's, if that is one of finitely many.
    pub(crate) fn call(&self, path: Option<&str>, start: Instant) -> CallMetrics {
        let method =
            self.methods.get(path, start, |name, with| Method::new(name, &self.target, with));
        CallMetrics { method, start, code: Code::Cancelled, attempts: Mutex::default() }
    }
}

/// What the calls of one method are told by. What is bound is a series, so that it is no sooner than
/// there is something to tell.
#[derive(Debug)]
struct Method {
    with: Arc<Counters>,
    attributes: [KeyValue; 2],
    attempts: BoundCounter<u64>,
    picks: [OnceLock<BoundCounter<u64>>; Picked::NAMES.len()],
    ended: [OnceLock<Ended>; of_code::COUNT],
    calls: [OnceLock<BoundHistogram<f64>>; of_code::COUNT],
}

/// Attempts with one status.
#[derive(Debug)]
struct Ended {
    duration: BoundHistogram<f64>,
    sent: BoundHistogram<u64>,
    received: BoundHistogram<u64>,
}

impl Method {
    fn new(name: &str, target: &Arc<str>, with: Arc<Counters>) -> Self {
        let attributes = [
            KeyValue::new(attribute::METHOD, Arc::<str>::from(name)),
            KeyValue::new(attribute::TARGET, target.clone()),
        ];
        let attempts = with.calls.attempts.bind(&attributes);
        let picks = [const { OnceLock::new() }; Picked::NAMES.len()];
        let ended = [const { OnceLock::new() }; of_code::COUNT];
        let calls = [const { OnceLock::new() }; of_code::COUNT];
        Self { with, attributes, attempts, picks, ended, calls }
    }

    fn with(&self, code: Code) -> Vec<KeyValue> {
        and(&self.attributes, attribute::STATUS, of_code::name(code))
    }

    fn ended(&self, code: Code) -> &Ended {
        self.ended[code as usize].get_or_init(|| {
            let attributes = self.with(code);
            let CallInstruments { attempt_duration, sent, received, .. } = &self.with.calls;
            Ended {
                duration: attempt_duration.bind(&attributes),
                sent: sent.bind(&attributes),
                received: received.bind(&attributes),
            }
        })
    }

    fn picks(&self, picked: Picked) -> &BoundCounter<u64> {
        self.picks[picked as usize].get_or_init(|| {
            let outcome = Picked::NAMES[picked as usize];
            self.with.calls.picks.bind(&and(&self.attributes, attribute::PICK, outcome))
        })
    }

    fn calls(&self, code: Code) -> &BoundHistogram<f64> {
        let duration = &self.with.calls.call_duration;
        self.calls[code as usize].get_or_init(|| duration.bind(&self.with(code)))
    }
}

/// Is told of one call. One that is dropped before it has [ended](Self::ended) was cancelled.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    method: Arc<Method>,
    start: Instant,
    code: Code,
    attempts: Mutex<Attempts>,
}

/// Those beyond the first.
#[derive(Debug, Default)]
struct Attempts {
    retries: u64,
    transparent_retries: u64,
    hedges: u64,
    idle_since: Option<Instant>,
    delay: Duration,
}

impl CallMetrics {
    /// Begins an attempt.
    pub(crate) fn attempt(&self, kind: AttemptKind) -> AttemptMetrics {
        // With the first the clock is spared, a tenth of all that this costs. Only while nobody has asked
        // the registry yet does it begin later than the call.
        let is_first = kind == AttemptKind::First;
        let start = if is_first { self.start } else { Instant::now() };
        if !is_first {
            let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            match kind {
                AttemptKind::First => {}
                AttemptKind::Retry => attempts.retries += 1,
                AttemptKind::TransparentRetry => attempts.transparent_retries += 1,
                AttemptKind::Hedge => attempts.hedges += 1,
            }
            if let Some(since) = attempts.idle_since.take() {
                attempts.delay += start.saturating_duration_since(since);
            }
        }
        self.method.attempts.add(1);
        AttemptMetrics {
            method: self.method.clone(),
            start,
            code: Code::Cancelled,
            sent: 0,
            streamed: None,
            received: 0,
            receiving: Lengths::default(),
        }
    }

    /// No attempt is under way, and the call has not ended.
    pub(crate) fn idle(&self) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.idle_since.get_or_insert_with(Instant::now);
    }

    /// Another attempt would have been made, had there been a budget for it.
    pub(crate) fn retry_refused(&self) {
        let Method { with, attributes, .. } = &*self.method;
        with.calls.refused_retries.add(1, attributes);
    }

    pub(crate) fn ended(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for CallMetrics {
    fn drop(&mut self) {
        let Method { with, attributes, .. } = &*self.method;
        self.method.calls(self.code).record(self.start.elapsed().as_secs_f64());
        let attempts = self.attempts.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Attempts { retries, transparent_retries, hedges, delay, .. } = attempts;
        let CallInstruments { retry_delay, .. } = &with.calls;
        for (count, histogram) in [
            (*retries, &with.calls.retries),
            (*transparent_retries, &with.calls.transparent_retries),
            (*hedges, &with.calls.hedges),
        ] {
            if count > 0 {
                histogram.record(count, attributes);
            }
        }
        if !delay.is_zero() {
            retry_delay.record(delay.as_secs_f64(), attributes);
        }
    }
}

/// Is told of one attempt. One that is dropped before it has [ended](Self::ended) was cancelled.
#[derive(Debug)]
pub(crate) struct AttemptMetrics {
    method: Arc<Method>,
    start: Instant,
    code: Code,
    sent: usize,
    /// What a stream has sent.
    streamed: Option<Arc<AtomicUsize>>,
    received: usize,
    receiving: Lengths,
}

impl AttemptMetrics {
    /// A node was chosen for it, or there was none.
    pub(crate) fn picked(&self, picked: Picked) {
        self.method.picks(picked).add(1);
    }

    /// A message of so many bytes is sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent = bytes;
    }

    /// The body of a stream, weighed as it is sent.
    pub(crate) fn weigh<B>(&mut self, body: B) -> Weighed<B> {
        let weight = Arc::<AtomicUsize>::default();
        self.streamed = Some(weight.clone());
        Weighed::new(body, weight)
    }

    /// A message of so many bytes came.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received = bytes;
    }

    /// Some of a stream of messages came.
    pub(crate) fn received_data(&mut self, data: &[u8]) {
        self.received = self.receiving.add(data);
    }

    pub(crate) fn ended(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for AttemptMetrics {
    fn drop(&mut self) {
        let Ended { duration, sent, received } = self.method.ended(self.code);
        duration.record(self.start.elapsed().as_secs_f64());
        let streamed = self.streamed.as_ref().map_or(0, |weight| weight.load(Relaxed));
        sent.record((self.sent + streamed) as u64);
        received.record(self.received as u64);
    }
}
