//! Which of the records are in force.

use super::World;

#[test]
fn a_malformed_record_is_left_out_counted_and_noted_once() {
    let mut world = World::new(7);
    world.wake();
    assert_eq!(world.listing(5, &["!a", "b@y"]), "malformed:a =[b@y] watch>5");
    assert_eq!(world.status().malformed, 1);
    assert_eq!(world.batch(6, &["!a", "!c"]), "malformed:c");
    assert_eq!(world.status().malformed, 2);
    assert_eq!(world.batch(7, &["a@x", "-c"]), "+a@x");
    assert_eq!(world.status().malformed, 0);
}

#[test]
fn a_malformed_overwrite_keeps_the_last_good_record() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.batch(6, &["!a"]), "malformed:a");
    world.wake();
    assert_eq!(world.listing(7, &["!a"]), "watch>7");
    assert_eq!(world.batch(8, &["a@z"]), "+a@z");
    assert_eq!(world.batch(9, &["!a"]), "malformed:a");
    assert_eq!(world.batch(10, &["-a"]), "-a");
    assert_eq!(world.status().malformed, 0);
}

#[test]
fn nodes_that_do_not_speak_grpc_are_left_out_and_counted() {
    let mut world = World::with(5, &["a@x", "?b@y"]);
    assert_eq!(world.status().not_grpc, 1);
    assert_eq!(world.batch(6, &["?a@x"]), "-a");
    assert_eq!(world.status().not_grpc, 2);
    assert_eq!(world.batch(7, &["a@x", "-b"]), "+a@x");
    assert_eq!(world.status().not_grpc, 0);
    assert_eq!(world.batch(8, &["?c@x"]), "", "nor do they take a gRPC node's address");
}

#[test]
fn of_two_records_with_one_address_the_last_written_is_in_force() {
    let mut world = World::with(5, &["old@x#3", "new@x#4", "b@y#5"]);
    assert_eq!(world.batch(6, &["newer@x"]), "+newer@x -new");
    assert_eq!(world.batch(7, &["-old"]), "", "was not in force");
    assert_eq!(world.batch(8, &["-newer"]), "+new@x -newer", "the older one is back");
    assert_eq!(world.batch(9, &["old@x"]), "+old@x -new");
    assert_eq!(world.batch(10, &["old@z"]), "+new@x +old@z", "both, once they differ");
}

#[test]
fn a_node_in_several_formats_is_told_once_as_the_first_of_them() {
    let mut world = World::with(5, &[]);
    assert_eq!(world.batch(6, &["a@x"]), "+a@x");
    assert_eq!(world.batch(7, &["k:a@x^1"]), "", "the same id");
    assert_eq!(world.batch(8, &["l:x@x^2"]), "", "an id of the format's own");
    assert_eq!(world.batch(9, &["k:a@x^1"]), "", "written anew, and still not in force");
    assert_eq!(world.batch(10, &["a@x"]), "+a@x", "in force, and written anew");
    assert_eq!(world.batch(11, &["-a"]), "", "the next format says the same of it");
    assert_eq!(world.batch(12, &["-k"]), "+x@x -a");
    assert_eq!(world.batch(13, &["a@x"]), "+a@x -x", "the first is back");
    assert_eq!(world.batch(14, &["-l", "-a"]), "-a");
}

#[test]
fn a_node_in_several_formats_can_be_started_again_on_its_port() {
    // Killed: what it left is there until it expires.
    let mut world = World::with(5, &["a@x#3", "k:x@x^1#4", "b@y#5"]);
    assert_eq!(world.batch(6, &["new@x"]), "+new@x -a");
    assert_eq!(world.batch(7, &["k:x@x^1"]), "");
    assert_eq!(world.batch(8, &["-a"]), "", "expired");
    // In the second format alone, it is there under its former name until that expires.
    assert_eq!(world.batch(9, &["k:x@x^1"]), "");
    assert_eq!(world.batch(10, &["-new"]), "+x@x -new");
}

#[test]
fn of_two_keys_with_one_id_the_last_written_is_in_force() {
    let mut world = World::with(5, &["k:a@x#3", "l:a@y#4"]);
    assert_eq!(world.batch(6, &["-l"]), "+a@x");
    assert_eq!(world.batch(7, &["l:a@y"]), "+a@y");
    // It loses its address to another node, and so its hold on the id.
    assert_eq!(world.batch(8, &["b@y"]), "+a@x +b@y");
}

#[test]
fn a_record_written_anew_is_inserted_again_and_one_merely_read_again_is_not() {
    let mut world = World::with(5, &["a@x#5", "b@y#5"]);
    assert_eq!(world.batch(6, &["a@z"]), "+a@z", "a changed address");
    assert_eq!(world.batch(7, &["a@z"]), "+a@z", "as after a restart under the same id");
    world.wake();
    assert_eq!(world.listing(8, &["a@z#7", "b@y#5"]), "watch>8");
    world.wake();
    assert_eq!(world.listing(9, &["a@z#7", "b@y#9"]), "+b@y watch>9");
}
