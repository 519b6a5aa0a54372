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
    load: no_more_calls_are_in_flight_than_the_limit, who_has_room_is_let_in,
        the_calls_of_one_stall_raise_the_estimate_once, a_loss_is_told_once, no_failure_is_lost;
    p95: it_begins_with_the_second_longest_of_twenty,
        of_two_that_end_at_once_the_shorter_counts, no_step_is_lost,
        a_step_is_known_with_what_went_before;
    slots: a_lowered_limit_holds, a_raised_limit_holds, a_limit_that_comes_and_goes_holds,
        a_call_that_is_under_way_is_counted;
    stamped: a_value_is_never_read_with_anothers_stamp, no_update_is_lost;
    tally: one_too_many_is_told_once, an_answer_beside_a_failure_is_not_lost,
        the_sweep_takes_each_call_once;
    throttle: no_failure_is_lost, a_failure_and_a_success_come_to_nothing,
        the_tokens_never_exceed_their_most;
    turn: no_turn_is_taken_twice;
}
