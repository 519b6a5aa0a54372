//! What a client's calls tell. In real time: they are of real sockets.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use micro::{
    ChannelOptions, Code,
    client::{Hedge, Served, ServiceConfig},
};
use tokio::net::TcpListener;
use tonic_prost::ProstCodec;

use crate::{
    collected::Collected,
    echo::{
        Answers, CountRequest, EchoClient, SayReply, SayRequest, SumRequest, client, echo, node,
    },
};

const SAY: (&str, &str) = ("grpc.method", "echo.v1.Echo/Say");
const ATTEMPT: &str = "grpc.client.attempt.duration";
const CALL: &str = "grpc.client.call.duration";
const SENT: &str = "grpc.client.attempt.sent_total_compressed_message_size";
const RECEIVED: &str = "grpc.client.attempt.rcvd_total_compressed_message_size";

fn status(code: &str) -> [(&str, &str); 2] {
    [SAY, ("grpc.status", code)]
}

fn request() -> SayRequest {
    SayRequest { payload: vec![7; 100] }
}

fn told(target: &str) -> Collected {
    Collected::with("grpc.target", target)
}

#[tokio::test]
async fn a_call_and_its_attempt_are_told() {
    Collected::now();
    let (_node, _, echo) = echo("told").await;
    for _ in 0..3 {
        echo.say(request()).await.unwrap();
    }
    let now = told("told");
    assert_eq!(now.get("grpc.client.attempt.started", &[SAY]), Some(3.0));
    for (name, sum) in [(SENT, 306.0), (RECEIVED, 306.0)] {
        assert_eq!(now.get(name, &status("OK")), Some(sum), "{name}: without gRPC's prefix");
    }
    for name in [ATTEMPT, CALL] {
        assert_eq!(now.count(name, &status("OK")), 3, "{name}");
        let took = now.get(name, &status("OK")).unwrap();
        assert!(took > 0.0 && took < 15.0, "{name}: {took} s");
    }
    let pick = |outcome| now.get("micro.client.picks", &[("micro.pick.outcome", outcome)]);
    assert_eq!(pick("at_once").unwrap_or(0.0) + pick("waited").unwrap_or(0.0), 3.0);
    for absent in ["retries", "transparent_retries", "hedges", "retry_delay"] {
        assert_eq!(now.get(&format!("grpc.client.call.{absent}"), &[]), None);
    }
}

#[tokio::test]
async fn a_call_that_is_tried_again_has_its_attempts_told_by_their_status() {
    Collected::now();
    let (_node, answers, echo) = echo("again").await;
    answers.next([Code::Unavailable; 2]);
    echo.say(request()).idempotent().await.unwrap();
    let now = told("again");
    assert_eq!(now.get("grpc.client.attempt.started", &[SAY]), Some(3.0));
    assert_eq!(now.count(ATTEMPT, &status("UNAVAILABLE")), 2);
    assert_eq!(now.count(ATTEMPT, &status("OK")), 1);
    assert_eq!(now.count(CALL, &[]), 1, "with the status of the last");
    assert_eq!(now.get("grpc.client.call.retries", &[SAY]), Some(2.0));
    let delay = now.get("grpc.client.call.retry_delay", &[SAY]).unwrap();
    // 10 ms, less a fifth.
    assert!(delay >= 0.008, "{delay} s: the same node is not asked at once");
}

#[tokio::test]
async fn a_call_that_its_caller_drops_is_cancelled() {
    Collected::now();
    let (_node, answers, echo) = echo("dropped").await;
    echo.say(request()).await.unwrap();
    answers.next([Code::Ok]);
    let call = echo.say(request()).into_future();
    tokio::time::timeout(Duration::from_millis(50), call).await.unwrap_err();
    let now = told("dropped");
    for name in [ATTEMPT, CALL] {
        assert_eq!(now.count(name, &status("CANCELLED")), 1, "{name}");
    }
}

#[tokio::test]
async fn a_call_without_a_node_has_an_attempt_that_failed() {
    Collected::now();
    let client = client("nobody").build().unwrap();
    let call = EchoClient::new("nobody", &client).say(request()).fail_fast();
    call.await.unwrap_err();
    let now = told("nobody");
    for name in [ATTEMPT, CALL] {
        assert_eq!(now.count(name, &status("UNAVAILABLE")), 1, "{name}");
    }
    assert_eq!(now.get("micro.client.picks", &[("micro.pick.outcome", "failed")]), Some(1.0));
}

