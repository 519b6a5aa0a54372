//! What may happen to the registries that no process writes its own record in, or that are within the
//! process: none of it may fail a call, and nodes are followed again afterwards.
//!
//! A fault has the name of the one that it is to the others; what it is here, stands where it is done.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use micro::{
    Handle,
    registry::{self, Registry},
};
use tempfile::TempDir;
use tests::{
    datagrams::Datagrams,
    dns::Dns,
    fault::{
        AWAY, AWAY_FOR_A_MOMENT, Cannot, Garbage, Source, TTL, bear, flap, judge, noise, older,
    },
    unregistered::node_in,
};
use tokio::time::{Instant, sleep};

/// A name, a server that knows it, and a link to it.
struct Name {
    server: Dns,
    runs: bool,
    link: Datagrams,
    through_link: bool,
    port: String,
}

impl Source for Name {
    async fn new(fault: &str, addresses: &[String]) -> Self {
        let server = Dns::stopped();
        let link = Datagrams::to(server.port()).await;
        let through_link = fault.starts_with("connection_") || fault == "five_seconds_slow";
        let (_, port) = addresses[0].split_once(':').expect("a port");
        Self { server, runs: false, link, through_link, port: port.to_owned() }
    }

    fn url(&self) -> String {
        let port = if self.through_link { self.link.port() } else { self.server.port() };
        format!("dns://127.0.0.1:{port}/echo.test:{}", self.port)
    }

    async fn list(&mut self, addresses: &[String]) {
        let host = |address: &String| address.split(':').next().unwrap_or_default().to_owned();
        let records: Vec<_> =
            addresses.iter().map(|address| format!("echo 1 A {}", host(address))).collect();
        let records: Vec<_> = records.iter().map(String::as_str).collect();
        if self.runs {
            self.server.set(&records).await;
        } else {
            self.server.set_and_restart(&records).await;
            self.runs = true;
        }
    }

    fn take_away(&mut self) -> Result<(), Cannot> {
        self.server.kill();
        Ok(())
    }

    async fn bring_back(&mut self) {
        self.server.restart().await;
    }

    async fn strike(&mut self, fault: &str, listed: &[String]) -> Result<(), Cannot> {
        match fault {
            // The name is there and has no address.
            "every_record_deleted" => {
                self.server.set(&["echo 1 TXT x"]).await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.list(listed).await;
            }
            // With what is no zone: each answer is a failure.
            "every_record_overwritten" => {
                self.server.break_zone().await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.runs = false;
                self.list(listed).await;
            }
            "killed_and_restarted" => {
                self.server.kill();
                sleep(AWAY_FOR_A_MOMENT).await;
                self.server.restart().await;
            }
            // No name is there.
            "wiped" => {
                self.server.wipe().await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.list(listed).await;
            }
            "restored_to_an_older_state" => {
                self.list(&older(listed)).await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.list(listed).await;
            }
            "stopped_for_three_ttls" => {
                self.server.pause();
                sleep(3 * TTL).await;
                self.server.resume();
            }
            "connection_cut" => {
                self.link.cut().await;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.link.mend().await;
            }
            "connection_black_holed" => {
                self.link.silence();
                sleep(AWAY).await;
                self.link.mend().await;
            }
            "connection_flaps" => {
                flap(async |is_there| match is_there {
                    true => self.link.mend().await,
                    false => self.link.cut().await,
                })
                .await;
            }
            "five_seconds_slow" => {
                self.link.slow(Duration::from_secs(5));
                sleep(AWAY).await;
                self.link.mend().await;
            }
            "answers_garbage" => {
                self.server.kill();
                let address = format!("127.0.0.1:{}", self.server.port());
                let garbage = Garbage::at_datagrams(&address).await;
                sleep(AWAY_FOR_A_MOMENT).await;
                assert!(garbage.stop().await > 0, "nobody heard any of it");
                self.server.restart().await;
            }
            _ => return Err(Cannot),
        }
        Ok(())
    }
}

/// A file in a folder.
struct Listed {
    dir: TempDir,
}

impl Listed {
    fn folder(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    fn file(&self) -> PathBuf {
        self.folder().join("nodes.toml")
    }

    fn replace(&self, text: &str) {
        let beside = self.folder().join("new");
        fs::write(&beside, text).expect("a file is written");
        fs::rename(&beside, self.file()).expect("a file is renamed");
    }
}

impl Source for Listed {
    async fn new(_: &str, _: &[String]) -> Self {
        let listed = Self { dir: TempDir::new().expect("a folder for a folder") };
        fs::create_dir(listed.folder()).expect("a folder for a file");
        listed
    }

    fn url(&self) -> String {
        format!("file://{}", self.file().display())
    }

    async fn list(&mut self, addresses: &[String]) {
        self.replace(&format!("[echo]\nnodes = {addresses:?}\n"));
    }

    fn take_away(&mut self) -> Result<(), Cannot> {
        fs::rename(self.folder(), self.dir.path().join("aside")).expect("it is moved");
        Ok(())
    }

    async fn bring_back(&mut self) {
        fs::rename(self.dir.path().join("aside"), self.folder()).expect("it is moved back");
    }

