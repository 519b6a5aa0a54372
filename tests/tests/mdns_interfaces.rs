//! `mdns://` on interfaces other than loopback: several, of either family, that come and go. Other
//! machines are namespaces beside the test's own.

use std::{fs, process::Stdio, time::Duration};

use micro::{
    Client, Service,
    registry::{self, Node, Registry},
    testing::registry::Watching,
};
use tests::{
    echo::Echo,
    gomicro::{GoMicro, SERVICE},
    namespace::{Network, inside},
    proto::echo::{EchoClient, SayRequest, register_echo_handler},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    task::yield_now,
    time::{Instant, timeout},
};

/// Longer than anything takes here.
const SOON: Duration = Duration::from_secs(10);

/// What is said of how fast a change of interfaces is seen, and a second for a busy machine.
const SEEN: Duration = Duration::from_secs(3);

/// Wires' far ends, each with the addresses that it has.
const FAR: (&str, &[&str]) = ("far", &["10.9.0.2/24"]);
const FAR2: (&str, &[&str]) = ("far2", &["10.9.1.2/24"]);

/// Runs `ip`.
async fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().await;
    assert!(done.expect("ip runs").success(), "ip {arguments}");
}

/// Another machine at a wire's far end, with a node in it.
async fn machine(
    (end, addresses): (&str, &[&str]),
    service: &str,
    id: &str,
    address: &str,
) -> Child {
    let mut here = "ip link set lo up".to_owned();
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        here += &format!(" && ip addr add {address} dev {end} {nodad}");
    }
    here += &format!(" && ip link set {end} up");
    // Which index the interface has is known there alone.
    let index = format!("index=$(ip -o link show {end} | cut -d: -f1)");
    let address = address.replace("%far", "%$index");
    let mut machine = Command::new("unshare")
        .args(["--net", "sh", "-c"])
        .arg(format!("read -r _ && {here} && {index} && exec \"$0\" \"$@\" \"{address}\""))
        .arg(env!("CARGO_BIN_EXE_registry-owner"))
        .args(["mdns://", service, id, "15"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("unshare, of util-linux, runs");
    let process = machine.id().expect("it runs").to_string();
    // Until unshare has made the namespace, the interface would be moved to where it is.
    let is_apart = async {
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
        while namespace(&process).expect("it runs") == namespace("self").expect("so do we") {
            yield_now().await;
        }
    };
    timeout(SOON, is_apart).await.expect("the namespace is made");
    ip(&format!("link set {end} netns {process}")).await;
    let mut input = machine.stdin.take().expect("its input is ours");
    input.write_all(b"go\n").await.expect("it waits for it");
    let output = machine.stdout.take().expect("its output is ours");
    let line = BufReader::new(output).lines().next_line().await.expect("it says something");
    assert_eq!(line.as_deref(), Some("registered"));
    machine
}

/// The nodes of a service, each `id@address`.
async fn nodes(registry: &dyn Registry, service: &str) -> Vec<String> {
    let listing = registry.read(service).await.expect("it can be read");
    let nodes = listing.entries.iter().map(|it| format!("{}@{}", it.node.id, it.node.address));
    nodes.collect()
}

/// Waits until so many sockets are on mDNS's port, by IPv4 or IPv6.
async fn listening(family: &str, count: usize) {
    let is_so = async {
        let open = || fs::read_to_string(format!("/proc/self/net/{family}")).expect("it is there");
        while open().matches(":14E9 ").count() != count {
            yield_now().await;
        }
    };
    timeout(SOON, is_so).await.expect("links are opened and closed");
}

#[test]
fn a_node_at_an_interfaces_address_is_found_from_another_machine() {
    let name = "a_node_at_an_interfaces_address_is_found_from_another_machine";
    inside(name, Network::Wire, async {
        let registry = registry::open("mdns://10.9.0.1").unwrap();
        let mut watching = Watching::from_now(&registry, "exposed").await;
        let _machine = machine(FAR, "exposed", "far", "10.9.0.2:1").await;
        assert_eq!(watching.events(1).await, ["+far@10.9.0.2:1"]);
        // Who has not named the interface does not look there, until it has a node there itself.
        let loopback = registry::open("mdns://").unwrap();
        assert!(loopback.read("exposed").await.unwrap().entries.is_empty());
        let near = Node::new("exposed", "near", "10.9.0.1:1");
        loopback.register(&near, Duration::from_secs(15)).await.unwrap();
        let mut watching = Watching::from_now(&loopback, "exposed").await;
        if loopback.read("exposed").await.unwrap().entries.len() < 2 {
            assert_eq!(watching.events(1).await, ["+far@10.9.0.2:1"]);
        }
    });
}

#[test]
fn a_node_on_loopback_is_told_of_to_no_other_machine() {
    inside("a_node_on_loopback_is_told_of_to_no_other_machine", Network::Wire, async {
        let registry = registry::open("mdns://10.9.0.1").unwrap();
        let mut watching = Watching::from_now(&registry, "hidden").await;
        let _machine = machine(FAR, "hidden", "hidden", "127.0.0.1:1").await;
        // Its own machine has heard of it by now. What comes after it comes alone.
        let near = Node::new("hidden", "near", "10.9.0.1:1");
        registry.register(&near, Duration::from_secs(15)).await.unwrap();
        assert_eq!(watching.events(1).await, ["+near@10.9.0.1:1"]);
        let listing = registry.read("hidden").await.unwrap();
        assert_eq!(listing.entries.len(), 1, "{listing:?}");
    });
}

#[test]
fn nodes_of_several_interfaces_are_found_by_one_client() {
    inside("nodes_of_several_interfaces_are_found_by_one_client", Network::Wires, async {
        ip("link set near up").await;
        ip("link set near2 up").await;
        let _first = machine(FAR, "both", "first", "10.9.0.2:1").await;
        let _second = machine(FAR2, "both", "second", "10.9.1.2:1").await;
        for url in ["mdns://10.9.0.1,10.9.1.1", "mdns://near,near2", "mdns://near2,[fd09::1]"] {
            let registry = registry::open(url).unwrap();
            let mut watching = Watching::from_now(&registry, "both").await;
            let expected = ["first@10.9.0.2:1", "second@10.9.1.2:1"];
            if nodes(&*registry, "both").await != expected {
                watching.events(1).await;
            }
            assert_eq!(nodes(&*registry, "both").await, expected, "{url}");
        }
        let one = registry::open("mdns://near2").unwrap();
        assert_eq!(nodes(&*one, "both").await, ["second@10.9.1.2:1"]);
        let none = registry::open("mdns://near3").unwrap().prepare().await.unwrap_err();
        let text = none.to_string();
        assert!(none.is_config() && text.contains("is named `near3`: it has"), "{text}");
        assert!(text.contains("near, near2"), "{text}");
    });
}

#[test]
fn a_node_is_found_where_there_is_ipv6_alone() {
    inside("a_node_is_found_where_there_is_ipv6_alone", Network::Wires, async {
        ip("addr del 10.9.0.1/24 dev near").await;
        ip("link set near up").await;
        let registry = registry::open("mdns://near").unwrap();
        let mut watching = Watching::from_now(&registry, "six").await;
        let far = ("far", &["fd09::2/64", "fe80::2/64"][..]);
        let _global = machine(far, "six", "global", "[fd09::2]:1").await;
        assert_eq!(watching.events(1).await, ["+global@[fd09::2]:1"]);
        // Ours is told there, too: one who asks hears of both.
        let near = Node::new("six", "near", "[fd09::1]:1");
        registry.register(&near, Duration::from_secs(15)).await.unwrap();
        assert_eq!(watching.events(1).await, ["+near@[fd09::1]:1"]);
        let asking = registry::open("mdns://[fd09::1]").unwrap();
        let expected = ["global@[fd09::2]:1", "near@[fd09::1]:1"];
        let both = async { while nodes(&*asking, "six").await != expected {} };
        timeout(SOON, both).await.expect("both are found");
    });
}

#[test]
fn a_link_local_node_is_found_at_the_interface_where_it_is_heard() {
    let name = "a_link_local_node_is_found_at_the_interface_where_it_is_heard";
    inside(name, Network::Wires, async {
        ip("link set near up").await;
        let index = Command::new("ip").args(["-o", "link", "show", "near"]).output().await.unwrap();
        let index = String::from_utf8(index.stdout).unwrap();
        let index = index.split(':').next().unwrap();
        let registry = registry::open("mdns://near").unwrap();
        let mut watching = Watching::from_now(&registry, "local").await;
        let far = ("far", &["fe80::2/64"][..]);
        let _local = machine(far, "local", "local", "[fe80::2%far]:1").await;
        assert_eq!(watching.events(1).await, [format!("+local@[fe80::2%{index}]:1")]);
    });
}

#[test]
fn a_node_at_a_link_local_address_is_called() {
    inside("a_node_at_a_link_local_address_is_called", Network::Wires, async {
        ip("addr add fe80::1/64 dev near nodad").await;
        ip("link set near up").await;
        ip("link set far up").await;
        let index = Command::new("ip").args(["-o", "link", "show", "near"]).output().await.unwrap();
        let index = String::from_utf8(index.stdout).unwrap();
        let address = format!("[fe80::1%{}]:7951", index.split(':').next().unwrap());
        let service = Service::builder(SERVICE).registry("mdns://").address(&address);
        let mut service = service.build().await.unwrap();
        register_echo_handler(service.server(), Echo);
        let handle = service.start().await.expect("it serves");
        let client = Client::builder().registry("mdns://near").build().unwrap();
        let request = SayRequest { payload: b"hello".into() };
        let reply = EchoClient::new(SERVICE, &client).say(request).timeout(SOON).await;
        assert_eq!(reply.expect("it answers").into_inner().payload, b"hello");
        handle.stop().await.unwrap();
    });
}

#[test]
fn a_node_heard_by_both_families_is_one() {
    inside("a_node_heard_by_both_families_is_one", Network::Wires, async {
        ip("link set near up").await;
        let registry = registry::open("mdns://near").unwrap();
        let mut watching = Watching::from_now(&registry, "dual").await;
        let far = ("far", &["10.9.0.2/24", "fd09::2/64"][..]);
        let mut dual = machine(far, "dual", "dual", "[fd09::2]:1").await;
        assert_eq!(watching.events(1).await, ["+dual@[fd09::2]:1"]);
        assert_eq!(nodes(&*registry, "dual").await, ["dual@[fd09::2]:1"]);
        dual.kill().await.unwrap();
    });
}

#[test]
fn an_interface_that_comes_up_later_is_spoken_on_within_two_seconds() {
    let name = "an_interface_that_comes_up_later_is_spoken_on_within_two_seconds";
    inside(name, Network::Wires, async {
        let registry = registry::open("mdns://near").unwrap();
        let mut watching = Watching::from_now(&registry, "later").await;
        // Neither end has a carrier: the node registers, and nobody hears of it.
        let _machine = machine(FAR, "later", "far", "10.9.0.2:1").await;
        assert!(nodes(&*registry, "later").await.is_empty());
        ip("link set near up").await;
        let up = Instant::now();
        assert_eq!(watching.events(1).await, ["+far@10.9.0.2:1"]);
        println!("found {:?} after the interface came up", up.elapsed());
        assert!(up.elapsed() < SEEN, "{:?}", up.elapsed());
    });
}

#[test]
fn an_interface_that_goes_down_takes_no_node_along() {
    inside("an_interface_that_goes_down_takes_no_node_along", Network::Wires, async {
        ip("link set near up").await;
        ip("link set near2 up").await;
        let registry = registry::open("mdns://10.9.0.1,near2").unwrap();
        let mut watching = Watching::from_now(&registry, "outage").await;
        let mut first = machine(FAR, "outage", "first", "10.9.0.2:1").await;
        let _second = machine(FAR2, "outage", "second", "10.9.1.2:1").await;
        let mut told = watching.events(2).await;
        told.sort();
        assert_eq!(told, ["+first@10.9.0.2:1", "+second@10.9.1.2:1"]);
        listening("udp", 3).await;
        ip("link set near down").await;
        listening("udp", 2).await;
        let all = ["first@10.9.0.2:1", "second@10.9.1.2:1"];
        assert_eq!(nodes(&*registry, "outage").await, all, "they may be there yet");
        // The other interface goes on being heard.
        let third = Node::new("outage", "third", "10.9.1.1:1");
        let lease = registry.register(&third, Duration::from_secs(15)).await.unwrap();
        assert_eq!(watching.events(1).await, ["+third@10.9.1.1:1"]);
        registry.deregister(&third, lease).await.unwrap();
        assert_eq!(watching.events(1).await, ["-third"]);
        ip("link set near up").await;
        let up = Instant::now();
        listening("udp", 3).await;
        assert!(up.elapsed() < SEEN, "{:?}", up.elapsed());
        assert_eq!(nodes(&*registry, "outage").await, all);
        first.kill().await.unwrap();
    });
}

#[test]
fn an_interface_whose_address_changes_is_followed() {
    inside("an_interface_whose_address_changes_is_followed", Network::Wires, async {
        ip("link set near up").await;
        let registry = registry::open("mdns://near").unwrap();
        let mut watching = Watching::from_now(&registry, "moved").await;
        let far = ("far", &["10.9.5.2/24"][..]);
        let _machine = machine(far, "moved", "far", "10.9.5.2:1").await;
        assert!(nodes(&*registry, "moved").await.is_empty(), "it is of another network");
        ip("addr del 10.9.0.1/24 dev near").await;
        ip("addr add 10.9.5.1/24 dev near").await;
        let moved = Instant::now();
        assert_eq!(watching.events(1).await, ["+far@10.9.5.2:1"]);
        println!("found {:?} after the address changed", moved.elapsed());
        assert!(moved.elapsed() < SEEN, "{:?}", moved.elapsed());
    });
}

#[test]
fn go_micro_and_ours_find_each_other_on_a_wire() {
    inside("go_micro_and_ours_find_each_other_on_a_wire", Network::Wires, async {
        ip("link set near up").await;
        // go-micro speaks where the system sends multicast.
        ip("route replace 224.0.0.0/4 dev near").await;
        let registry = registry::open("mdns://near").unwrap();
        let mut watching = Watching::from_now(&registry, SERVICE).await;
        let _machine = machine(FAR, SERVICE, "far", "10.9.0.2:1").await;
        assert_eq!(watching.events(1).await, ["+far@10.9.0.2:1"]);
        GoMicro::client(&[]).ask_until("nodes", "nodes far").await;
        let (mut node, id) = GoMicro::node_at(&[], "10.9.0.1:7950").await;
        assert_eq!(watching.events(1).await, [format!("+{id}@10.9.0.1:7950")]);
        node.leave().await;
        assert_eq!(watching.events(1).await, [format!("-{id}")]);
    });
}
