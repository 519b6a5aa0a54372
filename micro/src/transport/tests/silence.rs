use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{ConnectionState, FailureKind},
    kit::*,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_found_out_in_two_seconds() {
    let (connection, mut peer) = Raw::connected(b"").await;
    tokio::time::sleep(60 * SECOND).await;
    let start = Instant::now();
    let call = call(&connection, b"hello");
    peer.call().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(peer.expect(PING).await.flags, 0);
    assert_eq!(start.elapsed().as_secs(), 1);
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(failure.kind(), FailureKind::Lost);
    assert!(failure.to_string().contains("silent for"), "{failure}");
    assert!(matches!(&*connection.state().borrow(), ConnectionState::Closed(_)));
    let disconnect = connection.disconnect().get().expect("it is gone").name();
    assert_eq!(disconnect, "connection timed out");
    while peer.read().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_left_alone() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    peer.answer(stream, b"").await;
    call.await.unwrap().unwrap();
    let idle = tokio::time::timeout(600 * SECOND, async {
        while let Some(frame) = peer.read().await {
            assert_ne!(frame.kind, PING);
        }
    });
    assert!(idle.await.is_err(), "the connection lives on");
    assert_eq!(*connection.state().borrow(), ConnectionState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_is_waited_for_and_pinged_twice_at_most() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    let mut pings = 0;
    let _ = tokio::time::timeout(60 * SECOND, async {
        loop {
            let frame = peer.read().await.unwrap();
            if frame.kind == PING {
                pings += 1;
                peer.write(PING, ACK, 0, &frame.payload).await;
            }
        }
    })
    .await;
    assert_eq!(pings, 2);
    peer.answer(stream, b"slow").await;
    assert_eq!(call.await.unwrap().unwrap().message.unwrap(), "slow");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_freezes_beside_a_quiet_call_is_found_out_by_the_next() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let quiet = call(&connection, b"quiet");
    peer.call().await;
    spend_pings(&mut peer).await;
    tokio::time::sleep(60 * SECOND).await;
    let start = Instant::now();
    let failure = call(&connection, b"next").await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Lost);
    assert_eq!(start.elapsed().as_secs(), 2, "a second without a byte, and one without an answer");
    assert_eq!(quiet.await.unwrap().unwrap_err().kind(), FailureKind::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_freezes_after_its_answer_is_found_out_as_soon_as_ever() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let _quiet = call(&connection, b"quiet");
    let stream = peer.call().await;
    spend_pings(&mut peer).await;
    tokio::time::sleep(60 * SECOND).await;
    peer.write(HEADERS, END_HEADERS, stream, &ok_block()).await;
    let start = Instant::now();
    peer.expect(PING).await;
    assert_eq!(start.elapsed().as_secs(), 1);
}

/// Answers the PINGs that a peer which says nothing else has to bear.
async fn spend_pings(peer: &mut Raw) {
    for _ in 0..2 {
        let ping = within(3 * SECOND, peer.expect(PING)).await;
        peer.write(PING, ACK, 0, &ping.payload).await;
    }
}

#[tokio::test(start_paused = true)]
async fn headers_and_data_allow_pings_again() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    for round in 0..3 {
        spend_pings(&mut peer).await;
        match round {
            0 => peer.write(HEADERS, END_HEADERS, stream, &ok_block()).await,
            _ => peer.write(DATA, 0, stream, b"").await,
        }
    }
    assert!(!call.is_finished());
}

#[tokio::test(start_paused = true)]
async fn bytes_of_any_kind_are_a_sign_of_life() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    for _ in 0..20 {
        tokio::time::sleep(SECOND * 9 / 10).await;
        peer.write(SETTINGS, 0, 0, b"").await;
    }
    peer.answer(stream, b"").await;
    assert!(call.await.unwrap().is_ok());
    while let Ok(Some(frame)) = tokio::time::timeout(SECOND, peer.read()).await {
        assert_ne!(frame.kind, PING);
    }
}
