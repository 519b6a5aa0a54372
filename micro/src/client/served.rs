//! Who answered.

use std::sync::Arc;

use crate::registry::Node;

/// Which node answered a call, and how many attempts it took: in the reply's extensions.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
/// use micro::client::Served;
///
/// # async fn ask(greeter: &GreeterClient) -> Result<(), micro::Status> {
/// let reply = greeter.hello(HelloRequest { name: "world".into() }).await?;
/// if let Some(Served { node, attempts, .. }) = reply.extensions().get() {
///     println!("{} at {}, {attempts} attempts", node.id, node.address);
/// }
/// # Ok(())
/// # }
/// # fn main() {}
/// ```
///
/// A stream has it too, with its headers and of the node that these came from: its messages may be
/// another's, if that node failed before the first. A call that failed has none: its status is its
/// handler's, or the channel's own, which names the node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    /// The node, as its record was when the call was sent.
    pub node: Arc<Node>,
    /// How often the call was made, on whichever nodes: 1 unless it was tried again or hedged. Those
    /// that no handler has seen count too.
    pub attempts: u32,
}

impl Served {
    pub(super) fn new(node: Arc<Node>, attempts: usize) -> Self {
        Self { node, attempts: u32::try_from(attempts).unwrap_or(u32::MAX) }
    }
}
