//! One message each way: answers, statuses, metadata, cancellation.

use super::*;

#[tokio::test]
async fn a_unary_call_is_answered_with_message_and_trailers() {
    let server = Fixture::start().await;
    let reply = server.connect().await.call(SAY, "hello").await;
    assert_eq!(reply.one(), "hello");
    assert_eq!(reply.http, 200);
    assert_eq!(reply.headers["content-type"], "application/grpc");
    assert!(!reply.headers.contains_key("grpc-status"), "the status is in the trailers");
    assert_eq!(reply.trailers.expect("trailers")["grpc-status"], "0");
}

#[tokio::test]
async fn metadata_goes_both_ways_but_what_is_grpcs_own() {
    let server = Fixture::start().await;
    let request = head(SAY).header("who", "me").header("blob-bin", "AP8");
    let reply = server.connect().await.send(request, framed(&text("metadata"))).await;
    let seen = reply.one();
    assert!(seen.contains(r#""who": "me""#) && seen.contains(r#""blob-bin": "AP8""#), "{seen}");
    assert_eq!(reply.headers["answer"], "42");
    assert_eq!(reply.headers["raw-bin"], "AP8");
    assert!(!reply.headers.contains_key("grpc-status"), "a handler cannot fake the status");
}

#[tokio::test]
async fn an_error_is_all_in_the_headers() {
    let server = Fixture::start().await;
    let reply = server.connect().await.call(SAY, "status").await;
    assert!(reply.trailers.is_none() && reply.messages.is_empty(), "{reply:?}");
    reply.expect(Code::NotFound, "no café\n100%");
    assert_eq!(reply.http, 200);
    assert_eq!(reply.headers["content-type"], "application/grpc");
    assert_eq!(reply.headers["hint"], "later");
    assert_eq!(reply.status().details(), b"\x08\x05");
}

#[tokio::test]
async fn a_reset_by_the_caller_drops_the_handler() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(SAY)).await;
    call.message("hang", true);
    assert_eq!(server.event().await, Event::Started);
    call.reset();
    assert_eq!(server.event().await, Event::Dropped);
    assert_eq!(client.call(SAY, "next").await.one(), "next", "the connection lives on");
}

#[tokio::test]
async fn a_caller_that_vanishes_drops_its_handlers() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut unary = client.open(head(SAY)).await;
    unary.message("hang", true);
    assert_eq!(server.event().await, Event::Started);
    let mut stream = client.open(head(DOWN)).await;
    stream.message("hang", true);
    assert_eq!(server.event().await, Event::Started);
    stream.answered().await.message().await.expect("the first message");

    client.driver.abort();
    assert_eq!(server.event().await, Event::Dropped);
    assert_eq!(server.event().await, Event::Dropped);
}

#[tokio::test]
async fn a_caller_that_resets_before_its_request_is_whole_starts_no_handler() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(SAY)).await;
    call.body.send_data(framed(&text("hello")).slice(..7), false).expect("open");
    call.reset();
    assert_eq!(client.call(SAY, "next").await.one(), "next");
    assert_eq!(server.event().await, Event::Started, "the second call's");
    assert_eq!(server.event().await, Event::Dropped);
    assert!(server.events.try_recv().is_err(), "nothing of the first");
}

#[tokio::test]
async fn a_large_message_within_the_limit_passes() {
    let server = Fixture::start().await;
    let large = "x".repeat((4 << 20) - 16);
    assert_eq!(server.connect().await.call(SAY, &large).await.one(), large);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_both_sizes() {
    let server = Fixture::with(|server| _ = server.max_message_size(1000)).await;
    let client = server.connect().await;
    let reply = client.call(SAY, &"x".repeat(1000)).await;
    reply.expect(Code::ResourceExhausted, "1003 bytes; the server takes at most 1000");
    let reply = client.call(SAY, "large").await;
    reply.expect(Code::ResourceExhausted, "5242885 bytes; the server sends at most 1000");
    assert_eq!(client.call(SAY, "small").await.one(), "small");
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let calls =
        (0..300).map(|number| {
            let client = client.clone();
            async move {
                assert_eq!(client.call(SAY, &number.to_string()).await.one(), number.to_string())
            }
        });
    futures_util::future::join_all(calls).await;
}
