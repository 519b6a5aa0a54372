//! Calls with a stream on either side.

use tokio::io::AsyncWriteExt as _;

use super::{wire::*, *};

#[tokio::test]
async fn a_server_streaming_call_is_answered_message_by_message() {
    let server = Fixture::start().await;
    let reply = server.connect().await.call(DOWN, "").await;
    assert_eq!(reply.messages, ["one", "two", "three"]);
    reply.expect(Code::Ok, "");
}

#[tokio::test]
async fn server_streaming_starts_without_a_half_close() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(DOWN)).await;
    call.message("", false);
    let reply = call.reply().await;
    assert_eq!(reply.messages, ["one", "two", "three"], "go-micro's client never half-closes");
    reply.expect(Code::Ok, "");
    assert_eq!(client.call(SAY, "next").await.one(), "next");
}

#[tokio::test]
async fn each_message_goes_out_as_soon_as_it_is_there() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(DOWN)).await;
    call.message("wait", true);
    let mut answered = call.answered().await;
    assert_eq!(answered.message().await.as_deref(), Some("one"));
    server.go_on.notify_one();
    assert_eq!(answered.message().await.as_deref(), Some("last"));
    answered.rest().await.expect(Code::Ok, "");
}

#[tokio::test]
async fn messages_that_are_ready_share_a_frame() {
    let server = Fixture::piped();
    let mut io = greeted(server.pipe()).await;
    let call = [
        frame(HEADERS, END_HEADERS, 1, &call_block(DOWN)),
        frame(DATA, END_STREAM, 1, &framed(&text(""))),
    ];
    io.write_all(&call.concat()).await.expect("it reads");
    let together = ["one", "two", "three"].map(|message| framed(&text(message))).concat();
    assert_eq!(next(&mut io, DATA).await, together, "a frame a message is what peers call a flood");
}

#[tokio::test]
async fn a_stream_ends_with_its_status() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let reply = client.call(DOWN, "fail").await;
    assert_eq!(reply.messages, ["one"]);
    reply.expect(Code::DataLoss, "gone");
    let reply = client.call(DOWN, "refuse").await;
    assert!(reply.trailers.is_none(), "refused before it began: {reply:?}");
    reply.expect(Code::PermissionDenied, "not for you");
    let reply = client.call(DOWN, "large").await;
    assert_eq!(reply.messages, ["one"]);
    reply.expect(Code::ResourceExhausted, "the server sends at most 4194304");
}

#[tokio::test]
async fn a_reset_by_the_caller_drops_the_stream() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(DOWN)).await;
    call.message("hang", true);
    call.answered().await.message().await.expect("the first message");
    assert_eq!(server.event().await, Event::Started);
    call.reset();
    assert_eq!(server.event().await, Event::Dropped);
}

#[tokio::test]
async fn client_streaming_takes_all_and_answers_once() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(UP)).await;
    for message in ["a", "b"] {
        call.message(message, false);
    }
    call.message("c", true);
    assert_eq!(call.reply().await.one(), "a+b+c");

    let mut empty = client.open(head(UP)).await;
    empty.body.send_data(Bytes::new(), true).expect("open");
    assert_eq!(empty.reply().await.one(), "");
}

#[tokio::test]
async fn a_handler_may_answer_before_its_caller_has_finished() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(UP)).await;
    call.message("a", false);
    call.message("enough", false);
    assert_eq!(call.reply().await.one(), "a");
    assert_eq!(client.call(SAY, "next").await.one(), "next");
}

#[tokio::test]
async fn both_sides_talk_in_turns() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(CHAT)).await;
    let mut answered = call.answered().await;
    for message in ["a", "b", "c"] {
        call.message(message, false);
        assert_eq!(answered.message().await, Some(format!("{message}!")));
    }
    call.body.send_data(Bytes::new(), true).expect("open");
    answered.rest().await.expect(Code::Ok, "");
}

#[tokio::test]
async fn a_fault_in_a_stream_of_requests_ends_the_call_with_its_status() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    for (tail, code, text) in [
        (&[0, 0, 0x40, 0, 1][..], Code::ResourceExhausted, "4194305 bytes; the server takes"),
        (&[0, 0, 0, 0, 9, 1], Code::Internal, "ends within a message"),
        (&[1, 0, 0, 0, 0], Code::Internal, "flagged as compressed"),
    ] {
        let good = framed(&super::text("a"));
        let reply = client.send(head(CHAT), [&good, tail].concat()).await;
        assert_eq!(reply.messages, ["a!"], "what came before the fault is answered");
        reply.expect(code, text);
        let reply = client.send(head(UP), [&good, tail].concat()).await;
        reply.expect(code, text);
    }
}

#[tokio::test]
async fn an_upload_that_is_cancelled_does_not_look_finished() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(UP)).await;
    call.message("spawn", false);
    assert_eq!(server.event().await, Event::Started);
    call.reset();
    let mut events = [server.event().await, server.event().await];
    if events[0] != Event::Dropped {
        events.reverse();
    }
    assert_eq!(events, [Event::Dropped, Event::Failed(Code::Aborted)]);
}