    async fn strike(&mut self, fault: &str, listed: &[String]) -> Result<(), Cannot> {
        let aside = self.dir.path().join("aside");
        match fault {
            // The service is there and has no node.
            "every_record_deleted" => self.list(&[]).await,
            // Where it lies, with what is no list.
            "every_record_overwritten" => fs::write(self.file(), "[echo\n").expect("it is written"),
            // The file is gone, and back.
            "killed_and_restarted" => {
                fs::rename(self.file(), &aside).expect("it is moved");
                sleep(AWAY_FOR_A_MOMENT).await;
                fs::rename(&aside, self.file()).expect("it is moved back");
                return Ok(());
            }
            // .. with what is no text.
            "answers_garbage" => fs::write(self.file(), noise(4096)).expect("it is written"),
            "wiped" => self.replace(""),
            "restored_to_an_older_state" => self.list(&older(listed)).await,
            // The folder is gone, and back.
            "connection_cut" => {
                self.take_away()?;
                sleep(AWAY_FOR_A_MOMENT).await;
                self.bring_back().await;
                return Ok(());
            }
            "connection_flaps" => {
                flap(async |is_there| match is_there {
                    true => self.bring_back().await,
                    false => self.take_away().expect("it is moved"),
                })
                .await;
                return Ok(());
            }
            _ => return Err(Cannot),
        }
        sleep(AWAY_FOR_A_MOMENT).await;
        self.list(listed).await;
        Ok(())
    }
}

/// A registry of this process, where nodes register themselves.
struct Within {
    url: String,
}

impl Source for Within {
    async fn new(_: &str, _: &[String]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Self { url: format!("memory://faults-{}", COUNT.fetch_add(1, Ordering::Relaxed)) }
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    async fn node(&self, address: &str) -> Handle {
        node_in(&self.url, address).await
    }

    async fn list(&mut self, _: &[String]) {}

    /// Another program part takes the record over, which is to have it in hand, and is then not the
    /// owner that it should be. The node's next renewal finds out.
    async fn strike(&mut self, fault: &str, _: &[String]) -> Result<(), Cannot> {
        let registry = registry::open(&self.url).expect("a registry");
        let records = registry.read("echo").await.expect("it is read").entries;
        assert_eq!(records.len(), 3, "{records:?}");
        for record in &records {
            let mut taken = (*record.node).clone();
            match fault {
                // Nobody renews it.
                "every_lease_lost" => {
                    let ttl = registry.min_ttl().max(Duration::from_secs(1));
                    registry.register(&taken, ttl).await.expect("it is taken over");
                }
                "every_record_deleted" => {
                    let lease = registry.register(&taken, TTL).await.expect("it is taken over");
                    registry.deregister(&taken, lease).await.expect("it is deleted");
                }
                "every_record_overwritten" => {
                    "127.0.0.1:1".clone_into(&mut taken.address);
                    registry.register(&taken, TTL).await.expect("it is taken over");
                }
                _ => return Err(Cannot),
            }
        }
        let start = Instant::now();
        while !is_back(&*registry, &records).await {
            let limit = TTL / 3 + Duration::from_secs(1);
            assert!(start.elapsed() < limit, "the nodes are back within {limit:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Whether the records are as they were, but for who wrote them last.
async fn is_back(registry: &dyn Registry, records: &[registry::Entry]) -> bool {
    let now = registry.read("echo").await.expect("it is read").entries;
    let is_back = |record: &registry::Entry| {
        now.iter().any(|it| it.node == record.node && it.revision > record.revision)
    };
    records.iter().all(is_back)
}

/// The nodes in a URL.
struct Named {
    url: String,
}

impl Source for Named {
    async fn new(_: &str, addresses: &[String]) -> Self {
        Self { url: format!("static://echo={}", addresses.join(",")) }
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    async fn list(&mut self, _: &[String]) {}

    async fn strike(&mut self, _: &str, _: &[String]) -> Result<(), Cannot> {
        Err(Cannot)
    }
}

macro_rules! on_source {
    ($name:ident: $source:ty, not { $($why:literal: $($cannot:ident)*;)* } => $($fault:ident)*) => {
        mod $name {
            use super::*;

            const DECLARED: &[(&str, &str)] = &[$($((stringify!($cannot), $why)),*),*];

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $fault() {
                    let ended = bear::<$source>(stringify!($fault)).await;
                    judge(stringify!($fault), ended, DECLARED);
                }
            )*
        }
    };
}

/// A test for every fault and source. In braces are the faults that it cannot have, behind the reason:
/// they are tried all the same.
macro_rules! every_source {
    ($($name:ident: $source:ty, not $declared:tt;)*) => {
        $(tests::every_fault! { on_source! { $name: $source, not $declared } })*
    };
}

every_source! {
    dns: Name, not {
        "nobody holds a lease on what is in a zone": every_lease_lost;
        "whoever asks may know": credentials_expired_and_renewed;
    };
    file: Listed, not {
        "nobody holds a lease on a line": every_lease_lost;
        "a file answers at once or not at all": stopped_for_three_ttls connection_black_holed
            five_seconds_slow;
        "a file's rights are the process's, which does not sign in": credentials_expired_and_renewed;
    };
    memory: Within, not {
        "it is in the process, and ends with it": killed_and_restarted wiped
            restored_to_an_older_state stopped_for_three_ttls connection_cut connection_black_holed
            connection_flaps five_seconds_slow answers_garbage credentials_expired_and_renewed
            down_at_the_start
            down_at_the_start_with_a_cache away_for_longer_than_max_stale;
    };
    r#static: Named, not {
        "its nodes are in the URL, and nobody is asked": every_lease_lost every_record_deleted
            every_record_overwritten killed_and_restarted wiped restored_to_an_older_state
            stopped_for_three_ttls connection_cut connection_black_holed connection_flaps
            five_seconds_slow answers_garbage credentials_expired_and_renewed down_at_the_start down_at_the_start_with_a_cache
            away_for_longer_than_max_stale;
    };
}
