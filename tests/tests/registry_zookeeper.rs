//! `zookeeper://` on a real ZooKeeper: held to what every registry is, and to go-micro's bytes.

use std::{process::Stdio, sync::Arc, time::Duration};

use micro::{
    registry::{self, Node, Registry, RenewError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Owner, Watching},
};
use tests::zookeeper::ZooKeeper;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Instant, sleep, timeout},
};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error as ClientError};

const TTL: Duration = Duration::from_secs(60);

const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const EPHEMERAL: CreateOptions<'static> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());

struct InZooKeeper(ZooKeeper);

impl InZooKeeper {
    async fn start() -> Self {
        Self(ZooKeeper::start().await)
    }
}

fn path(node: &Node) -> String {
    let escape = |name: &str| name.replace('/', "-");
    format!("/micro-registry/{}/{}", escape(&node.service), escape(&node.id))
}

impl Backend for InZooKeeper {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open(&self.0.url()).expect("the URL is well-formed")
    }

    /// A watch begins with how all stands, however that came about.
    fn tells_every_change(&self) -> bool {
        false
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[("ZooKeeper keeps no history to forget", &["a_gap_in_the_watch_is_told"])]
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        let client = self.0.client().await;
        let mut delete = client.new_multi_writer();
        for node in nodes {
            delete.add_delete(&path(node), None).expect("a path");
        }
        delete.commit().await.expect("the records were there");
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        let path = format!("/micro-registry/{service}/malformed");
        let value = br#"{"name":"x","nodes":[{"id":3}]}"#;
        let client = self.0.client().await;
        client.create(&path, value, &PERSISTENT).await.expect("ZooKeeper answers");
        Ok(path)
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        self.0.client().await.delete(key, None).await.expect("ZooKeeper answers");
        Ok(())
    }

    async fn own(&self, node: &Node, ttl: Duration) -> Result<Owner, Cannot> {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
            .args([&self.0.url(), &node.service, &node.id, &ttl.as_secs().to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let output = owner.stdout.take().expect("its output is ours");
        let line = BufReader::new(output).lines().next_line().await.expect("it says something");
        assert_eq!(line.as_deref(), Some("registered"));
        Ok(Owner::killed_by(move || owner.start_kill().expect("SIGKILL is sent")))
    }
}

registry_conformance!(() InZooKeeper::start().await);

#[tokio::test]
async fn a_record_has_go_micros_path_and_bytes_and_never_lacks_a_session() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let client = backend.0.client().await;
    let node = Node::new("team/pay.svc", "team/pay.svc-1", "127.0.0.1:38453");
    let lease = registry.register(&node, TTL).await.unwrap();
    let (value, stat) =
        client.get_data("/micro-registry/team-pay.svc/team-pay.svc-1").await.unwrap();
    assert_eq!(
        String::from_utf8(value).unwrap(),
        concat!(
            r#"{"name":"team/pay.svc","version":"latest","metadata":null,"endpoints":[],"nodes":["#,
            r#"{"metadata":{"protocol":"grpc","server":"grpc","transport":"grpc"},"#,
            r#""id":"team/pay.svc-1","address":"127.0.0.1:38453"}]}"#
        )
    );
    assert!(lease.0 != 0 && stat.ephemeral_owner == lease.0, "{stat:?}");
    for folder in ["/micro-registry", "/micro-registry/team-pay.svc"] {
        let (value, stat) = client.get_data(folder).await.unwrap();
        assert!(value.is_empty() && stat.ephemeral_owner == 0, "{folder}: {stat:?}");
        // go-micro's own nodes, which sign in nowhere, may write beside ours.
        let (rights, _) = client.get_acl(folder).await.unwrap();
        assert_eq!(&rights[..], &Acls::anyone_all()[..]);
    }
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(registry.list().await.unwrap(), [""; 0], "a folder is no service");
}

