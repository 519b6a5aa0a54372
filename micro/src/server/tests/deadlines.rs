//! The caller's patience. Time is paused: it passes only while everybody waits.

use tokio::io::AsyncWriteExt as _;

use super::{wire::*, *};

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_handler_is_dropped_and_the_caller_told() {
    let mut server = Fixture::piped();
    let client = server.connect_pipe().await;
    let start = Instant::now();
    let reply = client.call_within(SAY, "hang", "300m").await;
    reply.expect(Code::DeadlineExceeded, "300ms were over in /test.v1.Echo/Say");
    let taken = start.elapsed();
    assert!(taken >= SECOND * 3 / 10 && taken < SECOND / 2, "{taken:?}");
    assert_eq!(server.event().await, Event::Started);
    assert_eq!(server.event().await, Event::Dropped);
    assert_eq!(client.call(SAY, "next").await.one(), "next");
}

#[tokio::test(start_paused = true)]
async fn go_micros_timeout_counts_when_it_is_the_smaller() {
    let server = Fixture::piped();
    let client = server.connect_pipe().await;
    let call = |grpc, micro| {
        let request = head(SAY).header("grpc-timeout", grpc).header("timeout", micro);
        client.send(request, framed(&text("hang")))
    };
    let start = Instant::now();
    call("1H", "2000000000").await.expect(Code::DeadlineExceeded, "2s");
    assert!(start.elapsed() < SECOND * 3);
    call("1S", "5000000000").await.expect(Code::DeadlineExceeded, "1s");

    let request = head(SAY).header("timeout", "3000000000").header("x-content-type", "x");
    let reply = client.send(request, framed(&text("metadata"))).await;
    assert!(!reply.one().contains("timeout") && !reply.one().contains("x-content-type"));
}

#[tokio::test(start_paused = true)]
async fn the_handler_knows_its_deadline() {
    let server = Fixture::piped();
    let client = server.connect_pipe().await;
    assert_eq!(client.call_within(SAY, "deadline", "2S").await.one(), "Some(2s)");
    assert_eq!(client.call(SAY, "deadline").await.one(), "None");
    assert_eq!(client.call_within(DOWN, "deadline", "2S").await.one(), "true", "in a stream too");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_cut_at_the_deadline() {
    let mut server = Fixture::piped();
    let client = server.connect_pipe().await;
    let reply = client.call_within(DOWN, "hang", "1S").await;
    reply.expect(Code::DeadlineExceeded, "1s were over in /test.v1.Echo/Down");
    assert_eq!(reply.messages, ["one"], "what came before is kept");
    assert_eq!(server.event().await, Event::Started);
    assert_eq!(server.event().await, Event::Dropped);
}

#[tokio::test]
async fn a_stream_that_never_waits_is_cut_too() {
    let server = Fixture::start().await;
    // Time enough for a message on a machine that has other work.
    let reply = server.connect().await.call_within(DOWN, "forever", "500m").await;
    reply.expect(Code::DeadlineExceeded, "500ms were over");
    assert!(!reply.messages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_is_reset_after_the_deadline() {
    let mut server = Fixture::piped();
    let client = server.connect_pipe().await;
    let start = Instant::now();
    let mut call = client.open(head(DOWN).header("grpc-timeout", "1S")).await;
    call.message("forever", true);
    let mut answered = call.answered().await;
    assert_eq!(server.event().await, Event::Started);
    assert_eq!(server.event().await, Event::Dropped);
    assert!(start.elapsed() >= SECOND && start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    let reset = loop {
        match soon(answered.body.data()).await.expect("no end without a word") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    assert_eq!(client.call(SAY, "next").await.one(), "next");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_nobody_reads_is_reset_after_the_deadline() {
    let mut server = Fixture::piped();
    let mut io = greeted_with(server.pipe(), 100_000).await;
    let block = [call_block(SAY), literal("grpc-timeout", "1S")].concat();
    let call =
        [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, &framed(&text("big")))];
    let start = Instant::now();
    io.write_all(&call.concat()).await.expect("it reads");
    assert_eq!(server.event().await, Event::Started);
    assert_eq!(server.event().await, Event::Dropped, "it is answered");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(next(&mut io, RST_STREAM).await, [0, 0, 0, 8], "the rest will not come");
    assert!(start.elapsed() >= SECOND && start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_becomes_whole_ends_at_its_deadline() {
    let mut server = Fixture::piped();
    let client = server.connect_pipe().await;
    let mut call = client.open(head(SAY).header("grpc-timeout", "1S")).await;
    call.body.send_data(framed(&text("hello")).slice(..7), false).expect("open");
    call.reply().await.expect(Code::DeadlineExceeded, "1s were over");
    assert!(server.events.try_recv().is_err(), "no handler began");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_up_starts_no_handler() {
    let mut server = Fixture::piped();
    let reply = server.connect_pipe().await.call_within(SAY, "hello", "0n").await;
    reply.expect(Code::DeadlineExceeded, "0ns were over");
    assert!(server.events.try_recv().is_err());
}

#[tokio::test]
async fn a_malformed_grpc_timeout_is_answered_as_grpc_go_does() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let reply = client.call_within(SAY, "hello", "5 minutes").await;
    reply.expect(Code::Internal, "malformed grpc-timeout");
    assert_eq!(reply.http, 400);
    assert_eq!(client.call(SAY, "next").await.one(), "next");
}
