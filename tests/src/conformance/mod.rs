//! What every registry is held to, as far as its nature allows: a case each, which a test of each
//! backend runs ([`registry_conformance!`](crate::registry_conformance)).
//!
//! A case uses a service of its own and tokio's clock alone, so that one which is paused runs it
//! in no time. Where a backend cannot do what a case needs it says why, and the case ends there.

mod cases;
mod watching;

pub use cases::*;
pub use watching::{Watching, told};

use std::sync::Arc;

use micro::registry::{Lease, Node, Registry};

/// What a backend cannot do, and why: the case ends there.
#[derive(Debug)]
pub struct Cannot(pub String);

impl Cannot {
    /// It is not in this backend's nature.
    pub fn because(why: &str) -> Self {
        Self(why.to_owned())
    }
}

/// A registry, and a hand that reaches past it.
#[allow(async_fn_in_trait, reason = "the cases are generic, and no future leaves its test")]
pub trait Backend {
    /// The registry under test.
    fn registry(&self) -> Arc<dyn Registry>;

    /// Deletes these records as another would: at once, in one change where there is such a thing.
    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot>;

    /// Writes a record that is none, and returns its key.
    async fn write_malformed(&self, service: &str) -> Result<String, Cannot>;

    /// Deletes such a record.
    async fn delete_key(&self, key: &str) -> Result<(), Cannot>;

    /// Makes the registry forget all changes up to now.
    async fn forget(&self) -> Result<(), Cannot>;

    /// Registers a node, if registering is in the registry's nature.
    async fn register(&self, node: &Node, ttl: std::time::Duration) -> Result<Lease, Cannot> {
        match self.registry().register(node, ttl).await {
            Ok(lease) => Ok(lease),
            Err(error) if error.is_unsupported() => Err(Cannot(error.to_string())),
            Err(error) => panic!("register {}: {error:?}", node.id),
        }
    }
}

/// A test for every case: `registry_conformance!((start_paused = true) InMemory::new());`. What the
/// parentheses hold is `#[tokio::test]`'s.
#[macro_export]
macro_rules! registry_conformance {
    ($attributes:tt $backend:expr) => {
        $crate::registry_conformance_cases! {
            $attributes ($backend)
            a_registered_node_is_read_and_listed
            a_service_without_nodes_is_empty
            a_renewed_record_outlives_its_ttl_and_then_expires
            a_ttl_under_the_least_is_refused
            a_deregistered_node_is_gone_at_once
            an_overwritten_record_is_lost_to_its_first_owner
            a_record_that_another_deleted_is_lost_and_can_come_back
            a_late_subscriber_sees_what_it_missed
            updates_come_in_order_each_with_a_revision_of_its_own
            a_record_written_again_is_told_as_it_is_now
            deletions_of_one_moment_are_all_told
            a_malformed_neighbour_spoils_nothing
            a_gap_in_the_watch_is_told
            a_revision_yet_to_come_is_told_as_a_gap
            a_second_record_with_an_older_ones_address_is_the_newer
            services_whose_names_begin_alike_are_apart
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! registry_conformance_cases {
    ($attributes:tt $backend:tt $($case:ident)*) => {
        $($crate::registry_conformance_case! { $attributes $backend $case })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! registry_conformance_case {
    ($attributes:tt ($backend:expr) $case:ident) => {
        #[tokio::test $attributes]
        async fn $case() {
            let backend = $backend;
            if let Err(why) = $crate::conformance::$case(&backend).await {
                println!("{} does not apply: {}", stringify!($case), why.0);
            }
        }
    };
}
