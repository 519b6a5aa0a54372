//! Finds the greeter by its name in the registry and calls it a few times.

use std::{error::Error, time::Duration};

use clap::Parser;
use micro::{Client, args::ClientArgs};

micro::include_proto!("greeter.v1");

/// Calls the greeter.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    micro: ClientArgs,
    /// Whom to greet.
    #[arg(long, default_value = "world")]
    name: String,
    /// How many calls to make.
    #[arg(long, default_value_t = 6)]
    calls: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    micro::init_tracing();
    let args = Args::parse();

    let client = Client::builder().args(args.micro).build()?;
    let greeter = GreeterClient::new("greeter", &client);

    for _ in 0..args.calls {
        let request = HelloRequest { name: args.name.clone() };
        // The deadline covers everything: finding a node, connecting, the call, a second attempt.
        let reply = greeter.hello(request).timeout(Duration::from_secs(3)).await?.into_inner();
        println!("{} ({})", reply.greeting, reply.node);
    }
    Ok(())
}
