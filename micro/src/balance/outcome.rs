//! What a call's end says of the node that served it.

use tonic::Code;

use super::request::hash_of;
use crate::transport::{Failure, FailureKind};

/// How a call went, as far as the node is to be judged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The node answered; that includes answers such as `NotFound`.
    Success,
    /// The node answered that it does not have the method, of this hash, which says nothing of its others.
    /// Calls of that one avoid it for a while: it answers so quickly that it would draw those that
    /// others could serve.
    Unimplemented(u32),
    /// A stream has begun to be answered.
    Begun,
    /// The call was answered elsewhere first, which took less than it has so far here.
    Overtaken,
    /// The node, or the way to it, did not take the call, which says little of it: it may be leaving in
    /// good order.
    TurnedAway,
    /// The node failed the call, or took too long: it is charged at least the penalty.
    Failure,
    /// As a failure, but no answer came of the call, though the connection stands: three in a row
    /// eject the node, of other failures five.
    TransportFailure,
    /// As a transport failure, but with the connection: one, however many calls it took with it.
    ConnectionLost,
    /// The call ended for the caller's own reasons and says nothing.
    Cancelled,
}

impl Outcome {
    /// Judges by the gRPC status of a call of this method: `Unavailable`, `DeadlineExceeded`,
    /// `ResourceExhausted`, `Internal` and `DataLoss` are the node's failures.
    ///
    /// `Unimplemented` is one of the method's, as for Kratos: a fleet half-way through a roll-out answers it
    /// as it should. (For go-zero, Envoy and gRFC A50 it counts against the node, and so against its other
    /// methods.) `Cancelled` is no failure either (kratos#3834).
    pub(crate) fn of_code(code: Code, method: &str) -> Self {
        match code {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
            | Code::DataLoss => Self::Failure,
            Code::Unimplemented => Self::Unimplemented(hash_of(method)),
            Code::Cancelled => Self::Cancelled,
            _ => Self::Success,
        }
    }

    /// Judges a call that got no answer of a handler's.
    pub(crate) fn of_failure(failure: &Failure) -> Self {
        Self::of(failure.kind(), failure.to_status().code())
    }

    fn of(kind: FailureKind, code: Code) -> Self {
        match kind {
            FailureKind::NotSent | FailureKind::Refused | FailureKind::LeftBehind => {
                Self::TurnedAway
            }
            FailureKind::Suspect | FailureKind::Lost => Self::ConnectionLost,
            FailureKind::Malformed => Self::TransportFailure,
            // Whose messages are the wrong ones is open.
            FailureKind::Undecodable => Self::Failure,
            // A handler dropped it, or its own clock struck before ours.
            FailureKind::Reset if code == Code::Cancelled => Self::Failure,
            FailureKind::Reset => Self::TransportFailure,
            // An answer, though one that this client is set not to take.
            FailureKind::TooLarge => Self::Success,
            FailureKind::Body => Self::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_charged_when_it_says_that_the_node_failed() {
        for code in 0..=16 {
            let code = Code::from_i32(code);
            let expected = match code {
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Internal
                | Code::DataLoss => Outcome::Failure,
                Code::Unimplemented => Outcome::Unimplemented(hash_of("/a.B/C")),
                Code::Cancelled => Outcome::Cancelled,
                _ => Outcome::Success,
            };
            assert_eq!(Outcome::of_code(code, "/a.B/C"), expected, "{code:?}");
        }
    }

    #[test]
    fn a_transport_failure_is_charged_unless_it_is_our_own_or_the_callers() {
        use FailureKind::{
            Body, LeftBehind, Lost, Malformed, NotSent, Refused, Reset, Suspect, TooLarge,
            Undecodable,
        };
        for (kind, code, expected) in [
            (NotSent, Code::Unavailable, Outcome::TurnedAway),
            (Refused, Code::Unavailable, Outcome::TurnedAway),
            (LeftBehind, Code::Unavailable, Outcome::TurnedAway),
            (Suspect, Code::Unavailable, Outcome::ConnectionLost),
            (Lost, Code::Unavailable, Outcome::ConnectionLost),
            (Malformed, Code::Unknown, Outcome::TransportFailure),
            (Undecodable, Code::Internal, Outcome::Failure),
            (Reset, Code::Internal, Outcome::TransportFailure),
            (Reset, Code::PermissionDenied, Outcome::TransportFailure),
            (Reset, Code::Cancelled, Outcome::Failure),
            (TooLarge, Code::ResourceExhausted, Outcome::Success),
            (Body, Code::Internal, Outcome::Cancelled),
        ] {
            assert_eq!(Outcome::of(kind, code), expected, "{kind:?} as {code:?}");
        }
    }
}
