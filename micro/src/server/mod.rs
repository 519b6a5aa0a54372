//! The server: from an accepted connection to a handler's future and back.
//!
//! A [`Service`](crate::Service) has one, and [`Service::server`](crate::Service::server) is where its
//! handlers are registered before it starts, with the generated `register_.._handler` functions;
//! services of tonic's are mounted there, layers put around, and bounds set. It keeps every call
//! within those bounds and its caller's deadline, and leaves without dropping a call.

// It routes by what is in `descriptor`, and may not know of registries or clients: `service` tells it
// when the node is ready and when to leave.

mod connection;
mod frame;
mod guard;
mod handlers;
#[cfg(feature = "tls")]
mod handshakes;
mod head;
mod health;
mod layers;
mod listen;
mod observed;
mod reply;
mod router;
mod timeout;

#[cfg(test)]
mod tests;

use std::{convert::Infallible, sync::Arc};

use tokio::sync::watch;
use tonic::server::NamedService;

use self::{
    connection::Shared,
    reply::Content,
    router::{NO_HANDLER, Router, Service},
};
use crate::{Error, descriptor::ServiceDescriptor, layer::Row, transport::LARGEST_WINDOW};

pub use self::handlers::{Handlers, HandlersBuilder};
pub(crate) use self::{health::Health, listen::Listening};

/// A server before it runs: what it serves, and within which bounds.
///
/// Generated code adds handlers to it, any tonic service mounts beside them, and `grpc.health.v1` is
/// there by itself, following the node's readiness (a health service of the user's own replaces it).
///
/// - A method is found by its full path. Where the service's full name is unknown, its short name
///   decides, as on go-micro's servers: `/anything.Greeter/Hello` and `/Greeter/Hello` reach
///   `greeter.v1.Greeter`. What is not found, or found twice, is `Unimplemented`,
///   with the names of what is there.
/// - `grpc-timeout` and go-micro's `timeout` (nanoseconds) are obeyed, the smaller of the two: at the
///   deadline the handler's future or stream is dropped and the caller gets `DeadlineExceeded`. A
///   reply that waits because its caller does not read is reset a second later; only its last 64 KiB
///   may wait longer.
/// - When the caller is gone, the handler's future is dropped.
/// - A panic in a handler is `Internal` for its caller, with an id that is in the log beside the
///   panic's text. The connection lives on.
/// - Compression is not spoken: a compressed request is `Unimplemented`.
/// - What surrounds all calls, or those of one service or method, is an
///   [interceptor](Self::intercept) or one of tower's [layers](Self::layer).
#[derive(Debug, Default)]
pub struct Server {
    services: Vec<Service>,
    layers: Row,
    bounds: Bounds,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::ServerTls>,
}

/// What peers may ask of a server.
#[derive(Debug)]
struct Bounds {
    max_message_size: usize,
    max_header_list_size: u32,
    max_concurrent_streams: u32,
    stream_window: u32,
    connection_window: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_message_size: 4 << 20,
            max_header_list_size: 16 << 10,
            max_concurrent_streams: 1000,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
        }
    }
}

impl Server {
    /// A server that serves nothing yet but health checks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handlers of one service. Generated code calls it.
    pub fn add_handlers(&mut self, handlers: Handlers) -> &mut Self {
        self.services.push(handlers.into_service());
        self
    }

