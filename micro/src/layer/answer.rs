//! What comes back through layers: a response or a status, whichever form it has.

use std::{error::Error, iter::successors};

use http::StatusCode;
use tonic::{Code, Status};
use tower::{load_shed::error::Overloaded, timeout::error::Elapsed};

use super::{Body, BoxError};
use crate::headers::{code_of_http, drop_malformed_details};

/// A response that may still say in its headers that the call failed, or why it did.
pub(crate) type Answer = Result<http::Response<Body>, Status>;

/// Makes an `Err` of a response that is only a status, and of one that is not gRPC's.
pub(crate) fn settle(answer: Answer) -> Answer {
    let mut response = answer?;
    drop_malformed_details(response.headers_mut());
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        None if response.status() != StatusCode::OK => {
            let http = response.status();
            let text = format!("a layer answered with HTTP status {http} and no gRPC status");
            let code = match http {
                // Gateways answer so to a caller who was too slow, which gRPC's mapping leaves out; a
                // layer's timeout means the call.
                StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
                _ => code_of_http(http),
            };
            Err(Status::new(code, text))
        }
        _ => Ok(response),
    }
}

/// The one place where a tower service's error becomes a status.
pub(super) fn failed(error: impl Into<BoxError>) -> Status {
    let error = error.into();
    let first: &(dyn Error + 'static) = &*error;
    let mut chain = successors(Some(first), |error| (**error).source());
    // Before tonic's own reading of an error, which with some of its features knows these two by
    // other texts.
    let towers = chain.find_map(|error| {
        if error.is::<Elapsed>() {
            Some(Status::deadline_exceeded as fn(String) -> Status)
        } else {
            error.is::<Overloaded>().then_some(Status::resource_exhausted)
        }
    });
    let text = |error: &BoxError| format!("a layer failed: {error}");
    match towers {
        Some(status) => status(text(&error)),
        None => {
            Status::try_from_error(error).unwrap_or_else(|error| Status::internal(text(&error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_details_that_are_no_base64_are_dropped() {
        let response = http::Response::builder()
            .header("grpc-status", "5")
            .header("grpc-status-details-bin", "no base64!")
            .body(Body::default())
            .expect("a response");
        let status = settle(Ok(response)).expect_err("a status");
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.details().is_empty());
    }
}
