//! What may happen to a registry's server, whichever it is.

use micro::registry::Node;
pub use micro::testing::registry::Cannot;

/// A registry's server in the hands of the fault suite: one fresh, with its data. What it does not
/// provide, it cannot have done to it, and the table of faults says why.
#[allow(async_fn_in_trait, reason = "the faults are generic, and no future leaves its test")]
pub trait Server: Sized {
    /// As the table names it.
    const NAME: &'static str;

    /// A server that has not started yet.
    fn stopped() -> Self;

    /// `127.0.0.1:PORT`, where it is reached.
    fn address(&self) -> String;

    /// The registry's URL when it is reached at this address.
    fn url_at(&self, address: &str) -> String;

    /// Kills it.
    fn kill(&mut self);

    /// Kills it if it runs, and starts it on the same ports with what it held, as far as it keeps
    /// anything.
    async fn restart(&mut self);

    /// Stops it where it is.
    fn pause(&self);

    /// Lets it go on.
    fn resume(&self);

    /// Starts it on the same ports with nothing in it.
    async fn wipe(&mut self) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Notes what it holds.
    async fn remember(&mut self) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Starts it on the same ports with what it held when it was told to remember.
    async fn go_back(&mut self) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Ends the node's lease, check or session, as if its time were over.
    async fn lose(&self, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Deletes the node's record, and leaves its lease.
    async fn delete(&self, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Writes another node's record over this one's: one that cannot be reached.
    async fn overwrite(&self, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// A server, started, whose URL has credentials that [`expire`](Self::expire).
    async fn guarded() -> Result<Self, Cannot>;

    /// Makes the credentials worth nothing.
    async fn expire(&self);

    /// Makes them good again.
    async fn renew(&self);
}
