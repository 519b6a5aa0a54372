//! Calls over TLS, from a client to the nodes of a service.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};

use crate::{
    ChannelOptions, Client, Service,
    fixture::{Authority, Echo, Log, Stub, Word, register, registered},
    service::Handle,
    tls::{ClientTls, ServerTls},
};

const NAME: &str = "echo.internal";

async fn start(registry: &str, node: &str, tls: Option<ServerTls>) -> Handle {
    let drain = Duration::from_secs(60);
    let service = Service::builder("echo").id(node).registry(registry).drain_timeout(drain);
    let mut service = service.build().await.expect("a service");
    register(service.server(), Echo::named(node));
    if let Some(tls) = tls {
        service.server().tls(tls);
    }
    let handle = service.start().await.expect("a free port");
    registered(&handle).await;
    handle
}

fn client(registry: &str, tls: ClientTls) -> Client {
    let options = ChannelOptions::new().tls(tls);
    Client::builder().registry(registry).for_all(options).build().expect("a client")
}

/// On connections of its own, unless there is a stub already.
async fn answer(client: &Client) -> Result<String, Status> {
    answer_of(&Stub::new("echo", client)).await
}

async fn answer_of(stub: &Stub) -> Result<String, Status> {
    stub.say(Word::new("who?")).fail_fast().await.map(|reply| reply.into_inner().text)
}

#[tokio::test]
async fn calls_go_over_tls_to_nodes_on_ip_addresses() {
    let (registry, authority) = ("memory://tls-calls", Authority::new());
    let server = authority.server(NAME).client_ca(&authority.pem);
    let _node = start(registry, "a", Some(server)).await;
    let (cert, key) = authority.issue("shop");
    let tls = authority.client().server_name(NAME).identity(cert, key);
    let client = client(registry, tls);
    assert_eq!(answer(&client).await.expect("a reply"), "a");

    let stub = Stub::new("echo", &client);
    let words: Vec<_> =
        (0..1000).map(|it| Word::new(format!("{it} {}", "x".repeat(5000)))).collect();
    let mut back =
        stub.chat(tokio_stream::iter(words.clone())).await.expect("a stream").into_inner();
    for word in words {
        assert_eq!(back.message().await.expect("a word"), Some(word));
    }
}

#[tokio::test]
async fn a_service_calls_with_the_options_that_its_client_is_given() {
    let (registry, authority) = ("memory://tls-own-client", Authority::new());
    let _node = start(registry, "a", Some(authority.server(NAME))).await;
    let shop = Service::builder("shop").registry(registry).build().await.expect("a service");
    let options = ChannelOptions::new().tls(authority.client().server_name(NAME));
    let client = shop.client_builder().for_service("echo", options).build().expect("a client");
    assert_eq!(answer(&client).await.expect("a reply"), "a");
}

