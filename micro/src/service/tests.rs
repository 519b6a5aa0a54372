use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    Client, Service,
    discovery::Update,
    fixture::{Echo, Log, Stub, Word, client, register, registered, start},
    registration::RegistrationState,
    registry,
};

mod address;
mod config;
mod hooks;
mod log;

async fn nodes(registry: &str, service: &str) -> usize {
    let registry = registry::open(registry).expect("a registry");
    registry.read(service).await.expect("memory answers").entries.len()
}

#[tokio::test]
async fn a_service_is_registered_with_all_that_its_record_tells() {
    let registry = "memory://service-record";
    let mut service = Service::builder("greeter")
        .registry(registry)
        .version("1.2.0")
        .id("greeter-1")
        .metadata("zone", "a")
        .build()
        .await
        .expect("a service");
    register(service.server(), Echo::named("greeter"));
    let handle = service.start().await.expect("a free port");
    registered(&handle).await;

    let listing = registry::open(registry).expect("open").read("greeter").await.expect("read");
    let node = &listing.entries[0].node;
    assert_eq!((&*node.id, &*node.version), ("greeter-1", "1.2.0"));
    assert_eq!(node.address, handle.address());
    assert_eq!(node.metadata["zone"], "a");
    assert!(node.is_grpc());
    let endpoints: Vec<_> = node.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
    let all = ["Chat", "Collect", "Down", "Follow", "Read", "Say", "Up"];
    assert_eq!(endpoints, all.map(|method| format!("Echo.{method}")));
    handle.stop().await.expect("a clean exit");
    assert_eq!(nodes(registry, "greeter").await, 0, "stopped: deregistered");
}

#[tokio::test]
async fn a_node_is_in_every_registry_that_the_url_names_and_found_in_each() {
    let [one, two] = ["memory://service-several-1", "memory://service-several-2"];
    let both = format!("{one},{two}");
    let handle = start(&both, "greeter", Echo::named("greeter")).await;
    while nodes(one, "greeter").await + nodes(two, "greeter").await < 2 {
        tokio::task::yield_now().await;
    }
    let other = start(two, "greeter", Echo::named("other")).await;
    let client = client(&both);
    let mut found = client.discovery().subscribe("greeter");
    let mut ids = BTreeSet::new();
    while ids.len() < 2 {
        match found.next().await.expect("an update") {
            Update::Reset(nodes) => ids.extend(nodes.iter().map(|node| node.id.clone())),
            Update::Insert(node) => drop(ids.insert(node.id.clone())),
            Update::Remove(_) | Update::Forget => panic!("both are there"),
        }
    }
    assert_eq!(client.discovery().registries().len(), 2);
    Stub::new("greeter", &client).say(Word::new("hello")).await.expect("one answers");
    handle.stop().await.expect("a clean exit");
    assert_eq!((nodes(one, "greeter").await, nodes(two, "greeter").await), (0, 1));
    other.stop().await.expect("a clean exit");
}

#[tokio::test]
async fn a_failing_check_keeps_the_node_out_until_it_passes() {
    let registry = "memory://service-check";
    let is_fit = Arc::new(AtomicBool::new(false));
    let fit = is_fit.clone();
    let mut service = Service::builder("greeter")
        .registry(registry)
        .register_ttl(Duration::from_millis(300))
        .register_interval(Duration::from_millis(20))
        .register_check(move || {
            let is_fit = fit.load(Ordering::SeqCst);
            async move { if is_fit { Ok(()) } else { Err("no database") } }
        })
        .build()
        .await
        .expect("a service");
    register(service.server(), Echo::named("greeter"));
    let handle = service.start().await.expect("a free port");
    assert_eq!(nodes(registry, "greeter").await, 0, "unfit: not registered");
    is_fit.store(true, Ordering::SeqCst);
    registered(&handle).await;
    assert_eq!(nodes(registry, "greeter").await, 1);
    is_fit.store(false, Ordering::SeqCst);
    let out = |state: &RegistrationState| *state == RegistrationState::Idle;
    handle.registration().wait_for(out).await.expect("the service runs");
    is_fit.store(true, Ordering::SeqCst);
    registered(&handle).await;
    handle.stop().await.expect("a clean exit");
}

