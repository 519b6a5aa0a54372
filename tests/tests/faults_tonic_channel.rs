//! Our discovery beneath tonic's own balanced channel: what works there, and what the documentation
//! of `tonic_channel` says does not.

use std::time::Duration;

use micro::{Client, Service, discovery::tonic_channel};
use tests::{
    echo::Echo,
    etcd::Etcd,
    fault::{Audit, CALLERS, Callers, Fleet, SERVICE},
    proto::{
        echo::register_echo_handler,
        tonic_echo::{ChatMessage, CountRequest, SayRequest, SumRequest, echo_client::EchoClient},
        tonic_ledger::ledger_client::LedgerClient,
    },
};
use tokio::time::sleep;
use tokio_stream::{StreamExt, iter};

#[tokio::test]
async fn all_four_kinds_of_calls_go_through_tonics_channel() {
    let mut service =
        Service::builder("echo").registry("memory://tonic-channel").build().await.unwrap();
    register_echo_handler(service.server(), Echo);
    let subscription = service.client().discovery().subscribe("echo");
    let node = service.start().await.unwrap();
    let mut echo = EchoClient::new(tonic_channel(subscription));

    let reply = echo.say(SayRequest { payload: b"word".to_vec() }).await.unwrap();
    assert_eq!(reply.into_inner().payload, b"word");

    let counted = echo.count(CountRequest { upto: 3 }).await.unwrap().into_inner();
    let counted: Vec<_> = counted.map(|reply| reply.unwrap().n).collect().await;
    assert_eq!(counted, [1, 2, 3]);

    let summands = iter([1, 2, 3].map(|add| SumRequest { add }));
    assert_eq!(echo.sum(summands).await.unwrap().into_inner().sum, 6);

    let said = iter(["a", "b"].map(|text| ChatMessage { text: text.to_owned() }));
    let answers = echo.chat(said).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().text).collect().await;
    assert_eq!(answers, ["a", "b"]);

    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_fails_calls_on_tonics_channel_only_until_it_is_back() {
    let etcd = Etcd::start().await;
    let mut fleet = Fleet::start(&etcd.url()).await;
    let client = Client::builder().registry(&fleet.url).build().unwrap();
    let subscription = client.discovery().subscribe(SERVICE);
    let ledger = LedgerClient::new(tonic_channel(subscription));
    let callers = Callers::start_with(&ledger, CALLERS, Duration::ZERO);
    sleep(Duration::from_secs(2)).await;

    let killed = fleet.kill(1).await;
    sleep(Duration::from_secs(2)).await;
    let back = fleet.restart(1).await;
    sleep(Duration::from_secs(6)).await;

    let audit = Audit::new(callers.stop().await, fleet.visits());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
    // In between tonic goes on picking the dead node, as `tonic_channel` says.
    let again = back + Duration::from_secs(3);
    let mut failed = audit.failed();
    failed.retain(|call| call.ended < killed || call.began > again);
    assert!(failed.is_empty(), "{} calls failed, first: {:?}", failed.len(), failed.first());
    assert!(audit.first_answer(fleet.id(1), back).is_some(), "the node was not called again");
}
