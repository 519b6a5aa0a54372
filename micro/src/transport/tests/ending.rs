use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tonic::Code;

use super::{
    super::{Config, Connection, ConnectionState, FailureKind},
    kit::*,
};

#[tokio::test(start_paused = true)]
async fn a_refused_stream_was_not_processed() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    peer.reset(stream, 7).await;
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Refused);
    assert!(failure.is_unprocessed());
    assert_eq!(failure.to_status().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn any_other_reset_may_have_been_processed() {
    let (connection, mut peer) = Raw::connected(b"").await;
    for (code, expected) in [
        (0, Code::Internal),
        (2, Code::Internal),
        (8, Code::Cancelled),
        (11, Code::ResourceExhausted),
        (12, Code::PermissionDenied),
        (999, Code::Internal),
    ] {
        let call = call(&connection, b"hello");
        let stream = peer.call().await;
        peer.reset(stream, code).await;
        let failure = call.await.unwrap().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Reset);
        assert!(!failure.is_unprocessed());
        assert_eq!(failure.to_status().code(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_refused_after_it_was_answered_was_processed() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    peer.write(HEADERS, END_HEADERS, stream, &ok_block()).await;
    settle().await;
    peer.reset(stream, 7).await;
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Reset);
}

#[tokio::test(start_paused = true)]
async fn a_reset_behind_the_whole_answer_takes_nothing_back() {
    let (connection, mut peer) = Raw::connected(&setting(4, 4)).await;
    let call = call(&connection, b"more than the window");
    let stream = peer.expect(HEADERS).await.stream;
    peer.answer(stream, b"enough").await;
    peer.reset(stream, 0).await;
    assert_eq!(call.await.unwrap().unwrap().message.unwrap(), "enough");
}

#[tokio::test(start_paused = true)]
async fn goaway_refuses_what_came_after_its_last_id_and_lets_the_rest_finish() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let mut state = connection.state();
    let kept = call(&connection, b"kept");
    let first = peer.call().await;
    let refused = call(&connection, b"refused");
    peer.call().await;
    peer.go_away(first, 0, b"").await;
    let failure = refused.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::LeftBehind);
    assert!(failure.is_unprocessed());

    assert_eq!(*state.borrow_and_update(), ConnectionState::Draining);
    let failure = unary(&connection, head(), framed(b"late")).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::NotSent);
    assert!(failure.to_string().contains("GOAWAY NO_ERROR"), "{failure}");
    assert_eq!(disconnect(&connection), "GOAWAY NO_ERROR");

    peer.answer(first, b"done").await;
    assert_eq!(kept.await.unwrap().unwrap().message.unwrap(), "done");
    state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.unwrap();
    while peer.read().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_goaway_for_an_error_makes_a_suspect_of_what_it_did_not_process() {
    // A pipe that holds little, so that the last call is not written.
    let (connection, mut peer) = Raw::connected_with(b"", &Config::default(), 512).await;
    let sent = call(&connection, b"sent");
    peer.call().await;
    let large = tokio::spawn({
        let (connection, frame) = (connection.clone(), framed(&[7; 4096]));
        async move { unary(&connection, head(), frame).await }
    });
    settle().await;
    let unsent = call(&connection, b"unsent");
    settle().await;
    peer.go_away(0, 11, b"").await;
    for (call, kind) in [
        (sent, FailureKind::Suspect),
        (large, FailureKind::Suspect),
        (unsent, FailureKind::NotSent),
    ] {
        let failure = call.await.unwrap().unwrap_err();
        assert_eq!(failure.kind(), kind, "{failure}");
        assert!(failure.is_unprocessed());
        assert_eq!(failure.to_status().code(), Code::Unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_goaway_with_a_code_that_nobody_knows_is_one_for_an_error() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let mut state = connection.state();
    let kept = call(&connection, b"kept");
    let first = peer.call().await;
    let after = call(&connection, b"after");
    peer.call().await;
    peer.go_away(first, 0xdead, b"").await;
    let failure = after.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Suspect, "{failure}");
    assert!(failure.is_unprocessed());
    assert!(failure.to_string().contains("GOAWAY Reason(dead)"), "{failure}");
    assert_eq!(*state.borrow_and_update(), ConnectionState::Draining);
    let failure = unary(&connection, head(), framed(b"late")).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::NotSent);
    assert_eq!(disconnect(&connection), "GOAWAY INTERNAL_ERROR");

    settle().await;
    assert!(!kept.is_finished(), "it is not above the last id");
    peer.answer(first, b"done").await;
    assert_eq!(kept.await.unwrap().unwrap().message.unwrap(), "done");
    state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_goaway_in_two_steps_drains_at_the_first() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let mut state = connection.state();
    let call = call(&connection, b"kept");
    let stream = peer.call().await;
    peer.go_away(0x7fff_ffff, 0, b"").await;
    state.wait_for(|state| *state == ConnectionState::Draining).await.unwrap();
    peer.go_away(stream, 0, b"").await;
    settle().await;
    assert!(!call.is_finished());
    peer.answer(stream, b"done").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn goaway_turns_away_who_waits_in_line() {
    let (connection, mut peer) = Raw::connected(&max_streams(1)).await;
    let first = call(&connection, b"first");
    let stream = peer.call().await;
    let waiting = call(&connection, b"waiting");
    settle().await;
    peer.go_away(stream, 0, b"").await;
    let failure = waiting.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::NotSent);
    peer.answer(stream, b"done").await;
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn goaway_for_too_many_pings_doubles_the_interval() {
    let (connection, mut peer) = Raw::connected(b"").await;
    assert_eq!(connection.ping_after(), Duration::from_secs(1));
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    peer.go_away(stream, 11, b"too_many_pings").await;
    drop(peer);
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Lost);
    assert_eq!(connection.ping_after(), Duration::from_secs(2));
    let ended = connection.state();
    let ConnectionState::Closed(why) = &*ended.borrow() else { panic!("{ended:?}") };
    assert!(why.contains("ENHANCE_YOUR_CALM (\"too_many_pings\")"), "{why}");
    let first = "GOAWAY ENHANCE_YOUR_CALM";
    assert_eq!(disconnect(&connection), first, "and then it hung up");
}

