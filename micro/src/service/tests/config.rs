use std::{ffi::OsString, time::Duration};

use crate::{
    Client, Service, ServiceBuilder, client,
    config::{Given, Setting},
    duration, registration,
};

fn environment(variables: &[(&str, &str)]) -> Given {
    Given::by_environment(|name| {
        let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
        Some(OsString::from(value))
    })
}

fn builder(variables: &[(&str, &str)]) -> ServiceBuilder {
    let mut builder = Service::builder("greeter").registry("memory://service-config");
    builder.given = environment(variables);
    builder
}

#[tokio::test]
async fn the_environment_goes_before_the_code() {
    let variables = &[
        ("MICRO_REGISTRY", "memory://service-config-env"),
        ("MICRO_SERVER_NAME", "other"),
        ("MICRO_SERVER_VERSION", "2.0.0"),
        ("MICRO_SERVER_ID", "other-1"),
        ("MICRO_SERVER_ADDRESS", "127.0.0.2:0"),
        ("MICRO_SERVER_ADVERTISE", "node.test:99"),
        ("MICRO_SERVER_METADATA", "zone=b"),
        ("MICRO_REGISTER_TTL", "9"),
        ("MICRO_CLIENT_REQUEST_TIMEOUT", "200ms"),
        ("MICRO_CLIENT_RETRIES", "1"),
    ];
    let code = |builder: ServiceBuilder| {
        builder.version("1.0.0").id("greeter-1").metadata("zone", "a").metadata("rack", "7")
    };
    let service = code(builder(variables)).build().await.expect("a service");
    assert_eq!((service.name(), service.id()), ("other", "other-1"));
    assert_eq!(service.discovery.name(), "memory://service-config-env");
    let settings = &service.settings;
    assert_eq!((&*settings.version, &*settings.address.value), ("2.0.0", "127.0.0.2:0"));
    assert_eq!((&*settings.metadata.pairs["zone"], &*settings.metadata.pairs["rack"]), ("b", "7"));
    let registration = &settings.registration;
    assert_eq!((registration.ttl.as_secs(), registration.interval.as_secs()), (9, 3));
    let client = format!("{:?}", service.client());
    assert!(client.contains("request_timeout: 200ms, "), "{client}");
    assert!(client.contains("max_attempts: 2,"), "{client}");
    let handle = service.start().await.expect("a free port");
    assert_eq!(handle.address(), "node.test:99");
    handle.stop().await.expect("a clean exit");

    let service = code(builder(variables)).without_env().build().await.expect("a service");
    assert_eq!((service.name(), service.id()), ("greeter", "greeter-1"));
    assert_eq!(service.discovery.name(), "memory://service-config");
}

