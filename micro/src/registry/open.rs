//! From a URL to a registry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Follow, Registry,
    memory::Memory,
    share::try_share,
    static_list::StaticList,
    url::{Url, is_scheme, redacted},
};
use crate::Error;

type Open = fn(&Url) -> Result<Arc<dyn Registry>, Error>;

/// A kind of registry.
struct Kind {
    scheme: &'static str,
    /// A URL to show.
    example: &'static str,
    /// `None` where micro's feature of the scheme's name is off.
    open: Option<Open>,
    /// What else its build needs.
    needs: &'static str,
}

/// The function, where the feature is on.
macro_rules! with {
    ($feature:tt, $open:expr) => {{
        #[cfg(feature = $feature)]
        let open: Option<Open> = Some($open);
        #[cfg(not(feature = $feature))]
        let open: Option<Open> = None;
        open
    }};
}

const KINDS: &[Kind] = &[
    Kind {
        scheme: "mdns",
        example: "mdns://",
        open: with!("mdns", super::mdns::Mdns::open),
        needs: "",
    },
    Kind { scheme: "memory", example: "memory://", open: Some(Memory::open), needs: "" },
    Kind {
        scheme: "static",
        example: "static://greeter=127.0.0.1:3456",
        open: Some(StaticList::open),
        needs: "",
    },
    Kind {
        scheme: "etcd",
        example: "etcd://127.0.0.1:2379",
        open: with!("etcd", super::etcd::Etcd::open),
        needs: ", whose build runs protoc (in Debian: protobuf-compiler and libprotobuf-dev)",
    },
    Kind {
        scheme: "kubernetes",
        example: "kubernetes://namespace",
        open: with!("kubernetes", super::kubernetes::Kubernetes::open),
        needs: "",
    },
    Kind {
        scheme: "nats",
        example: "nats://127.0.0.1:4222",
        open: with!("nats", super::nats::Nats::open),
        needs: "",
    },
    Kind {
        scheme: "nacos",
        example: "nacos://127.0.0.1:8848",
        open: with!("nacos", super::nacos::Nacos::open),
        needs: "",
    },
    Kind {
        scheme: "consul",
        example: "consul://127.0.0.1:8500",
        open: with!("consul", super::consul::Consul::open),
        needs: "",
    },
    Kind {
        scheme: "dns",
        example: "dns://greeter.example:50051",
        open: with!("dns", super::dns::Dns::open),
        needs: "",
    },
    Kind {
        scheme: "file",
        example: "file://nodes.toml",
        open: with!("file", super::file::File::open),
        needs: "",
    },
    Kind {
        scheme: "zookeeper",
        example: "zookeeper://127.0.0.1:2181",
        open: with!("zookeeper", super::zookeeper::ZooKeeper::open),
        needs: "",
    },
];

/// The registries built in, for the texts of errors.
fn built_in() -> String {
    let (on, off): (Vec<_>, Vec<_>) = KINDS.iter().partition(|kind| kind.open.is_some());
    let on: Vec<_> = on.iter().map(|kind| kind.example).collect();
    let off: Vec<_> = off.iter().map(|kind| format!("{}://", kind.scheme)).collect();
    match off.len() {
        0 => on.join(", "),
        _ => format!(
            "{} (and, each with micro's feature of its name, {})",
            on.join(", "),
            off.join(", ")
        ),
    }
}

