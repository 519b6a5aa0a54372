//! Every package of `proto/`, mounted as its documentation says.
//!
//! Messages say nothing of themselves where the `.proto` has no comments, and the workspace's
//! `use_self` is no lint that a user has by default.
#![allow(missing_docs, clippy::use_self)]

/// Every kind of call, and a second service.
pub mod kinds {
    /// The package `kinds.v1`.
    pub mod v1 {
        micro::include_proto!("kinds.v1");
    }
}

/// Messages that other packages import.
pub mod common {
    /// The package `common.v1`.
    pub mod v1 {
        micro::include_proto!("common.v1");
    }
}

/// A package with a package inside.
pub mod deep {
    micro::include_proto!("deep");

    /// The package `deep.er`.
    pub mod er {
        micro::include_proto!("deep.er");
    }
}

/// Files without a package.
pub mod bare {
    micro::include_proto!("_");
}

/// Comments that rustdoc or clippy would stumble over, which the tests of documentation see.
pub mod comments {
    micro::include_proto!("comments");
}

/// Google's messages.
pub mod known {
    micro::include_proto!("known");
}

/// proto3's `optional`.
pub mod optional {
    micro::include_proto!("optional");
}

/// Reserved words.
pub mod r#match {
    /// `self` cannot be written, not even as `r#self`.
    pub mod self_ {
        /// The package `match.self.v1`.
        pub mod v1 {
            micro::include_proto!("match.self.v1");
        }
    }
}

/// Generated with options.
pub mod options {
    micro::include_proto!("options");

    /// The client side alone.
    pub mod client {
        include!(concat!(env!("OUT_DIR"), "/client/options.rs"));
    }

    /// The server side alone.
    pub mod server {
        include!(concat!(env!("OUT_DIR"), "/server/options.rs"));
    }

    /// The descriptor set.
    pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/options.bin"));
}

/// The example in `micro-build`'s documentation, which needs generated code.
#[cfg(doctest)]
#[doc = include_str!("../../../micro-build/docs/packages.md")]
pub struct NestedPackages;
