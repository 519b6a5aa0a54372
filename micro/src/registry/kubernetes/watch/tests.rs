//! What a server does that no test can have a real one do in time: a server by script, its clock
//! paused.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::{Client, client::Body};
use serde_json::{Value as Json, json};
use tokio::{sync::mpsc, time::sleep};
use tower::{BoxError, service_fn};

use super::{super::options::Options, *};

/// The server's end of a watch: what is sent is what the server says; dropped, it ends the watch.
type Said = mpsc::UnboundedSender<String>;

/// A server whose watches are the test's.
struct Server {
    opened: mpsc::UnboundedReceiver<(String, Said)>,
}

impl Server {
    /// It, and a watch of the service `greeter` after version 10, when it had no nodes.
    fn watched() -> (Self, Watch) {
        let (open, opened) = mpsc::unbounded_channel();
        let answer = move |request: Request<Body>| {
            let (say, said) = mpsc::unbounded_channel::<String>();
            let uri = request.uri().to_string();
            open.send((uri, say)).expect("the test is not over");
            let frames = stream::unfold(said, |mut said| async {
                let text = said.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), said))
            });
            async { Ok::<_, BoxError>(Response::new(StreamBody::new(frames))) }
        };
        let client = Client::new(service_fn(answer), "shop");
        let cluster = Cluster::with_client(Options::of_nowhere(), client);
        let target = Target::parse("greeter").unwrap();
        let view = View::new(target.clone(), Vec::new());
        (Self { opened }, watch(Arc::new(cluster), target, 10, Some(view)))
    }

    /// The next watch, which goes on from this version.
    async fn watch_after(&mut self, version: u64) -> Said {
        let (uri, said) = self.opened.recv().await.expect("the client is there");
        assert!(uri.contains("/namespaces/shop/endpointslices?"), "{uri}");
        for parameter in [
            "watch=true".to_owned(),
            "timeoutSeconds=290".to_owned(),
            "allowWatchBookmarks=true".to_owned(),
            format!("resourceVersion={version}"),
        ] {
            assert!(uri.split(['?', '&']).any(|it| it == parameter), "{parameter} in {uri}");
        }
        said
    }

    /// That watch, and what the client makes of its beginning.
    async fn begun(&mut self, watch: &mut Watch) -> Said {
        let (said, first) = tokio::join!(self.watch_after(10), watch.next());
        let batch = first.expect("a batch").expect("a batch");
        assert!(matches!(&batch.events[..], [Event::Reset(all)] if all.entries.is_empty()));
        assert_eq!(batch.revision, 10);
        said
    }
}

fn say(said: &Said, kind: &str, object: &Json) {
    said.send(format!("{}\n", json!({ "type": kind, "object": object }))).expect("a watch");
}

fn slice(version: u64) -> Json {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": "greeter-a", "resourceVersion": version.to_string() },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [format!("10.1.0.{version}")] }],
        "ports": [{ "name": "grpc", "port": 9000 }],
    })
}

fn bookmark(version: u64) -> Json {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "resourceVersion": version.to_string() },
    })
}

/// The next batch in short.
async fn next(watch: &mut Watch) -> String {
    let batch = watch.next().await.expect("the stream goes on").expect("a batch");
    let short = |event: &Event| match event {
        Event::Put(entry) => format!(" +{}", entry.node.address),
        Event::Delete(key) => format!(" -{key}"),
        other => panic!("{other:?}"),
    };
    format!("{}{}", batch.revision, batch.events.iter().map(short).collect::<String>())
}

async fn end(watch: &mut Watch) -> WatchError {
    let error = watch.next().await.expect("the stream says why it ends").unwrap_err();
    assert!(watch.next().await.is_none(), "and ends");
    error
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ended_in_its_time_goes_on_from_the_last_bookmark() {
    let (mut server, mut watch) = Server::watched();
    let said = server.begun(&mut watch).await;
    say(&said, "ADDED", &slice(11));
    assert_eq!(next(&mut watch).await, "11 +10.1.0.11:9000");
    say(&said, "BOOKMARK", &bookmark(50));
    assert_eq!(next(&mut watch).await, "50", "progress is told, so that discovery goes on from it");

    sleep(Duration::from_secs(60)).await;
    drop(said);
    let again = async {
        let said = server.watch_after(50).await;
        say(&said, "MODIFIED", &slice(51));
        said
    };
    let (_said, batch) = tokio::join!(again, next(&mut watch));
    assert_eq!(batch, "51 +10.1.0.51:9000 -endpoints/10.1.0.11:9000", "nothing is read anew");
}

#[tokio::test(start_paused = true)]
async fn a_server_without_bookmarks_is_followed_through_watch_after_watch() {
    let (mut server, mut watch) = Server::watched();
    let mut said = server.begun(&mut watch).await;
    for _ in 0..3 {
        let server_ends_it = async {
            sleep(Duration::from_secs(LENGTH.into())).await;
            drop(said);
            server.watch_after(10).await
        };
        let again = tokio::select! {
            again = server_ends_it => again,
            next = watch.next() => panic!("{next:?}"),
        };
        said = again;
    }
    say(&said, "ADDED", &slice(12));
    assert_eq!(next(&mut watch).await, "12 +10.1.0.12:9000");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_keeps_silent_is_left() {
    for (has_bookmarks, silence) in [(true, SILENCE), (false, SILENCE_WITHOUT_BOOKMARKS)] {
        let (mut server, mut watch) = Server::watched();
        let said = server.begun(&mut watch).await;
        if has_bookmarks {
            say(&said, "BOOKMARK", &bookmark(20));
            assert_eq!(next(&mut watch).await, "20");
        }
        let start = Instant::now();
        let error = end(&mut watch).await;
        let WatchError::Disconnected(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains("nothing came for"), "{error}");
        let late = start.elapsed().saturating_sub(silence);
        assert!(start.elapsed() >= silence && late < Duration::from_millis(10), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_is_a_gap_also_when_the_watch_says_so() {
    let (mut server, mut watch) = Server::watched();
    let said = server.begun(&mut watch).await;
    let status = |code| {
        json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": "too old resource version: 10 (99)", "reason": "Expired", "code": code,
        })
    };
    say(&said, "ERROR", &status(410));
    let error = end(&mut watch).await;
    assert!(matches!(error, WatchError::Compacted), "{error:?}");

    let (mut server, mut watch) = Server::watched();
    let said = server.begun(&mut watch).await;
    say(&said, "ERROR", &status(500));
    let error = end(&mut watch).await;
    assert!(
        matches!(&error, WatchError::Disconnected(why) if why.to_string().contains("(500)")),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_watches_at_once_is_not_asked_again_without_a_pause() {
    let (mut server, mut watch) = Server::watched();
    drop(server.begun(&mut watch).await);
    let error = end(&mut watch).await;
    assert!(matches!(error, WatchError::Ended), "{error:?}");
    assert!(server.opened.try_recv().is_err(), "no other watch was opened");
}
