//! `kubernetes://` on a real API server: EndpointSlices, written in the sequence that the endpoint
//! controller has, and real nodes behind them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use micro::{
    Client, Request, Response, Service, Status, Stream, Streaming,
    discovery::Update,
    registry::{self, Registry},
    testing::registry::Watching,
};
use serde_json::json;
use tests::{
    kubernetes::{Kubernetes, Namespace, Shared, Slice, Stage, endpoint},
    namespace::{Network, inside},
    proto::echo::{
        ChatMessage, CountReply, CountRequest, EchoClient, EchoHandler, SayReply, SayRequest,
        SumReply, SumRequest, register_echo_handler,
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

const SOON: Duration = Duration::from_secs(10);

fn at(namespace: &Namespace, more: &str) -> Arc<dyn Registry> {
    let (head, tail) = more.split_once('?').unwrap_or((more, ""));
    let url = namespace.url().replacen('?', &format!("{head}?{tail}&"), 1);
    registry::open(&url.replace("?&", "?")).expect("the URL is well-formed")
}

async fn addresses(registry: &Arc<dyn Registry>, service: &str) -> Vec<String> {
    let listing = registry.read(service).await.unwrap_or_else(|error| panic!("{error:?}"));
    let mut addresses: Vec<_> =
        listing.entries.iter().map(|entry| entry.node.address.clone()).collect();
    addresses.sort();
    addresses
}

#[tokio::test]
async fn a_watch_sees_a_pod_come_and_go_as_the_controller_writes_it() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let registry = at(&namespace, "");
    let write = async |endpoints: &[(&str, Stage)]| {
        let endpoint = |(pod, stage): &(&str, Stage)| {
            endpoint(pod, &format!("10.1.0.{}", pod.len() + 3), *stage)
        };
        let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
        namespace.put_slice("greeter", "greeter-x", &Slice::of(&endpoints)).await;
    };
    use Stage::{Draining, NotReady, Ready, Terminating};
    write(&[("a", Ready)]).await;
    let mut watching = Watching::from_now(&registry, "greeter").await;
    // A rollout: the new one comes, is ready, the old one leaves.
    write(&[("a", Ready), ("bb", NotReady)]).await;
    write(&[("a", Ready), ("bb", Ready)]).await;
    assert_eq!(watching.events(1).await, ["+bb@10.1.0.5:9000"]);
    write(&[("a", Terminating), ("bb", Ready)]).await;
    assert_eq!(watching.events(1).await, ["-a"]);
    write(&[("a", Draining), ("bb", Ready)]).await;
    write(&[("bb", Ready)]).await;
    // The last one leaves: called as long as it answers and there is no other.
    write(&[("bb", Terminating)]).await;
    write(&[("bb", Draining)]).await;
    assert_eq!(watching.events(1).await, ["-bb"]);
    write(&[("ccc", Ready)]).await;
    assert_eq!(watching.events(1).await, ["+ccc@10.1.0.6:9000"]);
    namespace.delete_slice("greeter-x").await;
    assert_eq!(watching.events(1).await, ["-ccc"]);
}

#[tokio::test]
async fn several_slices_are_one_list_of_each_address_once_in_every_family() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let registry = at(&namespace, "");
    let ready = |pod, address| endpoint(pod, address, Stage::Ready);
    let one = Slice::of(&[ready("a", "10.1.0.4"), ready("b", "10.1.0.5")]);
    let two = Slice::of(&[ready("b", "10.1.0.5"), ready("c", "10.1.0.6")]);
    let six =
        Slice { family: "IPv6", ..Slice::of(&[ready("c", "fd00:1::6"), ready("d", "fd00:1::7")]) };
    let named = json!({ "addresses": ["db.example.com"] });
    let named = Slice { family: "FQDN", ..Slice::of(&[named]) };
    for (name, slice) in [("s-1", &one), ("s-2", &two), ("s-6", &six), ("s-n", &named)] {
        namespace.put_slice("greeter", name, slice).await;
    }
    namespace.put_slice("other", "other-1", &one).await;
    assert_eq!(
        addresses(&registry, "greeter").await,
        [
            "10.1.0.4:9000",
            "10.1.0.5:9000",
            "10.1.0.6:9000",
            "[fd00:1::7]:9000",
            "db.example.com:9000"
        ]
    );
    assert_eq!(registry.list().await.unwrap(), ["greeter", "other"]);

    let mut watching = Watching::from_now(&registry, "greeter").await;
    namespace.put_slice("greeter", "s-1", &Slice::of(&[ready("a", "10.1.0.4")])).await;
    namespace.delete_slice("s-2").await;
    let mut events = watching.events(2).await;
    events.sort();
    assert_eq!(events, ["+c@[fd00:1::6]:9000", "-b"], "the other slice still has c");
    assert_eq!(addresses(&registry, "other").await.len(), 2);
}

