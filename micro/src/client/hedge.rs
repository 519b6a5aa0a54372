//! A second attempt before the first has failed.

use std::time::Duration;

use super::policy::RetryPolicy;

/// When a call is made a second time though the first attempt has not failed.
///
/// ```
/// # use std::time::Duration;
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
/// use micro::client::Hedge;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), micro::Error> {
/// # let client = micro::Client::builder().without_env().registry("memory://hedge-docs").build()?;
/// # let greeter = GreeterClient::new("greeter", &client);
/// let call = greeter.hello(HelloRequest { name: "world".into() });
/// # let call = call.timeout(Duration::from_millis(10));
/// let reply = call.hedge(Hedge::at_p95()).await;
/// # assert!(reply.is_err(), "there is no greeter");
/// # Ok(())
/// # }
/// ```
///
/// The time is a node's: it runs from when the first attempt was sent, not while the call waits for a
/// node to be ready.
///
/// The first good answer is the call's, and the other attempt is given up: its stream is reset, and
/// its server drops the handler. An attempt that fails is followed by another as without hedging, by
/// the call's [`RetryPolicy`]. A status that this does not list ends the call whatever else is under
/// way; but where it says that the node failed (`Internal`, say), the other attempt's answer is waited
/// for. The second attempt is paid for as a retry is, from the channel's budget, and counts
/// against [`ClientBuilder::retries`](super::ClientBuilder::retries): with 0 nothing is hedged.
///
/// The `hedgingPolicy` of a [`ServiceConfig`](super::ServiceConfig) does it for all calls of a method,
/// with more attempts if it says so. There any status that it does not list ends the call (gRFC A6).
///
/// A call whose response is a stream, and any call of tonic's own stubs, is hedged until its response
/// begins: the first attempt whose headers come is the call's. What sends a stream is hedged by a
/// `hedgingPolicy` if all its messages are there when it is made, up to 64 KiB. If not, only the failures
/// count that the policy lists, and the next attempt follows such a one at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hedge {
    pub(super) delay: Delay,
}

/// What a further attempt waits for, beside a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Delay {
    Fixed(Duration),
    /// What 19 of 20 first attempts of the method need less than.
    P95,
}

/// How one call is hedged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hedging {
    pub(super) delay: Delay,
    /// How many attempts may be made for the delay.
    pub(super) timed: u32,
    /// After which failures another is made at once, and how many there may be in all.
    pub(super) others: RetryPolicy,
    /// Whether any status beyond those ends the call, and not only what is no failure of a node's.
    pub(super) is_strict: bool,
}

impl Hedge {
    /// A second attempt, on another node while there is one, when the first is not answered within
    /// this time. Zero: both at once.
    pub fn after(delay: Duration) -> Self {
        Self { delay: Delay::Fixed(delay) }
    }

    /// A second attempt when the first takes longer than 95% of this method's calls on this channel
    /// do of late: about one call in twenty is made twice. None until 20 calls of the method that
    /// are hedged so have been answered, or have run out of time.
    pub fn at_p95() -> Self {
        Self { delay: Delay::P95 }
    }
}