#[tokio::test]
async fn health_follows_the_registration() {
    let registry = "memory://service-health";
    let is_fit = Arc::new(AtomicBool::new(false));
    let fit = is_fit.clone();
    let mut service = Service::builder("greeter")
        .registry(registry)
        .register_ttl(Duration::from_millis(300))
        .register_interval(Duration::from_millis(20))
        .register_check(move || {
            let is_fit = fit.load(Ordering::SeqCst);
            async move { if is_fit { Ok(()) } else { Err("no database") } }
        })
        .build()
        .await
        .expect("a service");
    register(service.server(), Echo::named("greeter"));
    let handle = service.start().await.expect("a free port");

    let direct = format!("static://greeter={}", handle.address());
    let mut health = HealthClient::new(client(&direct).channel("greeter"));
    let request = HealthCheckRequest { service: "test.Echo".to_owned() };
    let mut changes = health.watch(request).await.expect("a stream").into_inner();
    let mut next = async || changes.message().await.expect("ok").expect("a change").status();
    assert_eq!(next().await, ServingStatus::NotServing, "the check has not passed");
    is_fit.store(true, Ordering::SeqCst);
    assert_eq!(next().await, ServingStatus::Serving);
    let stopping = tokio::spawn(handle.stop());
    assert_eq!(next().await, ServingStatus::NotServing, "leaving");
    stopping.await.expect("a watch on health keeps nobody").expect("a clean exit");
}

#[tokio::test]
async fn a_call_under_way_finishes_when_its_node_leaves() {
    let registry = "memory://service-drain";
    let handle = start(registry, "greeter", Echo::named("greeter")).await;
    let stub = Stub::new("greeter", &client(registry));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let words = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut chat = stub.chat(words).await.expect("a stream").into_inner();
    sender.send(Word::new("one")).await.expect("open");
    assert_eq!(chat.message().await.expect("ok").expect("a word").text, "one");

    let stopped = tokio::spawn(handle.stop());
    while nodes(registry, "greeter").await > 0 {
        tokio::task::yield_now().await;
    }
    sender.send(Word::new("two")).await.expect("still open");
    assert_eq!(chat.message().await.expect("ok").expect("a word").text, "two");
    drop(sender);
    assert!(chat.message().await.expect("status ok").is_none());
    stopped.await.expect("the last call has ended").expect("a clean exit");
}

#[tokio::test]
async fn a_call_that_does_not_finish_is_cut_at_the_drain_timeout() {
    let registry = "memory://service-cut";
    let mut service = Service::builder("greeter")
        .registry(registry)
        .drain_timeout(Duration::from_millis(50))
        .build()
        .await
        .expect("a service");
    let echo = Echo::named("greeter");
    let running = echo.running.clone();
    register(service.server(), echo);
    let handle = service.start().await.expect("a free port");
    registered(&handle).await;
    let stub = Stub::new("greeter", &client(registry));
    let call = tokio::spawn(stub.say(Word::new("sleep")).into_future());
    while running.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    handle.stop().await.expect("a clean exit");
    let status = call.await.expect("no panic").expect_err("the handler sleeps for ever");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
}

#[tokio::test]
async fn the_shutdown_future_ends_a_service() {
    let registry = "memory://service-shutdown";
    let (stop, stopped) = oneshot::channel::<()>();
    let mut service = Service::builder("greeter")
        .registry(registry)
        .shutdown(async {
            let _ = stopped.await;
        })
        .build()
        .await
        .expect("a service");
    register(service.server(), Echo::named("greeter"));
    let running = tokio::spawn(service.run());
    let stub = Stub::new("greeter", &client(registry));
    stub.say(Word::new("who?")).await.expect("it serves");
    stop.send(()).expect("it listens");
    running.await.expect("no panic").expect("a clean exit");
    assert_eq!(nodes(registry, "greeter").await, 0);
}