    /// Mounts a tonic service, with the limits and the compression it has of its own. Deadlines,
    /// panics and short names are as for our own handlers.
    pub fn add_service<S>(&mut self, service: S) -> &mut Self
    where
        S: tower_service::Service<
                http::Request<tonic::body::Body>,
                Response = http::Response<tonic::body::Body>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let mounted = move |request: http::Request<connection::Inbound>| {
            let mut service = service.clone();
            let answer = async move {
                let Ok(()) = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
                let Ok(response) = service.call(request.map(connection::Inbound::into_body)).await;
                response.map(Content::Stream)
            };
            Box::pin(answer) as guard::Running
        };
        self.services.push(Service::Mounted(S::NAME, Arc::new(mounted)));
        self
    }

    /// The largest message taken or sent, in bytes, for handlers added with
    /// [`add_handlers`](Self::add_handlers). 4 MiB by default; 0 leaves empty messages only; gRPC's own
    /// limit of 4 GiB - 1 holds beyond it. A larger one is `ResourceExhausted`.
    pub fn max_message_size(&mut self, bytes: usize) -> &mut Self {
        self.bounds.max_message_size = bytes;
        self
    }

    /// The largest sum of a request's headers, in bytes as HTTP/2 counts them (32 more for each).
    /// 16 KiB by default. Callers are told of it (`SETTINGS_MAX_HEADER_LIST_SIZE`). What is larger is
    /// answered with HTTP 431, but far beyond it (at four times as much at the latest) the connection
    /// is closed, and with it all calls on it: where callers send such headers, raise the limit. 0
    /// would refuse every call and is an error at the start; `u32::MAX` lets one call take 4 GiB of
    /// memory.
    pub fn max_header_list_size(&mut self, bytes: u32) -> &mut Self {
        self.bounds.max_header_list_size = bytes;
        self
    }

    /// How many calls one connection may have under way. 1000 by default: callers wait for their
    /// turn beyond it, and what one connection can make the server hold stays bounded. 0 would let
    /// no call in and is an error at the start; `u32::MAX` leaves the number to the caller.
    pub fn max_concurrent_streams(&mut self, streams: u32) -> &mut Self {
        self.bounds.max_concurrent_streams = streams;
        self
    }

    /// How many bytes of one request may be on their way unread. 1 MiB by default. 0, and 2 GiB or
    /// more, are errors at the start.
    pub fn stream_window(&mut self, bytes: u32) -> &mut Self {
        self.bounds.stream_window = bytes;
        self
    }

    /// How many bytes of all requests on one connection may be on their way unread. 4 MiB by
    /// default. 0, and 2 GiB or more, are errors at the start.
    ///
    /// Half of it also bounds what tiny frames cost while no handler has read them (`h2`'s rule
    /// against floods): a connection with some 8000 unread messages of a few bytes is closed at the
    /// default. Callers that stream such messages faster than their handler reads need more.
    pub fn connection_window(&mut self, bytes: u32) -> &mut Self {
        self.bounds.connection_window = bytes;
        self
    }

    /// Serves over TLS alone. Default: plaintext. Certificates that cannot be used are an error at the
    /// start.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), micro::Error> {
    /// use micro::tls::ServerTls;
    ///
    /// let mut service = micro::Service::builder("greeter").build().await?;
    /// service.server().tls(ServerTls::from_files("tls.crt", "tls.key"));
    /// # service.run().await
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(&mut self, tls: crate::tls::ServerTls) -> &mut Self {
        self.tls = Some(tls);
        self
    }

    /// The services added with [`add_handlers`](Self::add_handlers), in their order: what the node's
    /// record in the registry tells of.
    pub fn descriptors(&self) -> impl Iterator<Item = &'static ServiceDescriptor> {
        self.services.iter().filter_map(|service| match service {
            Service::Typed(descriptor, _) => Some(*descriptor),
            Service::Mounted(..) => None,
        })
    }

    /// Binds to `address` (`host:port`; port 0 is any that is free) and serves from now on, with
    /// health `NOT_SERVING`.
    ///
    /// # Errors
    ///
    /// `Bind` if the address cannot be had; `Config` if two services have one name, a layer's scope is
    /// of none of them, or of a mounted service's method, a bound is out of its range, or a certificate
    /// cannot be used.
    pub(crate) async fn bind(self, address: &str) -> Result<Listening, Error> {
        let (shared, health) = self.prepare()?;
        Listening::bind(address, shared, health).await
    }

    fn prepare(self) -> Result<(Shared, watch::Sender<Health>), Error> {
        self.bounds.check()?;
        if self.services.is_empty() {
            tracing::warn!("every call will be Unimplemented: {NO_HANDLER}");
        }
        let health = watch::Sender::new(Health::NotServing);
        let limit = self.bounds.max_message_size;
        let layers = Arc::new(self.layers);
        let mut router = Router::new(layers::surround(self.services, &layers, limit)?)?;
        let answers = health::service(health.subscribe(), router.names());
        router.add_built_in(answers)?;
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "plaintext needs no more"))]
        let mut shared = Shared::new(router, layers, &self.bounds);
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls {
            shared.tls = Some(handshakes::Handshakes::new(tls.acceptor()?));
        }
        Ok((shared, health))
    }
}

impl Bounds {
    fn check(&self) -> Result<(), Error> {
        for (name, value, highest) in [
            ("max_header_list_size", self.max_header_list_size, u32::MAX),
            ("max_concurrent_streams", self.max_concurrent_streams, u32::MAX),
            ("stream_window", self.stream_window, LARGEST_WINDOW),
            ("connection_window", self.connection_window, LARGEST_WINDOW),
        ] {
            if !(1..=highest).contains(&value) {
                return Err(Error::config(format!(
                    "the server's {name} is {value}: set it to 1 up to {highest}"
                )));
            }
        }
        Ok(())
    }
}