#[tokio::test]
async fn the_error_for_a_value_says_where_it_came_from() {
    let ms = Duration::from_millis;
    let (ttl, interval) = ("MICRO_REGISTER_TTL", "MICRO_REGISTER_INTERVAL");
    for (builder, texts) in [
        (builder(&[(ttl, "15 parsecs")]), ["MICRO_REGISTER_TTL is '15 parsecs': ", "15s, 200ms"]),
        (builder(&[(interval, "8s")]), ["TTL is from the default", "from MICRO_REGISTER_INTERVAL"]),
        (
            builder(&[(ttl, "6s")]).register_interval(ms(5000)),
            ["the TTL is from MICRO_REGISTER_TTL, ", "the interval from register_interval()"],
        ),
        (builder(&[("MICRO_SERVER_NAME", "two words")]), ["two words", "(from MICRO_SERVER_NAME)"]),
        (builder(&[("MICRO_SERVER_ID", "..")]), ["id \"..\"", "(from MICRO_SERVER_ID)"]),
        (builder(&[]).id(""), ["id \"\" is empty", "(from id())"]),
        (builder(&[("MICRO_REGISTRY", "zk")]), ["scheme `zk`", "`zk` from MICRO_REGISTRY"]),
        (builder(&[("MICRO_CLIENT_RETRIES", "few")]), ["MICRO_CLIENT_RETRIES is 'few'", "write a"]),
    ] {
        let error = builder.build().await.expect_err(texts[0]);
        let text = error.to_string();
        assert!(error.is_config() && texts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[tokio::test]
async fn the_error_for_an_address_says_where_it_came_from() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    for (variable, address, texts) in [
        ("MICRO_SERVER_ADDRESS", &*taken, [&*taken, "the address is from MICRO_SERVER_ADDRESS"]),
        ("MICRO_SERVER_ADDRESS", ":0", ["write 0.0.0.0:0", "is from MICRO_SERVER_ADDRESS"]),
        ("MICRO_SERVER_ADVERTISE", "8080", ["write host:8080", "(from MICRO_SERVER_ADVERTISE)"]),
    ] {
        let service = builder(&[(variable, address)]).build().await.expect("a service");
        let text = service.start().await.expect_err(address).to_string();
        assert!(texts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_the_form() {
    let form = Setting::ServerAddress.entry().form;
    for address in ["0.0.0.0", "abc", "127.0.0.1:99999", " 127.0.0.1:0", "[fe80::1%lo]:0"] {
        let service = builder(&[("MICRO_SERVER_ADDRESS", address)]).build().await;
        let text = service.expect("a service").start().await.expect_err(address).to_string();
        let end = format!("write {form} (the address is from MICRO_SERVER_ADDRESS)");
        assert!(text.ends_with(&end), "{text}");
    }
    let empty = builder(&[]).address("").build().await.expect("a service").start().await;
    let text = empty.expect_err("it is empty").to_string();
    assert!(text.contains(form) && !text.contains("127.0.0.1:,"), "{text}");
}

#[tokio::test]
async fn an_address_of_many_machines_is_not_listened_on() {
    for variables in [
        &[("MICRO_SERVER_ADDRESS", "224.0.0.1:0")][..],
        &[("MICRO_SERVER_ADDRESS", "224.0.0.1:0"), ("MICRO_SERVER_ADVERTISE", "127.0.0.1")],
    ] {
        let service = builder(variables).build().await.expect("a service");
        let error = service.start().await.expect_err("nobody can call it");
        assert!(error.is_config());
        let text = error.to_string();
        assert!(text.starts_with("the server cannot be called at 224.0.0.1:"), "{text}");
        assert!(text.ends_with("(the address is from MICRO_SERVER_ADDRESS)"), "{text}");
    }
}

#[cfg(feature = "mdns")]
#[tokio::test]
async fn the_error_for_a_record_says_where_each_part_of_it_is_from() {
    let builder =
        |variables: &[_]| builder(&[&[("MICRO_REGISTRY", "mdns://")], variables].concat());
    // Nothing that could be compressed.
    let noise = (0..40_000_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)));
    let large = format!("a={}", noise.collect::<String>());
    for (builder, part) in [
        (builder(&[("MICRO_SERVER_ADVERTISE", "a.b:5")]), "address from MICRO_SERVER_ADVERTISE"),
        (
            builder(&[("MICRO_SERVER_ADDRESS", "127.0.0.1:0")]).advertise("a.b:5"),
            "address from advertise()",
        ),
        (
            builder(&[("MICRO_SERVER_METADATA", &large)]).metadata("b", "c"),
            "metadata from metadata() and MICRO_SERVER_METADATA",
        ),
        (builder(&[("MICRO_SERVER_ID", "a..b")]), "id from MICRO_SERVER_ID"),
    ] {
        let error = builder.build().await.expect("a service").start().await.expect_err(part);
        let text = error.to_string();
        assert!(error.is_config() && text.contains(part), "{part}: {text}");
    }
}

#[cfg(feature = "mdns")]
#[tokio::test]
async fn the_error_for_a_registry_that_cannot_work_here_says_where_it_is_from() {
    // Reserved for documentation (RFC 5737): no machine has it.
    let service = builder(&[("MICRO_REGISTRY", "mdns://192.0.2.1")]).build().await;
    let error = service.expect("a service").start().await.expect_err("no such interface");
    assert!(error.to_string().ends_with("(from MICRO_REGISTRY)"), "{error}");
}

#[test]
fn more_retries_than_grpc_knows_count_as_four() {
    for (retries, attempts) in [("0", 1), ("4", 5), ("5", 5), ("4294967295", 5)] {
        let given = environment(&[("MICRO_CLIENT_RETRIES", retries)]);
        let settings = client::Settings::default().given(&given, None, Some(1)).expect("a number");
        assert_eq!(settings.max_attempts, attempts, "{retries}");
    }
    let client = Client::builder().registry("memory://").retries(7).build().expect("a client");
    assert!(format!("{client:?}").contains("max_attempts: 5,"), "{client:?}");
}

#[test]
fn the_tables_defaults_are_the_ones_in_force() {
    let of = |setting: Setting| setting.entry().default;
    let options = registration::Options::default();
    assert_eq!(duration::parse(of(Setting::RegisterTtl)), Some(options.ttl));
    let third = ("a third of the TTL", options.ttl / 3);
    assert_eq!((of(Setting::RegisterInterval), options.interval), third);
    let settings = client::Settings::default();
    assert_eq!(duration::parse(of(Setting::ClientRequestTimeout)), Some(settings.request_timeout));
    assert_eq!(of(Setting::ClientRetries), (settings.max_attempts - 1).to_string());
}

#[tokio::test]
async fn the_tables_other_defaults_are_the_ones_in_force() {
    let of = |setting: Setting| setting.entry().default;
    let service = builder(&[]).build().await.expect("a service");
    assert_eq!(service.settings.version, of(Setting::ServerVersion));
    assert_eq!(service.settings.address.value, of(Setting::ServerAddress));
    let uuid = service.id().strip_prefix("greeter-").expect("the name and a dash");
    uuid.parse::<uuid::Uuid>().expect("a UUID");
}

#[test]
fn the_builders_docs_name_every_variable_flag_and_method() {
    let docs = |source: &'static str| -> String {
        source.lines().filter(|line| line.trim_start().starts_with("///")).collect()
    };
    let docs = docs(include_str!("../../client/builder.rs")) + &docs(include_str!("../builder.rs"));
    for setting in Setting::ALL {
        let entry = setting.entry();
        let flag = entry.flag.map(|flag| format!("`--{flag}`"));
        let method = format!("[`{}`]", entry.method.trim_end_matches("()"));
        for name in [Some(format!("`{}`", entry.variable)), flag, Some(method)].iter().flatten() {
            assert!(docs.contains(name.as_str()), "{name}");
        }
    }
}