#[tokio::test]
async fn go_micros_persistent_records_are_read_shown_as_such_and_replaced() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let client = backend.0.client().await;
    let value = br#"{"name":"greeter","version":"latest","metadata":null,"endpoints":null,"nodes":[
        {"metadata":{"protocol":"grpc"},"id":"greeter-1","address":"127.0.0.1:9"}]}"#;
    client.mkdir("/micro-registry/greeter", &PERSISTENT).await.unwrap();
    client.create("/micro-registry/greeter/greeter-1", value, &PERSISTENT).await.unwrap();
    let listing = registry.read("greeter").await.unwrap();
    assert_eq!(listing.entries[0].node.metadata["ephemeral"], "false");
    assert_eq!(registry.list().await.unwrap(), ["greeter"]);

    let mut watching = Watching::from_now(&registry, "greeter").await;
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let lease = registry.register(&node, TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+greeter-1@127.0.0.1:1"]);
    let (_, stat) = client.get_data("/micro-registry/greeter/greeter-1").await.unwrap();
    assert_eq!(stat.ephemeral_owner, lease.0, "it goes with its node from now on");
    let listing = registry.read("greeter").await.unwrap();
    assert!(!listing.entries[0].node.metadata.contains_key("ephemeral"));
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(watching.events(1).await, ["-greeter-1"]);
}

#[tokio::test]
async fn a_record_that_is_not_in_our_session_is_taken() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let client = backend.0.client().await;
    let node = Node::new("foreign", "foreign-1", "127.0.0.1:1");
    let path = path(&node);
    let lease = registry.register(&node, TTL).await.unwrap();
    let (value, _) = client.get_data(&path).await.unwrap();

    // The same bytes, in no session: they would stay for ever.
    client.delete(&path, None).await.unwrap();
    client.create(&path, &value, &PERSISTENT).await.unwrap();
    let renewed = registry.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Taken(why)) if why.contains("unique")),
        "{renewed:?}"
    );
    // And go with their node.
    registry.deregister(&node, lease).await.unwrap();
    assert!(client.check_stat(&path).await.unwrap().is_none());

    // Other bytes, in our session: nobody holds on to them.
    let lease = registry.register(&node, TTL).await.unwrap();
    client.set_data(&path, b"{}", None).await.unwrap();
    let renewed = registry.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("own session")),
        "{renewed:?}"
    );

    // Another's, which our leaving does not touch.
    client.delete(&path, None).await.unwrap();
    client.create(&path, b"{}", &PERSISTENT).await.unwrap();
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(client.get_data(&path).await.unwrap().0, b"{}");
}

#[tokio::test]
async fn a_session_is_kept_while_somebody_tries_to_renew_it() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let client = backend.0.client().await;
    let node = Node::new("tried", "tried-1", "127.0.0.1:1");
    let path = path(&node);
    let ttl = Duration::from_secs(2);
    let lease = registry.register(&node, ttl).await.unwrap();
    let (value, _) = client.get_data(&path).await.unwrap();
    client.set_data(&path, b"{}", None).await.unwrap();
    let start = Instant::now();
    while start.elapsed() < 2 * ttl {
        let renewed = registry.renew(&node, lease).await;
        assert!(
            matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("own session")),
            "{renewed:?}"
        );
        sleep(Duration::from_millis(200)).await;
    }
    client.set_data(&path, &value, None).await.unwrap();
    registry.renew(&node, lease).await.expect("the session is there");
}

#[tokio::test]
async fn a_register_that_is_dropped_undoes_itself() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let node = Node::new("dropped", "dropped-1", "127.0.0.1:1");
    let mut watching = Watching::from_now(&registry, "dropped").await;
    let mut register = registry.register(&node, TTL);
    tokio::select! {
        biased;
        batch = watching.next() => drop(batch),
        registered = &mut register => drop(registered.unwrap()),
    }
    drop(register);
    drop(registry);
    // Nobody renews it: held or not, long before the TTL of a minute is over it is not.
    let client = backend.0.client().await;
    let gone = async {
        while client.check_stat(&path(&node)).await.unwrap().is_some() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    drop(watching);
    timeout(Duration::from_secs(10), gone).await.expect("its session was closed");
}

