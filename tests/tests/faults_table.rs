//! What may happen to a node: each fault under 16 callers and a real etcd, several side by side.

use std::time::Duration;

use tests::{
    etcd::Etcd,
    fault::{Audit, CALLS, NodeFault, Who},
};

async fn under(fault: NodeFault) -> Audit {
    let etcd = Etcd::start().await;
    fault.done(&etcd.url(), Who::Micro, CALLS).await.judged()
}

macro_rules! each {
    ($($name:ident: $fault:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            under(NodeFault::$fault).await;
        })*
    };
}

each! {
    one_of_three_killed: Killed;
    one_of_three_stopped: Stopped;
    rolling_restart: RollingRestart;
    a_node_that_refuses_connections: Refuses;
    a_node_that_is_silent: Silent;
    two_of_three_killed_at_once: TwoKilled;
    all_killed_and_started_again_at_once: AllKilled;
    a_files_node_gets_another_address: AddressChanged;
    a_node_that_closes_every_connection: Closes;
    a_node_that_closes_every_connection_once_it_is_ready: ClosesWhenReady;
    a_node_whose_syn_is_dropped: SynDropped;
    a_node_that_sends_settings_and_nothing_more: SilentAfterSettings;
    a_node_that_is_ready_and_silent_then: SilentWhenReady;
    a_node_that_refuses_each_call_by_goaway: RefusesByGoAway;
    a_node_that_throws_each_call_out_for_an_error: ThrowsOut;
    a_node_that_goes_away_at_each_tenth_call: GoesAway;
    a_node_that_refuses_each_second_stream: ResetsRefused;
    a_node_that_resets_each_second_stream: ResetsForError;
    a_node_that_resets_each_second_stream_amid_its_answer: ResetsAmidAnswer;
    a_node_that_ends_each_second_call_without_a_status: EndsWithoutStatus;
    a_node_that_is_always_exhausted: Exhausted;
    a_node_that_fails_fast: Unavailable;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_100_times_slower_has_few_calls() {
    let audit = under(NodeFault::Slow).await;
    // The second node's second process; it has its share while it is new.
    let of = |node| audit.visits_between(node, Duration::ZERO, Duration::MAX);
    let (own, all) = (of(Some("b-2")), of(None));
    assert!(own * 10 <= all, "it had {own} of {all} calls");
}
