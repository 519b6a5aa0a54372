//! `static://`, held to what every registry is, as far as one goes that only reads.

use std::sync::Arc;

use micro::{
    registry::Registry,
    registry_conformance,
    testing::registry::{Backend, Cannot, Watching, judge},
};

struct Listed;

impl Backend for Listed {
    fn registry(&self) -> Arc<dyn Registry> {
        micro::registry::open("static://greeter=127.0.0.1:1,127.0.0.1:2;other=127.0.0.1:3")
            .expect("the URL is well-formed")
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            (
                "registering is refused: its nodes are those in its URL",
                &[
                    "a_registered_node_is_read_and_listed",
                    "a_service_without_nodes_has_a_revision_to_watch_from",
                    "a_renewed_record_outlives_its_ttl_and_then_expires",
                    "a_ttl_under_the_least_is_refused",
                    "a_deregistered_node_is_gone_at_once",
                    "an_overwritten_record_is_lost_to_its_first_owner",
                    "a_record_that_another_deleted_is_lost_and_can_come_back",
                    "a_late_subscriber_sees_what_it_missed",
                    "updates_come_in_order_each_with_a_revision_of_its_own",
                    "a_record_written_again_is_told_as_it_is_now",
                    "deletions_of_one_moment_are_all_told",
                    "services_whose_names_begin_alike_are_apart",
                ],
            ),
            (
                "no process owns a record in a URL, and none expires",
                &["a_killed_owners_record_expires_and_not_before_its_ttl"],
            ),
            (
                "a malformed list is refused when it is opened",
                &["a_malformed_neighbour_spoils_nothing"],
            ),
            (
                "it has the one revision, and no change that could be missed or forgotten",
                &["a_gap_in_the_watch_is_told", "a_revision_yet_to_come_is_told_as_a_gap"],
            ),
            (
                "an address that is there twice is refused when it is opened",
                &["of_two_records_with_one_address_subscribers_see_the_newest_alone"],
            ),
        ]
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

#[test]
#[should_panic(expected = "does not say so")]
fn a_case_that_ends_without_a_declaration_fails() {
    judge(&Listed, "a_new_case", Err(Cannot));
}

#[test]
#[should_panic(expected = "and passes")]
fn a_case_declared_not_to_apply_fails_when_it_passes() {
    judge(&Listed, "a_gap_in_the_watch_is_told", Ok(()));
}
