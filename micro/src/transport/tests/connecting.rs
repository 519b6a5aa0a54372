use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

use super::{
    super::{Config, ConnectionState, connect},
    kit::*,
};

#[tokio::test]
async fn a_node_is_called_over_tcp_by_address_and_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config::default();
    for host in ["127.0.0.1", "localhost"] {
        let address = format!("{host}:{port}");
        let connecting = tokio::spawn({
            let config = config.clone();
            async move { connect(&address, &config).await }
        });
        let (socket, _) = listener.accept().await.unwrap();
        let mut peer = Peer::on(socket, &h2::server::Builder::new());
        let connection = connecting.await.unwrap().unwrap();
        assert_eq!(*connection.state().borrow(), ConnectionState::Open);
        let call = call(&connection, b"hello");
        peer.next().await.echo().await;
        assert_eq!(call.await.unwrap().unwrap().message.unwrap(), "hello");
    }
}

#[tokio::test]
async fn a_closed_port_is_an_error_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = connect(&address, &Config::default()).await.unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn an_address_that_is_none_is_an_error() {
    for address in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999", "[::1:80"] {
        let error = connect(address, &Config::default()).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot connect to "), "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_accepts_and_stays_silent_is_not_connected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = Config { connect_timeout: Duration::from_millis(50), ..Config::default() };
    let error = connect(&address, &config).await.unwrap_err();
    assert!(error.to_string().contains("no HTTP/2 SETTINGS within 50ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_waited_for_as_long_as_the_timeout_says() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let start = Instant::now();
    let error = connect_over(ours, &Config::default()).await.unwrap_err();
    assert!(error.to_string().contains("within 1s"), "{error}");
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    let mut sent = Vec::new();
    theirs.read_to_end(&mut sent).await.unwrap();
    assert!(sent.starts_with(b"PRI * HTTP/2.0"), "our side spoke, then closed");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_only_acknowledges_is_not_connected() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    theirs.write_all(&frame(SETTINGS, ACK, 0, b"")).await.unwrap();
    let error = connect_over(ours, &Config::default()).await.unwrap_err();
    assert!(error.to_string().contains("SETTINGS"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_only_greets_is_not_connected() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    theirs.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    let error = connect_over(ours, &Config::default()).await.unwrap_err();
    assert!(
        error.to_string().contains("has not acknowledged our HTTP/2 SETTINGS within 1s"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn settings_may_come_in_pieces() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let connecting = tokio::spawn(async { connect_over(ours, &Config::default()).await });
    for byte in [frame(SETTINGS, 0, 0, &max_streams(7)), frame(SETTINGS, ACK, 0, b"")].concat() {
        assert!(!connecting.is_finished());
        theirs.write_all(&[byte]).await.unwrap();
        settle().await;
    }
    connecting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_speak_http2_is_an_error_at_once() {
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".as_slice(),
        b"\0\0\0\x01\x05\0\0\0\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"",
    ] {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let start = Instant::now();
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        let error = connect_over(ours, &Config::default()).await.unwrap_err();
        assert!(error.to_string().contains("got no HTTP/2 SETTINGS: "), "{error}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