#[tokio::test]
async fn streams_are_told_with_all_their_messages() {
    Collected::now();
    let (_node, answers, echo) = echo("streams").await;
    let mut numbers = echo.count(CountRequest { upto: 100 }).await.unwrap().into_inner();
    while numbers.next().await.is_some() {}
    let summands = stream::iter((1..=10).map(|add| SumRequest { add }));
    echo.sum(summands).await.unwrap();
    answers.next([Code::NotFound]);
    echo.count(CountRequest { upto: 1 }).await.unwrap_err();
    let mut numbers = echo.count(CountRequest { upto: 1_000_000 }).await.unwrap().into_inner();
    numbers.next().await.unwrap().unwrap();
    drop(numbers);

    let now = told("streams");
    let count = |code| [("grpc.method", "echo.v1.Echo/Count"), ("grpc.status", code)];
    let sum = [("grpc.method", "echo.v1.Echo/Sum"), ("grpc.status", "OK")];
    for name in [ATTEMPT, CALL] {
        for attributes in [count("OK"), count("NOT_FOUND"), count("CANCELLED"), sum] {
            assert_eq!(now.count(name, &attributes), 1, "{name} of {attributes:?}");
        }
    }
    assert_eq!(now.get(RECEIVED, &count("OK")), Some(200.0), "two bytes each");
    assert_eq!(now.get(SENT, &count("OK")), Some(2.0));
    assert_eq!((now.get(SENT, &sum), now.get(RECEIVED, &sum)), (Some(20.0), Some(2.0)));
}

#[tokio::test]
async fn a_path_that_nobody_generated_is_other() {
    Collected::now();
    let (_node, _, _echo) = echo("generic").await;
    let client = client("generic").build().unwrap();
    let mut grpc = tonic::client::Grpc::new(client.channel("generic"));
    for path in ["/echo.v1.Echo/Say", "/echo.v1.Echo/Guessed"] {
        let codec = ProstCodec::<SayRequest, SayReply>::default();
        let _ = grpc.unary(tonic::Request::new(request()), path.parse().unwrap(), codec).await;
    }
    let mut request = tonic::Request::new(request());
    request.extensions_mut().insert(tonic::GrpcMethod::new("echo.v1.Echo", "Say"));
    let codec = ProstCodec::<SayRequest, SayReply>::default();
    grpc.unary(request, "/echo.v1.Echo/Say".parse().unwrap(), codec).await.unwrap();
    let now = told("generic");
    let of = |method, code| [("grpc.method", method), ("grpc.status", code)];
    assert_eq!(now.count(CALL, &of("other", "OK")), 1);
    assert_eq!(now.count(CALL, &of("other", "UNIMPLEMENTED")), 1);
    assert_eq!(now.count(CALL, &of("echo.v1.Echo/Say", "OK")), 1, "tonic's generated stubs say it");
}

#[tokio::test]
async fn an_attempt_that_is_overtaken_is_cancelled_and_the_hedge_is_told() {
    Collected::now();
    let (_node, answers, echo) = echo("hedged").await;
    echo.say(request()).await.unwrap();
    answers.next([Code::Ok]);
    echo.say(request()).hedge(Hedge::after(Duration::from_millis(20))).await.unwrap();
    let now = told("hedged");
    assert_eq!(now.get("grpc.client.call.hedges", &[SAY]), Some(1.0));
    assert_eq!(now.count(ATTEMPT, &status("CANCELLED")), 1);
    assert_eq!(now.count(CALL, &status("OK")), 2);
    assert_eq!(now.get("grpc.client.call.retry_delay", &[SAY]), None, "one was under way");
}

/// Refuses the first stream, so that no handler sees it, and hangs up on the next.
pub(crate) async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut is_first = true;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if std::mem::take(&mut is_first) {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            let answer = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "12");
            respond.send_response(answer.body(()).unwrap(), true).unwrap();
        }
    });
    address
}

