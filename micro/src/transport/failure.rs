//! Why a call failed, and whether a handler can have seen it.

use std::{error::Error, fmt};

use h2::Reason;
use tonic::{Code, Status};

use super::message::Fault;

/// A call that got no answer of a handler's.
///
/// Its text names the peer. As an error it has the gRPC status as its source, where tonic looks
/// for one.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    kind: FailureKind,
    status: Status,
}

/// What is known of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FailureKind {
    /// It never left this process: the connection is closing or closed, or has no stream ids left.
    NotSent,
    /// The peer says that it did not process it, and takes others: REFUSED_STREAM.
    Refused,
    /// The peer says that it did not process it, and leaves the connection: a GOAWAY in good order
    /// whose last id is below the call's.
    LeftBehind,
    /// As left behind, but the GOAWAY is for an error: the peer gave up the connection for something
    /// that was sent on it, and that may have been this call.
    Suspect,
    /// The connection broke, or a PING went unanswered, after the call may have been seen.
    Lost,
    /// The peer reset the call's stream otherwise.
    Reset,
    /// Our own request is at fault: its body failed, it cannot be sent over HTTP/2, or it has more
    /// metadata than the peer takes.
    Body,
    /// The peer's answer breaks the rules of HTTP/2 or gRPC, or is not gRPC's.
    Malformed,
    /// The peer's message is not of the method's kind.
    Undecodable,
    /// The peer's message is longer than we take.
    TooLarge,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, status: Status) -> Self {
        Self { kind, status }
    }

    /// One that is `Unavailable` to the caller.
    pub(crate) fn unavailable(kind: FailureKind, peer: &str, why: impl fmt::Display) -> Self {
        Self::new(kind, Status::unavailable(format!("{peer}: {why}")))
    }

    /// The peer's message cannot be taken.
    pub(super) fn of_fault(peer: &str, fault: &Fault) -> Self {
        let (kind, code) = match fault {
            Fault::TooLarge { .. } => (FailureKind::TooLarge, Code::ResourceExhausted),
            _ => (FailureKind::Malformed, Code::Internal),
        };
        Self::new(kind, Status::new(code, format!("{peer}: {fault}")))
    }

    /// The peer's answer ended, and says not how the call went.
    pub(crate) fn without_status(peer: &str) -> Self {
        let text = format!("{peer}: the peer ended the call without a grpc-status");
        Self::new(FailureKind::Malformed, Status::internal(text))
    }

    /// Our request's body failed.
    pub(super) fn of_body(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::new(FailureKind::Body, Status::from_error(error))
    }

    pub(crate) fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Whether no handler can have seen the call, so that it may be sent again elsewhere.
    pub(crate) fn is_unprocessed(&self) -> bool {
        use FailureKind::{LeftBehind, NotSent, Refused, Suspect};
        matches!(self.kind, NotSent | Refused | LeftBehind | Suspect)
    }

    /// The status that the call's caller is to get.
    pub(crate) fn to_status(&self) -> Status {
        self.status.clone()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.message())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.status)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.status
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compressed => f.write_str("the reply is compressed, which was not offered"),
            Self::TooLarge { length, limit } => {
                write!(f, "the reply has {length} bytes, the limit is {limit}")
            }
            Self::Excess => f.write_str("the reply has more than one message"),
            Self::Short => f.write_str("the stream ended amid the reply"),
        }
    }
}

/// The gRPC code of a stream that the peer reset (gRPC's `PROTOCOL-HTTP2.md`, "Errors").
pub(super) fn code_of_reset(reason: Reason) -> Code {
    match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// Classifies the error of a stream. `was_sent` is whether its HEADERS were handed to the socket,
/// `is_answered` whether its response had begun; `why_lost` is why the connection ended, if known.
pub(super) fn of_stream(
    error: &h2::Error,
    peer: &str,
    was_sent: bool,
    is_answered: bool,
    why_lost: Option<&str>,
) -> Failure {
    use FailureKind::{LeftBehind, Lost, Malformed, NotSent, Refused, Reset, Suspect};
    if error.is_reset() && error.is_remote() {
        let reason = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
        let code = code_of_reset(reason);
        // A peer that has begun to answer has seen the call, whatever it says later.
        let kind = match reason {
            Reason::REFUSED_STREAM if !is_answered => Refused,
            _ => Reset,
        };
        let text = format!("{peer}: the peer reset the stream: {reason:?}");
        return Failure::new(kind, Status::new(code, text));
    }
    if error.is_reset() {
        let text = format!("{peer}: the response breaks HTTP/2, or its headers are too large");
        return Failure::new(Malformed, Status::internal(text));
    }
    if error.is_go_away() && error.is_remote() && !is_answered {
        let reason = error.reason().unwrap_or(Reason::NO_ERROR);
        let kind = match reason {
            _ if !was_sent => NotSent,
            Reason::NO_ERROR => LeftBehind,
            _ => Suspect,
        };
        let text = format_args!("the peer sent GOAWAY {reason:?} and did not process the call");
        return Failure::unavailable(kind, peer, text);
    }
    let kind = if was_sent { Lost } else { NotSent };
    match why_lost {
        Some(why) => Failure::unavailable(kind, peer, why),
        None => Failure::unavailable(kind, peer, format_args!("the connection broke: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_codes_map_as_grpc_says() {
        for (reason, code) in [
            (Reason::NO_ERROR, Code::Internal),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::INTERNAL_ERROR, Code::Internal),
            (Reason::FLOW_CONTROL_ERROR, Code::Internal),
            (Reason::SETTINGS_TIMEOUT, Code::Internal),
            (Reason::STREAM_CLOSED, Code::Internal),
            (Reason::FRAME_SIZE_ERROR, Code::Internal),
            (Reason::REFUSED_STREAM, Code::Unavailable),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::COMPRESSION_ERROR, Code::Internal),
            (Reason::CONNECT_ERROR, Code::Internal),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
            (Reason::HTTP_1_1_REQUIRED, Code::Internal),
            (Reason::from(4711), Code::Internal),
        ] {
            assert_eq!(code_of_reset(reason), code, "{reason:?}");
        }
    }

    #[test]
    fn tonic_finds_the_status_in_the_error() {
        let failure = Failure::unavailable(FailureKind::Lost, "node:1", "gone");
        let status = Status::from_error(Box::new(failure));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "node:1: gone");
    }
}
