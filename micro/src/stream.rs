//! Streams for handlers and calls, so that a service needs no stream crate of its own.
//!
//! Any [`Stream`] will do; these are the ones that a service can hardly do without: from a list
//! ([`iter`]), from a task ([`receiver`]), and none at all ([`fails`]).
//!
//! ```
//! use micro::{Request, Response, Status, Stream, stream};
//!
//! async fn countdown(
//!     request: Request<u32>,
//! ) -> Result<Response<impl Stream<Item = Result<u32, Status>> + Send + 'static>, Status> {
//!     let from = request.into_inner();
//!     if from > 1000 {
//!         return Err(Status::invalid_argument("at most 1000"));
//!     }
//!     Ok(Response::new(stream::iter((0..from).rev().map(Ok))))
//! }
//! ```

use std::pin::Pin;

use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::{Response, Status};

/// Returns a stream that yields the items of `items`, each as soon as it is asked for.
///
/// A handler's stream has results for items: `stream::iter(replies.into_iter().map(Ok))`. A call
/// that streams its request has plain messages: `client.sum(stream::iter(numbers))`.
pub fn iter<I>(items: I) -> impl Stream<Item = I::Item> + Send + use<I>
where
    I: IntoIterator,
    I::IntoIter: Send,
{
    tokio_stream::iter(items)
}

/// Returns the receiving half of a channel as a stream: what a task sends, the peer gets.
///
/// The stream ends when every sender is dropped. When the peer goes away the stream is dropped,
/// and the next `send` of the task fails: end the task then.
///
/// ```
/// use micro::{Request, Response, Status, Stream, stream};
/// use tokio::sync::mpsc;
///
/// async fn ticks(
///     _request: Request<()>,
/// ) -> Result<Response<impl Stream<Item = Result<u32, Status>> + Send + 'static>, Status> {
///     let (sender, receiver) = mpsc::channel(16);
///     tokio::spawn(async move {
///         for tick in 0.. {
///             if sender.send(Ok(tick)).await.is_err() {
///                 break; // the caller is gone
///             }
///         }
///     });
///     Ok(Response::new(stream::receiver(receiver)))
/// }
/// ```
pub fn receiver<T: Send>(
    receiver: mpsc::Receiver<T>,
) -> impl Stream<Item = T> + Send + Unpin + use<T> {
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// The whole body of a streaming handler that only fails.
///
/// A body such as `Err(status)` alone does not compile: nothing in it says which stream the
/// method would have returned ("type annotations needed: cannot satisfy `_: Stream`"). A body
/// that returns a stream on some path may write `Err(status)` on the others.
///
/// ```
/// use micro::{Request, Response, Status, Stream, stream};
///
/// async fn history(
///     _request: Request<()>,
/// ) -> Result<Response<impl Stream<Item = Result<u32, Status>> + Send + 'static>, Status> {
///     stream::fails(Status::unimplemented("no history is kept"))
/// }
/// ```
///
/// ```compile_fail,E0283
/// # use micro::{Request, Response, Status, Stream};
/// async fn history(
///     _request: Request<()>,
/// ) -> Result<Response<impl Stream<Item = Result<u32, Status>> + Send + 'static>, Status> {
///     Err(Status::unimplemented("no history is kept"))
/// }
/// ```
///
/// # Errors
/// Always: the status it was given.
pub fn fails<T: Send + 'static>(
    status: Status,
) -> Result<Response<impl Stream<Item = Result<T, Status>> + Send + Unpin + 'static>, Status> {
    Err::<Response<tokio_stream::Empty<_>>, _>(status)
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Gives a handler's stream a type that does not name the borrow of the handler.
///
/// The stream that a handler's method returns holds nothing of the handler, being `'static`; but
/// its type, one of the trait's, has the borrow among its parameters, and so could not leave the
/// future that the borrow lives in. Generated code calls this.
#[doc(hidden)]
pub fn boxed<T>(
    response: Response<impl Stream<Item = Result<T, Status>> + Send + 'static>,
) -> Response<Boxed<T>> {
    response.map(|stream| Box::pin(stream) as _)
}