#[tokio::test]
async fn more_slices_than_a_page_are_read_all_of_one_version() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let registry = at(&namespace, "");
    let mut writes = JoinSet::new();
    for n in 0..45 {
        let namespace = namespace.clone();
        writes.spawn(async move {
            let pod = |m: usize| format!("many-{n}-{m}");
            let endpoints: Vec<_> = (0..20)
                .map(|m| endpoint(&pod(m), &format!("10.1.{n}.{}", m + 1), Stage::Ready))
                .collect();
            namespace.put_slice("many", &format!("many-{n}"), &Slice::of(&endpoints)).await;
        });
    }
    writes.join_all().await;
    let listing = registry.read("many").await.unwrap();
    assert_eq!(listing.entries.len(), 900);
    let mut watching = Watching::after(&registry, "many", &listing);
    namespace.delete_slice("many-7").await;
    assert_eq!(watching.events(20).await.len(), 20);
}

#[tokio::test]
async fn a_port_is_called_by_name_or_number_and_the_url_may_name_service_and_port() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let endpoints = [endpoint("a", "10.1.0.4", Stage::Ready)];
    let ports = json!([
        { "name": "http", "port": 8080 },
        { "name": "rpc", "port": 9000, "appProtocol": "kubernetes.io/h2c" },
        { "name": "metrics", "port": 9100 },
    ]);
    let slice = Slice { ports, ..Slice::of(&endpoints) };
    namespace.put_slice("greeter", "greeter-1", &slice).await;
    let registry = at(&namespace, "");
    for (called, address) in [
        ("greeter", "10.1.0.4:9000"),
        ("greeter:http", "10.1.0.4:8080"),
        ("greeter:9100", "10.1.0.4:9100"),
    ] {
        assert_eq!(addresses(&registry, called).await, [address], "{called}");
    }
    let listing = registry.read("greeter:80").await.unwrap();
    assert!(listing.entries.is_empty());
    let reason = &listing.malformed[0].reason;
    assert!(reason.contains("no port 80") && reason.contains("http=8080"), "{reason}");

    // As go-zero has it.
    let target = at(&namespace, "/greeter:9100");
    let name = format!("kubernetes://{}/greeter:9100?kubeconfig=", namespace.name);
    assert!(target.name().starts_with(&name), "{}", target.name());
    assert_eq!(addresses(&target, "greeter").await, ["10.1.0.4:9100"]);
    assert_eq!(addresses(&target, "greeter:http").await, ["10.1.0.4:8080"]);
    assert_eq!(target.list().await.unwrap(), ["greeter"]);
    let error = target.read("other").await.unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("names the Service greeter"),
        "{error}"
    );
    for (called, said) in [("Echo.v1", "Service can have"), ("a:b:c", "is no port")] {
        let error = registry.read(called).await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains(said), "{error}");
    }
}

/// A node that holds the calls it is given until it is told to answer.
struct Node {
    id: &'static str,
    /// Calls and streams begun.
    begun: Arc<AtomicUsize>,
    go: watch::Receiver<bool>,
}