#[tokio::test]
async fn ten_thousand_records_are_read_and_watched() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let client = backend.0.client().await;
    client.mkdir("/micro-registry/many", &PERSISTENT).await.unwrap();
    let path = |n: usize| format!("/micro-registry/many/many-{n:05}");
    for first in (0..10_000).step_by(500) {
        let mut create = client.new_multi_writer();
        for n in first..first + 500 {
            let value = format!(
                r#"{{"name":"many","nodes":[{{"id":"many-{n:05}","address":"127.0.0.1:1","metadata":{{"protocol":"grpc"}}}}]}}"#
            );
            create.add_create(&path(n), value.as_bytes(), &EPHEMERAL).unwrap();
        }
        create.commit().await.unwrap();
    }
    let listing = registry.read("many").await.unwrap();
    assert_eq!((listing.entries.len(), listing.malformed.len()), (10_000, 0));
    let mut watching = Watching::after(&registry, "many", &listing);
    let then = tokio::time::Instant::now();
    let mut delete = client.new_multi_writer();
    for n in 0..500 {
        delete.add_delete(&path(n), None).unwrap();
    }
    let (gone, deleted) = tokio::join!(watching.events(500), delete.commit());
    deleted.unwrap();
    assert_eq!(gone.len(), 500);
    println!("500 of 10 000 deleted, and told within {:?}", then.elapsed());
}

#[tokio::test]
async fn names_and_sizes_that_zookeeper_cannot_hold_are_refused() {
    let zookeeper = ZooKeeper::stopped();
    let registry = registry::open(&zookeeper.url()).unwrap();
    for (service, id) in
        [("", "a"), ("a", ""), ("..", "a"), ("a", "."), ("a\0", "a"), ("a", "\u{1f600}")]
    {
        let node = Node::new(service, id, "h:1");
        let error = registry.register(&node, TTL).await.unwrap_err();
        assert!(error.is_config(), "{error:?}");
        assert!(registry.validate(&node).unwrap_err().is_config());
    }
    assert!(registry.read("a\n").await.unwrap_err().is_config());
    let node = Node::new("a", "a-1", "h:1");
    let error = registry.register(&node, Duration::from_millis(999)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: cannot register a-1 of service a: a TTL of 999ms is under the least, 1s",
            zookeeper.url()
        )
    );
    let error = registry.register(&node, Duration::from_secs(1 << 40)).await.unwrap_err();
    assert!(error.to_string().contains("beyond what ZooKeeper can count"), "{error}");
}

#[tokio::test]
async fn the_largest_record_that_passes_is_held() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let node = |filler: usize| {
        let mut node = Node::new("large", "large-1", "127.0.0.1:1");
        node.metadata.insert("filler".to_owned(), "x".repeat(filler));
        node
    };
    let (mut fits, mut too_large) = (1_000_000, 1 << 20);
    while too_large - fits > 1 {
        let middle = usize::midpoint(fits, too_large);
        match registry.validate(&node(middle)) {
            Ok(()) => fits = middle,
            Err(_) => too_large = middle,
        }
    }
    for _ in 0..2 {
        // The second time it replaces, which takes a larger packet.
        registry.register(&node(fits), TTL).await.unwrap();
    }
    assert_eq!(*registry.read("large").await.unwrap().entries[0].node, node(fits));
    let error = registry.validate(&node(too_large)).unwrap_err();
    assert!(error.to_string().contains("less metadata"), "{error}");
}

#[tokio::test]
async fn a_process_has_a_connection_for_reading_and_one_a_node() {
    let zookeeper = ZooKeeper::start().await;
    let mut kept = Vec::new();
    for n in 0..10 {
        let registry = registry::open(&zookeeper.url()).unwrap();
        let node = Node::new("shared", format!("shared-{n}"), "127.0.0.1:1");
        let lease = registry.register(&node, TTL).await.unwrap();
        registry.renew(&node, lease).await.unwrap();
        let mut watching = Watching::after_revision(&registry, "shared", 0);
        watching.next().await;
        kept.push((registry, watching, node, lease));
    }
    assert_eq!(zookeeper.connections(), 11);
    for (registry, _, node, lease) in &kept {
        registry.deregister(node, *lease).await.unwrap();
    }
    assert_eq!(zookeeper.connections(), 1);
    drop(kept);
    let none_left = async {
        while zookeeper.connections() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), none_left).await.expect("the last that needs it closes it");
}

