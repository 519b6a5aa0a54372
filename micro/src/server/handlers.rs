//! The typed glue between bytes and a handler's methods.

use std::{fmt, future::Future, sync::Arc};

use futures_core::Stream;
use http::request::Parts;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstDecoder;

use super::{
    connection::Inbound,
    frame::{self, Until},
    reply::{self, Content},
    router::{Method, Service},
};
use crate::{
    descriptor::{MethodKind, ServiceDescriptor},
    framing::Checked,
};

/// The handlers of one service, for [`Server::add_handlers`](super::Server::add_handlers).
/// Generated code builds it; a method that gets no handler answers `Unimplemented`.
///
/// Each handler takes the value shared by all of them and a request; its future is dropped when the
/// caller is gone or its deadline strikes, and a panic in it becomes `Internal` for this call alone.
#[derive(Debug)]
pub struct Handlers {
    service: Service,
}

impl Handlers {
    /// No handlers yet, for the service of this descriptor. All of them share `handler`.
    #[allow(clippy::new_ret_no_self, reason = "what is built is the builder's to say")]
    pub fn new<H>(descriptor: &'static ServiceDescriptor, handler: H) -> HandlersBuilder<H> {
        let methods = vec![None; descriptor.methods.len()];
        HandlersBuilder { handler: Arc::new(handler), descriptor, methods }
    }

    pub(super) fn into_service(self) -> Service {
        self.service
    }
}

/// Builds [`Handlers`], a method at a time.
#[must_use]
pub struct HandlersBuilder<H> {
    handler: Arc<H>,
    descriptor: &'static ServiceDescriptor,
    methods: Vec<Option<Method>>,
}

impl<H: Send + Sync + 'static> HandlersBuilder<H> {
    /// Handles the unary method at `index` of the descriptor. The handler starts when the request
    /// is whole.
    ///
    /// # Panics
    ///
    /// If the descriptor has no such method or it is of another kind.
    pub fn unary<Req, Res, F, Fut>(self, index: usize, handle: F) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<H>, Request<Req>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
    {
        self.put(index, MethodKind::Unary, move |handler, parts, body, limit| {
            let handle = handle.clone();
            async move {
                let message = frame::read_one(body, limit, Until::EndOfStream).await?;
                let request = to_request(parts, frame::decode(message)?);
                reply::one(handle(handler, request).await?, limit)
            }
        })
    }

    /// Handles the server-streaming method at `index` of the descriptor. The handler starts at the
    /// request's message, without waiting for the caller to half-close: go-micro's never does.
    ///
    /// # Panics
    ///
    /// As [`unary`](Self::unary).
    pub fn server_streaming<Req, Res, S, F, Fut>(self, index: usize, handle: F) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        S: Stream<Item = Result<Res, Status>> + Send + 'static,
        F: Fn(Arc<H>, Request<Req>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        self.put(index, MethodKind::ServerStreaming, move |handler, parts, body, limit| {
            let handle = handle.clone();
            async move {
                let message = frame::read_one(body, limit, Until::Message).await?;
                let request = to_request(parts, frame::decode(message)?);
                Ok(reply::stream(handle(handler, request).await?, limit))
            }
        })
    }

    /// Handles the client-streaming method at `index` of the descriptor. The handler starts at the
    /// request's headers.
    ///
    /// # Panics
    ///
    /// As [`unary`](Self::unary).
    pub fn client_streaming<Req, Res, F, Fut>(self, index: usize, handle: F) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<H>, Request<Streaming<Req>>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
    {
        self.put(index, MethodKind::ClientStreaming, move |handler, parts, body, limit| {
            let handled = handle(handler, to_request(parts, messages(body, limit)));
            async move { reply::one(handled.await?, limit) }
        })
    }

    /// Handles the bidirectional method at `index` of the descriptor. The handler starts at the
    /// request's headers.
    ///
    /// # Panics
    ///
    /// As [`unary`](Self::unary).
    pub fn bidi_streaming<Req, Res, S, F, Fut>(self, index: usize, handle: F) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        S: Stream<Item = Result<Res, Status>> + Send + 'static,
        F: Fn(Arc<H>, Request<Streaming<Req>>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        self.put(index, MethodKind::BidiStreaming, move |handler, parts, body, limit| {
            let handled = handle(handler, to_request(parts, messages(body, limit)));
            async move { Ok(reply::stream(handled.await?, limit)) }
        })
    }

    fn put<F, Fut>(mut self, index: usize, kind: MethodKind, answer: F) -> Self
    where
        F: Fn(Arc<H>, Parts, Inbound, usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<http::Response<Content>, Status>> + Send + 'static,
    {
        let method = &self.descriptor.methods[index];
        assert_eq!(method.kind, kind, "{} is not of this kind", method.path);
        let handler = Arc::clone(&self.handler);
        self.methods[index] = Some(Arc::new(move |request, limit| {
            let (parts, body) = request.into_parts();
            let answered = answer(Arc::clone(&handler), parts, body, limit);
            Box::pin(async move { answered.await.unwrap_or_else(|status| reply::refuse(&status)) })
        }));
        self
    }

    /// The handlers so far.
    #[must_use]
    pub fn build(self) -> Handlers {
        Handlers { service: Service::Typed(self.descriptor, self.methods) }
    }
}

impl<H> fmt::Debug for HandlersBuilder<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").field("service", &self.descriptor.name).finish_non_exhaustive()
    }
}

fn to_request<T>(parts: Parts, message: T) -> Request<T> {
    Request::from_http(http::Request::from_parts(parts, message))
}

fn messages<M: Message + Default + 'static>(body: Inbound, limit: usize) -> Streaming<M> {
    let body = Checked::new(body, move |prefix| frame::length(prefix, limit));
    Streaming::new_request(ProstDecoder::default(), body, None, Some(limit))
}