#[tokio::test]
async fn a_panic_of_the_shutdown_future_goes_on_after_the_service_has_left() {
    let registry = "memory://service-shutdown-panic";
    let (stop, stopped) = oneshot::channel::<()>();
    let mut service = Service::builder("greeter")
        .registry(registry)
        .shutdown(async {
            let _ = stopped.await;
            panic!("a user's fault");
        })
        .build()
        .await
        .expect("a service");
    register(service.server(), Echo::named("greeter"));
    let running = tokio::spawn(service.run());
    let stub = Stub::new("greeter", &client(registry));
    stub.say(Word::new("who?")).await.expect("it serves");
    stop.send(()).expect("it listens");
    let panic = running.await.expect_err("the panic goes on").into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"a user's fault"));
    assert_eq!(nodes(registry, "greeter").await, 0, "and the record is gone");
}

#[tokio::test]
async fn several_services_live_in_one_process() {
    let registry = "memory://service-several";
    let one = start(registry, "one", Echo::named("one")).await;
    let two = start(registry, "two", Echo::named("two")).await;
    assert_ne!(one.address(), two.address());
    one.stop().await.expect("a clean exit");
    let reply = Stub::new("two", &client(registry)).say(Word::new("who?")).await.expect("two");
    assert_eq!(reply.into_inner().text, "two");
    two.stop().await.expect("a clean exit");
}

#[tokio::test]
async fn a_service_without_a_handler_says_so_at_its_start_in_one_line() {
    let registry = "memory://service-no-handler";
    let log = Log::down_to(tracing::Level::WARN);
    let service = Service::builder("greeter").registry(registry).build().await;
    let handle = service.expect("a service").start().await.expect("a free port");
    let lines = log.lines_with("no handler is registered");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("register_greeter_handler("),
        "{lines:?}"
    );
    let stub = Stub::new("greeter", &client(registry));
    let status = stub.say(Word::new("who?")).await.expect_err("nobody handles it");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().contains("no handler is registered on this server"), "{status}");
    handle.stop().await.expect("a clean exit");

    let handle = start(registry, "greeter", Echo::named("greeter")).await;
    handle.stop().await.expect("a clean exit");
    assert_eq!(log.lines_with("no handler is registered").len(), 1, "with a handler: no line");
}

#[tokio::test]
async fn a_second_node_of_one_id_in_one_process_is_refused() {
    let registry = "memory://service-one-id";
    let service = async |id: &str| {
        let builder = Service::builder("greeter").registry(registry).id(id);
        builder.build().await.expect("a service")
    };
    let first = service("greeter-1").await.start().await.expect("a free port");
    let error = service("greeter-1").await.start().await.expect_err("the id is taken");
    assert!(error.is_config());
    assert_eq!(
        error.to_string(),
        format!(
            "a node of id 'greeter-1' of service 'greeter' runs in this process already, at {}: they \
             would take the record in {registry} from each other; give each an id of its own, or \
             leave the id out for a new one at each start",
            first.address()
        )
    );
    let second = service("greeter-2").await.start().await.expect("another id");
    second.stop().await.expect("a clean exit");
    drop(first);
    let heir = service("greeter-1").await.start().await.expect("its holder is on its way out");
    let error = service("greeter-1").await.start().await.expect_err("taken again");
    assert!(error.to_string().contains(heir.address()), "{error}");
    heir.stop().await.expect("a clean exit");
    service("greeter-1")
        .await
        .start()
        .await
        .expect("free again")
        .stop()
        .await
        .expect("a clean exit");
}

