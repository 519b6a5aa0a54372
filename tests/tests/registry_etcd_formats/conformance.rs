//! A registry in one format whose records have our ids, held to what every registry is.

use std::{process::Stdio, sync::Arc, time::Duration};

use micro::{
    registry::{Node, Registry},
    testing::registry::{Backend, Cannot, Owner},
};
use tests::etcd::Etcd;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use super::{open, put, url};

/// The registry in this format.
struct InFormat(Etcd, &'static str);

impl InFormat {
    async fn start(format: &'static str) -> Self {
        Self(Etcd::start().await, format)
    }

    fn prefix(&self, service: &str) -> String {
        let root = if self.1 == "kratos" { "/microservices/" } else { "" };
        format!("{root}{service}/")
    }
}

impl Backend for InFormat {
    fn registry(&self) -> Arc<dyn Registry> {
        open(&self.0, self.1)
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        let key = |node: &Node| format!("{}{}", self.prefix(&node.service), node.id);
        let delete: Vec<_> =
            nodes.iter().map(|node| etcd_client::TxnOp::delete(key(node), None)).collect();
        let txn = etcd_client::Txn::new().and_then(delete);
        self.0.client().await.txn(txn).await.expect("etcd answers");
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        let key = format!("{}malformed", self.prefix(service));
        put(&self.0, &key, r#"{"name":"x","id":3,"Op":"x"}"#).await;
        Ok(key)
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        self.0.client().await.delete(key, None).await.expect("etcd answers");
        Ok(())
    }

    async fn own(&self, node: &Node, ttl: Duration) -> Result<Owner, Cannot> {
        let url = url(&self.0, self.1);
        let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
            .args([&url, &node.service, &node.id, &ttl.as_secs().to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let output = owner.stdout.take().expect("its output is ours");
        let line = BufReader::new(output).lines().next_line().await.expect("it says something");
        assert_eq!(line.as_deref(), Some("registered"));
        Ok(Owner::killed_by(move || owner.start_kill().expect("SIGKILL is sent")))
    }

    async fn forget(&self) -> Result<(), Cannot> {
        let mut client = self.0.client().await;
        let now = client.get("x", None).await.expect("etcd answers");
        let revision = now.header().expect("an answer has a header").revision();
        client.compact(revision, None).await.expect("etcd answers");
        Ok(())
    }
}

/// All cases but those of what these formats cannot hold: endpoints, and in etcd's naming an id with
/// a `/` and what is to be listed.
macro_rules! conformance {
    ($format:ident $($more:ident)*) => {
        mod $format {
            use super::InFormat;

            micro::registry_conformance_cases! {
                () (InFormat::start(stringify!($format)).await)
                a_service_without_nodes_is_empty
                a_service_without_nodes_has_a_revision_to_watch_from
                a_renewed_record_outlives_its_ttl_and_then_expires
                a_killed_owners_record_expires_and_not_before_its_ttl
                a_ttl_under_the_least_is_refused
                a_deregistered_node_is_gone_at_once
                an_overwritten_record_is_lost_to_its_first_owner
                a_record_that_another_deleted_is_lost_and_can_come_back
                a_late_subscriber_sees_what_it_missed
                updates_come_in_order_each_with_a_revision_of_its_own
                a_record_written_again_is_told_as_it_is_now
                deletions_of_one_moment_are_all_told
                a_gap_in_the_watch_is_told
                a_revision_yet_to_come_is_told_as_a_gap
                of_two_records_with_one_address_subscribers_see_the_newest_alone
                $($more)*
            }
        }
    };
}

conformance!(kratos a_malformed_neighbour_spoils_nothing services_whose_names_begin_alike_are_apart);
conformance!(etcd);
