//! What surrounds calls: plain async interceptors and tower's layers, the same on a server and a
//! client.
//!
//! An `async fn` goes around all calls with `intercept`, and around those of one service or method
//! with `intercept_on`; one of tower's or tower-http's layers with `layer` and `layer_on`. All four
//! are methods of [`Server`](crate::Server) and of [`ClientBuilder`](crate::ClientBuilder). The
//! project's example `interceptors` (`cargo run --bin interceptors`) has a request id around all
//! calls and a header check around one method.
//!
//! # Interceptors
//! An interceptor is an `async fn` that gets the request and the [`Next`] part of the call's way. It
//! may look at the metadata, change it, answer by itself, or change the answer. One and the same
//! function serves on both sides:
//!
//! ```
//! use micro::{Request, Response, Status, layer::{Body, Next}};
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
//! # struct Greeter;
//! # impl GreeterHandler for Greeter {
//! #     async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
//! #         let id = request.metadata().get("x-request-id").expect("the client's interceptor sets it");
//! #         let greeting = format!("request {}", id.to_str().expect("a text"));
//! #         Ok(Response::new(HelloReply { greeting, node: String::new() }))
//! #     }
//! # }
//!
//! /// Gives each request an id, unless it has one, and says it in the response too.
//! async fn request_id(mut request: Request<Body>, next: Next) -> Result<Response<Body>, Status> {
//!     let given = request.metadata().get("x-request-id").cloned();
//!     let id = given.unwrap_or_else(|| "7".parse().expect("a value")); // a random one, say
//!     request.metadata_mut().insert("x-request-id", id.clone());
//!     let mut response = next.run(request).await?;
//!     response.metadata_mut().insert("x-request-id", id);
//!     Ok(response)
//! }
//!
//! /// Lets only those in who say who they are.
//! async fn check_header(request: Request<Body>, next: Next) -> Result<Response<Body>, Status> {
//!     if !request.metadata().contains_key("authorization") {
//!         return Err(Status::unauthenticated(format!("{} needs a token", next.method())));
//!     }
//!     next.run(request).await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = "memory://layer-docs";
//! let mut service = micro::Service::builder("greeter")
//! #   .without_env()
//!     .registry(registry)
//!     .build()
//!     .await?;
//! register_greeter_handler(service.server(), Greeter);
//! service
//!     .server()
//!     .intercept(request_id) // every call
//!     .intercept_on("greeter.v1.Greeter/Hello", check_header); // one method
//! let node = service.start().await?;
//!
//! let client = micro::Client::builder()
//! #   .without_env()
//!     .registry(registry)
//!     .intercept(request_id)
//!     .build()?;
//! let greeter = GreeterClient::new("greeter", &client);
//! let refused = greeter.hello(HelloRequest { name: "world".into() }).await.unwrap_err();
//! assert_eq!(refused.message(), "/greeter.v1.Greeter/Hello needs a token");
//!
//! let mut request = Request::new(HelloRequest { name: "world".into() });
//! request.metadata_mut().insert("authorization", "Bearer me".parse()?);
//! let reply = greeter.hello(request).await?;
//! assert_eq!(reply.metadata().get("x-request-id").unwrap(), "7");
//! # assert_eq!(reply.into_inner().greeting, "request 7");
//! # node.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What is put into the request's extensions is there for the handler, and for the layers further in.
//!
//! # Tower's layers
//! A [`tower_layer::Layer`] is put around [`Inner`], once and for all calls: a limit holds for all
//! of them together. Its service is cloned for each call, asked whether it is ready, and called. It
//! sees the call as HTTP: a status that ends a call without a message is a response with the header
//! `grpc-status`, and [`Inner`] never fails. Such a layer has to keep the request's extensions, as
//! those of tower and tower-http do.
//!
//! [`Inner`] is always ready, since who takes the call is known only with the request. Layers that
//! listen to each other's readiness (a load shed around a limit) go in as one, a stack made with
//! tower's `ServiceBuilder`.
//!
//! An error of a layer's becomes the call's status: a `Status` in its chain of sources stays what
//! it is, the elapsed time of tower's timeout is `DeadlineExceeded`, the overload of its load shed
//! `ResourceExhausted`, and any other `Internal`, with the error's text; an error of a
//! body that a layer has wrapped counts alike. A response with an HTTP status other than 200 and no `grpc-status` is an
//! error by gRPC's `http-grpc-status-mapping.md`; but 408, with which tower-http's timeout answers, is
//! `DeadlineExceeded`. One that ends without any `grpc-status` is `Internal`.
//!
//! # Order and scope
//! Interceptors and layers surround a call in the order in which they were added, the first one
//! outermost, whatever their scopes: those that a call is not in the scope of are left out. A scope
//! is a service's full name in the `.proto`, `greeter.v1.Greeter`, or a method's,
//! `greeter.v1.Greeter/Hello`, with or without a slash before it. A server does not start with a
//! scope that it has no such service or method for; a client, which cannot know, warns in the log
//! when a call goes out that a scope without calls seems to mean.
//!
//! # Where they stand
//! On a server inside of the caller's deadline and of the guard against panics; see
//! [`Server::intercept`](crate::Server::intercept). On a client inside of the call's deadline, but
//! outside of balancing and retries, so that they run once a call; see
//! [`ClientBuilder::intercept`](crate::ClientBuilder::intercept). When a call is dropped, so are
//! they. A call that is in the scope of none costs what it costs without them.

// The room has tower's word for it: an interceptor is a layer written as a function, and both stand
// in one row. It knows what a call looks like on its way, and neither where it comes from nor who
// answers it.

mod answer;
mod inner;
mod next;
mod row;
mod told;

pub use inner::Inner;
pub use next::Next;
/// The body of a request or a response on its way: gRPC's frames, not to be looked into.
///
/// An interceptor hands it on as it is. A response that one makes by itself has to be a whole one of
/// gRPC's, trailers included; to refuse a call it returns a [`Status`].
///
/// [`Status`]: crate::Status
pub use tonic::body::Body;

pub(crate) use answer::{Answer, settle};
pub(crate) use next::End;
pub(crate) use row::Row;

/// What a tower service may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
