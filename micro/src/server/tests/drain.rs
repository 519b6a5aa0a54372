//! How a server leaves.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{wire::*, *};

#[tokio::test]
async fn goaway_comes_in_two_steps() {
    let server = Fixture::start().await;
    let mut io = greeted(server.socket().await).await;
    let drained = tokio::spawn(server.listening.drain(SOON * 100));

    let first = next(&mut io, GOAWAY).await;
    assert_eq!(first[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], "no stream is refused yet");
    let ping = next(&mut io, PING).await;
    let pong = frame(PING, ACK, 0, &ping);
    io.write_all(&pong).await.expect("it reads");
    let second = next(&mut io, GOAWAY).await;
    assert_eq!(second[..8], [0, 0, 0, 0, 0, 0, 0, 0], "nothing of ours was seen");
    assert_eq!(soon(io.read(&mut [0])).await.expect("it closes"), 0);
    assert!(soon(drained).await.expect("it ends").finished());
}

#[tokio::test]
async fn calls_under_way_finish_and_new_ones_go_elsewhere() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut unary = client.open(head(SAY)).await;
    unary.message("wait", true);
    assert_eq!(server.event().await, Event::Started);
    let mut stream = client.open(head(CHAT)).await;
    assert_eq!(server.event().await, Event::Started);
    let mut answered = stream.answered().await;

    let address = server.listening.local_addr();
    let drained = tokio::spawn(server.listening.drain(SOON * 100));
    // The GOAWAY has reached the client when it can send nothing more.
    let refused = async {
        while client.sender.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(refused).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");

    stream.message("still there", false);
    assert_eq!(answered.message().await.as_deref(), Some("still there!"));
    assert!(!drained.is_finished(), "it waits for both calls");
    server.go_on.notify_one();
    assert_eq!(unary.reply().await.one(), "wait");
    stream.message("bye", true);
    assert_eq!(answered.message().await.as_deref(), Some("bye!"));
    answered.rest().await.expect(Code::Ok, "");
    let drained = soon(drained).await.expect("it ends");
    assert!(drained.finished() && drained.connections_cut == 0, "{drained:?}");
}

