//! Handlers that panic.

use tracing::Level;

use super::*;
use crate::fixture::Log;

#[tokio::test]
async fn a_panic_is_internal_with_an_id_that_is_in_the_log() {
    let log = Log::down_to(Level::ERROR);
    let server = Fixture::start().await;
    let client = server.connect().await;

    let reply = client.call(SAY, "panic").await;
    reply.expect(Code::Internal, "the handler panicked");
    let message = reply.status().message().to_owned();
    assert!(!message.contains("cat"), "what panicked is not the caller's to know: {message}");
    let id = message.rsplit(' ').next().expect("a word").to_owned();
    assert_eq!(id.len(), 8, "{message}");

    let lines = log.lines();
    let [line] = &lines[..] else { panic!("one line, not {lines:?}") };
    for part in [&id, SAY, "the cat is out"] {
        assert!(line.contains(part), "{line} should have {part}");
    }
    assert_eq!(client.call(SAY, "next").await.one(), "next", "the connection lives on");
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_that_stream_alone() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut other = client.open(head(CHAT)).await;
    let mut answered = other.answered().await;
    assert_eq!(server.event().await, Event::Started);

    let reply = client.call(DOWN, "panic").await;
    assert_eq!(reply.messages, ["one"]);
    reply.expect(Code::Internal, "the handler panicked");
    assert_eq!(server.event().await, Event::Started);
    assert_eq!(server.event().await, Event::Dropped);

    other.message("a", true);
    assert_eq!(answered.message().await.as_deref(), Some("a!"));
    answered.rest().await.expect(Code::Ok, "");
}

#[tokio::test]
async fn a_panic_whose_payload_panics_too_is_internal() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    client.call(SAY, "bomb").await.expect(Code::Internal, "the handler panicked");
    assert_eq!(client.call(SAY, "next").await.one(), "next");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_panics_when_its_deadline_drops_it_is_internal() {
    let server = Fixture::piped();
    let reply = server.connect_pipe().await.call_within(DOWN, "bomb", "1S").await;
    assert_eq!(reply.messages, ["one"]);
    reply.expect(Code::Internal, "the handler panicked");
}