#[tokio::test(start_paused = true)]
async fn goaway_for_another_excess_leaves_the_interval() {
    let (connection, mut peer) = Raw::connected(b"").await;
    peer.go_away(0, 11, b"too_many_resets").await;
    connection.state().wait_for(|state| *state != ConnectionState::Open).await.unwrap();
    assert_eq!(connection.ping_after(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn calls_on_a_connection_that_breaks_are_lost() {
    let (connection, mut peer) = Peer::connected().await;
    let unanswered = call(&connection, b"hello");
    let served = peer.next().await;
    let answered = call(&connection, b"hello");
    let mut half = peer.next().await;
    let mut stream = half.respond.send_response(ok_head(), false).unwrap();
    stream.send_data(framed(b"whole, but no trailers"), false).unwrap();
    settle().await;
    peer.kill();
    for call in [unanswered, answered] {
        let failure = call.await.unwrap().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Lost);
        assert!(!failure.is_unprocessed());
        assert_eq!(failure.to_status().code(), Code::Unavailable);
        assert!(failure.to_string().starts_with("node:1: "), "{failure}");
    }
    drop(served);
    let failure = unary(&connection, head(), framed(b"late")).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::NotSent);
    let state = connection.state();
    assert!(matches!(&*state.borrow(), ConnectionState::Closed(_)), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_written_was_not_sent() {
    // A peer that stops reading, behind a pipe that holds little.
    let (connection, mut peer) = Raw::connected_with(b"", &Config::default(), 512).await;
    let written = call(&connection, b"hello");
    peer.call().await;
    let large = tokio::spawn({
        let (connection, frame) = (connection.clone(), framed(&[7; 4096]));
        async move { unary(&connection, head(), frame).await }
    });
    settle().await;
    let never = call(&connection, b"hello");
    settle().await;
    drop(peer);
    assert_eq!(written.await.unwrap().unwrap_err().kind(), FailureKind::Lost);
    assert_eq!(large.await.unwrap().unwrap_err().kind(), FailureKind::Lost);
    let failure = never.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::NotSent, "it lay behind the large one: {failure}");
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_the_connection_and_loses_its_calls() {
    for garbage in [
        b"HTTP/1.1 500 Oops\r\n\r\n".to_vec(),
        // A message longer than its frame may be.
        frame(DATA, 0, 1, &[0; 20_000]),
        // HEADERS that do not decode.
        frame(HEADERS, END_HEADERS, 1, &[0xff; 8]),
        // DATA on a stream that does not exist.
        frame(DATA, 0, 9, b"x"),
        frame(SETTINGS, 0, 1, b""),
    ] {
        let (connection, mut peer) = Raw::connected(b"").await;
        let call = call(&connection, b"hello");
        peer.call().await;
        peer.io.write_all(&garbage).await.unwrap();
        peer.io.shutdown().await.unwrap();
        let failure = within(Duration::from_secs(1), call).await.unwrap().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Lost, "{failure}");
        let mut state = connection.state();
        state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.unwrap();
        assert_eq!(disconnect(&connection), "unknown");
    }
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_calls_under_way_and_takes_no_new_ones() {
    let (connection, mut peer) = Peer::connected().await;
    let mut state = connection.state();
    let call = call(&connection, b"hello");
    let served = peer.next().await;
    connection.close();
    assert_eq!(*state.borrow_and_update(), ConnectionState::Draining);
    assert_eq!(disconnect(&connection), "subchannel shutdown");
    let failure = unary(&connection, head(), framed(b"late")).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::NotSent);
    settle().await;
    assert!(!call.is_finished());
    served.echo().await;
    assert!(call.await.unwrap().is_ok());
    state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.unwrap();
    assert!(peer.calls.recv().await.is_none(), "the peer sees the end");
}

#[tokio::test(start_paused = true)]
async fn close_of_an_idle_connection_is_at_once() {
    let (connection, mut peer) = Peer::connected().await;
    connection.close();
    let mut state = connection.state();
    state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.unwrap();
    assert!(peer.calls.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_connection_with_it() {
    let (connection, mut peer) = Peer::connected().await;
    let mut state = connection.state();
    let call = call(&connection, b"hello");
    drop(connection);
    let served = peer.next().await;
    assert_eq!(*state.borrow_and_update(), ConnectionState::Open);
    served.echo().await;
    assert!(call.await.unwrap().is_ok());
    state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.unwrap();
    assert!(peer.calls.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn late_answers_to_dropped_calls_never_cost_the_connection() {
    let (connection, mut peer) = Raw::connected(b"").await;
    // `h2` remembers 1024 such streams, and would give up after 1024 answers to others.
    for _ in 0..2100 {
        let dropped = call(&connection, b"hello");
        let stream = peer.call().await;
        dropped.abort();
        assert_eq!(peer.expect(RST_STREAM).await.stream, stream);
        peer.answer(stream, b"late").await;
        while let Ok(Some(frame)) =
            tokio::time::timeout(Duration::from_millis(1), peer.read()).await
        {
            assert_ne!(frame.kind, GOAWAY);
        }
    }
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    peer.answer(stream, b"").await;
    assert!(call.await.unwrap().is_ok());
}

/// Why it takes no more calls, for metrics.
fn disconnect(connection: &Connection) -> &'static str {
    connection.disconnect().get().expect("it takes none").name()
}
