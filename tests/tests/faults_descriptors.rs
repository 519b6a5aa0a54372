//! A client that can open no further file. In a process of its own, whose limit is lowered.

use std::{
    fs::{self, File},
    time::Duration,
};

use micro::balance::NodeState;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::{
    etcd::Etcd,
    fault::{CALLS, Trial, now, told},
};
use tokio::{
    task::JoinHandle,
    time::{interval, sleep},
};

/// No descriptor is left for as long as this lives: one that is given back is taken at once.
#[derive(Debug)]
struct Exhausted {
    before: Rlimit,
    taking: JoinHandle<()>,
}

impl Exhausted {
    fn now() -> Self {
        let before = getrlimit(Resource::Nofile);
        let open = fs::read_dir("/proc/self/fd").expect("Linux tells what is open");
        let highest =
            open.filter_map(|it| it.ok()?.file_name().to_str()?.parse::<u64>().ok()).max();
        setrlimit(Resource::Nofile, Rlimit { current: highest.map(|it| it + 1), ..before })
            .expect("a limit may be lowered");
        let taking = tokio::spawn(async {
            let (mut taken, mut ticks) = (Vec::new(), interval(Duration::from_millis(1)));
            loop {
                taken.extend(File::open("/dev/null"));
                ticks.tick().await;
            }
        });
        Self { before, taking }
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        self.taking.abort();
        setrlimit(Resource::Nofile, self.before).expect("it was its limit");
    }
}

/// The node's connection is lost, since it hangs, and no other can be made when it goes on. The nodes that
/// are connected have all calls meanwhile, and it has its share when there are descriptors again.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_descriptor_left_connections_go_on_and_others_are_made_when_there_are_some() {
    let etcd = Etcd::start().await;
    let mut trial = Trial::start("the client has no descriptor left", &etcd.url()).await;
    let victim = trial.fleet.id(0).to_owned();
    let exhausted = Exhausted::now();
    trial.pause(0);
    let is_told = async |trial: &Trial| {
        let told = told(&trial.client, &victim).await.expect("it is listed");
        let is_out = told.state != NodeState::Ready;
        is_out && told.error.is_some_and(|it| it.contains("too many open files in this process"))
    };
    let limit = now() + Duration::from_secs(8);
    while !is_told(&trial).await {
        assert!(now() < limit, "its connection is not lost, or others are made");
        sleep(Duration::from_millis(50)).await;
    }
    let from = trial.fleet.resume(0);
    sleep(Duration::from_secs(3)).await;
    assert!(is_told(&trial).await, "nothing has changed but the node");
    let until = now();
    drop(exhausted);
    trial.expect(0);
    let audit = trial.finish(CALLS).await;
    // What was sent before it hung is worked off within a second.
    let from = from + Duration::from_secs(1);
    assert_eq!(audit.visits_between(Some(&victim), from, until), 0);
    assert!(audit.visits_between(None, from, until) > 100, "the others are called");
}
