//! What comes back through layers: a response or a status, whichever form it has.

use std::{error::Error, iter::successors};

use http::StatusCode;
use tonic::Status;
use tower::{load_shed::error::Overloaded, timeout::error::Elapsed};

use super::{Body, BoxError};
use crate::headers::code_of_http;

/// A response that may still say in its headers that the call failed, or why it did.
pub(crate) type Answer = Result<http::Response<Body>, Status>;

/// Makes an `Err` of a response that is only a status, and of one that is not gRPC's.
pub(crate) fn settle(answer: Answer) -> Answer {
    let response = answer?;
    match response.headers().get(Status::GRPC_STATUS) {
        Some(code) if code == "0" => Ok(response),
        Some(_) => match Status::from_header_map(response.headers()) {
            Some(status) => Err(status),
            None => Ok(response),
        },
        None if response.status() == StatusCode::OK => Ok(response),
        None => {
            let http = response.status();
            let text = format!("a layer answered with HTTP status {http} and no gRPC status");
            Err(Status::new(code_of_http(http), text))
        }
    }
}

/// The one place where a tower service's error becomes a status.
pub(super) fn failed(error: impl Into<BoxError>) -> Status {
    let error = match Status::try_from_error(error.into()) {
        Ok(status) => return status,
        Err(error) => error,
    };
    let first: &(dyn Error + 'static) = &*error;
    let mut chain = successors(Some(first), |error| (**error).source());
    let is = |error: &(dyn Error + 'static)| {
        let by_code = [
            (error.is::<Elapsed>(), Status::deadline_exceeded as fn(String) -> Status),
            (error.is::<Overloaded>(), Status::resource_exhausted),
        ];
        by_code.into_iter().find_map(|(is_so, status)| is_so.then_some(status))
    };
    let status = chain.find_map(is).unwrap_or(Status::internal);
    status(format!("a layer failed: {error}"))
}
