//! A network of a test's own: a namespace in which there is a loopback interface and nothing else, so
//! that multicast meets nobody and leaves the machine by no way.

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};

use tokio::runtime;

/// Set for the process in the namespace: the name of its test.
const INSIDE: &str = "MICRO_TEST_NAMESPACE";

/// What the namespace's network is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The loopback interface is up, and the way for all multicast.
    Loopback,
    /// As that, and an interface `near` at 10.9.0.1, on a wire whose other end, `far`, is here too.
    Wire,
    /// As `Loopback`, and two such wires, whose near ends `near` and `near2` are down: one is 10.9.0.1 and
    /// fd09::1, the other 10.9.1.1.
    Wires,
    /// As `Loopback`, and the interface has 10.1.0.0/24 and fd00:1::1 too: addresses that pods may have.
    Pods,
    /// As `Loopback`, and the system's resolver is one at 127.0.0.1, port 53, with the domain `test`.
    Resolver,
    /// Nothing is up.
    Nothing,
}

/// Runs a test in a namespace of its own where the loopback interface is all there is.
///
/// # Panics
/// As [`inside`].
pub fn on_loopback(test: &str, body: impl Future<Output = ()>) {
    inside(test, Network::Loopback, body);
}

/// Runs a test in a namespace of its own: this very program again, with this test alone. Its name is
/// that of the calling function.
///
/// # Panics
/// When the test in there does, or there is no namespace to be had.
pub fn inside(test: &str, network: Network, body: impl Future<Output = ()>) {
    if env::var_os(INSIDE).is_some_and(|name| name == test) {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        return runtime.expect("a runtime").block_on(body);
    }
    let output = unshare(network, "--exact \"$1\" --nocapture --test-threads 1")
        .arg(test)
        .env(INSIDE, test)
        .output()
        .expect("unshare, of util-linux, runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    // No test of that name would be no failure.
    let has_run = said.contains("test result: ok. 1 passed");
    assert!(output.status.success() && has_run, "in a network namespace (unshare, ip): {said}");
    // Marked, since whoever counts test results has counted this one's own.
    said.lines().for_each(|line| println!("| {line}"));
}

/// Runs this very program again in a namespace of its own, and tells how that ended; none if it is in
/// one.
///
/// # Panics
/// When there is no namespace to be had.
pub fn again(network: Network) -> Option<ExitCode> {
    if env::var_os(INSIDE).is_some() {
        return None;
    }
    let ended = unshare(network, "").env(INSIDE, "all").status();
    let code = ended.expect("unshare, of util-linux, runs").code();
    Some(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// This program in a namespace, with these arguments in the shell's words.
fn unshare(network: Network, arguments: &str) -> Command {
    let loopback =
        "ip link set lo up && ip link set lo multicast on && ip route add 224.0.0.0/4 dev lo && ";
    let wire = "ip link add near type veth peer name far && ip addr add 10.9.0.1/24 dev near && \
        ip link set near up && ";
    let setup = match network {
        Network::Loopback => loopback.to_owned(),
        Network::Wire => loopback.to_owned() + wire,
        Network::Wires => {
            let near = "ip link add near type veth peer name far && ip addr add 10.9.0.1/24 dev near && \
                ip addr add fd09::1/64 dev near nodad && ";
            let near2 = "ip link add near2 type veth peer name far2 && \
                ip addr add 10.9.1.1/24 dev near2 && ";
            loopback.to_owned() + near + near2
        }
        Network::Pods => {
            let more = "ip addr add 10.1.0.1/24 dev lo && ip addr add fd00:1::1/128 dev lo && ";
            loopback.to_owned() + more
        }
        Network::Resolver => {
            let text = "nameserver 127.0.0.1\\nsearch test\\n";
            let file = "/etc/resolv.conf";
            loopback.to_owned()
                + &format!(
                    "f=$(mktemp) && printf '{text}' >$f && mount --bind $f {file} && rm $f && "
                )
        }
        Network::Nothing => String::new(),
    };
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c"])
        .arg(format!("{setup}exec \"$0\" {arguments}"))
        .arg(env::current_exe().expect("a program knows where it is"))
        .stdin(Stdio::null());
    command
}
