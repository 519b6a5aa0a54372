//! Each example is run as its reader would, and what it prints is checked.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Output, Stdio},
    sync::Once,
    time::Duration,
};

use tests::{
    etcd::Etcd,
    programs::{build_examples, program, root},
};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

fn example(name: &str) -> Command {
    static BUILD: Once = Once::new();
    BUILD.call_once(build_examples);
    let mut command = Command::new(program(name));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MICRO_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
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
    assert_eq!(lines("failed").len(), 1, "{out}");
    assert_eq!(out.lines().last(), Some("failed: nothing"), "{out}");
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
async fn failing_node_has_few_calls_and_no_caller_notices() {
    let out = printed(example("failing-node")).await;
    let first = out.lines().next().unwrap_or_default();
    let again = first.strip_prefix("1000 calls answered, ").and_then(|rest| rest.split_once(' '));
    let again: u32 = again.and_then(|(number, _)| number.parse().ok()).expect(&out);
    assert!((1..50).contains(&again), "{out}");
    assert!(!first.contains("node-2"), "{out}");
    let node = out.lines().find(|line| line.starts_with("  node-2 at ")).expect(&out);
    assert!(node.contains("; 0 in flight, health 0."), "it has failed: {out}");
    assert_eq!(out.lines().filter(|line| line.contains("health 1.00")).count(), 2, "{out}");
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
        "Unavailable: no node of service 'greter' is ready: none is registered in memory://; did \
         you mean 'greeter'? registered there: 'greeter'",
    ];
    assert_eq!(out.lines().count(), expected.len(), "{out}");
    for (line, expected) in out.lines().zip(expected) {
        // After the panic's comes its id.
        let line = if expected.ends_with(" id ") { &line[..expected.len()] } else { line };
        assert_eq!(line, expected);
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
async fn hooks_run_in_their_order() {
    let expected = "before_start: nothing listens yet, and nobody can find the node\n\
                    after_start:  the node takes calls\n\
                    a call:       Hello, hooks!\n\
                    before_stop:  the node is still found, and takes calls\n\
                    after_stop:   the last call has ended, and the node is gone\n\
                    not started:  before_start hook 1 of 1 failed: the database is away\n";
    assert_eq!(printed(example("hooks")).await, expected);
}

#[tokio::test]
async fn metadata_goes_both_ways() {
    let expected = "any: Hello, world! (en)\nfr: Bonjour, world! (fr)\ntlh: Hello, world! (en)\n";
    assert_eq!(printed(example("metadata")).await, expected);
}

#[tokio::test]
async fn several_services_call_each_other_by_name() {
    let expected = "Hello, world! (greeter)\nHELLO, WORLD! (crier, by way of greeter)\n";
    assert_eq!(printed(example("several-services")).await, expected);
}

#[tokio::test]
async fn the_greeters_log_on_standard_error_unless_told_not_to() {
    let run = |rust_log: &str| {
        let mut client = example("greeter-client");
        // Nobody is there: it says what it knows, and fails.
        client.args(["--registry", "static://greeter=127.0.0.1:1", "--calls", "1"]);
        client.env("RUST_LOG", rust_log);
        output(client, Duration::from_secs(20))
    };
    let (by_default, off) = tokio::join!(run(""), run("off"));
    let logs = |output: &Output| {
        String::from_utf8_lossy(&output.stderr).contains("INFO micro::discovery")
            && String::from_utf8_lossy(&output.stderr).contains("nodes added 1")
    };
    assert!(logs(&by_default), "{by_default:?}");
    assert!(!logs(&off) && !off.stderr.is_empty(), "only main's error: {off:?}");
    assert_eq!(by_default.stdout, b"", "nothing but what the program prints");
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

macro_rules! the_greeter_on {
    ($($registry:ident)*) => {
        mod the_greeter_is_found_on {
            $(
                #[tokio::test]
                async fn $registry() {
                    super::greets_on(stringify!($registry)).await;
                }
            )*
        }
    };
}

the_greeter_on! { consul dns etcd file kubernetes mdns nats r#static zookeeper }

// In a suite of its own, which has its server.
#[cfg(feature = "nacos")]
#[tokio::test]
async fn the_greeter_is_found_on_nacos() {
    greets_on("nacos").await;
}

/// By the one command that starts all of it: server, nodes and client.
async fn greets_on(registry: &str) {
    let registry = registry.trim_start_matches("r#");
    let greeters = example("greeter-server").as_std().get_program().to_owned();
    let mut run = Command::new(root().join("examples/registries/run"));
    run.arg(registry).env("MICRO_EXAMPLES", Path::new(&greeters).parent().unwrap());
    // A server that is not there yet is built first.
    let output = output(run, Duration::from_secs(600)).await;
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = out.lines().collect();
    let (commands, greetings) = lines.split_at(3);
    for (line, program) in commands.iter().zip(["server", "server", "client"]) {
        assert!(line.starts_with(&format!("$ greeter-{program} --registry ")), "{out}");
        assert!(line.contains(&format!("{registry}://")), "{out}");
    }
    assert_eq!(greetings.len(), 6, "{out}");
    for line in greetings {
        assert!(
            ["1", "2"].map(|n| format!("Hello, world! (node-{n})")).contains(&(*line).to_owned()),
            "{out}"
        );
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
    assert!(text.contains("(from --registry)"), "and where it came from: {text}");
}

#[tokio::test]
async fn help_says_each_flag_its_variable_and_its_default() {
    const CLIENT: [(&str, &str, &str); 3] = [
        ("--registry <URL>", "MICRO_REGISTRY", "mdns://"),
        ("--client-request-timeout <DURATION>", "MICRO_CLIENT_REQUEST_TIMEOUT", "5s"),
        ("--client-retries <NUMBER>", "MICRO_CLIENT_RETRIES", "4"),
    ];
    const SERVER: [(&str, &str, &str); 8] = [
        ("--server-name <NAME>", "MICRO_SERVER_NAME", "the program's choice"),
        ("--server-version <VERSION>", "MICRO_SERVER_VERSION", "latest"),
        ("--server-id <ID>", "MICRO_SERVER_ID", "the name, a dash and a new UUID"),
        ("--server-address <HOST:PORT>", "MICRO_SERVER_ADDRESS", "127.0.0.1:0"),
        ("--server-advertise <HOST[:PORT]>", "MICRO_SERVER_ADVERTISE", "the address listened on"),
        ("--server-metadata <KEY=VALUE,..>", "MICRO_SERVER_METADATA", "none"),
        ("--register-ttl <DURATION>", "MICRO_REGISTER_TTL", "15s"),
        ("--register-interval <DURATION>", "MICRO_REGISTER_INTERVAL", "a third of the TTL"),
    ];
    for (name, flags) in
        [("greeter-client", CLIENT.to_vec()), ("greeter-server", [&CLIENT[..], &SERVER].concat())]
    {
        let mut command = example(name);
        command.arg("--help").env("MICRO_REGISTRY", "etcd://root:secret@127.0.0.1");
        let help = printed(command).await;
        // Each flag's part, whatever the width that clap wraps at.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parts: Vec<_> = help.split("\n      --").skip(1).map(words).collect();
        for (flag, variable, default) in flags {
            let start = flag.trim_start_matches('-');
            let part = parts.iter().find(|part| part.starts_with(&format!("{start} ")));
            let part = part.unwrap_or_else(|| panic!("{flag} is not in\n{help}"));
            // The name is always the program's; all else it may leave to micro.
            let or = if variable == "MICRO_SERVER_NAME" { "" } else { "the program's, else " };
            let end = format!("[env: {variable}] [default: {or}{default}]");
            assert!(part.contains(&end), "{end} is not in\n{part}");
        }
        let all = parts.iter().filter(|part| part.contains("[env: MICRO_")).count();
        assert_eq!(all, if name == "greeter-client" { 3 } else { 11 }, "{help}");
        assert!(!help.contains("secret"), "{help}");
    }
}
