//! Calls of which two attempts are under way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::uri::PathAndQuery;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt as _;
use tonic::{Code, IntoRequest as _, Streaming};
use tonic_prost::ProstCodec;

use crate::{
    ChannelOptions, Client,
    client::{Hedge, RetryPolicy, Served},
    fixture::{ECHO, Echo, Stub, Word, client, start},
    service::Handle,
};

const DELAY: Duration = Duration::from_millis(100);

/// Two nodes of one service, and their counts of handlers that run and of calls.
struct Pair {
    stub: Stub,
    running: Arc<AtomicU32>,
    calls: Arc<AtomicU32>,
    _nodes: [Handle; 2],
}

impl Pair {
    async fn start(registry: &str) -> Self {
        Self::of_client(registry, &client(registry)).await
    }

    async fn of_client(registry: &str, client: &Client) -> Self {
        let (running, calls) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let node = |name: &'static str| {
            let echo = Echo { running: running.clone(), calls: calls.clone(), ..Echo::named(name) };
            start(registry, "pair", echo)
        };
        let nodes = [node("a").await, node("b").await];
        let stub = Stub::new("pair", client);
        let (mut a, mut b) = (false, false);
        while !(a && b) {
            let name = stub.say(Word::new("who?")).await.expect("a reply").into_inner().text;
            (a, b) = (a || name == "a", b || name == "b");
        }
        calls.store(0, Ordering::SeqCst);
        Self { stub, running, calls, _nodes: nodes }
    }

    async fn none_runs(&self) {
        while self.running.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn calls(&self) -> u32 {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_goes_to_the_other_node_and_the_first_is_reset() {
    let pair = Pair::start("memory://hedged-reset").await;
    let mut hedged = 0;
    // Each is picked first some time; that a sleeps is soon known too.
    while hedged == 0 {
        let start = Instant::now();
        let call = pair.stub.say(Word::new("sleep a")).hedge(Hedge::after(DELAY));
        assert_eq!(call.await.expect("b answers").into_inner().text, "b");
        let took = start.elapsed();
        assert!(took < 2 * DELAY, "{took:?}");
        let calls = pair.calls();
        assert_eq!(calls, if took < DELAY { 1 } else { 2 });
        hedged += calls - 1;
        // The handler that sleeps is dropped.
        pair.none_runs().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_answered_in_time_is_made_once() {
    let pair = Pair::start("memory://hedged-once").await;
    for _ in 0..50 {
        let call = pair.stub.say(Word::new("who?")).hedge(Hedge::after(DELAY));
        call.await.expect("a reply");
    }
    assert_eq!(pair.calls(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pause_before_an_attempt() {
    let registry = "memory://hedged-pause";
    let _node = start(registry, "a", Echo::default()).await;
    let stub = Stub::new("a", &client(registry));
    stub.say(Word::new("who?")).await.expect("connected");
    let (start, timeout) = (Instant::now(), Duration::from_millis(15));
    let call = stub.read(Word::new("closed")).hedge(Hedge::after(DELAY)).timeout(timeout);
    call.await.expect_err("closed for ever");
    // The first pause is of 10 ms, the second of 20.
    assert!(start.elapsed() < Duration::from_millis(17), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_both_attempts() {
    let pair = Pair::start("memory://hedged-deadline").await;
    let start = Instant::now();
    let call = pair.stub.say(Word::new("sleep")).hedge(Hedge::after(DELAY)).timeout(3 * DELAY);
    let status = call.await.expect_err("both sleep");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("no answer from node"), "{status}");
    assert_eq!(start.elapsed().as_millis() / 10, DELAY.as_millis() * 3 / 10);
    assert_eq!(pair.calls(), 2);
    pair.none_runs().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_as_without_hedging() {
    let pair = Pair::start("memory://hedged-failure").await;
    let hedge = Hedge::after(Duration::from_secs(1));
    let reply = pair.stub.say(Word::new("attempts")).hedge(hedge).await;
    assert_eq!(reply.expect("a retry").into_inner().text, "1");
    assert_eq!(pair.calls(), 2);
    let status = pair.stub.say(Word::new("missing")).hedge(hedge).await.expect_err("for good");
    assert_eq!((status.code(), pair.calls()), (Code::NotFound, 1));
    let policy = RetryPolicy::on([Code::NotFound]).max_attempts(3);
    let call = pair.stub.say(Word::new("missing")).hedge(hedge).retry(policy);
    assert_eq!(call.await.expect_err("for good").code(), Code::NotFound);
    assert_eq!(pair.calls(), 3);
    pair.stub.say(Word::new("closed")).hedge(hedge).await.expect_err("for good");
    assert_eq!(pair.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn at_p95_a_call_is_hedged_once_the_methods_latency_is_known() {
    let pair = Pair::start("memory://hedged-p95").await;
    let call = |text: &str| pair.stub.say(Word::new(text)).hedge(Hedge::at_p95());
    let cold = || call("sleep b").timeout(10 * DELAY); // answered where a is asked first
    let lone = loop {
        pair.calls();
        if let Err(status) = cold().await {
            break status;
        }
    };
    assert_eq!((lone.code(), pair.calls()), (Code::DeadlineExceeded, 1), "nothing is known yet");
    for _ in 0..200 {
        call("who?").await.expect("a reply");
    }
    pair.calls();
    // The cold one is long forgotten.
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(call("sleep a").await.expect("b answers").into_inner().text, "b");
        assert!(start.elapsed() < DELAY / 10, "{:?}", start.elapsed());
    }
    assert!(pair.calls() > 20, "a is called first some time");
    pair.none_runs().await;
}

#[tokio::test(start_paused = true)]
async fn at_p95_what_callers_give_up_early_says_nothing_of_a_new_method() {
    let pair = Pair::start("memory://hedged-p95-given-up").await;
    let call = || pair.stub.say(Word::new("sleep")).hedge(Hedge::at_p95());
    for _ in 0..30 {
        timeout(DELAY / 100, call()).await.expect_err("it is given up");
    }
    for nth in 1..=20 {
        pair.calls();
        call().timeout(DELAY).await.expect_err("it sleeps");
        assert_eq!(pair.calls(), 1, "nothing is known before the {nth}th has run out of time");
    }
    call().timeout(2 * DELAY).await.expect_err("it sleeps");
    assert_eq!(pair.calls(), 2, "such calls take longer than that");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_calls_are_all_overtaken_is_known_to_be_slow() {
    let pair = Pair::start("memory://hedged-slow").await;
    for _ in 0..200 {
        pair.stub.say(Word::new("sleep a")).hedge(Hedge::after(DELAY)).await.expect("b answers");
    }
    let twice = pair.calls() - 200;
    assert!(twice < 20, "{twice} of 200 went to the slow node first");
}

#[tokio::test(start_paused = true)]
async fn the_hedging_policy_of_a_config_holds_for_its_methods() {
    let registry = "memory://hedged-config";
    let config = json!({ "methodConfig": [{
        "name": [{ "service": "test.Echo" }],
        "hedgingPolicy": {
            "maxAttempts": 3,
            "hedgingDelay": "0.1s",
            "nonFatalStatusCodes": ["UNAVAILABLE"]
        }
    }]});
    let config = config.to_string().parse().expect("a config");
    let options = ChannelOptions::new().service_config(config);
    let client = Client::builder().registry(registry).for_all(options).build().expect("a client");
    let pair = Pair::of_client(registry, &client).await;
    let call = pair.stub.say(Word::new("sleep")).timeout(10 * DELAY);
    assert_eq!(call.await.expect_err("all sleep").code(), Code::DeadlineExceeded);
    assert_eq!(pair.calls(), 3);
    pair.none_runs().await;
    pair.stub.say(Word::new("closed")).await.expect_err("for good");
    assert_eq!(pair.calls(), 3);
    pair.stub.say(Word::new("missing")).await.expect_err("fatal");
    assert_eq!(pair.calls(), 1);
    pair.stub.down(Word::new("words")).await.expect("a stream");
    pair.stub.follow(Word::new("closed")).await.expect_err("for good");
    assert_eq!(pair.calls(), 3);
    let call = pair.stub.follow(Word::new("sleep")).timeout(10 * DELAY);
    assert_eq!(call.await.expect_err("all sleep").code(), Code::DeadlineExceeded);
    assert_eq!(pair.calls(), 3, "with one message it is hedged");
    pair.none_runs().await;
    let there = |text| tokio_stream::iter([Word::new(text)]);
    let yet_to_come = |text| {
        futures_util::stream::once(async move {
            tokio::task::yield_now().await;
            Word::new(text)
        })
    };
    let call = pair.stub.collect(there("sleep")).timeout(10 * DELAY);
    assert_eq!(call.await.expect_err("all sleep").code(), Code::DeadlineExceeded);
    assert_eq!(pair.calls(), 3, "with a stream of them, too, if they are there");
    pair.none_runs().await;
    let call = pair.stub.collect(yet_to_come("sleep")).timeout(10 * DELAY);
    assert_eq!(call.await.expect_err("it sleeps").code(), Code::DeadlineExceeded);
    assert_eq!(pair.calls(), 1, "if they are not it is not");
    pair.stub.collect(yet_to_come("closed")).await.expect_err("for good");
    assert_eq!(pair.calls(), 3, "but made again after failures");
    let mut tonics = tonic::client::Grpc::new(client.channel("pair"));
    tonics.ready().await.expect("always ready");
    let mut request = Word::new("sleep").into_request();
    request.set_timeout(10 * DELAY);
    let path = PathAndQuery::from_static(ECHO.methods[0].path);
    let call = tonics.unary(request, path, ProstCodec::<Word, Word>::default());
    assert_eq!(call.await.expect_err("all sleep").code(), Code::DeadlineExceeded);
    assert_eq!(pair.calls(), 3, "and so is a call of tonic's stub");
    pair.none_runs().await;
}

#[tokio::test(start_paused = true)]
async fn at_p95_an_answer_counts_whatever_its_status() {
    let pair = Pair::start("memory://hedged-p95-missing").await;
    let call = |text: &str| pair.stub.say(Word::new(text)).hedge(Hedge::at_p95());
    for _ in 0..40 {
        call("missing").await.expect_err("an answer all the same");
    }
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(call("sleep a").await.expect("b answers").into_inner().text, "b");
        assert!(start.elapsed() < DELAY / 10, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_is_one_call_to_what_pays_for_attempts() {
    let registry = "memory://hedged-budget";
    let _node = start(registry, "pair", Echo::named("a")).await;
    let client = client(registry);
    let (stub, channel) = (Stub::new("pair", &client), client.channel("pair"));
    let hedge = Hedge::after(DELAY);
    for _ in 0..10 {
        stub.say(Word::new("who?")).hedge(hedge).await.expect("a reply");
        words(stub.follow(Word::new("who?")).hedge(hedge).await.expect("a stream").into_inner())
            .await;
    }
    let left = channel.purse().left(Instant::now());
    assert!((left - 104.0).abs() < 0.5, "a fifth of 20 calls came in: {left}");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_counts_a_hedged_call_once() {
    let registry = "memory://hedged-throttle";
    let _node = start(registry, "pair", Echo::named("a")).await;
    let config = json!({ "retryThrottling": { "maxTokens": 100, "tokenRatio": 1 } });
    let options = ChannelOptions::new().service_config(config.to_string().parse().unwrap());
    let client = Client::builder().registry(registry).for_all(options).build().expect("a client");
    let (stub, channel) = (Stub::new("pair", &client), client.channel("pair"));
    let left = || channel.purse().left(Instant::now());
    let hedge = Hedge::after(DELAY);
    for _ in 0..4 {
        stub.read(Word::new("closed")).await.expect_err("for good");
    }
    let before = left();
    stub.say(Word::new("who?")).hedge(hedge).await.expect("a reply");
    assert_eq!(left() - before, 1.0);
    words(stub.follow(Word::new("who?")).hedge(hedge).await.expect("a stream").into_inner()).await;
    assert_eq!(left() - before, 2.0);
}

async fn words(stream: Streaming<Word>) -> Vec<String> {
    stream.map(|word| word.expect("a word").text).collect().await
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_responses_goes_to_the_other_node_until_it_begins_and_the_first_is_reset() {
    let pair = Pair::start("memory://hedged-stream").await;
    let mut hedged = 0;
    while hedged == 0 {
        let start = Instant::now();
        // It has no deadline.
        let call = pair.stub.follow(Word::new("sleep a")).hedge(Hedge::after(DELAY));
        let response = call.await.expect("b answers");
        let took = start.elapsed();
        let served = response.extensions().get::<Served>().expect("who answered").attempts;
        assert_eq!(words(response.into_inner()).await, ["b", "b b"]);
        assert!(took < 2 * DELAY, "{took:?}");
        let calls = pair.calls();
        assert_eq!(calls, if took < DELAY { 1 } else { 2 });
        assert_eq!(served, calls);
        hedged += calls - 1;
        pair.none_runs().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedged_streams_deadline_and_failures_are_those_of_a_call() {
    let pair = Pair::start("memory://hedged-stream-ends").await;
    let hedge = Hedge::after(DELAY);
    let start = Instant::now();
    let call = pair.stub.follow(Word::new("sleep")).hedge(hedge).timeout(3 * DELAY);
    let status = call.await.expect_err("both sleep");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(start.elapsed().as_millis() / 10, DELAY.as_millis() * 3 / 10);
    assert_eq!(pair.calls(), 2);
    pair.none_runs().await;
    let status = pair.stub.follow(Word::new("missing")).hedge(hedge).await.expect_err("for good");
    assert_eq!((status.code(), pair.calls()), (Code::NotFound, 1));
    let status = pair.stub.follow(Word::new("closed")).hedge(hedge).await.expect_err("for good");
    assert_eq!((status.code(), pair.calls()), (Code::Unavailable, 5));
    assert_eq!(status.metadata().get("attempt").expect("metadata"), "5");
}

#[tokio::test(start_paused = true)]
async fn at_p95_a_stream_is_hedged_once_it_is_known_when_it_begins() {
    let pair = Pair::start("memory://hedged-stream-p95").await;
    let call = |text: &str| pair.stub.follow(Word::new(text)).hedge(Hedge::at_p95());
    let cold = || call("sleep b").timeout(10 * DELAY); // answered where a is asked first
    let lone = loop {
        pair.calls();
        if let Err(status) = cold().await {
            break status;
        }
    };
    assert_eq!((lone.code(), pair.calls()), (Code::DeadlineExceeded, 1), "nothing is known yet");
    for _ in 0..200 {
        call("who?").await.expect("it begins");
    }
    pair.calls();
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(words(call("sleep a").await.expect("b's").into_inner()).await, ["b", "b b"]);
        assert!(start.elapsed() < DELAY / 10, "{:?}", start.elapsed());
    }
    assert!(pair.calls() > 20, "a is called first some time");
    pair.none_runs().await;
}