#[tokio::test]
async fn a_failed_handshake_names_the_node_who_refused_what_and_the_remedy() {
    let authority = Authority::new();
    let strict = || authority.server(NAME).client_ca(&authority.pem);
    let plain = || None::<ClientTls>;
    for (at, (server, client_tls, parts)) in [
        (
            Some(authority.server("127.0.0.1")),
            Some(Authority::new().client()),
            ["TLS: the client does not trust the node's certificate", "its issuer is unknown"],
        ),
        (
            Some(authority.server(NAME)),
            Some(authority.client()),
            [
                "it is for echo.internal, not for 127.0.0.1",
                "give one that it has to `ClientTls::server_name`",
            ],
        ),
        (
            Some(strict()),
            Some(authority.client().server_name(NAME)),
            [
                "TLS: the node refused the client, by the alert CertificateRequired",
                "`ClientTls::identity_files`",
            ],
        ),
        (
            None,
            Some(authority.client()),
            ["TLS: the node answered with something that is not TLS", "`Server::tls`"],
        ),
        (
            Some(authority.server(NAME)),
            plain(),
            ["connected, but got no HTTP/2 SETTINGS: the node speaks TLS", "`ChannelOptions::tls`"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let registry = format!("memory://tls-refused-{at}");
        let node = start(&registry, "a", server).await;
        let client = match client_tls {
            Some(tls) => client(&registry, tls),
            None => crate::fixture::client(&registry),
        };
        let status = answer(&client).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unavailable);
        for part in parts.into_iter().chain([node.address()]) {
            assert!(status.message().contains(part), "{part:?} is not in: {}", status.message());
        }
    }
}

#[tokio::test]
async fn a_node_with_a_wrong_certificate_costs_no_call() {
    let (registry, authority) = ("memory://tls-one-wrong", Authority::new());
    let _nodes = [
        start(registry, "a", Some(authority.server(NAME))).await,
        start(registry, "b", Some(authority.server("other.internal"))).await,
        start(registry, "c", Some(authority.server(NAME))).await,
    ];
    let client = client(registry, authority.client().server_name(NAME));
    let stub = Stub::new("echo", &client);
    let mut answers = [0; 2];
    for _ in 0..500 {
        match answer_of(&stub).await.expect("a reply").as_str() {
            "a" => answers[0] += 1,
            "c" => answers[1] += 1,
            other => panic!("{other} is not to be trusted"),
        }
    }
    assert!(answers[0] > 0 && answers[1] > 0, "{answers:?}");
}

/// All files are replaced, by those of another CA in the end, while calls go on.
#[tokio::test]
async fn a_rotation_costs_no_call_and_connections_made_after_it_have_the_new_certificates() {
    let (registry, old, new) = ("memory://tls-rotation", Authority::new(), Authority::new());
    let dir = tempfile::tempdir().expect("a folder");
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| dir.path().join(name));
    let replace = |path: &std::path::Path, text: &str| {
        let next = path.with_extension("next");
        std::fs::write(&next, text).expect("written");
        std::fs::rename(next, path).expect("replaced");
    };
    let issue = |authority: &Authority| {
        let (its_cert, its_key) = authority.issue(NAME);
        replace(&cert, &its_cert);
        replace(&key, &its_key);
    };
    replace(&ca, &old.pem);
    issue(&old);
    let tls = || ServerTls::from_files(&cert, &key).client_ca_file(&ca);
    let mut nodes =
        [start(registry, "a", Some(tls())).await, start(registry, "b", Some(tls())).await];
    let ours = ClientTls::new().ca_file(&ca).identity_files(&cert, &key).server_name(NAME);
    let stub = Stub::new("echo", &client(registry, ours.clone()));
    assert!(answer_of(&stub).await.is_ok());

    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let calls = tokio::spawn({
        let (stub, ours, done) = (stub.clone(), ours.clone(), done.clone());
        async move {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) {
                answer_of(&stub).await.expect("no call on a connection that stays fails");
                answer(&client(registry, ours.clone())).await.expect("nor one on a new one");
                calls += 2;
                sleep(Duration::from_millis(1)).await;
            }
            calls
        }
    });
    let until_answered = async |registry: &str, tls: &ClientTls| {
        let answered = async {
            // A channel of its own each time: another connection.
            while answer(&client(registry, tls.clone())).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(20), answered).await.expect("within about a second");
    };
    let both = format!("{}{}", old.pem, new.pem);
    let (its_cert, its_key) = new.issue("probe");
    let probe = |ca: &str| ClientTls::new().ca(ca).server_name(NAME).identity(&its_cert, &its_key);
    // As every CA is taken over from: trusted beside the old one, then used, then trusted alone.
    replace(&ca, &both);
    until_answered(registry, &probe(&both)).await;
    issue(&new);
    until_answered(registry, &probe(&new.pem)).await;
    // One that knows nothing of the old: the client shows its new certificate once this takes it.
    let strict = new.server(NAME).client_ca(&new.pem);
    let elsewhere = "memory://tls-rotation-strict";
    let _strict = start(elsewhere, "strict", Some(strict)).await;
    until_answered(elsewhere, &ours).await;
    replace(&ca, &new.pem);
    for (node, name) in nodes.iter_mut().zip(["a", "b"]) {
        let restarted = start(registry, &format!("{name}2"), Some(tls())).await;
        std::mem::replace(node, restarted).stop().await.expect("left");
    }
    assert!(answer_of(&stub).await.expect("a reply").ends_with('2'));
    done.store(true, Ordering::Relaxed);
    assert!(calls.await.expect("no panic") > 0);
    let error = answer(&client(registry, old.client().server_name(NAME))).await;
    assert!(error.is_err(), "the old CA is trusted no more, nor does it know the new");
}

