//! `file://`: held to what every registry is as far as one goes that only reads, and a real file
//! under a client's eyes.

use std::{
    cell::RefCell, collections::BTreeMap, fmt::Write as _, fs, io::Write as _,
    os::unix::fs::symlink, path::PathBuf, sync::Arc, time::Duration,
};

use micro::{
    discovery::{Discovery, Subscription, Update},
    registry::{self, Lease, Node, Registry, WatchError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Watching},
};
use tempfile::TempDir;
use tests::{
    ports,
    unregistered::{Callers, node},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

/// A file, and the folder that it is alone in.
#[derive(Debug)]
struct Listed {
    dir: TempDir,
    nodes: RefCell<BTreeMap<String, Node>>,
}

impl Listed {
    fn missing() -> Self {
        let dir = TempDir::new().expect("a folder for a file");
        Self { dir, nodes: RefCell::default() }
    }

    fn new() -> Self {
        let listed = Self::missing();
        listed.replace("");
        listed
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("nodes.toml")
    }

    fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// As one should: beside, and renamed.
    fn replace(&self, text: &str) {
        let beside = self.dir.path().join("new");
        fs::write(&beside, text).expect("a file is written");
        fs::rename(&beside, self.path()).expect("a file is renamed");
    }

    fn write_nodes(&self) {
        let nodes = self.nodes.borrow();
        let mut services: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
        for node in nodes.values() {
            services.entry(&node.service).or_default().push(node);
        }
        let mut text = String::new();
        for (service, nodes) in services {
            let _ = writeln!(text, "[{service:?}]\nnodes = [");
            for Node { id, address, .. } in nodes {
                let _ = writeln!(text, "  {{ address = {address:?}, id = {id:?} }},");
            }
            text.push_str("]\n");
        }
        self.replace(&text);
    }

    fn subscribe(&self) -> Subscription {
        Discovery::new(self.registry()).subscribe("greeter")
    }
}

impl Backend for Listed {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open(&self.url()).expect("the URL is well-formed")
    }

    fn tells_every_change(&self) -> bool {
        false
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            (
                "registering is refused: its nodes are those in its file, without endpoints",
                &["a_registered_node_is_read_and_listed", "a_ttl_under_the_least_is_refused"],
            ),
            (
                "nobody holds a lease on a line of a file, to renew it or give it back",
                &[
                    "a_renewed_record_outlives_its_ttl_and_then_expires",
                    "a_killed_owners_record_expires_and_not_before_its_ttl",
                    "a_deregistered_node_is_gone_at_once",
                    "an_overwritten_record_is_lost_to_its_first_owner",
                    "a_record_that_another_deleted_is_lost_and_can_come_back",
                    "a_late_subscriber_sees_what_it_missed",
                    "updates_come_in_order_each_with_a_revision_of_its_own",
                ],
            ),
            (
                "a fault spoils the file, whose last good list then holds",
                &["a_malformed_neighbour_spoils_nothing"],
            ),
            (
                "it has no history that could be forgotten: a watch tells how all stands",
                &["a_gap_in_the_watch_is_told"],
            ),
            (
                "an address that is there twice is a fault",
                &["of_two_records_with_one_address_subscribers_see_the_newest_alone"],
            ),
        ]
    }

    /// Writes the node into the file, for the cases that then only look.
    async fn register(&self, node: &Node, _: Duration) -> Result<Lease, Cannot> {
        let looking = ["conf.nobody", "conf.again", "conf.batch", "conf.future", "conf.li"];
        if !looking.iter().any(|it| node.service.starts_with(it)) {
            return Err(Cannot);
        }
        self.nodes.borrow_mut().insert(node.id.clone(), node.clone());
        self.write_nodes();
        Ok(Lease(0))
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        self.nodes.borrow_mut().retain(|id, _| nodes.iter().all(|node| node.id != *id));
        self.write_nodes();
        Ok(())
    }
}

registry_conformance!((start_paused = true) Listed::new());

const ONE: &str = "[greeter]\nnodes = [\"127.0.0.1:1\"]\n";
const TWO: &str = "[greeter]\nnodes = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n";
const BROKEN: &str = "[greeter]\nnode = [\"127.0.0.1:1\"]\n";

