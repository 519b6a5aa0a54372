//! The part of a call's way that is still before it.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use http::{Method, Uri, Version};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{Answer, Body, Row, settle};

/// Who answers a call at the end of its way.
pub(crate) type End = Arc<dyn Fn(http::Request<Body>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// What an interceptor hands its request on to: the layers further in, and at the end the handler,
/// or on a client the call itself.
#[derive(Clone)]
pub struct Next {
    row: Arc<Row>,
    /// How many of the row the call has passed.
    passed: usize,
    uri: Uri,
    end: End,
}

impl Next {
    pub(super) fn new(row: Arc<Row>, uri: Uri, end: End) -> Self {
        Self { row, passed: 0, uri, end }
    }

    /// The method that is called, as its path on the wire: `/greeter.v1.Greeter/Hello`. On a server
    /// it is the method's own path, also when the caller has used a short name.
    pub fn method(&self) -> &str {
        self.uri.path()
    }

    /// Makes the rest of the call.
    ///
    /// The response is there with its headers; its body may be a stream that goes on for long.
    ///
    /// # Errors
    /// The status of the handler, of a layer further in, or on a client of what has failed on the
    /// way. A status that comes after the headers, as a stream ends with one, is in the body and is
    /// not seen here.
    ///
    /// # Cancel safety
    /// Dropping the future drops the rest of the call.
    pub async fn run(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (metadata, extensions, body) = request.into_parts();
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = metadata.into_headers();
        *request.extensions_mut() = extensions;

        let (parts, body) = settle(self.advance(request).await)?.into_parts();
        let metadata = MetadataMap::from_headers(parts.headers);
        Ok(Response::from_parts(metadata, body, parts.extensions))
    }

    /// Takes the call to the next in the row that it is in the scope of, or to its end.
    pub(super) fn advance(mut self, request: http::Request<Body>) -> BoxFuture<'static, Answer> {
        match self.row.at_or_after(self.passed, self.method()) {
            Some((at, layer)) => {
                self.passed = at + 1;
                layer(request, self)
            }
            None => (self.end)(request),
        }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("method", &self.method()).finish_non_exhaustive()
    }
}