#[tokio::test]
async fn a_watch_that_is_dropped_leaves_none_behind_and_spoils_no_other() {
    let zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let mut watching = Watching::from_now(&registry, "watched").await;
    for n in 0..10 {
        // The old goes as the new begins, as when all is read again.
        let next = Watching::from_now(&registry, "watched").await;
        drop(std::mem::replace(&mut watching, next));
        let node = Node::new("watched", format!("watched-{n}"), "127.0.0.1:1");
        registry.register(&node, TTL).await.unwrap();
        assert_eq!(watching.events(1).await, [format!("+watched-{n}@127.0.0.1:1")]);
    }
    assert_eq!(zookeeper.metric("zk_watch_count").await, 1);
    drop(watching);
    let none_left = async {
        while zookeeper.metric("zk_watch_count").await > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), none_left).await.expect("the watch is taken back");
}

#[tokio::test]
async fn a_folder_that_is_removed_is_made_anew_and_watched_still() {
    let backend = InZooKeeper::start().await;
    let registry = backend.registry();
    let client = backend.0.client().await;
    let node = Node::new("folder", "folder-1", "127.0.0.1:1");
    let mut watching = Watching::from_now(&registry, "folder").await;
    for _ in 0..3 {
        let lease = registry.register(&node, TTL).await.unwrap();
        assert_eq!(watching.events(1).await, ["+folder-1@127.0.0.1:1"]);
        registry.deregister(&node, lease).await.unwrap();
        assert_eq!(watching.events(1).await, ["-folder-1"]);
        client.delete("/micro-registry/folder", None).await.unwrap();
        client.delete("/micro-registry", None).await.unwrap();
    }
}