/// Opens the registry that a URL names. Nothing is connected yet: a registry that is away can be
/// opened, and is reached, or fails, at its first use.
///
/// | URL | registry |
/// |---|---|
/// | `mdns://`, `mdns://192.168.1.7,eth1` | multicast on the loopback interface, or on others too; with the feature `mdns`, which is on by default |
/// | `memory://`, `memory://NAME` | [`Memory`]: one for the process, or one for each name |
/// | `static://greeter=127.0.0.1:3456,127.0.0.1:3457;other=..` | [`StaticList`]: only reads |
/// | `etcd://[user:password@]h1:2379,h2:2379[?format=..&tls=true&ca=..&cert=..&key=..]` | etcd, with the feature `etcd`; 2379 is the default port |
/// | `consul://127.0.0.1:8500[?token=..&dc=..&near=..]`, `consul:///run/consul.sock` | Consul, with the feature `consul`; 8500 is the default port. All options are in [its chapter](crate::guide::registries::consul) |
/// | `nacos://[user:password@]h1:8848,h2:8848[?namespace=..&group=..&cluster=..&grpc_port=..&format=..]` | Nacos, with the feature `nacos`; 8848 is the default port. All options are in [its chapter](crate::guide::registries::nacos) |
/// | `dns://[server/]name[:port]` | what [DNS](crate::guide::registries::dns) says of a name, or of one for each service (`{service}.example:50051`); only reads; with the feature `dns` |
/// | `kubernetes://[namespace][/service[:port]][?kubeconfig=..&context=..&format=micro,kratos&pod=..]` | Kubernetes, with the feature `kubernetes`: the pod's own cluster and namespace, unless named |
/// | `nats://[user:password@]h1:4222,h2:4222[?creds=..&tls=true&ca=..&cert=..&key=..]` | go-micro's bus over NATS, with the feature `nats`; 4222 is the default port; a user alone is a token, and `creds` names a file of credentials |
/// | `file://nodes.toml`, `file:///etc/micro/nodes.toml` | a [file](crate::guide::registries::file) that lists nodes, relative to the working folder or not, read anew when it changes; only reads; with the feature `file` |
/// | `zookeeper://[user:password@]h1:2181,h2:2181[/chroot][?format=..]` | ZooKeeper, with the feature `zookeeper`; 2181 is the default port |
///
/// User and password are percent-decoded: `@` is written `%40`, `/` `%2F`, `?` `%3F`, `#` `%23`.
/// With `tls=true` etcd, or NATS, is spoken to over TLS and its certificate checked against the system's
/// roots; `ca` names a PEM file of roots to check it against instead, `cert` and `key` the PEM
/// files of a client certificate; each of these three implies `tls=true`.
///
/// Every URL may say how its nodes are followed: `cache=FILE` keeps the last known ones in that file,
/// so that a client starts from them while the registry is down, and `max_stale=10m` gives all of them
/// up when the registry has not answered for so long, which it otherwise may for ever. Neither makes
/// another registry of it.
///
/// `format` lists whose records are written and read, `micro` unless it is there (but that at
/// Kubernetes's pods, which is read only if it is named): of etcd's, some of
/// `micro,go-zero,kratos,kitex,etcd`. All that are named are written, and all are read; where one
/// node's record is there in several, the format named first is believed. What each is, and what is
/// lost in it, is in the guide's chapter on [registries](crate::guide::registries#formats).
///
/// One URL opened several times in a process (and runtime) is one registry, whose connections and
/// whose [watches](crate::discovery::Discovery) all share.
///
/// Several registries at once, with commas between them, are opened with [`open_all`], as a
/// [`Service`](crate::Service) and a [`Client`](crate::Client) do.
///
/// # Errors
/// `Config` for a URL that is malformed, has an unknown scheme or option, or needs a feature that
/// is off; the text names the URL without its password, and the remedy.
pub fn open(url: &str) -> Result<Arc<dyn Registry>, Error> {
    match &several(url)[..] {
        [url] => open_one(url).map(|(registry, _)| registry),
        several => {
            let urls: Vec<_> = several.iter().map(|url| redacted(url)).collect();
            Err(Error::config(format!(
                "registry URL `{}` names {} registries, and here is room for one; open them with \
                 registry::open_all",
                urls.join(","),
                urls.len()
            )))
        }
    }
}

/// Opens every registry that is named, in that order: `etcd://h1:2379,h2:2379,consul://h3:8500` are
/// two. A service registers in all of them, each by itself; a client finds the nodes of all. For a
/// fleet that moves from one to another.
///
/// # Errors
/// As [`open`]; and `Config` for one that is there twice.
pub fn open_all(url: &str) -> Result<Vec<Arc<dyn Registry>>, Error> {
    Ok(open_followed(url)?.into_iter().map(|(registry, _)| registry).collect())
}

