//! Every model is a test.

macro_rules! models {
    ($($of:ident: $($model:ident),+;)+) => {
        $(mod $of {
            $(#[test]
            fn $model() {
                loom_models::models::$of::$model();
            })+
        })+
    };
}

models! {
    budget: the_last_attempt_is_spent_once, no_deposit_is_lost;
    held: all_hold_on_to_one, one_that_is_gone_is_replaced_once, one_is_found_wherever_it_is;
    in_flight: none_is_left_when_all_have_ended, a_call_that_is_under_way_is_counted;
    lines: who_looks_as_a_node_comes_is_woken, who_comes_as_another_leaves_is_woken,
        who_is_told_that_a_call_waits_sees_it, no_change_of_who_waits_is_missed,
        two_get_one_place_one_after_the_other, who_gives_up_leaves_the_place_to_the_next;
    listed: a_list_is_read_as_a_whole, a_list_is_no_older_than_the_set;
    load: no_more_calls_are_in_flight_than_the_limit, who_has_room_is_let_in,
        the_calls_of_one_stall_raise_the_estimate_once, a_loss_is_told_once, no_failure_is_lost;
    p95: it_begins_with_the_second_longest_of_twenty,
        of_two_that_end_at_once_the_shorter_counts, no_step_is_lost,
        a_step_is_known_with_what_went_before;
    probes: one_call_at_a_time_tries_a_node, one_that_comes_beside_a_call_is_tried_at_once,
        one_whose_fate_is_known_is_not_tried_again, one_that_was_passed_by_is_seen;
    slots: a_lowered_limit_holds, a_raised_limit_holds, a_limit_that_comes_and_goes_holds,
        a_call_that_is_under_way_is_counted;
    stamped: a_value_is_never_read_with_anothers_stamp, no_update_is_lost;
    tally: one_too_many_is_told_once, an_answer_beside_a_failure_is_not_lost,
        the_sweep_takes_each_call_once;
    throttle: no_failure_is_lost, a_failure_and_a_success_come_to_nothing,
        the_tokens_never_exceed_their_most;
    turn: no_turn_is_taken_twice;
}
