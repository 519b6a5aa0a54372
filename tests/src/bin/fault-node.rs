//! A node of the fault suite: writes each call that its handlers are given into a journal.

use std::{io::Read, path::PathBuf, process, sync::Arc, thread, time::Duration};

use clap::{Parser, ValueEnum};
use futures_util::stream;
use micro::{Request, Response, Service, Status, Stream, tls::ServerTls};
use tests::{
    fault::{Journal, SERVICE},
    proto::ledger::{
        Entry, FollowerHandler, LedgerHandler, Receipt, register_follower_handler,
        register_ledger_handler,
    },
};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    id: String,
    #[arg(long)]
    address: String,
    #[arg(long)]
    registry: String,
    #[arg(long)]
    journals: PathBuf,
    /// How many milliseconds a handler takes for a call: long enough that at any moment calls are in
    /// flight on each node.
    #[arg(long, default_value_t = 2)]
    takes: u64,
    /// What every call is answered with, at once, in place of a receipt.
    #[arg(long)]
    answers: Option<Answer>,
    /// The TTL of its registration, in seconds.
    #[arg(long)]
    ttl: Option<u64>,
    /// The folder with `ca`, `cert` and `key`; plaintext without.
    #[arg(long)]
    tls: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Answer {
    Unavailable,
    ResourceExhausted,
}

#[derive(Clone)]
struct Ledger {
    node: String,
    journal: Arc<Journal>,
    takes: Duration,
    answers: Option<Answer>,
}

impl Ledger {
    async fn receipt(&self, entry: Entry) -> Result<Response<Receipt>, Status> {
        let _visit = Visit::of(&self.journal, entry.id);
        let text = || format!("node {} answers nothing else", self.node);
        match self.answers {
            Some(Answer::Unavailable) => return Err(Status::unavailable(text())),
            Some(Answer::ResourceExhausted) => return Err(Status::resource_exhausted(text())),
            None => tokio::time::sleep(self.takes).await,
        }
        Ok(Response::new(Receipt { node: self.node.clone() }))
    }
}

/// A call that a handler has: written down when it ends, also where it is cancelled.
struct Visit {
    journal: Arc<Journal>,
    call: u64,
}

impl Visit {
    fn of(journal: &Arc<Journal>, call: u64) -> Self {
        journal.begin(call);
        Self { journal: journal.clone(), call }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.journal.end(self.call);
    }
}

impl LedgerHandler for Ledger {
    async fn read(&self, request: Request<Entry>) -> Result<Response<Receipt>, Status> {
        self.receipt(request.into_inner()).await
    }

    async fn write(&self, request: Request<Entry>) -> Result<Response<Receipt>, Status> {
        self.receipt(request.into_inner()).await
    }
}

impl FollowerHandler for Ledger {
    async fn follow(
        &self,
        request: Request<Entry>,
    ) -> Result<Response<impl Stream<Item = Result<Receipt, Status>> + Send + 'static>, Status>
    {
        let visit = Visit::of(&self.journal, request.into_inner().id);
        let receipt = Receipt { node: self.node.clone() };
        Ok(Response::new(stream::unfold(visit, move |visit| {
            let receipt = receipt.clone();
            async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Some((Ok(receipt), visit))
            }
        })))
    }
}

#[tokio::main]
async fn main() -> Result<(), micro::Error> {
    let filter = EnvFilter::from_default_env(); // RUST_LOG; errors unless set
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = Args::parse();
    thread::spawn(|| {
        // The parent's end of the pipe closes with it, however it ends.
        let _ = std::io::stdin().read(&mut [0]);
        process::exit(1);
    });

    let journal = Journal::open(&args.journals, &args.id).expect("the journal can be opened");
    let ledger = Ledger {
        node: args.id.clone(),
        journal: Arc::new(journal),
        takes: Duration::from_millis(args.takes),
        answers: args.answers,
    };
    let mut service =
        Service::builder(SERVICE).id(args.id).address(args.address).registry(args.registry);
    if let Some(ttl) = args.ttl {
        service = service.register_ttl(Duration::from_secs(ttl));
    }
    let mut service = service.build().await?;
    register_ledger_handler(service.server(), ledger.clone());
    register_follower_handler(service.server(), ledger);
    if let Some(folder) = args.tls {
        let [ca, cert, key] = ["ca", "cert", "key"].map(|name| folder.join(name));
        service.server().tls(ServerTls::from_files(cert, key).client_ca_file(ca));
    }
    service.run().await
}
