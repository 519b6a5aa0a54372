//! Where a service listens, and what it advertises.

use crate::{
    Service,
    fixture::{Echo, Log, Stub, Word, client, register},
};

#[cfg(feature = "etcd")]
#[tokio::test]
async fn a_loopback_address_in_a_registry_of_many_machines_is_warned_of_at_the_start() {
    let started = async |registry: &str, advertise: &str| {
        let builder = Service::builder("greeter").registry(registry).advertise(advertise);
        builder.build().await.expect("a service").start().await.expect("a free port")
    };
    let log = Log::down_to(tracing::Level::WARN);
    // Reserved for documentation (RFC 5737): nobody is there, and nobody need be.
    let far = started("etcd://127.0.0.1:1,192.0.2.1:1", "127.0.0.1").await;
    let lines = log.lines_with("callers on other machines cannot reach");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains(far.address()), "{lines:?}");
    started("etcd://127.0.0.1:1,localhost:1", "127.0.0.1").await;
    started("etcd://192.0.2.1:1", "10.0.0.7").await;
    assert_eq!(log.lines_with("callers on other machines").len(), 1, "{lines:?}");
}

#[tokio::test]
async fn an_advertised_address_that_the_listener_takes_no_calls_for_is_warned_of() {
    let log = Log::down_to(tracing::Level::WARN);
    let builder = Service::builder("greeter").registry("memory://service-advertised-elsewhere");
    let service = builder.advertise("192.0.2.2").build().await.expect("a service");
    let handle = service.start().await.expect("a free port");
    let lines = log.lines_with("unless something here forwards the calls");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["WARN", handle.address(), "MICRO_SERVER_ADDRESS=0.0.0.0:0 "] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
}

#[tokio::test]
async fn an_error_that_is_not_the_addresss_says_nothing_of_the_address() {
    let builder = Service::builder("greeter").registry("memory://service-scope");
    let mut service = builder.build().await.expect("a service");
    service.server().intercept_on("no.Such", async |request, next| next.run(request).await);
    let error = service.start().await.expect_err("no such service");
    assert!(error.is_config() && !error.to_string().contains("the address is"), "{error}");
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let service = Service::builder("greeter").registry("memory://service-taken").address(&address);
    let error = service.build().await.expect("a service").start().await.expect_err("taken");
    assert_eq!(
        error.to_string(),
        format!(
            "the server cannot listen on {address}: another process or service listens there; \
             choose another port, or 0 for any free one (the address is from address())"
        )
    );
    assert_eq!(error.kind(), crate::ErrorKind::Bind);
}

#[tokio::test]
async fn an_address_of_another_machine_is_an_error_that_says_so() {
    // Reserved for documentation (RFC 5737): no machine has it.
    let service =
        Service::builder("greeter").registry("memory://service-foreign").address("192.0.2.1:0");
    let error = service.build().await.expect("a service").start().await.expect_err("foreign");
    assert_eq!(
        error.to_string(),
        "the server cannot listen on 192.0.2.1:0: no interface of this machine has the address; \
         choose one that has, or 0.0.0.0 for all (the address is from address())"
    );
}

#[tokio::test]
async fn an_address_without_a_host_is_an_error_that_says_what_to_write() {
    for (address, instead) in [(":0", "0.0.0.0:0"), ("8080", "127.0.0.1:8080")] {
        let service =
            Service::builder("greeter").registry("memory://service-host").address(address);
        let error = service.build().await.expect("a service").start().await.expect_err("no host");
        assert!(error.to_string().contains(instead), "{error}");
    }
}

#[tokio::test]
async fn a_node_on_every_interface_can_be_called_at_the_address_it_advertises() {
    let registry = "memory://service-wildcard";
    for address in ["0.0.0.0:0", "[::]:0"] {
        let builder = Service::builder("greeter").registry(registry).address(address);
        let mut service = builder.build().await.expect("a service");
        register(service.server(), Echo::named("greeter"));
        let Ok(handle) = service.start().await else {
            continue; // No IPv6 here.
        };
        let stub = Stub::new("greeter", &client(registry));
        stub.say(Word::new("who?")).await.expect("it listens there");
        handle.stop().await.expect("a clean exit");
    }
}
