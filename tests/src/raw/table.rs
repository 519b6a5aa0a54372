//! The table of many records and odd ones that every registry is put to.

use super::Cannot;

/// Hands the names of all rows to a macro, behind what it is given else.
#[macro_export]
macro_rules! every_row {
    ($macro:ident! { $($given:tt)* }) => {
        $macro! {
            $($given)* =>
            a_watch_cut_50_times_neither_loses_nor_doubles
            batches_of_200_are_told_whole_and_in_order
            an_empty_value_is_left_out
            broken_json_is_left_out
            json_of_a_wrong_type_is_left_out
            overlong_garbage_is_left_out
            a_record_of_100_kib_is_read
            unicode_and_slashes_are_kept
            a_duplicate_id_is_one_node
            two_records_of_one_address_are_one_node
            a_record_written_again_as_it_was_is_told
        }
    };
}

macro_rules! names {
    (=> $($row:ident)*) => { &[$(stringify!($row)),*] };
}

const ROWS: &[&str] = every_row! { names! {} };

/// Holds how a row ended to what the table says of it: `declared` has the rows that do not apply, each
/// with the reason.
///
/// # Panics
/// When they disagree, or a row is declared that there is not.
pub fn judge(row: &str, ended: Result<(), Cannot>, declared: &[(&str, &str)]) {
    for (row, _) in declared {
        assert!(ROWS.contains(row), "there is no row {row}");
    }
    let why = declared.iter().find(|(cannot, _)| *cannot == row).map(|(_, why)| why);
    match (ended, why) {
        (Ok(()), None) => {}
        // What the matrix of registries and tests is made of.
        (Err(Cannot), Some(why)) => println!("{row} does not apply: {why}"),
        (Err(Cannot), None) => panic!("it does not apply, and nothing declares so"),
        (Ok(()), Some(why)) => panic!("it applies, against what is declared: {why}"),
    }
}
