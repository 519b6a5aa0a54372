//! A server's calls, by the names of gRPC's [A66].
//!
//! [A66]: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram, Counter, Histogram, Meter},
};
use tokio::time::Instant;
use tonic::Code;

use super::{
    by_method::ByMethod,
    calls::{LATENCIES, SIZES},
    instruments::{Counters, and, attribute},
    named::Named,
    of_code,
    weighed::Weighed,
};
use crate::framing::Lengths;

/// What calls are told by.
#[derive(Debug)]
pub(super) struct HandledInstruments {
    started: Counter<u64>,
    duration: Histogram<f64>,
    sent: Histogram<u64>,
    received: Histogram<u64>,
}

impl HandledInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let size = |name, description| {
            let histogram = meter.u64_histogram(name).with_boundaries(SIZES.to_vec());
            histogram.with_unit("By").with_description(description).build()
        };
        let started = meter.u64_counter("grpc.server.call.started").with_unit("{call}");
        let duration = meter.f64_histogram("grpc.server.call.duration").with_unit("s");
        Self {
            started: started.with_description("Calls that have begun.").build(),
            duration: duration
                .with_boundaries(LATENCIES.to_vec())
                .with_description("How long calls took, from their headers to their end.")
                .build(),
            sent: size(
                "grpc.server.call.sent_total_compressed_message_size",
                "The messages that a call was answered with, together.",
            ),
            received: size(
                "grpc.server.call.rcvd_total_compressed_message_size",
                "The messages that came with a call, together.",
            ),
        }
    }
}

/// Is told of a server's calls.
#[derive(Debug)]
pub(crate) struct ServerMetrics(Arc<Methods>);

#[derive(Debug)]
struct Methods {
    by_path: ByMethod<Method>,
    /// Those of mounted services.
    named: Named,
}

impl Methods {
    /// `None` is of no method that is known.
    fn get(&self, path: Option<&str>, now: Instant) -> Arc<Method> {
        self.by_path.get(path, now, Method::new)
    }
}

impl ServerMetrics {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Methods { by_path: ByMethod::new(), named: Named::default() }))
    }

    /// A call has begun; `path` is its method's, if that is one of those that are registered.
    pub(crate) fn call(&self, path: Option<&str>) -> HandledMetrics {
        let start = Instant::now();
        HandledMetrics::started(Called::By(begun(self.0.get(path, start))), start)
    }

    /// A call of a mounted service has begun. Only the service knows whether it has a method at `path`,
    /// and shows it by an answer: until then, nobody is told of the call.
    pub(crate) fn call_mounted(&self, path: &str) -> HandledMetrics {
        if self.0.named.has(path) {
            return self.call(Some(path));
        }
        let called = Called::Unknown { path: path.into(), methods: self.0.clone() };
        HandledMetrics::started(called, Instant::now())
    }
}

/// The method, told of one call more.
fn begun(method: Arc<Method>) -> Arc<Method> {
    method.started.add(1);
    method
}

/// What the calls of one method are told by.
#[derive(Debug)]
struct Method {
    with: Arc<Counters>,
    attributes: [KeyValue; 1],
    started: BoundCounter<u64>,
    ended: [OnceLock<Ended>; of_code::COUNT],
}

/// With one status.
#[derive(Debug)]
struct Ended {
    duration: BoundHistogram<f64>,
    sent: BoundHistogram<u64>,
    received: BoundHistogram<u64>,
}

impl Method {
    fn new(name: &str, with: Arc<Counters>) -> Self {
        let attributes = [KeyValue::new(attribute::METHOD, Arc::<str>::from(name))];
        let started = with.handled.started.bind(&attributes);
        Self { with, attributes, started, ended: [const { OnceLock::new() }; of_code::COUNT] }
    }

    fn ended(&self, code: Code) -> &Ended {
        self.ended[code as usize].get_or_init(|| {
            let attributes = and(&self.attributes, attribute::STATUS, of_code::name(code));
            let HandledInstruments { duration, sent, received, .. } = &self.with.handled;
            Ended {
                duration: duration.bind(&attributes),
                sent: sent.bind(&attributes),
                received: received.bind(&attributes),
            }
        })
    }
}

/// The method of a call.
#[derive(Debug)]
enum Called {
    By(Arc<Method>),
    /// Of a mounted service, which has not answered at this path yet.
    Unknown {
        path: Box<str>,
        methods: Arc<Methods>,
    },
}

/// Is told of one call. One that is dropped before it has [ended](Self::ended) was cancelled.
#[derive(Debug)]
pub(crate) struct HandledMetrics {
    called: Called,
    start: Instant,
    code: Code,
    sent: usize,
    sending: Lengths,
    received: Option<Arc<AtomicUsize>>,
}

impl HandledMetrics {
    fn started(called: Called, start: Instant) -> Self {
        let (sending, code) = (Lengths::default(), Code::Cancelled);
        Self { called, start, code, sent: 0, sending, received: None }
    }

    /// The body of the request, weighed as it comes.
    pub(crate) fn weigh<B>(&mut self, body: B) -> Weighed<B> {
        let weight = Arc::<AtomicUsize>::default();
        self.received = Some(weight.clone());
        Weighed::new(body, weight)
    }

    /// Some of the response's messages are sent.
    pub(crate) fn sent_data(&mut self, data: &[u8]) {
        self.sent = self.sending.add(data);
        if !data.is_empty() {
            self.answered();
        }
    }

    pub(crate) fn ended(mut self, code: Code) {
        self.code = code;
        if code == Code::Ok {
            self.answered();
        }
    }

    /// Whoever answers at a path has a method there. What fails shows nothing: a layer refuses whom it
    /// does not know whatever they call, and a deadline strikes wherever it leads.
    fn answered(&mut self) {
        if let Called::Unknown { path, methods } = &self.called {
            let path = methods.named.name(path).then_some(&**path);
            self.called = Called::By(begun(methods.get(path, self.start)));
        }
    }
}

impl Drop for HandledMetrics {
    fn drop(&mut self) {
        let method = match &self.called {
            Called::By(method) => method,
            Called::Unknown { methods, .. } => &begun(methods.get(None, self.start)),
        };
        let Ended { duration, sent, received } = method.ended(self.code);
        duration.record(self.start.elapsed().as_secs_f64());
        sent.record(self.sent as u64);
        let weight = self.received.as_ref().map_or(0, |weight| weight.load(Relaxed));
        received.record(weight as u64);
    }
}
