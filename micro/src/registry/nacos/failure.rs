//! Why an exchange failed, and what the SDK's errors mean.

use std::{any::Any, error::Error as StdError, fmt, time::Duration};

use nacos_sdk::api::error::Error as SdkError;
use tonic::Code;

/// What an exchange has at least for its connection to be of no use without an answer: what came before
/// it may have spent the rest.
const ENOUGH: Duration = Duration::from_millis(500);

/// Why an exchange failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// No answer, or none of Nacos's: the connection is of no use.
    Broken(String),
    /// No answer, in too short a time to say something of the connection.
    Late(String),
    /// Nacos said no.
    Refused(String),
    /// Nacos said no to whoever asked: to the token, or to its user.
    Denied(String),
}

impl Failure {
    /// Whether Nacos said no.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Denied(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Broken(why) | Self::Late(why) | Self::Refused(why) | Self::Denied(why)) = self;
        f.write_str(why)
    }
}

/// An exchange that had so much time found no answer.
pub(super) fn no_answer(had: Duration) -> Failure {
    let why = "no answer in time".to_owned();
    if had < ENOUGH { Failure::Late(why) } else { Failure::Broken(why) }
}

/// What an error of the SDK's means. It has most answers that are a refusal as text alone.
pub(super) fn failure(error: &SdkError) -> Failure {
    match error {
        // The server does not know the connection.
        SdkError::ErrResponse(_, _, 301, message) => {
            Failure::Broken(message.clone().unwrap_or_else(|| "connection unregistered".to_owned()))
        }
        SdkError::ErrResponse(_, _, code, message) => {
            let message = message.as_deref().unwrap_or_default();
            let said = format!("{code}: {message}");
            if is_denial(&code.to_string()) {
                Failure::Denied(said)
            } else {
                Failure::Refused(said)
            }
        }
        SdkError::ErrResult(text) if text.starts_with("handle ") => {
            // `handle .. failed: result_code=500, error_code=403, message=..`
            let code = text.split_once("error_code=").and_then(|(_, rest)| rest.split(',').next());
            match code.is_some_and(is_denial) {
                true => Failure::Denied(text.clone()),
                false => Failure::Refused(text.clone()),
            }
        }
        SdkError::InvalidParam(..) => Failure::Refused(error.to_string()),
        SdkError::Serialization(why) => {
            Failure::Refused(format!("the SDK cannot read what Nacos answers: {why}"))
        }
        error => {
            let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
            while let Some(error) = cause {
                if let Some(status) = error.downcast_ref::<tonic::Status>() {
                    let said = format!("{:?}: {}", status.code(), status.message());
                    return match status.code() {
                        Code::PermissionDenied | Code::Unauthenticated => Failure::Denied(said),
                        Code::OutOfRange
                        | Code::ResourceExhausted
                        | Code::Unimplemented
                        | Code::InvalidArgument => Failure::Refused(said),
                        _ => Failure::Broken(said),
                    };
                }
                cause = error.source();
            }
            Failure::Broken(error.to_string())
        }
    }
}

fn is_denial(code: &str) -> bool {
    matches!(code, "401" | "403")
}

/// What a panic of the SDK's said.
pub(super) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the SDK panicked: {}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_broken_connection() {
        let refused = |error: SdkError| failure(&error).is_refusal();
        let response = |code| SdkError::ErrResponse(None, 500, code, Some("why".to_owned()));
        assert!(refused(response(403)) && !refused(response(301)));
        assert_eq!(failure(&response(403)).to_string(), "403: why");
        let result = |text: &str| SdkError::ErrResult(text.to_owned());
        assert!(refused(result("handle subscribe failed: result_code=500, error_code=403")));
        assert!(!refused(result("the connection is not connected")));
        let status = |status: tonic::Status| SdkError::GrpcBufferRequest(Box::new(status));
        assert!(refused(status(tonic::Status::out_of_range("too large"))));
        assert!(!refused(status(tonic::Status::unavailable("gone"))));
        assert!(!refused(SdkError::NoAvailableServer));
    }

    #[test]
    fn a_spent_deadline_is_no_broken_connection() {
        assert!(matches!(no_answer(ENOUGH), Failure::Broken(_)));
        let late = no_answer(ENOUGH - Duration::from_millis(1));
        assert!(matches!(late, Failure::Late(_)) && !late.is_refusal());
        assert_eq!(late.to_string(), "no answer in time");
    }

    #[test]
    fn what_may_be_for_the_token_is_told_from_other_refusals() {
        let denied = |error: SdkError| matches!(failure(&error), Failure::Denied(_));
        let response = |code| SdkError::ErrResponse(None, 500, code, None);
        assert!(denied(response(401)) && denied(response(403)) && !denied(response(400)));
        let result = |code: &str| {
            let said = "message=error_code=403, no";
            SdkError::ErrResult(format!(
                "handle x failed: result_code=500, error_code={code}, {said}"
            ))
        };
        assert!(denied(result("401")) && denied(result("403")) && !denied(result("400")));
        assert!(!denied(result("4030")), "another");
        assert!(!denied(SdkError::ErrResult("handle it".to_owned())));
        let status = |status: tonic::Status| SdkError::GrpcBufferRequest(Box::new(status));
        assert!(denied(status(tonic::Status::unauthenticated("who?"))));
        assert!(denied(status(tonic::Status::permission_denied("no"))));
        assert!(!denied(status(tonic::Status::resource_exhausted("full"))));
    }
}
