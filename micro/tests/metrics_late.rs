//! A meter provider that is installed when registration and discovery are long under way. It is the
//! process's, so that this is a program of its own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use micro::{
    discovery::Discovery,
    registration::{Options, Registration, RegistrationState},
    registry::{Node, memory::Memory},
};
use opentelemetry::global;
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, SdkMeterProvider,
    data::{AggregatedMetrics, MetricData},
};
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(15);

struct Provider {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Provider {
    fn new() -> Self {
        let exporter = InMemoryMetricExporter::default();
        let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
        Self { provider, exporter }
    }

    fn install(&self) {
        global::set_meter_provider(self.provider.clone());
    }

    /// The names of what it has now, and how many renewals of that.
    fn told(&self) -> (BTreeSet<String>, u64) {
        self.exporter.reset();
        self.provider.force_flush().unwrap();
        let exported = self.exporter.get_finished_metrics().unwrap();
        let (mut names, mut renewals) = (BTreeSet::new(), 0);
        for metric in exported.iter().flat_map(|it| it.scope_metrics()).flat_map(|it| it.metrics())
        {
            assert!(names.insert(metric.name().to_owned()), "{} is there once", metric.name());
            if metric.name() == "micro.registration.renewals"
                && let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data()
            {
                renewals += sum.data_points().map(|point| point.value()).sum::<u64>();
            }
        }
        (names, renewals)
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_installed_late_is_told_from_the_next_event_on() {
    let memory = Arc::new(Memory::new());
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let registration = Registration::start(memory.clone(), node, Options::new(TTL));
    let mut state = registration.state();
    state.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    let mut nodes = Discovery::new(memory).subscribe("greeter");
    nodes.next().await;
    sleep(TTL).await;

    let expected = [
        "micro.discovery.nodes",
        "micro.discovery.revision",
        "micro.discovery.skipped_records",
        "micro.discovery.staleness",
        "micro.discovery.synced",
        "micro.registration.last_success",
        "micro.registration.renewals",
        "micro.registration.status",
    ];
    let expected: BTreeSet<_> = expected.map(str::to_owned).into();
    let [first, second] = [Provider::new(), Provider::new()];
    for provider in [&first, &second] {
        provider.install();
        assert_eq!(provider.told(), (BTreeSet::new(), 0), "nothing has happened since");
        sleep(TTL).await;
        assert_eq!(
            provider.told(),
            (expected.clone(), 3),
            "how all stands, and what happened since"
        );
    }
    second.install();
    sleep(TTL).await;
    assert_eq!(second.told(), (expected, 6), "the same one again");
    assert_eq!(first.told().1, 3, "and the former one no more");
}
