//! What is too large: messages, metadata, windows.

use super::*;

#[tokio::test]
async fn metadata_that_would_cost_others_their_connection_is_refused() {
    let registry = "memory://client-metadata-size";
    let _echo = start(registry, "echo", Echo::named("echo")).await;
    let stub = Stub::new("echo", &client(registry));
    let request = || {
        let mut request = Request::new(Word::new("who?"));
        let value = "x".repeat(70_000).parse().expect("a value");
        request.metadata_mut().insert("large", value);
        request
    };
    let status = stub.say(request()).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let status = stub.down(request()).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test]
async fn metadata_that_a_node_does_not_take_is_the_calls_own_fault() {
    let registry = "memory://client-metadata-node";
    let mut service = Service::builder("echo").registry(registry).build().await.expect("a service");
    register(service.server(), Echo::named("echo"));
    service.server().max_header_list_size(2048);
    let handle = service.start().await.expect("a free port");
    registered(&handle).await;
    let stub = Stub::new("echo", &client(registry));
    let request = || {
        let mut request = Request::new(Word::new("who?"));
        request.metadata_mut().insert("large", "x".repeat(4000).parse().expect("a value"));
        request
    };
    let unary = stub.say(request()).await.expect_err("too large for the node");
    let stream = stub.down(request()).await.expect_err("too large for the node");
    for status in [unary, stream] {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("send less"), "{status}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_either_way_and_the_limit_named() {
    let registry = "memory://client-size";
    let _a = start(registry, "a", Echo::named("a name of more than ten bytes")).await;
    let client = crate::Client::builder().registry(registry).max_message_size(10).build();
    let stub = Stub::new("a", &client.expect("a client"));
    let (short, long) = (|| Word::new("who?"), || Word::new("more than ten bytes"));
    let several = |word| tokio_stream::iter([short(), word]);
    for (what, status) in [
        ("a unary request", stub.say(long()).await.err()),
        ("a unary reply", stub.say(short()).await.err()),
        ("a request for a stream", stub.down(long()).await.err()),
        ("a streamed request", stub.up(several(long())).await.err()),
        ("a streamed request's reply", stub.collect(several(short())).await.err()),
    ] {
        let status = status.unwrap_or_else(|| panic!("{what} is too large"));
        assert_eq!(status.code(), Code::ResourceExhausted, "{what}: {status}");
        for named in ["bytes", "10", "raise ClientBuilder::max_message_size"] {
            assert!(status.message().contains(named), "{what}: {status}");
        }
    }
}

#[tokio::test]
async fn a_streams_messages_before_one_over_the_limit_are_the_callers() {
    let registry = "memory://client-stream-size";
    let _a = start(registry, "a", Echo::named("word")).await;
    let client = crate::Client::builder().registry(registry).max_message_size(10).build();
    let stub = Stub::new("a", &client.expect("a client"));
    let mut words = stub.follow(Word::new("who?")).await.expect("a stream").into_inner();
    assert_eq!(words.message().await.expect("ok").expect("a word").text, "word");
    let status = words.message().await.expect_err("twice the word");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("raise ClientBuilder::max_message_size"), "{status}");
}

#[test]
fn windows_that_http2_cannot_have_are_refused_by_name() {
    let registry = "memory://client-windows";
    let builder = || crate::Client::builder().registry(registry);
    for window in [0, 1 << 31] {
        for (name, client) in [
            ("stream_window", builder().stream_window(window).build()),
            ("connection_window", builder().connection_window(window).build()),
        ] {
            let error = client.expect_err("no such window");
            let text = error.to_string();
            assert!(error.is_config() && text.contains(&format!("{name} is {window}")), "{text}");
            assert!(text.contains("set it to 1 up to 2147483647"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_node_is_told_the_windows_that_the_client_was_given() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let registry = format!("static://a={}", listener.local_addr().expect("an address"));
    let builder = crate::Client::builder().registry(registry);
    let client = builder.stream_window(1_000).connection_window(100_000).build();
    let _channel = client.expect("a client").channel("a");
    let (mut socket, _) = listener.accept().await.expect("a connection");
    let mut head = [0; 24 + 9];
    socket.read_exact(&mut head).await.expect("the preface, and the head of SETTINGS");
    let mut settings = vec![0; usize::from(head[26])];
    socket.read_exact(&mut settings).await.expect("SETTINGS");
    let window = [&[0, 4][..], &1_000_u32.to_be_bytes()].concat();
    assert!(settings.chunks(6).any(|setting| setting == window), "{settings:?}");
    let mut update = [0; 9 + 4];
    socket.read_exact(&mut update).await.expect("a WINDOW_UPDATE of the connection");
    let expected = [&[0, 0, 4, 8, 0, 0, 0, 0, 0][..], &(100_000_u32 - 65_535).to_be_bytes()];
    assert_eq!(update[..], expected.concat());
}
