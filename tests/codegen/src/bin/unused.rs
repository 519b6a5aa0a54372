//! A program that uses nothing of what was generated for it, and is not warned for that.
#![deny(warnings, clippy::all)]
#![allow(missing_docs, unreachable_pub, clippy::use_self)]

mod kinds {
    micro::include_proto!("kinds.v1");
}

mod optional {
    micro::include_proto!("optional");
}

mod reserved {
    micro::include_proto!("match.self.v1");
}

mod bare {
    micro::include_proto!("_");
}

fn main() {}