#[tokio::test]
async fn under_a_chroot_all_is_apart() {
    let zookeeper = ZooKeeper::start().await;
    let client = zookeeper.client().await;
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let apart = registry::open(&format!("{}/teams/a", zookeeper.url())).unwrap();
    let lease = apart.register(&node, TTL).await.unwrap();
    apart.renew(&node, lease).await.unwrap();
    let stat = client.check_stat("/teams/a/micro-registry/greeter/greeter-1").await.unwrap();
    assert_eq!(stat.unwrap().ephemeral_owner, lease.0);
    assert_eq!(apart.list().await.unwrap(), ["greeter"]);
    assert_eq!(apart.read("greeter").await.unwrap().entries.len(), 1);
    let other = registry::open(&zookeeper.url()).unwrap();
    assert!(other.list().await.unwrap().is_empty());
    assert!(other.read("greeter").await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn with_a_user_only_he_may_write_and_all_may_read() {
    let zookeeper = ZooKeeper::start().await;
    let url = |user: &str| format!("zookeeper://{user}{}", zookeeper.address());
    let owner = registry::open(&url("me:s3cret@")).unwrap();
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let lease = owner.register(&node, TTL).await.unwrap();
    owner.renew(&node, lease).await.unwrap();
    assert!(!owner.name().contains("s3cret") && !format!("{owner:?}").contains("s3cret"));
    for user in ["", "me:wrong@"] {
        let other = registry::open(&url(user)).unwrap();
        assert_eq!(other.read("greeter").await.unwrap().entries.len(), 1);
        let mut watching = Watching::after_revision(&other, "greeter", 0);
        assert_eq!(watching.events(1).await, ["+greeter-1@127.0.0.1:1"]);
        for id in ["greeter-1", "greeter-2"] {
            let node = Node::new("greeter", id, "127.0.0.1:2");
            let error = other.register(&node, TTL).await.unwrap_err();
            let text = error.to_string();
            assert!(error.is_registry() && text.contains("wrong password"), "{text}");
            assert!(!text.contains("wrong@"), "{text}");
        }
    }
    assert!(matches!(
        zookeeper.client().await.delete(&path(&node), None).await,
        Err(ClientError::NoAuth)
    ));
    owner.deregister(&node, lease).await.unwrap();
    assert!(owner.read("greeter").await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_session_that_is_not_as_long_as_the_ttl_is_used_all_the_same() {
    let zookeeper = ZooKeeper::start_with("maxSessionTimeout=2000").await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let node = Node::new("short", "short-1", "127.0.0.1:1");
    let lease = registry.register(&node, TTL).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    registry.renew(&node, lease).await.expect("the process was heard all the time");
    assert_eq!(registry.read("short").await.unwrap().entries.len(), 1);
}

async fn value(client: &Client, path: &str) -> String {
    String::from_utf8(client.get_data(path).await.unwrap().0).unwrap()
}

#[tokio::test]
async fn kratoss_and_kitexs_records_are_written_and_read() {
    let zookeeper = ZooKeeper::start().await;
    let client = zookeeper.client().await;
    let url = format!("{}?format=micro,kratos,kitex", zookeeper.url());
    let registry = registry::open(&url).unwrap();
    let mut node = Node::new("echo", "echo-1", "127.0.0.1:1");
    node.metadata.insert("zone".to_owned(), "a".to_owned());
    let mut watching = Watching::from_now(&registry, "echo").await;
    let lease = registry.register(&node, TTL).await.unwrap();
    registry.renew(&node, lease).await.unwrap();
    assert_eq!(
        value(&client, "/microservices/echo/echo-1").await,
        r#"{"id":"echo-1","name":"echo","version":"latest","metadata":{"zone":"a"},"endpoints":["grpc://127.0.0.1:1"]}"#
    );
    assert_eq!(value(&client, "/echo/127.0.0.1:1").await, r#"{"Weight":10,"Tags":{"zone":"a"}}"#);
    let mut told = watching.events(3).await;
    told.sort();
    assert_eq!(told, ["+127.0.0.1:1@127.0.0.1:1", "+echo-1@127.0.0.1:1", "+echo-1@127.0.0.1:1"]);
    let mut ranks: Vec<_> =
        registry.read("echo").await.unwrap().entries.iter().map(|entry| entry.rank).collect();
    ranks.sort_unstable();
    assert_eq!(ranks, [0, 1, 2]);

    // Another fleet's own nodes are seen beside ours.
    client.create("/echo/127.0.0.1:7", br#"{"Weight":20,"Tags":null}"#, &EPHEMERAL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+127.0.0.1:7@127.0.0.1:7"]);
    assert_eq!(registry.list().await.unwrap(), ["echo"]);

    // One of its records taken away is enough.
    client.delete("/echo/127.0.0.1:1", None).await.unwrap();
    let renewed = registry.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("/echo/")),
        "{renewed:?}"
    );
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(registry.read("echo").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_record_that_we_may_not_read_spoils_nothing() {
    let zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    registry.register(&Node::new("greeter", "a", "127.0.0.1:1"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    let connector = Client::connector().with_auth("digest", b"other:secret");
    let other = connector.connect(&zookeeper.address()).await.unwrap();
    let own = CreateMode::Persistent.with_acls(Acls::creator_all());
    other.create("/micro-registry/greeter/private", b"{}", &own).await.unwrap();
    registry.register(&Node::new("greeter", "b", "127.0.0.1:2"), TTL).await.unwrap();
    let mut told = watching.events(2).await;
    told.sort();
    assert_eq!(told, ["+b@127.0.0.1:2", "?private"]);
    let listing = registry.read("greeter").await.unwrap();
    let ids: Vec<_> = listing.entries.iter().map(|entry| &*entry.node.id).collect();
    assert_eq!(ids, ["a", "b"]);
    let [malformed] = &listing.malformed[..] else { panic!("{listing:?}") };
    assert_eq!(malformed.key, "/micro-registry/greeter/private");
    assert!(malformed.reason.contains("may not be read"), "{malformed:?}");
    other.create("/micro-registry/theirs", b"", &own).await.unwrap();
    assert_eq!(registry.list().await.unwrap(), ["greeter"], "nor does a folder");
    other.delete("/micro-registry/greeter/private", None).await.unwrap();
    // ZooKeeper tells nobody of what he may not read: the next reading does.
    assert!(registry.read("greeter").await.unwrap().malformed.is_empty());
}
