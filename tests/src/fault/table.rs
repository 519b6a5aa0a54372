//! The table of faults that every registry has to bear.

use super::Cannot;

/// Hands the names of all faults to a macro, behind what it is given else.
#[macro_export]
macro_rules! every_fault {
    ($macro:ident! { $($given:tt)* }) => {
        $macro! {
            $($given)* =>
            every_lease_lost
            every_record_deleted
            every_record_overwritten
            killed_and_restarted
            wiped
            restored_to_an_older_state
            stopped_for_three_ttls
            connection_cut
            connection_black_holed
            connection_flaps
            five_seconds_slow
            answers_garbage
            credentials_expired_and_renewed
            down_at_the_start
            down_at_the_start_with_a_cache
            away_for_longer_than_max_stale
        }
    };
}

macro_rules! names {
    (=> $($fault:ident)*) => { &[$(stringify!($fault)),*] };
}

const FAULTS: &[&str] = every_fault! { names! {} };

/// Holds how a fault ended to what the table says of it: `declared` has the faults that cannot be,
/// each with the reason.
///
/// # Panics
/// When they disagree, or a fault is declared that there is not.
pub fn judge(fault: &str, ended: Result<(), Cannot>, declared: &[(&str, &str)]) {
    for (fault, _) in declared {
        assert!(FAULTS.contains(fault), "there is no fault {fault}");
    }
    let why = declared.iter().find(|(cannot, _)| *cannot == fault).map(|(_, why)| why);
    match (ended, why) {
        (Ok(()), None) => {}
        // What the matrix of registries and tests is made of.
        (Err(Cannot), Some(why)) => println!("{fault} does not apply: {why}"),
        (Err(Cannot), None) => panic!("{fault} cannot be done, and the table does not say so"),
        (Ok(()), Some(why)) => panic!("{fault} is declared not to apply ({why}), and passes"),
    }
}