impl EchoHandler for Node {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let payload = request.into_inner().payload;
        if payload == b"slow" {
            let mut go = self.go.clone();
            let go = go.wait_for(|go| *go).await;
            go.map_err(|_| Status::internal("the test has ended"))?;
        }
        Ok(Response::new(SayReply { payload, node: self.id.to_owned() }))
    }

    async fn count(
        &self,
        _: Request<CountRequest>,
    ) -> Result<Response<impl Stream<Item = Result<CountReply, Status>> + Send + 'static>, Status>
    {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn sum(&self, _: Request<Streaming<SumRequest>>) -> Result<Response<SumReply>, Status> {
        Ok(Response::new(SumReply::default()))
    }

    async fn chat(
        &self,
        request: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<impl Stream<Item = Result<ChatMessage, Status>> + Send + 'static>, Status>
    {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let id = self.id;
        let said = request.into_inner().map(move |message| {
            message.map(|message| ChatMessage { text: format!("{id}: {}", message.text) })
        });
        Ok(Response::new(said))
    }
}

#[test]
fn a_terminating_node_takes_no_new_call_and_loses_none_under_way() {
    let name = "a_terminating_node_takes_no_new_call_and_loses_none_under_way";
    inside(name, Network::Pods, async {
        let server = Kubernetes::start().await;
        let namespace = Namespace::create(&server.kubeconfig(), "shop").await;
        let (go, is_told) = watch::channel(false);
        let nodes = [("a", "10.1.0.4"), ("b", "10.1.0.5"), ("c", "[fd00:1::1]")];
        let begun = nodes.map(|_| Arc::<AtomicUsize>::default());
        let mut running = Vec::new();
        for ((id, host), begun) in nodes.into_iter().zip(&begun) {
            let address = format!("{host}:9000");
            let builder = Service::builder("greeter").id(id).address(&address);
            let builder = builder.registry(format!("static://greeter={address}"));
            let mut service = builder.build().await.unwrap();
            let node = Node { id, begun: begun.clone(), go: is_told.clone() };
            register_echo_handler(service.server(), node);
            running.push(service.start().await.expect("it serves"));
        }
        let six = endpoint("c", "fd00:1::1", Stage::Ready);
        let six = Slice { family: "IPv6", ..Slice::of(&[six]) };
        namespace.put_slice("greeter", "greeter-6", &six).await;
        let write = async |endpoints: &[(&str, &str, Stage)]| {
            let endpoints: Vec<_> =
                endpoints.iter().map(|(pod, host, stage)| endpoint(pod, host, *stage)).collect();
            namespace.put_slice("greeter", "greeter-4", &Slice::of(&endpoints)).await;
        };
        let (a, b) = (("a", "10.1.0.4"), ("b", "10.1.0.5"));
        let with = |(pod, host): (&'static str, &'static str), stage| (pod, host, stage);
        write(&[with(a, Stage::Ready), with(b, Stage::Ready)]).await;

        let client = Client::builder().registry(namespace.url()).build().unwrap();
        let mut updates = client.discovery().subscribe("greeter");
        let first = timeout(SOON, updates.next()).await.expect("soon");
        assert!(matches!(first, Some(Update::Reset(nodes)) if nodes.len() == 3));
        let echo = EchoClient::new("greeter", &client);
        let say = async |payload: &str| {
            let request = SayRequest { payload: payload.to_owned().into() };
            echo.say(request).timeout(SOON).await.map(|reply| reply.into_inner().node)
        };
        let mut seen = BTreeSet::new();
        while seen.len() < 3 {
            seen.insert(say("quick").await.expect("every node answers"));
        }

        // Under way everywhere: calls that wait, and streams both ways.
        let mut waiting = JoinSet::new();
        let before = begun.each_ref().map(|begun| begun.load(Ordering::SeqCst));
        let on = |node: usize| begun[node].load(Ordering::SeqCst);
        while (0..3).any(|node| on(node) < before[node] + 2) {
            let echo = echo.clone();
            waiting.spawn(async move {
                let request = SayRequest { payload: "slow".to_owned().into() };
                echo.say(request).timeout(Duration::from_secs(60)).await
            });
            let count = waiting.len();
            while begun.iter().map(|it| it.load(Ordering::SeqCst)).sum::<usize>()
                < before.iter().sum::<usize>() + count
            {
                tokio::task::yield_now().await;
            }
        }
        let mut streams = Vec::new();
        let mut with_stream = BTreeSet::new();
        while with_stream.len() < 3 {
            let (sender, messages) = mpsc::channel::<ChatMessage>(4);
            sender.send(ChatMessage { text: "hello".to_owned() }).await.unwrap();
            let chat = echo.chat(ReceiverStream::new(messages)).await.expect("a stream");
            let mut replies = chat.into_inner();
            let reply = timeout(SOON, replies.message()).await.expect("soon").unwrap().unwrap();
            let node = reply.text.split_once(':').unwrap().0.to_owned();
            with_stream.insert(node.clone());
            streams.push((node, sender, replies));
        }

        // The pod is told to end, and its probe passes for a while.
        write(&[with(a, Stage::Terminating), with(b, Stage::Ready)]).await;
        let next = timeout(SOON, updates.next()).await.expect("soon");
        assert!(matches!(&next, Some(Update::Remove(id)) if &**id == "a"), "{next:?}");
        // The channel hears it in the same moment, in a task of its own.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let calls_at_a = on(0);
        for _ in 0..300 {
            assert_ne!(say("quick").await.expect("no call fails"), "a");
        }
        assert_eq!(on(0), calls_at_a, "no new call");

        write(&[with(a, Stage::Draining), with(b, Stage::Ready)]).await;
        write(&[with(b, Stage::Ready)]).await;
        for (node, sender, replies) in &mut streams {
            sender.send(ChatMessage { text: "still here".to_owned() }).await.unwrap();
            let reply = timeout(SOON, replies.message()).await.expect("soon").unwrap();
            assert_eq!(reply.unwrap().text, format!("{node}: still here"));
        }
        let count = waiting.len();
        go.send(true).unwrap();
        let mut answered = Vec::new();
        while let Some(reply) = waiting.join_next().await {
            answered.push(reply.unwrap().expect("a call under way ends well").into_inner().node);
        }
        assert_eq!(answered.len(), count);
        assert!(answered.iter().filter(|node| *node == "a").count() >= 2, "{answered:?}");
        for (_, sender, mut replies) in streams {
            drop(sender);
            let end = timeout(SOON, replies.message()).await.expect("soon");
            assert!(matches!(end, Ok(None)), "a stream under way ends well: {end:?}");
        }
        for _ in 0..100 {
            assert_ne!(say("quick").await.expect("no call fails"), "a");
        }
    });
}
