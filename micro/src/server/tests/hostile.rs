//! Peers that break the rules, on the wire.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{wire::*, *};

#[tokio::test]
async fn malformed_messages_cost_only_their_call() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let good = framed(&text("hello"));
    let twice = [&good[..], &good[..]].concat();
    for (body, code, text) in [
        (&b""[..], Code::Internal, "has no message"),
        (&good[..3], Code::Internal, "within a message's prefix"),
        (&good[..9], Code::Internal, "after 4 of its message's 7 bytes"),
        (&twice, Code::Internal, "more than the one message"),
        (&[0, 0, 0, 0, 2, 0xff, 0xff], Code::Internal, "malformed"),
        (&[0, 0xff, 0xff, 0xff, 0xff, 1], Code::ResourceExhausted, "4294967295 bytes"),
        (&[0, 0, 0x40, 0, 0, 1], Code::Internal, "after 1 of its message's 4194304 bytes"),
    ] {
        client.send(head(SAY), body.to_vec()).await.expect(code, text);
    }
    assert!(server.events.try_recv().is_err(), "no handler saw any of it");
    assert_eq!(client.call(SAY, "next").await.one(), "next");
}

#[tokio::test]
async fn headers_over_the_limit_are_refused_and_the_connection_lives_on() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    for kib in [20, 63] {
        let request = head(SAY).header("large", "x".repeat(kib << 10));
        let reply = client.send(request, framed(&text("hello"))).await;
        assert_eq!(reply.http, 431, "{kib} KiB");
    }
    assert!(server.events.try_recv().is_err(), "no handler saw it");
    let request = head(SAY).header("large", "x".repeat(8 << 10));
    assert_eq!(client.send(request, framed(&text("hello"))).await.one(), "hello");
}

#[tokio::test]
async fn headers_over_four_times_the_limit_end_their_connection_only() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(SAY).header("large", "x".repeat(65 << 10))).await;
    soon(&mut call.response).await.expect_err("the connection is closed");
    assert!(server.events.try_recv().is_err(), "no handler saw it");
    assert_eq!(server.connect().await.call(SAY, "next").await.one(), "next");
}

#[tokio::test]
async fn the_server_says_how_many_calls_it_takes_at_once() {
    let server = Fixture::with(|server| _ = server.max_concurrent_streams(3)).await;
    let io = server.socket().await;
    let (sender, connection) = handshake(io).await;
    let client = Client { sender, driver: Arc::new(tokio::spawn(async {})) };
    let connection = Arc::new(tokio::sync::Mutex::new(connection));
    let driven = Arc::clone(&connection);
    let driver = tokio::spawn(async move {
        std::future::poll_fn(|cx| {
            let mut connection = driven.try_lock().expect("nobody waits while holding it");
            std::pin::Pin::new(&mut *connection).poll(cx)
        })
        .await
    });
    assert_eq!(client.call(SAY, "hello").await.one(), "hello");
    assert_eq!(connection.try_lock().expect("free").max_concurrent_send_streams(), 3);
    driver.abort();
}

#[tokio::test]
async fn a_burst_of_cancelled_calls_does_not_cost_the_connection() {
    let server = Fixture::piped();
    let mut io = greeted(server.pipe_of(4 << 20)).await;
    let message = framed(&text("next"));
    let mut burst = Vec::new();
    for stream in (1..10_000).step_by(2) {
        burst.extend(frame(HEADERS, END_HEADERS, stream, &call_block(SAY)));
        burst.extend(frame(DATA, END_STREAM, stream, &message));
        burst.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    burst.extend(frame(HEADERS, END_HEADERS, 10_001, &call_block(SAY)));
    burst.extend(frame(DATA, END_STREAM, 10_001, &message));
    io.write_all(&burst).await.expect("it fits the pipe");
    assert_eq!(next(&mut io, DATA).await, message);
}

#[tokio::test]
async fn uploads_that_are_refused_while_more_comes_do_not_cost_the_connection() {
    let server = Fixture::piped();
    let mut io = greeted(server.pipe_of(1 << 20)).await;
    for first in [1, 1001, 2001] {
        let streams = (first..first + 1000).step_by(2);
        for stream in streams.clone() {
            let call = frame(HEADERS, END_HEADERS, stream, &call_block("/nobody.Home/Up"));
            io.write_all(&call).await.expect("it fits the pipe");
        }
        for _ in streams.clone() {
            next(&mut io, RST_STREAM).await;
        }
        for stream in streams {
            io.write_all(&frame(DATA, 0, stream, b"more")).await.expect("it fits the pipe");
        }
    }
    let message = framed(&text("next"));
    io.write_all(&frame(HEADERS, END_HEADERS, 3001, &call_block(SAY))).await.expect("it reads");
    io.write_all(&frame(DATA, END_STREAM, 3001, &message)).await.expect("it reads");
    assert_eq!(next(&mut io, DATA).await, message);
}

#[tokio::test]
async fn bytes_that_are_no_http2_end_their_connection_only() {
    let mut server = Fixture::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"[..],
        &[0x16, 0x03, 0x01, 0x02, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00garbage",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00x",
    ] {
        let mut io = server.socket().await;
        // The server may have closed it before all of it is out.
        let _ = io.write_all(bytes).await;
        let mut rest = Vec::new();
        let _ = soon(io.read_to_end(&mut rest)).await;
    }
    assert!(server.events.try_recv().is_err(), "no handler saw any of it");
    assert_eq!(server.connect().await.call(SAY, "next").await.one(), "next");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_greet_is_let_go() {
    let server = Fixture::piped();
    let mut io = server.pipe();
    let start = Instant::now();
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.expect("closed");
    let taken = start.elapsed();
    assert!(taken >= SECOND * 10 && taken < SECOND * 11, "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_greets_may_stay_idle_as_long_as_it_answers_pings() {
    let server = Fixture::piped();
    let client = server.connect_pipe().await;
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(client.call(SAY, "still there").await.one(), "still there");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_answers_no_ping_is_given_up_and_its_handler_dropped() {
    let mut server = Fixture::piped();
    let io = server.pipe();
    let (sender, mut connection) = handshake(io).await;
    let client = Client { sender, driver: Arc::new(tokio::spawn(async {})) };
    let mut call = client.open(head(SAY)).await;
    call.message("hang", true);
    // Driven until the call has arrived, and never again.
    tokio::select! {
        _ = &mut connection => panic!("the connection holds"),
        event = server.events.recv() => assert_eq!(event, Some(Event::Started)),
    }
    let start = Instant::now();
    assert_eq!(server.events.recv().await, Some(Event::Dropped));
    assert!(start.elapsed() < SECOND * 120, "{:?}", start.elapsed());
}
