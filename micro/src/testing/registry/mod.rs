//! What every registry is held to, as far as its nature allows: a case each, which a test of each
//! backend runs ([`registry_conformance!`](crate::registry_conformance)), ours and yours.
//!
//! A case uses a service of its own and tokio's clock alone, so that one which is paused runs it
//! in no time. A backend declares which cases are not in its nature, and why; a case that then
//! passes fails, and so does one that ends for want of a hook and was not declared.

mod cases;
mod watching;

pub use cases::*;
pub use watching::{Watching, told};

use std::{fmt, sync::Arc, time::Duration};

use crate::registry::{Lease, Listing, Node, Registry};

/// The backend cannot do what a case needs: the case ends there, and must be
/// [declared](Backend::not_applicable).
#[derive(Debug)]
pub struct Cannot;

/// A registry, and a hand that reaches past it. What a backend does not provide, it cannot do.
#[allow(async_fn_in_trait, reason = "the cases are generic, and no future leaves its test")]
pub trait Backend {
    /// The registry under test.
    fn registry(&self) -> Arc<dyn Registry>;

    /// The cases that are not in its nature, with the reason before them.
    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[]
    }

    /// Whether a watch tells every change. One that tells how all stands may pass over what did not
    /// last, or tell several changes at once. By default it does.
    fn tells_every_change(&self) -> bool {
        true
    }

    /// Deletes these records as another would: at once, in one change where there is such a thing.
    async fn delete(&self, _nodes: &[Node]) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Writes a record that is none, and returns its key.
    async fn write_malformed(&self, _service: &str) -> Result<String, Cannot> {
        Err(Cannot)
    }

    /// Deletes such a record.
    async fn delete_key(&self, _key: &str) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Makes the registry forget all changes up to now.
    async fn forget(&self) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Has an owner register the node and renew it at every third of the TTL. It is in the registry
    /// when this returns.
    async fn own(&self, _node: &Node, _ttl: Duration) -> Result<Owner, Cannot> {
        Err(Cannot)
    }

    /// Reads a service that has no nodes, if the registry tells such a one from a failure.
    async fn read_empty(&self, service: &str) -> Result<Listing, Cannot> {
        let read = self.registry().read(service).await;
        Ok(read.unwrap_or_else(|error| panic!("read {service}: {error:?}")))
    }

    /// Registers a node, if registering is in the registry's nature.
    async fn register(&self, node: &Node, ttl: Duration) -> Result<Lease, Cannot> {
        match self.registry().register(node, ttl).await {
            Ok(lease) => Ok(lease),
            Err(error) if error.is_unsupported() => Err(Cannot),
            Err(error) => panic!("register {}: {error:?}", node.id),
        }
    }
}

/// Whoever keeps a node registered, and how to kill it: from one moment to the next, without a
/// word to the registry.
pub struct Owner(Box<dyn FnOnce()>);

impl Owner {
    /// An owner that this kills.
    pub fn killed_by(kill: impl FnOnce() + 'static) -> Self {
        Self(Box::new(kill))
    }

    /// Kills it.
    pub fn kill(self) {
        (self.0)();
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner")
    }
}

/// Holds how a case ended to what the backend has declared of it.
///
/// # Panics
/// When they disagree.
pub fn judge(backend: &impl Backend, case: &str, ended: Result<(), Cannot>) {
    let declared = backend
        .not_applicable()
        .iter()
        .find(|(_, cases)| cases.contains(&case))
        .map(|(why, _)| why);
    match (ended, declared) {
        (Ok(()), None) => {}
        (Err(Cannot), Some(why)) => println!("{case} does not apply: {why}"),
        (Err(Cannot), None) => {
            panic!("the backend cannot do what {case} needs, and does not say so")
        }
        (Ok(()), Some(why)) => panic!("{case} is declared not to apply ({why}), and passes"),
    }
}

/// Holds what a backend has declared to the cases that there are.
///
/// # Panics
/// When it names one that there is not.
pub fn judge_declared(backend: &impl Backend, cases: &[&str]) {
    for case in backend.not_applicable().iter().flat_map(|(_, cases)| *cases) {
        assert!(cases.contains(case), "there is no case {case}");
    }
}

/// A test for every case: `registry_conformance!((start_paused = true) InMemory::new());`. What the
/// parentheses hold is `#[tokio::test]`'s; a function in brackets, `[in_namespace]`, in their place
/// is called with the case's name and its future, to run it where it likes.
#[macro_export]
macro_rules! registry_conformance {
    ($attributes:tt $backend:expr) => {
        $crate::registry_conformance_cases! {
            $attributes ($backend)
            a_registered_node_is_read_and_listed
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
            a_malformed_neighbour_spoils_nothing
            a_gap_in_the_watch_is_told
            a_revision_yet_to_come_is_told_as_a_gap
            of_two_records_with_one_address_subscribers_see_the_newest_alone
            services_whose_names_begin_alike_are_apart
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! registry_conformance_cases {
    ([$run:path] $backend:tt $($case:ident)*) => {
        $($crate::registry_conformance_case! { [$run] $backend $case })*

        #[test]
        fn what_does_not_apply_is_a_case() {
            let cases = [$(stringify!($case)),*];
            $crate::testing::registry::judge_declared(&$backend, &cases);
        }
    };
    ($attributes:tt $backend:tt $($case:ident)*) => {
        $($crate::registry_conformance_case! { $attributes $backend $case })*

        #[tokio::test $attributes]
        async fn what_does_not_apply_is_a_case() {
            let cases = [$(stringify!($case)),*];
            $crate::testing::registry::judge_declared(&$backend, &cases);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! registry_conformance_case {
    ([$run:path] ($backend:expr) $case:ident) => {
        #[test]
        fn $case() {
            $run(stringify!($case), async {
                let backend = $backend;
                let ended = $crate::testing::registry::$case(&backend).await;
                $crate::testing::registry::judge(&backend, stringify!($case), ended);
            });
        }
    };
    ($attributes:tt ($backend:expr) $case:ident) => {
        #[tokio::test $attributes]
        async fn $case() {
            let backend = $backend;
            let ended = $crate::testing::registry::$case(&backend).await;
            $crate::testing::registry::judge(&backend, stringify!($case), ended);
        }
    };
}