/// A registry, and how it is followed.
type Followed = (Arc<dyn Registry>, Follow);

/// The same, each with how it is followed.
pub(crate) fn open_followed(url: &str) -> Result<Vec<Followed>, Error> {
    let mut registries: Vec<Followed> = Vec::new();
    for url in several(url) {
        let opened = open_one(url)?;
        if registries.iter().any(|(other, _)| Arc::ptr_eq(other, &opened.0)) {
            let url = redacted(url);
            return Err(Error::config(format!(
                "registry URL `{url}` is there twice; leave one out"
            )));
        }
        registries.push(opened);
    }
    Ok(registries)
}

/// The URLs that are written with commas between them. What follows a comma begins a URL if it has
/// a scheme, and else is one more host.
fn several(urls: &str) -> Vec<&str> {
    let is_url = |text: &str| text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme));
    let mut several = Vec::new();
    let mut start = 0;
    for (comma, _) in urls.match_indices(',') {
        if is_url(&urls[comma + 1..]) {
            several.push(&urls[start..comma]);
            start = comma + 1;
        }
    }
    several.push(&urls[start..]);
    several
}

fn open_one(url: &str) -> Result<Followed, Error> {
    if url.is_empty() {
        return Err(missing());
    }
    if url.ends_with(',') {
        let url = redacted(url);
        return Err(Error::config(format!("registry URL `{url}`: nothing follows its last comma")));
    }
    let mut url = Url::parse(url)?;
    let follow = Follow::taken_from(&mut url)?;
    let scheme = url.scheme.as_str();
    let Some(kind) = KINDS.iter().find(|kind| kind.scheme == scheme) else {
        let own = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner).get(scheme).cloned();
        if let Some(open) = own {
            let text = url.text();
            return Ok((try_share(text.clone(), || open(&text))?, follow));
        }
        let built_in = built_in();
        return Err(
            url.error(format_args!("no registry has the scheme `{scheme}`; built in: {built_in}"))
        );
    };
    match kind.open {
        Some(open) => Ok((open(&url)?, follow)),
        None => Err(url.error(format_args!(
            "{scheme}:// needs micro's feature `{scheme}`{}; write \
             `micro = {{ features = [\"{scheme}\"], .. }}`",
            kind.needs
        ))),
    }
}

type OpenOwn = Arc<dyn Fn(&str) -> Result<Arc<dyn Registry>, Error> + Send + Sync>;

/// What was installed, by scheme.
static INSTALLED: Mutex<BTreeMap<String, OpenOwn>> = Mutex::new(BTreeMap::new());

/// Adds a [registry of your own](crate::guide::registries::own) under a scheme. From then on its URLs
/// are taken wherever ours are: in code, in `MICRO_REGISTRY` and in flags, and beside others.
///
/// `open` is given the URL without `cache` and `max_stale`, and does as [`open`](fn@open) does: it
/// connects nothing yet, and fails with `Config` for a URL that it cannot use. While the registry is
/// held, the same URL is not opened again in the same runtime.
///
/// # Errors
/// `Config` when the scheme is none, or there is a registry of that scheme.
pub fn install<F>(scheme: &str, open: F) -> Result<(), Error>
where
    F: Fn(&str) -> Result<Arc<dyn Registry>, Error> + Send + Sync + 'static,
{
    if !is_scheme(scheme) {
        let scheme = scheme.escape_debug();
        return Err(Error::config(format!(
            "`{scheme}` is no scheme: use letters, digits, `+`, `-` and `.`, and a letter first"
        )));
    }
    let scheme = scheme.to_ascii_lowercase();
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if installed.contains_key(&scheme) || KINDS.iter().any(|kind| kind.scheme == scheme) {
        return Err(Error::config(format!(
            "a registry of the scheme `{scheme}` cannot be installed: there is one already"
        )));
    }
    installed.insert(scheme, Arc::new(open));
    Ok(())
}

