//! A value and its stamp in one word.

use std::sync::Arc;

use super::both;
use crate::stamped::Stamped;

/// Nobody reads the one without the other.
pub fn a_value_is_never_read_with_anothers_stamp() {
    loom::model(|| {
        let stamped = Arc::new(Stamped::new(0.0));
        let write = |stamped: &Stamped| {
            stamped.update(1, |_, _| 1.0);
            stamped.update(2, |_, _| 2.0);
        };
        let read = |stamped: &Stamped| [stamped.load(), stamped.load()];
        let ((), read) = both(&stamped, write, read);
        for (value, at) in read {
            assert_eq!(value, at as f32);
        }
        assert!(read[0].1 <= read[1].1, "it does not go back: {read:?}");
    });
}

/// What one writes is worked out from what the other wrote.
pub fn no_update_is_lost() {
    loom::model(|| {
        let stamped = Arc::new(Stamped::new(1.0));
        let (first, second) = both(
            &stamped,
            |stamped| stamped.update(3, |value, _| value * 2.0),
            |stamped| stamped.update(3, |value, _| value * 2.0),
        );
        assert_eq!(stamped.load(), (4.0, 3));
        assert_eq!(first + second, 3.0, "one saw what the other wrote: {first} {second}");
    });
}
