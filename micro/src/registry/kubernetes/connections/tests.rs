use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{server::conn::http1 as server, service::service_fn};
use tokio::{net::TcpListener, time};

use super::*;

/// A server without TLS, as `kubectl proxy` is one, that tells each request's number on its
/// connection and how it was written.
struct Server {
    uri: String,
    accepted: Arc<AtomicUsize>,
    /// Whether a connection is closed behind its first answer.
    closes: Arc<AtomicBool>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let (accepted, closes) = <(Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let server = Self { uri, accepted: accepted.clone(), closes: closes.clone() };
        tokio::spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let requests = Arc::new(AtomicUsize::new(0));
                let answer = service_fn(move |request: Request<Incoming>| {
                    let number = requests.fetch_add(1, Ordering::SeqCst) + 1;
                    let host = request.headers()[HOST].to_str().unwrap().to_owned();
                    let text = format!("{number} {} {host}", request.uri());
                    async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
                });
                let mut builder = server::Builder::new();
                builder.keep_alive(!closes.load(Ordering::SeqCst));
                tokio::spawn(builder.serve_connection(TokioIo::new(io), answer));
            }
        });
        server
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn connections(&self) -> Connections {
        // As a client does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Connections::new(&Config::new(self.uri.parse().unwrap())).unwrap()
    }

    fn request(&self) -> Request<Body> {
        Request::get(format!("{}/api?a=b", self.uri)).body(Body::empty()).unwrap()
    }

    fn expected(&self, number: usize) -> String {
        format!("{number} /api?a=b {}", self.uri.trim_start_matches("http://"))
    }
}

async fn read(answer: Response<Answer>) -> String {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Lets the connections' own tasks see what has ended.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_of_http1_has_one_request_at_a_time_and_serves_the_next() {
    let server = Server::start().await;
    let connections = server.connections();
    let one = connections.send(server.request()).await.unwrap();
    let two = connections.send(server.request()).await.unwrap();
    assert_eq!(server.accepted(), 2, "the first answer is not read yet");
    assert_eq!(read(one).await, server.expected(1));
    assert_eq!(read(two).await, server.expected(1));
    settle().await;
    let three = connections.send(server.request()).await.unwrap();
    assert_eq!(read(three).await, server.expected(2));
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn one_that_its_server_has_closed_is_replaced() {
    let server = Server::start().await;
    let connections = server.connections();
    server.closes.store(true, Ordering::SeqCst);
    for accepted in 1..=3 {
        let answer = connections.send(server.request()).await.unwrap();
        assert_eq!(read(answer).await, server.expected(1));
        assert_eq!(server.accepted(), accepted);
    }
    settle().await;
    assert!(connections.find().is_none());
    assert_eq!(connections.open().len(), 0, "none is kept that has ended");
}

#[tokio::test]
async fn one_that_is_idle_is_closed_and_one_with_a_request_is_not() {
    let server = Server::start().await;
    let connections = server.connections();
    let one = connections.send(server.request()).await.unwrap();
    let two = connections.send(server.request()).await.unwrap();
    assert_eq!(read(two).await, server.expected(1));
    settle().await;
    time::pause();
    time::advance(IDLE + Duration::from_secs(1)).await;
    time::resume();
    assert!(connections.find().is_none());
    assert_eq!(connections.open().len(), 1);
    // Its time begins with its answer's end.
    assert_eq!(read(one).await, server.expected(1));
    settle().await;
    let three = connections.send(server.request()).await.unwrap();
    assert_eq!(read(three).await, server.expected(2));
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn one_that_was_silent_when_a_request_was_given_up_takes_no_other() {
    let server = Server::start().await;
    let connections = server.connections();
    let connection = Arc::new(connections.dial(server.request().uri()).await.unwrap());
    connections.open().push(connection.clone());
    time::pause();
    let given_up = |since| drop(Unanswered { connection: &connection, since, is_over: false });
    let kept = || {
        let _ = connections.find();
        connections.open().len()
    };
    let since = Instant::now();
    time::advance(Duration::from_millis(900)).await;
    *connection.heard() = Instant::now();
    given_up(since);
    assert_eq!(kept(), 1, "it has carried another's answer meanwhile");
    time::advance(Duration::from_millis(900)).await;
    given_up(Instant::now());
    assert_eq!(kept(), 1, "there was no time for an answer");
    given_up(since);
    assert_eq!(kept(), 0);
}

#[tokio::test]
async fn in_http1_nobody_waits_for_anothers_connection_or_answer() {
    let server = Server::start().await;
    let connections = server.connections();
    let uri = server.request().uri().clone();
    let guard = connections.dialing.lock().await;
    let mut waits = pin!(connections.with_room(&uri));
    assert!(waits.as_mut().now_or_never().is_none());
    let first = Arc::new(connections.dial(&uri).await.unwrap());
    connections.open().push(first.clone());
    drop(guard);
    // It waits for its own connection now, and keeps nobody from one.
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(connections.dialing.try_lock().is_ok());
    let (_, is_new, dialing) = waits.await.unwrap();
    assert!(is_new && dialing.is_none());
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_tells_why() {
    let server = Server::start().await;
    let connections = server.connections();
    let mut request = server.request();
    *request.uri_mut() = Uri::from_static("http://127.0.0.1:1/api");
    let error = connections.send(request).await.unwrap_err();
    assert!(error.to_string().contains("tcp connect error"), "{error}");
}