#[tokio::test]
async fn an_id_is_free_once_the_shutdown_future_has_ended_its_holder() {
    let registry = "memory://service-one-id-shutdown";
    let builder = || Service::builder("greeter").registry(registry).id("greeter-1");
    let service = builder().shutdown(async {}).build().await.expect("a service");
    let first = service.start().await.expect("a free port");
    let gone = |state: &RegistrationState| *state == RegistrationState::Gone;
    first.registration().wait_for(gone).await.expect("it leaves");
    let second = builder().build().await.expect("a service").start().await.expect("free");
    second.stop().await.expect("a clean exit");
    first.stop().await.expect("a clean exit");
}

#[tokio::test]
async fn a_name_too_long_for_a_default_id_is_refused_as_such() {
    let builder = |length| Service::builder("n".repeat(length)).registry("memory://service-long");
    builder(218).build().await.expect("the default id has 255 bytes");
    let error = builder(219).build().await.expect_err("the default id has 256");
    let text = error.to_string();
    assert!(error.is_config() && text.contains("name") && text.contains("218"), "{text}");
    builder(255).id("short").build().await.expect("an id of its own");
    let error = builder(256).id("short").build().await.expect_err("256");
    assert!(error.to_string().contains("255"), "{error}");
}

#[cfg(feature = "mdns")]
#[tokio::test]
async fn where_a_name_and_a_uuid_are_too_long_for_mdns_the_uuid_alone_is_the_id() {
    let name = |length| "n".repeat(length);
    for (name, registry, is_alone) in [
        (name(26), "mdns://", false),
        (name(27), "mdns://", true),
        (name(27), "memory://service-uuid", false),
    ] {
        let service = Service::builder(&name).registry(registry).build().await.expect("a service");
        let length = if is_alone { 36 } else { name.len() + 37 };
        assert_eq!(service.id().len(), length, "{registry}: {}", service.id());
    }
    let builder = Service::builder("greeter").registry("mdns://").id("i".repeat(64));
    let error = builder.build().await.expect("a service").start().await.expect_err("an id of 64");
    assert!(error.is_config() && error.to_string().contains("64 bytes"), "{error}");
}

#[tokio::test]
async fn options_as_large_as_they_go_mean_no_bound() {
    const WINDOW: u32 = (1 << 31) - 1;
    let registry = "memory://service-largest";
    let builder = Service::builder("greeter").registry(registry).drain_timeout(Duration::MAX);
    let mut service = builder.build().await.expect("a service");
    register(service.server(), Echo::named("greeter"));
    service
        .server()
        .max_message_size(usize::MAX)
        .max_header_list_size(u32::MAX)
        .max_concurrent_streams(u32::MAX)
        .stream_window(WINDOW)
        .connection_window(WINDOW);
    let handle = service.start().await.expect("a free port");
    let client = Client::builder()
        .registry(registry)
        .request_timeout(Duration::MAX)
        .max_message_size(usize::MAX)
        .build()
        .expect("a client");
    let stub = Stub::new("greeter", &client);
    stub.say(Word::new("who?")).await.expect("it serves");
    stub.say(Word::new("who?")).timeout(Duration::MAX).await.expect("it serves");
    handle.stop().await.expect("a clean exit");
}

#[tokio::test]
async fn options_that_cannot_be_used_are_refused_by_name() {
    let builder = || Service::builder("greeter").registry("memory://service-options");
    let ttl = Duration::from_secs(9);
    for (builder, named) in [
        (builder().register_ttl(ttl).register_interval(ttl), "interval"),
        (builder().register_ttl(Duration::MAX), "TTL"),
        (builder().register_ttl(Duration::ZERO), "TTL"),
        (builder().register_interval(Duration::ZERO), "interval"),
        (builder().register_interval(Duration::MAX), "interval"),
        (builder().id(""), "id"),
        (builder().id("two words"), "two words"),
        (builder().id(".."), ".."),
        (builder().registry("nowhere://x"), "nowhere"),
        (Service::builder("").registry("memory://service-options"), "name"),
    ] {
        let error = builder.build().await.expect_err(named);
        assert!(error.is_config(), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}