#[tokio::test]
async fn an_attempt_that_no_handler_has_seen_is_followed_by_a_transparent_retry() {
    Collected::now();
    let registry = format!("static://refused={}", refusing().await);
    let client = micro::Client::builder().without_env().registry(registry).build().unwrap();
    let call = EchoClient::new("refused", &client).say(request());
    assert_eq!(call.await.unwrap_err().code(), Code::Unimplemented);
    let now = told("refused");
    assert_eq!(now.get("grpc.client.call.transparent_retries", &[SAY]), Some(1.0));
    assert_eq!(now.get("grpc.client.call.retries", &[SAY]), None);
    assert_eq!(now.count(ATTEMPT, &status("UNAVAILABLE")), 1);
}

#[tokio::test]
async fn a_streams_further_attempts_are_told_by_what_they_are() {
    Collected::now();
    let (_node, answers, echo) = echo("again-stream").await;
    answers.next([Code::Unavailable]);
    let count = CountRequest { upto: 1 };
    echo.count(count).idempotent().await.unwrap();
    let registry = format!("static://refused-stream={}", refusing().await);
    let client = micro::Client::builder().without_env().registry(registry).build().unwrap();
    let call = EchoClient::new("refused-stream", &client).count(count);
    assert_eq!(call.await.unwrap_err().code(), Code::Unimplemented);
    for (service, retries, transparent) in
        [("again-stream", Some(1.0), None), ("refused-stream", None, Some(1.0))]
    {
        let (now, count) = (told(service), [("grpc.method", "echo.v1.Echo/Count")]);
        assert_eq!(now.get("grpc.client.call.retries", &count), retries, "{service}");
        let told = now.get("grpc.client.call.transparent_retries", &count);
        assert_eq!(told, transparent, "{service}");
    }
}

#[tokio::test]
async fn nodes_and_ejections_are_told() {
    Collected::now();
    let answers = Answers::default();
    let _nodes = [node("ejected", &answers).await, node("ejected", &answers).await];
    let client = client("ejected").build().unwrap();
    let echo = EchoClient::new("ejected", &client);
    let nodes = |state| told("ejected").get("micro.client.nodes", &[("micro.node.state", state)]);
    while nodes("ready") != Some(2.0) {
        echo.say(request()).await.unwrap();
    }
    assert_eq!((nodes("listed"), nodes("ejected")), (Some(2.0), Some(0.0)));
    // Of one node alone: the other's calls are well.
    let served = || async {
        let reply = echo.say(request()).await.unwrap();
        reply.extensions().get::<Served>().unwrap().node.id.clone()
    };
    let victim = served().await;
    let mut other = served().await;
    while other == victim {
        other = served().await;
    }
    // Enough to say that it is not chance.
    for _ in 0..100 {
        echo.say(request()).node(&*other).await.unwrap();
    }
    answers.next([Code::Unavailable; 5]);
    for _ in 0..5 {
        let _ = echo.say(request()).node(&*victim).await;
    }
    tokio::time::timeout(Duration::from_secs(5), async {
        while nodes("ejected") != Some(1.0) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("five failures in a row eject it");
    assert_eq!((nodes("listed"), nodes("ready")), (Some(2.0), Some(1.0)));
    let method = ("grpc.lb.outlier_detection.detection_method", "failures");
    let ejections = told("ejected").get("grpc.lb.outlier_detection.ejections_enforced", &[method]);
    assert_eq!(ejections, Some(1.0));
}

#[tokio::test]
async fn a_retry_that_the_budget_refuses_is_told() {
    Collected::now();
    let answers = Answers::default();
    let _node = node("throttled", &answers).await;
    let config: ServiceConfig =
        r#"{"retryThrottling": {"maxTokens": 1, "tokenRatio": 0.1}}"#.parse().unwrap();
    let client =
        client("throttled").for_all(ChannelOptions::new().service_config(config)).build().unwrap();
    answers.next([Code::Unavailable]);
    let call = EchoClient::new("throttled", &client).say(request()).idempotent();
    call.await.unwrap_err();
    let now = told("throttled");
    assert_eq!(now.get("micro.client.refused_retries", &[SAY]), Some(1.0));
    assert_eq!(now.get("grpc.client.attempt.started", &[SAY]), Some(1.0));
}