#[tokio::test]
async fn a_call_on_its_way_when_the_server_leaves_is_served() {
    let server = Fixture::start().await;
    let mut io = greeted(server.socket().await).await;
    let drained = tokio::spawn(server.listening.drain(SOON * 100));
    next(&mut io, GOAWAY).await;
    let ping = next(&mut io, PING).await;

    // What was sent before the first GOAWAY came.
    let message = framed(&text("late"));
    let call = [
        frame(HEADERS, END_HEADERS, 1, &call_block(SAY)),
        frame(DATA, END_STREAM, 1, &message),
        frame(PING, ACK, 0, &ping),
    ]
    .concat();
    io.write_all(&call).await.expect("it reads");

    let answer = next(&mut io, DATA).await;
    assert_eq!(answer, message, "served, though the first GOAWAY was out");
    let rest = async {
        let mut rest = Vec::new();
        io.read_to_end(&mut rest).await.expect("it closes");
    };
    soon(rest).await;
    assert!(soon(drained).await.expect("it ends").finished());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_cuts_what_is_left_and_counts_it() {
    let mut server = Fixture::piped();
    let (one, two) = (server.connect_pipe().await, server.connect_pipe().await);
    let mut calls = Vec::new();
    for (client, path) in [(&one, SAY), (&one, DOWN), (&two, SAY)] {
        let mut call = client.open(head(path)).await;
        call.message("hang", true);
        assert_eq!(server.event().await, Event::Started);
        calls.push(call);
    }
    let start = Instant::now();
    let drained = server.listening.drain(SECOND * 3).await;
    let taken = start.elapsed();
    assert!(taken >= SECOND * 3 && taken < SECOND * 4, "{taken:?}");
    assert_eq!((drained.connections_cut, drained.calls_cut), (2, 3));
    assert!(!drained.finished());
    for _ in 0..3 {
        let event = server.events.recv().await;
        assert_eq!(event, Some(Event::Dropped), "a cut call's handler is dropped");
    }
}

/// What keeps a reply back: a socket that takes no more, a window that ends between two pieces of the
/// reply, and one that ends within the only piece.
const STALLS: [(u32, &str, usize); 3] =
    [(1 << 24, "big", BIG), (100_000, "big", BIG), (3, "hello", 5)];

/// A caller that has asked and reads no more.
async fn stalled(server: &mut Fixture, window: u32, message: &str) -> DuplexStream {
    let mut io = greeted_with(server.pipe(), window).await;
    let call = [
        frame(HEADERS, END_HEADERS, 1, &call_block(SAY)),
        frame(DATA, END_STREAM, 1, &framed(&text(message))),
    ];
    io.write_all(&call.concat()).await.expect("it reads");
    assert_eq!(server.event().await, Event::Started);
    assert_eq!(server.event().await, Event::Dropped, "it is answered");
    io
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_read_late_is_sent_whole() {
    for (window, message, length) in STALLS {
        let mut server = Fixture::piped();
        let mut io = stalled(&mut server, window, message).await;
        let drained = tokio::spawn(server.listening.drain(SECOND * 30));
        tokio::time::sleep(SECOND * 20).await;

        let wider = (1_u32 << 20).to_be_bytes();
        io.write_all(&frame(WINDOW_UPDATE, 0, 1, &wider)).await.expect("it is there still");
        let (whole, mut come) = (framed(&text("x".repeat(length))).len(), 0);
        while come < whole {
            come += next(&mut io, DATA).await.len();
        }
        assert_eq!(come, whole);
        next(&mut io, HEADERS).await;
        drop(io);
        let drained = drained.await.expect("it ends");
        assert!(drained.finished() && drained.connections_cut == 0, "{drained:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_never_read_is_cut_at_the_deadline_and_counted() {
    for (window, message, _) in STALLS {
        let mut server = Fixture::piped();
        let io = stalled(&mut server, window, message).await;
        let start = Instant::now();
        let drained = server.listening.drain(SECOND * 30).await;
        assert_eq!((drained.connections_cut, drained.calls_cut), (1, 1), "{window}");
        let taken = start.elapsed();
        assert!(taken >= SECOND * 30 && taken < SECOND * 31, "{taken:?}");
        drop(io);
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_that_are_read_late_are_all_sent() {
    let server = Fixture::piped();
    let mut io = greeted(server.pipe_of(1 << 10)).await;
    let calls = (1..200).step_by(2);
    for stream in calls.clone() {
        let block = call_block(&format!("/nobody.Home/{stream:0>80}"));
        let call = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        io.write_all(&call).await.expect("it reads on");
    }
    let drained = tokio::spawn(server.listening.drain(SECOND * 30));
    tokio::time::sleep(SECOND * 20).await;
    for _ in calls {
        next(&mut io, HEADERS).await;
    }
    drop(io);
    assert!(drained.await.expect("it ends").finished());
}

#[tokio::test(start_paused = true)]
async fn idle_and_dead_peers_do_not_hold_it_up() {
    let server = Fixture::piped();
    let idle = server.connect_pipe().await;
    assert_eq!(idle.call(SAY, "hello").await.one(), "hello");
    // One that will not answer the PING, one that says nothing at all, one half of a greeting.
    let deaf = greeted(server.pipe()).await;
    let mute = server.pipe();
    let mut half = server.pipe();
    half.write_all(&PREFACE[..10]).await.expect("it reads");

    let start = Instant::now();
    let drained = server.listening.drain(SECOND * 30).await;
    assert!(drained.finished() && drained.connections_cut == 0, "{drained:?}");
    assert!(start.elapsed() < SECOND * 5, "{:?}", start.elapsed());
    drop((deaf, mute, half));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_talks_but_makes_no_calls_does_not_hold_it_up() {
    let server = Fixture::piped();
    let mut talkative = greeted(server.pipe()).await;
    let talk = tokio::spawn(async move {
        // Never an answer to the server's own PING.
        while talkative.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
            tokio::time::sleep(SECOND).await;
        }
    });
    let start = Instant::now();
    let drained = server.listening.drain(SECOND * 30).await;
    assert!(drained.finished() && drained.connections_cut == 0, "{drained:?}");
    assert!(start.elapsed() < SECOND * 12, "{:?}", start.elapsed());
    talk.await.expect("the connection is closed");
}

#[tokio::test]
async fn a_server_that_is_dropped_is_gone() {
    let mut server = Fixture::start().await;
    let client = server.connect().await;
    let mut call = client.open(head(SAY)).await;
    call.message("hang", true);
    assert_eq!(server.event().await, Event::Started);
    let address = server.listening.local_addr();
    drop(server.listening);
    assert_eq!(soon(server.events.recv()).await, Some(Event::Dropped));
    soon(call.response).await.expect_err("its connection is cut");
    assert!(TcpStream::connect(address).await.is_err());
}
