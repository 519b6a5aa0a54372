//! `mdns://`, held to what every registry is, as far as one goes that has no server: in networks of
//! their own, since the cases' names are always the same.

use std::{
    collections::HashMap,
    fs::File,
    net::UdpSocket,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use micro::{
    Service,
    registration::RegistrationState,
    registry::{self, Lease, Node, Registry},
    registry_conformance,
    testing::registry::{Backend, Cannot, Watching},
};
use tests::namespace::{self, Network, inside};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

#[derive(Default)]
struct OnLoopback {
    /// None but its own process takes a node away.
    leases: Mutex<HashMap<String, Lease>>,
}

impl Backend for OnLoopback {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open("mdns://").expect("the URL is well-formed")
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            (
                "a node is believed in for go-micro's 120 s, whatever its TTL",
                &[
                    "a_renewed_record_outlives_its_ttl_and_then_expires",
                    "a_killed_owners_record_expires_and_not_before_its_ttl",
                ],
            ),
            (
                "an id is one node's as long as it lives: no other is written over it",
                &[
                    "an_overwritten_record_is_lost_to_its_first_owner",
                    "updates_come_in_order_each_with_a_revision_of_its_own",
                    "a_record_written_again_is_told_as_it_is_now",
                ],
            ),
            (
                "its history is as memory's, and long: no hook makes it shorter",
                &["a_gap_in_the_watch_is_told"],
            ),
        ]
    }

    async fn register(&self, node: &Node, ttl: Duration) -> Result<Lease, Cannot> {
        if ttl < Duration::from_secs(10) {
            return Err(Cannot);
        }
        match self.registry().register(node, ttl).await {
            Ok(lease) => {
                self.leases.lock().unwrap().insert(node.id.clone(), lease);
                Ok(lease)
            }
            Err(error) if error.to_string().contains("has this id") => Err(Cannot),
            Err(error) => panic!("register {}: {error:?}", node.id),
        }
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        for node in nodes {
            let lease = self.leases.lock().unwrap()[&node.id];
            self.registry().deregister(node, lease).await.expect("the node leaves");
        }
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        tell_malformed(service, "bad", 120);
        Ok(format!("{service}/bad"))
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        let (service, id) = key.rsplit_once('/').expect("it is of write_malformed");
        tell_malformed(service, id, 0);
        Ok(())
    }
}

