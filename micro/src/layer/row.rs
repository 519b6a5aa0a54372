//! Layers in their order, each with its scope.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, header::CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tonic::{Request, Response, Status};
use tower_layer::Layer;
use tower_service::Service;

use super::{Answer, Body, BoxError, End, Inner, Next, answer::failed, settle, told::told};
use crate::Error;

type Run = Arc<dyn Fn(http::Request<Body>, Next) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The layers of a server or a client, the outermost first.
#[derive(Default)]
pub(crate) struct Row(Vec<Scoped>);

struct Scoped {
    /// The full name of a service or a method; none for all.
    scope: Option<Box<str>>,
    /// On a client: a call was in the scope, or it has been told that one seems to be meant.
    is_settled: AtomicBool,
    run: Run,
}

const MISSED: &str = "a layer's scope has no call in it so far, and seems to mean this one, which \
     goes out without the layer: write the service's full name in the .proto, package.Service, or \
     the method's, package.Service/Method, as they are written there";

impl Scoped {
    fn covers(&self, path: &str) -> bool {
        let (Some(scope), Some(path)) = (&self.scope, path.strip_prefix('/')) else {
            return self.scope.is_none();
        };
        path.strip_prefix(&**scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether a scope that does not cover the path is nearly its service or method: the short name
    /// alone, another package, or other letters and separators.
    fn is_meant_for(&self, path: &str) -> bool {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
        else {
            return false;
        };
        let Some(scope) = &self.scope else { return false };
        let (name, asked) = scope.split_once('/').unwrap_or((scope, ""));
        if name == service { is_like(asked, method) } else { is_like_service(name, service) }
    }
}

impl Row {
    pub(crate) fn intercept<F, Fut>(&mut self, scope: Option<&str>, interceptor: F)
    where
        F: Fn(Request<Body>, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    {
        self.push(scope, move |request, next| {
            let answered = interceptor(Request::from_http(request), next);
            Box::pin(async move { answered.await.map(into_http) })
        });
    }

    pub(crate) fn layer<L, B>(&mut self, scope: Option<&str>, layer: &L)
    where
        L: Layer<Inner>,
        L::Service: Service<
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
        let service = layer.layer(Inner);
        self.push(scope, move |mut request, next| {
            let mut service = service.clone();
            request.extensions_mut().insert(next);
            Box::pin(async move {
                std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
                let response = service.call(request).await.map_err(failed)?;
                Ok(response.map(|body| Body::new(body.map_err(failed))))
            })
        });
    }

    fn push(
        &mut self,
        scope: Option<&str>,
        run: impl Fn(http::Request<Body>, Next) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) {
        let scope = scope.map(|name| name.strip_prefix('/').unwrap_or(name).into());
        let is_settled = AtomicBool::new(scope.is_none());
        self.0.push(Scoped { scope, is_settled, run: Arc::new(run) });
    }

    /// The scopes that were given, each once or more.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|layer| layer.scope.as_deref())
    }

    /// Refuses a scope that can be the name of no service and no method.
    pub(crate) fn check_names(&self) -> Result<(), Error> {
        let is_name = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b))
        };
        let is_scope = |scope: &str| {
            let (service, method) = scope.split_once('/').unwrap_or((scope, "a_method"));
            is_name(service) && is_name(method)
        };
        match self.scopes().find(|scope| !is_scope(scope)) {
            None => Ok(()),
            Some(scope) => Err(Error::config(format!(
                "a layer is for {scope:?}: write a service's full name, package.Service, or a \
                 method's, package.Service/Method"
            ))),
        }
    }

    /// Whether any of them is for this method.
    pub(crate) fn surround(&self, path: &str) -> bool {
        self.0.iter().any(|layer| layer.covers(path))
    }

    /// As [`surround`](Self::surround), of a call that a client makes, which does not know before what
    /// it will call: a scope that no call has been in and that this one seems to be meant by is told
    /// once in the log.
    pub(crate) fn covers(&self, path: &str) -> bool {
        let mut covers = false;
        for layer in &self.0 {
            let is_in = layer.covers(path);
            covers |= is_in;
            if !layer.is_settled.load(Relaxed) && (is_in || layer.is_meant_for(path)) {
                let is_first = !layer.is_settled.swap(true, Relaxed);
                if is_first && !is_in {
                    let scope = layer.scope.as_deref();
                    tracing::warn!(scope, method = path, "{MISSED}");
                }
            }
        }
        covers
    }

    /// Makes a call through those that cover it, `end` last.
    pub(crate) async fn run(self: Arc<Self>, request: http::Request<Body>, end: End) -> Answer {
        let next = Next::new(self, request.uri().clone(), end);
        settle(next.advance(request).await).map(told)
    }

    /// The first from this position on that covers the path.
    pub(super) fn at_or_after(&self, position: usize, path: &str) -> Option<(usize, Run)> {
        let mut rest = self.0.iter().enumerate().skip(position);
        let (at, layer) = rest.find(|(_, layer)| layer.covers(path))?;
        Some((at, Arc::clone(&layer.run)))
    }
}

fn is_like_service(a: &str, b: &str) -> bool {
    let short = |name| str::rsplit(name, '.').next().unwrap_or(name);
    is_like(short(a), short(b)) || is_like(a, b)
}

/// Whether the names differ at most in case and separators.
fn is_like(a: &str, b: &str) -> bool {
    fn letters(name: &str) -> impl Iterator<Item = u8> {
        name.bytes().filter(u8::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase())
    }
    letters(a).eq(letters(b))
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|layer| layer.scope.as_deref())).finish()
    }
}

/// What an interceptor answers. Its metadata cannot say what the body is there to say.
fn into_http(response: Response<Body>) -> http::Response<Body> {
    const GRPC_STATUS: [HeaderName; 2] =
        [HeaderName::from_static("grpc-status"), HeaderName::from_static("grpc-message")];
    let (metadata, body, extensions) = response.into_parts();
    let mut headers = metadata.into_headers();
    if !body.is_end_stream() {
        for name in &GRPC_STATUS {
            headers.remove(name);
        }
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
    let mut response = http::Response::new(body);
    *response.headers_mut() = headers;
    *response.extensions_mut() = extensions;
    response
}
