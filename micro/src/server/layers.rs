//! What a server puts around its handlers and around the services mounted beside them.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status};
use tower_layer::Layer;

use super::{
    Server,
    connection::{Inbound, with_path},
    guard::Running,
    reply,
    router::{Method, Mounted, Service},
};
use crate::{
    Error,
    layer::{Body, BoxError, End, Inner, Next, Row},
};

impl Server {
    /// Puts an interceptor around every call. See [`layer`](crate::layer) for what it may do, and for
    /// the order.
    ///
    /// It is inside of the guards that a handler has: it is dropped at the caller's deadline or when
    /// the caller is gone, and a panic in it is `Internal` for this call alone. It surrounds handlers
    /// and mounted services, also those added after it. It does not see calls of the server's own
    /// `grpc.health.v1`, since probes carry no token, nor calls that find no handler.
    pub fn intercept<F, Fut>(&mut self, interceptor: F) -> &mut Self
    where
        F: Fn(Request<Body>, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    {
        self.layers.intercept(None, interceptor);
        self
    }

    /// As [`intercept`](Self::intercept), around the calls of one service (`greeter.v1.Greeter`) or
    /// of one method (`greeter.v1.Greeter/Hello`). A scope that this server has no such service or
    /// method for is an error at the start. So is a method of a mounted service, since nobody here
    /// knows which it has: there the scope is the service, and [`Next::method`] says what is called.
    pub fn intercept_on<F, Fut>(&mut self, scope: &str, interceptor: F) -> &mut Self
    where
        F: Fn(Request<Body>, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    {
        self.layers.intercept(Some(scope), interceptor);
        self
    }

    /// Puts one of tower's layers around every call, where [`intercept`](Self::intercept) would put
    /// an interceptor. See [`layer`](crate::layer#towers-layers) for what is asked of it.
    pub fn layer<L, B>(&mut self, layer: L) -> &mut Self
    where
        L: Layer<Inner>,
        L::Service: tower_service::Service<
                http::Request<Body>,
                Response = http::Response<B>,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.layers.layer(None, &layer);
        self
    }

    /// As [`layer`](Self::layer), around the calls of one service or method, as
    /// [`intercept_on`](Self::intercept_on) has it.
    pub fn layer_on<L, B>(&mut self, scope: &str, layer: L) -> &mut Self
    where
        L: Layer<Inner>,
        L::Service: tower_service::Service<
                http::Request<Body>,
                Response = http::Response<B>,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.layers.layer(Some(scope), &layer);
        self
    }
}

/// The services with their layers around them. A method without any is left as it is.
///
/// # Errors
///
/// `Config` if a scope is of none of the services, or of a method that may not be there.
pub(super) fn surround(
    services: Vec<Service>,
    row: &Arc<Row>,
    max_message_size: usize,
) -> Result<Vec<Service>, Error> {
    for scope in row.scopes() {
        check(scope, &services)?;
    }
    let surround = |service| match service {
        Service::Typed(descriptor, methods) => {
            let methods = descriptor.methods.iter().zip(methods).map(|(method, call)| {
                Some(match call? {
                    call if row.surround(method.path) => {
                        around_method(row, method.path, call, max_message_size)
                    }
                    call => call,
                })
            });
            Service::Typed(descriptor, methods.collect())
        }
        Service::Mounted(name, mounted) => {
            Service::Mounted(name, around_mounted(row, name, mounted))
        }
    };
    Ok(services.into_iter().map(surround).collect())
}

fn check(scope: &str, services: &[Service]) -> Result<(), Error> {
    let (name, method) = match scope.split_once('/') {
        Some((name, method)) => (name, Some(method)),
        None => (scope, None),
    };
    let unknown = |kind: &str, mut known: Vec<&str>| {
        known.sort_unstable();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(Error::config(format!(
            "a layer is for {scope:?}, and the server has no such {kind}: it has {known}"
        )))
    };
    match (services.iter().find(|service| service.name() == name), method) {
        (Some(Service::Mounted(..)), Some(_)) => Err(Error::config(format!(
            "a layer is for {scope:?}, and the methods of {name}, a mounted service, are not known, \
             so that a misspelt one would go without it: write {name:?}, and see in the layer which \
             method is called"
        ))),
        (None, _) => unknown("service", services.iter().map(Service::name).collect()),
        (Some(Service::Typed(descriptor, _)), Some(method))
            if descriptor.methods.iter().all(|known| known.name != method) =>
        {
            unknown("method", descriptor.methods.iter().map(|method| &method.path[1..]).collect())
        }
        _ => Ok(()),
    }
}

fn around_method(row: &Arc<Row>, path: &'static str, method: Method, limit: usize) -> Method {
    let row = Arc::clone(row);
    let end: End = Arc::new(move |request| {
        let running = method(request.map(Inbound::Layered), limit);
        Box::pin(async move { Ok(running.await.map(Body::new)) })
    });
    Arc::new(move |mut request, _| {
        if request.uri().path() != path {
            *request.uri_mut() = with_path(std::mem::take(request.uri_mut()), path.to_owned());
        }
        run(&row, request, &end)
    })
}

fn around_mounted(row: &Arc<Row>, name: &'static str, mounted: Mounted) -> Mounted {
    if !row.surround(&format!("/{name}/")) {
        return mounted;
    }
    let row = Arc::clone(row);
    let end: End = Arc::new(move |request| {
        let running = mounted(request.map(Inbound::Layered));
        Box::pin(async move { Ok(running.await.map(Body::new)) })
    });
    Arc::new(move |request| run(&row, request, &end))
}

fn run(row: &Arc<Row>, request: http::Request<Inbound>, end: &End) -> Running {
    let answer = Arc::clone(row).run(request.map(Inbound::into_body), Arc::clone(end));
    Box::pin(async move { reply::layered(answer.await) })
}
