//! The process's meter provider, and what it has when it is asked: on the thread that asks, where
//! time may be paused.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality,
        data::{AggregatedMetrics, MetricData, ResourceMetrics},
        reader::MetricReader,
    },
};

/// A reader that its provider and the tests share.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<ManualReader>);

impl MetricReader for Shared {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// One value, and of what it is.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) kind: &'static str,
    pub(crate) attributes: BTreeMap<String, String>,
    /// A histogram's is the sum of what it has.
    pub(crate) value: f64,
    /// How many values a histogram has.
    pub(crate) count: u64,
}

/// All series that there were at one moment.
#[derive(Debug)]
pub(crate) struct Collected(pub(crate) Vec<Series>);

impl Collected {
    /// What there is now. The first call installs the provider, once for all tests of the process.
    pub(crate) fn now() -> Self {
        static READER: OnceLock<Shared> = OnceLock::new();
        let reader = READER.get_or_init(|| {
            let reader = Shared::default();
            let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
            global::set_meter_provider(provider);
            reader
        });
        let mut metrics = ResourceMetrics::default();
        reader.collect(&mut metrics).expect("the provider is there");
        let mut all = Vec::new();
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let (kind, points) = match metric.data() {
                AggregatedMetrics::F64(data) => points(data, |value| value),
                AggregatedMetrics::I64(data) => points(data, |value| value as f64),
                AggregatedMetrics::U64(data) => points(data, |value| value as f64),
            };
            all.extend(points.into_iter().map(|(attributes, value, count)| Series {
                name: metric.name().to_owned(),
                unit: metric.unit().to_owned(),
                kind,
                attributes,
                value,
                count,
            }));
        }
        Self(all)
    }

    /// Those of this registry alone.
    pub(crate) fn of(registry: &str) -> Self {
        Self::with("micro.registry", registry)
    }

    /// Those with this attribute alone.
    pub(crate) fn with(attribute: &str, value: &str) -> Self {
        let Self(mut all) = Self::now();
        all.retain(|it| it.attributes.get(attribute).is_some_and(|it| it == value));
        Self(all)
    }

    /// The value of the one series of this name that has these attributes, if there is one.
    pub(crate) fn get(&self, name: &str, attributes: &[(&str, &str)]) -> Option<f64> {
        self.find(name, attributes).map(|it| it.value)
    }

    /// How many values the one histogram of this name has that has these attributes.
    pub(crate) fn count(&self, name: &str, attributes: &[(&str, &str)]) -> u64 {
        self.find(name, attributes).map_or(0, |it| it.count)
    }

    fn find(&self, name: &str, attributes: &[(&str, &str)]) -> Option<&Series> {
        let has = |it: &&Series| {
            let mut attributes = attributes.iter();
            let all = attributes
                .all(|(name, value)| it.attributes.get(*name).is_some_and(|it| it == value));
            it.name == name && all
        };
        let found: Vec<_> = self.0.iter().filter(has).collect();
        assert!(found.len() < 2, "one series: {found:?}");
        found.first().copied()
    }
}

type Points = Vec<(BTreeMap<String, String>, f64, u64)>;

fn points<T: Copy + Debug>(
    data: &MetricData<T>,
    value: impl Fn(T) -> f64,
) -> (&'static str, Points) {
    match data {
        MetricData::Gauge(gauge) => {
            let point = gauge.data_points().map(|it| (text(it.attributes()), value(it.value()), 1));
            ("gauge", point.collect())
        }
        MetricData::Sum(sum) => {
            let point = sum.data_points().map(|it| (text(it.attributes()), value(it.value()), 1));
            (if sum.is_monotonic() { "counter" } else { "up-down counter" }, point.collect())
        }
        MetricData::Histogram(histogram) => {
            let points = histogram.data_points();
            let points = points.map(|it| (text(it.attributes()), value(it.sum()), it.count()));
            ("histogram", points.collect())
        }
        other => panic!("no instrument is of this kind: {other:?}"),
    }
}

fn text<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> BTreeMap<String, String> {
    attributes.map(|it| (it.key.to_string(), it.value.to_string())).collect()
}