/// The next update in short, and how long it took.
async fn next(updates: &mut Subscription) -> (String, Duration) {
    let start = Instant::now();
    let update = timeout(Duration::from_secs(60), updates.next()).await.expect("an update comes");
    let short = |node: &Arc<Node>| node.address.clone();
    let update = match update.expect("a subscription is endless") {
        Update::Reset(nodes) => {
            format!("={}", nodes.iter().map(short).collect::<Vec<_>>().join(" "))
        }
        Update::Insert(node) => format!("+{}", short(&node)),
        Update::Remove(id) => format!("-{id}"),
        Update::Forget => "forget".to_owned(),
    };
    (update, start.elapsed())
}

async fn error(updates: &Subscription) -> String {
    let mut status = updates.status();
    let status = timeout(Duration::from_secs(60), status.wait_for(|it| it.error.is_some())).await;
    let status = status.expect("an error comes").expect("the watch goes on");
    status.error.as_deref().expect("there is one").to_owned()
}

async fn no_update(updates: &mut Subscription, during: Duration) {
    let update = timeout(during, updates.next()).await;
    assert!(update.is_err(), "{update:?}");
}

#[tokio::test(start_paused = true)]
async fn what_it_lists_is_read_and_listed() {
    let file = Listed::new();
    file.replace(
        "[greeter]\nversion = \"1.2\"\nnodes = [{ address = \"h:1\", id = \"x\", metadata = { a = \
         \"b\" } }]\n[\"team.pay\"]\nnodes = []",
    );
    let registry = file.registry();
    let listing = registry.read("greeter").await.unwrap();
    let mut node = Node::new("greeter", "x", "h:1");
    node.version = "1.2".to_owned();
    node.metadata.insert("a".to_owned(), "b".to_owned());
    assert_eq!(*listing.entries[0].node, node);
    assert_eq!(registry.list().await.unwrap(), ["greeter", "team.pay"]);
    assert!(registry.read("team.pay").await.unwrap().entries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_renamed_file_is_taken_within_half_a_second() {
    let file = Listed::new();
    file.replace(ONE);
    let mut updates = file.subscribe();
    assert_eq!(next(&mut updates).await.0, "=127.0.0.1:1");
    no_update(&mut updates, Duration::from_secs(7)).await;
    file.replace(TWO);
    let (update, took) = next(&mut updates).await;
    assert_eq!(update, "+127.0.0.1:2", "and the other stands as it was");
    assert!(took <= Duration::from_millis(502), "{took:?}");
    file.replace("[greeter]\nnodes = [\"127.0.0.1:2\"]\n");
    assert_eq!(next(&mut updates).await.0, "-greeter-127.0.0.1:1");
}

#[tokio::test(start_paused = true)]
async fn a_file_written_where_it_lies_is_taken_though_size_and_modification_time_are_the_same() {
    let file = Listed::new();
    file.replace(ONE);
    let modified = fs::metadata(file.path()).unwrap().modified().unwrap();
    let mut updates = file.subscribe();
    assert_eq!(next(&mut updates).await.0, "=127.0.0.1:1");
    let mut opened = fs::OpenOptions::new().write(true).open(file.path()).unwrap();
    opened.write_all(ONE.replace(":1", ":3").as_bytes()).unwrap();
    opened.set_modified(modified).unwrap();
    assert_eq!(next(&mut updates).await.0, "+127.0.0.1:3");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_leads_elsewhere_is_followed_as_in_a_config_map() {
    let file = Listed::missing();
    let dir = file.dir.path();
    for (folder, text) in [("..1", ONE), ("..2", TWO)] {
        fs::create_dir(dir.join(folder)).unwrap();
        fs::write(dir.join(folder).join("nodes.toml"), text).unwrap();
    }
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/nodes.toml", file.path()).unwrap();
    let mut updates = file.subscribe();
    assert_eq!(next(&mut updates).await.0, "=127.0.0.1:1");
    symlink("..2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    assert_eq!(next(&mut updates).await.0, "+127.0.0.1:2");
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_keeps_the_last_good_set_and_names_the_line() {
    let file = Listed::new();
    file.replace(ONE);
    let mut updates = file.subscribe();
    assert_eq!(next(&mut updates).await.0, "=127.0.0.1:1");
    file.replace(BROKEN);
    let text = error(&updates).await;
    let expected =
        format!("{}:2:1: unknown key `node` of service greeter; did you mean 'nodes'?", file.url());
    assert_eq!(text, expected);
    no_update(&mut updates, Duration::from_secs(600)).await;
    file.replace(TWO);
    let (update, took) = next(&mut updates).await;
    assert_eq!(update, "+127.0.0.1:2");
    assert!(took <= Duration::from_millis(3100), "{took:?}");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(updates.status().borrow().error, None);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_goes_keeps_the_last_good_set() {
    let file = Listed::new();
    file.replace(ONE);
    let mut updates = file.subscribe();
    assert_eq!(next(&mut updates).await.0, "=127.0.0.1:1");
    fs::remove_file(file.path()).unwrap();
    let text = error(&updates).await;
    assert!(text.contains("cannot read") && text.contains("No such file"), "{text}");
    file.replace(ONE);
    no_update(&mut updates, Duration::from_secs(60)).await;
    assert_eq!(updates.status().borrow().error, None, "it came back as it was");
}

#[tokio::test(start_paused = true)]
async fn a_file_may_come_later() {
    let file = Listed::missing();
    let mut updates = file.subscribe();
    let text = error(&updates).await;
    assert!(text.contains(&file.path().display().to_string()), "{text}");
    no_update(&mut updates, Duration::from_secs(60)).await;
    file.replace(ONE);
    assert_eq!(next(&mut updates).await.0, "=127.0.0.1:1");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_list_of_a_sensible_size_is_refused_and_read_no_further() {
    let file = Listed::missing();
    let registry = file.registry();
    fs::create_dir(file.path()).unwrap();
    let folder = registry.read("greeter").await.unwrap_err().to_string();
    assert!(folder.ends_with("nodes.toml is no file"), "{folder}");
    fs::remove_dir(file.path()).unwrap();
    // A terabyte, of which nothing is on the disk.
    fs::File::create(file.path()).unwrap().set_len(1 << 40).unwrap();
    let large = registry.read("greeter").await.unwrap_err().to_string();
    assert!(
        large.ends_with("has more than 1048576 bytes, which is the most there may be"),
        "{large}"
    );
    fs::remove_file(file.path()).unwrap();
    // Whoever opened it would wait for a writer.
    rustix::fs::mkfifoat(rustix::fs::CWD, file.path(), rustix::fs::Mode::RUSR).unwrap();
    let pipe = registry.read("greeter").await.unwrap_err().to_string();
    assert!(pipe.ends_with("nodes.toml is no file"), "{pipe}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_first_error() {
    let file = Listed::new();
    let mut watching = Watching::from_now(&file.registry(), "greeter").await;
    file.replace(BROKEN);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(watching.has_ended().await);
}

#[tokio::test]
async fn no_call_fails_whatever_becomes_of_the_file() {
    let file = Listed::missing();
    let addresses: Vec<_> = (0..3).map(|_| format!("127.0.0.1:{}", ports::free())).collect();
    let list = |addresses: &[String]| format!("[echo]\nnodes = {addresses:?}\n");
    let mut nodes = Vec::new();
    for address in &addresses {
        nodes.push(node(address).await);
    }
    file.replace(&list(&addresses));
    let callers = Callers::start(&file.url()).await;
    let second = Duration::from_secs(1);
    file.replace(BROKEN);
    sleep(second).await;
    fs::remove_file(file.path()).unwrap();
    sleep(second).await;
    // A node leaves while nobody can say so.
    nodes.remove(0).stop().await.unwrap();
    sleep(second).await;
    file.replace("");
    sleep(second * 4).await;
    file.replace(&list(&addresses[1..]));
    sleep(second).await;
    file.replace(&list(&addresses[2..]));
    sleep(second).await;
    nodes.remove(0).stop().await.unwrap();
    sleep(second).await;
    callers.finish().await;
}
