//! What the counters and lines have of the rooms they live in.

pub(crate) mod members {
    #[derive(Debug)]
    pub(crate) struct Key;
}

pub(crate) mod registry {
    /// One that serves one method.
    #[derive(Debug)]
    pub(crate) struct Node {
        pub(crate) id: String,
        pub(crate) method: String,
    }
}

pub(crate) mod request {
    use super::{
        registry::Node,
        snapshot::{Endpoint, EndpointId},
    };

    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Request<'a> {
        pub(crate) tried: &'a [EndpointId],
        pub(crate) method: &'a str,
        pub(crate) node: Option<&'a str>,
        pub(crate) can_move: bool,
    }

    pub(crate) struct Method<'a>(&'a str);

    impl<'a> Method<'a> {
        pub(crate) fn of(path: &'a str) -> Self {
            Self(path)
        }

        pub(crate) fn is_in(&self, node: &Node) -> bool {
            node.method == self.0
        }
    }

    /// One that every endpoint will do for.
    pub(crate) struct Asked;

    impl Asked {
        pub(crate) fn new(_: &Request<'_>, _: &[EndpointId], _: bool) -> Self {
            Self
        }

        pub(crate) fn admits<C>(&self, _: &Endpoint<C>) -> bool {
            true
        }
    }
}

pub(crate) mod snapshot {
    use std::marker::PhantomData;

    use super::request::Request;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct EndpointId(pub(crate) u64);

    #[derive(Debug)]
    pub(crate) struct Endpoint<C> {
        pub(crate) id: EndpointId,
        pub(crate) connection: C,
    }

    /// One by which calls go to every endpoint, or to none.
    #[derive(Debug)]
    pub(crate) struct Snapshot<C> {
        pub(crate) calls: bool,
        pub(crate) of: PhantomData<C>,
    }

    impl<C> Snapshot<C> {
        pub(crate) fn is_called(&self, _: &Endpoint<C>) -> bool {
            self.calls
        }

        pub(crate) fn is_for(&self, _: &Request<'_>, _: &Endpoint<C>) -> bool {
            self.calls
        }
    }
}
