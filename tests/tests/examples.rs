//! Each example is run as its reader would, and what it prints is checked.

use std::{
    collections::BTreeSet,
    process::{Output, Stdio},
    sync::Once,
    time::Duration,
};

use tests::{
    etcd::Etcd,
    programs::{build_examples, program},
};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

fn example(name: &str) -> Command {
    static BUILD: Once = Once::new();
    BUILD.call_once(build_examples);
    let mut command = Command::new(program(name));
    command.env_remove("MICRO_REGISTRY").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(mut command: Command, limit: Duration) -> Output {
    let output = timeout(limit, command.output()).await;
    output.expect("the example ends in time").expect("the example starts")
}

/// The standard output of an example that is to succeed.
async fn printed(command: Command) -> String {
    let output = output(command, Duration::from_secs(20)).await;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[tokio::test]
async fn quickstart_loses_no_call_and_calls_the_node_that_came_back() {
    let quickstart = example("quickstart");
    let begin = Instant::now();
    let out = printed(quickstart).await;
    assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());

    let lines = |text: &str| out.lines().filter(|line| line.contains(text)).collect::<Vec<_>>();
    let number = |text: &str| -> usize {
        let [line] = lines(text)[..] else { panic!("not one line with {text:?} in\n{out}") };
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let registered = |node: &str| lines(&format!("{node} registered at 127.0.0.1:")).len();
    assert_eq!(["node-1", "node-2", "node-3"].map(registered), [1, 2, 1], "{out}");
    assert_eq!(lines("node-2 killed").len(), 1, "{out}");
    assert_eq!(number("calls failed"), 0, "{out}");
    let served = ["node-1", "node-2", "node-3"].map(|node| number(&format!("served by {node}")));
    // Gone for two seconds of eleven: 27% of the calls, or 14% without the return.
    let calls: usize = served.iter().sum();
    assert!(served[1] * 100 >= calls * 18, "the node that came back had too little\n{out}");
}

#[tokio::test]
async fn streaming_makes_all_four_kinds_of_calls() {
    let out = printed(example("streaming")).await;
    let expected = "say:   one message each way\n\
                    count: 1 2 3 4 5\n\
                    sum:   10\n\
                    chat:  Snow? Go on.\n\
                    chat:  Rain? Go on.\n\
                    chat:  Sun? Go on.\n";
    assert_eq!(out, expected);
}

#[tokio::test]
async fn existing_tonic_service_answers_through_both() {
    assert_eq!(printed(example("existing-tonic-service")).await, "Hello, tonic! (tonic)\n");
}

#[tokio::test]
async fn deadlines_ends_both_handlers() {
    let out = printed(example("deadlines")).await;
    assert_eq!(out, "DeadlineExceeded after 0.3 s\nthe back's handler was dropped\n");
}

#[tokio::test]
async fn errors_tells_the_failures_apart() {
    let out = printed(example("errors")).await;
    let expected = [
        "InvalidArgument: the request is not complete",
        "  name is empty",
        "NotFound: there is nobody of that name",
        "Internal: the handler panicked; the server's log has it under id ",
        "Unavailable: no node of service 'greter' ",
    ];
    assert_eq!(out.lines().count(), expected.len(), "{out}");
    for (line, expected) in out.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line:?} is not {expected:?}");
    }
}

#[tokio::test]
async fn graceful_shutdown_answers_what_is_under_way() {
    let out = printed(example("graceful-shutdown")).await;
    let expected = "16 calls are under way: SIGTERM\nthe node has ended\n16 answered, 0 failed\n";
    assert_eq!(out, expected);
}

#[tokio::test]
async fn interceptors_pass_an_id_and_check_a_header() {
    let out = printed(example("interceptors")).await;
    let expected = "server: request-1 /greeter.v1.Greeter/Hello: Unauthenticated\n\
                    client: refused: /greeter.v1.Greeter/Hello needs authorization\n\
                    server: request-2 /greeter.v1.Greeter/Hello: Ok\n\
                    client: Hello, Ada! (request-2)\n";
    assert_eq!(out, expected);
}

#[tokio::test]
async fn greeter_client_finds_both_servers_in_etcd() {
    let etcd = Etcd::start().await;
    let greeter = |name| {
        let mut command = example(name);
        command.args(["--registry", &etcd.url()]);
        command
    };
    let servers: Vec<_> =
        (0..2).map(|_| greeter("greeter-server").stdout(Stdio::null()).spawn().unwrap()).collect();
    // The second server may register a moment after the client has found the first.
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let mut client = greeter("greeter-client");
        client.args(["--name", "etcd", "--calls", "20"]);
        let out = printed(client).await;
        let greetings = out.lines().filter(|line| line.starts_with("Hello, etcd! (greeter-"));
        assert_eq!(greetings.clone().count(), 20, "{out}");
        if greetings.collect::<BTreeSet<_>>().len() == servers.len() {
            break;
        }
        assert!(Instant::now() < limit, "20 calls did not reach both servers:\n{out}");
    }
}

#[tokio::test]
async fn an_address_without_a_registry_is_refused_with_the_reason() {
    let mut client = example("greeter-client");
    client.args(["--registry", "127.0.0.1:2379"]);
    let output = output(client, Duration::from_secs(10)).await;
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("127.0.0.1:2379"), "the error names the URL: {text}");
}
