//! What the README says of others: tonic's own balanced channel in the faults that ours survives.

use std::time::Duration;

use micro::{Client, Service};
use tests::{
    echo::Echo,
    fault::free_address,
    proto::{
        echo::{EchoClient, SayRequest, register_echo_handler},
        tonic_echo::{self, echo_client::EchoClient as TonicEcho},
    },
};
use tokio::time::timeout;
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

#[tokio::test(start_paused = true)]
async fn without_nodes_ours_ends_with_the_reason_and_tonics_not_at_all() {
    let client = Client::builder().registry("memory://compared-empty").build().unwrap();
    let call = EchoClient::new("echo", &client).say(SayRequest::default());
    let status = call.timeout(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");

    let (channel, _set) = Channel::balance_channel::<u32>(16);
    let mut request = Request::new(tonic_echo::SayRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let hour = Duration::from_secs(3600);
    let ended = timeout(hour, TonicEcho::new(channel).say(request)).await;
    assert!(ended.is_err(), "tonic's ended: the README is to be changed");
}

#[tokio::test]
async fn one_refused_node_of_three_fails_calls_on_tonics_channel_and_none_on_ours() {
    const CALLS: usize = 60;
    let mut handles = Vec::new();
    for _ in 0..2 {
        let builder = Service::builder("echo").registry("memory://compared-refused");
        let mut service = builder.build().await.unwrap();
        register_echo_handler(service.server(), Echo);
        handles.push(service.start().await.unwrap());
    }
    let addresses =
        [handles[0].address().to_owned(), handles[1].address().to_owned(), free_address()];

    let registry = format!("static://echo={}", addresses.join(","));
    let client = Client::builder().registry(registry).build().unwrap();
    let ours = EchoClient::new("echo", &client);
    for _ in 0..CALLS {
        ours.say(SayRequest::default()).await.expect("two nodes can serve it");
    }

    let endpoints = addresses.map(|address| Endpoint::new(format!("http://{address}")).unwrap());
    let mut theirs = TonicEcho::new(Channel::balance_list(endpoints.into_iter()));
    let mut failed = 0;
    for _ in 0..CALLS {
        failed += usize::from(theirs.say(tonic_echo::SayRequest::default()).await.is_err());
    }
    assert!(failed > 0, "none failed on tonic's: the README is to be changed");

    for handle in handles {
        handle.stop().await.unwrap();
    }
}
