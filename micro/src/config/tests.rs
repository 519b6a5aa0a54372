use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    time::Duration,
};

#[cfg(feature = "mdns")]
use super::setting::Entry;
use super::{Given, Setting, Value};

fn given(variables: &[(&str, &str)], flags: &[(Setting, &str)]) -> Given {
    let value = |name: &str| {
        let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
        Some(OsString::from(value))
    };
    let mut given = Given::by_environment(value);
    given.set_flags(flags.iter().map(|(setting, value)| (*setting, (*value).to_owned())).collect());
    given
}

fn url(variables: &[(&str, &str)], flag: Option<&str>, code: Option<&str>) -> String {
    let flag: Vec<_> = flag.into_iter().map(|url| (Setting::Registry, url)).collect();
    match given(variables, &flag).registry_url(code.map(str::to_owned)) {
        Ok(Value { value, source }) => format!("{value} by {source}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_code() {
    const VARIABLES: &[(&str, &str)] = &[("MICRO_REGISTER_TTL", "20s")];
    const FLAGS: &[(Setting, &str)] = &[(Setting::RegisterTtl, "10")];
    let code = Some(Duration::from_secs(30));
    for (variables, flags, code, seconds, source) in [
        (VARIABLES, FLAGS, code, 10, "--register-ttl"),
        (VARIABLES, &[], code, 20, "MICRO_REGISTER_TTL"),
        (&[], &[], code, 30, "register_ttl()"),
        (&[], FLAGS, None, 10, "--register-ttl"),
        (&[("MICRO_REGISTER_TTL", "")], &[], code, 30, "register_ttl()"),
    ] {
        let value = given(variables, flags).duration(Setting::RegisterTtl, code);
        let value = value.expect("it can be read").expect("there is one");
        assert_eq!((value.value.as_secs(), &*value.source.to_string()), (seconds, source));
    }
    let nothing = given(&[], &[]).duration(Setting::RegisterTtl, None);
    assert_eq!(nothing.expect("nothing to read"), None);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_name_its_value_and_the_form() {
    let text = |variables: &[(&str, &str)], flags: &[(Setting, &str)], setting| {
        let given = given(variables, flags);
        let error = match setting {
            Setting::ClientRetries => given.number(setting, Some(1)).expect_err("no number"),
            Setting::ServerMetadata => given.pairs(setting, BTreeMap::new()).expect_err("no pairs"),
            _ => given.duration(setting, Some(Duration::ZERO)).expect_err("no duration"),
        };
        assert!(error.is_config());
        error.to_string()
    };
    assert_eq!(
        text(&[("MICRO_REGISTER_TTL", "15 parsecs")], &[], Setting::RegisterTtl),
        "MICRO_REGISTER_TTL is '15 parsecs': write a duration over 0, such as 15s, 200ms or 15 (seconds)"
    );
    assert_eq!(
        text(&[("MICRO_REGISTER_TTL", "15s")], &[(Setting::RegisterTtl, "")], Setting::RegisterTtl),
        "--register-ttl is '': write a duration over 0, such as 15s, 200ms or 15 (seconds)"
    );
    assert_eq!(
        text(&[("MICRO_CLIENT_REQUEST_TIMEOUT", "0")], &[], Setting::ClientRequestTimeout),
        "MICRO_CLIENT_REQUEST_TIMEOUT is '0': write a duration over 0, such as 5s, 200ms or 5 \
         (seconds)"
    );
    let flag = [(Setting::ClientRequestTimeout, "0ms")];
    let text_of_flag = text(&[], &flag, Setting::ClientRequestTimeout);
    assert!(text_of_flag.starts_with("--client-request-timeout is '0ms': write a duration over 0"));
    let zero = given(&[], &[]).duration(Setting::ClientRequestTimeout, Some(Duration::ZERO));
    assert!(zero.expect("in code it is a choice").is_some());
    assert_eq!(
        text(&[("MICRO_CLIENT_RETRIES", "-1")], &[], Setting::ClientRetries),
        "MICRO_CLIENT_RETRIES is '-1': write a number such as 3; what is over 4 counts as 4"
    );
    for pairs in ["zone", "note=a,b", "=a", "a=1,", "zone:a"] {
        let text = text(&[("MICRO_SERVER_METADATA", pairs)], &[], Setting::ServerMetadata);
        let start = format!("MICRO_SERVER_METADATA is '{pairs}': write key=value pairs");
        assert!(text.starts_with(&start), "{text}");
    }
}

#[test]
fn an_empty_flag_is_refused_and_sets_nothing_aside() {
    for (setting, text) in [
        (Setting::Registry, "--registry is '': write a URL such as etcd://127.0.0.1:2379"),
        (Setting::ServerVersion, "--server-version is '': write a version such as 1.2.0"),
        (Setting::ServerAddress, "--server-address is '': write host:port, such as 0.0.0.0:8080"),
        (Setting::ServerAdvertise, "--server-advertise is '': write host:port or host"),
    ] {
        let variables = [(setting.entry().variable, "a"), ("MICRO_REGISTRY", "memory://a")];
        let error = given(&variables, &[(setting, "")]).string(setting, Some("b".to_owned()));
        let error = error.expect_err("it is empty").to_string();
        assert!(error.starts_with(text), "{error}");
    }
    let given = given(&[("MICRO_REGISTRY", "memory://a")], &[(Setting::Registry, "")]);
    assert!(given.discovery(None).expect_err("it is empty").is_config());
}

fn no_text(variable: &str) -> Given {
    let bytes = b"root:secret\xff@h";
    Given::by_environment(|name| (name == variable).then(|| OsStr::from_bytes(bytes).to_owned()))
}

#[test]
fn a_variable_that_is_no_text_is_refused_with_its_name_its_value_and_the_form() {
    let error = no_text("MICRO_SERVER_ID").string(Setting::ServerId, None).expect_err("no text");
    assert_eq!(
        error.to_string(),
        "MICRO_SERVER_ID is \"root:secret\\xFF@h\", which is not UTF-8: write an id such as greeter-1"
    );
    for (variable, form) in [
        ("MICRO_REGISTRY", "a URL such as etcd://127.0.0.1:2379"),
        ("MICRO_REGISTRY_ADDRESS", "host:port,.."),
    ] {
        let error = no_text(variable).discovery(None).expect_err("no text").to_string();
        assert_eq!(error, format!("{variable} is not UTF-8: write {form}"), "no password");
    }
}

#[test]
fn a_flag_that_wants_no_address_is_not_held_up_by_one() {
    for (flag, url) in [("memory", "memory://"), ("memory://a", "memory://a"), ("mdns", "mdns://")]
    {
        let mut given = no_text("MICRO_REGISTRY_ADDRESS");
        given.set_flags([(Setting::Registry, flag.to_owned())].into());
        assert_eq!(given.registry_url(None).expect("a flag").value, url);
    }
}

#[test]
fn pairs_are_laid_over_each_other_key_by_key() {
    let given = given(
        &[("MICRO_SERVER_METADATA", "b=2,c=2,d=x=y, e = ")],
        &[(Setting::ServerMetadata, "c=3")],
    );
    let code = [("a", "1"), ("b", "1"), ("c", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let pairs = given.pairs(Setting::ServerMetadata, code.into()).expect("pairs");
    let sources = "metadata() and MICRO_SERVER_METADATA and --server-metadata";
    assert_eq!(pairs.sources(), sources);
    let pairs: Vec<_> = pairs.pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(pairs, [("a", "1"), ("b", "2"), ("c", "3"), ("d", "x=y"), ("e", " ")]);
}

#[test]
fn the_registry_is_a_url_or_go_micros_word_and_addresses() {
    const ADDRESS: (&str, &str) = ("MICRO_REGISTRY_ADDRESS", "h1:2379,h2:2379");
    for (variables, flag, code, expected) in [
        (&[("MICRO_REGISTRY", "memory://a")][..], None, Some("memory://b"), "memory://a by MICRO_"),
        (&[("MICRO_REGISTRY", "")], None, Some("memory://b"), "memory://b by registry()"),
        (&[("MICRO_REGISTRY", "x")], Some("memory://c"), Some("y"), "memory://c by --registry"),
        (&[("MICRO_REGISTRY", "etcd"), ADDRESS], None, None, "etcd://h1:2379,h2:2379 by MICRO_"),
        (&[("MICRO_REGISTRY", "etcd")], None, None, "etcd://127.0.0.1:2379 by MICRO_REGISTRY"),
        (&[("MICRO_REGISTRY", "zookeeper")], None, None, "zookeeper://127.0.0.1:2181 by MICRO_"),
        (&[("MICRO_REGISTRY", "consul")], None, None, "consul://127.0.0.1:8500 by MICRO_REGISTRY"),
        (&[("MICRO_REGISTRY", "nacos")], None, None, "nacos://127.0.0.1:8848 by MICRO_REGISTRY"),
        (&[("MICRO_REGISTRY", "nats")], None, None, "nats://127.0.0.1:4222 by MICRO_REGISTRY"),
        (&[("MICRO_REGISTRY", "memory")], None, None, "memory:// by MICRO_REGISTRY"),
        (&[("MICRO_REGISTRY", "mdns")], None, None, "mdns:// by MICRO_REGISTRY"),
        (&[ADDRESS], None, Some("etcd"), "etcd://h1:2379,h2:2379 by registry()"),
        (&[ADDRESS], Some("etcd"), None, "etcd://h1:2379,h2:2379 by --registry"),
        (&[("MICRO_REGISTRY", "memory://"), ADDRESS], Some("etcd://a"), None, "etcd://a by --reg"),
        (&[ADDRESS], Some("memory"), None, "memory:// by --registry"),
        // An error by itself, and the address not at fault.
        (&[("MICRO_REGISTRY", "eureka"), ADDRESS], None, None, "eureka:// by MICRO_REGISTRY"),
        (&[("MICRO_REGISTRY", "h1:2379")], None, None, "h1:2379 by MICRO_REGISTRY"),
        #[cfg(feature = "mdns")]
        (&[], None, None, "mdns:// by the default"),
        #[cfg(not(feature = "mdns"))]
        (&[], None, None, " by the default"),
    ] {
        let url = url(variables, flag, code);
        assert!(url.starts_with(expected), "{variables:?}, {flag:?}, {code:?}: {url}");
    }
}

#[test]
fn the_error_for_a_registry_names_what_was_written() {
    for (variables, code, end) in [
        (&[("MICRO_REGISTRY", "eureka")][..], None, "`eureka` from MICRO_REGISTRY stands for)"),
        (&[("MICRO_REGISTRY", "static")], None, "`static` from MICRO_REGISTRY stands for)"),
        (&[], Some("eureka"), "`eureka` from registry() stands for)"),
        (&[("MICRO_REGISTRY", "consul://")], None, "(from MICRO_REGISTRY)"),
    ] {
        let error = given(variables, &[]).discovery(code.map(str::to_owned)).expect_err(end);
        assert!(error.to_string().ends_with(end), "{error}");
    }
}

#[test]
fn addresses_beside_anything_but_a_word_are_refused_with_what_to_write() {
    const ADDRESS: (&str, &str) = ("MICRO_REGISTRY_ADDRESS", "root:secret@h1:2379");
    for (variables, code, beside) in [
        (&[("MICRO_REGISTRY", "etcd://h2"), ADDRESS][..], None, "a URL, by MICRO_REGISTRY"),
        (&[ADDRESS], Some("etcd://h2"), "a URL, by registry()"),
        (&[("MICRO_REGISTRY", "mdns://"), ADDRESS], None, "a URL, by MICRO_REGISTRY"),
        (
            &[("MICRO_REGISTRY", "memory"), ADDRESS],
            None,
            "memory, by MICRO_REGISTRY, which takes no address: it only completes",
        ),
        (&[ADDRESS], None, "no registry"),
    ] {
        let text = url(variables, None, code);
        assert!(text.contains(&format!("is set beside {beside}")), "{text}");
        assert!(text.contains("write MICRO_REGISTRY=etcd://root:***@h1:2379"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn no_error_about_a_registry_shows_its_password() {
    for url in ["nowhere://root:secret@h", "root:secret@h", "static://root:secret@h", "secret@h"] {
        for (variables, flags, source) in [
            (&[("MICRO_REGISTRY", url)][..], &[][..], "MICRO_REGISTRY"),
            (&[], &[(Setting::Registry, url)], "--registry"),
        ] {
            let error = given(variables, flags).discovery(None).expect_err(url);
            let text = format!("{error:?}");
            assert!(text.contains(source) && !text.contains("secret"), "{text}");
        }
    }
}

#[test]
fn the_tests_of_this_crate_have_an_empty_environment() {
    for setting in Setting::ALL {
        assert_eq!(Given::by_process().text(setting).expect("nothing to read"), None);
    }
}

#[cfg(feature = "mdns")]
#[test]
fn the_guides_table_of_settings_is_this_rooms() {
    let chapter = include_str!("../guide/configuration.md");
    let rows: Vec<_> = chapter.lines().filter(|line| line.starts_with("| `MICRO_")).collect();
    let expected = Setting::ALL.map(|setting| {
        let Entry { variable, flag, method, default, .. } = setting.entry();
        let flag = flag.map(|flag| format!("`--{flag}` ")).unwrap_or_default();
        format!(
            "| `{variable}` | {flag}| `{method}` | {} |",
            default.replace("mdns://", "`mdns://`")
        )
    });
    assert_eq!(rows, expected);
}
