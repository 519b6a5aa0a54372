//! `static://`, held to what every registry is, as far as one goes that only reads: each case that
//! writes ends at its refusal, which says why.

use std::sync::Arc;

use micro::registry::{Node, Registry};
use tests::{
    conformance::{Backend, Cannot, Watching},
    registry_conformance,
};

struct Listed;

impl Backend for Listed {
    fn registry(&self) -> Arc<dyn Registry> {
        micro::registry::open("static://greeter=127.0.0.1:1,127.0.0.1:2;other=127.0.0.1:3")
            .expect("the URL is well-formed")
    }

    async fn delete(&self, _: &[Node]) -> Result<(), Cannot> {
        Err(Cannot::because("its nodes are those in its URL"))
    }

    async fn write_malformed(&self, _: &str) -> Result<String, Cannot> {
        Err(Cannot::because("a malformed list is refused when it is opened"))
    }

    async fn delete_key(&self, _: &str) -> Result<(), Cannot> {
        Err(Cannot::because("its nodes are those in its URL"))
    }

    async fn forget(&self) -> Result<(), Cannot> {
        Err(Cannot::because("it never changes, so there is nothing to forget"))
    }
}

registry_conformance!((start_paused = true) Listed);

#[tokio::test(start_paused = true)]
async fn its_nodes_are_read_listed_and_never_change() {
    let registry = Listed.registry();
    let listing = registry.read("greeter").await.unwrap();
    let addresses: Vec<_> =
        listing.entries.iter().map(|entry| entry.node.address.as_str()).collect();
    assert_eq!(addresses, ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(registry.list().await.unwrap(), ["greeter", "other"]);
    let mut watching = Watching::from_now(&registry, "greeter").await;
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let next = tokio::time::timeout(day, watching.quiet()).await;
    assert!(next.is_err(), "{next:?}");
}
