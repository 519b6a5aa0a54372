//! What SIGTERM does to a service, in this very process: one test, since a signal is everybody's.

use std::time::Duration;

use micro::{Client, Service, registry, stream};
use rustix::process::{Signal, getpid, kill_process};
use tests::{
    echo::Echo,
    proto::echo::{ChatMessage, EchoClient, register_echo_handler},
};
use tokio::{sync::mpsc, time::timeout};

const REGISTRY: &str = "memory://signals";

fn signal() {
    kill_process(getpid(), Signal::TERM).expect("a signal to oneself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sigterm_lets_calls_finish_and_a_second_cuts_them() {
    let mut service = Service::builder("echo").registry(REGISTRY).build().await.expect("a service");
    register_echo_handler(service.server(), Echo);
    let mut running = tokio::spawn(service.run());

    let client = Client::builder().registry(REGISTRY).build().expect("a client");
    let echo = EchoClient::new("echo", &client);
    let (sender, receiver) = mpsc::channel(1);
    let mut chat = echo.chat(stream::receiver(receiver)).await.expect("a stream").into_inner();
    let word = |text: &str| ChatMessage { text: text.to_owned() };
    sender.send(word("before")).await.expect("open");
    assert_eq!(chat.message().await.expect("ok"), Some(word("before")));

    signal();
    let registry = registry::open(REGISTRY).expect("memory");
    while !registry.read("echo").await.expect("memory answers").entries.is_empty() {
        tokio::task::yield_now().await;
    }
    sender.send(word("while leaving")).await.expect("open");
    assert_eq!(chat.message().await.expect("ok"), Some(word("while leaving")));
    assert!(!running.is_finished(), "a call is under way");

    signal();
    let ended = timeout(Duration::from_secs(5), &mut running).await;
    ended.expect("well within the drain timeout of 30 s").expect("no panic").expect("no error");
    assert!(chat.message().await.is_err(), "the call was cut");
}
