//! A registry of somebody's own, as the guide shows it: held to what every registry is, and called by
//! its URL.

mod table {
    #![allow(unreachable_pub, reason = "it is shown as a crate of its own would have it")]
    include!("own_registry/table.rs");
}

use std::{sync::Arc, time::Duration};

use micro::{
    Client, Service,
    registration::RegistrationState,
    registry::{self, Node, Registry},
    registry_conformance,
    testing::registry::{Backend, Cannot, Owner},
};
use table::Table;

#[derive(Default)]
struct InTable(Table);

impl Backend for InTable {
    fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(self.0.clone())
    }

    fn tells_every_change(&self) -> bool {
        false
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            ("its rows are whole", &["a_malformed_neighbour_spoils_nothing"]),
            ("a watch tells how all stands", &["a_gap_in_the_watch_is_told"]),
        ]
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        for node in nodes {
            let listing = self.0.read(&node.service).await.expect("a map answers");
            let entry = listing.entries.iter().find(|entry| entry.node.id == node.id);
            let lease = registry::Lease(entry.expect("it is there").revision as i64);
            self.0.deregister(node, lease).await.expect("a map answers");
        }
        Ok(())
    }

    async fn own(&self, node: &Node, ttl: Duration) -> Result<Owner, Cannot> {
        let lease = self.0.register(node, ttl).await.expect("a map answers");
        let (table, node) = (self.0.clone(), node.clone());
        let owner = tokio::spawn(async move {
            loop {
                tokio::time::sleep(ttl / 3).await;
                table.renew(&node, lease).await.expect("nobody else has this id");
            }
        });
        Ok(Owner::killed_by(move || owner.abort()))
    }
}

registry_conformance!((start_paused = true) InTable::default());

#[tokio::test]
async fn its_urls_are_taken_wherever_ours_are() {
    let table = Table::default();
    let same = table.clone();
    registry::install("table", move |url| {
        assert_eq!(url, "table://nodes?a=b", "how it is followed is none of its business");
        Ok(Arc::new(same.clone()))
    })
    .expect("nobody has the scheme");
    let url = "table://nodes?max_stale=1h&a=b";
    let service = Service::builder("greeter").without_env().registry(url).build().await.unwrap();
    let handle = service.start().await.unwrap();
    let mut state = handle.registration();
    state.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    assert_eq!(table.read("greeter").await.unwrap().entries.len(), 1);
    let client = Client::builder().without_env().registry(url).build().unwrap();
    assert_eq!(client.discovery().registries()[0].name(), "table://");
    assert!(Arc::ptr_eq(&registry::open(url).unwrap(), &registry::open(url).unwrap()), "one a URL");
    handle.stop().await.unwrap();
    assert!(table.read("greeter").await.unwrap().entries.is_empty());

    for (scheme, why) in [
        ("table", "there is one already"),
        ("etcd", "there is one already"),
        ("my table", "is no scheme"),
    ] {
        let error = registry::install(scheme, |_| unreachable!("it is not installed")).unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn one_that_opens_another_on_its_way_is_opened() {
    registry::install("behind", |_| registry::open("memory://own-behind")).expect("a new scheme");
    let behind = registry::open("behind://x").unwrap();
    assert!(Arc::ptr_eq(&behind, &registry::open("memory://own-behind").unwrap()));
    registry::install("within", |url| registry::open(&url.replace("within", "behind"))).unwrap();
    assert!(Arc::ptr_eq(&behind, &registry::open("within://x").unwrap()));
}
