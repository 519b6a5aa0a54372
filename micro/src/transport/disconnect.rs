//! Why a connection takes no more calls, in the words of metrics.

use std::io;

/// The reason by its name in [gRFC A94], `grpc.disconnect_error`: one of a few, whatever a peer sends.
///
/// [gRFC A94]: https://github.com/grpc/proposal/blob/master/A94-subchannel-otel-metrics.md
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnect(&'static str);

impl Disconnect {
    /// We gave it up.
    pub(crate) const SHUTDOWN: Self = Self("subchannel shutdown");
    /// A PING went unanswered, or the operating system gave the peer up.
    pub(super) const TIMED_OUT: Self = Self("connection timed out");
    /// What has no other name: the peer closed the connection in order and without a GOAWAY, or broke
    /// the rules of HTTP/2.
    pub(crate) const UNKNOWN: Self = Self("unknown");

    /// The name.
    pub(crate) fn name(self) -> &'static str {
        self.0
    }

    /// The peer sent GOAWAY with this code. One that HTTP/2 does not have counts as INTERNAL_ERROR, as
    /// RFC 9113 (section 7) permits: each would be a series of its own.
    pub(super) fn of_go_away(code: u32) -> Self {
        Self(match code {
            0 => "GOAWAY NO_ERROR",
            1 => "GOAWAY PROTOCOL_ERROR",
            3 => "GOAWAY FLOW_CONTROL_ERROR",
            4 => "GOAWAY SETTINGS_TIMEOUT",
            5 => "GOAWAY STREAM_CLOSED",
            6 => "GOAWAY FRAME_SIZE_ERROR",
            7 => "GOAWAY REFUSED_STREAM",
            8 => "GOAWAY CANCEL",
            9 => "GOAWAY COMPRESSION_ERROR",
            10 => "GOAWAY CONNECT_ERROR",
            11 => "GOAWAY ENHANCE_YOUR_CALM",
            12 => "GOAWAY INADEQUATE_SECURITY",
            13 => "GOAWAY HTTP_1_1_REQUIRED",
            _ => "GOAWAY INTERNAL_ERROR",
        })
    }

    /// `h2` gave the connection up for this.
    pub(super) fn of_error(error: &h2::Error) -> Self {
        error.get_io().map_or(Self::UNKNOWN, |error| Self::of_io(error.kind()))
    }

    fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionReset => Self("connection reset"),
            io::ErrorKind::TimedOut => Self::TIMED_OUT,
            io::ErrorKind::ConnectionAborted => Self("connection aborted"),
            _ => Self("socket error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_http2_has_its_name_and_no_other_has_one() {
        for code in 0..14 {
            let name = format!("GOAWAY {:?}", h2::Reason::from(code));
            assert_eq!(Disconnect::of_go_away(code).name(), name);
        }
        for code in [14, 0xff, u32::MAX] {
            assert_eq!(Disconnect::of_go_away(code).name(), "GOAWAY INTERNAL_ERROR");
        }
    }

    #[test]
    fn a_sockets_errors_have_the_names_of_the_grfc() {
        for (kind, name) in [
            (io::ErrorKind::ConnectionReset, "connection reset"),
            (io::ErrorKind::TimedOut, "connection timed out"),
            (io::ErrorKind::ConnectionAborted, "connection aborted"),
            (io::ErrorKind::BrokenPipe, "socket error"),
        ] {
            assert_eq!(Disconnect::of_io(kind).name(), name);
        }
    }
}