/// The error for a program that was given no registry at all: an empty URL.
fn missing() -> Error {
    Error::config(format!(
        "no registry is set; give its URL in the code or as MICRO_REGISTRY; built in: {}",
        built_in()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheme_lists_the_registries_built_in() {
        for scheme in ["consol", "k8s", "zk"] {
            let error = open(&format!("{scheme}://me:secret@a")).unwrap_err();
            let text = error.to_string();
            assert!(error.is_config() && !text.contains("secret"), "{text}");
            assert!(text.contains(&format!("`{scheme}`")), "{text}");
            for built_in in ["mdns", "memory://", "static://", "etcd", "dns", "file"] {
                assert!(text.contains(built_in), "{text} lacks {built_in}");
            }
        }
    }

    #[test]
    fn no_url_is_an_error_that_lists_the_registries_built_in() {
        let text = open("").unwrap_err().to_string();
        assert!(text.contains("MICRO_REGISTRY") && text.contains("static://"), "{text}");
    }

    #[cfg(not(feature = "etcd"))]
    #[test]
    fn a_scheme_whose_feature_is_off_names_the_feature() {
        let text = open("etcd://root:secret@127.0.0.1").unwrap_err().to_string();
        assert!(
            text.contains("feature `etcd`") && text.contains("protoc") && !text.contains("secret"),
            "{text}"
        );
    }

    #[cfg(not(feature = "zookeeper"))]
    #[test]
    fn zookeeper_needs_its_feature() {
        let text = open("zookeeper://root:secret@127.0.0.1").unwrap_err().to_string();
        assert!(text.contains("feature `zookeeper`") && !text.contains("secret"), "{text}");
    }

    #[cfg(not(feature = "mdns"))]
    #[test]
    fn without_mdns_there_is_no_default() {
        let text = open("mdns://").unwrap_err().to_string();
        assert!(text.contains("feature `mdns`"), "{text}");
    }

    #[cfg(feature = "mdns")]
    #[test]
    fn mdns_takes_interfaces_and_nothing_else() {
        for (url, name) in [
            ("mdns://", "mdns://"),
            ("mdns://192.168.1.7", "mdns://192.168.1.7"),
            ("mdns://127.0.0.1", "mdns://"),
            ("mdns://[::1]", "mdns://"),
            ("mdns://eth0", "mdns://eth0"),
            ("mdns://eth0,192.168.1.7,[fd00::7],eth0", "mdns://eth0,192.168.1.7,[fd00::7]"),
        ] {
            let registry = open(url).unwrap();
            assert_eq!(registry.name(), name);
            // What to try for a node that is not found, unless it is tried already.
            let hint = registry.hint().expect("there is one");
            assert!(hint.contains("MICRO_SERVER_ADDRESS"), "{hint}");
            assert_eq!(hint.contains("mdns://ADDRESS"), name == "mdns://", "{hint}");
        }
        for (url, named) in [
            ("mdns://192.168.1", "`192.168.1` is neither an address nor the name of an interface"),
            ("mdns://192.168.1.7:5353", "write `mdns://` for loopback, or `mdns://192.168.1.7`"),
            ("mdns://fd00::7", "`fd00::7` is neither"),
            ("mdns://[eth0]", "`[eth0]`"),
            ("mdns://eth0,,eth1", "``"),
            ("mdns://root:s3cret", "`root:***` is neither"),
            ("mdns://me@127.0.0.1", "takes no user"),
            ("mdns://127.0.0.1/x", "takes no path"),
            ("mdns://?a=b", "`a`"),
        ] {
            let error = open(url).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(named), "{url}: {error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_url_opened_again_is_the_same_registry() {
        let urls = ["memory://open-test-same", "static://a=127.0.0.1:1"];
        #[cfg(feature = "mdns")]
        let urls = [&urls[..], &["mdns://"]].concat();
        #[cfg(feature = "etcd")]
        let urls = [&urls[..], &["etcd://user:password@127.0.0.1:1"]].concat();
        #[cfg(feature = "dns")]
        let urls = [&urls[..], &["dns://127.0.0.1/{service}.example:1"]].concat();
        #[cfg(feature = "file")]
        let urls = [&urls[..], &["file://nodes.toml"]].concat();
        #[cfg(feature = "zookeeper")]
        let urls = [&urls[..], &["zookeeper://user:password@127.0.0.1:1/chroot"]].concat();
        for url in urls {
            let first = open(url).unwrap();
            assert!(Arc::ptr_eq(&first, &open(url).unwrap()), "{url}");
        }
        let is_same = |one, other| Arc::ptr_eq(&open(one).unwrap(), &open(other).unwrap());
        assert!(!is_same("static://a=127.0.0.1:1", "static://a=127.0.0.1:2"));
        #[cfg(feature = "etcd")]
        {
            assert!(is_same("etcd://127.0.0.1", "etcd://127.0.0.1:2379"), "the default port");
            assert!(!is_same("etcd://127.0.0.1", "etcd://user:password@127.0.0.1"));
        }
    }

    #[test]
    fn several_registries_are_told_from_several_hosts() {
        for (urls, parts) in [
            ("etcd://h1:1,h2:2", &["etcd://h1:1,h2:2"][..]),
            ("etcd://h1,h2,consul://h3?dc=a", &["etcd://h1,h2", "consul://h3?dc=a"]),
            ("static://a=h:1,h:2,memory://", &["static://a=h:1,h:2", "memory://"]),
            ("etcd://h?format=a,b,mdns://", &["etcd://h?format=a,b", "mdns://"]),
            ("", &[""]),
        ] {
            assert_eq!(several(urls), parts);
        }
        let registries = open_all("memory://open-all-a,memory://open-all-b").unwrap();
        let names: Vec<_> = registries.iter().map(|it| it.name()).collect();
        assert_eq!(names, ["memory://open-all-a", "memory://open-all-b"]);

        let error = open("memory://a,static://s=h:1").unwrap_err().to_string();
        assert!(error.contains("names 2 registries") && error.contains("open_all"), "{error}");
        for (urls, why) in [
            ("memory://open-all-c,memory://open-all-c", "is there twice"),
            ("memory://a,", "nothing follows its last comma"),
            ("memory://a,nonsense://b", "no registry has the scheme `nonsense`"),
        ] {
            let error = open_all(urls).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{urls}: {error}");
        }
    }

    #[test]
    fn how_a_registry_is_followed_is_no_part_of_it() {
        let opened = open_followed("memory://open-follow?max_stale=1m30s&cache=/a/b.json").unwrap();
        let [(registry, follow)] = &opened[..] else { panic!("one: {opened:?}") };
        let max_stale = Some(std::time::Duration::from_secs(90));
        assert_eq!(*follow, Follow { max_stale, cache: Some("/a/b.json".into()) });
        assert!(Arc::ptr_eq(registry, &open("memory://open-follow").unwrap()));
        for (options, why) in [
            ("max_stale=soon", "option `max_stale`: `soon` is no duration; write it as in `90s`"),
            ("max_stale=0", "`0` is no duration"),
            ("max_stale=", "`` is no duration"),
            ("cache=", "option `cache` names no file"),
            ("cache=a&cache=b", "option `cache` is there twice"),
        ] {
            let error = open(&format!("memory://a?{options}")).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{options}: {error}");
        }
    }

    #[test]
    fn memory_is_one_for_the_process_and_one_for_each_name() {
        let write = |url: &str, node: &str| {
            let node = super::super::Node::new("greeter", node, "127.0.0.1:1");
            let registry = open(url).unwrap();
            futures_util::FutureExt::now_or_never(
                registry.register(&node, std::time::Duration::from_secs(15)),
            )
            .unwrap()
            .unwrap();
        };
        let count = |url: &str| {
            let registry = open(url).unwrap();
            let listing = futures_util::FutureExt::now_or_never(registry.read("greeter"));
            listing.unwrap().unwrap().entries.len()
        };
        write("memory://open-test-a", "1");
        write("memory://open-test-a", "2");
        write("memory://open-test-b", "1");
        assert_eq!((count("memory://open-test-a"), count("memory://open-test-b")), (2, 1));
        assert_eq!(open("memory://open-test-a").unwrap().name(), "memory://open-test-a");
        assert!(open("memory://a?b=c").unwrap_err().to_string().contains("`b`"));
    }
}