/// Silent peers, and those that speak something else, keep nobody waiting.
#[tokio::test]
async fn peers_that_do_not_shake_hands_are_in_nobodys_way() {
    let log = Log::down_to(tracing::Level::DEBUG);
    let (registry, authority) = ("memory://tls-silent", Authority::new());
    let node = start(registry, "a", Some(authority.server(NAME))).await;
    let mut peers = Vec::new();
    for _ in 0..100 {
        peers.push(TcpStream::connect(node.address()).await.expect("accepted"));
    }
    peers[0].write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let client = client(registry, authority.client().server_name(NAME));
    assert_eq!(answer(&client).await.expect("a reply"), "a");
    let peer = peers[0].local_addr().expect("an address").to_string();
    drop(peers.remove(0));
    let told = async {
        while log.lines_with("no TLS handshake: the client does not speak TLS").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), told).await.expect("told at debug");
    let lines = log.lines_with("no TLS handshake: the client does not speak TLS");
    assert!(lines[0].contains(&peer), "{lines:?}");
    let begun = Instant::now();
    node.stop().await.expect("left");
    assert!(begun.elapsed() < Duration::from_secs(8), "silent ones do not hold up leaving");
}

#[tokio::test]
async fn a_node_that_takes_the_connection_and_stays_silent_fails_within_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound");
    let client = client(&format!("static://echo={address}"), Authority::new().client());
    let status = answer(&client).await.expect_err("silence");
    let named = format!(
        "cannot connect to {address}: TLS: the node did not finish the handshake within 1s"
    );
    assert!(status.message().contains(&named), "{}", status.message());
}

/// As grpc-go's servers do, when they want TLS and are given HTTP/2 in plaintext.
#[tokio::test]
async fn a_node_that_hangs_up_on_plaintext_may_speak_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let client = crate::fixture::client(&format!("static://echo={address}"));
    let status = answer(&client).await.expect_err("nobody serves");
    let told = "; if the node speaks TLS, give `ChannelOptions::tls` (feature `tls`) for it";
    assert!(status.message().contains(told), "{}", status.message());
}

#[test]
fn what_cannot_be_used_is_an_error_of_the_builder() {
    let options = ChannelOptions::new().tls(ClientTls::new().ca_file("/nowhere/ca.pem"));
    let client = Client::builder().registry("memory://tls-no-ca").for_service("echo", options);
    let error = client.build().expect_err("no such file");
    assert!(error.is_config());
    assert_eq!(
        error.to_string(),
        "TLS of the client: cannot read /nowhere/ca.pem: No such file or directory (os error 2) \
         (for service 'echo')"
    );
}

#[tokio::test]
async fn a_service_does_not_start_on_certificates_that_cannot_be_used() {
    let service = Service::builder("echo").registry("memory://tls-no-cert");
    let mut service = service.build().await.expect("a service");
    service.server().tls(ServerTls::from_files("/nowhere/tls.crt", "/nowhere/tls.key"));
    let error = service.start().await.expect_err("no such file");
    assert!(error.is_config());
    assert!(error.to_string().starts_with("TLS of the server: cannot read /nowhere/tls.crt"));
}