/// Tells all of a node whose text is no hex.
fn tell_malformed(service: &str, id: &str, ttl: u32) {
    let mut name = Vec::new();
    for label in format!("{id}.{service}.micro.").split('.') {
        name.push(u8::try_from(label.len()).expect("it is short"));
        name.extend(label.as_bytes());
    }
    let srv = [&[0, 0, 0, 0, 0, 9][..], &name].concat();
    // A response, of three records.
    let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    for (kind, data) in [(33, &srv[..]), (1, &[127, 0, 0, 1]), (16, b"\x04what")] {
        packet.extend(&name);
        packet.extend([0, kind, 0, 1]);
        packet.extend(ttl.to_be_bytes());
        packet.extend(u16::try_from(data.len()).expect("it is short").to_be_bytes());
        packet.extend(data);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.send_to(&packet, "224.0.0.251:5353").expect("the packet is sent");
}

registry_conformance!([namespace::on_loopback] OnLoopback::default());

/// A process with a node in it.
async fn owner(service: &str, id: &str) -> (Child, String) {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
        .args(["mdns://", service, id, "15"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let output = owner.stdout.take().expect("its output is ours");
    let line =
        BufReader::new(output).lines().next_line().await.expect("it says something, or ends");
    (owner, line.unwrap_or_default())
}

#[test]
fn processes_share_the_port_and_find_each_other() {
    inside("processes_share_the_port_and_find_each_other", Network::Loopback, async {
        let registry = registry::open("mdns://").unwrap();
        let mut watching = Watching::from_now(&registry, "shared").await;
        let mut owners = Vec::new();
        for id in ["a", "b", "c"] {
            let (owner, line) = owner("shared", id).await;
            assert_eq!(line, "registered");
            owners.push(owner);
            assert_eq!(watching.events(1).await, [format!("+{id}@127.0.0.1:1")]);
        }
        let listing = registry.read("shared").await.unwrap();
        assert_eq!(listing.entries.len(), 3, "{listing:?}");
        // One that is killed says no goodbye, and its neighbours go on hearing.
        owners.remove(0).kill().await.unwrap();
        let (_late, line) = owner("shared", "d").await;
        assert_eq!(line, "registered");
        assert_eq!(watching.events(1).await, ["+d@127.0.0.1:1"]);
    });
}

#[test]
fn a_port_that_another_does_not_share_is_named() {
    inside("a_port_that_another_does_not_share_is_named", Network::Loopback, async {
        let _other = UdpSocket::bind("0.0.0.0:5353").unwrap();
        let error = registry::open("mdns://").unwrap().prepare().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_config() && text.contains("UDP port 5353 is held by a process"), "{text}");
        assert!(text.contains("another registry") && !text.contains("multicast"), "{text}");
    });
}

#[test]
fn a_process_without_sockets_may_have_some_later() {
    inside("a_process_without_sockets_may_have_some_later", Network::Loopback, async {
        let limited = std::process::Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string(), "--nofile=64"])
            .status();
        assert!(limited.expect("prlimit, of util-linux, runs").success());
        let files = std::iter::repeat_with(|| File::open("/dev/null")).map_while(Result::ok);
        let files: Vec<_> = files.collect();
        assert!(files.len() < 64, "{}", files.len());
        let registry = registry::open("mdns://").unwrap();
        let error = registry.prepare().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_registry() && text.contains("no socket can be opened"), "{text}");
        assert!(!text.contains("multicast"), "{text}");
        drop(files);
        registry.prepare().await.unwrap();
    });
}

#[test]
fn a_restarted_process_has_its_id_at_once() {
    inside("a_restarted_process_has_its_id_at_once", Network::Loopback, async {
        let registry = registry::open("mdns://").unwrap();
        let mut watching = Watching::from_now(&registry, "restarted").await;
        let (mut first, line) = owner("restarted", "a").await;
        assert_eq!(line, "registered");
        assert_eq!(watching.events(1).await, ["+a@127.0.0.1:1"]);
        first.kill().await.unwrap();
        let (_second, line) = owner("restarted", "a").await;
        assert_eq!(line, "registered", "the dead defend nothing");
        assert_eq!(registry.read("restarted").await.unwrap().entries.len(), 1);
    });
}

#[test]
fn an_id_that_another_process_has_is_refused() {
    inside("an_id_that_another_process_has_is_refused", Network::Loopback, async {
        let registry = registry::open("mdns://").unwrap();
        let twin = Node::new("twins", "a", "127.0.0.1:2");
        let (_owner, line) = owner("twins", "a").await;
        assert_eq!(line, "registered");
        let error = registry.register(&twin, Duration::from_secs(15)).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:1 has this id"), "{error}");
    });
}

#[test]
fn a_service_that_leaves_while_it_registers_is_never_found() {
    inside("a_service_that_leaves_while_it_registers_is_never_found", Network::Loopback, async {
        let registry = registry::open("mdns://").unwrap();
        let mut watching = Watching::from_now(&registry, "hasty").await;
        let hasty = Service::builder("hasty").registry("mdns://").build().await.unwrap();
        let hasty = hasty.start().await.unwrap();
        let is_probing = |state: &RegistrationState| *state == RegistrationState::Registering;
        hasty.registration().wait_for(is_probing).await.unwrap();
        hasty.stop().await.unwrap();
        // What comes after it comes alone.
        let next = Node::new("hasty", "next", "127.0.0.1:1");
        registry.register(&next, Duration::from_secs(15)).await.unwrap();
        assert_eq!(watching.events(1).await, ["+next@127.0.0.1:1"]);
    });
}
