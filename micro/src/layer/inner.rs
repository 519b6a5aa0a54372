//! The service that tower's layers are put around.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use tonic::Status;
use tower_service::Service;

use super::{Body, BoxError, Next, answer::failed};

/// The rest of a call's way as a tower service: what a tower layer is put around.
///
/// It is always ready and never fails: a call's status is in the response's headers, as on the wire.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Inner;

impl<B> Service<http::Request<B>> for Inner
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let next = request.extensions_mut().remove::<Next>();
        Box::pin(async move {
            let answer = match next {
                Some(next) => {
                    let request = request.map(|body| Body::new(body.map_err(failed)));
                    next.advance(request).await
                }
                None => Err(Status::internal(
                    "a layer lost the extensions of its request: it has to hand them on",
                )),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}
