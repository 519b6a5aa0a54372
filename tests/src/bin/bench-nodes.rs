//! The benchmarks' nodes: three, in this one process. Prints their addresses in one line.

use std::{io::Read, process, thread};

use micro::Service;
use tests::{echo::Echo, proto::echo::register_echo_handler};

#[tokio::main]
async fn main() -> Result<(), micro::Error> {
    thread::spawn(|| {
        // The parent's end of the pipe closes with it, however it ends.
        let _ = std::io::stdin().read(&mut [0]);
        process::exit(1);
    });
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let mut service = Service::builder("echo").registry("memory://").build().await?;
        register_echo_handler(service.server(), Echo);
        nodes.push(service.start().await?);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
    println!("{}", addresses.join(" "));
    std::future::pending().await
}
