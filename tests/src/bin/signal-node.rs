//! Runs an echo service on each address, all on one thread, until signals end them:
//! `signal-node ADDRESS...`. `Say` blocks that thread for ever, and prints `blocked` before it does.
//! Each prints `stopping` once a signal has told it to leave, before it does. With the address `never` a
//! service hangs in its first hook, and prints `starting` before it does; with `told-meanwhile` that hook holds the thread until the first signal.

use std::{env, process, thread};

use micro::{Request, Response, Service, Status, Stream, Streaming};
use tests::{
    echo::Echo,
    proto::echo::{
        ChatMessage, CountReply, CountRequest, EchoHandler, SayReply, SayRequest, SumReply,
        SumRequest, register_echo_handler,
    },
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

struct Blocking;

impl EchoHandler for Blocking {
    async fn say(&self, _: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        println!("blocked");
        loop {
            thread::park();
        }
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<impl Stream<Item = Result<CountReply, Status>> + Send + 'static>, Status>
    {
        Echo.count(request).await
    }

    async fn sum(
        &self,
        request: Request<Streaming<SumRequest>>,
    ) -> Result<Response<SumReply>, Status> {
        Echo.sum(request).await
    }

    async fn chat(
        &self,
        request: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<impl Stream<Item = Result<ChatMessage, Status>> + Send + 'static>, Status>
    {
        Echo.chat(request).await
    }
}

/// Ends once the process has had a SIGTERM, of which the threads of its runtime need not know yet.
fn until_told() {
    let runtime = runtime::Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime").block_on(async {
        let mut told = signal(SignalKind::terminate()).expect("a signal can be listened for");
        println!("starting");
        told.recv().await;
    });
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<(), micro::Error> {
    thread::spawn(|| {
        // The parent's end of the pipe closes with it, however it ends.
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        process::exit(1);
    });
    let mut running = JoinSet::new();
    for address in env::args().skip(1) {
        let mut service = Service::builder("echo")
            .registry("memory://")
            .address(&address)
            .before_stop(|| async {
                println!("stopping");
                Ok::<_, micro::Error>(())
            });
        if address == "never" {
            service = service.before_start(|| async {
                println!("starting");
                std::future::pending::<Result<(), micro::Error>>().await
            });
        }
        if address == "told-meanwhile" {
            service = service.before_start(|| async {
                thread::spawn(until_told).join().expect("no panic");
                Ok::<_, micro::Error>(())
            });
        }
        let mut service = service.build().await?;
        register_echo_handler(service.server(), Blocking);
        running.spawn(service.run());
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic")?;
    }
    Ok(())
}
