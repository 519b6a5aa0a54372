//! What a call's end says of the node that served it.

use tonic::Code;

use crate::transport::{Failure, FailureKind};

/// How a call went, as far as the node is to be judged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The node answered; that includes answers such as `NotFound`.
    Success,
    /// The node, or the way to it, failed: it is charged at least the penalty.
    Failure,
    /// The call ended for the caller's own reasons and says nothing.
    Cancelled,
}

impl Outcome {
    /// Judges by a gRPC status: `Unavailable`, `DeadlineExceeded`, `ResourceExhausted`, `Internal`
    /// and `DataLoss` are the node's failures.
    ///
    /// `Unimplemented`, which go-zero counts too, is not: a fleet half-way through a roll-out
    /// answers it as it should. `Cancelled` is no failure either (kratos#3834).
    pub(crate) fn of_code(code: Code) -> Self {
        match code {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
            | Code::DataLoss => Self::Failure,
            Code::Cancelled => Self::Cancelled,
            _ => Self::Success,
        }
    }
}
